"""Arrays come back as they were packed, and bytes made to deceive give one error, and no memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Trap
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featkit.arrays import ArraysDamaged, pack, unpack

Arrays = dict[str, npt.NDArray[Any]]

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(endianness="?"),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
LAYOUTS = st.sampled_from([np.ascontiguousarray, np.asfortranarray, lambda array: array[..., ::-1], np.transpose])


@st.composite
def any_array(draw: st.DrawFn) -> npt.NDArray[Any]:
    array = draw(hnp.arrays(DTYPES, SHAPES))
    return draw(LAYOUTS)(array) if array.ndim else array


def assert_same(arrays: Arrays, expected: Arrays) -> None:
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], strict=True)


def test_arrays_come_back_new_and_writable() -> None:
    arrays: Arrays = {"weights": np.eye(3, dtype=np.float32), "mean": np.array(0.5)}
    payload = bytes(pack(arrays))
    found = unpack(payload)
    assert_same(found, arrays)
    found["weights"][0, 0] = 7
    assert_same(unpack(payload), arrays)


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(NAMES, any_array(), max_size=4))
@example({"file": np.zeros(1), "x": np.zeros(2), "x.npy": np.zeros(3), "": np.zeros(4), "a/../b": np.zeros(5)})
def test_any_arrays_of_any_names_come_back(arrays: Arrays) -> None:
    found = unpack(bytes(pack(arrays)))
    assert_same(found, arrays)
    assert all(array.flags.writeable and array.flags.aligned for array in found.values())


def test_the_layout_in_memory_comes_back() -> None:
    array = np.arange(12.0).reshape(3, 4)
    found = unpack(bytes(pack({"rows": array, "columns": np.asfortranarray(array)})))
    assert found["rows"].flags.c_contiguous
    assert found["columns"].flags.f_contiguous


def test_numpy_reads_what_was_packed() -> None:
    arrays: Arrays = {"x": np.arange(6, dtype=">i2").reshape(3, 2), "label": np.array(["Zürich", ""])}
    with np.load(io.BytesIO(pack(arrays))) as archive:
        assert_same(dict(archive), arrays)


def test_the_bytes_do_not_tell_the_time() -> None:
    with zipfile.ZipFile(io.BytesIO(pack({"x": np.zeros(2), "y": np.zeros(3)}))) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("array", [np.array([object()]), np.array([(1, None)], "i4,O"), np.zeros(2, "V0")])
def test_what_has_no_bytes_of_its_own_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"Object arrays cannot be saved|items without bytes"):
        pack({"x": array})


@pytest.mark.parametrize("name", ["a\0b", "\0", "x" * 65532, "é" * 32766, "\udc80"])
def test_a_name_that_a_zip_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a name for a packed array|surrogates not allowed"):
        pack({name: np.zeros(1)})


def test_the_longest_name_comes_back() -> None:
    arrays = {"x" * 65531: np.zeros(1)}
    assert_same(unpack(bytes(pack(arrays))), arrays)


# Bytes that were not packed


def npy(shape: object, descr: object = "<f4", items: bytes = b"") -> bytes:
    """The bytes of an array whose header may promise anything."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + items


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def assert_refused_without_memory(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ArraysDamaged):
            unpack(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_these_tests_zip_is_read_where_it_is_honest() -> None:
    payload = zipped(("x.npy", npy((2, 1), items=bytes(8))), ("y.npy", npy((0, 1 << 40))))
    assert_same(unpack(payload), {"x": np.zeros((2, 1), np.float32), "y": np.zeros((0, 1 << 40), np.float32)})


@pytest.mark.parametrize(
    ("shape", "descr", "stored"),
    [
        ((1 << 38,), "<f4", 8),
        ((3,), "<f4", 8),
        ((1,), "<f4", 8),
        ((), "<f4", 8),
        ((2,), "<f4", 0),
        ((1 << 32, 1 << 32), "<f4", 0),  # as many as there are, in 64 bits
        ((1 << 70, 0), "<f4", 0),
        ((-1, 1 << 38), "<f4", 8),
        ((-2, -1), "<f4", 8),
        ((1,) * 100, "<f8", 8),
        ((2.0,), "<f4", 8),
        ("2", "<f4", 8),
        (None, "<f4", 4),
        ((1,), f"<U{1 << 28}", 8),
        ((1,), [("x", "<f4", (1 << 15, 1 << 15))], 8),
        ((1,), "<M8[no unit]", 8),
        ((1,), "|O", 8),
        ((1,), [("x", "|O")], 8),
        ((1,), "no dtype", 8),
    ],
)
def test_a_declared_size_is_held_against_what_is_there(shape: object, descr: object, stored: int) -> None:
    assert_refused_without_memory(zipped(("x.npy", npy(shape, descr, bytes(stored)))))


@pytest.mark.parametrize("descr", ["|V0", "<U0", "|S0", []])
def test_items_without_bytes_are_not_made_in_any_number(descr: object) -> None:
    assert_refused_without_memory(zipped(("x.npy", npy((1 << 40,), descr))))


def test_what_was_compressed_is_not_unfolded() -> None:
    bomb = npy((16 << 20,), "|u1", bytes(16 << 20))
    payload = zipped(("x.npy", bomb), compression=zipfile.ZIP_DEFLATED)
    assert len(payload) < 1 << 20
    assert_refused_without_memory(payload)


def test_what_only_claims_to_be_compressed_is_refused_too() -> None:
    whole = zipped(("x.npy", npy((2,), items=bytes(8))))
    method = whole.index(b"PK\x01\x02") + 10
    assert_refused_without_memory(whole[:method] + struct.pack("<H", zipfile.ZIP_DEFLATED) + whole[method + 2 :])


def test_members_that_share_their_bytes_are_refused() -> None:
    names = [f"{number:03}.npy" for number in range(200)]
    whole = zipped((names[0], npy((1 << 16,), "|u1", bytes(1 << 16))))
    directory = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entry = whole[directory:end]
    entries = b"".join(entry.replace(names[0].encode(), name.encode()) for name in names)
    counts = struct.pack("<HHII", len(names), len(names), len(entries), directory)
    payload = whole[:directory] + entries + whole[end : end + 8] + counts + whole[end + 20 :]
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        assert archive.namelist() == names
        assert sum(member.file_size for member in archive.infolist()) > 12 << 20
    assert_refused_without_memory(payload)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 0xFFFFFFFE])
