"""`featkit predict` and `featkit evaluate` as a user meets them: what they print, in what order and when, which models
they refuse, and how they end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_pictures import as_stored, exif, pillow
from conftest import FEATKIT, Refusal, Run, complaint_of, on_terminal, records_of, tried
from textures import KINDS, save_textures, texture

from featkit.cache import Cache
from featkit.cli.predict_run import ALL_FAILED, SOME_FAILED
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.extraction.engine import extract
from featkit.extraction.networks import network_maker
from featkit.images import DEFAULTS, save
from featkit.learning.config import ClassifyConfig
from featkit.learning.fitting import Fitted, fit_model
from featkit.learning.model_files import read_model, write_model
from featkit.progress import Progress, followed


@dataclass(frozen=True)
class Trained:
    """folder: with model.fk, of 16 pictures of each of three textures, and test/, with 8 of each. record: what
    `featkit classify` said. cache: warm from now on."""

    folder: Path
    cache: Path
    record: dict[str, Any]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, cache = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("cache")
    save_textures(folder / "train", 16)
    save_textures(folder / "test", 8, first=16)
    run = subprocess.run(
        [*FEATKIT, "classify", "train", "--test", "test", "-o", "model.fk", "--json"],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "FEATKIT_CACHE": str(cache)},
        timeout=120,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    return Trained(folder, cache, json.loads(run.stdout))


@pytest.fixture
def here(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`, where `featkit` runs: model.fk, test/ with 8 pictures of each of three textures; a warm cache."""
    shutil.copy(trained.folder / "model.fk", tmp_path)
    shutil.copytree(trained.folder / "test", tmp_path / "test")
    monkeypatch.setenv("FEATKIT_CACHE", str(trained.cache))
    return tmp_path


FOLDERS = [f"test/{kind}" for kind in KINDS]
PICTURES = [f"test/{kind}/{number}.png" for kind in KINDS for number in range(16, 24)]


# --- what is said


def test_the_same_as_classify_said(featkit: Run, here: Path, trained: Trained) -> None:
    """Of the same pictures: from `predict` one by one, and from `evaluate` together."""
    predicted = featkit("predict", "model.fk", *FOLDERS, "--json")
    evaluated = featkit("evaluate", "model.fk", "test", "--json")

    assert (predicted.returncode, predicted.stderr, evaluated.returncode, evaluated.stderr) == (0, b"", 0, b"")
    predictions = records_of(predicted)
    assert [each["path"] for each in predictions] == PICTURES
    right = [each["label"] == Path(each["path"]).parent.name for each in predictions]
    assert sum(right) / 24 == trained.record["accuracy"]
    [evaluation] = records_of(evaluated)
    for name in ("accuracy", "interval", "test", "classes", "confusion", "per_class", "config"):
        assert evaluation[name] == trained.record[name]
    assert (evaluation["train"], evaluation["model"], list(evaluation["seconds"])) == (None, "model.fk", ["test"])


def test_the_record_of_a_prediction(featkit: Run, here: Path) -> None:
    for record in records_of(featkit("predict", "model.fk", *PICTURES, "--json")):
        assert list(record) == ["v", "type", "path", "label", "score", "margin", "top"]
        assert (record["v"], record["type"]) == (1, "prediction")
        labels, scores = zip(*record["top"], strict=True)
        assert sorted(labels) == sorted(KINDS)
        assert list(scores) == sorted(scores, reverse=True)
        assert (record["label"], record["score"]) == (labels[0], scores[0])
        assert record["margin"] == pytest.approx(scores[0] - scores[1])


