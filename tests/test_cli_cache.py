"""The cache behind the command line: it saves work, never changes a result, and never stands in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FEATKIT, Run, complaint_of, records_of

MATCH = ("match", "a.jpg", "b.jpg", "--json")


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.fk"))


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("seconds", "cached")}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder that featkit uses as its cache in these tests."""
    return tmp_path / "cache"


def test_the_second_run_is_served_from_the_cache(featkit: Run, photos: Path, cache: Path) -> None:
    [cold] = records_of(featkit(*MATCH))
    [warm] = records_of(featkit(*MATCH))

    assert (cold["cached"], warm["cached"]) == ([False, False], [True, True])
    assert lasting(cold) == lasting(warm)
    assert len(entries(cache)) == 4  # two pictures, their matches, and the second look


def test_the_key_is_the_content_and_not_the_name(featkit: Run, photos: Path) -> None:
    featkit(*MATCH)
    (photos / "moved").mkdir()
    (photos / "a.jpg").rename(photos / "moved" / "renamed.jpg")

    [moved] = records_of(featkit("match", "moved/renamed.jpg", "b.jpg", "--json"))
    shutil.copy(photos / "c.jpg", photos / "b.jpg")
    [replaced] = records_of(featkit("match", "moved/renamed.jpg", "b.jpg", "--json"))

    assert moved["cached"] == [True, True]
    assert replaced["cached"] == [True, False]


def test_other_options_are_other_entries(featkit: Run, photos: Path) -> None:
    featkit(*MATCH)

    for option in (["--detector", "orb"], ["--max-keypoints", "500"], ["--max-side", "100"]):
        [record] = records_of(featkit(*MATCH, *option))
        assert record["cached"] == [False, False], option
    for option in (["--ratio", "0.8"], ["--model", "affine"], ["--seed", "3"]):
        [record] = records_of(featkit(*MATCH, *option))
        assert record["cached"] == [True, True], option


def test_no_cache_neither_reads_nor_writes(featkit: Run, photos: Path, cache: Path) -> None:
    featkit(*MATCH, "--no-cache")
    assert not cache.exists()

    featkit(*MATCH)
    [record] = records_of(featkit(*MATCH, "--no-cache"))
    assert record["cached"] == [False, False]


def test_a_damaged_entry_is_computed_anew(featkit: Run, photos: Path, cache: Path) -> None:
    [right] = records_of(featkit(*MATCH))
    flipped, cut, emptied, overwritten = entries(cache)
    flipped.write_bytes(flipped.read_bytes()[:-9] + b"?" + flipped.read_bytes()[-8:])
    cut.write_bytes(cut.read_bytes()[:-100])
    emptied.write_bytes(b"")
    overwritten.write_bytes(b"no entry")

    run = featkit(*MATCH)

    [record] = records_of(run)
    assert lasting(record) == lasting(right)
    assert run.stderr == b""
    [repaired] = records_of(featkit(*MATCH))
    assert repaired["cached"] == [True, True]


def test_a_cache_that_cannot_be_written_is_one_warning(
    featkit: Run, photos: Path, cache: Path, plain_user: list[str]
) -> None:
    cache.mkdir(mode=0o555)

    run = featkit("match", "a.jpg", "b.jpg", "c.jpg", "--jobs", "2", "--json", prefix=plain_user)

    assert run.returncode == 0
    assert len(records_of(run)) == 3
    [warning] = run.stderr.decode().splitlines()
    assert warning == f"featkit: warning: the cache is off: {cache} cannot be written: Permission denied"


def test_a_file_in_the_place_of_the_cache_is_one_warning(featkit: Run, photos: Path) -> None:
    run = featkit(*MATCH, FEATKIT_CACHE="a.jpg")

    assert run.returncode == 0
    assert run.stderr == b"featkit: warning: the cache is off: a.jpg cannot be written: File exists\n"


def test_a_full_disk_is_one_warning(featkit: Run, photos: Path, cache: Path) -> None:
    run = featkit(*MATCH, largest_file=1000)

    assert run.returncode == 0
    assert run.stderr.decode() == f"featkit: warning: the cache is off: {cache} cannot be written: File too large\n"
    assert [path for path in cache.rglob("*") if path.is_file()] == [cache / "CACHEDIR.TAG"]


