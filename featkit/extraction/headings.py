"""What a file of features says of itself, in JSON; and the errors of those that say something else."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from featkit.errors import FeatkitError, FeaturesDamaged, FileUnreadable
from featkit.extraction.tables import Field, check_fields

#: Raised when a reader of the files would have to change.
VERSION = 1

_TYPE = "featkit-features"
_MADE_BY = "features are what featkit extract PICTURES -o FILE writes"
_MADE_AGAIN = "copy it again from where it is whole, or make it again with featkit extract"


@dataclass(frozen=True)
class Heading:
    """fields: the features in the file. config: what made them, as JSON holds it. count: the pictures."""

    fields: tuple[Field, ...]
    config: Mapping[str, Any]
    count: int

    def to_json(self) -> str:
        """ASCII; the same for the same heading. ValueError or TypeError for a config that JSON cannot hold."""
        return canonical(document_of(self))


def document_of(heading: Heading) -> dict[str, Any]:
    """What `heading_of` reads."""
    fields = [asdict(field) for field in heading.fields]
    return {
        "v": VERSION,
        "type": _TYPE,
        "config": dict(heading.config),
        "fields": fields,
        "pictures": heading.count,
    }


def canonical(document: Mapping[str, Any]) -> str:
    """The one JSON text, in ASCII, of what is equal."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str | bytes, path: str) -> dict[str, Any]:
    """The document of a file; InputError where it is none, or not of this version."""
    try:
        document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(document, dict) or document.get("type") != _TYPE:
        raise foreign(path)
    if document.get("v") != VERSION:
        message = f"its features are of version {str(document.get('v'))[:20]}, and this featkit reads version {VERSION}"
        raise FeaturesDamaged(
            message, path=path, hint="make it again with this featkit, or use the featkit that wrote it"
        )
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def heading_of(document: Mapping[str, Any], path: str) -> Heading:
    """Raises InputError where it is none."""
    try:
        fields = tuple(_field(each) for each in document["fields"])
        check_fields(fields)
        config = document["config"]
        if not isinstance(config, dict):
            raise TypeError("the config is no object")
        canonical(config)  # Whatever was read can be written again.
        return Heading(fields, config, whole_number(document["pictures"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path) from error


def _field(document: Mapping[str, Any]) -> Field:
    name, dtype, shape, ragged = (document[key] for key in ("name", "dtype", "shape", "ragged"))
    if not isinstance(name, str) or not isinstance(ragged, bool):
        raise TypeError("not a field")
    return Field(name, dtype, tuple(map(whole_number, shape)), ragged)


def whole_number(value: object) -> int:
    """ValueError for what is no number of things."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("not a number of things")
    return value


def damaged(path: str, what: str = "") -> FeaturesDamaged:
    """What is said of a file that is not as it was written."""
    message = f"the features are damaged: {what}" if what else "it holds no features, or they are damaged"
    return FeaturesDamaged(message, path=path, hint=_MADE_AGAIN)


def foreign(path: str) -> FeaturesDamaged:
    """What is said of a file that featkit extract did not write."""
    return FeaturesDamaged("this holds no features of featkit", path=path, hint=_MADE_BY)


@contextlib.contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong while features are read is FeaturesDamaged; an OSError of the system's stays what it is."""
    try:
        yield
    except FeatkitError:
        raise
    except MemoryError as error:
        raise FileUnreadable("it is larger than the memory", path=os.fspath(path)) from error
    except Exception as error:  # Libraries that read damaged bytes, or such as were made to deceive, raise anything.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(os.fspath(path)) from error