def test_all_formats_say_the_same(featkit: Run, here: Path) -> None:
    records = records_of(featkit("predict", "model.fk", *FOLDERS, "--format", "jsonl", "--top", "2"))
    rows = list(csv.reader(io.StringIO(featkit("predict", "model.fk", *FOLDERS, "--format", "csv").stdout.decode())))
    lines = featkit("predict", "model.fk", *FOLDERS).stdout.decode().splitlines()

    assert rows[0] == ["path", "label", "score", "margin"]
    assert len(records) == len(rows) - 1 == len(lines) == 24
    for record, row, line in zip(records, rows[1:], lines, strict=True):
        assert row[:2] == [record["path"], record["label"]]
        assert [float(value) for value in row[2:]] == pytest.approx([record["score"], record["margin"]], rel=1e-4)
        assert line == f"{record['path']}  {record['label']} {record['score']:.2f} · ahead by {record['margin']:.2f}"
        assert len(record["top"]) == 2


def test_the_next_likeliest(featkit: Run, here: Path) -> None:
    """No more of them than there are."""
    [record] = records_of(featkit("predict", "model.fk", PICTURES[0], "--json"))
    (first, score), (second, behind), (third, last) = record["top"]

    text = featkit("predict", "model.fk", PICTURES[0], "--top", "2").stdout.decode()
    head, row = csv.reader(
        io.StringIO(featkit("predict", "model.fk", PICTURES[0], "--format", "csv", "--top", "9").stdout.decode())
    )

    assert text.startswith(f"{PICTURES[0]}  {first} {score:.2f} · {second} {behind:.2f} · ahead by ")
    assert head == ["path", "label", "score", "margin", "label_2", "score_2", "label_3", "score_3"]
    assert row[4::2] == [second, third]
    assert float(row[7]) == pytest.approx(last, rel=1e-4)


def test_names_from_lists(featkit: Run, here: Path) -> None:
    """On stdin and in a file, ended by lines and by NUL, and in folders inside folders: always in their order."""
    some = [PICTURES[9], PICTURES[2], PICTURES[20], PICTURES[2]]
    (here / "list.txt").write_text("\n".join(some))
    runs = [
        featkit("predict", "model.fk", *some, "--json"),
        featkit("predict", "model.fk", "-", "--json", stdin="\n".join(some).encode()),
        featkit("predict", "model.fk", "-", "-0", "--json", stdin="\0".join(some).encode()),
        featkit("predict", "model.fk", "--files-from", "list.txt", "--json"),
    ]

    assert [each["path"] for each in records_of(runs[0])] == some
    assert all(run.stdout == runs[0].stdout for run in runs)
    recursive = featkit("predict", "model.fk", "test", "--recursive", "--json")
    assert [each["path"] for each in records_of(recursive)] == PICTURES


def test_any_number_of_workers(featkit: Run, here: Path) -> None:
    many = [*PICTURES * 15, "missing.png", *PICTURES * 15]
    names = "\n".join(many).encode()
    warm = featkit("predict", "model.fk", "-", "--json", stdin=names)
    one, three = (featkit("predict", "model.fk", "-", "--json", "--no-cache", "-j", n, stdin=names) for n in "13")

    assert [each["path"] for each in records_of(one)] == many
    assert one.stdout == three.stdout == warm.stdout


def test_a_picture_turned_by_exif_and_one_of_another_size(featkit: Run, here: Path) -> None:
    upright = texture("across", 99)
    (here / "turned.jpg").write_bytes(
        pillow(np.ascontiguousarray(as_stored(upright, 6)), "JPEG", quality=100, subsampling=0, exif=exif(6))
    )
    save(here / "large.png", upright.repeat(5, 0).repeat(7, 1))
    save(here / "upright.png", upright)

    turned, large, plain = records_of(
        featkit("predict", "model.fk", "turned.jpg", "large.png", "upright.png", "--json")
    )

    assert turned["label"] == large["label"] == plain["label"] == "across"
    assert turned["score"] == pytest.approx(plain["score"], abs=0.02)
    assert large["score"] == pytest.approx(plain["score"], abs=1e-3)


