"""Whatever goes wrong around a run, it ends in plain words and the right exit status, with nothing half-written."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FEATKIT, Run, complaint_of

from featkit.local.interchange import FORMATS


def files_in(folder: Path) -> set[str]:
    """Names of all files outside the cache, hidden ones included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "cache" not in path.parts}


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `featkit` is featkit; the status is the last command's, or featkit's in a pipe."""
    script = f'set -o pipefail; featkit() {{ {shlex.join(FEATKIT)} "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, cwd=folder, timeout=60)


# --- readers that go away, streams that are closed, disks that are full


@pytest.mark.parametrize(
    "command",
    [
        "featkit match . | head -1",
        "featkit match . --json | head -1",
        "featkit match a.jpg b.jpg -o - --format npz | head -c 1",
        "featkit match --help | true",
        "featkit --version | true",
        "featkit cache info | true",
    ],
)
def test_a_closed_pipe_is_silent(photos: Path, command: str) -> None:
    run = shell(command, photos)

    assert run.returncode == 0
    assert run.stderr == b""
    assert run.stdout.count(b"\n") <= 1


def test_a_closed_pipe_costs_no_file(featkit: Run, photos: Path) -> None:
    """With -o FILE the lines on stdout are by the way."""
    run = shell("featkit match . -o matches.npz --json | true", photos)

    assert run.returncode == 0
    assert b"6 pairs" in featkit("match", "--check", "matches.npz").stdout


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("featkit match a.jpg b.jpg >&-", 0),
        ("featkit match a.jpg b.jpg --json <&- >&- 2>&-", 0),
        ("featkit match a.jpg b.jpg -o matches.npz <&- >&- 2>&-", 0),
        ("featkit match a.jpg missing.jpg 2>&-", 2),
        ("featkit match a.jpg missing.jpg 2>/dev/full", 2),
        ("featkit match --help >&-", 0),
        ("featkit --version >&-", 0),
    ],
)
def test_closed_streams(featkit: Run, photos: Path, command: str, status: int) -> None:
    run = shell(command, photos)

    assert run.returncode == status
    assert run.stderr == run.stdout == b""
    if "-o" in command:
        assert featkit("match", "--check", "matches.npz").returncode == 0


def test_closed_stdin_is_no_list(photos: Path) -> None:
    run = shell("featkit match - <&-", photos)

    assert run.returncode == 2
    assert complaint_of(run) == "featkit: error: -: standard input is closed\n"


@pytest.mark.parametrize(
    "command",
    ["match a.jpg b.jpg", "match . --json", "match a.jpg b.jpg -o - --format h5", "match --help", "--version"],
)
def test_a_full_disk_behind_stdout(photos: Path, command: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")

    run = shell(f"featkit {command} >/dev/full", photos)

    assert run.returncode == 2
    assert "No space left on device" in complaint_of(run)


@pytest.mark.parametrize(
    "option", [*(f"-o matches{format_}" for format_ in FORMATS), "--draw d.png", "--draw-warp w.tif"]
)
def test_a_full_disk_behind_a_file(featkit: Run, photos: Path, option: str) -> None:
    before = files_in(photos)

    run = featkit("match", "a.jpg", "b.jpg", *option.split(), largest_file=3000, FEATKIT_CACHE="off")

    assert run.returncode == 2
    message, hint = complaint_of(run).splitlines()
    # SQLite says of every limit that the disk is full.
    assert message.endswith(("the file would be larger than this system allows", "the disk is full"))
    assert hint.startswith("hint: ")
    assert files_in(photos) == before


def test_a_full_disk_keeps_the_older_file(featkit: Run, photos: Path) -> None:
    (photos / "matches.npz").write_bytes(b"precious")

    run = featkit("match", "a.jpg", "b.jpg", "-o", "matches.npz", "--force", largest_file=3000, FEATKIT_CACHE="off")

    assert run.returncode == 2
    assert (photos / "matches.npz").read_bytes() == b"precious"


@pytest.mark.parametrize("option", ["-o closed/m.npz", "--draw closed/d.png", "--draw-warp closed/w.png"])
def test_a_folder_that_cannot_be_written(featkit: Run, photos: Path, plain_user: list[str], option: str) -> None:
    (photos / "closed").mkdir(mode=0o555)

    run = featkit("match", "a.jpg", "b.jpg", *option.split(), prefix=plain_user)

    assert run.returncode == 2
    assert run.stdout == b""
    assert "the folder closed cannot be written to" in complaint_of(run)


# --- signals


@pytest.fixture
def many(photos: Path) -> Path:
    """Names of so many pictures that matching them takes minutes, without a cache to speed it up."""
    names = []
    for number in range(60):
        (photos / f"{number}.jpg").symlink_to("a.jpg")
        names.append(f"{number}.jpg")
    (photos / "many.txt").write_text("\n".join(names))
    return photos


def interrupted(folder: Path, number: int, *arguments: str, times: int = 1) -> tuple[int, bytes]:
    """Start matching, send a signal after the first result: exit status and stderr."""
    process = subprocess.Popen(
        [*FEATKIT, "match", "--files-from", "many.txt", "--no-cache", "--jobs", "2", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        # Where the tests themselves run under nohup, it would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    for _ in range(times):
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize("format_", FORMATS)
def test_an_interrupt_leaves_nothing_behind(many: Path, format_: str) -> None:
    before = files_in(many)

    status, errors = interrupted(many, signal.SIGINT, "-o", f"matches{format_}")

    assert status == 130
    assert errors == b"featkit: interrupted\n"
    assert files_in(many) == before


def test_an_impatient_user_interrupts_twice(many: Path) -> None:
    before = files_in(many)

    status, errors = interrupted(many, signal.SIGINT, "-o", "matches.db", "--json", times=2)

    assert status == 130
    assert b"Traceback" not in errors
    assert files_in(many) == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_being_ended_leaves_nothing_behind(many: Path, name: str) -> None:
    before = files_in(many)
    number = getattr(signal, name)

    status, errors = interrupted(many, number, "-o", "matches.h5")

    assert status == 128 + number
    assert errors == b""
    assert files_in(many) == before


def test_nohup_is_obeyed(photos: Path) -> None:
    program = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from featkit.cli.app import run\n"
        "run(['--version']); os.kill(os.getpid(), signal.SIGHUP)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0


# --- machines that lack something


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "apt-get install libgl1"),
        ("libgthread-2.0.so.0: cannot open shared object file", "apt-get install libgl1"),
        ("No module named 'cv2.abi3'", "pip install opencv-python"),
    ],
)
def test_opencv_that_does_not_load(featkit: Run, photos: Path, failure: str, advice: str) -> None:
    (photos / "fake" / "cv2").mkdir(parents=True)
    (photos / "fake" / "cv2" / "__init__.py").write_text(f"raise ImportError({failure!r})")

    run = featkit("match", "a.jpg", "b.jpg", PYTHONPATH=str(photos / "fake"))

    assert run.returncode == 2
    assert failure in complaint_of(run)
    assert advice in complaint_of(run)
    assert featkit("match", "--help", PYTHONPATH=str(photos / "fake")).returncode == 0


def test_too_little_memory(photos: Path) -> None:
    for error in ("MemoryError()", "cv2.error('(-4:Insufficient memory) Failed to allocate 9 bytes')"):
        run = failing(photos, error)
        assert run.returncode == 2
        message, hint = complaint_of(run).splitlines()
        assert message == "featkit: error: out of memory"
        assert "--jobs 1" in hint
        assert "--max-side" in hint


def test_a_defect_is_called_one(photos: Path) -> None:
    run = failing(photos, "RuntimeError('two\\nlines')")

    assert run.returncode == 2
    message, hint = run.stderr.decode().splitlines()
    assert message == "featkit: error: a defect in featkit (RuntimeError: two)"
    assert hint == "hint: run again with --debug and report what it prints"


def test_debug_shows_the_traceback(featkit: Run, photos: Path) -> None:
    expected = featkit("match", "a.jpg", "b.jpg", "--ratio", "2", "--debug")
    defect = failing(photos, "RuntimeError('broken')", "--debug")

    assert expected.returncode == 2
    assert b"Traceback" in expected.stderr
    assert expected.stderr.endswith(b"hint: 0.9 with --mutual is the default\n")
    assert defect.stderr.endswith(b"RuntimeError: broken\n")


def failing(folder: Path, error: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A run in which reading the second picture raises `error`."""
    program = f"""if True:
        import sys
        from featkit import images
        from featkit.opencv import cv2
        from featkit.cli.app import run
        def broken(data, options, *, path):
            raise {error}
        images.decode = broken
        sys.exit(run(["match", "a.jpg", "b.jpg", *sys.argv[1:]]))
    """
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, cwd=folder, timeout=60)


def test_a_folder_that_was_deleted(photos: Path) -> None:
    run = shell('mkdir gone; cd gone; rmdir "$PWD"; featkit match a.jpg b.jpg -o matches.npz', photos)

    assert run.returncode == 2
    assert "No such file or directory" in complaint_of(run)


def test_no_home(featkit: Run, photos: Path) -> None:
    environment = {"HOME": None, "XDG_CACHE_HOME": str(photos / "xdg"), "FEATKIT_CACHE": None, "PATH": os.defpath}
    assert featkit("match", "a.jpg", "b.jpg", **environment).returncode == 0
