"""Folders of shards: a run that was killed goes on, what does not belong together is refused, jobs share a folder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from feature_tables import CONFIG, FIELDS, NAMES, assert_same, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import FileMissing, InputError, OutputError, OutputExists, UsageError
from featkit.extraction import shards
from featkit.extraction.formats import read
from featkit.extraction.shards import MANIFEST, Plan, complete, finished, listed, mine, prepare, write
from featkit.extraction.tables import Table, joined

PATHS = (*NAMES, *(f"{place}.jpg" for place in range(13)))
PLAN = Plan(PATHS, FIELDS, CONFIG, 6)  # shards of 6, 6, 6 and 2 pictures


def table_of(plan: Plan, index: int) -> Table:
    places = plan.places(index)
    return make_table(plan.paths[places.start : places.stop], plan.fields, seed=index)


def run(folder: Path, plan: Plan = PLAN, indices: Sequence[int] | None = None, *, force: bool = False) -> list[int]:
    """What an engine does; the shards that it made."""
    prepare(folder, plan, force=force)
    made = []
    for index in range(plan.shards) if indices is None else indices:
        if finished(folder, plan, index) is None:
            write(folder, plan, index, table_of(plan, index))
            made.append(index)
    complete(folder, plan)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what is in a folder


def test_shards_are_the_features(tmp_path: Path) -> None:
    run(tmp_path / "features")
    found = read(tmp_path / "features")
    assert (found.format, found.count, found.fields, found.config) == ("folder", len(PATHS), FIELDS, CONFIG)
    tables = list(found.tables())
    assert list(map(len, tables)) == [6, 6, 6, 2]
    assert_same(joined(tables, FIELDS), joined([table_of(PLAN, index) for index in range(4)], FIELDS))
    # Each is a file of its own, too.
    assert_same(next(read(tmp_path / "features" / "part-00001.parquet").tables()), tables[1])
    # And what reads folders of Parquet reads them all.
    assert pq.read_table(sorted((tmp_path / "features").glob("*.parquet"))).num_rows == len(PATHS)


def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    run(tmp_path / "features")
    manifest = json.loads((tmp_path / "features" / MANIFEST).read_text())
    assert (manifest["v"], manifest["complete"], manifest["pictures"], manifest["rows"]) == (1, True, 20, 6)
    assert manifest["config"] == CONFIG
    for index, shard in enumerate(manifest["shards"]):
        data = (tmp_path / "features" / shard["file"]).read_bytes()
        assert shard["sha256"] == sha256(data).hexdigest()
        assert shard["failed"] == sum(error != "" for error in table_of(PLAN, index).errors)
    assert sum(shard["rows"] for shard in manifest["shards"]) == 20


def test_no_pictures_are_a_folder_without_shards(tmp_path: Path) -> None:
    plan = replace(PLAN, paths=())
    prepare(tmp_path / "features", plan)
    assert complete(tmp_path / "features", plan)
    assert list(read(tmp_path / "features").tables()) == []


def test_a_folder_that_is_not_complete_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    run(folder, indices=[0, 2])
    assert not complete(folder, PLAN)
    with pytest.raises(InputError, match="not all there") as caught:
        read(folder)
    assert "again" in str(caught.value.hint)
    with pytest.raises(InputError, match="holds no features"):
        read(tmp_path)
    with pytest.raises(FileMissing):
        read(tmp_path / "missing")


# --- going on


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    assert run(tmp_path / "features", indices=[2]) == [2]
    assert run(tmp_path / "features") == [0, 1, 3]
    assert run(tmp_path / "features") == []
    run(tmp_path / "at once")
    assert content(tmp_path / "features") == content(tmp_path / "at once")


def test_the_list_of_a_shard_is_read_without_its_features(tmp_path: Path) -> None:
    run(tmp_path / "features", indices=[1])
    assert_same(listed(tmp_path / "features", PLAN, 1), replace(table_of(PLAN, 1), values={}, counts={}))
    assert listed(tmp_path / "features", PLAN, 0) is None


_RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_shards import PLAN, run
run(Path(sys.argv[2]), indices=[int(each) for each in sys.argv[3:]] or None)
"""