def test_names_of_every_kind(featkit: Run, here: Path) -> None:
    names = ["a photo, one.png", "фото 写真.png", os.fsdecode(b'a\n"b\xff.png')]
    for name, picture in zip(names, PICTURES, strict=False):
        try:
            shutil.copy(here / picture, here / name)
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")

    assert [each["path"] for each in records_of(featkit("predict", "model.fk", *names, "--json"))] == names
    _, *rows = csv.reader(io.StringIO(featkit("predict", "model.fk", *names[:2], "--format", "csv").stdout.decode()))
    assert [row[0] for row in rows] == names[:2]
    lines = featkit("predict", "model.fk", *names).stdout.decode().splitlines()
    assert [line.split("  ")[0] for line in lines] == [*names[:2], r'a\n"b\xff.png']


# --- what cannot be read


def test_what_cannot_be_read_has_its_place(featkit: Run, here: Path) -> None:
    (here / "broken.png").write_bytes((here / PICTURES[0]).read_bytes()[:500])

    run = featkit("predict", "model.fk", PICTURES[0], "broken.png", PICTURES[1], "missing.png", "--json")

    assert run.returncode == SOME_FAILED
    found = records_of(run)
    assert [(each["type"], each["path"]) for each in found] == [
        ("prediction", PICTURES[0]),
        ("error", "broken.png"),
        ("prediction", PICTURES[1]),
        ("error", "missing.png"),
    ]
    assert complaint_of(run).count("featkit: error: ") == 2


def test_nothing_can_be_read(featkit: Run, here: Path) -> None:
    run = featkit("predict", "model.fk", "missing.png", "gone.png")

    assert (run.returncode, run.stdout) == (ALL_FAILED, b"")
    assert complaint_of(run).splitlines() == [
        f"featkit: error: {name}: there is no such file" for name in ("missing.png", "gone.png")
    ]


def test_evaluation_of_what_is_not_all_known(featkit: Run, here: Path) -> None:
    (here / "test" / "spots").rename(here / "test" / "dots")
    (here / PICTURES[0]).write_bytes(b"")

    run = featkit("evaluate", "model.fk", "test", "--json")

    *errors, evaluation = records_of(run)
    assert run.returncode == SOME_FAILED
    assert [Path(error["path"]).parent.name for error in errors] == ["across", *["dots"] * 8]
    assert evaluation["test"] == 15
    complaint_of(run)


def test_evaluation_of_what_is_all_unknown(featkit: Run, here: Path) -> None:
    for kind in KINDS:
        (here / "test" / kind).rename(here / "test" / f"other {kind}")

    run = featkit("evaluate", "model.fk", "test")

    assert (run.returncode, run.stdout) == (2, b"")
    message, hint = complaint_of(run).splitlines()
    assert "there is no picture to test on; test/other across/16.png: its label 'other across' is none" in message
    assert message.endswith("and 23 more cannot be used")
    assert hint.startswith("hint: train with pictures of that class")


def test_evaluation_has_a_report(featkit: Run, here: Path) -> None:
    run = featkit("evaluate", "model.fk", "test", "--report", "page")

    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.decode().splitlines()[0].endswith("· 3 classes")
    assert sorted(path.name for path in (here / "page").iterdir()) == ["confusion.png", "index.html", "mistakes.png"]
    text = (here / "page" / "index.html").read_text(encoding="utf-8")
    assert "<title>test: hog, svm</title>" in text
    assert all(kind in text for kind in KINDS)


# --- features in place of pictures

HOG = ("--features", "hog", "--size", "32", "--quiet")
WRITTEN = ["features.npz", "features.parquet", "folder"]


@pytest.fixture(params=WRITTEN)
def features(request: pytest.FixtureRequest, featkit: Run, here: Path) -> str:
    """Of the pictures of `here`, of which one cannot be read, in a file or a folder of shards; these are gone."""
    name = str(request.param)
    (here / "test" / "down" / "20.png").write_bytes(b"no picture")
    assert featkit("extract", "test", "-r", *HOG, "-o", name).returncode == SOME_FAILED
    return name


