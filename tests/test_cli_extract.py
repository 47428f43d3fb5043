"""`featkit extract` as a user meets it: what it prints and writes, what it makes of strange data, what it refuses, and
how it ends."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import FEATKIT, ROOT, Refusal, Run, Trap, complaint_of, on_terminal, records_of, tried
from textures import texture

import featkit as package
from featkit.cli.extract_run import ALL_FAILED, SOME_FAILED
from featkit.extraction.formats import FORMATS, read
from featkit.extraction.shards import MANIFEST
from featkit.extraction.tables import Table, joined
from featkit.images import save

COUNT = 20
#: Of this size eight pictures are made together, so that shards can be as small.
HOG = ("--features", "hog", "--size", "192")
BAD = {
    "text.jpg": "unknown-format: this is a text file, not a picture",
    "photo.heic": "unknown-format: ",
    "empty.jpg": "empty: ",
    "missing.png": "missing: ",
    "damaged.png": "damaged: ",
}
#: In this order; one is named twice.
NAMES = ("text.jpg", "pictures", "photo.heic", "pictures/3.png", "empty.jpg", "missing.png", "damaged.png")
PATHS = (
    "text.jpg",
    *(f"pictures/{number}.png" for number in range(COUNT)),
    *("photo.heic", "pictures/3.png", "empty.jpg", "missing.png", "damaged.png"),
)


def make_pictures(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number in range(COUNT):
        save(folder / "pictures" / f"{number}.png", texture(("across", "down", "spots")[number % 3], number, 48, 40))
    (folder / "text.jpg").write_text("no picture\n")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    (folder / "empty.jpg").touch()
    (folder / "damaged.png").write_bytes((folder / "pictures" / "0.png").read_bytes()[:-99])


@pytest.fixture(scope="session")
def _pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extract")
    make_pictures(folder)
    return folder


@pytest.fixture
def data(_pictures: Path, tmp_path: Path) -> Path:
    """`tmp_path`, where `featkit` runs, with the pictures of NAMES."""
    return shutil.copytree(_pictures, tmp_path, dirs_exist_ok=True)


def all_at(folder: Path, *lines: str, cache: str = "off") -> list[Refusal]:
    """What comes of `featkit extract LINE`, one after the other, by one process."""
    found = tried([f"extract {line}" for line in lines], folder, Path(cache))
    return [found[f"extract {line}"] for line in lines]


def extracted(folder: Path, *lines: str, cache: str = "off", status: int = 0) -> None:
    for code, errors, _ in all_at(folder, *lines, cache=cache):
        assert code == status, errors


def line(*arguments: str) -> str:
    return " ".join([*HOG, "--shard-size", "8", *arguments])


def content(path: Path) -> dict[str, bytes]:
    """Of a file, with what belongs to it, or of all files in a folder, hidden ones included."""
    if path.is_dir():
        return {each.name: each.read_bytes() for each in sorted(path.iterdir())}
    return {each.name: each.read_bytes() for each in sorted(path.parent.glob(f"{path.stem}.*"))}


def files_in(folder: Path) -> set[str]:
    """Names of all files outside the cache, hidden ones included."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "cache" not in path.parts}


def table_of(path: Path) -> Table:
    found = read(path)
    return joined(found.tables(), found.fields)


@pytest.fixture(scope="session")
def expected(_pictures: Path) -> Table:
    """Of PATHS, by the library."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(_pictures)
        return package.extract(PATHS, features="hog", size=(192, 192), cache=package.Cache(None))


def assert_table(found: Table, expected: Table) -> None:
    assert (found.paths, found.digests, found.errors) == (expected.paths, expected.digests, expected.errors)
    assert found.values.keys() == expected.values.keys()
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values, strict=True)


# --- what it writes


@pytest.fixture(scope="session")
def written(_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the features in all formats."""
    folder = tmp_path_factory.mktemp("written") / "here"
    shutil.copytree(_pictures, folder)
    outputs = ["all.npz", "all.npy", "all.parquet", "all.h5", "folder"]
    extracted(folder, *(line(*NAMES, "-o", output) for output in outputs), status=SOME_FAILED)
    return folder


@pytest.mark.parametrize("name", ["all.npz", "all.npy", "all.parquet", "all.h5", "folder"])
def test_every_format_holds_the_same_in_the_order_given(written: Path, expected: Table, name: str) -> None:
    assert expected.paths == PATHS
    assert_table(table_of(written / name), expected)
    assert not (written / f"{name}.parts").exists()


def test_bad_pictures_are_rows_with_an_error(written: Path) -> None:
    with np.load(written / "all.npz") as archive:
        assert archive["paths"].tolist() == list(PATHS)
        for path, error, digest, values in zip(
            PATHS, archive["errors"], archive["sha256"], archive["hog"], strict=True
        ):
            assert error.startswith(BAD.get(path, ""))
            assert (error == "") == (path not in BAD)
            assert np.isnan(values).all() == np.isnan(values).any() == (path in BAD)
            # Of what is no picture by its first bytes, no more is read.
            assert len(digest) == (0 if path in BAD and path != "damaged.png" else 64)
    manifest = json.loads((written / "folder" / MANIFEST).read_text())
    assert [(shard["rows"], shard["failed"]) for shard in manifest["shards"]] == [(8, 1), (8, 0), (8, 2), (2, 2)]