def test_the_size_in_the_directory_is_not_believed(size: int) -> None:
    whole = zipped(("x.npy", npy((2,), items=bytes(8))))
    sizes = whole.index(b"PK\x01\x02") + 20
    assert_refused_without_memory(whole[:sizes] + struct.pack("<II", size, size) + whole[sizes + 8 :])


@pytest.mark.parametrize("offset", [1, 1 << 20, 0xFFFFFFFE])
def test_the_offset_in_the_directory_is_not_believed(offset: int) -> None:
    whole = zipped(("x.npy", npy((2,), items=bytes(8))))
    offsets = whole.index(b"PK\x01\x02") + 42
    assert_refused_without_memory(whole[:offsets] + struct.pack("<I", offset) + whole[offsets + 4 :])


def test_two_arrays_of_one_name_are_refused() -> None:
    member = npy((2,), items=bytes(8))
    with pytest.warns(UserWarning, match="Duplicate name"):
        payload = zipped(("x.npy", member), ("x.npy", member))
    assert_refused_without_memory(payload)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([Trap(tmp_path / "sprung")]), allow_pickle=True)
    file.seek(0)
    np.load(file, allow_pickle=True)
    (tmp_path / "sprung").unlink()  # So it works.
    for payload in (zipped(("x.npy", file.getvalue())), zipped(("x.npy", file.getvalue()[128:]))):
        assert_refused_without_memory(payload)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"PK\x05\x06",
        b"no zip",
        npy((2,), items=bytes(8)),
        zipped(("x", npy((2,), items=bytes(8)))),
        zipped(("x.npy", b"")),
        zipped(("x.npy", b"\x93NUMPY\x02\x00" + npy((2,), items=bytes(8))[8:])),
        zipped(("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)),
        zipped(("x.npy", b"\x93NUMPY\x01\x00\x10\x27" + b"-" * 10000)),
    ],
)
def test_what_is_no_packed_array_is_refused(payload: bytes) -> None:
    with pytest.raises(ArraysDamaged):
        unpack(payload)


SMALL = bytes(pack({"x": np.arange(3), "y": np.zeros((0, 2), np.float32)}))


def test_a_packed_array_that_is_cut_short_is_refused() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(ArraysDamaged):
            unpack(SMALL[:length])


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_refused_or_are_arrays_no_larger(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(SMALL)
    for position, value in changes:
        changed[position] = value
    try:
        arrays = unpack(bytes(changed))
    except ArraysDamaged:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(SMALL)
