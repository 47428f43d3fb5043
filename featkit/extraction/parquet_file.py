"""Features as Apache Parquet: one row a picture, a row group a table.

    path, sha256, error   strings; sha256 is null where the file could not be read, error where there is none; a path
                          that is not UTF-8 as `tables.to_stored` writes it
    NAME                  a number, or a list of all numbers of a picture's value, its last axis the fastest; of a
                          ragged field a list of items, each a number or a list; null where the picture failed
    metadata              featkit: the heading, in JSON, with the values' shapes; featkit.sha256: its SHA-256; others
                          may stand beside them

Every page carries a CRC-32 checksum. Measured, with 20,000 vectors of 768 numbers in groups of 1,000: float32, its
bytes transposed and under zstd, takes .85 of its size, and .56 where half of it are zeros, as after a ReLU; it is
written in .6 s and read in .3 s, three times as long as without. float16 takes .92, and SIFT's bytes, which Parquet
would keep in four each, .77 with a dictionary.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from featkit.extraction.headings import Heading, damaged, foreign, from_json, heading_of, told
from featkit.extraction.tables import Array, Field, Table, Texts, from_texts, texts_of
from featkit.files import opened
from featkit.records import replacing

_KEY, _DIGEST_KEY = "featkit", "featkit.sha256"
_TEXTS = (
    pa.field("path", pa.string(), nullable=False),
    pa.field("sha256", pa.string()),
    pa.field("error", pa.string()),
)
_LEVEL = 1


def _type_of(field: Field) -> pa.DataType:
    number = pa.from_numpy_dtype(np.dtype(field.dtype))
    if not field.ragged:
        # Not of fixed size, as it is: Arrow 24 cannot write such a list that is null.
        return pa.large_list(_element(number)) if field.shape else number
    return pa.large_list(_element(pa.list_(_element(number), field.width) if field.shape else number))


def _element(kind: pa.DataType) -> pa.Field:
    return pa.field("element", kind, nullable=False)


def _schema_of(fields: Sequence[Field]) -> pa.Schema:
    return pa.schema([*_TEXTS, *(pa.field(field.name, _type_of(field)) for field in fields)])


def _leaf_of(field: Field) -> str:
    """What Parquet calls the column of the numbers."""
    return field.name + ".list.element" * (bool(field.shape) + field.ragged)


# --- writing


class _Collected(io.RawIOBase):
    """What Arrow writes, until somebody takes it: a disk that is full is no matter for Arrow, which would say so once
    more whenever it lets go of its writer."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


@contextlib.contextmanager
def writing(path: Path, heading: Heading, *, force: bool) -> Iterator[Writer]:
    """For a file that appears whole or not at all."""
    with replacing(path, force=force) as temporary, writing_to(temporary, heading, {}) as writer:
        yield writer


@contextlib.contextmanager
def writing_to(path: Path, heading: Heading, marks: Mapping[str, str]) -> Iterator[Writer]:
    """marks: what stands in the metadata beside the heading."""
    with path.open("wb") as file:
        writer = Writer(file, heading, marks)
        try:
            yield writer
        except BaseException:
            writer.close()
            raise
        file.write(writer.close())


class Writer:
    def __init__(self, file: BinaryIO, heading: Heading, marks: Mapping[str, str]) -> None:
        self._file, self._fields = file, heading.fields
        text = heading.to_json()
        metadata = {_KEY: text, _DIGEST_KEY: sha256(text.encode()).hexdigest(), **marks}
        self._schema = _schema_of(heading.fields).with_metadata(metadata)
        self._collected = _Collected()
        self._writer = pq.ParquetWriter(
            self._collected,
            self._schema,
            compression="zstd",
            compression_level=_LEVEL,
            # Not of float16: what else reads Parquet has hardly learned that yet.
            use_byte_stream_split=[_leaf_of(field) for field in self._fields if field.dtype == "float32"],
            use_dictionary=[_leaf_of(field) for field in self._fields if field.dtype == "uint8"],
            write_statistics=False,
            write_page_checksum=True,
        )

    def add(self, table: Table) -> None:
        if not len(table):
            return
        failed = np.array([error != "" for error in table.errors], bool)
        texts = texts_of(table)
        columns = [
            pa.array(texts.paths, pa.string()),
            pa.array([digest or None for digest in texts.sha256], pa.string()),
            pa.array([error or None for error in texts.errors], pa.string()),
            *(_to_arrow(field, table, failed) for field in self._fields),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=len(table))
        self._file.write(self._collected.taken())

    def close(self) -> bytes:
        """What comes after the last table."""
        self._writer.close()
        return self._collected.taken()


