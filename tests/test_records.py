"""Records are one line of JSON; a file is written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featkit
from featkit.errors import FileMissing, OutputError, OutputExists
from featkit.records import VERSION, check_writable, error_record, record, replacing, to_json, write_atomically

# The programs that the tests start run elsewhere, and use the same featkit.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featkit.__file__).parent.parent)}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def run_python(source: str, folder: Path) -> str:
    """The output of a Python program that runs in `folder`; the test fails if it fails."""
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Records


def test_a_record_starts_with_its_version_and_type() -> None:
    assert to_json(record("match", a="x.jpg", matches=3)) == '{"v": 1, "type": "match", "a": "x.jpg", "matches": 3}'
    assert VERSION == 1


def test_a_failed_item_is_a_record_too() -> None:
    error = FileMissing("there is no such file", path="a.jpg", hint="check the name")
    assert error_record(error) == {
        "v": 1,
        "type": "error",
        "path": "a.jpg",
        "code": "missing",
        "message": "there is no such file",
        "hint": "check the name",
    }


def test_numpy_values_become_plain_ones() -> None:
    line = to_json(
        record(
            "x",
            count=np.int64(3),
            score=np.float32(0.5),
            exact=np.float64(0.1),
            good=np.bool_(True),
            matrix=np.eye(2),
            size=np.array([640, 480], np.uint16),
            none=np.zeros((0, 2)),
        )
    )
    assert json.loads(line) == {
        "v": 1,
        "type": "x",
        "count": 3,
        "score": 0.5,
        "exact": 0.1,
        "good": True,
        "matrix": [[1.0, 0.0], [0.0, 1.0]],
        "size": [640, 480],
        "none": [],
    }


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.array([1.0, np.inf]), [[math.nan]]]
)
def test_what_is_no_number_in_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(record("x", value=value))


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, Path("a.jpg"), 1j, np.complex64(1)])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="a record cannot hold"):
        to_json(record("x", value=value))


@pytest.mark.parametrize(
    "name", [b"plain.jpg", b"new\nline.jpg", "Zürich.jpg".encode(), b"latin-\xfc.jpg", b"\xff\xfe\x80"]
)
def test_any_file_name_survives_as_one_line_of_ascii(name: bytes) -> None:
    line = to_json(record("x", path=os.fsdecode(name)))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert os.fsencode(json.loads(line)["path"]) == name


def test_records_are_made_without_numpy() -> None:
    source = (
        "import sys; from featkit.records import to_json, record; to_json(record('x')); print('numpy' in sys.modules)"
    )
    assert run_python(source, Path(__file__).parent.parent) == "False\n"


# Files


def test_a_file_is_written_with_the_mode_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ours", b"data")
    (tmp_path / "plain").write_bytes(b"data")
    assert (tmp_path / "ours").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert names(tmp_path) == ["ours", "plain"]


def test_an_existing_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    with pytest.raises(OutputExists) as caught:
        write_atomically(path, b"new")
    assert (caught.value.path, caught.value.hint) == (str(path), "--force overwrites it")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["result.json"]


def test_a_file_that_appears_during_the_work_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(OutputExists), replacing(path):
        path.write_bytes(b"another program's")
    assert path.read_bytes() == b"another program's"
    assert names(tmp_path) == ["result.json"]


def test_the_temporary_keeps_the_extension_that_writers_go_by(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.npz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        np.savez(temporary, x=np.arange(3))
    assert names(tmp_path) == ["out.npz"]


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".bin")
    write_atomically(path, b"data")
    assert path.read_bytes() == b"data"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")

    def write_half(failure: type[BaseException]) -> None:
        with replacing(path, force=True) as temporary:
            temporary.write_bytes(b"half of the n")
            raise failure

    with pytest.raises(error):
        write_half(error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["result.json"]


WRITE_AND_WAIT = """
import sys, time
from featkit.records import replacing
with replacing("result.json", force=True) as temporary:
    temporary.write_bytes(b"half of the n")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_the_old_file(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", WRITE_AND_WAIT]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        process.wait(timeout=30)
    assert path.read_bytes() == b"old"
    # Nothing can clean up after SIGKILL; what is left does not look like a result.
    left = [name for name in names(tmp_path) if name != "result.json"]
    assert all(name.startswith(".featkit-") for name in left)
    assert number == signal.SIGKILL or not left


def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder") as caught:
        write_atomically(tmp_path / "my results" / "out.json", b"")
    assert caught.value.hint == f"make it first: mkdir -p '{tmp_path}/my results'"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["folder", "folder/", "missing/", "."])
def test_a_folder_is_no_place_for_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="names a folder"):
        write_atomically(f"{tmp_path}/{name}", b"", force=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file is not a folder"):
        write_atomically(tmp_path / "file" / "out.json", b"")


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OutputError, match="is a device or a pipe"):
            write_atomically(path, b"", force=True)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "latest.json"
    link.symlink_to("elsewhere/1.json")
    write_atomically(link, b"one")
    write_atomically(link, b"two", force=True)
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "1.json").read_bytes() == b"two"
    assert names(tmp_path / "elsewhere") == ["1.json"]


def test_a_loop_of_links_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "loop", b"")


def test_a_name_that_is_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        check_writable(tmp_path / ("n" * 300))


IN_A_READ_ONLY_FOLDER = """
import os
from featkit.errors import OutputError
from featkit.records import check_writable, write_atomically
os.mkdir("folder")
write_atomically("folder/old", b"old")
os.chmod("folder", 0o555)
if os.getuid() == 0:
    os.setuid(65534)  # Permissions do not bind root.
for attempt in (check_writable, lambda path, force: write_atomically(path, b"new", force=force)):
    for name in ("folder/new", "folder/old"):
        try:
            attempt(name, force=True)
        except OutputError as error:
            print(error.message)
print(open("folder/old").read(), os.listdir("folder"))
"""


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    message = "the folder folder cannot be written to\n"
    assert run_python(IN_A_READ_ONLY_FOLDER, tmp_path) == 4 * message + "old ['old']\n"


ON_A_FULL_DISK = """
import os, resource
from featkit.errors import OutputError
from featkit.records import replacing, write_atomically
write_atomically("result", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_atomically("result", bytes(100_000), force=True)
except OutputError as error:
    print(error.path, error.message, error.hint, sep=" | ")
print(open("result").read(), os.listdir())
"""


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    assert run_python(ON_A_FULL_DISK, tmp_path).splitlines() == [
        "result | the file would be larger than this system allows | raise the limit: ulimit -f unlimited",
        "old ['result']",
    ]


def test_only_the_disk_s_own_errors_of_the_body_are_about_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), replacing(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []
