"""Features of one kind as a NumPy array, N×shape, one picture a row, and an index of the rows beside it.

NAME.npy            the array; NaN, or 0 among integers, where a picture failed
NAME.index.jsonl    the heading, with the SHA-256 of NAME.npy; then for each row a line with `row`, `path`, `sha256`
                    and `error`, null where there is none. A path that is not UTF-8 holds its bytes as \\udcXX
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from featkit.errors import UsageError
from featkit.extraction.array_streams import ArrayStream, bytes_of, pictures_at_once, write_header
from featkit.extraction.headings import Heading, canonical, damaged, document_of, from_json, heading_of, told
from featkit.extraction.tables import Field, Table
from featkit.files import opened
from featkit.records import replacing, to_json

INDEX = ".index.jsonl"

# A name of 4096 bytes has six characters for each of them at worst, and an error may hold another.
_LONGEST_LINE = 1 << 20
_LONGEST_HEADING = 1 << 26


def index_of(path: Path) -> Path:
    """The index that belongs to a .npy file."""
    return path.with_name(path.stem + INDEX)


def check_fields(fields: Sequence[Field]) -> None:
    """Raises UsageError for what a .npy file cannot hold."""
    hint = "write .npz, .parquet or .h5, or a folder"
    if len(fields) != 1:
        raise UsageError(f"a .npy file holds one kind of features, and there are {len(fields)}", hint=hint)
    if fields[0].ragged:
        message = f"a .npy file holds one value a picture, and {fields[0].name} is any number of them"
        raise UsageError(message, hint=hint)


class _Hashing:
    """A file of which all that is read, or written, goes into a SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = cast(Any, file)
        self.digest = sha256()

    def write(self, data: Any, /) -> None:
        self.digest.update(data)
        self._file.write(data)

    def read(self, size: int, /) -> bytes:
        data: bytes = self._file.read(size)
        self.digest.update(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        count: int = self._file.readinto(buffer)
        self.digest.update(buffer[:count])
        return count


@contextlib.contextmanager
def writing(path: Path, heading: Heading, *, force: bool) -> Iterator[Writer]:
    """For two files that appear whole or not at all; the index first, which tells an older array from its own."""
    check_fields(heading.fields)
    with replacing(path, force=force) as array, replacing(index_of(path), force=force) as index:
        with array.open("wb") as file:
            writer = Writer(file, heading)
            yield writer
        with index.open("w", encoding="ascii") as file_of_lines:
            file_of_lines.writelines(writer.index())


class Writer:
    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file, self._heading = _Hashing(file), heading
        self._lines: list[str] = []
        (self._field,) = heading.fields
        write_header(self._file, self._field.dtype, (heading.count, *self._field.shape))

    def add(self, table: Table) -> None:
        self._file.write(bytes_of(table.values[self._field.name]))
        for path, digest, error in zip(table.paths, table.digests, table.errors, strict=True):
            row = {"row": len(self._lines), "path": path, "sha256": digest or None, "error": error or None}
            self._lines.append(to_json(row) + "\n")

    def index(self) -> Iterator[str]:
        """Its lines, once there are all tables."""
        heading = {**document_of(self._heading), "sha256": self._file.digest.hexdigest()}
        yield canonical(heading) + "\n"
        yield from self._lines


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    # The index names what is missing, where one of the two is.
    with (
        opened(path, "file of features") as array,
        opened(index_of(Path(path)), "index of features") as index,
        told(path),
    ):
        yield Reader(array, index, path)


class Reader:
    def __init__(self, array: BinaryIO, index: BinaryIO, path: str) -> None:
        self._index, self._path = index, path
        document = from_json(_line(index, _LONGEST_HEADING), str(index_of(Path(path))))
        self.heading = heading_of(document, path)
        self._digest = document.get("sha256")
        (field,) = self.heading.fields
        self._file = _Hashing(array)
        self._array = ArrayStream(self._file, os.fstat(array.fileno()).st_size)
        if self._array.dtype != field.dtype or self._array.shape != (self.heading.count, *field.shape):
            raise damaged(path, "the array is not the one that its index declares")

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        at_once = pictures_at_once(self.heading.fields)
        for start in range(0, self.heading.count, at_once):
            rows = [self._row(row) for row in range(start, min(start + at_once, self.heading.count))]
            values = self._array.read(len(rows))
            paths, digests, errors = zip(*rows, strict=True)
            yield Table(paths, digests, errors, {field.name: values for field in fields}, {})
        if self._index.read(1) or self._file.digest.hexdigest() != self._digest:
            raise damaged(self._path, "the array is not the one that its index belongs to")

    def _row(self, row: int) -> tuple[str, str, str]:
        """Path, digest and error of a row. Raises ValueError for what is not written so."""
        document = json.loads(_line(self._index, _LONGEST_LINE))
        path, digest, error = document["path"], document["sha256"] or "", document["error"] or ""
        if document["row"] != row or not all(isinstance(each, str) for each in (path, digest, error)):
            raise ValueError("this is another row")
        return path, digest, error


def _line(file: BinaryIO, longest: int) -> bytes:
    line = file.readline(longest)
    if not line.endswith(b"\n"):
        raise ValueError("a line is cut short")
    return line
