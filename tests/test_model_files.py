"""A model comes back as it was written, or the one error says what is wrong with its file."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Trap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import featkit
from featkit.arrays import pack
from featkit.errors import FileMissing, FileUnreadable, ModelDamaged, NotAFile, OutputExists
from featkit.learning.model_files import VERSION, read_model, write_model

Arrays = dict[str, npt.NDArray[Any]]

CONFIG = {"classes": ["cat", "dog"], "side": 32, "C": 0.1, "whiten": None}
ARRAYS: Arrays = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.array(0.5)}

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=6,
)
ANY_ARRAY = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?"),
        hnp.unicode_string_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)

# The programs that the tests start run elsewhere, and use the same featkit.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featkit.__file__).parent.parent)}


def run_python(source: str, folder: Path) -> str:
    """The output of a Python program that runs in `folder`; the test fails if it fails."""
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.fk"


@pytest.fixture
def written(path: Path) -> bytes:
    """The bytes of the small model that is at `path`."""
    write_model(path, CONFIG, ARRAYS, force=False)
    return path.read_bytes()


def signed(document: bytes, payload: bytes) -> bytes:
    """A file with everything right but what is in it."""
    body = struct.pack("<QQ", len(document), len(payload)) + document + payload
    return b"featkit-model 1\n" + sha256(body).digest() + body


def assert_same(arrays: Arrays, expected: Arrays) -> None:
    assert list(arrays) == sorted(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], strict=True)


def refusal(path: Path) -> ModelDamaged:
    with pytest.raises(ModelDamaged) as caught:
        read_model(path)
    assert caught.value.path == str(path)
    assert caught.value.hint
    return caught.value


# What is kept


def test_a_model_comes_back(path: Path) -> None:
    write_model(path, CONFIG, ARRAYS, force=False)
    config, arrays = read_model(path)
    assert config == CONFIG
    assert_same(arrays, ARRAYS)
    arrays["weights"][0, 0] = 7  # The arrays are the caller's own.


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.dictionaries(TEXT, JSON, max_size=3), arrays=st.dictionaries(TEXT, ANY_ARRAY, max_size=3))
def test_any_model_comes_back(path: Path, config: dict[str, object], arrays: Arrays) -> None:
    write_model(path, config, arrays, force=True)
    found_config, found_arrays = read_model(path)
    assert found_config == config
    assert_same(found_arrays, arrays)


def test_a_class_whose_name_is_not_utf_8_comes_back(path: Path) -> None:
    config = {"classes": [os.fsdecode(b"latin-\xfc"), "Zürich", "猫"]}
    write_model(path, config, {}, force=False)
    assert read_model(path) == (config, {})


def test_the_same_model_is_the_same_bytes_whatever_the_order(tmp_path: Path, written: bytes) -> None:
    def backwards(mapping: dict[str, Any]) -> dict[str, Any]:
        return dict(reversed(mapping.items()))

    write_model(tmp_path / "other.fk", backwards(CONFIG), backwards(ARRAYS), force=False)
    assert (tmp_path / "other.fk").read_bytes() == written


def test_the_file_is_as_its_format_says(path: Path, written: bytes) -> None:
    document = b'{"C":0.1,"classes":["cat","dog"],"side":32,"whiten":null}'
    assert written == signed(document, bytes(pack({name: ARRAYS[name] for name in ("bias", "weights")})))
    assert VERSION == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [{"C": math.nan}]])
def test_what_is_no_number_in_json_is_refused(path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_model(path, {"C": value}, {}, force=False)
    assert not path.exists()


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), Path("a"), b"a", {1, 2}])
def test_what_json_has_no_form_for_is_refused(path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_model(path, {"C": value}, {}, force=False)


def test_python_objects_are_refused_since_nothing_is_pickled(path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_model(path, {}, {"x": np.array([object()])}, force=False)
    assert not path.exists()


def test_an_older_model_is_overwritten_only_by_force(path: Path, written: bytes) -> None:
    with pytest.raises(OutputExists):
        write_model(path, {}, {}, force=False)
    assert path.read_bytes() == written
    write_model(path, {}, {}, force=True)
    assert read_model(path) == ({}, {})


ON_A_FULL_DISK = """
import os, resource
import numpy as np
from featkit.errors import OutputError
from featkit.learning.model_files import read_model, write_model
write_model("model.fk", {"old": True}, {}, force=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    write_model("model.fk", {}, {"x": np.zeros(100_000)}, force=True)
except OutputError as error:
    print(error.path, error.message, sep=" | ")
print(read_model("model.fk"), os.listdir())
"""


def test_a_full_disk_leaves_the_older_model_and_no_temporary(tmp_path: Path) -> None:
    assert run_python(ON_A_FULL_DISK, tmp_path).splitlines() == [
        "model.fk | the file would be larger than this system allows",
        "({'old': True}, {}) ['model.fk']",
    ]


def test_a_large_model_is_in_memory_twice_and_not_three_times(path: Path) -> None:
    size = 64 << 20

    def peak(work: Callable[[], object]) -> int:
        """Bytes that were held while it ran, besides those that were before."""
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    arrays = {"one": np.zeros(size // 2, np.uint8), "two": np.zeros(size // 2, np.uint8)}
    assert peak(lambda: write_model(path, {}, arrays, force=False)) < 1.5 * size
    assert size < peak(lambda: read_model(path)) < 2.1 * size


# Files that are damaged


def test_any_changed_byte_is_refused(path: Path, written: bytes) -> None:
    for position in range(len(written)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(written)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            refusal(path)
    path.write_bytes(written)
    read_model(path)


def test_a_model_that_is_cut_anywhere_is_refused(path: Path, written: bytes) -> None:
    for length in range(len(written)):
        path.write_bytes(written[:length])
        assert refusal(path).message.startswith("it is cut short" if length else "the file is empty")


@pytest.mark.parametrize("more", [1, 1000])
def test_a_model_that_has_grown_is_refused(path: Path, written: bytes, more: int) -> None:
    path.write_bytes(written + bytes(more))
    size = len(written)
    assert refusal(path).message == f"it is longer than it was written: {size + more} bytes instead of {size}"


def test_a_careful_change_of_one_byte_is_told_by_the_checksum(path: Path, written: bytes) -> None:
    path.write_bytes(written.replace(b'"dog"', b'"hog"'))
    error = refusal(path)
    assert error.message == "it is not what was written: its checksum is wrong"
    assert error.hint == "copy it again from where it is whole, or train it again"


@pytest.mark.parametrize("at", [48, 56])
def test_a_declared_size_is_not_believed(path: Path, written: bytes, at: int) -> None:
    path.write_bytes(written[:at] + struct.pack("<Q", 1 << 40) + written[at + 8 :])
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", ["2", "10", "999999999"])
def test_a_model_of_another_version_is_named_as_such(path: Path, written: bytes, version: str) -> None:
    path.write_bytes(f"featkit-model {version}\n".encode() + written[16:])
    error = refusal(path)
    assert error.message == f"it is a model of version {version}, and this featkit reads version 1"
    assert error.hint == "train it again with this featkit, or use the featkit that wrote it"


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"featkit-cache 1\n" + bytes(100),
        b"featkit-model one\n" + bytes(100),
        b"featkit-model 01\n" + bytes(100),
        b"featkit-model " + b"9" * 5000 + b"\n",
        b"Featkit",
        b"\n",
    ],
)
def test_what_is_no_model_is_told_how_one_is_made(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    error = refusal(path)
    assert error.message == "this is no model of featkit"
    assert error.hint == "a model is what featkit classify DATA -o model.fk writes, or featkit probe"
    assert error.code == "model"


# Files that were made to deceive


def test_a_pickle_with_a_right_checksum_is_not_loaded(path: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    archive = io.BytesIO()
    np.savez(archive, x=np.array([Trap(sprung)]))
    np.load(io.BytesIO(archive.getvalue()), allow_pickle=True)["x"]
    sprung.unlink()  # So it works.
    path.write_bytes(signed(b"{}", archive.getvalue()))
    assert refusal(path).message == "its checksum is right, but what it holds is no model"
    assert not sprung.exists()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'"text"',
        b"{",
        b"{} {}",
        b'{"C": NaN}',
        b'{"C": -Infinity}',
        b'{"C": \xff}',
        b'{"C":' * 100_000,
        b"[" * 100_000,
    ],
)
def test_a_config_that_is_none_is_refused_whatever_its_checksum(path: Path, document: bytes) -> None:
    path.write_bytes(signed(document, bytes(pack({}))))
    assert refusal(path).message == "its checksum is right, but what it holds is no model"


@pytest.mark.parametrize("payload", [b"", b"no zip", json.dumps(CONFIG).encode()])
def test_arrays_that_are_none_are_refused_whatever_their_checksum(path: Path, payload: bytes) -> None:
    path.write_bytes(signed(b"{}", payload))
    assert refusal(path).message == "its checksum is right, but what it holds is no model"


# Paths that are none of a model


@pytest.mark.parametrize("name", ["missing.fk", "model.fk/model.fk", "missing/model.fk", "n" * 300, "a\0b", ""])
def test_where_there_is_no_file_the_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileMissing, match="there is no such file") as caught:
        read_model(name)
    assert caught.value.path == name


def test_a_folder_a_device_or_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # The name of a socket must be short.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, what in ((".", "a folder"), ("/dev/zero", "a device"), ("socket", "a socket")):
            with pytest.raises(NotAFile, match=f"this is {what}, not a"):
                read_model(name)


def complaint_in_time(path: Path) -> str:
    """What is wrong with the path itself; the test fails if that is waited for."""
    errors: list[BaseException] = []

    def read() -> None:
        try:
            read_model(path)
        except NotAFile as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    (error,) = errors
    return str(error)


def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    assert complaint_in_time(path) == f"{path}: this is a FIFO, not a file"


def test_a_file_that_becomes_a_pipe_is_not_waited_for(
    path: Path, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = path.stat()
    path.unlink()
    os.mkfifo(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda name: status)
        assert complaint_in_time(path) == f"{path}: this is a FIFO, not a file"


def test_a_file_that_may_not_be_read_says_why(path: Path, written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileUnreadable, match="it cannot be read: Permission denied") as caught:
        read_model(path)
    assert caught.value.hint == "its permissions do not let you read it"


IN_LITTLE_MEMORY = """
import os, resource
from featkit.errors import FileUnreadable
from featkit.learning.model_files import read_model
with open("model.fk", "wb") as file:
    file.write(b"featkit-model 1\\n" + bytes(32) + (0).to_bytes(8, "little") + (1 << 36).to_bytes(8, "little"))
    file.truncate(64 + (1 << 36))
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    read_model("model.fk")
except FileUnreadable as error:
    print(error.message)
"""


def test_a_file_larger_than_the_memory_is_an_error_and_no_crash(tmp_path: Path) -> None:
    assert run_python(IN_LITTLE_MEMORY, tmp_path) == "it is larger than the memory\n"
