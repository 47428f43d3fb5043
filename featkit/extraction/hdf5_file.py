"""Features as HDF5.

    paths, errors       UTF-8 strings N, as `tables.to_stored` writes them; no error is ""
    sha256              strings N, "" where the file could not be read
    NAME                N×shape, NaN, or 0 among integers, where the picture failed; of a ragged field the items of all
                        pictures, one after the other, M×shape
    NAME.counts         int64 N: the items of each picture, for a ragged field
    attribute config    the heading, in JSON

Strings are of fixed length, since HDF5 keeps others where no checksum covers them. Everything that is stored carries
one: Fletcher-32 for the chunks of arrays, the library's own for all else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featkit.extraction.array_streams import items_of, pictures_at_once
from featkit.extraction.headings import Heading, damaged, foreign, from_json, heading_of, told
from featkit.extraction.tables import COUNTS, Array, Field, Table, Texts, from_texts, texts_of
from featkit.files import opened
from featkit.hdf5 import CarefulFile
from featkit.records import replacing

# HDF5 1.10 and everything after it reads this, and all its structures carry checksums.
_LIBRARY_VERSION = ("v110", "v110")
_CONFIG = "config"
_TEXTS = ("paths", "sha256", "errors")
# A row, or as many as make half of what HDF5 keeps of a dataset in memory.
_CHUNK_BYTES = 1 << 19
# Strings of one array take as many bytes as the longest of them.
_STRINGS_AT_ONCE = 4096


@contextlib.contextmanager
def writing(path: Path, heading: Heading, *, force: bool) -> Iterator[Writer]:
    """For a file that appears whole or not at all."""
    with replacing(path, force=force) as temporary, CarefulFile(temporary, "w+") as stream, _dropping(stream):
        file = h5py.File(stream, "w", libver=_LIBRARY_VERSION)
        try:
            writer = Writer(file, stream, heading)
            yield writer
            writer.add_texts()
        finally:
            with _dropping(stream):
                file.close()


@contextlib.contextmanager
def _dropping(stream: CarefulFile) -> Iterator[None]:
    """Of what was dropped since the disk was full HDF5 may miss some, and fail in its own way: the first error counts,
    also where nothing was missed."""
    try:
        yield
    except (OSError, RuntimeError):
        if stream.error is None:
            raise
    if stream.error is not None:
        raise stream.error


class Writer:
    """What does not go onto the disk is an OSError."""

    def __init__(self, file: h5py.File, stream: CarefulFile, heading: Heading) -> None:
        self._file, self._stream, self._count = file, stream, heading.count
        self._texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
        text = heading.to_json().encode("ascii")
        file.attrs.create(_CONFIG, np.bytes_(text), dtype=h5py.string_dtype("utf-8", len(text)))
        for field in heading.fields:
            self._create(field.name, np.dtype(field.dtype), field.shape)
            if field.ragged:
                self._create(field.counts_name, np.dtype("int64"), ())

    def add(self, table: Table) -> None:
        for name, texts in vars(texts_of(table)).items():
            self._texts[name] += texts
        for name, values in table.values.items():
            self._append(name, values)
        for name, counts in table.counts.items():
            self._append(name + COUNTS, counts)

    def add_texts(self) -> None:
        """Those of all tables."""
        for name in _TEXTS:
            texts = [text.encode() for text in self._texts[name]]
            width = max(map(len, texts), default=0) or 1
            dtype = h5py.string_dtype("utf-8", width)
            self._create(name, dtype, ())
            for start in range(0, len(texts), _STRINGS_AT_ONCE):
                self._append(name, np.array(texts[start : start + _STRINGS_AT_ONCE], dtype))

    def _create(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        row = math.prod(shape) * dtype.itemsize
        rows = max(1, min(_CHUNK_BYTES // row, self._count))
        self._file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), fletcher32=True, track_times=False
        )

    def _append(self, name: str, values: Array) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values
        if self._stream.error is not None:
            raise self._stream.error


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    with opened(path, "file of features") as stream, told(path), h5py.File(stream, "r") as file:
        yield Reader(file, path)


class Reader:
    def __init__(self, file: h5py.File, path: str) -> None:
        self._file, self._path = file, path
        config = file.attrs.get(_CONFIG)
        if not isinstance(config, bytes):
            raise foreign(path)
        self.heading = heading_of(from_json(config, path), path)

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        count = self.heading.count
        texts = [self._dataset(name, None, (count,)) for name in _TEXTS]
        values = {
            field.name: self._dataset(field.name, field.dtype, (None if field.ragged else count, *field.shape))
            for field in fields
        }
        counts = {field.name: self._dataset(field.counts_name, "int64", (count,)) for field in fields if field.ragged}
        begun = dict.fromkeys(values, 0)
        at_once = pictures_at_once(self.heading.fields)
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            table_counts = {name: dataset[start:stop] for name, dataset in counts.items()}
            ends = dict.fromkeys(values, stop)
            for name, each in table_counts.items():
                ends[name] = begun[name] + items_of(each, len(values[name]) - begun[name])
            yield from_texts(
                Texts(*([text.decode() for text in dataset[start:stop].tolist()] for dataset in texts)),
                {name: dataset[begun[name] : ends[name]] for name, dataset in values.items()},
                table_counts,
            )
            begun = ends
        if any(len(dataset) != begun[name] for name, dataset in values.items()):
            raise damaged(self._path, "there are more items than counted")

    def _dataset(self, name: str, dtype: str | None, shape: tuple[int | None, ...]) -> h5py.Dataset:
        """dtype: None for strings; shape: None for any length. ValueError where it is another."""
        # A link may lead to another file, and so may a dataset without chunks.
        if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
            raise ValueError("an array is missing")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.chunks is None or len(dataset.shape) != len(shape):
            raise ValueError("an array is of another kind")
        if dataset.dtype.kind != "S" if dtype is None else dataset.dtype != dtype:
            raise ValueError("an array is of another dtype")
        if any(want not in (None, got) for want, got in zip(shape, dataset.shape, strict=True)):
            raise ValueError("an array is of another shape")
        # A declared size is believed only if that much is stored: no filter here compresses.
        if dataset.nbytes > dataset.id.get_storage_size():
            raise ValueError("an array is shorter than it declares")
        return dataset
