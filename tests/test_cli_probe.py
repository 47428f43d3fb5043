"""`featkit probe` as a user meets it: what it prints and writes, which heads it saves, what it makes of strange data,
what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from conftest import FEATKIT, NOWHERE, Refusal, Run, complaint_of, on_terminal, records_of, tried
from PIL import Image
from textures import KINDS, save_textures

from featkit.cli.learned import SOME_FAILED
from featkit.deep.config import NetworkConfig
from featkit.images import save
from featkit.learning.config import PROBES, ProbeConfig

#: Small, and quick to make.
NETWORK = "--backbone shufflenet_v2_x0_5 --weights random --input 64"
#: Its layers from the first to the last, and how many numbers each has.
LAYERS = {"conv1": 24, "stage2": 48, "stage3": 96, "stage4": 192, "conv5": 1024, "head": 1024}
SWEEP = f"probe data {NETWORK} --layers all"
CURVE = f"probe data {NETWORK} --layers stage2,stage3 --classifier all --learning-curve"
COMPARED = "probe data --compare shufflenet_v2_x0_5,nowhere,hog --weights random --input 64"
GAPS = f"probe gaps {NETWORK} --layers stage2,head --json"
FEW = (
    f"probe few {NETWORK} -o one.fk --json",
    f"probe few {NETWORK} --layers stage2,head --report few-page --learning-curve",
    "probe few --compare hog,shufflenet_v2_x0_5 --weights random --input 64 --report few-page",
)
PICTURES = [f"data/test/{kind}/{number}.png" for kind in KINDS for number in range(12, 18)]
FOLDERS = [f"data/test/{kind}" for kind in KINDS]
WRITTEN = ("features.npz", "features.parquet", "shards")


@dataclass(frozen=True)
class Said:
    status: int
    stdout: str
    stderr: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=_no_number) for line in self.stdout.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == kind]


def _no_number(name: str) -> NoReturn:
    raise AssertionError(f"{name} in a record")


def said(lines: Sequence[str], folder: Path, cache: Path) -> dict[str, Said]:
    """What comes of each command line, one after the other by one process, in a folder."""
    program = """if True:
        import contextlib, io, json, shlex, sys
        from featkit.cli.app import run
        found = {}
        for line in json.load(sys.stdin):
            with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
                status = run(shlex.split(line))
            found[line] = status, out.getvalue(), err.getvalue()
        print(json.dumps(found))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(list(lines)).encode(),
        capture_output=True,
        cwd=folder,
        env={**os.environ, "FEATKIT_CACHE": str(cache)},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr.decode()
    return {line: Said(*answer) for line, answer in json.loads(run.stdout).items()}


@dataclass(frozen=True)
class Made:
    """folder: data/ with train/ and test/, what the command lines of `found` wrote, and the features of data/ in
    WRITTEN. cache: warm from now on."""

    folder: Path
    cache: Path
    found: dict[str, Said]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, cache = tmp_path_factory.mktemp("probe"), tmp_path_factory.mktemp("cache")
    save_textures(folder / "data" / "train", 12, size=(48, 48))
    save_textures(folder / "data" / "test", 6, first=12, size=(48, 48))
    shutil.copytree(folder / "data", folder / "gaps")
    (folder / "gaps" / "train" / "down" / "bad.png").write_bytes(b"no picture")
    (folder / "gaps" / "test" / "spots").rename(folder / "gaps" / "test" / "dots")
    save_textures(folder / "few", 1)
    lines = [
        f"{SWEEP} -o sweep.fk --report sweep --json",
        f"{SWEEP} -o again.fk --no-cache --jobs 1",
        f"probe data {NETWORK} -o head.fk --json",
        f"{CURVE} --report curve --json",
        CURVE,
        f"{COMPARED} --report compared --json",
        COMPARED,
        GAPS,
        *FEW,
        *(f"extract data -r {NETWORK} --layers all --shard-size 8 -o {name}" for name in WRITTEN),
    ]
    found = said(lines, folder, cache)
    for line, answer in found.items():
        if line not in (COMPARED, f"{COMPARED} --report compared --json", GAPS, *FEW):
            assert (answer.status, answer.stderr) == (0, "")
    return Made(folder, cache, found)


