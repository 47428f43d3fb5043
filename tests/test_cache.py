"""The cache gives exactly what was put, or nothing: under kill -9, flipped bits, full disks and read-only folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import featkit
from featkit.cache import (
    DEFAULT_LIMIT_BYTES,
    Cache,
    CacheInfo,
    CacheWarning,
    Pruned,
    default_folder,
    default_limit_bytes,
    make_key,
)
from featkit.errors import UsageError

# The programs that the tests start run elsewhere, use the same featkit, and fork: so without OpenBLAS's threads.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(featkit.__file__).parent.parent),
    "OPENBLAS_NUM_THREADS": "1",
}


Arrays = dict[str, npt.NDArray[Any]]


def key(name: str) -> str:
    return make_key(content=[name], operation="test", version=1, config=None)


def zeros(size: int) -> dict[str, npt.NDArray[np.uint8]]:
    """An entry of a little more than `size` bytes."""
    return {"x": np.zeros(size, np.uint8)}


def entry_path(cache: Cache, name: str) -> Path:
    assert cache.folder is not None
    return cache.folder / key(name)[:2] / f"{key(name)}.fk"


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if not path.is_dir()}


def assert_same(arrays: Arrays | None, expected: Arrays) -> None:
    assert arrays is not None
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], strict=True)


def run_python(source: str, folder: Path) -> str:
    """The output of a Python program that runs in `folder`; the test fails if it fails."""
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# What it keeps


def test_what_was_put_comes_back_in_another_process_s_cache(cache: Cache) -> None:
    arrays: Arrays = {
        "xy": np.arange(6, dtype=np.float32).reshape(3, 2),
        "descriptors": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
        "every second": np.arange(10)[::2],
        "none": np.zeros((0, 128), np.uint8),
        "scalar": np.array(0.1),
        "not a number": np.array([np.nan, np.inf, -0.0]),
        "text": np.array(["Zürich", ""]),
        "big-endian": np.array([1, 2], ">i4"),
        # The names of np.savez's own arguments are names like any other.
        "file": np.array(True),
        "allow_pickle": np.array([1 + 2j]),
    }
    cache.put(key("a"), arrays)
    found = Cache(cache.folder).get(key("a"))
    assert_same(found, arrays)
    assert found is not None
    found["xy"][0, 0] = 7  # The arrays are the caller's own.
    assert_same(cache.get(key("a")), arrays)


def test_a_key_without_an_entry_is_a_miss(cache: Cache) -> None:
    assert cache.get(key("a")) is None
    assert cache.info() == CacheInfo(cache.folder, entries=0, bytes=0, limit_bytes=DEFAULT_LIMIT_BYTES, abandoned=0)
    assert cache.folder is not None
    assert not cache.folder.exists()


def test_an_entry_without_arrays_is_a_hit(cache: Cache) -> None:
    cache.put(key("a"), {})
    assert cache.get(key("a")) == {}


def test_the_second_of_two_puts_stays(cache: Cache) -> None:
    cache.put(key("a"), {"x": np.array(1)})
    cache.put(key("a"), {"y": np.array(2)})
    assert_same(cache.get(key("a")), {"y": np.array(2)})
    assert cache.info().entries == 1


def test_the_same_arrays_make_the_same_file(tmp_path: Path) -> None:
    one, two = Cache(tmp_path / "one"), Cache(tmp_path / "two")
    for each in (one, two):
        each.put(key("a"), zeros(100))
    assert entry_path(one, "a").read_bytes() == entry_path(two, "a").read_bytes()


def test_python_objects_are_refused_since_nothing_is_pickled(cache: Cache) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        cache.put(key("a"), {"x": np.array([object()])})
    assert cache.get(key("a")) is None


@pytest.mark.parametrize("wrong", ["", "a", "../../../etc/passwd", "A" * 64, "0" * 63 + "/", "0" * 64 + "\n"])
def test_only_a_key_is_a_key(cache: Cache, wrong: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        cache.get(wrong)
    with pytest.raises(ValueError, match="not a key"):
        cache.put(wrong, {})


def test_a_cache_without_a_folder_holds_nothing() -> None:
    cache = Cache(None)
    cache.put(key("a"), zeros(1))
    assert cache.get(key("a")) is None
    assert cache.info() == CacheInfo(None, entries=0, bytes=0, limit_bytes=DEFAULT_LIMIT_BYTES, abandoned=0)
    assert cache.prune() == cache.clear() == Pruned(entries=0, bytes=0, abandoned=0, damaged=0)


# Keys


@dataclass(frozen=True)
class Config:
    value: object = None


@dataclass(frozen=True)
class OtherConfig:
    value: object = None


def test_every_part_of_a_key_counts() -> None:
    base: dict[str, Any] = {"content": ["h"], "operation": "sift", "version": 1, "config": Config(), "libraries": {}}
    changed: list[dict[str, Any]] = [
        {},
        {"content": ["h", "h"]},
        {"content": ["i"]},
        {"operation": "orb"},
        {"version": 2},
        {"config": None},
        {"config": Config(1)},
        {"config": OtherConfig()},
        {"config": {"value": None}},
        {"libraries": {"cv2": "5.0.0"}},
        {"libraries": {"cv2": "5.0.1"}},
    ]
    assert len({make_key(**{**base, **change}) for change in changed}) == len(changed)


def test_values_that_python_calls_equal_have_keys_of_their_own() -> None:
    values: list[object] = [
        None,
        1,
        1.0,
        "1",
        True,
        "True",
        0,
        0.0,
        -0.0,
        False,
        "",
        [],
        {},
        [1],
        [[1]],
        [1, 1],
        "null",
    ]
    values += [0.1, 0.1 + 2**-56, {"a": 1}, {"b": 1}, {"dataclass": "Config", "fields": {}}, Config(), Config(Config())]
    keys = {make_key(content=[], operation="x", version=1, config=Config(value)) for value in values}
    assert len(keys) == len(values)


def test_a_key_does_not_depend_on_order_in_a_mapping_or_on_the_process() -> None:
    one = make_key(
        content=["h"], operation="x", version=1, config={"a": (1, 2), "b": 0.1}, libraries={"c": "1", "d": "2"}
    )
    two = make_key(
        content=["h"], operation="x", version=1, config={"b": 0.1, "a": [1, 2]}, libraries={"d": "2", "c": "1"}
    )
    # Written down: if it changes, everybody's cache is lost.
    assert one == two == "4217fd61cd3a7b8a08b3e4f43a97e8609790b53ec411c7fb92354356160f5fd3"


@pytest.mark.parametrize(
    "value", [Path("a.jpg"), {1, 2}, b"1", {1: 2}, np.float32(1), np.zeros(2), object(), Config, 1j]
)
def test_a_config_without_a_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="has no canonical form"):
        make_key(content=[], operation="x", version=1, config=Config([value]))


# Where it is, and how large


def test_the_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATKIT_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    for off in ("off", ""):
        monkeypatch.setenv("FEATKIT_CACHE", off)
        assert default_folder() is None
    monkeypatch.delenv("FEATKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "featkit"
    monkeypatch.setenv("HOME", "/home/ada")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert default_folder() == Path("/home/ada/.cache/featkit")


def test_a_user_without_a_home_has_no_cache(tmp_path: Path) -> None:
    source = """