def _to_arrow(field: Field, table: Table, failed: npt.NDArray[np.bool_]) -> pa.Array:
    kind, values = _type_of(field), table.values[field.name]
    if not field.shape and not field.ragged:
        return pa.array(values, kind, mask=failed, from_pandas=False)
    lengths = table.counts[field.name] if field.ragged else np.where(failed, 0, field.width)
    items = pa.array((values if field.ragged or not failed.any() else values[~failed]).reshape(-1))
    if field.ragged and field.shape:
        items = pa.FixedSizeListArray.from_arrays(items, type=kind.value_type)
    # A list is null whose offset is.
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int64(), mask=np.append(failed, False))
    return pa.LargeListArray.from_arrays(offsets, items, type=kind)


# --- reading


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    with opened(path, "file of features") as file, told(path):
        yield Reader(file, path)


class Reader:
    """A file, or the bytes of one; path: for messages."""

    def __init__(self, source: BinaryIO, path: str) -> None:
        self._file, self._path = pq.ParquetFile(source, page_checksum_verification=True), path
        found: Mapping[bytes, bytes] = self._file.metadata.metadata or {}
        self.metadata = {key.decode(): value for key, value in found.items()}
        if _KEY not in self.metadata:
            raise foreign(path)
        if self.metadata.get(_DIGEST_KEY) != sha256(self.metadata[_KEY]).hexdigest().encode():
            raise damaged(path, "what it says of itself has a wrong checksum")
        self.heading = heading_of(from_json(self.metadata[_KEY], path), path)
        if not self._file.schema_arrow.equals(_schema_of(self.heading.fields)):
            raise damaged(path, "its columns are not those that it declares")
        if self._file.metadata.num_rows != self.heading.count:
            raise damaged(path, "it has not the rows that it declares")

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        """A row group at a time."""
        names = [*(text.name for text in _TEXTS), *(field.name for field in fields)]
        rows = 0
        for group in range(self._file.metadata.num_row_groups):
            # Of a name with a dot, Arrow may take it for part of another, and give that as well.
            found = self._file.read_row_group(group, columns=names).select(names)
            rows += len(found)
            yield self._table(found, fields)
        if rows != self.heading.count:
            raise damaged(self._path, "it has not the rows that it declares")

    def _table(self, found: pa.Table, fields: Sequence[Field]) -> Table:
        texts = Texts(*([text or "" for text in found.column(name.name).to_pylist()] for name in _TEXTS))
        failed = np.array([error != "" for error in texts.errors], bool)
        values: dict[str, Array] = {}
        counts: dict[str, npt.NDArray[np.int64]] = {}
        for field in fields:
            column = found.column(field.name).combine_chunks()
            if not np.array_equal(np.asarray(column.is_null()), failed):
                raise damaged(self._path, "it lacks values, or has some of pictures that failed")
            if field.ragged:
                counts[field.name] = _lengths(column)
                values[field.name] = _numbers(column.flatten(), field, int(counts[field.name].sum()))
                continue
            values[field.name] = np.full((len(found), *field.shape), field.blank, field.dtype)
            if field.shape:
                if (_lengths(column)[~failed] != field.width).any():
                    raise damaged(self._path, "a value is of another shape than declared")
                column = column.flatten()
            values[field.name][~failed] = _numbers(column.drop_null(), field, int((~failed).sum()))
        return from_texts(texts, values, counts)


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Of lists; 0 of one that is null."""
    return np.asarray(column.value_lengths().fill_null(0)).astype(np.int64)


def _numbers(items: pa.Array, field: Field, rows: int) -> Array:
    """rows×shape; ValueError where there are more or fewer of them."""
    flat = items.flatten() if field.ragged and field.shape else items
    return np.asarray(flat).astype(field.dtype, copy=False).reshape(rows, *field.shape)