@pytest.fixture
def here(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`, where `featkit` runs, with all that is in `made.folder`; and a warm cache."""
    monkeypatch.setenv("FEATKIT_CACHE", str(made.cache))
    return shutil.copytree(made.folder, tmp_path / "here")


@pytest.fixture
def featkit(featkit: Run, here: Path) -> Run:
    """In `here`."""

    def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return featkit(*arguments, **{"cwd": here, **options})

    return run


def files_in(folder: Path) -> list[str]:
    """Names of all files, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def without_times(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def columns_of(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def spread(interval: Sequence[float]) -> str:
    return f"± {50 * (interval[1] - interval[0]):.1f}"


# --- what it prints


def test_a_record_for_each_layer(made: Made) -> None:
    """Along the network; one is chosen, on the training pictures, and is the one that is evaluated and saved."""
    answer = made.found[f"{SWEEP} -o sweep.fk --report sweep --json"]
    probes, [evaluation] = answer.of("probe"), answer.of("evaluation")

    assert {each["layer"]: each["dim"] for each in probes} == LAYERS
    assert [each["layer"] for each in probes] == list(LAYERS)
    for each in probes:
        assert list(each) == [
            *("v", "type", "features", "layer", "dim", "classifier", "setting", "validated", "accuracy", "interval"),
            *("test", "seconds", "chosen"),
        ]
        assert (each["v"], each["features"], each["classifier"]) == (1, "shufflenet_v2_x0_5", "ridge")
        assert each["test"] == 18
        assert list(each["setting"]) == ["C"]
        low, high = each["interval"]
        assert 0 <= low <= each["accuracy"] <= high <= 1
    [chosen] = [each for each in probes if each["chosen"]]
    assert chosen["validated"] == max(each["validated"] for each in probes)
    assert evaluation["accuracy"] == chosen["accuracy"] == np.trace(evaluation["confusion"]) / 18
    assert evaluation["config"]["layer"] == chosen["layer"]
    assert (evaluation["train"], evaluation["test"], evaluation["model"]) == (36, 18, "sweep.fk")
    assert set(evaluation["seconds"]) >= {"features", "classifier", "test"}
    kinds = [record["type"] for record in answer.records]
    assert kinds == ["probe"] * len(LAYERS) + ["advice"] * kinds.count("advice") + ["evaluation"]
    assert chosen["layer"] in answer.of("advice")[0]["message"]


def test_a_sweep_for_people(made: Made) -> None:
    """A table, what follows from it, and how good the chosen one is: as the records say."""
    answer = made.found[f"{SWEEP} -o sweep.fk --report sweep --json"]
    head, *lines = made.found[f"{SWEEP} -o again.fk --no-cache --jobs 1"].stdout.splitlines()

    assert columns_of(head) == ["layer", "classifier", "dims", "setting", "accuracy", "± 95 %", "validated", "fit, s"]
    for line, each in zip(lines, answer.of("probe"), strict=False):
        assert columns_of(line)[:-1] == [
            *(each["layer"], "ridge", str(each["dim"]), f"C {each['setting']['C']:.3g}"),
            *(percent(each["accuracy"]), spread(each["interval"]), percent(each["validated"])),
        ]
    advice = [each["message"] for each in answer.of("advice")]
    assert lines[len(LAYERS) : len(LAYERS) + len(advice) + 1] == [*advice, ""]
    [evaluation] = answer.of("evaluation")
    first, *classes = lines[len(LAYERS) + len(advice) + 1 :]
    low, high = map(percent, evaluation["interval"])
    accuracy = percent(evaluation["accuracy"])
    assert first == f"{accuracy} of 18 pictures right · 95 % interval {low} to {high} · 3 classes"
    recalls = {each["label"]: percent(each["recall"]) for each in evaluation["per_class"]}
    assert {tuple(columns_of(line)) for line in classes} == {(kind, f"{recalls[kind]} of 6") for kind in KINDS}


def test_one_layer_is_no_sweep(made: Made) -> None:
    """The head, by default: its probe, and no advice."""
    probe, evaluation = made.found[f"probe data {NETWORK} -o head.fk --json"].records
    assert (probe["type"], probe["layer"], probe["chosen"]) == ("probe", "head", True)
    assert evaluation["config"]["layer"] == "head"


def test_all_classifiers_and_a_learning_curve(made: Made) -> None:
    answer = made.found[f"{CURVE} --report curve --json"]
    probes, curve = answer.of("probe"), answer.of("learning_curve")
    _, *lines = made.found[CURVE].stdout.splitlines()

    assert [(each["layer"], each["classifier"]) for each in probes] == [
        (layer, name) for layer in ("stage2", "stage3") for name in PROBES
    ]
    assert [columns_of(line)[:2] for line in lines[: len(probes)]] == [
        [each["layer"], each["classifier"]] for each in probes
    ]
    assert [columns_of(line)[3][:2] for line in lines[:4]] == ["C ", "C ", "C ", "k "]
    [chosen] = [each for each in probes if each["chosen"]]
    assert f"{chosen['layer']} with {chosen['classifier']}" in answer.of("advice")[0]["message"]

    assert [(each["per_class"], each["pictures"]) for each in curve] == [(1, 3), (2, 6), (5, 15), (10, 30), (12, 36)]
    for each in curve:
        assert list(each) == ["v", "type", "per_class", "pictures", "accuracy", "interval", "accuracies", "test"]
        assert each["accuracy"] == pytest.approx(np.mean(each["accuracies"]))
        assert each["test"] == 18
    assert curve[-1]["accuracies"] == [chosen["accuracy"]]
    start = lines.index("") + 1
    assert columns_of(lines[start]) == ["pictures a class", "in all", "draws", "accuracy", "± 95 %"]
    for line, each in zip(lines[start + 1 :], curve, strict=False):
        numbers = (each["per_class"], each["pictures"], len(each["accuracies"]))
        assert columns_of(line) == [*map(str, numbers), percent(each["accuracy"]), spread(each["interval"])]


def test_backbones_and_hog_are_compared(made: Made) -> None:
    """One that cannot be had is said, as an error and a record, and the others are compared."""
    answer, lines = made.found[f"{COMPARED} --report compared --json"], made.found[COMPARED]
    first, missing, hog = answer.records

    assert missing["type"] == "error"
    assert answer.stderr == lines.stderr
    assert answer.stderr.startswith(f"featkit: error: {missing['message']}\nhint: ")
    assert "'nowhere'" in missing["message"]
    assert list(first) == list(hog)
    assert [each["type"] for each in (first, hog)] == ["comparison"] * 2
    more = ("difference", "difference_interval", "only_this", "only_first", "p")
    assert [first[name] for name in more] == [None] * 5
    assert hog["difference"] == pytest.approx(hog["accuracy"] - first["accuracy"])
    assert hog["only_this"] - hog["only_first"] == pytest.approx(18 * hog["difference"])
    assert 0 <= hog["p"] <= 1
    low, high = hog["difference_interval"]
    assert low <= hog["difference"] <= high
    for each in (first, hog):
        assert {"features", "classifier", "test"} <= set(each["seconds"])

    head, *rows = map(columns_of, lines.stdout.splitlines())
    assert head[:6] == ["features", "layer", "classifier", "dims", "accuracy", "± 95 %"]
    assert head[6:] == ["difference", "95 % of it", "p", "s"]
    assert rows[0][:-1] == [
        *("shufflenet_v2_x0_5", "head", "ridge", "1024", percent(first["accuracy"]), spread(first["interval"])),
        *("–", "–", "–"),
    ]
    assert rows[1][:-1] == [
        *("hog", "–", "svm", str(hog["dim"]), percent(hog["accuracy"]), spread(hog["interval"])),
        *(f"{100 * hog['difference']:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}", f"{hog['p']:.2g}"),
    ]
    assert len(rows) == 2


PAGE = ["confusion.png", "index.html", "map-pca.png", "map-tsne.png", "mistakes.png"]


@pytest.mark.parametrize(
    ("name", "figures", "headings"),
    [
        ("sweep", ["layers.png"], ["Layers", "Accuracy along the network"]),
        ("curve", ["layers.png", "learning-curve.png"], ["Learning curve", "Accuracy by pictures a class"]),
        ("compared", ["comparison.png"], ["Comparison"]),
    ],
)
def test_the_report(made: Made, name: str, figures: list[str], headings: list[str]) -> None:
    page = made.folder / name
    found = files_in(page)
    assert set(found) - set(PAGE) == set(figures)
    assert set(PAGE) - set(found) <= {"mistakes.png"}  # of which there may be none
    text = (page / "index.html").read_text(encoding="utf-8")
    for figure in figures:
        assert b64encode((page / figure).read_bytes()).decode() in text
        with Image.open(page / figure) as picture:
            assert min(picture.size) > 100
    assert all(f">{heading}<" in text for heading in headings)
    assert "<title>data: shufflenet_v2_x0_5 " in text
    assert '<th scope="row">features</th><td>shufflenet_v2_x0_5</td>' in text
    [told] = [answer for line, answer in made.found.items() if f"--report {name} " in line]
    assert all(each["message"] in text for each in told.of("advice"))


def test_always_the_same(made: Made) -> None:
    """Without a cache, and with another number of workers: the same model to the byte."""
    assert (made.folder / "again.fk").read_bytes() == (made.folder / "sweep.fk").read_bytes()


# --- what is saved


def test_a_saved_head_says_the_same_elsewhere(made: Made, featkit: Run) -> None:
    """In other processes: of pictures, decoded and computed again; of features that were made by yet another."""
    [evaluation] = made.found[f"probe data {NETWORK} -o head.fk --json"].of("evaluation")

    of_pictures = featkit("predict", "head.fk", *FOLDERS, "--json", "--no-cache")
    of_features = featkit("predict", "head.fk", "--from", "features.npz", "--json")
    tested = [
        featkit("evaluate", "head.fk", *data, "--json")
        for data in (["data"], ["--from", "shards"], ["data", "--from", "shards"])
    ]

    assert [run.returncode for run in (of_pictures, of_features, *tested)] == [0] * 5
    predictions = records_of(of_pictures)
    assert [each["path"] for each in predictions] == PICTURES
    by_path = {each["path"]: each for each in records_of(of_features)}
    confusion = np.zeros((3, 3), int)
    for each in predictions:
        label = evaluation["classes"].index(each["path"].split("/")[2])
        confusion[label, evaluation["classes"].index(each["label"])] += 1
        assert by_path[each["path"]]["label"] == each["label"]
        assert by_path[each["path"]]["score"] == pytest.approx(each["score"], abs=1e-4)
    assert confusion.tolist() == evaluation["confusion"]
    for run in tested:
        [record] = records_of(run)
        for name in ("accuracy", "interval", "test", "classes", "confusion", "per_class", "config"):
            assert record[name] == evaluation[name]


def test_a_model_on_stdout(here: Path, featkit: Run) -> None:
    """The same bytes as into a file; what else is said is on stderr, or nowhere."""
    loud = featkit("probe", "--from", "features.npz", "-o", "-")
    quiet = featkit("probe", "--from", "features.npz", "-o", "-", "--quiet")
    featkit("probe", "--from", "features.npz", "-o", "file.fk")

    assert loud.returncode == quiet.returncode == 0
    assert loud.stdout == quiet.stdout == (here / "file.fk").read_bytes()
    assert loud.stderr.decode().startswith("layer ")
    assert "of 18 pictures right" in loud.stderr.decode()
    assert quiet.stderr == b""


# --- features in place of pictures


@pytest.mark.parametrize("name", WRITTEN)
def test_features_in_place_of_pictures(made: Made, here: Path, featkit: Run, name: str) -> None:
    """The labels by the folders' names, by the data, where they have moved to, and by a table: as of the pictures."""
    rows = [f"{path},{path.parts[2]},{path.parts[1]}" for path in _by_number(here)]
    (here / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    lines = [
        f"probe {data} --from {name} -o {place}.fk --json"
        for place, data in enumerate(["", "data", "labels.csv", "moved"])
    ]
    found = said(lines[:3], here, made.cache)
    (here / "data").rename(here / "moved")
    found |= said(lines[3:], here, made.cache)

    expected = made.found[f"{SWEEP} -o sweep.fk --report sweep --json"].records
    for place, line in enumerate(lines):
        assert (found[line].status, found[line].stderr) == (0, "")
        expected[-1]["model"] = f"{place}.fk"
        assert without_times(found[line].records) == without_times(expected)
        assert (here / f"{place}.fk").read_bytes() == (here / "sweep.fk").read_bytes()


def _by_number(folder: Path) -> list[Path]:
    paths = [path.relative_to(folder) for path in (folder / "data").glob("*/*/*.png")]
    return sorted(paths, key=lambda path: (path.parts[:3], int(path.stem)))


def test_nothing_of_a_network_is_loaded_for_features(here: Path) -> None:
    program = """if True:
        import sys
        from featkit.cli.app import run
        status = run(["probe", "--from", "features.npz", "-o", "from.fk", "--layers", "stage2, head"])
        assert status == 0 and not {"torch", "torchvision", "sklearn", "matplotlib"} & set(sys.modules)
    """
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, cwd=here)
    assert (run.returncode, run.stderr) == (0, b"")
    lines = run.stdout.decode().splitlines()
    assert [columns_of(line)[0] for line in lines[:3]] == ["layer", "stage2", "head"]


def test_some_features_are_missing(here: Path, featkit: Run) -> None:
    """Those of pictures that came later, and of one that could not be read: said one by one, and left out."""
    save_textures(here / "data" / "train", 1, first=90)
    (here / "data" / "train" / "down" / "91.png").write_bytes(b"no picture")
    featkit("extract", "data/train", "-r", "--features", "hog", "--size", "32", "-o", "some.npz", "--quiet")
    save_textures(here / "data" / "train", 1, first=99)

    run = featkit("probe", "data/train", "--from", "some.npz", "--json")

    assert run.returncode == SOME_FAILED
    probe, *errors, evaluation = records_of(run)
    assert [each["path"] for each in errors] == [
        *(f"data/train/{kind}/99.png" for kind in KINDS),
        "data/train/down/91.png",
    ]
    assert (probe["layer"], evaluation["train"] + evaluation["test"]) == ("hog", 39)
    assert evaluation["config"]["features"] == "hog"
    assert complaint_of(run).count("featkit: error: ") == 4


# --- strange data


def test_what_cannot_be_used_is_said(made: Made) -> None:
    """Pictures that cannot be read, and a class that was never learned."""
    answer = made.found[GAPS]

    assert answer.status == SOME_FAILED
    errors, [evaluation] = answer.of("error"), answer.of("evaluation")
    assert sorted(each["path"] for each in errors) == [
        *(f"gaps/test/dots/{number}.png" for number in range(12, 18)),
        "gaps/train/down/bad.png",
    ]
    assert answer.stderr.count("featkit: error: ") == 7
    assert (evaluation["train"], evaluation["test"]) == (36, 12)


def test_nothing_to_test_on(made: Made) -> None:
    """One picture a class: what there is to learn is learned, and what was asked besides is said not to be done."""
    one, asked, compared = (made.found[line] for line in FEW)

    assert one.status == 0
    [probe] = one.records
    assert (probe["accuracy"], probe["interval"], probe["test"]) == (None, None, 0)
    assert (made.folder / "one.fk").exists()
    assert one.stderr.count("has one picture: it is learned from, and not tested") == 3
    assert asked.status == compared.status == SOME_FAILED
    said_last = [each.stderr.splitlines()[-1].split(": ", 2)[2] for each in (asked, compared)]
    assert said_last == [
        "not done, as there is nothing to test on: --report, --learning-curve",
        "not done, as there is nothing to test on: --report, --compare",
    ]
    assert [columns_of(line)[4:6] for line in asked.stdout.splitlines()[1:3]] == [["–", "–"]] * 2
    assert [columns_of(line)[4:6] for line in compared.stdout.splitlines()[1:3]] == [["–", "–"]] * 2
    assert not (made.folder / "few-page").exists()


def test_names_of_every_kind(here: Path, featkit: Run) -> None:
    """Of classes, pictures and files: spaces, other scripts, a line end, bytes that are not UTF-8."""
    names = {"across": "a cross", "down": "вниз 下", "spots": os.fsdecode(b"sp\nots\xff")}
    for part in ("train", "test"):
        for kind, name in names.items():
            try:
                (here / "data" / part / kind).rename(here / "data" / part / name)
            except OSError:
                pytest.skip("this file system takes UTF-8 alone")
    (here / "data").rename(here / "the data")
    strange = os.fsdecode(b"a\nb\xff.npz")
    hog = ("--features", "hog", "--size", "32", "--quiet")
    assert featkit("extract", "the data", "-r", *hog, "-o", strange).returncode == 0

    for data in (["the data"], []):
        run = featkit("probe", *data, "--from", strange, "-o", "a model.fk", "--force", "--json")
        assert (run.returncode, run.stderr) == (0, b"")
        assert sorted(records_of(run)[-1]["classes"]) == sorted(names.values())
    lines = featkit("probe", "--from", strange, "--report", "a page").stdout.decode().splitlines()
    assert sorted(columns_of(line)[0] for line in lines[1:]) == ["a cross", r"sp\nots\xff", "вниз 下"]
    labels = {each["label"] for each in records_of(featkit("predict", "a model.fk", "--from", strange, "--json"))}
    assert labels <= set(names.values())


def test_weights_that_are_nowhere(here: Path, featkit: Run) -> None:
    """Not in the folder of weights, and no network: the error names the file, and a way out; the others go on."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    before = set(files_in(here))

    run = featkit("probe", "data", "--compare", "resnet50,hog", "--json", TORCH_HOME=str(here / "empty"), **proxies)

    [error, hog] = records_of(run)
    assert run.returncode == SOME_FAILED
    assert (error["type"], error["code"], hog["features"]) == ("error", "dependency", "hog")
    assert "the weights resnet50-" in error["message"]
    assert "cannot be downloaded" in error["message"]
    assert "--weights FILE" in error["hint"]
    assert "lite0" in error["hint"]
    assert all(name.startswith("empty") for name in set(files_in(here)) - before)
    assert not list((here / "empty").rglob("*.pth*"))


def test_weights_of_torchvision(here: Path, featkit: Run, shared_data: Path) -> None:
    run = featkit("probe", "data", "--backbone", "squeezenet1_0", "--json", TORCH_HOME=str(shared_data / "torch"))
    assert (run.returncode, run.stderr) == (0, b"")
    probe, evaluation = records_of(run)
    assert (probe["features"], probe["dim"]) == ("squeezenet1_0", 512)
    assert evaluation["accuracy"] > 0.6


# --- what is refused

STRANGE = {
    # Nothing to learn from, or what is none.
    "probe": "there is nothing to learn from",
    "probe nowhere": "nowhere: there is no such folder or CSV file",
    "probe empty": "empty: there is no class folder with pictures in it",
    "probe classes": "classes: there is no class folder with pictures in it",
    "probe data/train/down/1.png": "data/train/down/1.png: this is neither a folder nor a CSV file",
    "probe one": "there is one class, 'down', and it takes two or more",
    f"probe damaged {NETWORK}": "there is no picture to learn from; damaged/across/0.png: ",
    "probe damaged --compare hog,patches": "there is no picture to learn from; damaged/across/0.png: ",
    "probe paths.csv": "paths.csv: the first line does not name the columns path and label",
    "probe head.fk": "head.fk: this is neither a folder nor a CSV file",
    "probe features.npz": "features.npz: these are features, and not labelled pictures",
    "probe shards": "shards: these are features, and not labelled pictures",
    "probe data data": "unexpected extra argument",
    "probe data --test nowhere": "nowhere: there is no such folder or CSV file",
    "probe data --test strangers": "none of the classes to test on is one to learn: 'fish' is not 'across'",
    f"probe data {NETWORK} --max-pixels 10": "are more than the limit of 10",
    # Features.
    "probe --from nowhere.npz": "nowhere.npz: there is no such file",
    "probe --from data": "data: this holds no features of featkit",
    "probe --from head.fk": "head.fk: there is no format 'fk' for features",
    "probe --from foreign.npz": "foreign.npz: this holds no features of featkit",
    "probe --from damaged.npz": "damaged.npz: ",
    "probe --from keypoints.npz": "keypoints.npz: these are keypoints, any number a picture",
    "probe --from flat.npz": "all pictures are in one folder, data/train/down",
    "probe data --from flat.npz": "flat.npz: none of the pictures of test is among those with features",
    "probe --from features.npz --test features.npz": "features.npz: these are features, and not labelled pictures",
    "probe --from features.npz --hold-out 0.3": "--hold-out is for data of which no part is named to test on",
    "probe --from features.npz --layers hed": "features.npz: there are no vectors 'hed' in these features",
    "probe --from features.npz --layers head,head": "layers are named once each",
    "probe --from features.npz --layers all,head": "--layers all names them all",
    "probe --from features.npz --layers ,": "a name is missing in ','",
    "probe --from features.npz --backbone lite0": "--backbone is about networks, and --from brings what one has made",
    "probe --from features.npz --input 64": "--input is about networks",
    "probe --from features.npz --pool max": "--pool is about networks",
    "probe --from features.npz --normalize": "--normalize is about networks",
    "probe --from features.npz --weights random": "--weights is about networks",
    "probe --from features.npz --device cpu": "--device is about networks",
    "probe --from features.npz --flip on": "--flip is about pictures, and --from brings what was made of them",
    "probe --from features.npz --compare hog,lite0": "--compare is about pictures, and --from has none",
    # Networks.
    "probe data --backbone shufflenet_v2_x0_6": "there is no backbone 'shufflenet_v2_x0_6'",
    "probe data --backbone timm:nowhere": "timm has no network 'nowhere'",
    "probe data --backbone shufflenet_v2_x0_5 --weights gone.pth": "gone.pth: there is no such file",
    "probe data --backbone shufflenet_v2_x0_5 --weights head.fk": "head.fk: no weights can be read from it",
    "probe data --backbone shufflenet_v2_x0_5 --weights data": "data: this is a folder, not a file of weights",
    f"probe data {NETWORK} --layers stge2": "there is no layer 'stge2'",
    f"probe data {NETWORK} --layers head,head": "layers are named once each",
    f"probe data {NETWORK} --layers head,": "a name is missing in 'head,'",
    f"probe data {NETWORK} --layers {'long' * 200}": "there is no layer 'longlong",
    f"probe data {NETWORK} --pool mean": "there is no pooling 'mean'",
    "probe data --input big": "--input takes one whole number, or three, not 'big'",
    "probe data --input 0": "--input is a picture of 3 channels",
    "probe data --device tpu": "there is no device 'tpu'",
    # Heads.
    "probe data --classifier tree": "there is no classifier 'tree' of probes",
    "probe data --classifier mlp": "there is no classifier 'mlp' of probes",
    "probe data --C 2 --classifier knn": "the classifier knn has no C",
    "probe data --C much": "--C is a positive number or auto, not 'much'",
    "probe data --C 0": "C is a positive number or auto, not 0.0",
    "probe data --neighbours 3": "the classifier ridge has no number of neighbours",
    "probe data --neighbours x --classifier knn": "--neighbours is a whole number or auto, not 'x'",
    "probe data --neighbours 0 --classifier knn": "1 to 10000 neighbours vote, or auto, not 0",
    "probe data --class-weight heavy": "--class-weight knows no 'heavy'",
    "probe data --flip maybe": "--flip knows no 'maybe'",
    "probe data --seed -1": "the seed is -1",
    "probe data --seed x": "'x' is not a valid int",
    "probe data --jobs 0": "--jobs must be at least 1",
    "probe data --hold-out 0.2": "--hold-out is for data of which no part is named to test on",
    "probe data/train --test data/test --hold-out 0.2": "--hold-out is for data of which no part is named to test on",
    "probe data/train --hold-out 1": "the share to hold out is 1",
    "probe data --clasifier svm": "no such option: --clasifier",
    # Several backbones.
    "probe data --compare lite0": "two or more different backbones are compared",
    "probe data --compare hog,hog": "two or more different backbones are compared",
    "probe data --compare hog,": "a name is missing in 'hog,'",
    "probe data --compare nowhere,nor-there": "there is no backbone 'nor-there'",
    "probe data --compare hog,lite0 -o new.fk": "-o is about one backbone, and --compare about several",
    "probe data --compare hog,lite0 --backbone lite0": "--backbone is about one backbone",
    "probe data --compare hog,lite0 --learning-curve": "--learning-curve is about one backbone",
    "probe data --compare hog,lite0 --weights w.pth": "--weights is about one backbone",
    "probe data --compare hog,lite0 --layers head,all": "--layers all names them all",
    # Files.
    "probe data -o": "option '-o' requires an argument",
    "probe data -o nowhere/m.fk": "nowhere/m.fk: there is no folder nowhere",
    "probe data -o empty": "empty: names a folder",
    "probe data -o head.fk": "head.fk: exists already",
    "probe data -o - --json": "-o - and --json both want stdout",
    "probe data -o data/train/down/1.png --force": "data/train/down/1.png: a file that is read would be overwritten",
    "probe table.csv -o table.csv --force": "table.csv: a file that is read would be overwritten",
    "probe data --weights w.pth -o w.pth --force": "w.pth: a file that is read would be overwritten",
    "probe --from features.npz -o ./features.npz --force": "features.npz: a file that is read would be overwritten",
    "probe --from flat.npy -o flat.index.jsonl --force": "flat.index.jsonl: a file that is read would be overwritten",
    "probe --from shards -o shards/manifest.json --force": "manifest.json: a file that is read would be overwritten",
    "probe data --report head.fk": "head.fk: is a file, not a folder",
    "probe data --report nowhere/page": "nowhere/page: there is no folder nowhere",
    "probe data --report sweep": "sweep/index.html: exists already",
    "probe data --report data/page": "data/page: a report among the pictures would be taken for pictures itself",
    "probe . --report page": "page: a report among the pictures would be taken for pictures itself",
    "classify data --report data/page": "data/page: a report among the pictures would be taken for pictures itself",
    "evaluate head.fk data --report data/page": "data/page: a report among the pictures would be taken for pictures",
    # Other commands, with what is of this one.
    "predict features.npz data/test/down": "features.npz: this is no model of featkit",
    "predict head.fk --from hog.npz": "hog.npz: the head was trained on shufflenet_v2_x0_5, weights random 0, layer",
    "evaluate head.fk --from hog.npz": "; these are features of hog",
    "predict head.fk data/test/down --weights gone.pth": "gone.pth: there is no such file",
    "predict edited.fk data/test/down": "edited.fk: ",
}
#: What is missing needs no hint.
PLAIN = ("there is no such f", "this is a folder")


@pytest.fixture(scope="session")
def refusals(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Of every strange command line, tried one after the other by one process: exit status, stderr, files made."""
    folder = tmp_path_factory.mktemp("strange") / "here"
    shutil.copytree(made.folder, folder)
    (folder / "empty").mkdir()
    (folder / "classes" / "one").mkdir(parents=True)
    shutil.copytree(folder / "data" / "train" / "down", folder / "one" / "down")
    shutil.copytree(folder / "data" / "train" / "down", folder / "strangers" / "fish")
    shutil.copytree(folder / "data" / "train", folder / "damaged")
    for path in (folder / "damaged").glob("*/*"):
        path.write_bytes(b"no picture")
    (folder / "paths.csv").write_text("path\ndata/train/down/1.png\n")
    rows = [f"data/train/{kind}/{number}.png,{kind}\n" for kind in KINDS for number in range(3)]
    (folder / "table.csv").write_text("".join(["path,label\n", *rows]))
    (folder / "w.pth").touch()
    np.savez(folder / "foreign.npz", head=np.zeros((2, 3)))
    data = bytearray((folder / "features.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "damaged.npz").write_bytes(data)
    model = bytearray((folder / "head.fk").read_bytes())
    model[-1000] ^= 1
    (folder / "edited.fk").write_bytes(model)
    makes = [
        "extract data/train -r --features orb -o keypoints.npz",
        "extract data/train/down --features hog -o flat.npz",
        "extract data/train/down --features hog -o flat.npy",
        "extract data/test -r --features hog -o hog.npz",
    ]
    assert [each.status for each in said(makes, folder, made.cache).values()] == [0] * 4
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = tried(list(STRANGE), folder, made.cache)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return found


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(refusals: dict[str, Refusal], arguments: str) -> None:
    status, errors, made = refusals[arguments]

    assert status == 2
    *messages, hint = errors.splitlines()
    if any(words in hint for words in PLAIN):
        messages, hint = [hint], "hint: "
    message = messages[-1]
    assert message.startswith("featkit: error: ")
    assert STRANGE[arguments] in message
    assert hint.startswith("hint: ")
    assert made == []


def test_hints_name_what_there_is(refusals: dict[str, Refusal]) -> None:
    for arguments, hint in {
        f"probe data {NETWORK} --layers stge2": "did you mean stage2",
        "probe data --backbone shufflenet_v2_x0_6": "did you mean shufflenet_v2_x0_5",
        "probe --from features.npz --layers hed": f"there are: {', '.join(LAYERS)}",
        "probe data --classifier tree": f"there are: {', '.join(PROBES)}, all",
        "probe features.npz": "features come by --from FEATURES",
        "probe": "featkit probe photos/, or --from features.npz",
    }.items():
        assert refusals[arguments][1].splitlines()[-1].startswith(f"hint: {hint}")


def test_of_several_backbones_none_can_be_had(refusals: dict[str, Refusal]) -> None:
    _, errors, _ = refusals["probe data --compare nowhere,nor-there"]
    assert re.findall("no backbone '(.*?)'", errors) == ["nowhere", "nor-there"]


def test_a_refusal_is_a_record_too(here: Path, featkit: Run) -> None:
    run = featkit("probe", "--from", "features.npz", "--layers", "hed", "--json")

    [record] = records_of(run)
    assert run.returncode == 2
    assert (record["type"], record["path"], record["code"]) == ("error", "features.npz", "usage")
    complaint_of(run)


def test_the_help_tells_the_choices(featkit: Run) -> None:
    text = " ".join(featkit("probe", "--help", COLUMNS="300").stdout.decode().split())
    for name in (*PROBES, "all", "auto", "on|off", "none", "balanced", NetworkConfig().backbone, "hog", "patches"):
        assert name in text
    assert f"{ProbeConfig().classifier} (default" in text


def test_only_with_force(here: Path, featkit: Run) -> None:
    """A model and a page that are there already; with it, both are new."""
    (here / "old.fk").write_bytes(b"precious")
    options = ["--from", "features.npz", "--layers", "head", "-o", "old.fk", "--report", "sweep"]
    assert featkit("probe", *options).returncode == 2
    assert (here / "old.fk").read_bytes() == b"precious"
    assert featkit("probe", *options, "--force").returncode == 0
    assert (here / "old.fk").read_bytes().startswith(b"featkit-model")
    assert "layers.png" not in (here / "sweep" / "index.html").read_text(encoding="utf-8")


def test_a_model_beside_the_features_it_is_learned_from(here: Path, featkit: Run) -> None:
    for _ in range(2):
        assert featkit("probe", "--from", "shards", "-o", "shards/model.fk", "--force").returncode == 0
    assert featkit("predict", "shards/model.fk", "--from", "shards").returncode == 0


# --- terminals, pipes, signals, disks


def test_progress_on_a_terminal(made: Made, here: Path) -> None:
    """It is gone at the end, and results are whole lines."""
    status, shown = on_terminal(here, "probe", "data", "--compare", "hog,pixels", "--no-cache")
    _, plain = on_terminal(here, "probe", "--from", "features.npz", "--quiet", stdout="found.txt")
    refused, model = on_terminal(here, "probe", "--from", "features.npz", "-o", "-")

    assert status == 0
    assert "features" in shown
    assert re.search(r"pixels +– +svm +[^\r\n]*\r\n", shown)
    assert shown[shown.rindex("\x1b[2K") :] == "\x1b[2K"
    assert plain == ""
    assert refused == 2
    assert model.startswith("featkit: error: a model does not go onto a terminal\r\nhint: ")


@pytest.mark.parametrize("reader", ["true", "head -1"])
@pytest.mark.parametrize("options", ["-o piped.fk --report piped", "--json"])
def test_a_closed_pipe_costs_no_file(here: Path, reader: str, options: str) -> None:
    command = ["bash", "-c", f'"$@" | {reader}; exit "${{PIPESTATUS[0]}}"', "bash", *FEATKIT]
    run = subprocess.run(
        [*command, "probe", "--from", "features.npz", *options.split()], capture_output=True, cwd=here, timeout=60
    )

    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.count(b"\n") == (reader != "true")
    if "-o" in options:
        assert (here / "piped.fk").stat().st_size
        assert (here / "piped" / "index.html").exists()


def test_being_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    """Once the bar says that features are made of a network's layers."""
    _many_large(tmp_path)
    before = files_in(tmp_path)

    line = shlex.split(f"probe data {NETWORK} -o model.fk --report page")
    status, shown = _ended(tmp_path, line, signal.SIGINT)

    assert status == 130
    assert "Traceback" not in shown
    assert "featkit: interrupted" in shown
    assert _outside_cache(tmp_path) == before


def test_the_run_after_one_that_was_ended(tmp_path: Path) -> None:
    """It takes from the cache what was done, and is done."""
    _many_large(tmp_path)
    before = files_in(tmp_path)
    line = ["probe", "data", "--compare", "hog,pixels"]

    status, shown = _ended(tmp_path, line, signal.SIGTERM)

    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in shown
    assert _outside_cache(tmp_path) == before
    for path in (tmp_path / "data").glob("*/??.png"):
        path.unlink()
    again = subprocess.run([*FEATKIT, *line, "--json"], capture_output=True, cwd=tmp_path)
    assert again.returncode == 0
    assert [each["features"] for each in records_of(again)] == ["hog", "pixels"]


def _outside_cache(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if not name.startswith("cache")]


def _many_large(folder: Path) -> None:
    """Pictures of two classes, which take some seconds to read."""
    save(folder / "large.png", np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8))
    save(folder / "other.png", np.random.default_rng(1).integers(0, 90, (900, 900, 3), dtype=np.uint8))
    for kind in ("large", "other"):
        (folder / "data" / kind).mkdir(parents=True)
        for number in range(60):
            (folder / "data" / kind / f"{number}.png").symlink_to(folder / f"{kind}.png")


def _ended(folder: Path, arguments: Sequence[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal once the bar is about features: exit status, and what was shown."""
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*FEATKIT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        cwd=folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    shown = b""
    for piece in _pieces(reader):
        if b"features" in shown + piece and b"features" not in shown:
            process.send_signal(number)
        shown += piece
    os.close(reader)
    return process.wait(), shown.decode()


def _pieces(reader: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # so Linux says that the other end is closed
            return
        if not piece:
            return
        yield piece


@pytest.mark.parametrize("output", ["-o model.fk", "--report page"])
def test_a_full_disk(here: Path, featkit: Run, output: str) -> None:
    before = files_in(here)

    run = featkit("probe", "--from", "features.npz", "--layers", "head", *output.split(), largest_file=3000)

    assert run.returncode == 2
    message, hint = complaint_of(run).splitlines()
    assert "larger than this system allows" in message
    assert hint.startswith("hint: raise the limit")
    assert [name for name in files_in(here) if name not in before] in ([], ["page"])


def test_stdout_is_full(here: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [*FEATKIT, "probe", "--from", "features.npz", "-o", "m.fk"], stdout=full, stderr=subprocess.PIPE, cwd=here
        )

    assert run.returncode == 2
    assert "stdout cannot be written: No space left on device" in complaint_of(run)


@pytest.mark.parametrize("output", ["-o closed/m.fk", "--report closed/page"])
def test_a_folder_that_cannot_be_written(here: Path, featkit: Run, plain_user: list[str], output: str) -> None:
    (here / "closed").mkdir(mode=0o555)
    before = files_in(here)

    run = featkit("probe", "--from", "features.npz", *output.split(), prefix=plain_user)

    assert run.returncode == 2
    assert "closed cannot be written to" in complaint_of(run)
    assert files_in(here) == before
