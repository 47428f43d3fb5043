"""`featkit classify` as a user meets it: what it prints and writes, what it makes of strange data, what it refuses, and
how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from conftest import FEATKIT, Refusal, Run, complaint_of, on_terminal, records_of, tried
from textures import KINDS, save_textures

from featkit.cli.learned import SOME_FAILED
from featkit.extraction.makers import MAKERS
from featkit.images import load, save
from featkit.learning.config import ClassifyConfig
from featkit.learning.heads import CLASSIFIERS


@dataclass(frozen=True)
class Learned:
    """One run on train/ and test/ in folder/data. folder: with model.fk, too. cache: warm from now on."""

    folder: Path
    cache: Path
    record: dict[str, Any]


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder, cache = tmp_path_factory.mktemp("learned"), tmp_path_factory.mktemp("cache")
    save_textures(folder / "data" / "train", 16)
    save_textures(folder / "data" / "test", 8, first=16)
    run = subprocess.run(
        [*FEATKIT, "classify", "data", "-o", "model.fk", "--json"],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "FEATKIT_CACHE": str(cache)},
        timeout=120,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    return Learned(folder, cache, json.loads(run.stdout, parse_constant=_no_number))


def _no_number(name: str) -> NoReturn:
    raise AssertionError(f"{name} in a record")


@pytest.fixture
def data(learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`/data, where `featkit` runs in `tmp_path`: train/ and test/ with 16 and 8 pictures of each of three
    textures; and a warm cache."""
    monkeypatch.setenv("FEATKIT_CACHE", str(learned.cache))
    return shutil.copytree(learned.folder / "data", tmp_path / "data")