import os
from featkit.cache import default_folder
if os.getuid() == 0:
    os.setuid(54321)  # Nobody with a line in /etc/passwd.
for name in ("HOME", "FEATKIT_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
print(default_folder())
"""
    if os.getuid() != 0:
        pytest.skip("only root can become a user without a home")
    assert run_python(source, tmp_path) == "None\n"


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1000", 1000), ("0", 0), ("2K", 2048), ("3m", 3 << 20), ("4G", 4 << 30), ("1T", 1 << 40), ("", 4 << 30)],
)
def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, limit: int) -> None:
    monkeypatch.setenv("FEATKIT_CACHE_LIMIT", text)
    assert default_limit_bytes() == limit


@pytest.mark.parametrize("text", ["many", "-1", "4GB", "1.5G", "4 G", "G", "1e9", "9" * 99, "٣"])
def test_a_malformed_limit_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FEATKIT_CACHE_LIMIT", text)
    with pytest.raises(UsageError, match="FEATKIT_CACHE_LIMIT is not a size"):
        default_limit_bytes()


def put_in_order(cache: Cache, *names: str) -> None:
    """Entries of 1000 and some bytes that were last used a second apart, the first of them the longest ago."""
    for number, name in enumerate(names):
        cache.put(key(name), zeros(1000))
        os.utime(entry_path(cache, name), (number, number))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    put_in_order(cache, "a", "b", "c", "d")
    assert cache.get(key("a")) is not None  # Used just now.
    size = entry_path(cache, "a").stat().st_size
    assert cache.prune(3 * size) == Pruned(entries=1, bytes=size, abandoned=0, damaged=0)
    assert [name for name in "abcd" if entry_path(cache, name).exists()] == ["a", "c", "d"]
    put_in_order(Cache(tmp_path, limit_bytes=3 * size), "e")
    assert [name for name in "abcde" if entry_path(cache, name).exists()] == ["a", "d", "e"]


def test_no_put_takes_more_than_the_limit(tmp_path: Path) -> None:
    limit = 100_000
    sizes = np.random.default_rng(0).integers(0, 20_000, 150)
    for number, size in enumerate(sizes):
        if number % 50 == 0:
            cache = Cache(tmp_path, limit)  # As another process does.
        cache.put(key(str(number)), zeros(int(size)))
        assert cache.info().bytes <= limit
        assert cache.get(key(str(number))) is not None
    assert cache.info().bytes > limit / 2


def test_processes_that_share_a_folder_take_little_more_than_the_limit(tmp_path: Path) -> None:
    limit = 100_000
    caches = [Cache(tmp_path, limit) for _ in range(4)]
    for number in range(400):
        caches[number % 4].put(key(str(number)), zeros(500))
        assert caches[0].info().bytes <= limit * (1 + 3 / 16)


def test_an_entry_larger_than_the_limit_is_not_stored_and_drives_nothing_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=3000)
    cache.put(key("a"), zeros(1000))
    cache.put(key("b"), zeros(5000))
    assert cache.get(key("a")) is not None
    assert cache.get(key("b")) is None


def test_the_folder_is_not_looked_through_at_every_put(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(key("a"), zeros(10))
    cache.put(key("b"), zeros(10))

    def scandir(folder: object) -> None:
        pytest.fail(f"{folder} is looked through")

    monkeypatch.setattr(os, "scandir", scandir)
    cache.put(key("a"), zeros(10))
    cache.put(key("b"), zeros(10))


# Damage

SMALL: Arrays = {"x": np.arange(3), "y": np.zeros((0, 2), np.float32)}


def test_any_flipped_byte_is_a_miss_and_goes(cache: Cache) -> None:
    cache.put(key("a"), SMALL)
    path = entry_path(cache, "a")
    whole = path.read_bytes()
    for position in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            assert cache.get(key("a")) is None, position
            assert not path.exists()
    path.write_bytes(whole)
    assert_same(cache.get(key("a")), SMALL)


def test_an_entry_cut_or_grown_anywhere_is_a_miss_and_goes(cache: Cache) -> None:
    cache.put(key("a"), SMALL)
    path = entry_path(cache, "a")
    whole = path.read_bytes()
    for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\0", whole + whole]:
        path.write_bytes(damaged)
        assert cache.get(key("a")) is None
        assert not path.exists()


def test_a_declared_size_is_not_believed(cache: Cache) -> None:
    cache.put(key("a"), SMALL)
    path = entry_path(cache, "a")
    whole = path.read_bytes()
    path.write_bytes(whole[:48] + (1 << 40).to_bytes(8, "little") + whole[56:])
    tracemalloc.start()
    assert cache.get(key("a")) is None
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_whole_entry_under_another_key_is_a_miss(cache: Cache) -> None:
    cache.put(key("a"), SMALL)
    entry_path(cache, "b").parent.mkdir(exist_ok=True)
    entry_path(cache, "a").rename(entry_path(cache, "b"))
    assert cache.get(key("b")) is None


def test_a_pickle_with_a_right_digest_is_not_loaded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featkit.cache.pack", lambda _: memoryview(b"cposix\nsystem\n(S'touch run'\ntR."))
    cache.put(key("a"), SMALL)
    assert entry_path(cache, "a").exists()
    assert cache.get(key("a")) is None
    assert not entry_path(cache, "a").exists()


def test_prune_finds_the_damaged_and_the_abandoned(cache: Cache) -> None:
    for name in ("good", "flipped", "cut", "empty"):
        cache.put(key(name), zeros(1000))
    whole = entry_path(cache, "cut").read_bytes()
    entry_path(cache, "flipped").write_bytes(whole[:-1] + b"\xff")
    entry_path(cache, "cut").write_bytes(whole[:500])
    entry_path(cache, "empty").write_bytes(b"")
    temporary = entry_path(cache, "good").with_name(f"{key('good')}.{'0' * 16}.tmp")
    temporary.write_bytes(bytes(10))
    assert cache.info().abandoned == 1
    assert cache.prune() == Pruned(entries=0, bytes=len(whole) + 500 + 10, abandoned=1, damaged=3)
    assert cache.info() == CacheInfo(cache.folder, 1, len(whole), DEFAULT_LIMIT_BYTES, abandoned=0)
    assert_same(cache.get(key("good")), zeros(1000))


# Files that are not the cache's own


def test_clear_removes_the_cache_s_own_files_and_no_other(tmp_path: Path) -> None:
    name = key("a")
    foreign = [
        "holiday.jpg",
        "notes.fk",
        f"{name}.fk",  # not in its folder
        f"{name[:2]}/holiday.jpg",
        f"{name[:2]}/{name}.fk.jpg",
        f"{name[:2]}/{name}.tmp",
        f"{name[:2]}/{'f' * 64 if name[0] != 'f' else '0' * 64}.fk",  # in another's
        f"{name[:2]}/{name}/{name}.fk",
    ]
    for path in foreign:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"precious")
    cache = Cache(tmp_path)
    cache.put(name, zeros(10))
    cache.put(key("b"), zeros(10))
    assert cache.info().entries == 2
    assert cache.prune(limit_bytes=0).entries == 2
    cache.put(name, zeros(10))
    assert cache.clear().entries == 1
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(foreign)
    # No CACHEDIR.TAG either: it would keep somebody's photos out of the backup.


def test_clear_leaves_an_empty_tagged_folder(cache: Cache) -> None:
    cache.put(key("a"), zeros(10))
    cache.put(key("b"), zeros(10))
    assert cache.folder is not None
    assert (cache.folder / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    size = cache.info().bytes
    assert cache.clear() == Pruned(entries=2, bytes=size, abandoned=0, damaged=0)
    assert [path.name for path in cache.folder.iterdir()] == ["CACHEDIR.TAG"]
    cache.put(key("a"), zeros(10))
    assert cache.get(key("a")) is not None


def test_clear_removes_damaged_and_empty_entries_too(cache: Cache) -> None:
    cache.put(key("a"), zeros(10))
    entry_path(cache, "a").write_bytes(b"")
    assert cache.clear().entries == 1


def test_the_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    cache = Cache(tmp_path / "link")
    cache.put(key("a"), SMALL)
    assert_same(Cache(tmp_path / "real").get(key("a")), SMALL)
    assert cache.clear().entries == 1
    assert (tmp_path / "link").is_symlink()


def test_a_link_in_an_entry_s_place_is_neither_read_nor_removed_nor_written_through(
    cache: Cache, tmp_path: Path
) -> None:
    cache.put(key("a"), SMALL)
    target = tmp_path / "target"
    entry_path(cache, "a").rename(target)
    whole = target.read_bytes()
    entry_path(cache, "a").symlink_to(target)
    assert cache.get(key("a")) is None
    assert cache.clear().entries == 0
    assert entry_path(cache, "a").is_symlink()
    cache.put(key("a"), zeros(10))
    assert_same(cache.get(key("a")), zeros(10))
    assert target.read_bytes() == whole


def test_a_pipe_or_a_folder_in_an_entry_s_place_is_a_miss(cache: Cache) -> None:
    for name in ("a", "b"):
        entry_path(cache, name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(entry_path(cache, "a"))
    entry_path(cache, "b").mkdir()
    assert cache.get(key("a")) is None
    assert cache.get(key("b")) is None
    cache.prune()
    assert entry_path(cache, "a").is_fifo()


# Writing fails


def test_a_folder_that_cannot_be_made_is_one_warning_and_then_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache")
    with pytest.warns(CacheWarning, match=r"the cache is off: .*file/cache cannot be written: Not a directory"):
        cache.put(key("a"), zeros(10))
    cache.put(key("a"), zeros(10))  # A second warning would be an error here.
    assert cache.get(key("a")) is None
    assert cache.info().entries == 0
    assert cache.prune() == cache.clear() == Pruned(entries=0, bytes=0, abandoned=0, damaged=0)


IN_A_READ_ONLY_FOLDER = """
import os, warnings
import numpy as np
from pathlib import Path
from featkit.cache import Cache
cache = Cache(Path("cache"))
cache.put("0" * 64, {"x": np.arange(3)})
cache.get("0" * 64)
damaged = Path("cache/00/00%s.fk" % ("1" * 62))
damaged.write_bytes(b"damaged")
for path in ("cache/00", "cache"):
    os.chmod(path, 0o555)
if os.getuid() == 0:
    os.setuid(65534)  # Permissions do not bind root.
cache = Cache(Path("cache"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in ("0", "1", "2"):
        cache.put(name * 64, {"x": np.arange(4)})
print([str(warning.message) for warning in caught])
print(cache.get("0" * 64), cache.get("1" * 64), cache.get(damaged.stem))
print(cache.info().entries, cache.prune(0), cache.clear())
print(sorted(os.listdir("cache/00")) == ["0" * 64 + ".fk", damaged.name])
"""


NOTHING = Pruned(entries=0, bytes=0, abandoned=0, damaged=0)


def test_a_read_only_folder_still_gives_what_it_has(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert run_python(IN_A_READ_ONLY_FOLDER, tmp_path).splitlines() == [
        "['the cache is off: cache cannot be written: Permission denied']",
        "{'x': array([0, 1, 2])} None None",
        f"2 {NOTHING} {NOTHING}",
        "True",
    ]


ON_A_FULL_DISK = """
import os, resource, warnings
import numpy as np
from pathlib import Path
from featkit.cache import Cache
cache = Cache(Path("cache"))
cache.put("0" * 64, {"x": np.arange(3)})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in ("1", "2", "3"):
        cache.put(name * 64, {"x": np.zeros(100_000)})
print([str(warning.message) for warning in caught])
print(cache.get("0" * 64), cache.get("1" * 64))
print(sorted(str(path) for path in Path("cache").rglob("*") if path.is_file()))
"""


def test_a_full_disk_is_one_warning_and_leaves_no_temporary(tmp_path: Path) -> None:
    assert run_python(ON_A_FULL_DISK, tmp_path).splitlines() == [
        "['the cache is off: cache cannot be written: File too large']",
        "{'x': array([0, 1, 2])} None",
        f"['cache/00/{'0' * 64}.fk', 'cache/CACHEDIR.TAG']",
    ]


# Many writers


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=200_000)
    wrong: list[object] = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 20, 100):
            expected = {"x": np.full(1000, number)}
            found = cache.get(key(str(number)))
            if found is None:
                cache.put(key(str(number)), expected)
            elif not np.array_equal(found["x"], expected["x"]):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.info().entries > 10
    assert all(name.endswith((".fk", ".TAG")) for name in file_names(tmp_path))


def test_one_warning_for_all_threads(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=cache.put, args=(key(str(n)), zeros(10))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(caught) == 1


def test_a_folder_that_is_cleared_while_writing_costs_entries_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            Cache(tmp_path).clear()

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        for number in range(300):
            cache.put(key(str(number)), zeros(100))
    finally:
        stop.set()
        thread.join()
    cache.put(key("after"), zeros(100))
    assert cache.get(key("after")) is not None


def test_killed_writers_leave_nothing_wrong_and_no_orphan(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("racing_writers.py")), "50"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == 100
    assert report["abandoned"] > 0  # Some were killed while they wrote.
    assert report["hits"] > 100
    assert (report["wrong"], report["damaged"]) == (0, 0)
    assert report["left"] == [".TAG", ".fk"]


WRITE_FOR_EVER = """
import numpy as np
from pathlib import Path
from featkit.cache import Cache
cache = Cache(Path("cache"))
while True:
    cache.put("0" * 64, {"x": np.zeros(20_000_000, np.uint8)})
"""


def test_prune_tells_a_living_writer_from_a_killed_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")

    def temporaries() -> list[Path]:
        return list((tmp_path / "cache").rglob("*.tmp"))

    with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER], cwd=tmp_path, env=ENVIRONMENT) as writer:
        try:
            for _ in range(10_000):  # Stop it while it writes.
                if temporaries():
                    writer.send_signal(signal.SIGSTOP)
                    os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
                    # It holds the temporary, unless it was about to take the lock or about to rename.
                    if temporaries() and cache.info().abandoned == 0:
                        break
                    writer.send_signal(signal.SIGCONT)
                time.sleep(0.001)
            assert cache.prune().abandoned == 0
            assert len(temporaries()) == 1
        finally:
            writer.kill()
    assert cache.info().abandoned == 1
    assert cache.prune().abandoned == 1
    assert temporaries() == []
    assert cache.prune().damaged == 0


def test_a_writer_removes_what_a_killed_one_left(cache: Cache) -> None:
    temporary = entry_path(cache, "a").with_name(f"{key('a')}.{'0' * 16}.tmp")
    temporary.parent.mkdir(parents=True)
    temporary.write_bytes(bytes(10))
    cache.put(key("b"), zeros(10))
    assert not temporary.exists()
