"""Pictures of every kind through the command line: good ones are matched, bad ones are refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bad_pictures
import numpy as np
import pytest
from bad_pictures import as_stored, exif, pillow, scene
from conftest import Run, complaint_of, records_of
from PIL import Image

Table = dict[str, tuple[Path, bad_pictures.Expected]]

SPECIAL = ["missing", "inside a file", "dangling link", "fifo", "device"]
#: What a user can do about it is said where it is not plain from the message.
WITH_HINT = {"unsupported", "too-large", "not-a-file", "unknown-format", "unreadable"}
WITHOUT_HINT = {"noise.png"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return bad_pictures.make_all(tmp_path_factory.mktemp("pictures"))


def test_good_pictures_are_read(featkit: Run, table: Table) -> None:
    good, _ = table["plain.png"]
    others = [path for path, expected in table.values() if expected == "ok"]
    pairs = b"".join(os.fsencode(name) + b"\0" for other in others for name in (good, other))

    run = featkit("match", "--pairs", "-", "-0", "--json", stdin=pairs)

    found = records_of(run)
    assert [record["b"] for record in found] == [str(path) for path in others]
    assert {record["type"] for record in found} == {"match"}
    assert run.stderr == b""


@pytest.mark.parametrize("name", [*bad_pictures.bad(), *SPECIAL])
def test_a_bad_picture_is_refused(featkit: Run, table: Table, name: str) -> None:
    path, error = table[name]
    assert error != "ok"

    run = featkit("match", table["plain.png"][0], path, "--json")

    assert run.returncode == 2
    [record] = records_of(run)
    assert list(record) == ["v", "type", "path", "code", "message", "hint"]
    assert (record["v"], record["type"], record["path"], record["code"]) == (1, "error", str(path), error.code)
    if name not in WITHOUT_HINT:
        assert bool(record["hint"]) == (error.code in WITH_HINT), record
    lines = complaint_of(run).splitlines()
    assert lines[0] == f"featkit: error: {path}: {record['message']}"
    assert lines[1:] == ([f"hint: {record['hint']}"] if record["hint"] else [])


def test_a_folder_is_no_picture(featkit: Run, photos: Path) -> None:
    (photos / "folder.png").mkdir()

    as_argument = featkit("match", "a.jpg", "folder.png", "--json")  # stands for the pictures in it
    in_a_list = featkit("match", "--pairs", "-", "--json", stdin=b"a.jpg folder.png\n")

    assert [as_argument.returncode, in_a_list.returncode] == [2, 2]
    [record] = records_of(as_argument)
    assert (record["path"], record["code"]) == ("folder.png", "input")
    [record] = records_of(in_a_list)
    assert (record["path"], record["code"]) == ("folder.png", "not-a-file")
    assert "there is no picture in this folder" in complaint_of(as_argument)


def test_an_unreadable_picture_is_refused(featkit: Run, photos: Path, plain_user: list[str]) -> None:
    (photos / "b.jpg").chmod(0)

    run = featkit("match", "a.jpg", "b.jpg", "--json", prefix=plain_user)

    assert run.returncode == 2
    assert [record["code"] for record in records_of(run)] == ["unreadable"]
    assert "permissions" in complaint_of(run)


def test_one_bad_picture_among_good_ones(featkit: Run, photos: Path, table: Table) -> None:
    bad, _ = table["half.jpg"]

    run = featkit("match", "a.jpg", bad, "b.jpg", "c.jpg", "--json")

    assert run.returncode == 1
    found = records_of(run)
    assert [record["code"] for record in found if record["type"] == "error"] == ["damaged"]
    pairs = [(record["a"], record["b"]) for record in found if record["type"] == "match"]
    assert pairs == [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg"), ("b.jpg", "c.jpg")]
    assert complaint_of(run).count("featkit: error:") == 1


def test_a_huge_picture_is_refused_by_its_header(table: Table, tmp_path: Path) -> None:
    """225 megapixels in 219 kB cost no more memory than a small picture."""

    def peak_megabytes(name: str) -> float:
        program = (
            "import re, pathlib; from featkit.cli.app import run; import sys; run(['match', sys.argv[1], sys.argv[1]]);"
            "print(re.search(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1], file=sys.stderr)"
        )
        command = [sys.executable, "-c", program, str(table[name][0])]
        run = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60)
        return int(run.stderr.split()[-1]) / 1000

    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is not known on this system")
    assert peak_megabytes("bomb.png") < peak_megabytes("plain.png") + 10


def test_limit_frame_and_range_are_the_users_choice(featkit: Run, table: Table) -> None:
    good, pages, floats = (str(table[name][0]) for name in ("plain.png", "two pages.tif", "float.tif"))

    [refused, *_] = records_of(featkit("match", good, floats, "--max-pixels", "100", "--json"))
    assert refused["code"] == "too-large"
    assert refused["hint"] == "raise the limit with --max-pixels 3072"
    [match] = records_of(featkit("match", pages, pages, "--frame", "1", "--json"))
    assert match["size_a"] == [64, 48]
    [match] = records_of(featkit("match", floats, floats, "--float-range", "0,255", "--json"))
    assert match["size_a"] == [64, 48]


def test_coordinates_are_those_of_the_upright_picture(featkit: Run, photos: Path) -> None:
    with Image.open(photos / "a.jpg") as photo:
        upright = np.asarray(photo)
    height, width = upright.shape[:2]
    Image.fromarray(upright).save(photos / "upright.png")
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(as_stored(upright, orientation))
        (photos / f"turned {orientation}.jpg").write_bytes(pillow(stored, "JPEG", quality=95, exif=exif(orientation)))
    pairs = "".join(f"upright.png\tturned {orientation}.jpg\n" for orientation in range(1, 9))

    run = featkit("match", "--pairs", "-", "--json", stdin=pairs.encode())

    assert run.returncode == 0
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
    for record in records_of(run):
        assert record["verdict"] == "reliable"
        assert record["size_b"] == [width, height]
        moved = corners @ np.array(record["matrix"]).T
        assert np.abs(moved[:, :2] / moved[:, 2:] - corners[:, :2]).max() < 0.5


NAMES = [
    b"a name  with spaces .png",
    b"a name\nof two lines.png",
    b"not \xff\xfe UTF-8.png",
    "ü 名前.png".encode(),
    b"-dash.png",
    b"[brackets]*.png",
]


def test_names_of_any_bytes(featkit: Run, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(pillow(scene(), "PNG"))
    others = len(NAMES) - 1

    given = featkit("match", "--json", "-o", "matches.json", "--", *NAMES)
    listed = featkit("match", "--json", "--files-from", "-", "-0", stdin=b"\0".join(NAMES))

    for run in (given, listed):
        found = records_of(run)
        assert run.stderr == b""
        assert [os.fsencode(record["b"]) for record in found[:others]] == NAMES[1:]
        assert os.fsencode(found[0]["a"]) == NAMES[0]
    assert featkit("match", "--check", "matches.json").returncode == 0
    assert b"not \\\\xff\\\\xfe UTF-8.png" in (tmp_path / "matches.json").read_bytes()


def test_names_of_any_bytes_take_one_line(featkit: Run, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(pillow(scene(), "PNG"))

    run = featkit("match", NAMES[1], NAMES[2], b"gone \xff\n.png", PYTHONIOENCODING="ascii")

    assert run.stdout.startswith(b"a name\\nof two lines.png  not \\xff\\xfe UTF-8.png  none - 0 of 0 matches agree")
    assert run.stderr.startswith(b"featkit: error: gone \\xff\\n.png: there is no such file\n")


def test_written_files_may_have_names_of_any_bytes(featkit: Run, photos: Path) -> None:
    run = featkit("match", "a.jpg", "b.jpg", "-o", b"a \xff\n.npz", "--draw", b"a \xff\n.png")

    assert run.returncode == 0
    for name in (b"a \xff\n.npz", b"a \xff\n.png"):
        assert (photos / os.fsdecode(name)).stat().st_size > 0