def files_in(folder: Path) -> list[str]:
    """Names of all files, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what it prints


def test_the_record(learned: Learned) -> None:
    record = learned.record

    assert list(record) == [
        *("v", "type", "accuracy", "interval", "test", "classes", "confusion", "per_class"),
        *("train", "config", "seconds", "model"),
    ]
    assert (record["v"], record["type"], record["model"]) == (1, "evaluation", "model.fk")
    assert (record["train"], record["test"], record["classes"]) == (48, 24, list(KINDS))
    confusion = np.array(record["confusion"])
    assert confusion.sum(axis=1).tolist() == [8, 8, 8]
    assert record["accuracy"] == confusion.trace() / 24 > 0.8
    low, high = record["interval"]
    assert 0 < low < record["accuracy"] <= high <= 1
    for place, result in enumerate(record["per_class"]):
        assert (result["label"], result["count"]) == (KINDS[place], 8)
        assert result["recall"] == confusion[place, place] / 8
    assert set(record["seconds"]) == {"features", "reduction", "classifier", "test"}
    config = ClassifyConfig()
    assert {name: record["config"][name] for name in ("features", "classifier", "flip", "seed", "hold_out")} == {
        name: getattr(config, name) for name in ("features", "classifier", "flip", "seed", "hold_out")
    }
    assert record["config"]["size"] == [32, 32]


def test_lines_for_people(featkit: Run, data: Path, learned: Learned) -> None:
    run = featkit("classify", "data")

    first, *classes = run.stdout.decode().splitlines()
    assert (run.returncode, run.stderr) == (0, b"")
    share, low, high = (f"{100 * each:.1f} %" for each in (learned.record["accuracy"], *learned.record["interval"]))
    assert first == f"{share} of 24 pictures right · 95 % interval {low} to {high} · 3 classes"
    recalls = [f"{100 * result['recall']:.1f} %" for result in learned.record["per_class"]]
    expected = {f"{kind} {recall} of 8" for kind, recall in zip(KINDS, recalls, strict=True)}
    assert {" ".join(line.split()) for line in classes} == expected
    found = [float(line.split()[1]) for line in classes]
    assert found == sorted(found)  # the worst first


@pytest.mark.parametrize("layout", ["folders", "table", "test", "test table"])
def test_every_layout_of_the_same_pictures(featkit: Run, data: Path, learned: Learned, layout: str) -> None:
    pictures = {part: sorted((data / part).glob("*/*.png"), key=_number) for part in ("train", "test")}
    rows = {part: [f"{path.relative_to(data)},{path.parent.name}" for path in pictures[part]] for part in pictures}
    if layout == "folders":
        (data / "test").rename(data / "val")
    both = [f"{row},{part}" for part in rows for row in rows[part]]
    (data / "all.csv").write_text("\n".join(["path,label,split", *both]))
    (data / "test.csv").write_text("\n".join(["path,label", *rows["test"]]))
    arguments = {
        "folders": ["data"],
        "table": ["data/all.csv"],
        "test": ["data/train", "--test", "data/test"],
        "test table": ["data/train", "--test", "data/test.csv"],
    }

    [record] = records_of(featkit("classify", *arguments[layout], "--json"))

    for name in ("accuracy", "confusion", "classes", "train", "test"):
        assert record[name] == learned.record[name]


def _number(path: Path) -> tuple[str, int]:
    return path.parent.name, int(path.stem)


def test_a_part_is_held_out_where_none_is_named(featkit: Run, data: Path) -> None:
    [record] = records_of(featkit("classify", "data/train", "--json", "--hold-out", "0.25", "--seed", "7"))

    assert (record["train"], record["test"]) == (36, 12)
    assert np.sum(record["confusion"], axis=1).tolist() == [4, 4, 4]
    assert (record["config"]["hold_out"], record["config"]["seed"]) == (0.25, 7)


def test_every_option_of_learning(featkit: Run, data: Path) -> None:
    options = "--features hog-skimage --reduce pca:5 --whiten --classifier logreg --C auto --class-weight balanced"
    run = featkit("classify", "data", "--json", *options.split(), "--flip", "on", "--size", "48x40", "--seed", "3")

    assert run.returncode == 0, run.stderr
    [record] = records_of(run)
    config = record["config"]
    assert config.pop("c") in CLASSIFIERS["logreg"].choices
    assert 0 < config.pop("kept_variance") < 1
    assert config == {
        "features": "hog-skimage",
        "dictionary": None,
        "stride": None,
        "size": [48, 40],
        "reduce": "pca:5",
        "whiten": True,
        "classifier": "logreg",
        "neighbours": None,
        "balanced": True,
        "flip": True,
        "hold_out": 0.2,
        "seed": 3,
    }


# --- models


@pytest.mark.parametrize("arguments", [[], ["--no-cache", "--jobs", "1"], ["--no-cache", "--jobs", "3"]], ids=" ".join)
def test_always_the_same_bytes(featkit: Run, data: Path, learned: Learned, arguments: list[str]) -> None:
    """Cold and warm, with one worker and with several."""
    run = featkit("classify", "data", "-o", "again.fk", "--json", *arguments)

    [record] = records_of(run)
    assert (data.parent / "again.fk").read_bytes() == (learned.folder / "model.fk").read_bytes()
    differing = {"seconds", "model"}
    assert {name: value for name, value in record.items() if name not in differing} == {
        name: value for name, value in learned.record.items() if name not in differing
    }


def test_a_model_is_overwritten_only_with_force(featkit: Run, data: Path, learned: Learned) -> None:
    model = data.parent / "model.fk"
    model.write_bytes(b"precious")

    refused = featkit("classify", "data", "-o", "model.fk")
    assert refused.returncode == 2
    assert complaint_of(refused) == "featkit: error: model.fk: exists already\nhint: --force overwrites it\n"
    assert model.read_bytes() == b"precious"

    assert featkit("classify", "data", "-o", "model.fk", "--force").returncode == 0
    assert model.read_bytes() == (learned.folder / "model.fk").read_bytes()


def test_stdout_gets_the_bytes_of_a_file(featkit: Run, data: Path, learned: Learned) -> None:
    run = featkit("classify", "data", "-o", "-")

    assert run.stdout == (learned.folder / "model.fk").read_bytes()
    assert run.stderr.decode().splitlines()[0].endswith("· 3 classes")
    assert files_in(data.parent) == [f"data{'/' * bool(name)}{name}" for name in ("", *files_in(data))]


# --- what is strange


def test_what_cannot_be_read_is_named_and_the_rest_is_done(featkit: Run, data: Path) -> None:
    (data / "train" / "down" / "3.png").write_bytes(b"no picture")
    (data / "test" / "spots" / "17.png").write_bytes(b"")

    run = featkit("classify", "data", "--json", "-o", "model.fk")

    *errors, evaluation = records_of(run)
    assert run.returncode == SOME_FAILED
    assert [(error["type"], error["path"], error["code"]) for error in errors] == [
        ("error", "data/train/down/3.png", "unknown-format"),
        ("error", "data/test/spots/17.png", "empty"),
    ]
    assert (evaluation["train"], evaluation["test"]) == (47, 23)
    assert (data.parent / "model.fk").exists()
    assert complaint_of(run).count("featkit: error: ") == 2


def test_labels_of_the_test_that_nothing_is_known_of(featkit: Run, data: Path) -> None:
    (data / "test" / "spots").rename(data / "test" / "dots")

    run = featkit("classify", "data", "--json")

    *errors, evaluation = records_of(run)
    assert run.returncode == SOME_FAILED
    assert [error["path"] for error in errors] == [f"data/test/dots/{number}.png" for number in range(16, 24)]
    assert all("its label 'dots' is none that the model has learned" in error["message"] for error in errors)
    assert (evaluation["test"], evaluation["per_class"][2]["recall"]) == (16, None)
    assert b"  spots   not tested\n" in featkit("classify", "data").stdout


def test_a_table_with_gaps(featkit: Run, data: Path) -> None:
    rows = [f"train/{kind}/{number}.png,{kind}" for kind in KINDS for number in range(8)]
    rows[3:3] = ["train/down/9.png,NaN", "train/down/10.png,"]
    (data / "table.csv").write_text("\n".join(["path,label", *rows]))

    run = featkit("classify", "data/table.csv", "--json")

    *errors, evaluation = records_of(run)
    assert run.returncode == SOME_FAILED
    assert [error["message"] for error in errors] == [
        "line 5: no label for train/down/9.png",
        "line 6: no label for train/down/10.png",
    ]
    assert evaluation["train"] + evaluation["test"] == 24


def test_more_components_than_samples(featkit: Run, data: Path) -> None:
    run = featkit("classify", "data", "--reduce", "pca:9999")

    assert run.returncode == 0
    assert run.stderr.decode() == (
        "featkit: warning: there are 47 components, and not 9999: of vectors of 744 numbers of 48 pictures "
        "no more can be found\n"
    )


def test_classes_of_one_picture(featkit: Run, data: Path) -> None:
    for path in [*data.glob("train/*/?.png"), *data.glob("train/*/1[1-5].png")]:
        path.unlink()

    run = featkit("classify", "data/train", "-o", "model.fk")

    assert (run.returncode, run.stdout) == (0, b"")
    assert run.stderr.decode().splitlines() == [
        *(
            f"featkit: warning: the class '{kind}' has one picture: it is learned from, and not tested"
            for kind in KINDS
        ),
        "featkit: warning: there is nothing to test on: every class has one picture",
    ]
    assert (data.parent / "model.fk").exists()

    asked = featkit("classify", "data/train", "--report", "page", "--ablate", "--visualize-hog", "hog.png")
    assert asked.returncode == SOME_FAILED
    last = asked.stderr.decode().splitlines()[-1]
    assert last.endswith("not done, as there is nothing to test on: --report, --ablate, --visualize-hog")


def test_names_of_every_kind(featkit: Run, data: Path) -> None:
    """Of classes and of pictures: spaces, other scripts, a line end, bytes that are not UTF-8."""
    names = {"across": "a cross", "down": "вниз 下", "spots": os.fsdecode(b"sp\nots\xff")}
    for kind, name in names.items():
        for part in ("train", "test"):
            try:
                (data / part / kind).rename(data / part / name)
            except OSError:
                pytest.skip("this file system takes UTF-8 alone")

    [record] = records_of(featkit("classify", "data", "--json", "-o", "model.fk"))
    lines = featkit("classify", "data").stdout.decode().splitlines()

    assert sorted(record["classes"]) == sorted(names.values())
    assert sorted(line.split("  ")[1].strip() for line in lines[1:]) == ["a cross", r"sp\nots\xff", "вниз 下"]


# --- what is refused

STRANGE = {
    "": "missing argument 'DATA'",
    "nowhere": "nowhere: there is no such folder or CSV file",
    "data/train/down/1.png": "data/train/down/1.png: this is neither a folder nor a CSV file",
    "empty": "empty: there is no class folder with pictures in it",
    "data/train/down": "data/train/down: there is no class folder with pictures in it",
    "one": "there is one class, 'down', and it takes two or more",
    "damaged": "there is no picture to learn from; damaged/across/0.png: ",
    "nan.csv": "nan.csv: there is no row to train on; line 2: no label for data/train/down/1.png",
    "data --test nowhere": "nowhere: there is no such folder or CSV file",
    "data --test strangers": "none of the classes to test on is one to learn: 'fish' is not 'across'",
    "data --classifier tree": "there is no classifier 'tree'",
    "data --features sift": "there are no features 'sift'",
    "data --reduce tsne": "there is no reduction 'tsne'",
    "data --reduce pca:0": "a reduction leaves 1 component or more, not 0",
    "data --C much": "--C is a positive number or auto, not 'much'",
    "data --C 0": "C is a positive number or auto, not 0.0",
    "data --C -1": "C is a positive number or auto, not -1.0",
    "data --C nan": "C is a positive number or auto, not nan",
    "data --C inf": "C is a positive number or auto, not inf",
    "data --C 2 --classifier knn": "the classifier knn has no C",
    "data --C auto --classifier mlp": "the classifier mlp has no C",
    "data --class-weight heavy": "--class-weight knows no 'heavy'",
    "data --flip maybe": "--flip knows no 'maybe'",
    "data --size big": "--size takes width and height, not 'big'",
    "data --size 10x": "--size takes width and height, not '10x'",
    "data --size 3x40": "pictures cannot be brought to 3 × 40 pixels",
    "data --size 5000": "pictures cannot be brought to 5000 × 5000 pixels",
    "data --size 16 --features hog-skimage": "smaller than a block of HOG",
    "data/train --hold-out 0": "the share to hold out is 0",
    "data/train --hold-out 1": "the share to hold out is 1",
    "data/train --hold-out nan": "the share to hold out is nan",
    "data/train --hold-out half": "'half' is not a valid float",
    "data --hold-out 0.3": "--hold-out is for data of which no part is named to test on",
    "data/train --test data/test --hold-out 0.3": "--hold-out is for data of which no part is named to test on",
    "data --seed -1": "the seed is -1",
    "data --seed 4294967296": "the seed is 4294967296",
    "data --seed x": "'x' is not a valid int",
    "data --jobs 0": "--jobs must be at least 1",
    "data --clasifier svm": "no such option: --clasifier",
    "data -o": "option '-o' requires an argument",
    "data -o nowhere/m.fk": "nowhere/m.fk: there is no folder nowhere",
    "data -o empty": "empty: names a folder",
    "data -o old.fk": "old.fk: exists already",
    "data -o - --json": "-o - and --json both want stdout",
    "data -o data/train/down/1.png --force": "data/train/down/1.png: a file that is read would be overwritten",
    "nan2.csv -o nan2.csv --force": "nan2.csv: a file that is read would be overwritten",
    "data --stride 2": "stride is about patches, and the features are hog",
    "data --features patches --dictionary 0": "dictionary is 1 to 20000, not 0",
    "data --visualize-hog hog.xyz": "hog.xyz: pictures cannot be written as '.xyz'",
    "data --visualize-hog old.png": "old.png: exists already",
    "data --visualize-hog hog.png --features pixels": "--visualize-hog draws what hog sees, and --features is pixels",
    "data --visualize-hog hog.png -o ./hog.png": "-o and --visualize-hog name the same file",
    "data --report old.fk": "old.fk: is a file, not a folder",
    "data --report nowhere/page": "nowhere/page: there is no folder nowhere",
    "data --report written": "written/index.html: exists already",
}


@pytest.fixture(scope="session")
def refusals(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Of every strange command line, tried one after the other by one process: exit status, stderr, files made."""
    folder = tmp_path_factory.mktemp("strange")
    shutil.copytree(learned.folder / "data", folder / "data")
    (folder / "empty").mkdir()
    shutil.copytree(folder / "data" / "train" / "down", folder / "one" / "down")
    shutil.copytree(folder / "data" / "train" / "down", folder / "strangers" / "fish")
    shutil.copytree(folder / "data" / "train", folder / "damaged")
    for path in (folder / "damaged").glob("*/*"):
        path.write_bytes(b"no picture")
    (folder / "nan.csv").write_text("path,label\ndata/train/down/1.png,nan\n")
    rows = [f"data/train/{kind}/{number}.png,{kind}\n" for kind in KINDS for number in range(3)]
    (folder / "nan2.csv").write_text("".join(["path,label\n", *rows]))
    (folder / "written").mkdir()
    for name in ("old.fk", "old.png", "written/index.html"):
        (folder / name).write_bytes(b"precious")
    found = tried([f"classify {line}" for line in STRANGE], folder, learned.cache)
    for name in ("old.fk", "old.png", "written/index.html"):
        assert (folder / name).read_bytes() == b"precious"
    return {line.removeprefix("classify "): refusal for line, refusal in found.items()}


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(refusals: dict[str, Refusal], arguments: str) -> None:
    status, errors, made = refusals[arguments]

    assert status == 2
    message, *hint = errors.splitlines()
    assert message.startswith("featkit: error: ")
    assert STRANGE[arguments] in message
    assert [line.startswith("hint: ") for line in hint] == [True] or "no such folder or CSV" in message
    assert made == []