def test_what_is_said_of_bad_pictures(featkit: Run, data: Path) -> None:
    run = featkit("extract", *NAMES, *HOG, "-o", "all.npz")

    assert run.returncode == SOME_FAILED
    assert run.stdout.decode() == f"all.npz: {len(PATHS)} pictures, hog 3624 · {len(BAD)} could not be read\n"
    assert [re.findall("error: (.*?): ", each) for each in complaint_of(run).splitlines()] == [[name] for name in BAD]


def test_no_picture_can_be_read(featkit: Run, data: Path) -> None:
    run = featkit("extract", *BAD, *HOG, "-o", "all.npz", "--json")

    assert run.returncode == ALL_FAILED
    assert [(each["type"], each["path"]) for each in records_of(run)] == [("error", name) for name in BAD]
    assert np.isnan(np.load(data / "all.npz")["hog"]).all()


def test_always_the_same_bytes(data: Path, written: Path) -> None:
    """One thread or two, with the cache cold and warm."""
    lines = [
        line(*NAMES, "-o", "one.npz", "--jobs", "1", "--no-cache"),
        line(*NAMES, "-o", "cold.npz", "--jobs", "2"),
        line(*NAMES, "-o", "warm.npz", "--jobs", "1"),
        line(*NAMES, "-o", "shards", "--jobs", "1"),
    ]
    extracted(data, *lines, cache=str(data / "cache"), status=SOME_FAILED)

    for name in ("one", "cold", "warm"):
        assert (data / f"{name}.npz").read_bytes() == (written / "all.npz").read_bytes()
    assert content(data / "shards") == content(written / "folder")


def test_pictures_in_an_archive(data: Path, expected: Table) -> None:
    with tarfile.open(data / "photos.tar", "w") as archive:
        for number in (2, 0, 1):
            archive.add(data / "pictures" / f"{number}.png", f"in/{number}.png")
        archive.add(data / "text.jpg", "in/text.jpg")
        archive.add(data / "photo.heic", "in/notes.txt")
    extracted(data, line("pictures/5.png", "photos.tar", "-o", "all.npz"), status=SOME_FAILED)

    found = table_of(data / "all.npz")
    assert found.paths == (
        "pictures/5.png",
        *(f"photos.tar/in/{name}" for name in ("2.png", "0.png", "1.png")),
        "photos.tar/in/text.jpg",
    )
    order = [PATHS.index(f"pictures/{number}.png") for number in (5, 2, 0, 1)]
    np.testing.assert_array_equal(found.values["hog"][:4], expected.values["hog"][order])
    assert found.digests[1] == expected.digests[order[1]]
    assert found.errors[:4] == ("",) * 4
    assert found.errors[4] == BAD["text.jpg"]


def test_names_of_every_kind(featkit: Run, data: Path) -> None:
    """In a list that ends with NUL, and back out of the file."""
    names = ["a cross.png", "вниз.png", "two\nlines.png", os.fsdecode(b"sp\xff.png"), "bytes:x.png"]
    for name in names:
        try:
            shutil.copy(data / "pictures" / "1.png", data / name)
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")

    run = featkit("extract", "-", "-0", *HOG, "-o", "all.npz", "--json", stdin=b"\0".join(map(os.fsencode, names)))

    assert [record["path"] for record in records_of(run)] == names
    assert table_of(data / "all.npz").paths == tuple(names)


def test_half_precision(data: Path, expected: Table) -> None:
    extracted(data, line("pictures", "-o", "all.npy", "--dtype", "float16"))
    rows = [PATHS.index(f"pictures/{number}.png") for number in range(COUNT)]
    np.testing.assert_array_equal(
        np.load(data / "all.npy"), expected.values["hog"][rows].astype(np.float16), strict=True
    )


def test_keypoints_have_items(data: Path) -> None:
    extracted(data, "pictures text.jpg --features sift -o all.npz", status=SOME_FAILED)
    with np.load(data / "all.npz") as archive:
        counts = archive["sift.xy.counts"]
        assert counts[-1] == 0 < counts[:-1].min()
        assert archive["sift.descriptors"].shape == (counts.sum(), 128)
        assert archive["sift.xy"].shape == (counts.sum(), 2)


# --- what it prints


def test_records(featkit: Run, data: Path, expected: Table) -> None:
    run = featkit("extract", *NAMES, *HOG, "--json")

    assert run.returncode == SOME_FAILED
    records = records_of(run)
    assert [record["path"] for record in records] == list(PATHS)
    for row, record in enumerate(records):
        if record["path"] in BAD:
            assert list(record) == ["v", "type", "path", "code", "message", "hint"]
            assert f"{record['code']}: {record['message']}".startswith(BAD[record["path"]])
            continue
        assert (record["v"], record["type"], record["layer"], record["dim"]) == (1, "features", "hog", 3624)
        assert (record["sha256"], record["output"], record["row"]) == (expected.digests[row], None, row)
        assert record["seconds"] >= 0
        np.testing.assert_array_equal(np.array(record["values"], np.float32), expected.values["hog"][row])


