"""Features of some pictures that follow one another, as they go into files and come out of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import numpy.typing as npt

from featkit.errors import FeatkitError, InputError

Array = npt.NDArray[Any]

#: numpy's names of what values may be: every format, and what else reads it, has each of them.
DTYPES = ("float32", "float16", "uint8")

#: What files add to the name of a ragged field, for the numbers of its items.
COUNTS = ".counts"

# Names that the formats have for what is not a feature.
_TAKEN = ("path", "paths", "sha256", "error", "errors", "config")
_LONGEST_NAME = 200
_MOST_DIMENSIONS = 8
# Arrow counts the values of one item in 31 bits.
_LARGEST_WIDTH = (1 << 31) - 1
_BYTES_MARK = "bytes:"
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True)
class Field:
    """One kind of feature: `name` ("head", "blocks.5", "sift.descriptors"), `dtype` (one of DTYPES), and `shape` of one
    picture's value. ragged: a picture has any number of items, and `shape` is that of one.

    Raises ValueError for a name that a file cannot hold: one with a slash or a character that cannot be printed, of
    more than 200 characters, or that files have for something else.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    ragged: bool = False

    def __post_init__(self) -> None:
        name = self.name
        if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME or "/" in name or name in (".", "..", *_TAKEN):
            raise ValueError(f"features cannot be called {name[:_LONGEST_NAME]!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"features are {', '.join(DTYPES)}, and not {self.dtype}")
        if len(self.shape) > _MOST_DIMENSIONS or min(self.shape, default=1) < 1 or self.width > _LARGEST_WIDTH:
            raise ValueError(f"features cannot have the shape {self.shape}")

    @property
    def width(self) -> int:
        """Numbers of one picture, or of one item."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of these numbers."""
        return self.width * np.dtype(self.dtype).itemsize

    @property
    def blank(self) -> float:
        """What stands where a picture failed: NaN, or 0 among integers."""
        return math.nan if np.dtype(self.dtype).kind == "f" else 0

    @property
    def counts_name(self) -> str:
        """What files call the numbers of items, if it is ragged."""
        return self.name + COUNTS


def check_fields(fields: Sequence[Field]) -> None:
    """Raises ValueError for no fields, and for fields that cannot be in one file: two of one name, or one called as the
    counts of another."""
    names = [field.name for field in fields] + [field.counts_name for field in fields if field.ragged]
    if not names:
        raise ValueError("there are no features")
    if len(set(names)) < len(names):
        raise ValueError(f"two features are called the same: {', '.join(names)}")


@dataclass(frozen=True, eq=False)
class Table:
    """Pictures that follow one another, N of them, readable or not.

    paths: as they were given. digests: SHA-256 of the files' bytes, hexadecimal, "" where they could not be read.
    errors: "code: message", "" where there is none. values: field name -> N×shape, blank (`Field.blank`) where there is
    an error; of a ragged field the items of all pictures one after the other, M×shape. counts: int64 N, the items of
    each picture, for the ragged fields. Without values, it is a list of what is there.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    errors: tuple[str, ...]
    values: Mapping[str, Array]
    counts: Mapping[str, npt.NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int) -> Table:
        """Those from `start` up to `stop`, which may lie beyond the end; the arrays are views."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        values = {name: array[start:stop] for name, array in self.values.items() if name not in self.counts}
        for name, counts in self.counts.items():
            before = int(counts[:start].sum())
            values[name] = self.values[name][before : before + int(counts[start:stop].sum())]
        return Table(
            self.paths[start:stop],
            self.digests[start:stop],
            self.errors[start:stop],
            {name: values[name] for name in self.values},
            {name: counts[start:stop] for name, counts in self.counts.items()},
        )

    def check(self, fields: Sequence[Field]) -> None:
        """Raises ValueError unless it holds these fields, in arrays of their dtypes and shapes, blank where pictures
        failed."""
        if not len(self.paths) == len(self.digests) == len(self.errors):
            raise ValueError("there are not as many digests or errors as pictures")
        if not all(map(_DIGEST.fullmatch, self.digests)):
            raise ValueError("a digest is not 64 hexadecimal digits")
        if self.values.keys() != {field.name for field in fields}:
            raise ValueError(f"there are values of {', '.join(self.values)}")
        if self.counts.keys() != {field.name for field in fields if field.ragged}:
            raise ValueError(f"there are counts of {', '.join(self.counts)}")
        failed = np.array([error != "" for error in self.errors], bool)
        for field in fields:
            self._check_values(field, failed)

    def _check_values(self, field: Field, failed: npt.NDArray[np.bool_]) -> None:
        values = self.values[field.name]
        rows = len(self)
        if field.ragged:
            counts = self.counts[field.name]
            if counts.dtype != np.int64 or counts.shape != (rows,) or (counts < 0).any() or counts[failed].any():
                raise ValueError(f"{field.name}: these are no counts of {rows} pictures, 0 where one failed")
            rows = int(counts.sum())
        if values.dtype != field.dtype or values.shape != (rows, *field.shape):
            raise ValueError(f"{field.name} is {values.dtype} {values.shape}, and not {field} of {rows}")
        if not field.ragged and failed.any():
            rest = values[failed]
            if not (np.isnan(rest) if values.dtype.kind == "f" else rest == 0).all():
                raise ValueError(f"{field.name} has values of a picture that failed")


def joined(tables: Iterable[Table], fields: Sequence[Field]) -> Table:
    """One table of several that hold these fields; of none, one without pictures."""
    tables = [_no_pictures(fields), *tables]
    return Table(
        tuple(path for table in tables for path in table.paths),
        tuple(digest for table in tables for digest in table.digests),
        tuple(error for table in tables for error in table.errors),
        {field.name: np.concatenate([table.values[field.name] for table in tables]) for field in fields},
        {
            field.name: np.concatenate([table.counts[field.name] for table in tables])
            for field in fields
            if field.ragged
        },
    )


def _no_pictures(fields: Sequence[Field]) -> Table:
    return Table(
        (),
        (),
        (),
        {field.name: np.empty((0, *field.shape), field.dtype) for field in fields},
        {field.name: np.empty(0, np.int64) for field in fields if field.ragged},
    )


# --- errors, as tables have them


def error_text(error: FeatkitError | None) -> str:
    """ "" for none."""
    return "" if error is None else f"{error.code}: {error.message}"


def error_of(text: str, path: str) -> InputError:
    """What became of a picture, of a text that is not empty."""
    code, _, message = text.partition(": ")
    error = InputError(message or text, path=path)
    error.code = code if message else error.code
    return error


# --- texts, as files hold them


@dataclass(frozen=True)
class Texts:
    """What a file holds of some pictures beside their features, in UTF-8 without NUL."""

    paths: list[str]
    sha256: list[str]
    errors: list[str]


def texts_of(table: Table) -> Texts:
    return Texts(list(map(to_stored, table.paths)), list(table.digests), list(map(to_stored, table.errors)))


def from_texts(texts: Texts, values: Mapping[str, Array], counts: Mapping[str, npt.NDArray[np.int64]]) -> Table:
    """The other way round."""
    paths, errors = map(from_stored, texts.paths), map(from_stored, texts.errors)
    return Table(tuple(paths), tuple(texts.sha256), tuple(errors), values, counts)


def to_stored(text: str) -> str:
    """A file name as formats hold it that know nothing but UTF-8: itself, where it is UTF-8 without NUL.

    Any other is "bytes:" and its bytes, those that are not ASCII letters, digits or one of _.-~/ as %HH, like
    bytes:caf%E9.jpg; so is one that begins with "bytes:". ValueError for a name that is not the bytes of a file's.
    """
    if not text.startswith(_BYTES_MARK) and "\0" not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _BYTES_MARK + quote_from_bytes(text.encode("utf-8", "surrogateescape"))


def from_stored(text: str) -> str:
    """The file name that `to_stored` was given."""
    if not text.startswith(_BYTES_MARK):
        return text
    return unquote_to_bytes(text.removeprefix(_BYTES_MARK)).decode("utf-8", "surrogateescape")