def test_predictions_by_features(featkit: Run, here: Path, features: str) -> None:
    """As of the pictures, with the same errors, in their order."""
    of_pictures = featkit("predict", "model.fk", *FOLDERS, "--json")
    shutil.rmtree(here / "test")

    run = featkit("predict", "model.fk", "--from", features, "--json")

    assert (run.returncode, run.stderr) == (SOME_FAILED, of_pictures.stderr.split(b"hint: ")[0])
    found, expected = records_of(run), records_of(of_pictures)
    assert [each["path"] for each in found] == PICTURES
    for each, other in zip(found, expected, strict=True):
        if each["type"] == "error":
            assert {**each, "hint": None} == {**other, "hint": None}
        else:
            assert (each["label"], each["top"][0][0]) == (other["label"], other["label"])
            assert each["score"] == pytest.approx(other["score"], abs=1e-5)
    assert sum(each["type"] == "error" for each in found) == 1


def test_other_formats_of_predictions_by_features(featkit: Run, here: Path) -> None:
    featkit("extract", *PICTURES[:3], *HOG, "-o", "features.npz")

    for options in ([], ["--format", "csv", "--top", "2"], ["--format", "jsonl", "--top", "1"]):
        by_features = featkit("predict", "model.fk", "--from", "features.npz", *options)
        assert by_features.stdout == featkit("predict", "model.fk", *PICTURES[:3], *options).stdout
        assert (by_features.returncode, by_features.stderr) == (0, b"")


def test_evaluation_by_features(featkit: Run, here: Path, features: str) -> None:
    """By the folders' names, by data that were moved, and by a table of labels."""
    [failure, expected] = records_of(featkit("evaluate", "model.fk", "test", "--json"))
    (here / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.split('/')[1]}\n" for path in PICTURES))
    (here / "test").rename(here / "moved")

    for data in ([], ["moved"], ["labels.csv"]):
        run = featkit("evaluate", "model.fk", *data, "--from", features, "--json")

        assert run.returncode == SOME_FAILED
        [told, found] = records_of(run)
        assert (told["path"], told["code"], told["message"]) == (failure["path"], failure["code"], failure["message"])
        for name in ("accuracy", "test", "classes", "confusion", "per_class", "config"):
            assert found[name] == expected[name]