def start(folder: Path, *indices: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", _RUN, ROOT / "tests", folder, *map(str, indices)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path / "at once")
    choice = random.Random(0)
    killed = 0
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        process = start(folder)
        while not folder.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(choice.random() * 0.05)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        run(folder)
        assert content(folder) == content(tmp_path / "at once")
    assert killed


_RUN_AND_DIE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_shards import run
step, left = sys.argv[3], int(sys.argv[4])
original = getattr(Path, step)
def dying(*arguments, **options):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(Path, step, dying)
run(Path(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("step", "times"),
    [
        ("mkdir", 1),
        *(("touch", times) for times in (1, 2, 6)),
        *(("open", times) for times in (1, 2, 3, 4)),
        *(("write_text", times) for times in (1, 2)),
        *(("replace", times) for times in (1, 2, 6)),
    ],
)
def test_a_run_killed_at_this_moment_goes_on_to_the_same_bytes(tmp_path: Path, step: str, times: int) -> None:
    """The moments of a file that appears: made, opened to be locked or written, written, renamed; the first is the
    manifest, the sixth that of the complete folder."""
    run(tmp_path / "at once")
    folder = tmp_path / "features"
    command = [sys.executable, "-W", "error", "-c", _RUN_AND_DIE, ROOT / "tests", folder, step, str(times)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    run(folder)
    assert content(folder) == content(tmp_path / "at once")


@pytest.mark.parametrize("change", ["cut", "flipped", "empty", "other part", "other plan", "other pictures"])
def test_a_shard_that_is_not_the_one_is_made_again(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "features"
    run(folder)
    expected = content(folder)
    path = folder / "part-00001.parquet"
    data = expected[path.name]
    column = pq.ParquetFile(path).metadata.row_group(0).column(4)
    last = column.data_page_offset + column.total_compressed_size - 1
    spoilt = {
        "cut": data[:-1],
        "flipped": data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :],
        "empty": b"",
        "other part": expected["part-00002.parquet"],
    }
    if change in spoilt:
        path.write_bytes(spoilt[change])
    else:
        other = (
            replace(PLAN, config={"backbone": "vit"}) if change == "other plan" else replace(PLAN, paths=PATHS[::-1])
        )
        run(tmp_path / "other", other)
        path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    assert finished(folder, PLAN, 1) is None
    with pytest.raises(InputError):
        list(read(folder).tables())
    assert run(folder) == [1]
    assert content(folder) == expected


def test_every_flipped_byte_of_a_shard_is_told(tmp_path: Path) -> None:
    """By the manifest, which has the digest of each; within a run, only what a page's checksum covers."""
    run(tmp_path / "features")
    path = tmp_path / "features" / "part-00003.parquet"
    data = path.read_bytes()
    for place in random.Random(0).sample(range(len(data)), 60):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(InputError):
            list(read(tmp_path / "features").tables())
        found = finished(tmp_path / "features", PLAN, 3)
        if found is not None:
            assert_same(found, table_of(PLAN, 3))


def test_a_shard_that_is_made_again_leaves_the_folder_not_complete(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    run(folder)
    picture_changed = replace(table_of(PLAN, 2), digests=("f" * 64,) * 6)
    write(folder, PLAN, 2, picture_changed)
    with pytest.raises(InputError, match="not all there"):
        read(folder)
    assert complete(folder, PLAN)
    assert_same(list(read(folder).tables())[2], picture_changed)


def test_a_table_of_other_pictures_is_not_written(tmp_path: Path) -> None:
    prepare(tmp_path / "features", PLAN)
    with pytest.raises(ValueError, match="not the pictures of part 1"):
        write(tmp_path / "features", PLAN, 1, table_of(PLAN, 0))
    assert [path.name for path in (tmp_path / "features").iterdir()] == [MANIFEST]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {**CONFIG, "backbone": "vit"}}, 'its backbone was "resnet18" there, and is "vit" here'),
        (
            {"config": {**CONFIG, "weights": {"sha256": "cd"}}},
            f'weights.sha256 was "{"ab" * 32}" there, and is "cd" here',
        ),
        (
            {"config": {**CONFIG, "layers": ["head"]}},
            r'layers was \["head", "blocks.5"\] there, and is \["head"\] here',
        ),
        ({"config": {**CONFIG, "dtype": "float16"}}, 'its dtype was not given there, and is "float16" here'),
        ({"config": {**CONFIG, "pool": "x" * 999}}, f'its pool was null there, and is "{"x" * 99}… here'),
        ({"fields": FIELDS[1:]}, "its list of features"),
        ({"fields": (replace(FIELDS[0], dtype="float16"), *FIELDS[1:])}, "its list of features"),
        ({"rows": 7}, "its pictures a shard was 6 there, and is 7 here"),
        ({"paths": PATHS[:-1]}, "its pictures was 20 there, and is 19 here"),
        ({"paths": PATHS[::-1]}, "its list of pictures is another"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_run_of_something_else_is_refused_and_told_what(
    tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    folder = tmp_path / "features"
    run(folder)
    expected = content(folder)
    other = replace(PLAN, **changes)
    assert other.fingerprint != PLAN.fingerprint
    with pytest.raises(OutputExists, match=message) as caught:
        prepare(folder, other)
    assert "--force" in str(caught.value.hint)
    assert content(folder) == expected
    run(folder, other, force=True)
    assert read(folder).count == len(other.paths)
    run(tmp_path / "anew", other)
    assert content(folder) == content(tmp_path / "anew")


def test_the_same_config_in_other_words_is_the_same() -> None:
    other = replace(PLAN, config=dict(reversed({**CONFIG, "layers": ("head", "blocks.5")}.items())))
    assert other.fingerprint == PLAN.fingerprint


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, force: bool) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"a picture")
    (tmp_path / "part-00000.parquet").write_bytes(b"somebody's")
    (tmp_path / ".featkit-0123456789ab.json").write_bytes(b"what another command is writing")
    before = content(tmp_path)
    with pytest.raises(OutputExists, match=r"holds something else: holiday\.jpg"):
        prepare(tmp_path, PLAN, force=force)
    assert content(tmp_path) == before
    path = tmp_path / "holiday.jpg"
    with pytest.raises(OutputError):
        prepare(path, PLAN, force=force)
    assert path.read_bytes() == b"a picture"


def test_files_beside_the_shards_stay(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    run(folder)
    (folder / "notes.txt").write_text("mine")
    assert run(folder) == []
    assert run(folder, force=True) == [0, 1, 2, 3]
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '{"v": 1}',
        '{"v": 1, "type": "featkit-features"}',
        "[" * 100_000,
        '{"v": 2, "type": "featkit-features"}',
    ],
    ids=lambda text: text[:40],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "features"
    run(folder)
    (folder / MANIFEST).write_text(text)
    with pytest.raises(OutputExists, match=MANIFEST):
        prepare(folder, PLAN)
    with pytest.raises(InputError):
        read(folder)
    assert run(folder, force=True) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 0},
        {"rows": "6"},
        {"rows": 7},
        {"paths_sha256": "0" * 64},
        {"paths_sha256": None},
        {"fingerprint": "0" * 64},
        {"config": {}},
        {"shards": []},
        {"shards": None},
        {"shards": [{}] * 4},
        {"shards": [{"file": "../../etc/passwd", "rows": 6, "failed": 0, "sha256": ""}] * 4},
    ],
    ids=str,
)
def test_a_manifest_that_was_changed_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tmp_path / "features"
    run(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(InputError) as caught:
        list(read(folder).tables())
    assert caught.value.hint


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        prepare(tmp_path / place / "features", PLAN)


_WRITE_UNDER_A_LIMIT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_shards import run
from featkit.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    run(Path(sys.argv[2]))
except OutputError as error:
    print(error.hint)
"""


def test_a_full_disk_is_an_error_and_leaves_what_was_done(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    run(folder, indices=[0])
    before = content(folder)
    assert len(before["part-00000.parquet"]) > 4000 > len(before[MANIFEST])
    command = [sys.executable, "-W", "error", "-c", _WRITE_UNDER_A_LIMIT, ROOT / "tests", folder]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "ulimit" in done.stdout
    assert content(folder) == before


# --- jobs


@settings(derandomize=True)
@given(count=st.integers(0, 60), jobs=st.integers(1, 70))
def test_each_shard_is_one_job_s(count: int, jobs: int) -> None:
    shares = [mine(count, number, jobs) for number in range(1, jobs + 1)]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("number", "jobs"), [(0, 3), (4, 3), (-1, 3), (1, 0)])
def test_a_job_that_there_is_not_is_refused(number: int, jobs: int) -> None:
    with pytest.raises(UsageError, match="there is no job"):
        mine(12, number, jobs)


def test_jobs_share_a_folder(tmp_path: Path) -> None:
    run(tmp_path / "at once")
    jobs = [start(tmp_path / "features", *mine(PLAN.shards, number, 4)) for number in range(1, 5)]
    for job in jobs:
        assert job.communicate()[1] == b""
    assert content(tmp_path / "features") == content(tmp_path / "at once")


def test_what_a_killed_run_left_is_removed_and_what_another_is_writing_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    run(folder, indices=[0])
    left = [folder / ".featkit-0123456789ab.parquet", folder / ".featkit-ba9876543210.json"]
    left[0].write_bytes(b"PAR1 half of it")
    left[1].touch()
    (folder / ".featkit-notes").touch()
    with shards._replacing(folder / "part-00001.parquet") as temporary:
        temporary.write_bytes(b"to be continued")
        run(folder, indices=[0])
        assert temporary.exists()
    assert (folder / "part-00001.parquet").read_bytes() == b"to be continued"
    assert not any(path.exists() for path in left)
    assert (folder / ".featkit-notes").exists()