def test_records_beside_a_file(featkit: Run, data: Path) -> None:
    """Without the values, which are in it; of a second run, nothing was computed."""
    arguments = ["extract", "pictures", *HOG, "-o", "shards", "--shard-size", "8", "--json", "--no-cache"]
    first, second = records_of(featkit(*arguments)), records_of(featkit(*arguments))

    for row, (record, again) in enumerate(zip(first, second, strict=True)):
        assert (record["output"], record["row"], record["cached"]) == ("shards", row, False)
        assert "values" not in record
        assert again == {**record, "seconds": 0.0, "cached": True}


def test_the_input_of_a_network(data: Path) -> None:
    """One number, or three; of another size the features are others, and have as many dimensions."""
    layers = "pictures --backbone shufflenet_v2_x0_5 --weights random --layers stage2,head"
    sizes = {"own": "", "same": "--input 224", "half": "--input 112", "also": "--input 3x112x112"}
    extracted(data, *(f"{layers} {option} -o {name}.npz" for name, option in sizes.items()))
    found = {name: table_of(data / f"{name}.npz").values for name in sizes}
    assert {name: values.shape for name, values in found["half"].items()} == {"stage2": (20, 48), "head": (20, 1024)}
    for name, values in found["own"].items():
        np.testing.assert_array_equal(values, found["same"][name])
        np.testing.assert_array_equal(found["half"][name], found["also"][name])
        assert not np.allclose(values, found["half"][name], rtol=1e-3)


def test_all_layers_of_a_network(featkit: Run, data: Path) -> None:
    """What they are is known to a second run without torch, too; named, they are the same."""
    network = ("--backbone", "shufflenet_v2_x0_5", "--weights", "random")
    names = ["conv1", "stage2", "stage3", "stage4", "conv5", "head"]
    for number in range(2):
        run = featkit("extract", "pictures", *network, "--layers", "all", "-o", f"{number}.npz")
        assert run.returncode == 0
        dims = "conv1 24, stage2 48, stage3 96, stage4 192, conv5 1024, head 1024"
        assert run.stdout.decode() == f"{number}.npz: {COUNT} pictures, {dims}\n"
    extracted(data, " ".join(["pictures", *network, "--layers", ",".join(names), "-o", "2.npz"]))
    for number in (1, 2):
        assert (data / f"{number}.npz").read_bytes() == (data / "0.npz").read_bytes()
    assert list(table_of(data / "0.npz").values) == names


def test_lines_for_people(featkit: Run, data: Path, expected: Table) -> None:
    run = featkit("extract", "pictures/0.png", *HOG)
    values = expected.values["hog"][PATHS.index("pictures/0.png")].astype(np.float64)
    first = " ".join(f"{value:.4g}" for value in values[:4])
    length = f"{np.linalg.norm(values):.4g}"
    assert run.stdout.decode() == f"pictures/0.png  hog 3624 · length {length} · {first} …\n"


@pytest.mark.parametrize("format", ["npz", "parquet", "h5"])
def test_stdout_gets_the_bytes_of_a_file(featkit: Run, data: Path, written: Path, format: str) -> None:
    before = files_in(data)

    run = featkit("extract", *NAMES, *HOG, "-o", "-", "--format", format)

    assert run.returncode == SOME_FAILED
    assert files_in(data) == before
    (data / f"out.{format}").write_bytes(run.stdout)
    assert_table(table_of(data / f"out.{format}"), table_of(written / f"all.{format}"))
    if format == "npz":
        assert run.stdout == (written / "all.npz").read_bytes()


def test_the_help_tells_the_choices(featkit: Run) -> None:
    text = " ".join(featkit("extract", "--help", COLUMNS="300").stdout.decode().split())
    from featkit.deep.config import DEVICES, POOLS, PRECISIONS, RUNTIMES
    from featkit.extraction.config import CLASSICAL, DTYPES
    from featkit.local.features import DETECTORS

    for name in (*POOLS, *DEVICES, *PRECISIONS, *RUNTIMES, *DTYPES, *CLASSICAL, *DETECTORS, *FORMATS):
        assert name in text


# --- going on


