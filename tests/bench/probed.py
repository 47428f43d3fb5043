"""`featkit probe` as a whole, beside scikit-learn by hand on the same features.

python -m tests.bench.probed [--data FOLDER] [--part PART …]

photos: hymenoptera, by the split that it comes with; the first time and again.
caltech: 15 classes of Caltech-101, five splits with 30 pictures of each learned from; lite0, and HOG by --compare.
cifar: 5,000 pictures of CIFAR-10 to learn from, five draws, 128 pixels a side; on 1,000 others, and on all 10,000.
heads: all classifiers on the last three of these layers; three of the draws.
sweep: seven layers in one pass, and seven passes with one each.
elsewhere: a saved head on the features that another process extracted.

All with lite0, in processes of their own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featkit.datasets import Split, read_dataset
from tests.bench.classifying import SPLITS, caltech_split, unpacked, write_table
from tests.bench.commands import FEATKIT
from tests.bench.heads import ARCHIVE
from tests.bench.report import (
    arguments,
    children_cpu_seconds,
    option_parser,
    print_environment,
    print_table,
)

PARTS = ("photos", "caltech", "cifar", "heads", "sweep", "elsewhere")
STAGES = tuple(f"blocks.{number}" for number in range(7))
LEARNED_A_CLASS, TESTED_A_CLASS, DRAWS, DRAWS_OF_HEADS = 500, 100, 5, 3
LAST = ("blocks.5", "blocks.6", "head")
REPETITIONS = 3
THEIR_C = np.logspace(-4, 0, 5)

Records = list[dict[str, Any]]


def featkit(*arguments: str, cache: Path | None = None) -> tuple[Records, float, float]:
    """What it prints with --json, and the seconds of the wall and of processors."""
    command = [FEATKIT, *arguments, "--json", "--quiet", *([] if cache else ["--no-cache"])]
    environment = {**os.environ, **({"FEATKIT_CACHE": str(cache)} if cache else {})}
    start, before = time.perf_counter(), children_cpu_seconds()
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return records, time.perf_counter() - start, children_cpu_seconds() - before


def of_type(records: Records, kind: str) -> Records:
    return [record for record in records if record["type"] == kind]


def by_hand(train: Split, test: Split, scratch: Path, cache: Path) -> float:
    """Accuracy of LogisticRegression on features to unit variance, the better of five C on the test pictures."""
    found = []
    for split in (train, test):
        names, features = scratch / "names", scratch / "features.npz"
        names.write_bytes(b"\0".join(os.fsencode(path) for path in split.paths))
        featkit("extract", "-0", "--files-from", str(names), "-o", str(features), "--force", cache=cache)
        with np.load(features) as file:
            found.append(file["head"])
    return max(
        float(
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            .fit(found[0], train.labels)
            .score(found[1], test.labels)
        )
        for c in THEIR_C
    )


def percent(accuracy: float) -> str:
    return f"{accuracy:.1%}"


# --- tables


def print_photos(data: Path) -> None:
    folder = data / "hymenoptera"
    dataset = read_dataset(str(folder))
    assert dataset.validation is not None
    with tempfile.TemporaryDirectory() as name:
        scratch, cache = Path(name), Path(name) / "cache"
        records, cold, _ = featkit("probe", str(folder), cache=cache)
        warm = [featkit("probe", str(folder), cache=cache)[1] for _ in range(REPETITIONS)]
        hand = by_hand(dataset.train, dataset.validation, scratch, cache)
    [evaluation] = of_type(records, "evaluation")
    low, high = evaluation["interval"]
    print_table(
        "hymenoptera: 244 learned from, 153 tested",
        ["accuracy", "95 % interval", "by scikit-learn, the best of 5 C", "first time, wall", "again, wall"],
        [
            [
                percent(evaluation["accuracy"]),
                f"{low:.1%} – {high:.1%}",
                percent(hand),
                f"{cold:.1f} s",
                f"{statistics.median(warm):.2f} s",
            ]
        ],
    )


def print_caltech(data: Path) -> None:
    pictures = read_dataset(str(data / "caltech15")).train
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scratch, cache = Path(name), Path(name) / "cache"
        for seed in range(SPLITS):
            train, test = caltech_split(pictures, seed)
            table = write_table(scratch / f"{seed}.csv", train, test)
            records, _, _ = featkit("probe", str(table), "--compare", "lite0,hog", cache=cache)
            lite, hog = of_type(records, "comparison")
            hand = by_hand(train, test, scratch, cache)
            rows.append([lite["accuracy"], hand, hog["accuracy"], hog["p"]])
    ours, hand, hog, p = zip(*rows, strict=True)
    print_table(
        f"15 classes of Caltech-101, 30 pictures of each learned from; splits: {SPLITS}",
        ["by", "accuracy, mean", "of the splits", "p beside lite0, at most"],
        [
            ["`featkit probe`, lite0", percent(statistics.mean(ours)), _range(ours), ""],
            ["scikit-learn on the same features, the best of 5 C", percent(statistics.mean(hand)), _range(hand), ""],
            ["`--compare`: HOG, PCA, SVM", percent(statistics.mean(hog)), _range(hog), f"{max(p):.1g}"],
        ],
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1%} – {max(values):.1%}"


def print_cifar(data: Path) -> None:
    """Draws: of other pictures each, from those that CIFAR-10 has to learn from, and to test on."""
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch, cache = Path(name), Path(name) / "cache"
        dataset = read_dataset(str(unpacked(data / ARCHIVE, scratch)))
        assert dataset.test is not None
        for seed in range(DRAWS):
            train = _drawn(dataset.train, LEARNED_A_CLASS, seed)
            for test in (_drawn(dataset.test, TESTED_A_CLASS, seed), dataset.test):
                table = write_table(scratch / "table.csv", train, test)
                records, _, _ = featkit("probe", str(table), "--input", "128", "--layers", "all", cache=cache)
                [evaluation] = of_type(records, "evaluation")
                for probe in of_type(records, "probe"):
                    found.setdefault(probe["layer"], []).append([probe["accuracy"], probe["validated"]])
                found.setdefault("chosen by validation", []).append([evaluation["accuracy"], np.nan])
    rows = []
    for layer, values in found.items():
        few, many = np.array(values[::2]), np.array(values[1::2])
        validated = "" if np.isnan(many[0, 1]) else percent(many[:, 1].mean())
        rows.append([layer, percent(few[:, 0].mean()), _range(few[:, 0]), percent(many[:, 0].mean()), validated])
    columns = ["layer", "1,000 tested, mean", "of the draws", "10,000 tested, mean", "validated, mean"]
    print_table(f"CIFAR-10: 5,000 learned from, draws: {DRAWS}", columns, rows)


def print_heads(data: Path) -> None:
    """Of the same draws; the time is that of learning with the choice of a setting."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch, cache = Path(name), Path(name) / "cache"
        dataset = read_dataset(str(unpacked(data / ARCHIVE, scratch)))
        assert dataset.test is not None
        for seed in range(DRAWS_OF_HEADS):
            splits = _drawn(dataset.train, LEARNED_A_CLASS, seed), _drawn(dataset.test, TESTED_A_CLASS, seed)
            table = write_table(scratch / "table.csv", *splits)
            options = ("--input", "128", "--layers", ",".join(LAST), "--classifier", "all")
            for probe in of_type(featkit("probe", str(table), *options, cache=cache)[0], "probe"):
                values = [probe["accuracy"], probe["validated"], probe["seconds"]["classifier"]]
                found.setdefault((probe["layer"], probe["classifier"]), []).append(values)
    rows = []
    for (layer, classifier), values in found.items():
        accuracy, validated, seconds = np.mean(values, axis=0)
        rows.append([layer, classifier, percent(accuracy), percent(validated), f"{seconds:.1f} s"])
    columns = ["layer", "classifier", "1,000 tested, mean", "validated, mean", "learning, wall"]
    print_table(f"CIFAR-10: 5,000 learned from, draws: {DRAWS_OF_HEADS}", columns, rows)


