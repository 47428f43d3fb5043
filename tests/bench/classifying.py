"""`featkit classify` as a whole, beside scikit-image and scikit-learn by hand: CIFAR-10, and 15 classes of Caltech-101.

python -m tests.bench.classifying [--data FOLDER] [--only ROW …] [--by-hand] [--quick SHARE] [--scratch FOLDER]

The folder holds cifar10.tar.gz and caltech15/. Each run starts with an empty cache, and takes one thread for matrix
products. --quick takes that share of CIFAR-10 and of the splits of Caltech-101; of CIFAR-10 it tests on training
pictures, so that nothing is chosen by those which are for the end. --by-hand adds that row for CIFAR-10, of minutes.
--scratch keeps the unpacked pictures for the next time.
"""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.decomposition import PCA
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from featkit.cache import open_cache
from featkit.datasets import Split, hold_out, read_dataset
from featkit.extraction.engine import extract
from featkit.images import DecodeOptions
from featkit.learning.evaluation import Evaluation, evaluate
from featkit.learning.model import load_model
from tests.bench.commands import FEATKIT
from tests.bench.heads import ARCHIVE
from tests.bench.hog_rate import Pixels, by_skimage
from tests.bench.memory import peak_megabytes
from tests.bench.report import children_cpu_seconds, median_cpu_seconds, option_parser, print_table

CIFAR: dict[str, tuple[str, ...]] = {
    "linear-svm": ("--classifier", "linear-svm"),
    "svm": (),
    "mlp": ("--classifier", "mlp", "--flip", "on"),
    "patches-svm": ("--features", "hog+patches"),
    "patches-mlp": ("--features", "hog+patches", "--classifier", "mlp", "--flip", "on"),
}
CALTECH: tuple[tuple[str, ...], ...] = ((), ("--flip", "on"))
ROWS = (*CIFAR, "caltech")
SPLITS, LEARNED_A_CLASS, SIDE = 5, 30, 128
COMPONENTS, C = 200, 10
BY_HAND = f"scikit-image's HOG, `PCA({COMPONENTS})`, `SVC(C={C})`"
# As in CIFAR-10, one of six pictures is tested on; the others of a share of all have to be training pictures.
_TESTED = 1 / 6
_LARGEST_QUICK = 0.8
# Pictures that the classifier alone is timed with.
_SCORED = 1000
_REPETITIONS = 3
_POLL_S = 0.05
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


# --- runs


@dataclass(frozen=True)
class Run:
    """A whole process. evaluation: the record, if there is one. peak: megabytes."""

    evaluation: dict[str, Any] | None
    status: int
    cpu_seconds: float
    peak: float


def run(subcommand: str, *options: str, cache: Path | None = None) -> Run:
    """featkit, with a cache of its own or none."""
    command = [FEATKIT, subcommand, *options, "--json", "--quiet", *([] if cache else ["--no-cache"])]
    environment = {**os.environ, **_ONE_THREAD, **({"FEATKIT_CACHE": str(cache)} if cache else {})}
    before, peak = children_cpu_seconds(), 0.0
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(command, stdout=output, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, peak_megabytes(process))
                time.sleep(_POLL_S)
        output.seek(0)
        records = [json.loads(line) for line in output]
    evaluation = next((record for record in records if record["type"] == "evaluation"), None)
    return Run(evaluation, process.returncode, children_cpu_seconds() - before, peak)


@dataclass(frozen=True)
class ByHand:
    """What a script of scikit-image and scikit-learn does. seconds: of the wall, of features, reduction and classifier.
    cpu_seconds: of all, with the labels of the tested. predict_seconds: CPU from features to these labels."""

    evaluation: Evaluation
    seconds: tuple[float, float, float]
    cpu_seconds: float
    predict_seconds: float


def by_hand(train: Split, test: Split, read: Callable[[str], Pixels]) -> ByHand:
    """read: a picture of one channel or three."""
    laps = [(time.perf_counter(), time.process_time())]
    with threadpool_limits(1):
        vectors = [by_skimage(np.stack([read(path) for path in split.paths])) for split in (train, test)]
        laps.append((time.perf_counter(), time.process_time()))
        pca = PCA(COMPONENTS, random_state=0).fit(vectors[0])
        reduced = pca.transform(vectors[0])
        laps.append((time.perf_counter(), time.process_time()))
        classes = sorted(set(train.labels))
        learned, truth = (np.array([classes.index(label) for label in split.labels]) for split in (train, test))
        svc = SVC(C=C).fit(reduced, learned)
        laps.append((time.perf_counter(), time.process_time()))
        predicted = svc.predict(pca.transform(vectors[1]))
        laps.append((time.perf_counter(), time.process_time()))
    evaluation = evaluate(classes, test.paths, truth, np.eye(len(classes))[predicted])
    wall, cpu = np.diff(laps, axis=0).T
    return ByHand(evaluation, tuple(wall[:3]), float(cpu.sum()), float(cpu[3]))


