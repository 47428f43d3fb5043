"""Files of features: what goes in comes out, in the same bytes every time; damage is told, and so is a full disk."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Trap
from feature_tables import CONFIG, FIELDS, NAMES, any_fields, any_tables, assert_same, make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featkit.errors import FileMissing, InputError, NotAFile, OutputError, OutputExists, UsageError
from featkit.extraction import formats
from featkit.extraction.formats import check_output, format_of, read, write
from featkit.extraction.npy_file import index_of
from featkit.extraction.tables import Field, Table, joined

every_format = pytest.mark.parametrize("format", ["npz", "npy", "parquet", "h5"])

TABLES = [make_table(NAMES, seed=1), make_table([]), make_table(["d.jpg", "e.jpg", "f.jpg"], seed=2)]


def only(table: Table, fields: tuple[Field, ...]) -> Table:
    names = [field.name for field in fields]
    return dataclasses.replace(
        table,
        values={name: table.values[name] for name in names},
        counts={name: table.counts[name] for name in names if name in table.counts},
    )


def write_some(folder: Path, format: str, **options: bool) -> tuple[Path, tuple[Field, ...], list[Table]]:
    """A file with ten pictures; a .npy file holds the first of the fields."""
    fields = FIELDS[:1] if format == "npy" else FIELDS
    tables = [only(table, fields) for table in TABLES]
    path = folder / f"features.{format}"
    write(path, tables, fields, CONFIG, 10, **options)
    return path, fields, tables


# --- what is kept


@every_format
def test_features_come_back(tmp_path: Path, format: str) -> None:
    path, fields, tables = write_some(tmp_path, format)
    found = read(path)
    assert (found.fields, found.config, found.count, found.format) == (fields, CONFIG, 10, format)
    assert_same(joined(found.tables(), fields), joined(tables, fields))


@every_format
@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_features_come_back(tmp_path: Path, format: str, data: st.DataObject) -> None:
    fields = data.draw(any_fields())
    if format == "npy":
        fields = (dataclasses.replace(fields[0], ragged=False),)
    tables = data.draw(any_tables(fields))
    path = tmp_path / f"features.{format}"
    write(path, tables, fields, CONFIG, sum(map(len, tables)), force=True)
    assert_same(joined(read(path).tables(), fields), joined(tables, fields))


@pytest.mark.parametrize("format", ["npz", "parquet", "h5"])
def test_one_kind_of_features_is_read_without_the_others(tmp_path: Path, format: str) -> None:
    path, fields, tables = write_some(tmp_path, format)
    chosen = (fields[4], fields[1])
    found = joined(read(path).tables([field.name for field in chosen]), chosen)
    assert_same(found, only(joined(tables, fields), chosen))
    with pytest.raises(UsageError, match="there are no features 'tail'") as caught:
        read(path).tables(["tail"])
    assert "head" in str(caught.value.hint)


@every_format
def test_no_number_of_a_failed_picture_looks_like_one(tmp_path: Path, format: str) -> None:
    path, fields, _ = write_some(tmp_path, format)
    table = joined(read(path).tables(), fields)
    failed = np.array([error != "" for error in table.errors])
    assert 0 < failed.sum() < len(failed)
    assert np.isnan(table.values["head"][failed]).all()
    assert not np.isnan(table.values["head"][~failed]).any()


_WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_feature_files import write_some
for format in ("npz", "npy", "parquet", "h5"):
    write_some(Path(sys.argv[2]), format)
"""


def test_the_same_features_are_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    for folder, seed in (("a", "1"), ("b", "2")):
        time.sleep(1.1)  # beyond the resolution of the time stamps that these formats could carry
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-W", "error", "-c", _WRITE, ROOT / "tests", tmp_path / folder]
        # Strings have other hashes.
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)})
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert len(list((tmp_path / "a").iterdir())) == 5


# --- what others read