def test_what_is_allowed_is_listed(refusals: dict[str, Refusal]) -> None:
    for arguments, known in {"data --classifier tree": CLASSIFIERS, "data --features sift": MAKERS}.items():
        assert refusals[arguments][1].endswith(f": {', '.join(known)}\n")


def test_the_help_tells_the_choices(featkit: Run) -> None:
    text = " ".join(featkit("classify", "--help", COLUMNS="200").stdout.decode().split())
    for name in (*CLASSIFIERS, *MAKERS, "pca:N", "lda", "none", "balanced", "auto", "on|off"):
        assert name in text
    assert f"{ClassifyConfig().classifier} (default" in text
    assert f"{ClassifyConfig().features} (default" in text


def test_options_of_the_decoder(featkit: Run, data: Path) -> None:
    run = featkit("classify", "data", "--max-pixels", "1000")
    assert run.returncode == 2
    assert "--max-pixels" in run.stderr.decode()


def test_a_model_on_stdout_and_nothing_on_stderr(featkit: Run, data: Path) -> None:
    run = featkit("classify", "data", "-o", "-", "--quiet")
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"featkit-model")


def test_fewer_patches_less_dense(featkit: Run, data: Path) -> None:
    options = "--features", "hog+patches", "--dictionary", "8", "--stride", "3"
    run = featkit("classify", "data", "-o", "patches.fk", *options, "--json")
    assert (run.returncode, run.stderr) == (0, b"")
    record = json.loads(run.stdout)
    assert record["accuracy"] > 0.5
    assert (record["config"]["dictionary"], record["config"]["stride"]) == (8, 3)
    [prediction, *_] = featkit("predict", "patches.fk", "data/test/across", "--json").stdout.splitlines()
    assert json.loads(prediction)["type"] == "prediction"


