"""What leaves the program: JSON Lines records, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from featkit.errors import FeatkitError, OutputError, OutputExists

VERSION = 1
#: What the names of files begin with that are being written.
TEMPORARY = ".featkit-"


def record(kind: str, /, **fields: object) -> dict[str, object]:
    """One result as a dict: `v` (the version of the record format) and `type` first, then the fields in their order."""
    return {"v": VERSION, "type": kind, **fields}


def error_record(error: FeatkitError) -> dict[str, object]:
    """The record that stands for an item that failed; `path` and `hint` may be None."""
    return record("error", path=error.path, code=error.code, message=error.message, hint=error.hint)


def to_json(record: Mapping[str, object]) -> str:
    """One line of ASCII JSON without its line end.

    numpy scalars and arrays become numbers and lists. A file name with bytes that are not UTF-8 keeps them as `\\udcXX`
    and survives `json.loads` and `os.fsencode`. NaN and infinity are no JSON: ValueError. Other types: TypeError.
    """
    return json.dumps(record, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    # Asked by method, not by type, so that a record without arrays does not import numpy.
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"a record cannot hold a {type(value).__name__}")
    return to_list()


def write_atomically(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> None:
    """Write `data` to `path` as `replacing` does."""
    with replacing(path, force=force) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, with the same extension, that becomes `path` if all goes well.

    On any exception, KeyboardInterrupt included, the temporary is removed and an older file at `path` stays as it was.
    A symbolic link is followed: its target is replaced. Nothing is synced to the disk: a rename survives a killed
    process, which is what is promised, not a power failure.

    Raises OutputExists (also when the file appeared meanwhile) and OutputError as `check_writable` does, and
    OutputError if the disk fills up; other exceptions of the body pass through.
    """
    check_writable(path, force=force)
    target = _target(path)
    # A short name of its own: `path` may be as long as the file system allows.
    temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(6)}{target.suffix}")
    try:
        try:
            temporary.touch(exist_ok=False)
        except OSError as error:
            raise _output_error(error, path) from error
        try:
            yield temporary
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _output_error(error, path) from error
            raise
        check_writable(path, force=force)
        try:
            temporary.replace(target)
        except OSError as error:
            raise _output_error(error, path) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def check_writable(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises OutputExists if a file is there and `force` is False; OutputError if `path` is a folder, a device or a pipe,
    or if its folder is missing or cannot be written to.
    """
    name = os.fspath(path)
    try:
        mode = Path(name).stat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise _output_error(error, path) from error
    if name.endswith(os.sep) or (mode is not None and stat.S_ISDIR(mode)):
        raise _output_error(IsADirectoryError(errno.EISDIR, ""), path)
    if mode is not None and not stat.S_ISREG(mode):
        # Renaming onto /dev/null would replace the device by a file.
        raise OutputError("is a device or a pipe, not a file", path=name, hint="name a regular file")
    if mode is not None and not force:
        raise OutputExists("exists already", path=name, hint="--force overwrites it")
    folder = _target(path).parent
    try:
        folder.stat()
    except OSError as error:
        raise _output_error(error, path) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _output_error(PermissionError(errno.EACCES, ""), path)


def _target(path: str | os.PathLike[str]) -> Path:
    # Only a link is resolved: the way from the root to a relative path may not be open to this user.
    return Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)


_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def _output_error(error: OSError, path: str | os.PathLike[str]) -> OutputError:
    name = os.fspath(path)
    folder = str(Path(name).parent)
    message = f"cannot be written: {error.strerror or error}"
    hint = None
    match error.errno:
        case errno.ENOENT:
            message = f"there is no folder {folder}"
            hint = f"make it first: mkdir -p {shlex.quote(folder)}"
        case errno.ENOTDIR:
            message = f"{folder} is not a folder"
            hint = "name a file in a folder that exists"
        case errno.EISDIR:
            message = "names a folder"
            hint = "name a file in it"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            message = f"the folder {folder} cannot be written to"
            hint = "write somewhere else, or change its permissions"
        case errno.ENOSPC | errno.EDQUOT:
            message = "the disk is full"
            hint = "free some space, or write to another disk"
        case errno.EFBIG:
            message = "the file would be larger than this system allows"
            hint = "raise the limit: ulimit -f unlimited"
    return OutputError(message, path=name, hint=hint)


def printable(text: str) -> str:
    """A file name or message fit for one line of a terminal: control characters and undecodable bytes escaped."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as os.fsdecode keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