def _drawn(split: Split, count: int, seed: int) -> Split:
    """So many of each class."""
    random, labels = np.random.default_rng(seed), np.array(split.labels)
    rows = [random.permutation(np.flatnonzero(labels == label))[:count] for label in np.unique(labels)]
    chosen = np.sort(np.concatenate(rows))
    return Split(tuple(split.paths[row] for row in chosen), tuple(split.labels[row] for row in chosen))


def print_sweep(data: Path) -> None:
    folder = str(data / "hymenoptera")
    with tempfile.TemporaryDirectory() as name:
        target = str(Path(name) / "features.npz")

        def apart() -> Iterator[tuple[float, float]]:
            for layer in STAGES:
                yield featkit("extract", folder, "-r", "--layers", layer, "-o", target, "--force")[1:]

        def sums(work: Callable[[], Iterator[tuple[float, float]]]) -> np.ndarray:
            return np.sum(list(work()), axis=0)

        ours, theirs = [], []
        for _ in range(REPETITIONS):
            ours.append(featkit("probe", folder, "--layers", ",".join(STAGES))[1:])
            theirs.append(sums(apart))
    one, seven = np.median(ours, axis=0), np.median(theirs, axis=0)
    columns = ["by", "wall", "CPU", "wall, relative", "CPU, relative"]
    print_table(
        "Seven layers of 397 photos, nothing in the cache",
        columns,
        [
            ["`featkit extract`, a layer at a time", f"{seven[0]:.0f} s", f"{seven[1]:.0f} s", "1", "1"],
            [
                "`featkit probe --layers`, with the heads",
                f"{one[0]:.0f} s",
                f"{one[1]:.0f} s",
                f"{seven[0] / one[0]:.1f} times faster",
                f"{seven[1] / one[1]:.1f} times less",
            ],
        ],
    )


def print_elsewhere(data: Path) -> None:
    folder = data / "hymenoptera"
    with tempfile.TemporaryDirectory() as name:
        model, features = Path(name) / "head.fk", Path(name) / "features.parquet"
        featkit("probe", str(folder), "-o", str(model))
        featkit("extract", str(folder / "val"), "-r", "-o", str(features))
        by_pictures, _, _ = featkit("predict", str(model), str(folder / "val"), "-r")
        by_features, _, _ = featkit("predict", str(model), "--from", str(features))
    same = sum(one["label"] == other["label"] for one, other in zip(by_pictures, by_features, strict=True))
    apart = max(abs(one["score"] - other["score"]) for one, other in zip(by_pictures, by_features, strict=True))
    print_table(
        "A saved head, on pictures and on features of another process",
        ["pictures", "same label", "scores apart by at most"],
        [[str(len(by_pictures)), str(same), f"{apart:.1g}"]],
    )


def main(data: Path, parts: Sequence[str] = PARTS) -> None:
    for part in parts:
        _PRINT[part](data)


_PRINT: dict[str, Callable[[Path], None]] = {
    "photos": print_photos,
    "caltech": print_caltech,
    "cifar": print_cifar,
    "heads": print_heads,
    "sweep": print_sweep,
    "elsewhere": print_elsewhere,
}

if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    given = arguments(parser)
    print_environment()
    main(given.data, given.part)
