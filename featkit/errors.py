"""Every error that a user can meet, as one tree.

    FeatkitError                 exit 2   base; message, hint, path, code
    ├── UsageError               exit 2   options that do not go together, a malformed value
    ├── InputError               exit 2   something the user pointed at cannot be used
    │   ├── FileMissing                   there is nothing at that path
    │   ├── NotAFile                      a folder, a FIFO, a socket or a device
    │   ├── FileUnreadable                permission or the disk refuses
    │   ├── ListMalformed                 a list of pictures or pairs that cannot be read
    │   ├── PosesMalformed                a file of poses that is none, or not whole
    │   ├── DatasetMalformed              a folder or a CSV file that holds no labelled pictures
    │   ├── FeaturesDamaged               a file of features that is none, of another version, or not whole
    │   ├── ModelDamaged                  a model file that is none, of another version, or not whole
    │   ├── ModelMismatch                 a model, and pictures' features made otherwise than it was trained on
    │   └── ImageError                    the bytes are there, and no picture comes out
    │       ├── ImageEmpty                0 bytes
    │       ├── ImageUnknown              not one of the formats featkit reads
    │       ├── ImageDamaged              cut short, or a checksum is wrong
    │       ├── ImageTooLarge             more pixels than --max-pixels
    │       └── ImageUnsupported          readable, but ambiguous: float samples, several frames
    ├── OutputError              exit 2   a result cannot be written
    │   ├── OutputExists                  the file is there already, and --force was not given
    │   └── OutputDamaged                 a saved file is not whole (--check)
    ├── DependencyError          exit 2   a library or an extra is missing or does not load
    └── NothingJoined            exit 3   from Python: photos of which no two belong together

`code` is the stable word in `"type": "error"` records; `hint` says what to do next. The remaining exit statuses belong
to no error: 0 done, 1 some inputs failed and the rest is done, 130 interrupted; nor does 3, it ran and there is no
reliable result, on the command line, where that is a result like others.
"""

from __future__ import annotations


class FeatkitError(Exception):
    """Base of every error that featkit raises on purpose.

    Attributes: `message` (one sentence, no path), `path` (what it is about, or None), `hint` (what to do, or None),
    `code` (stable, for records) and `exit_status`.
    """

    code = "error"
    exit_status = 2

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        self.message = message
        self.path = path
        self.hint = hint
        super().__init__(message if path is None else f"{path}: {message}")


class UsageError(FeatkitError):
    code = "usage"


class InputError(FeatkitError):
    code = "input"


class FileMissing(InputError):
    code = "missing"


class NotAFile(InputError):
    code = "not-a-file"


class FileUnreadable(InputError):
    code = "unreadable"


class ListMalformed(InputError):
    code = "list"


class PosesMalformed(InputError):
    code = "poses"


class DatasetMalformed(InputError):
    code = "dataset"


class FeaturesDamaged(InputError):
    code = "features"


class ModelDamaged(InputError):
    code = "model"


class ModelMismatch(InputError):
    code = "mismatch"


class ImageError(InputError):
    code = "image"


class ImageEmpty(ImageError):
    code = "empty"


class ImageUnknown(ImageError):
    code = "unknown-format"


class ImageDamaged(ImageError):
    code = "damaged"


class ImageTooLarge(ImageError):
    code = "too-large"


class ImageUnsupported(ImageError):
    code = "unsupported"


class OutputError(FeatkitError):
    code = "output"


class OutputExists(OutputError):
    code = "exists"


class OutputDamaged(OutputError):
    code = "not-whole"


class DependencyError(FeatkitError):
    code = "dependency"


class NothingJoined(FeatkitError):
    code = "nothing-joined"
    exit_status = 3