def test_numpy_reads_an_archive(tmp_path: Path) -> None:
    path, _, tables = write_some(tmp_path, "npz")
    expected = joined(tables, FIELDS)
    with np.load(path, allow_pickle=False) as archive:
        assert json.loads(archive["config"].item())["config"] == CONFIG
        assert archive["paths"][:3].tolist() == ["a.jpg", "Schloß 城/b.jpg", "bytes:caf%E9.jpg"]
        assert archive["sha256"].tolist() == list(expected.digests)
        assert archive["errors"].tolist() == list(expected.errors)
        np.testing.assert_array_equal(archive["blocks.5"], expected.values["blocks.5"], strict=True)
        counts = archive["sift.xy.counts"]
        end = counts.cumsum()
        for place in range(10):
            items = archive["sift.xy"][end[place] - counts[place] : end[place]]
            np.testing.assert_array_equal(items, expected.part(place, place + 1).values["sift.xy"])


def test_numpy_reads_an_array_and_anything_its_index(tmp_path: Path) -> None:
    path, fields, tables = write_some(tmp_path, "npy")
    expected = joined(tables, fields)
    np.testing.assert_array_equal(np.load(path), expected.values["head"], strict=True)
    heading, *rows = map(json.loads, index_of(path).read_text().splitlines())
    assert heading["config"] == CONFIG
    assert [row["row"] for row in rows] == list(range(10))
    assert [os.fsencode(row["path"]) for row in rows[:3]] == [b"a.jpg", "Schloß 城/b.jpg".encode(), b"caf\xe9.jpg"]
    assert [row["error"] or "" for row in rows] == list(expected.errors)


def test_arrow_reads_a_table(tmp_path: Path) -> None:
    path, _, tables = write_some(tmp_path, "parquet")
    expected = joined(tables, FIELDS)
    rows = pq.read_table(path).to_pylist()
    assert [row["path"] for row in rows[:3]] == ["a.jpg", "Schloß 城/b.jpg", "bytes:caf%E9.jpg"]
    assert [row["error"] for row in rows] == [error or None for error in expected.errors]
    for place, row in enumerate(rows):
        part = expected.part(place, place + 1)
        if expected.errors[place]:
            assert [row[field.name] for field in FIELDS] == [None] * len(FIELDS)
            continue
        assert row["sharpness"] == part.values["sharpness"][0]
        assert row["head"] == part.values["head"][0].tolist()
        assert row["blocks.5"] == part.values["blocks.5"].ravel().tolist()
        assert row["sift.descriptors"] == part.values["sift.descriptors"].tolist()
        assert row["sift.response"] == part.values["sift.response"].tolist()
    # A table is a group of rows: what was made together is read together.
    assert pq.ParquetFile(path).metadata.num_row_groups == 2


def test_h5py_reads_its_datasets(tmp_path: Path) -> None:
    path, _, tables = write_some(tmp_path, "h5")
    expected = joined(tables, FIELDS)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["config"])["config"] == CONFIG
        assert list(file["paths"].asstr()[:3]) == ["a.jpg", "Schloß 城/b.jpg", "bytes:caf%E9.jpg"]
        for name in expected.values:
            np.testing.assert_array_equal(file[name][()], expected.values[name], strict=True)
        np.testing.assert_array_equal(file["sift.xy.counts"][()], expected.counts["sift.xy"], strict=True)


# --- which format


@pytest.mark.parametrize(
    ("path", "name", "found"),
    [
        ("a.npz", None, "npz"),
        ("a.NPY", None, "npy"),
        ("a.b.parquet", None, "parquet"),
        ("a.h5", None, "h5"),
        ("features", None, "folder"),
        ("features.v2/", None, "folder"),
        ("features.v2", "folder", "folder"),
        ("-", "npz", "npz"),
    ],
)
def test_the_ending_tells_the_format(path: str, name: str | None, found: str) -> None:
    assert format_of(path, name) == found


@pytest.mark.parametrize(("path", "name"), [("a.csv", None), ("a.folder", None), ("a.npz", "csv"), ("a.npz", ".npz")])
def test_any_other_is_refused_and_the_known_ones_are_named(path: str, name: str | None) -> None:
    with pytest.raises(UsageError, match="there is no format") as caught:
        format_of(path, name)
    assert "npz, npy, parquet, h5, folder" in str(caught.value.hint)


