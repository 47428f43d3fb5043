"""Arrays of NumPy's file format, written and read in pieces."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from featkit.extraction.tables import Array, Field

_VERSION = (1, 0)
# What a .npy file begins with: magic, version, and the length of the header in two bytes.
_MAGIC_BYTES = 10
_LENGTH_BYTES = 2
# What numpy writes for arrays in C order, whose dtype is a number's or a string's.
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiuU][0-9]{1,9})', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\), \} *\n"
)
_BYTES_AT_ONCE = 1 << 24
_MOST_PICTURES_AT_ONCE = 4096
# Of which any one may have thousands of items.
_PICTURES_OF_ITEMS_AT_ONCE = 32


def pictures_at_once(fields: Sequence[Field]) -> int:
    """How many are read at a time from a file that has no parts: some megabytes."""
    if any(field.ragged for field in fields):
        return _PICTURES_OF_ITEMS_AT_ONCE
    row = sum(field.bytes for field in fields)
    return max(1, min(_MOST_PICTURES_AT_ONCE, _BYTES_AT_ONCE // max(row, 1)))


def items_of(counts: npt.NDArray[np.int64], left: int) -> int:
    """How many items these pictures have. Raises ValueError for counts that are none, or of more than are left."""
    each: list[int] = counts.tolist()
    if min(each, default=0) < 0 or sum(each) > left:
        raise ValueError("there are not so many items")
    return sum(each)


class _Sink(Protocol):
    def write(self, data: Any, /) -> object: ...


class Source(Protocol):
    """A file of bytes, of which `readinto` may read less than it could."""

    def read(self, size: int, /) -> bytes: ...

    def readinto(self, buffer: memoryview, /) -> int: ...


def write_header(file: _Sink, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """What stands in a .npy file before the items of an array in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(cast(Any, file), header)


def bytes_of(array: Array) -> memoryview:
    """Those of its items, in C order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


class ArrayStream:
    """A .npy file of `size` bytes, read some rows at a time; `left`: those that were not read yet, 1 of a scalar.

    Raises ValueError for what numpy does not write so, and where there are not as many items as declared.
    """

    def __init__(self, stream: Source, size: int) -> None:
        magic = stream.read(_MAGIC_BYTES)
        length = int.from_bytes(magic[-_LENGTH_BYTES:], "little")
        form = _HEADER.fullmatch(stream.read(length))
        if magic[:-_LENGTH_BYTES] != np.lib.format.magic(*_VERSION) or form is None:
            raise ValueError("this is no array")
        self._stream = stream
        self.dtype = np.dtype(form[1].decode())
        self.shape = tuple(map(int, re.findall(rb"[0-9]+", form[2])))
        self.left = self.shape[0] if self.shape else 1
        if not self.dtype.itemsize or size != len(magic) + length + math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError("this array has not as many items as it declares")

    def read(self, rows: int) -> Array:
        """The next ones. Raises ValueError where there are not so many."""
        if not 0 <= rows <= self.left:
            raise ValueError("there are not so many rows")
        self.left -= rows
        found = np.empty((rows, *self.shape[1:]), self.dtype)
        rest = found.reshape(-1).view(np.uint8).data
        while rest:
            count = self._stream.readinto(rest)
            if not count:
                raise ValueError("this array is cut short")
            rest = rest[count:]
        return found