def test_a_cache_that_is_deleted_meanwhile_changes_nothing(featkit: Run, photos: Path, cache: Path) -> None:
    arguments = ["match", "a.jpg", "b.jpg", "c.jpg", "other.jpg", "--json", "--jobs", "1"]
    right = [lasting(record) for record in records_of(featkit(*arguments))]
    shutil.rmtree(cache)

    process = subprocess.Popen(
        [*FEATKIT, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=photos
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    shutil.rmtree(cache, ignore_errors=True)
    rest, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert errors == b""
    run = subprocess.CompletedProcess(arguments, 0, first + rest)
    assert [lasting(record) for record in records_of(run)] == right


@pytest.mark.parametrize("word", ["off", ""])
def test_the_environment_turns_the_cache_off(featkit: Run, photos: Path, cache: Path, word: str) -> None:
    assert records_of(featkit(*MATCH, FEATKIT_CACHE=word))[0]["cached"] == [False, False]
    assert not cache.exists()
    assert featkit("cache", "info", FEATKIT_CACHE=word).stdout == b"the cache is off (FEATKIT_CACHE)\n"
    assert featkit("cache", "prune", FEATKIT_CACHE=word).returncode == 0


def test_where_the_cache_is_by_default(featkit: Run, tmp_path: Path) -> None:
    def folder(**environment: str | None) -> str | None:
        [record] = records_of(featkit("cache", "info", "--json", FEATKIT_CACHE=None, **environment))
        found: str | None = record["folder"]
        return found

    home = str(tmp_path / "home")
    assert folder(HOME=home, XDG_CACHE_HOME=None) == f"{home}/.cache/featkit"
    assert folder(HOME=home, XDG_CACHE_HOME=f"{home}/xdg") == f"{home}/xdg/featkit"
    assert folder(HOME=None, XDG_CACHE_HOME=None) is not None


def test_info_prune_and_clear(featkit: Run, photos: Path, cache: Path) -> None:
    featkit("match", "a.jpg", "b.jpg", "c.jpg")
    abandoned = entries(cache)[0].with_suffix(".0123456789abcdef.tmp")
    abandoned.write_bytes(b"half an entry")
    damaged = entries(cache)[-1]
    damaged.write_bytes(b"no entry")

    [info] = records_of(featkit("cache", "info", "--json"))
    assert (info["type"], info["folder"], info["entries"], info["abandoned"]) == ("cache", str(cache), 9, 1)
    assert info["bytes"] == sum(entry.stat().st_size for entry in entries(cache))
    line = featkit("cache", "info").stdout.decode()
    assert line.startswith(f"{cache}: 9 entries, ")
    assert line.endswith(" of 4.0 GiB, 1 unfinished\n")

    assert featkit("cache", "prune").stdout.startswith(b"pruned: 0 entries, 1 unfinished, 1 damaged; ")
    assert not abandoned.exists()
    assert not damaged.exists()

    [pruned] = records_of(featkit("cache", "prune", "--max-size", "100", "--json"))
    assert (pruned["type"], pruned["done"], pruned["entries"]) == ("cache-cleaned", "pruned", 8)

    featkit("match", "a.jpg", "b.jpg")
    assert featkit("cache", "clear").stdout.startswith(b"cleared: 4 entries, 0 unfinished, 0 damaged; ")
    assert entries(cache) == []


def test_sizes_that_make_no_sense(featkit: Run, photos: Path) -> None:
    for run in (
        featkit("cache", "prune", "--max-size", "5Q"),
        featkit("cache", "info", FEATKIT_CACHE_LIMIT="much"),
        featkit(*MATCH, FEATKIT_CACHE_LIMIT="much"),
    ):
        assert run.returncode == 2
        assert "is not a size" in complaint_of(run)
        assert "as in 4G" in complaint_of(run)


def test_cache_alone_says_what_there_is(featkit: Run) -> None:
    run = featkit("cache")

    assert run.returncode == 2
    assert complaint_of(run) == "featkit: error: missing command\nhint: see `featkit cache --help`\n"


def test_looking_at_the_cache_loads_no_opencv(tmp_path: Path) -> None:
    program = "import sys; from featkit.cli.app import run; run(['cache', 'info']); sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=60).returncode == 0