def test_a_report_by_features(featkit: Run, here: Path) -> None:
    featkit("extract", "test", "-r", *HOG, "-o", "features.npz")
    shutil.rmtree(here / "test")

    run = featkit("evaluate", "model.fk", "--from", "features.npz", "--report", "page")

    assert (run.returncode, run.stderr) == (0, b"")
    assert "<title>features.npz: hog, svm</title>" in (here / "page" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", [("predict", "model.fk"), ("evaluate", "model.fk"), ("evaluate", "model.fk", "test")]
)
def test_features_of_another_kind(featkit: Run, here: Path, command: tuple[str, ...]) -> None:
    featkit("extract", "test", "-r", "--features", "hog", "--size", "64", "-o", "features.npz")

    run = featkit(*command, "--from", "features.npz", "--json")

    [record] = records_of(run)
    assert run.returncode == 2
    assert (record["type"], record["path"], record["code"]) == ("error", "features.npz", "mismatch")
    assert record["message"].startswith("the head was trained on hog, size 32 × 32")
    assert "; these are features of hog, size 64 × 64" in record["message"]
    assert complaint_of(run).splitlines()[1].startswith("hint: ")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_features_that_are_damaged(featkit: Run, here: Path, command: str) -> None:
    featkit("extract", "test", "-r", *HOG, "-o", "features.npz")
    data = bytearray((here / "features.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (here / "features.npz").write_bytes(data)

    run = featkit(command, "model.fk", "--from", "features.npz", "--json")

    assert run.returncode == 2
    assert (records_of(run)[-1]["path"], records_of(run)[-1]["code"]) == ("features.npz", "features")
    complaint_of(run)


def test_features_of_no_picture_that_could_be_read(featkit: Run, here: Path) -> None:
    (here / "a.png").write_bytes(b"no picture")
    assert featkit("extract", "a.png", "missing.png", *HOG, "-o", "features.npz").returncode == ALL_FAILED

    run = featkit("predict", "model.fk", "--from", "features.npz")

    assert (run.returncode, run.stdout) == (ALL_FAILED, b"")
    assert complaint_of(run).count("featkit: error: ") == 2


def test_heads_on_features_of_a_network(featkit: Run, here: Path) -> None:
    """Made in one process, used in others, which need no torch where the features are there already."""
    network = NetworkConfig("shufflenet_v2_x0_5", "random", features=FeatureConfig(("stage2",)))
    cache = Cache(here / "cache")
    maker = network_maker(network, count=6, jobs=1, cache=cache)
    paths = [str(here / path) for path in PICTURES[::4]]
    [rows] = extract(paths, maker, mirrored=False, decode=DEFAULTS, cache=cache, jobs=1)
    config = ClassifyConfig(classifier="ridge", reduce="none")
    steps = fit_model(maker.source, [rows.views[0]], [Path(path).parent.name for path in paths], config, seconds={})
    model = followed(_with_its_value(steps)).model
    model.save(here / "network.fk")
    options = ("--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--layers", "stage3,stage2")
    featkit("extract", *PICTURES[::4], *options, "-o", "features.npz", "--quiet")
    featkit("extract", *PICTURES[:1], *options, "--seed", "1", "-o", "other.npz", "--quiet")

    of_pictures = records_of(featkit("predict", "network.fk", *PICTURES[::4], "--json"))
    program = """if True:
        import sys
        from featkit.cli.app import run
        status = run(["predict", "network.fk", "--from", "features.npz", "--json"])
        assert "torch" not in sys.modules
        sys.exit(status)
    """
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=here)
    refused = featkit("predict", "network.fk", "--from", "other.npz")

    assert (found.returncode, found.stderr) == (0, b"")
    for each, other in zip(records_of(found), of_pictures, strict=True):
        assert (each["path"], each["label"]) == (other["path"], other["label"])
        assert each["score"] == pytest.approx(other["score"], abs=1e-4)
    assert refused.returncode == 2
    assert (
        "other.npz: the head was trained on shufflenet_v2_x0_5, weights random 0; "
        "these are features of shufflenet_v2_x0_5, weights random 1" in complaint_of(refused)
    )


def _with_its_value(steps: Generator[Progress, None, Fitted]) -> Generator[Progress | Fitted, None, None]:
    yield (yield from steps)


# --- what is refused

STRANGE = {
    "predict": "missing argument 'MODEL'",
    "predict model.fk": "there are no pictures to label",
    "predict nowhere.fk test/down": "nowhere.fk: there is no such file",
    "predict test test/down": "test: this is a folder, not a model",
    "predict empty.fk test/down": "empty.fk: the file is empty (0 bytes)",
    "predict test/down/16.png test/down": "test/down/16.png: this is no model of featkit",
    "predict short.fk test/down": "short.fk: it is cut short: ",
    "predict magic.fk test/down": "magic.fk: it is cut short, after 20 bytes",
    "predict tampered.fk test/down": "tampered.fk: it is not what was written: its checksum is wrong",
    "predict longer.fk test/down": "longer.fk: it is longer than it was written",
    "predict newer.fk test/down": "newer.fk: it is a model of version 2, and this featkit reads version 1",
    "predict strange.fk test/down": "strange.fk: it is whole, but what it holds is no model for this featkit",
    "predict model.fk test": "test: there is no picture in this folder",
    "predict model.fk test/down --format xml": "--format knows no 'xml'",
    "predict model.fk test/down --format csv --json": "--json and --format csv are two formats",
    "predict model.fk test/down --top 0": "--top must be at least 1",
    "predict model.fk test/down --top few": "'few' is not a valid int",
    "predict model.fk test/down --jobs 0": "--jobs must be at least 1",
    "predict model.fk test/down -0": "-0 is about a list, and there is none",
    "predict model.fk - test/down": "- means that all names come on stdin",
    "predict model.fk test/down --fromat csv": "no such option: --fromat",
    "evaluate": "missing argument 'MODEL'",
    "predict model.fk test/down --from features.npz": "--from labels the pictures whose features it names",
    "predict model.fk - --from features.npz": "--from labels the pictures whose features it names",
    "predict model.fk --from features.npz --files-from list.txt": "--from labels the pictures whose features it names",
    "predict model.fk --from features.npz --recursive": "--from labels the pictures whose features it names",
    "predict model.fk --from features.npz -0": "-0 is about a list, and there is none",
    "predict model.fk --from nowhere.npz": "nowhere.npz: there is no such file",
    "predict model.fk --from nowhere": "nowhere",
    "predict model.fk --from model.fk": "model.fk: there is no format 'fk' for features",
    "predict model.fk --from foreign.npz": "foreign.npz: this holds no features of featkit",
    "predict model.fk --from keypoints.npz": "keypoints.npz: these are keypoints, any number a picture",
    "predict tampered.fk --from features.npz": "tampered.fk: it is not what was written: its checksum is wrong",
    "evaluate model.fk": "there is nothing to test on",
    "evaluate model.fk --from nowhere.npz": "nowhere.npz: there is no such file",
    "evaluate model.fk nowhere --from features.npz": "nowhere: there is no such folder or CSV file",
    "evaluate model.fk --from flat.npz": "all pictures are in one folder, test/down",
    "evaluate model.fk test/down --from features.npz": "test/down: there is no class folder with pictures in it",
    "evaluate model.fk nowhere": "nowhere: there is no such folder or CSV file",
    "evaluate model.fk test/down": "test/down: there is no class folder with pictures in it",
    "evaluate tampered.fk test": "tampered.fk: it is not what was written: its checksum is wrong",
    "evaluate model.fk test --jobs 0": "--jobs must be at least 1",
    "evaluate model.fk test --report model.fk": "model.fk: is a file, not a folder",
    "evaluate model.fk test --report written": "written/index.html: exists already",
}
#: What is missing needs no hint.
PLAIN = ("there is no such file", "there is no such folder", "this is a folder", "no picture in this folder")


@pytest.fixture(scope="session")
def refusals(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Of every strange command line, tried one after the other by one process: exit status, stderr, files made."""
    folder = tmp_path_factory.mktemp("strange")
    shutil.copytree(trained.folder / "test", folder / "test")
    data = (trained.folder / "model.fk").read_bytes()
    tampered = bytearray(data)
    tampered[-1000] ^= 1
    for name, content in {
        "model.fk": data,
        "empty.fk": b"",
        "short.fk": data[:-100],
        "magic.fk": data[:20],
        "tampered.fk": bytes(tampered),
        "longer.fk": data + b"!",
        "newer.fk": data.replace(b"featkit-model 1\n", b"featkit-model 2\n", 1),
    }.items():
        (folder / name).write_bytes(content)
    config, arrays = read_model(folder / "model.fk")
    config["maker"]["versions"]["hog"] = 0
    write_model(folder / "strange.fk", config, arrays, force=False)
    (folder / "written").mkdir()
    (folder / "written" / "index.html").touch()
    np.savez(folder / "foreign.npz", head=np.zeros((2, 3)))
    for name, options in {
        "flat.npz": ("--size", "32", "--features", "hog"),
        "keypoints.npz": ("--features", "orb"),
    }.items():
        run = subprocess.run([*FEATKIT, "extract", "test/down", *options, "-o", name, "--quiet"], cwd=folder)
        assert run.returncode == 0
    return tried(STRANGE, folder, trained.cache)


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(refusals: dict[str, Refusal], arguments: str) -> None:
    status, errors, made = refusals[arguments]

    assert status == 2
    message, *hint = errors.splitlines()
    assert message.startswith("featkit: error: ")
    assert STRANGE[arguments] in message
    assert [line.startswith("hint: ") for line in hint] == [True] or any(words in message for words in PLAIN)
    assert made == []


def test_a_refusal_is_a_record_too(featkit: Run, here: Path) -> None:
    (here / "model.fk").write_bytes((here / "model.fk").read_bytes()[:-1])

    run = featkit("predict", "model.fk", "test/down", "--json")

    [record] = records_of(run)
    assert (record["type"], record["path"], record["code"]) == ("error", "model.fk", "model")
    complaint_of(run)


# --- terminals, pipes, signals


def test_lines_come_as_they_are_done(here: Path) -> None:
    """What is read while the first lines wait to be taken is a small part: pictures that go away then are missing."""
    names = []
    for number in range(900):
        names.append(f"{number:04}{'-' * 200}.png")
        (here / names[-1]).symlink_to(PICTURES[number % 24])
    process = subprocess.Popen(
        [*FEATKIT, "predict", "model.fk", "-", "--json", "--no-cache", "--jobs", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=here,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(names).encode())
    process.stdin.close()
    first = json.loads(process.stdout.readline())
    (here / names[-1]).unlink()
    *_, last = process.stdout
    process.stdout.close()

    assert (first["type"], first["path"]) == ("prediction", names[0])
    assert (json.loads(last)["type"], json.loads(last)["path"]) == ("error", names[-1])
    assert process.wait() == SOME_FAILED


@pytest.mark.parametrize("options", [[], ["--json"], ["--format", "csv"]], ids=str)
def test_a_reader_that_has_enough(here: Path, options: list[str]) -> None:
    (here / "list.txt").write_text("\n".join(PICTURES * 100))
    command = ["bash", "-c", '"$@" | head -1; exit "${PIPESTATUS[0]}"', "bash", *FEATKIT]
    arguments = ["predict", "model.fk", "--files-from", "list.txt", *options]
    run = subprocess.run([*command, *arguments], capture_output=True, cwd=here, timeout=60)

    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.count(b"\n") == 1


def test_a_full_disk(here: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [*FEATKIT, "predict", "model.fk", "test/down"], stdout=full, stderr=subprocess.PIPE, cwd=here
        )

    assert run.returncode == 2
    assert "stdout cannot be written: No space left on device" in complaint_of(run)


def test_progress_on_a_terminal(here: Path) -> None:
    """It is gone at the end, and results are whole lines."""
    status, shown = on_terminal(here, "predict", "model.fk", *PICTURES, "missing.png")

    assert status == SOME_FAILED
    assert "labelling" in shown
    assert all(re.search(rf"{picture}  \w+ -?\d\.\d\d · ahead by \d\.\d\d\r\n", shown) for picture in PICTURES)
    assert shown[shown.rindex("\x1b[2K") :] == "\x1b[2K"


def test_plain_terminals(here: Path) -> None:
    predict, evaluate = ("predict", "model.fk", *PICTURES), ("evaluate", "model.fk", "test")
    _, plain = on_terminal(here, *predict, stdout="found.txt", TERM="dumb")
    _, quiet = on_terminal(here, *predict, "--quiet", stdout="found.txt")
    _, records = on_terminal(here, *predict, "--format", "jsonl", stdout="found.txt")
    _, evaluated = on_terminal(here, *evaluate, "--quiet", stdout="found.txt")

    assert plain == quiet == records == evaluated == ""


def test_being_interrupted(here: Path) -> None:
    """After the first line, with most of the work yet to do."""
    save(here / "large.png", np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8))
    process = subprocess.Popen(
        [*FEATKIT, "predict", "model.fk", "-", "--no-cache"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=here,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join([*PICTURES * 20, *["large.png"] * 2000]).encode())
    process.stdin.close()
    process.stdin = None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert errors == b"featkit: interrupted\n"


@pytest.mark.parametrize("subcommand", ["predict", "evaluate"])
def test_options_of_the_decoder(featkit: Run, here: Path, subcommand: str) -> None:
    names = "test" if subcommand == "evaluate" else "test/down"
    run = featkit(subcommand, "model.fk", names, "--max-pixels", "1000")
    assert run.returncode == 2
    assert "--max-pixels" in run.stderr.decode()