@pytest.mark.parametrize("output", ["all", "all.npz"])
def test_another_run_is_refused_and_told_what_differs(data: Path, output: str) -> None:
    """force begins anew. Of a file, the run was one that had not come to its end."""
    extracted(data, line("pictures", "-o", "all"))
    if output == "all.npz":
        (data / "all").rename(data / "all.npz.parts")
        (data / "all.npz.parts" / "part-00001.parquet").unlink()
    place = data / ("all" if output == "all" else "all.npz.parts")
    before = content(place)
    refused = {
        line("pictures", "--dtype", "float16"): "its list of features",
        "pictures --features pixels --size 192 --shard-size 8": 'its maker.hog was {"cells"',
        "pictures --features hog --size 200 --shard-size 8": "its maker.size was [192, 192] there, and is [200, 200]",
        "pictures --features hog --size 192 --shard-size 16": "its pictures a shard was 8 there, and is 16 here",
        line("pictures", "--max-pixels", "999999"): "its decode.max_pixels was 100000000 there, and is 999999 here",
        line("pictures/1.png"): "its pictures was 20 there, and is 1 here",
        line(*(f"pictures/{number}.png" for number in reversed(range(COUNT)))): "its list of pictures is another",
    }
    for (arguments, difference), (status, errors, made) in zip(
        refused.items(), all_at(data, *(f"{each} -o {output}" for each in refused)), strict=True
    ):
        message, hint = errors.splitlines()
        assert (status, made) == (2, [])
        assert f": the shards there are of another run: {difference}" in message, arguments
        assert "--force" in hint
    assert content(place) == before

    other = line("pictures", "--dtype", "float16")
    extracted(data, f"{other} -o {output} --force", f"{other} -o anew{Path(output).suffix}")
    assert list(content(data / output).values()) == list(content(data / f"anew{Path(output).suffix}").values())


def test_a_picture_that_has_changed_is_made_anew_and_no_other(featkit: Run, data: Path) -> None:
    arguments = ["extract", "pictures", *HOG, "--shard-size", "8", "--no-cache", "--json"]
    assert featkit(*arguments, "-o", "all").returncode == 0
    times = {path.name: path.stat().st_mtime_ns for path in (data / "all").iterdir()}
    save(data / "pictures" / "9.png", texture("spots", 99, 48, 40), force=True)
    (data / "pictures" / "10.png").write_bytes(b"no picture any more")

    run = featkit(*arguments, "-o", "all")

    assert run.returncode == SOME_FAILED
    assert [record.get("cached", False) for record in records_of(run)] == [not 8 <= row < 16 for row in range(COUNT)]
    again = {path.name: path.stat().st_mtime_ns for path in (data / "all").iterdir()}
    assert {name for name in times if times[name] != again[name]} == {"part-00001.parquet", MANIFEST}
    featkit(*arguments, "-o", "anew")
    assert content(data / "all") == content(data / "anew")
    assert featkit(*arguments, "-o", "all").returncode == SOME_FAILED  # nothing is made, and it is still so


_FORKED = """
import os, random, signal, sys, time
from pathlib import Path
from featkit.cli.app import run
from featkit.cli import extract_run
from featkit.extraction import npz_file, shards

def start(*arguments):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(run(["extract", *sys.argv[2:], *arguments]))

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

suffix = sys.argv[1]
began = time.monotonic()
assert end(start("-o", "whole" + suffix)) == 0
lasts = time.monotonic() - began
choice = random.Random(0)
for attempt in range(20):
    output, killed = f"{attempt}{suffix}", 0
    for moment in range(choice.choice([1, 1, 2])):
        child = start("-o", output)
        time.sleep(choice.random() * lasts * 1.1)
        os.kill(child, signal.SIGKILL)
        killed += end(child) == -signal.SIGKILL
    was = Path(output).exists()
    # What was whole when the run was killed is not overwritten.
    expected = 2 if suffix and was and not Path(output + ".parts").exists() else 0
    found = end(start("-o", output))
    assert found == expected, (output, found, expected)
    print(killed)
"""


@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(data: Path, suffix: str) -> None:
    """Each run is a fork of one process that has imported all it needs."""
    arguments = ["pictures", *HOG, "--shard-size", "8", "--no-cache", "--jobs", "2"]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FORKED, suffix, *arguments],
        capture_output=True,
        cwd=data,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )

    assert run.returncode == 0, run.stderr
    assert {each.partition(": ")[2] for each in run.stderr.decode().splitlines()} <= {
        *(f"error: {attempt}.npz: exists already" for attempt in range(20)),
        "--force overwrites it",
    }
    assert sum(map(int, run.stdout.split())) >= 5
    names = [f"{attempt}{suffix}" for attempt in range(20)]
    whole = list(content(data / f"whole{suffix}").values())
    for name in names:
        assert list(content(data / name).values()) == whole
    left = {each.name for each in data.iterdir()} - {"pictures", "cache", *BAD}
    assert left == {*names, f"whole{suffix}"}  # and nothing hidden


_DYING = """
import os, signal, sys
from pathlib import Path
from featkit.cli.app import run
step, left = sys.argv[1], int(sys.argv[2])
original = getattr(Path, step)
def dying(*arguments, **options):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(Path, step, dying)
run(["extract", *sys.argv[3:]])
"""


