"""What is made of a plan, and what is kept: shards by a describer that counts what it is asked for."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featkit.archives import PictureFiles
from featkit.cache import Cache
from featkit.errors import InputError, OutputExists, UsageError
from featkit.extraction import shards
from featkit.extraction.describers import Described, Read
from featkit.extraction.formats import read
from featkit.extraction.pipeline import Job, Output, begin, check_place, finish, make
from featkit.extraction.running import plan_of
from featkit.extraction.tables import Field, Table, error_text

NO_CACHE = Cache(None)
HEADER = b"\x89PNG\r\n\x1a\n"


@dataclass
class Lengths:
    """A Describer: of each picture how many bytes it has. asked: for which pictures it was."""

    config: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = (Field("length", "float32", (1,)),)
    at_once: int = 2
    asked: list[str] = field(default_factory=list)

    def __call__(
        self, paths: Sequence[str], read: Read, *, cache: Cache, jobs: int
    ) -> Generator[Described, None, None]:
        for start in range(0, len(paths), self.at_once):
            found = [self._row(path, read) for path in paths[start : start + self.at_once]]
            names, digests, errors, lengths = zip(*found, strict=True)
            values = np.array(lengths, np.float32)[:, None]
            yield Described(Table(names, digests, errors, {"length": values}, {}), 0.1, False)

    def _row(self, path: str, read: Read) -> tuple[str, str, str, float]:
        self.asked.append(Path(path).name)
        try:
            data = read(path)
        except InputError as error:
            return path, "", error_text(error), np.nan
        return path, sha256(data).hexdigest(), "", len(data)


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    """0.png … 9.png, of which 4.png is missing and 7.png no picture."""
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(HEADER + bytes(number))
    (tmp_path / "4.png").unlink()
    (tmp_path / "7.png").write_text("no picture")
    return PictureFiles([str(tmp_path / f"{number}.png") for number in range(10)])


def run(output: Output, files: PictureFiles, **options: Any) -> tuple[list[str], list[bool]]:
    """Names of the pictures that were described, and of each picture of the job whether it was kept."""
    lengths = Lengths(**options)
    plan = begin(output, files, lengths)
    kept = []
    for each in make(output, plan, files, lengths, cache=NO_CACHE, jobs=2):
        assert each.described.table.paths == plan.paths[each.start : each.start + len(each.described.table)]
        kept += [each.kept] * len(each.described.table)
    finish(output, plan)
    return lengths.asked, kept


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("rows", "expected"), [(1, 2), (2, 2), (3, 4), (None, 1024)])
def test_shards_are_whole_batches(files: PictureFiles, rows: int | None, expected: int) -> None:
    assert plan_of(files, Lengths(), rows).rows == expected


def test_shards_of_large_features_are_of_fewer_pictures(files: PictureFiles) -> None:
    large = (Field("map", "float32", (2048, 7, 7)), Field("sift.xy", "float32", (2,), ragged=True))
    plan = plan_of(files, Lengths(fields=large))
    fitting = (64 << 20) // (2048 * 49 * 4 + (1 << 20))
    assert plan.rows == fitting + fitting % 2
    assert plan_of(files, Lengths(fields=(Field("map", "float32", (99_999_999,)),))).rows == 2


@pytest.mark.parametrize("name", ["features", "features.npz"])
def test_what_is_there_is_kept_and_what_is_missing_made(files: PictureFiles, tmp_path: Path, name: str) -> None:
    output = Output(str(tmp_path / name), rows=4)
    lengths = Lengths()
    plan = begin(output, files, lengths)
    steps = make(output, plan, files, lengths, cache=NO_CACHE, jobs=1)
    for _ in range(3):  # the first shard, and half of the second
        next(steps)
    steps.close()
    assert not finish(output, plan)
    assert [path.name for path in output.folder.glob("part-*")] == ["part-00000.parquet"]

    asked, kept = run(output, files)
    assert asked == [f"{number}.png" for number in range(4, 10)]
    assert kept == [True] * 4 + [False] * 6
    run(Output(str(tmp_path / f"anew{Path(name).suffix}"), rows=4), files)
    if output.is_folder:
        assert content(tmp_path / "features") == content(tmp_path / "anew")
        assert run(output, files) == ([], [True] * 10)
    else:
        assert (tmp_path / "features.npz").read_bytes() == (tmp_path / "anew.npz").read_bytes()
        with pytest.raises(OutputExists):
            run(output, files)


@pytest.mark.parametrize("change", ["changed", "gone", "repaired", "not there any more", "otherwise broken"])
def test_only_the_shard_of_a_changed_picture_is_made_anew(files: PictureFiles, tmp_path: Path, change: str) -> None:
    output = Output(str(tmp_path / "features"), rows=4)
    run(output, files)
    name, data = {
        "changed": ("1.png", HEADER + b"other"),
        "gone": ("1.png", None),
        "repaired": ("7.png", HEADER),
        "not there any more": ("7.png", None),
        "otherwise broken": ("7.png", b""),
    }[change]
    (tmp_path / name).unlink()
    if data is not None:
        (tmp_path / name).write_bytes(data)

    asked, kept = run(output, files)

    first = 4 * (int(name[0]) // 4)
    assert asked == [f"{number}.png" for number in range(first, first + 4)]
    assert kept == [not first <= number < first + 4 for number in range(10)]
    run(Output(str(tmp_path / "anew"), rows=4), files)
    assert content(tmp_path / "features") == content(tmp_path / "anew")


def test_each_job_makes_its_own(files: PictureFiles, tmp_path: Path) -> None:
    for number in (3, 1, 2):
        asked, kept = run(Output(str(tmp_path / "features"), rows=2, job=Job(number, 3)), files)
        expected = [place for index in range(number - 1, 5, 3) for place in (2 * index, 2 * index + 1)]
        assert asked == [f"{place}.png" for place in expected]
        assert len(kept) == len(expected)
    assert read(tmp_path / "features").count == 10
    assert run(Output(str(tmp_path / "features"), rows=2, job=Job(9, 9)), files) == ([], [])


def test_force_begins_anew(files: PictureFiles, tmp_path: Path) -> None:
    output = Output(str(tmp_path / "features"), rows=4)
    run(output, files)
    with pytest.raises(OutputExists, match=r"its scale was not given there, and is 2 here"):
        run(output, files, config={"scale": 2})
    asked, _ = run(Output(output.path, rows=4, force=True), files, config={"scale": 2})
    assert len(asked) == 10


def test_the_file_keeps_the_older_one_until_it_is_whole(files: PictureFiles, tmp_path: Path) -> None:
    (tmp_path / "features.npy").write_bytes(b"older")
    output = Output(str(tmp_path / "features.npy"), rows=4, force=True)
    lengths = Lengths()
    plan = begin(output, files, lengths)
    list(make(output, plan, files, lengths, cache=NO_CACHE, jobs=1))
    (output.folder / ".featkit-0123456789ab.npy").write_bytes(b"half of it")
    assert (tmp_path / "features.npy").read_bytes() == b"older"
    assert finish(output, plan)
    assert read(tmp_path / "features.npy").count == 10
    assert not output.folder.exists()


def test_what_is_not_featkit_s_stays(files: PictureFiles, tmp_path: Path) -> None:
    output = Output(str(tmp_path / "features.h5"), rows=4)
    lengths = Lengths()
    plan = begin(output, files, lengths)
    (output.folder / "notes.txt").write_text("mine")
    list(make(output, plan, files, lengths, cache=NO_CACHE, jobs=1))
    assert finish(output, plan)
    assert [path.name for path in output.folder.iterdir()] == ["notes.txt"]


def test_what_could_not_be_written_is_refused_before_features_are_known(tmp_path: Path) -> None:
    (tmp_path / "features.npz").touch()
    for name in ("features.npz", "nowhere/features.npz", "nowhere/features"):
        with pytest.raises(Exception, match=r"exists already|there is no folder"):
            check_place(Output(str(tmp_path / name)))
    check_place(Output(str(tmp_path / "features.npz"), force=True))
    check_place(Output(str(tmp_path)))


def test_outputs_that_make_no_sense() -> None:
    for options, message in [
        ({"path": "a", "rows": 0}, "--shard-size must be at least 1"),
        ({"path": "a.npz", "job": Job(1, 2)}, "writes a folder of shards"),
        ({"path": "a", "job": Job(1, 2), "force": True}, "would remove what the other jobs"),
        ({"path": "a.txt", "job": Job(1, 2)}, "there is no format 'txt'"),
    ]:
        with pytest.raises(UsageError, match=message):
            Output(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no job 3 of 2"):
        shards.mine(5, 3, 2)
