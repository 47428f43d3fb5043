"""Named arrays to bytes and back: an npz, neither compressed nor pickled.

Whoever stores the bytes keeps a digest beside them. Bytes with a right digest may still be crafted: what they declare
is held against what is there before anything of that size is allocated.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_SUFFIX = ".npy"
# Of a member's local header (APPNOTE.TXT, 4.3.7): its bytes up to the name, and where it has the lengths of the name
# and of the extra field, after which the member begins.
_LOCAL_HEADER_BYTES = 30
_LENGTHS = struct.Struct("<HH")
_LENGTHS_AT = 26
_LONGEST_NAME_BYTES = 65535
_HEAD_BYTES = 1 << 14  # Holds the longest header of an array that numpy reads, 10 000 characters.


class ArraysDamaged(ValueError):
    """These are not bytes that `pack` gave."""


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> memoryview:
    """The bytes of an npz; the same arrays in the same order give the same bytes, whatever the time of day.

    ValueError for an array of Python objects or of items without bytes, and for a name that a zip cannot hold: with a
    NUL or a lone surrogate, or of more than 64 KiB.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            array = np.asarray(values)
            if not array.dtype.itemsize:
                raise ValueError(f"an array of items without bytes cannot be packed: {name!r}")
            # np.savez reserves two names for itself, and writes the time.
            with archive.open(_member(name), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    return buffer.getbuffer()


def _member(name: str) -> zipfile.ZipInfo:
    file_name = name + _SUFFIX
    member = zipfile.ZipInfo(file_name)
    if member.filename != file_name or len(file_name.encode()) > _LONGEST_NAME_BYTES:
        raise ValueError(f"not a name for a packed array: {name[:99]!r}")
    return member


def unpack(payload: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays that were packed, in their order, new and writable.

    ArraysDamaged for whatever `pack` did not give. The arrays never take more than the payload, whatever it declares.
    """
    try:
        views = _views(payload)
    except Exception as error:  # Whoever made this meant it to fail, in whatever way.
        raise ArraysDamaged("these are no packed arrays") from error
    return {name: view.copy("K") for name, view in views.items()}  # A view is read-only, and its items are not aligned.


def _views(payload: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > len(payload):
        raise ValueError("members share their bytes")
    views = {member.filename.removesuffix(_SUFFIX): _view(payload, member) for member in members}
    if len(views) < len(members):
        raise ValueError("two arrays have one name")
    return views


def _view(payload: bytes, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """The array in a member, where it lies."""
    if not member.filename.endswith(_SUFFIX) or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError("not a member that was packed")
    name_bytes, extra_bytes = _LENGTHS.unpack_from(payload, member.header_offset + _LENGTHS_AT)
    start = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    stored = memoryview(payload)[start : start + member.file_size]
    head = io.BytesIO(stored[:_HEAD_BYTES])
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("not a version that was packed")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(head)
    items = stored[head.tell() :]
    # Items without bytes could be declared in any number.
    if dtype.hasobject or not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(items):
        raise ValueError("not as many items as declared")
    return np.ndarray(shape, dtype, items, order="F" if is_fortran else "C")