@pytest.mark.parametrize(
    ("format", "moment"),
    [
        ("npz", "replace 7"),
        ("npz", "replace 8"),
        ("npy", "replace 9"),
        ("npy", "replace 10"),
        ("npz", "unlink 1"),
        ("npz", "unlink 5"),
        ("npz", "rmdir 1"),
    ],
)
def test_killed_while_the_file_is_finished(data: Path, written: Path, format: str, moment: str) -> None:
    """Manifest, four shards and the complete manifest are renamed before; then the file, which is moved, or the two."""
    command = [sys.executable, "-c", _DYING, *moment.split(), *NAMES, *HOG, "--shard-size", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEATKIT_CACHE": "off"}
    killed = subprocess.run([*command, "-o", f"all.{format}"], cwd=data, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert (data / f"all.{format}.parts").exists()

    extracted(data, line(*NAMES, "-o", f"all.{format}"), status=SOME_FAILED)

    for name, found in content(data / f"all.{format}").items():
        assert found == (written / name).read_bytes()
    assert not [name for name in files_in(data) if ".featkit" in name or ".parts" in name]


def test_a_folder_of_parts_that_is_somebody_s(featkit: Run, data: Path) -> None:
    (data / "all.npz").write_bytes(b"precious")
    (data / "all.npz.parts").mkdir()
    (data / "all.npz.parts" / "notes.txt").touch()
    for force in ([], ["--force"]):
        run = featkit("extract", "pictures", *HOG, "-o", "all.npz", *force)
        assert "all.npz.parts: the folder holds something else: notes.txt" in complaint_of(run)
    assert (data / "all.npz").read_bytes() == b"precious"


def test_what_was_begun_with_force_goes_on_without(data: Path, written: Path) -> None:
    """A file and its parts are both there."""
    (data / "all.npz").write_bytes(b"older")
    shutil.copytree(written / "folder", data / "all.npz.parts")
    (data / "all.npz.parts" / "part-00002.parquet").unlink()
    extracted(data, line(*NAMES, "-o", "all.npz"), status=SOME_FAILED)
    assert (data / "all.npz").read_bytes() == (written / "all.npz").read_bytes()
    assert not (data / "all.npz.parts").exists()


def test_a_link_is_followed(featkit: Run, data: Path) -> None:
    (data / "elsewhere").mkdir()
    (data / "all.npz").symlink_to("elsewhere/found.npz")
    assert featkit("extract", "pictures", *HOG, "-o", "all.npz").returncode == 0
    assert (data / "all.npz").is_symlink()
    assert read(data / "elsewhere" / "found.npz").count == COUNT


# --- arrays of jobs


def test_jobs_in_one_folder(featkit: Run, data: Path, written: Path) -> None:
    rows = []
    for number in (2, 3, 1):
        run = featkit("extract", *NAMES, *HOG, "--shard-size", "8", "--shard", f"{number}/3", "-o", "all", "--json")
        rows += [record["row"] for record in records_of(run) if record["type"] == "features"]
    assert sorted(rows) == [row for row, path in enumerate(PATHS) if path not in BAD]
    assert content(data / "all") == content(written / "folder")


def test_jobs_in_folders_of_their_own_are_merged(data: Path, written: Path) -> None:
    all_at(data, *(line(*NAMES, "-o", f"job{number}", "--shard", f"{number}/3") for number in (1, 2, 3)))
    joins = ["--merge job1 job2 job3 -o all", "--merge job3 job1 job2 -o all.npz", "--merge all -o all.h5"]
    extracted(data, *joins, status=SOME_FAILED)
    assert content(data / "all") == content(written / "folder")
    for name in ("all.npz", "all.h5"):
        assert (data / name).read_bytes() == (written / name).read_bytes()


def test_what_merging_says(featkit: Run, data: Path) -> None:
    extracted(data, *(line("pictures", "-o", f"job{number}", "--shard", f"{number}/3") for number in (1, 2, 3)))

    missing = featkit("extract", "--merge", "job1", "job3", "-o", "all.npz")
    assert missing.returncode == 2
    assert "of 3 shards, numbered from 0, some are in none of the folders: 1\n" in complaint_of(missing)
    assert not (data / "all.npz").exists()

    [record] = records_of(featkit("extract", "--merge", "job1", "job2", "job3", "-o", "all.npz", "--json"))
    assert record == {
        **{"v": 1, "type": "merged", "output": "all.npz"},
        **{"shards": 3, "pictures": COUNT, "failed": 0},
    }


def test_a_merge_of_what_could_not_be_read(featkit: Run, data: Path) -> None:
    extracted(data, line(*BAD, "-o", "bad"), status=ALL_FAILED)
    run = featkit("extract", "--merge", "bad", "-o", "all.npz")
    assert run.returncode == ALL_FAILED
    assert run.stdout.decode() == "all.npz: 5 pictures of 1 shard · 5 could not be read\n"


# --- what is refused

_HOG = " ".join(HOG)
STRANGE = {
    "": "there are no pictures",
    "--files-from none.txt": "there are no pictures",
    "-0": "-0 is about a list, and there is none",
    "empty": "empty: there is no picture in this folder",
    "nowhere*": "nowhere*: no file matches this pattern",
    "broken.tar": "broken.tar: this is no tar archive, or it is damaged",
    "photos.tar.gz": "photos.tar.gz: a compressed archive can only be read from its beginning",
    "pictures --size 64": "--size is for --features hog and the like",
    "pictures --features hog --size 3": "these pictures of 3 × 3 pixels are too small",
    "pictures --features hog --size 0": "pictures are brought to 1 to 4096 pixels a side",
    "pictures --features hog --size 9999": "pictures are brought to 1 to 4096 pixels a side",
    "pictures --features hog --size big": "--size takes width and height, not 'big'",
    "pictures --features hogg": "there are no features 'hogg'",
    "pictures --features patches": "there are no features 'patches'",
    "pictures --features hog --backbone lite0": "--backbone is about networks, and --features hog is without one",
    "pictures --features sift --layers head": "--layers is about networks, and --features sift is without one",
    "pictures --features hog --pool avg": "--pool is about networks",
    "pictures --features hog --normalize": "--normalize is about networks",
    "pictures --features hog --weights random": "--weights is about networks",
    "pictures --features hog --device cpu": "--device is about networks",
    "pictures --features hog --input 128": "--input is about networks",
    "pictures --input big": "--input takes one whole number, or three, not 'big'",
    "pictures --input 3x128x96": "pictures are brought to squares, and --input 3x128x96 is none",
    "pictures --input 0": "--input is a picture of 3 channels, and 1 pixel a side or more",
    "pictures --input 9999": "pictures of 1 to 4096 pixels a side go into a network, not of 9999",
    "pictures --backbone vit_b_32 --weights random --input 128": "vit_b_32 does not take 3x128x128: Wrong image",
    "pictures --backbone alexnet --weights random --input 9": "alexnet does not take 3x9x9: ",
    "pictures --features hog --max-keypoints 9": "--max-keypoints and --max-side are about keypoints",
    "pictures --features sift --max-keypoints 0": "--max-keypoints must be at least 1",
    "pictures --features sift --max-side 3": "--max-side must be at least 16 pixels",
    "pictures --features sift --dtype float16": "--dtype is about vectors, and --features sift has keypoints",
    "pictures --features orb --size 64": "--size is about vectors, and --features orb has keypoints",
    "pictures --seed 3": "--seed is of --weights random",
    "pictures --weights random --seed -1": "the seed is -1",
    "pictures --seed x": "'x' is not a valid int",
    "pictures --pool median": "there is no pooling 'median'",
    "pictures --pool none --normalize": "--normalize is of vectors, and --pool none gives maps",
    "pictures --layers head,head": "layers are named once each",
    "pictures --layers head,all": "--layers all names them all",
    "pictures --dtype float64": "there is no dtype 'float64'",
    "pictures --device tpu": "there is no device 'tpu'",
    "pictures --precision fp8": "there is no precision 'fp8'",
    "pictures --runtime tvm": "there is no runtime 'tvm'",
    "pictures --backbone lit0": "there is no backbone 'lit0'",
    "pictures --layers blok.5": "there is no layer 'blok.5'",
    "pictures --weights nowhere.pth": "nowhere.pth: there is no such file",
    "pictures --weights trap.pth": "trap.pth: ",
    f"pictures {_HOG} --jobs 0": "--jobs must be at least 1",
    f"pictures {_HOG} --max-pixels 0": "--max-pixels must be at least 1",
    f"pictures {_HOG} --colour": "no such option: --colour",
    f"pictures {_HOG} -o": "option '-o' requires an argument",
    f"pictures {_HOG} -o a --shard 0/3": "--shard takes K/N, K from 1 to N, not '0/3'",
    f"pictures {_HOG} -o a --shard 9/3": "--shard takes K/N, K from 1 to N, not '9/3'",
    f"pictures {_HOG} -o a --shard x": "--shard takes K/N, K from 1 to N, not 'x'",
    f"pictures {_HOG} -o a --shard 1/3 --force": "a: --force would remove what the other jobs of --shard have made",
    f"pictures {_HOG} -o a.npz --shard 1/3": "a.npz: --shard writes a folder of shards, and not one file",
    f"pictures {_HOG} -o a --shard-size 0": "--shard-size must be at least 1",
    f"pictures {_HOG} --shard 1/3": "--shard is about a file or folder",
    f"pictures {_HOG} --shard-size 8": "--shard-size is about a file or folder",
    f"pictures {_HOG} --format npz": "--format is about a file or folder",
    f"pictures {_HOG} -o -": "-o - needs --format",
    f"pictures {_HOG} -o - --format npy": "-o - knows no --format npy",
    f"pictures {_HOG} -o - --format folder": "-o - knows no --format folder",
    f"pictures {_HOG} -o - --format npz --json": "-o - and --json both want stdout",
    f"pictures {_HOG} -o - --format npz --shard 1/2": "stdout has no shards",
    f"pictures {_HOG} -o a.txt": "a.txt: there is no format 'txt' for features",
    f"pictures {_HOG} -o a --format csv": "a: there is no format 'csv' for features",
    "pictures --features sift -o a.npy": "a .npy file holds one kind of features, and there are 4",
    f"pictures {_HOG} -o nowhere/a.npz": "nowhere/a.npz: there is no folder nowhere",
    f"pictures {_HOG} -o nowhere/a": "nowhere/a: there is no folder nowhere",
    f"pictures {_HOG} -o old.npz": "old.npz: exists already",
    "pictures --backbone resnet18 -o old.npz": "old.npz: exists already",
    f"pictures {_HOG} -o half.npy": "half.index.jsonl: exists already",
    f"pictures {_HOG} -o pictures": "pictures: the folder holds something else: 0.png",
    f"pictures {_HOG} -o pictures --force": "pictures: the folder holds something else: 0.png",
    f"pictures {_HOG} -o pictures --format npz": "pictures: names a folder",
    f"pictures {_HOG} -o text.jpg --format folder": "text.jpg: exists already",
    f"pictures {_HOG} -o pictures/1.png --format npz --force": "a file that is read would be overwritten",
    f"{_HOG} --files-from list.txt -o list.txt --format h5 --force": "a file that is read would be overwritten",
    f"tared.tar {_HOG} -o tared.tar --format npz --force": "a file that is read would be overwritten",
    "--merge": "--merge needs -o",
    "--merge empty": "--merge needs -o",
    "--merge empty -o -": "--merge needs -o",
    "--merge -o a.npz": "there are no folders of shards to merge",
    "--merge empty -o a.npz": "empty: this holds no features of featkit",
    "--merge nowhere -o a.npz": "nowhere: there is no such file",
    f"--merge empty -o a.npz {_HOG}": "--features is about pictures, and --merge joins what was made of them",
    "--merge empty -o a.npz --pool avg": "--pool is about pictures",
    "--merge empty -o a.npz --shard 1/2": "--shard is about pictures",
}


@pytest.fixture(scope="session")
def refusals(_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Of every strange command line, tried one after the other by one process: exit status, stderr, files made."""
    folder = tmp_path_factory.mktemp("strange") / "here"
    shutil.copytree(_pictures, folder)
    (folder / "empty").mkdir()
    (folder / "none.txt").touch()
    (folder / "broken.tar").write_bytes(b"no archive")
    (folder / "photos.tar.gz").write_bytes(b"")
    (folder / "list.txt").write_text("pictures/1.png\n")
    (folder / "old.npz").write_bytes(b"precious")
    (folder / "half.index.jsonl").write_bytes(b"precious")
    (folder / "trap.pth").write_bytes(pickle.dumps({"weight": Trap(folder / "sprung")}))
    with tarfile.open(folder / "tared.tar", "w") as archive:
        archive.add(folder / "pictures" / "1.png", "1.png")
    before = {name: (folder / name).read_bytes() for name in files_in(folder) if (folder / name).is_file()}
    found = tried([f"extract {each}" for each in STRANGE], folder, tmp_path_factory.mktemp("cache"))
    assert {name: (folder / name).read_bytes() for name in files_in(folder) if (folder / name).is_file()} == before
    return {each.removeprefix("extract "): refusal for each, refusal in found.items()}


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused(refusals: dict[str, Refusal], arguments: str) -> None:
    status, errors, made = refusals[arguments]

    assert status == 2
    message, *hint = errors.splitlines()
    assert message.startswith("featkit: error: ")
    assert STRANGE[arguments] in message
    assert [each.startswith("hint: ") for each in hint] in ([True], []), errors
    assert made == []


def test_what_is_allowed_is_listed_and_the_nearest_named(refusals: dict[str, Refusal]) -> None:
    hints = {
        "pictures --backbone lit0": "did you mean lite0 or ",
        "pictures --layers blok.5": "did you mean blocks.5 or ",
        "pictures --pool median": "choose one of: avg, max, gem, cls, none\n",
        "pictures --features hogg": "choose one of: sift, orb, affine-sift, aliked, disk, hog, hog-skimage, pixels\n",
        f"pictures {_HOG} -o a.txt": f"there are: {', '.join(FORMATS)}\n",
    }
    for arguments, hint in hints.items():
        assert f"hint: {hint}" in refusals[arguments][1]


def test_an_error_is_a_record_too(featkit: Run, data: Path) -> None:
    [record] = records_of(featkit("extract", "pictures", *HOG, "-o", "a.txt", "--json"))
    assert (record["type"], record["path"], record["code"]) == ("error", "a.txt", "usage")


# --- terminals, pipes, streams


def test_progress_on_a_terminal(data: Path) -> None:
    """It is gone at the end, and results are whole lines."""
    status, shown = on_terminal(data, "extract", "pictures", *HOG, "-o", "all.npz", "--no-cache")
    assert status == 0
    assert "extracting" in shown
    assert re.search(rf"all\.npz: {COUNT} pictures, hog 3624\r\n", shown)
    assert shown[shown.rindex("\x1b[2K") :] == "\x1b[2K"


def test_plain_terminals(data: Path) -> None:
    _, quiet = on_terminal(data, "extract", "pictures", *HOG, "--quiet", stdout="found.txt")
    status, features = on_terminal(data, "extract", "pictures", *HOG, "-o", "-", "--format", "npz")
    assert quiet == ""
    assert status == 2
    assert features.startswith("featkit: error: features do not go onto a terminal\r\nhint: ")


@pytest.mark.parametrize("arguments", ["", "--json", "-o - --format npz"])
def test_a_closed_pipe_is_silent(data: Path, arguments: str) -> None:
    command = ["bash", "-c", '"$@" | head -c 1; exit "${PIPESTATUS[0]}"', "bash", *FEATKIT]
    run = subprocess.run(
        [*command, "extract", "pictures", *HOG, *arguments.split()], capture_output=True, cwd=data, timeout=60
    )
    assert (run.returncode, run.stderr, len(run.stdout)) == (0, b"", 1)


@pytest.mark.parametrize("arguments", ["", "-o - --format h5"])
def test_a_full_disk_behind_stdout(data: Path, arguments: str) -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [*FEATKIT, "extract", "pictures", *HOG, *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=data,
            timeout=60,
        )
    assert run.returncode == 2
    assert "No space left on device" in complaint_of(run)


# --- signals


@pytest.mark.parametrize(("name", "output"), [("SIGINT", "all.npz"), ("SIGTERM", "all"), ("SIGINT", "-")])
def test_an_interrupted_run_goes_on_to_the_same_bytes(data: Path, name: str, output: str) -> None:
    """The signal comes once shards are written, or are to be, of pictures that take some seconds."""
    save(data / "large.png", np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8))
    (data / "many").mkdir()
    for number in range(120):
        (data / "many" / f"{number}.png").symlink_to(data / "large.png")
    (data / "temporary").mkdir()
    before = files_in(data)
    arguments = ["extract", "many", *HOG, "--no-cache", "--jobs", "2", "-o", output]
    process = subprocess.Popen(
        [*FEATKIT, *arguments, *(["--format", "npz"] if output == "-" else ["--shard-size", "8"])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=data,
        env={**os.environ, "TMPDIR": str(data / "temporary")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    begun = {
        "all": "all/part-00001.parquet",
        "all.npz": "all.npz.parts/part-00001.parquet",
        "-": "temporary/*/features.npz.parts/manifest.json",
    }[output]
    while not list(data.glob(begun)) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    shown, errors = process.communicate(timeout=30)

    assert process.returncode == 128 + getattr(signal, name)
    assert errors == (b"featkit: interrupted\n" if name == "SIGINT" else b"")
    left = {each for each in files_in(data) - before if not each.startswith(("all/", "all.npz.parts/"))}
    assert (left, shown) == ({"-": set(), "all": {"all"}, "all.npz": {"all.npz.parts"}}[output], b"")
    if output != "-":
        rows = [line("many", "-o", output), line("many", "-o", f"anew{Path(output).suffix}")]
        extracted(data, *rows, cache=str(data / "cache"))
        assert list(content(data / output).values()) == list(content(data / f"anew{Path(output).suffix}").values())


# --- disks and permissions


@pytest.mark.parametrize("output", ["all", "all.npz", "all.npy", "all.parquet", "all.h5"])
def test_a_full_disk(featkit: Run, data: Path, written: Path, output: str) -> None:
    """What is whole stays, to go on with."""
    # A shard is larger than the first, and smaller than the second; any file is larger than both.
    limit = 60_000 if output == "all" else 150_000
    run = featkit("extract", *NAMES, *HOG, "--shard-size", "8", "-o", output, largest_file=limit, FEATKIT_CACHE="off")

    assert run.returncode == 2
    *_, message, hint = complaint_of(run).splitlines()
    assert "larger than this system allows" in message
    assert hint.startswith("hint: raise the limit")
    assert not (data / output).is_file()
    assert not [name for name in files_in(data) if ".featkit" in name]
    extracted(data, line(*NAMES, "-o", output), status=SOME_FAILED)
    for name, found in content(data / output).items():
        assert found == ((written / "folder" / name) if output == "all" else written / name).read_bytes()


@pytest.mark.parametrize("output", ["closed/all.npz", "closed/all", "closed"])
def test_a_folder_that_cannot_be_written(featkit: Run, data: Path, plain_user: list[str], output: str) -> None:
    (data / "closed").mkdir(mode=0o555)
    before = files_in(data)
    run = featkit("extract", "pictures", *HOG, "-o", output, prefix=plain_user)
    assert run.returncode == 2
    assert "closed cannot be written to" in complaint_of(run)
    assert files_in(data) == before


# --- networks


def test_a_network_from_the_command_line(featkit: Run, data: Path) -> None:
    """Several layers in one file; a second run finds the folder finished, and needs no torch to see that."""
    arguments = ["extract", *NAMES, "--layers", "blocks.2,head", "-o", "all"]
    run = featkit(*arguments)
    assert run.returncode == SOME_FAILED, run.stderr
    found = table_of(data / "all")
    assert found.paths == PATHS
    assert {name: values.shape for name, values in found.values.items()} == {
        "blocks.2": (len(PATHS), 40),
        "head": (len(PATHS), 1280),
    }
    before = content(data / "all")

    (data / "poison" / "torch").mkdir(parents=True)
    (data / "poison" / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')")
    again = featkit(*arguments, PYTHONPATH=os.pathsep.join([str(data / "poison"), str(ROOT)]))

    assert again.returncode == SOME_FAILED
    assert again.stdout.decode().endswith(f"{len(BAD)} could not be read · {len(PATHS)} were there already\n")
    assert content(data / "all") == before