# --- CIFAR-10


def unpacked(archive: Path, scratch: Path) -> Path:
    """The folder with train/ and test/, from the last time if there was one."""
    folder, partial = scratch / "cifar10", scratch / "cifar10.partial"
    if not folder.is_dir():
        with tarfile.open(archive) as members:
            members.extractall(partial, filter="data")
        partial.rename(folder)
    return folder


def share_of_training(folder: Path, share: float, scratch: Path) -> Path:
    """A table with that share of six sixths, all of them training pictures."""
    train = read_dataset(str(folder)).train
    _, part = hold_out(train, share / (1 - _TESTED), seed=0)
    return write_table(scratch / "quick.csv", *hold_out(part, _TESTED, seed=0))


def write_table(name: Path, train: Split, test: Split) -> Path:
    with name.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label", "split"])
        for split, pictures in (("train", train), ("test", test)):
            rows.writerows(
                (Path(path).absolute(), label, split)
                for path, label in zip(pictures.paths, pictures.labels, strict=True)
            )
    return name


def scoring_ms(model: Path, test: Split) -> float:
    """CPU a picture from its features to its label, by the reduction and the classifier."""
    loaded, paths = load_model(model), test.paths[:: max(1, len(test.paths) // _SCORED)]
    cache = open_cache(False)
    maker = loaded.source.opened(count=len(paths), cache=cache, jobs=1)
    found = extract(paths, maker, mirrored=loaded.mirrored, decode=DecodeOptions(), cache=cache, jobs=1)
    views = [np.concatenate(each) for each in zip(*(rows.views for rows in found), strict=True)]
    with threadpool_limits(1):
        [seconds] = median_cpu_seconds([lambda: loaded.scores(views)], _REPETITIONS)
    return 1000 * seconds / len(paths)


def cifar_row(options: Sequence[str], data: Path) -> list[str]:
    title, test = f"`{' '.join(options)}`" if options else "defaults", read_dataset(str(data)).test
    with tempfile.TemporaryDirectory() as scratch:
        model, cache = Path(scratch) / "model.fk", Path(scratch) / "cache"
        learned = run("classify", str(data), "-o", str(model), *options, cache=cache)
        if learned.evaluation is None:
            return [title, f"exit status {learned.status}"]
        # Of the second the test's features are in the cache, and what is left is to read them, and to classify.
        again = [run("evaluate", str(model), str(data), cache=kept) for kept in (None, cache)]
        alone = scoring_ms(model, test)
    seconds = learned.evaluation["seconds"]
    return [
        title,
        *accuracy_columns(learned.evaluation["accuracy"], learned.evaluation["interval"]),
        f"{learned.cpu_seconds:.0f} s",
        *(f"{seconds[step]:.1f} s" for step in ("features", "reduction", "classifier")),
        f"{alone:.2f} ms",
        *(f"{1000 * each.cpu_seconds / len(test.paths):.2f} ms" for each in again),
        f"{max(each.peak for each in (learned, *again)):.0f} MB",
    ]


def cifar_row_by_hand(data: Path) -> list[str]:
    dataset = read_dataset(str(data))
    done = by_hand(dataset.train, dataset.test, lambda path: cv2.imread(path, cv2.IMREAD_COLOR_RGB))
    return [
        BY_HAND,
        *accuracy_columns(done.evaluation.accuracy, done.evaluation.interval),
        f"{done.cpu_seconds:.0f} s",
        *(f"{each:.1f} s" for each in done.seconds),
        f"{1000 * done.predict_seconds / len(dataset.test.paths):.2f} ms",
        *("–" for _ in range(3)),
    ]


def cifar_rows(data: Path, rows: Sequence[str], hand: bool) -> Iterator[list[str]]:
    if hand:
        yield cifar_row_by_hand(data)
    for name, options in CIFAR.items():
        if name in rows:
            yield cifar_row(options, data)


def accuracy_columns(accuracy: float, interval: Sequence[float]) -> list[str]:
    return [f"{accuracy:.2%}", f"{interval[0]:.1%} – {interval[1]:.1%}"]


# --- Caltech-101


def caltech_split(pictures: Split, seed: int) -> tuple[Split, Split]:
    """30 of each class, and the others."""
    random, labels = np.random.default_rng(seed), np.array(pictures.labels)
    learned = np.concatenate(
        [random.permutation(np.flatnonzero(labels == label))[:LEARNED_A_CLASS] for label in np.unique(labels)]
    )
    others = np.setdiff1d(np.arange(len(labels)), learned)
    return tuple(
        Split(tuple(pictures.paths[place] for place in each), tuple(pictures.labels[place] for place in each))
        for each in (learned, others)
    )


def grey(path: str) -> Pixels:
    return cv2.resize(cv2.imread(path, cv2.IMREAD_GRAYSCALE), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def caltech_rows(folder: Path, count: int) -> Iterator[list[str]]:
    pictures = read_dataset(str(folder)).train
    splits = [caltech_split(pictures, seed) for seed in range(count)]
    done = [by_hand(*split, grey) for split in splits]
    results = [(each.evaluation.accuracy, each.evaluation.interval, each.cpu_seconds) for each in done]
    yield caltech_row(f"grey {SIDE} × {SIDE}, {BY_HAND}", results)
    with tempfile.TemporaryDirectory() as scratch:
        tables = [write_table(Path(scratch) / f"{seed}.csv", *split) for seed, split in enumerate(splits)]
        for options in CALTECH:
            runs = [run("classify", str(table), *options) for table in tables]
            results = [(each.evaluation["accuracy"], each.evaluation["interval"], each.cpu_seconds) for each in runs]
            yield caltech_row(f"featkit, `{' '.join(options)}`" if options else "featkit", results)


def caltech_row(title: str, results: Sequence[tuple[float, Sequence[float], float]]) -> list[str]:
    """The splits share their pictures, so the mean is hardly surer than one of them: its interval is the mean one."""
    accuracies, intervals, seconds = zip(*results, strict=True)
    interval = [statistics.mean(ends) for ends in zip(*intervals, strict=True)]
    return [
        title,
        *accuracy_columns(statistics.mean(accuracies), interval),
        f"{min(accuracies):.1%} – {max(accuracies):.1%}",
        f"{statistics.mean(seconds):.1f} s",
    ]


def main(
    data: Path,
    rows: Sequence[str] = ROWS,
    hand: bool = False,
    quick: float | None = None,
    scratch: Path | None = None,
) -> None:
    wanted = {ARCHIVE: hand or not set(CIFAR).isdisjoint(rows), "caltech15": "caltech" in rows}
    there = {name for name, is_wanted in wanted.items() if is_wanted and (data / name).exists()}
    for name in wanted:
        if wanted[name] and name not in there:
            print(f"there is no {data / name}: its rows are left out", file=sys.stderr)
    if ARCHIVE in there:
        with nullcontext(scratch) if scratch else tempfile.TemporaryDirectory() as folder:
            pictures, title = unpacked(data / ARCHIVE, Path(folder)), "CIFAR-10: 50,000 learned from, 10,000 tested"
            if quick:
                pictures = share_of_training(pictures, quick, Path(folder))
                title = f"CIFAR-10: {quick:.0%} of it, training pictures alone"
            columns = [
                "options",
                "accuracy",
                "95 % interval",
                "CPU, all",
                "features, wall",
                "reduction, wall",
                "classifier, wall",
                "features to label, CPU a picture",
                "`featkit evaluate`, CPU a picture",
                "features in the cache",
                "peak memory",
            ]
            print_table(title, columns, cifar_rows(pictures, rows, hand))
    if "caltech15" in there:
        count = math.ceil(SPLITS * (quick or 1))
        columns = ["by", "accuracy, mean", "95 % interval of a split", "of the splits", "CPU a split"]
        title = f"15 classes of Caltech-101, {LEARNED_A_CLASS} pictures of each learned from; splits: {count}"
        print_table(title, columns, caltech_rows(data / "caltech15", count))


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=" ".join(ROWS))
    parser.add_argument("--by-hand", action="store_true", help="CIFAR-10 with scikit-image and scikit-learn, too")
    parser.add_argument("--quick", type=float, metavar="SHARE", help=f"of the pictures, up to {_LARGEST_QUICK}")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for the unpacked pictures, 60,000 files")
    given = parser.parse_args()
    if given.quick is not None and not 0 < given.quick <= _LARGEST_QUICK:
        parser.error(f"--quick takes a share up to {_LARGEST_QUICK}")
    main(given.data, given.only, given.by_hand, given.quick, given.scratch)
