"""Features as a NumPy archive, neither compressed nor pickled: numpy.load(FILE) gives

    config              str: the heading, in JSON
    paths, errors       str N, as `tables.to_stored` writes them; no error is ""
    sha256              str N, "" where the file could not be read
    NAME                N×shape, NaN, or 0 among integers, where the picture failed; of a ragged field the items of all
                        pictures, one after the other, M×shape
    NAME.counts         int64 N: the items of each picture, for a ragged field

So the items of picture i are f["sift.xy"][end[i] - counts[i] : end[i]], with counts = f["sift.xy.counts"] and end =
counts.cumsum(). The archive carries a CRC-32 checksum of each array.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from featkit.extraction.array_streams import ArrayStream, bytes_of, items_of, pictures_at_once, write_header
from featkit.extraction.headings import Heading, foreign, from_json, heading_of, told
from featkit.extraction.tables import Array, Field, Table, Texts, from_texts, texts_of
from featkit.files import opened
from featkit.records import replacing

_SUFFIX = ".npy"
_CONFIG = "config"
_TEXTS = ("paths", "sha256", "errors")
_COPIED_AT_ONCE = 1 << 22
# Strings of one array take as many bytes as the longest of them.
_STRINGS_AT_ONCE = 4096


@contextlib.contextmanager
def writing(path: Path, heading: Heading, *, force: bool) -> Iterator[Writer]:
    """For a file that appears whole or not at all.

    An archive takes one array after the other, and tables have some rows of each: these wait in files without a name
    beside it, so that for a while the features are on the disk twice.
    """
    with replacing(path, force=force) as temporary, contextlib.ExitStack() as waiting:
        writer = Writer(heading, waiting, temporary.parent)
        yield writer
        with zipfile.ZipFile(temporary, "w") as archive:
            writer.write_to(archive)


class Writer:
    def __init__(self, heading: Heading, waiting: contextlib.ExitStack, folder: Path) -> None:
        self._heading = heading
        self._texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
        self._rows = {field.name: 0 for field in heading.fields}
        self._counts: dict[str, list[Array]] = {field.name: [] for field in heading.fields if field.ragged}
        self._files = {
            field.name: waiting.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
            for field in heading.fields
        }

    def add(self, table: Table) -> None:
        for name, texts in vars(texts_of(table)).items():
            self._texts[name] += texts
        for name, values in table.values.items():
            self._rows[name] += len(values)
            self._files[name].write(bytes_of(values))
        for name, counts in table.counts.items():
            self._counts[name].append(counts)

    def write_to(self, archive: zipfile.ZipFile) -> None:
        """Everything, once there are all tables."""
        _write_strings(archive, _CONFIG, [self._heading.to_json()], ())
        for name in _TEXTS:
            _write_strings(archive, name, self._texts[name], (len(self._texts[name]),))
        for field in self._heading.fields:
            with _member(archive, field.name) as member:
                write_header(member, field.dtype, (self._rows[field.name], *field.shape))
                self._files[field.name].seek(0)
                shutil.copyfileobj(self._files[field.name], member, _COPIED_AT_ONCE)
            if field.ragged:
                with _member(archive, field.counts_name) as member:
                    write_header(member, "int64", (self._heading.count,))
                    for counts in self._counts[field.name]:
                        member.write(bytes_of(counts))


def _write_strings(archive: zipfile.ZipFile, name: str, texts: Sequence[str], shape: tuple[int, ...]) -> None:
    dtype = np.dtype(f"<U{max(map(len, texts), default=0) or 1}")
    with _member(archive, name) as member:
        write_header(member, dtype, shape)
        for start in range(0, len(texts), _STRINGS_AT_ONCE):
            member.write(bytes_of(np.array(texts[start : start + _STRINGS_AT_ONCE], dtype)))


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    # np.savez writes the time.
    return archive.open(zipfile.ZipInfo(name + _SUFFIX), "w", force_zip64=True)


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    with (
        opened(path, "file of features") as file,
        told(path),
        zipfile.ZipFile(file) as archive,
        contextlib.ExitStack() as members,
    ):
        yield Reader(archive, os.fstat(file.fileno()).st_size, members, path)


class Reader:
    def __init__(self, archive: zipfile.ZipFile, size: int, members: contextlib.ExitStack, path: str) -> None:
        self._archive, self._size, self._opened = archive, size, members
        self._members = {member.filename: member for member in archive.infolist()}
        if len(self._members) < len(archive.infolist()):
            raise ValueError("two arrays have one name")
        if _CONFIG + _SUFFIX not in self._members:
            raise foreign(path)
        (config,) = self._stream(_CONFIG, None, ()).read(1).tolist()
        self.heading = heading_of(from_json(config, path), path)

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        count = self.heading.count
        texts = [self._stream(name, None, (count,)) for name in _TEXTS]
        values = {
            field.name: self._stream(field.name, field.dtype, (None if field.ragged else count, *field.shape))
            for field in fields
        }
        counts = {field.name: self._stream(field.counts_name, "int64", (count,)) for field in fields if field.ragged}
        at_once = pictures_at_once(self.heading.fields)
        for start in range(0, count, at_once):
            rows = dict.fromkeys(values, min(at_once, count - start))
            table_texts = Texts(*(stream.read(min(at_once, count - start)).tolist() for stream in texts))
            table_counts = {name: stream.read(rows[name]) for name, stream in counts.items()}
            rows |= {name: items_of(each, values[name].left) for name, each in table_counts.items()}
            yield from_texts(table_texts, {name: values[name].read(rows[name]) for name in values}, table_counts)
        if any(stream.left for stream in values.values()):
            raise ValueError("there are more items than counted")

    def _stream(self, name: str, dtype: str | None, shape: tuple[int | None, ...]) -> ArrayStream:
        """An array. dtype: None for strings; shape: None for any length. ValueError where it is another."""
        member = self._members[name + _SUFFIX]
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > self._size:
            raise ValueError("an array is compressed, or longer than the file")
        stream = ArrayStream(cast(Any, self._opened.enter_context(self._archive.open(member))), member.file_size)
        is_kind = stream.dtype.kind == "U" if dtype is None else stream.dtype == dtype
        if not is_kind or len(stream.shape) != len(shape):
            raise ValueError("an array is of another kind")
        if any(want not in (None, got) for want, got in zip(shape, stream.shape, strict=True)):
            raise ValueError("an array is of another shape")
        return stream