@pytest.mark.parametrize(("fields", "message"), [(FIELDS[:2], "and there are 2"), (FIELDS[4:5], "any number")])
def test_an_array_holds_one_value_a_picture(tmp_path: Path, fields: tuple[Field, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_output(tmp_path / "a.npy", fields)
    assert ".npz" in str(caught.value.hint)


# --- whole or not at all


@every_format
def test_an_older_file_stays_unless_it_is_to_be_replaced(tmp_path: Path, format: str) -> None:
    path, _, _ = write_some(tmp_path, format)
    before = path.read_bytes()
    with pytest.raises(OutputExists):
        write_some(tmp_path, format)
    path.write_bytes(b"older")
    write_some(tmp_path, format, force=True)
    assert path.read_bytes() == before


def test_the_index_of_an_array_is_not_overwritten_either(tmp_path: Path) -> None:
    index = tmp_path / "features.index.jsonl"
    index.write_text("precious")
    with pytest.raises(OutputExists) as caught:
        write_some(tmp_path, "npy")
    assert caught.value.path == str(index)
    assert index.read_text() == "precious"


@every_format
@pytest.mark.parametrize("problem", [ValueError("the maker failed"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_exception_leaves_nothing(tmp_path: Path, format: str, problem: BaseException) -> None:
    def tables() -> Iterator[Table]:
        yield only(TABLES[0], FIELDS[:1])
        raise problem

    with pytest.raises(type(problem)):
        write(tmp_path / f"features.{format}", tables(), FIELDS[:1], CONFIG, 10)
    assert list(tmp_path.iterdir()) == []


@every_format
def test_tables_of_other_pictures_or_fields_are_refused(tmp_path: Path, format: str) -> None:
    path, table = tmp_path / f"features.{format}", only(TABLES[0], FIELDS[:1])
    with pytest.raises(ValueError, match="there are 7 pictures, and not 8"):
        write(path, [table], FIELDS[:1], CONFIG, 8)
    with pytest.raises(ValueError, match="head is float32"):
        write(path, [table], [Field("head", "float16", (3,))], CONFIG, 7)
    assert list(tmp_path.iterdir()) == []


@every_format
def test_signals_are_held_back_while_a_file_is_written(tmp_path: Path, format: str) -> None:
    inside = False
    steps = 0

    @contextlib.contextmanager
    def unbroken() -> Iterator[None]:
        nonlocal inside, steps
        assert not inside
        inside, steps = True, steps + 1
        yield
        inside = False

    def tables() -> Iterator[Table]:
        for table in TABLES:
            assert not inside
            yield only(table, FIELDS[:1])

    write(tmp_path / f"features.{format}", tables(), FIELDS[:1], CONFIG, 10, unbroken=unbroken)
    assert steps == 2 + len(TABLES)


_WRITE_UNDER_A_LIMIT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from feature_tables import make_table
from featkit.errors import OutputError
from featkit.extraction.formats import write
from featkit.extraction.tables import Field
limit = int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
fields = [Field("head", "float32", (256,))]
names = [str(place) for place in range(100)]
try:
    write(sys.argv[2], [make_table(names, fields, seed=seed) for seed in range(5)], fields, {}, 500)
except OutputError as error:
    print(error.hint)
"""


@every_format
# At the first table, in the midst of it all, with the last bytes.
@pytest.mark.parametrize("limit", [1_000, 300_000, -100])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, format: str, limit: int) -> None:
    path = tmp_path / f"features.{format}"

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", _WRITE_UNDER_A_LIMIT, ROOT / "tests", path, "x", str(limit)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    if limit < 0:
        assert run(1 << 30).stdout == ""
        limit += path.stat().st_size
        for each in list(tmp_path.iterdir()):
            each.unlink()
    done = run(limit)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ulimit" in done.stdout
    assert list(tmp_path.iterdir()) == []


@every_format
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featkit.extraction.array_streams._BYTES_AT_ONCE", 1 << 21)
    field = Field("map", "float32", (64, 32, 32))
    table = make_table([f"{place}.jpg" for place in range(8)], [field])  # 2 MiB

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.{format}"
        tracemalloc.start()
        write(path, (table for _ in range(count)), [field], {}, 8 * count)
        assert sum(len(each) for each in read(path).tables()) == 8 * count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # What is loaded late is loaded.
    assert peak(24) < peak(12) + table.values["map"].nbytes


# --- what is no file of features, or no longer whole


@every_format
def test_what_is_not_there_is_told(tmp_path: Path, format: str) -> None:
    with pytest.raises(FileMissing):
        read(tmp_path / f"missing.{format}")
    with pytest.raises(FileMissing):
        read(tmp_path / "missing")
    fifo = tmp_path / f"fifo.{format}"
    os.mkfifo(fifo)
    with pytest.raises(NotAFile):
        read(fifo)


@every_format
@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 a picture", b"{}\n", b"[" * 100_000], ids=len)
def test_what_is_something_else_is_told(tmp_path: Path, format: str, data: bytes) -> None:
    path = tmp_path / f"other.{format}"
    path.write_bytes(data)
    index_of(path).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.hint


def foreign_files(folder: Path) -> Iterator[Path]:
    np.savez(folder / "other.npz", head=np.zeros((3, 4)))
    pq.write_table(pa.table({"head": [1.0]}), folder / "other.parquet")
    with h5py.File(folder / "other.h5", "w") as file:
        file["head"] = np.zeros((3, 4))
    return folder.iterdir()


def test_what_others_wrote_is_told_apart(tmp_path: Path) -> None:
    for path in foreign_files(tmp_path):
        with pytest.raises(InputError, match="holds no features of featkit"):
            read(path)


def field_json(**changes: object) -> str:
    return json.dumps([{"name": "head", "dtype": "float32", "shape": [3], "ragged": False} | changes])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("fields", "[]"),
        ("fields", "[{}]"),
        ("fields", '"head"'),
        ("fields", field_json(name=7)),
        ("fields", field_json(dtype="object")),
        ("fields", field_json(dtype="float16")),
        ("fields", field_json(shape=[1 << 40])),
        ("fields", field_json(shape="3")),
        ("fields", field_json(shape=[3] * 40)),
        ("fields", field_json(ragged=True)),
        ("config", "[]"),
        ("config", '{"a": NaN}'),
        ("config", '{"a": 1e999}'),
        ("config", '{"a": ' + "9" * 5000 + "}"),
        ("config", '{"a": ' + "[" * 5000 + "]" * 5000 + "}"),
        ("pictures", "11"),
        ("pictures", "-1"),
        ("pictures", "true"),
        ("pictures", str(1 << 61)),
        ("pictures", "1e300"),
        ("sha256", "null"),
        ("sha256", '"00"'),
        ("type", '"model"'),
    ],
    ids=lambda text: text[:50],
)
def test_a_heading_that_was_changed_is_told(tmp_path: Path, key: str, text: str) -> None:
    path, _, _ = write_some(tmp_path, "npy")
    heading, *rows = index_of(path).read_text().splitlines(keepends=True)
    changed_heading = json.dumps({**json.loads(heading), key: "HERE"}).replace('"HERE"', text)
    index_of(path).write_text(changed_heading + "\n" + "".join(rows))
    with pytest.raises(InputError):
        list(read(path).tables())


@every_format
def test_another_version_is_refused(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("featkit.extraction.headings.VERSION", 2)
        path, _, _ = write_some(tmp_path, format)
    with pytest.raises(InputError, match="of version 2, and this featkit reads version 1"):
        read(path)


def changed(data: bytes, place: int, bits: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


@every_format
def test_damage_is_told_or_changes_nothing(tmp_path: Path, format: str) -> None:
    """Cut anywhere, or with a wrong byte anywhere; all positions were tried once."""
    path, fields, tables = write_some(tmp_path, format)
    expected = joined(tables, fields)
    data = path.read_bytes()
    choice = random.Random(0)
    places = [choice.randrange(len(data)) for _ in range(250)]
    spoilt = [changed(data, place, choice.choice((1, 16, 128, 255))) for place in places]
    spoilt += [data[: choice.randrange(len(data))] for _ in range(50)]
    told = 0
    for each in spoilt:
        path.write_bytes(each)
        try:
            found = joined(read(path).tables(), fields)
        except InputError:
            told += 1
        else:
            assert_same(found, expected)
    assert told > 200


def test_a_damaged_index_is_told_or_is_an_index(tmp_path: Path) -> None:
    path, fields, _ = write_some(tmp_path, "npy")
    index = index_of(path)
    data = index.read_bytes()
    choice = random.Random(0)
    for _ in range(300):
        index.write_bytes(changed(data, choice.randrange(len(data)), choice.choice((1, 16, 128, 255))))
        with contextlib.suppress(InputError):
            joined(read(path).tables(), fields).check(fields)
    for cut in range(0, len(data), 7):
        index.write_bytes(data[:cut])
        with pytest.raises(InputError):
            list(read(path).tables())


def test_an_array_beside_the_index_of_another_is_told(tmp_path: Path) -> None:
    path, _, _ = write_some(tmp_path, "npy")
    np.save(path, np.load(path) + 1)
    with pytest.raises(InputError, match="not the one that its index belongs to"):
        list(read(path).tables())
    index_of(path).unlink()
    with pytest.raises(FileMissing) as caught:
        read(path)
    assert caught.value.path == str(index_of(path))


def _rewrite(path: Path, **arrays: np.ndarray) -> None:
    """The archive with other arrays in the place of some, and right checksums."""
    with np.load(path) as archive:
        old = dict(archive)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (old | arrays).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("sift.xy.counts", np.full(10, -1)),
        ("sift.xy.counts", np.full(10, 1 << 62)),
        ("sift.xy.counts", np.zeros(10, np.int64)),
        ("sift.xy.counts", np.zeros(9, np.int64)),
        ("head", np.zeros((10, 3), np.float64)),
        ("head", np.zeros((10, 4), np.float32)),
        ("head", np.ones((10, 3), np.float32)),  # and so for pictures that failed
        ("head", np.asfortranarray(np.ones((10, 3), np.float32))),
        ("sha256", np.full(10, "x" * 64)),
        ("paths", np.zeros(10)),
        ("paths", np.zeros(10, "S4")),
        ("config", np.array("[" * 9000)),
    ],
    ids=str,
)
def test_an_archive_made_by_hand_is_told(tmp_path: Path, name: str, array: np.ndarray) -> None:
    path, fields, tables = write_some(tmp_path, "npz")
    _rewrite(path)
    assert_same(joined(read(path).tables(), fields), joined(tables, fields))  # so much is right
    _rewrite(path, **{name: array})
    with pytest.raises(InputError):
        list(read(path).tables())


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path, _, _ = write_some(tmp_path, "npz")
    sprung = tmp_path / "sprung"
    _rewrite(path, paths=np.array([Trap(sprung)] * 10, object))
    with pytest.raises(InputError):
        list(read(path).tables())
    assert not sprung.exists()


def test_sizes_that_are_declared_are_not_believed(tmp_path: Path) -> None:
    paths = []
    for format in ("npz", "h5"):
        path, _, _ = write_some(tmp_path, format)
        paths.append(path)
    with zipfile.ZipFile(paths[0]) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    head = members["head.npy"]
    members["head.npy"] = head.replace(b"(10, 3), }            ", b"(10, 300000000000), }")
    assert len(members["head.npy"]) == len(head) - 1
    members["head.npy"] = members["head.npy"].replace(b"}", b"} ")
    with zipfile.ZipFile(paths[0], "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with h5py.File(paths[1], "r+") as file:
        del file["head"]
        file.create_dataset("head", (10, 3), np.float32, chunks=(10, 3))  # nothing is stored
    for path in paths:
        with pytest.raises(InputError):
            list(read(path).tables())


def test_a_link_to_another_file_is_not_followed(tmp_path: Path) -> None:
    path, _, _ = write_some(tmp_path, "h5")
    (tmp_path / "other").mkdir()
    other, _, _ = write_some(tmp_path / "other", "h5")
    with h5py.File(path, "r+") as file:
        del file["head"]
        file["head"] = h5py.ExternalLink(str(other), "head")
    with pytest.raises(InputError):
        list(read(path).tables())


def test_a_file_that_is_changed_meanwhile_is_told(tmp_path: Path) -> None:
    path, fields, tables = write_some(tmp_path, "npz")
    found = read(path)
    write(path, tables, fields, {"backbone": "vit"}, 10, force=True)
    with pytest.raises(InputError, match="changed while"):
        list(found.tables())


def test_a_folder_is_not_written_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards"):
        write(tmp_path / "folder", [], FIELDS, CONFIG, 0)
    check_output(tmp_path / "folder", FIELDS)
    with pytest.raises(OutputError, match="there is no folder"):
        check_output(tmp_path / "missing" / "a.npz", FIELDS)
    assert formats.FORMATS == ("npz", "npy", "parquet", "h5", "folder")
