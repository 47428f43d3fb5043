"""Shards of several folders, joined to one folder or one file."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from feature_tables import FIELDS, assert_same
from test_shards import PATHS, PLAN, content, run, table_of

from featkit.errors import InputError, OutputExists, UsageError
from featkit.extraction.formats import read, write
from featkit.extraction.merging import merge
from featkit.extraction.shards import MANIFEST, mine
from featkit.extraction.tables import joined


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of three jobs, each with its own."""
    found = [tmp_path / f"job {number}" for number in (1, 2, 3)]
    for number, folder in enumerate(found, 1):
        run(folder, indices=mine(PLAN.shards, number, 3))
    return found


@pytest.fixture
def at_once(tmp_path: Path) -> Path:
    run(tmp_path / "at once")
    return tmp_path / "at once"


def test_a_folder_is_as_one_run_makes_it(tmp_path: Path, folders: list[Path], at_once: Path) -> None:
    before = [content(folder) for folder in folders]
    merged = merge(folders, tmp_path / "all")
    assert (merged.shards, merged.pictures) == (4, len(PATHS))
    assert merged.failed == sum(error != "" for table in read(at_once).tables() for error in table.errors)
    assert content(tmp_path / "all") == content(at_once)
    assert [content(folder) for folder in folders] == before
    assert merge([tmp_path / "all"], tmp_path / "all") == merged


@pytest.mark.parametrize("format", ["npz", "parquet", "h5"])
def test_a_file_is_as_one_run_makes_it(tmp_path: Path, folders: list[Path], format: str) -> None:
    merge(folders, tmp_path / f"all.{format}")
    tables = [table_of(PLAN, index) for index in range(PLAN.shards)]
    assert_same(joined(read(tmp_path / f"all.{format}").tables(), FIELDS), joined(tables, FIELDS))
    write(tmp_path / f"at once.{format}", tables, FIELDS, PLAN.config, len(PATHS))
    assert (tmp_path / f"all.{format}").read_bytes() == (tmp_path / f"at once.{format}").read_bytes()


@pytest.mark.parametrize("force", [False, True])
def test_one_of_the_folders_can_take_the_others(folders: list[Path], at_once: Path, force: bool) -> None:
    merge(folders, folders[1], force=force)
    assert content(folders[1]) == content(at_once)


def test_a_shard_may_be_in_two_folders_if_it_is_the_same(tmp_path: Path, folders: list[Path], at_once: Path) -> None:
    shutil.copy(folders[0] / "part-00000.parquet", folders[2])
    merge(folders, tmp_path / "all")
    assert content(tmp_path / "all") == content(at_once)
    shutil.copy(folders[0] / "part-00003.parquet", folders[2] / "part-00000.parquet")
    with pytest.raises(InputError, match="not the same as") as caught:
        merge(folders, tmp_path / "again")
    assert caught.value.path == str(folders[0] / "part-00000.parquet")
    assert not (tmp_path / "again").exists()


def test_a_missing_shard_is_named(tmp_path: Path, folders: list[Path]) -> None:
    with pytest.raises(InputError, match=r"some are in none of the folders: 1$") as caught:
        merge([folders[0], folders[2]], tmp_path / "all.npz")
    assert "run the jobs" in str(caught.value.hint)
    with pytest.raises(InputError, match="none of the folders: 0, 1, 3"):
        merge([folders[2]], tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()


@pytest.mark.parametrize("target", ["all", "all.npz"])
def test_a_damaged_shard_is_told(tmp_path: Path, folders: list[Path], target: str) -> None:
    path = folders[1] / "part-00001.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:300] + b"?" + data[301:])
    with pytest.raises(InputError) as caught:
        merge(folders, tmp_path / target)
    assert caught.value.path == str(path)
    with pytest.raises(InputError):
        read(tmp_path / target)
    path.write_bytes(data)
    merge(folders, tmp_path / target)
    assert read(tmp_path / target).count == len(PATHS)


def test_runs_that_differ_are_refused_and_told_what(tmp_path: Path, folders: list[Path]) -> None:
    other = replace(PLAN, config={**PLAN.config, "backbone": "vit"})
    run(tmp_path / "other", other, [1])
    with pytest.raises(InputError, match='its backbone was "resnet18" there, and is "vit" here') as caught:
        merge([*folders, tmp_path / "other"], tmp_path / "all")
    assert caught.value.path == str(tmp_path / "other")
    # As is a target of another run.
    with pytest.raises(OutputExists, match="backbone"):
        merge(folders, tmp_path / "other")
    merge(folders, tmp_path / "other", force=True)
    assert read(tmp_path / "other").config == PLAN.config


def test_what_is_no_folder_of_shards_is_told(tmp_path: Path, folders: list[Path]) -> None:
    with pytest.raises(UsageError, match="no folders"):
        merge([], tmp_path / "all")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing", folders[0] / MANIFEST):
        with pytest.raises(InputError):
            merge([folders[0], folder], tmp_path / "all")
    with pytest.raises(UsageError, match=r"a \.npy file holds one kind"):
        merge(folders, tmp_path / "all.npy")


def test_an_older_file_stays(tmp_path: Path, folders: list[Path]) -> None:
    (tmp_path / "all.h5").write_bytes(b"precious")
    with pytest.raises(OutputExists):
        merge(folders, tmp_path / "all.h5")
    assert (tmp_path / "all.h5").read_bytes() == b"precious"
    merge(folders, tmp_path / "all.h5", force=True)
    assert read(tmp_path / "all.h5").count == len(PATHS)