# --- pictures


def test_the_report(featkit: Run, data: Path) -> None:
    run = featkit("classify", "data", "--report", "page", "--visualize-hog", "hog.png")

    assert (run.returncode, run.stderr) == (0, b"")
    page = data.parent / "page"
    assert files_in(page) == ["confusion.png", "index.html", "map-pca.png", "map-tsne.png", "mistakes.png"]
    text = (page / "index.html").read_text(encoding="utf-8")
    assert "<title>data: hog, svm</title>" in text
    assert all(word in text for word in (*KINDS, "32 × 32", "HOG of data/test/across/16.png"))


def test_hog_is_drawn(featkit: Run, data: Path) -> None:
    """Of the first tested picture: it is there, enlarged, and beside it lines along its edges."""
    wave = np.broadcast_to(128 + 100 * np.sin(np.arange(32)), (3, 32, 32)).T
    across = np.ascontiguousarray(wave.astype(np.uint8))
    save(data / "test" / "across" / "16.png", across, force=True)

    assert featkit("classify", "data", "--visualize-hog", "hog.png").returncode == 0

    drawn = load(data.parent / "hog.png").pixels
    scale = drawn.shape[0] // 32
    assert np.array_equal(drawn[scale // 2 : 32 * scale : scale, scale // 2 : 32 * scale : scale], across)
    lines = drawn[:, -32 * scale :, 0].astype(float)
    cell = lines[: 8 * scale, : 8 * scale]
    assert cell[4 * scale].mean() > 4 * cell[:, 4 * scale].mean()  # along the stripe, and not across it


def test_ablation(featkit: Run, data: Path) -> None:
    """A table for people, records for scripts, and on the page."""
    options = ["--classifier", "ridge", "--reduce", "pca:10", "--ablate"]
    evaluation, *trials = records_of(featkit("classify", "data", *options, "--report", "page", "--json"))
    lines = featkit("classify", "data", *options).stdout.decode().splitlines()

    assert {trial["type"] for trial in trials} == {"ablation"}
    assert {trial["stage"] for trial in trials} == {"as asked", "reduce", "classifier", "flip", "features"}
    assert (trials[0]["stage"], trials[0]["accuracy"]) == ("as asked", evaluation["accuracy"])
    for trial in trials:
        assert trial["difference"] == trial["accuracy"] - evaluation["accuracy"]
        assert set(trial["cpu_seconds"]) == {"features", "fit", "test"}
    head, *rows = lines[lines.index("") + 1 :]
    assert " ".join(head.split()) == "stage change accuracy ± 95 % difference features, CPU s fit, CPU s test, CPU s"
    assert [(row[:10].strip(), row[12:34].strip()) for row in rows] == [
        (trial["stage"], trial["change"]) for trial in trials
    ]
    page = (data.parent / "page" / "index.html").read_text(encoding="utf-8")
    assert all(trial["change"] in page for trial in trials)


# --- terminals, pipes, signals


def test_progress_on_a_terminal(data: Path) -> None:
    """It is gone at the end, and results are whole lines."""
    status, shown = on_terminal(data.parent, "classify", "data", "--no-cache", "-o", "m.fk")

    assert status == 0
    assert "learning" in shown
    assert re.search(r"of 24 pictures right · [^\r\n]* · 3 classes\r\n", shown)
    assert shown[shown.rindex("\x1b[2K") :] == "\x1b[2K"


def test_plain_terminals(data: Path) -> None:
    _, plain = on_terminal(data.parent, "classify", "data", stdout="found.txt", TERM="dumb")
    _, quiet = on_terminal(data.parent, "classify", "data", "--quiet", stdout="found.txt")
    status, model = on_terminal(data.parent, "classify", "data", "-o", "-")

    assert plain == quiet == ""
    assert status == 2
    assert model.startswith("featkit: error: a model does not go onto a terminal\r\nhint: ")


def test_a_closed_pipe_costs_no_file(data: Path, learned: Learned) -> None:
    command = ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "bash", *FEATKIT]
    arguments = ["classify", "data", "-o", "model.fk", "--report", "page"]
    run = subprocess.run([*command, *arguments], capture_output=True, cwd=data.parent, timeout=60)

    assert (run.returncode, run.stderr) == (0, b"")
    assert (data.parent / "model.fk").read_bytes() == (learned.folder / "model.fk").read_bytes()
    assert (data.parent / "page" / "index.html").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_being_ended_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    """Once the bar says that features are made, of pictures that take some seconds."""
    large = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    save(tmp_path / "large.png", large)
    for kind in KINDS:
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(200):
            (tmp_path / "data" / kind / f"{number}.png").symlink_to(tmp_path / "large.png")
    (tmp_path / "temporary").mkdir()
    before = files_in(tmp_path)
    number = getattr(signal, name)
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*FEATKIT, "classify", "data", "-o", "model.fk", "--report", "page", "--no-cache"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "TMPDIR": str(tmp_path / "temporary")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    shown = b""
    for piece in _pieces(reader):
        if b"features" in shown + piece and b"features" not in shown:
            process.send_signal(number)
        shown += piece
    os.close(reader)

    assert process.wait() == 128 + number
    assert b"Traceback" not in shown
    assert (b"featkit: interrupted" in shown) == (name == "SIGINT")
    assert files_in(tmp_path) == before


def _pieces(reader: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # so Linux says that the other end is closed
            return
        if not piece:
            return
        yield piece


# --- disks and permissions


@pytest.mark.parametrize("output", ["-o model.fk", "--report page", "--visualize-hog hog.png"])
def test_a_full_disk(featkit: Run, data: Path, output: str) -> None:
    before = files_in(data.parent)

    run = featkit("classify", "data", *output.split(), largest_file=3000, FEATKIT_CACHE="off")

    assert run.returncode == 2
    message, hint = complaint_of(run).splitlines()
    assert "larger than this system allows" in message
    assert hint.startswith("hint: raise the limit")
    assert [name for name in files_in(data.parent) if name not in before] in ([], ["page"])


@pytest.mark.parametrize("output", ["-o closed/m.fk", "--report closed/page", "--visualize-hog closed/hog.png"])
def test_a_folder_that_cannot_be_written(featkit: Run, data: Path, plain_user: list[str], output: str) -> None:
    (data.parent / "closed").mkdir(mode=0o555)
    before = files_in(data.parent)

    run = featkit("classify", "data", *output.split(), prefix=plain_user)

    assert run.returncode == 2
    assert "closed cannot be written to" in complaint_of(run)
    assert files_in(data.parent) == before
