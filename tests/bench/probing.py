"""Heads on frozen features, beside scikit-learn and scipy: CPU seconds, accuracy, memory.

python -m tests.bench.probing [--part PART …] [--features FILE --test-features FILE [--layer NAME]]

ridge: 25 regularisations by leave-one-out against LogisticRegression over 10 C, each from the last one's weights.
sweep: six C by Newton's method against L-BFGS-B, which is stopped as soon as it is as low.
large: ridge of 50,000 vectors of 2048 numbers, 100 classes; the memory is that of the whole process.

One thread for matrix products on all sides. A file is an npz with a float32 N×D array of each layer, and `labels` N, or
`paths`, whose folders are the labels. Without files the numbers are drawn.
"""

from __future__ import annotations

import argparse
import resource
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from featkit.learning.heads import classifier
from featkit.learning.linear import Linear, sweep_linear
from featkit.learning.newton import Logistic, Loss, SquaredHinge
from featkit.learning.reduction import ReductionConfig, fit_reduction
from featkit.learning.training import Training
from tests.bench.report import cpu_seconds, median_cpu_seconds, print_environment, print_table

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Labelled = tuple[Floats, Labels]

PARTS = ("ridge", "sweep", "large")
REPETITIONS = 3
ROWS, TEST_ROWS, DIMENSIONS, CLASSES = 5000, 1000, 1280, 10
LARGE_ROWS, LARGE_DIMENSIONS, LARGE_CLASSES = 50_000, 2048, 100
# Where LogisticRegression's best lies in the middle, of numbers of a network.
THEIR_C = np.logspace(-4, 0, 10)
# Of the value of Newton's minimum: what counts as as low. And when L-BFGS has had its chance.
AS_LOW, STEPS = 1e-5, 1000
_FACTORS = 100
# One in so many.
_HELD_OUT = 5
_ROWS = 2000


# --- features


def drawn(count: int, dimensions: int, classes: int, seed: int) -> Labelled:
    """Numbers like those that a network ends in: none negative, most of the variance in few directions, some noise of
    their own, and classes that overlap."""
    fixed, random = np.random.default_rng(0), np.random.default_rng((1, seed))
    mixing = fixed.standard_normal((_FACTORS, dimensions)) * np.arange(1, _FACTORS + 1)[:, None] ** -0.5
    centres = 0.45 * fixed.standard_normal((classes, _FACTORS))
    labels = random.integers(classes, size=count)
    found = np.empty((count, dimensions), np.float32)
    for start in range(0, count, _ROWS):
        own = labels[start : start + _ROWS]
        factors = centres[own] + random.standard_normal((len(own), _FACTORS))
        rows = 0.3 * factors @ mixing + 0.2 * random.standard_normal((len(own), dimensions))
        found[start : start + _ROWS] = np.maximum(rows, 0)
    return found, labels


def read(train: Path, test: Path, layer: str) -> tuple[Labelled, Labelled]:
    names, features = [], []
    for path in (train, test):
        with np.load(path, allow_pickle=False) as file:
            features.append(np.ascontiguousarray(file[layer], np.float32))
            found = file["labels"] if "labels" in file else [Path(str(each)).parent.name for each in file["paths"]]
            names.append(np.asarray(found))
    _, labels = np.unique(np.concatenate(names), return_inverse=True)
    first, second = np.split(labels.astype(np.int64), [len(names[0])])
    return (features[0], first), (features[1], second)


def training_of(features: Floats, labels: Labels) -> Training:
    return Training((features,), labels, int(labels.max()) + 1, np.ones(len(labels), np.float32), 0)


# --- tables


def ridge_rows(train: Labelled, test: Labelled) -> list[list[str]]:
    """LogisticRegression's C is the best on a fifth that is held out, and then learned with from all."""
    training, ridge = training_of(*train), classifier("ridge")
    random = np.random.default_rng(0).permutation(len(train[1]))
    held, rest = np.split(random, [len(random) // _HELD_OUT])
    found: list[tuple[float, float]] = []

    def theirs() -> None:
        head = LogisticRegression(warm_start=True)
        (features, labels), shares = train, []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for c in THEIR_C:
                head.set_params(C=c).fit(features[rest], labels[rest])
                shares.append(head.score(features[held], labels[held]))
            head.set_params(C=THEIR_C[int(np.argmax(shares))]).fit(features, labels)
        found[:] = [(head.score(*test), max(shares))]

    seconds = median_cpu_seconds([theirs, lambda: ridge.tune(training, ())], REPETITIONS)
    tuned = ridge.tune(training, ())
    right = float((tuned.head.scores(test[0]).argmax(1) == test[1]).mean())
    [(their_right, their_share)] = found
    return [
        [
            "scikit-learn, LogisticRegression, 10 C",
            f"{seconds[0]:.2f} s",
            "1",
            f"{their_right:.3f}",
            f"{their_share:.3f}",
        ],
        [
            "featkit, ridge, 25 regularisations",
            f"{seconds[1]:.2f} s",
            f"{seconds[1] / seconds[0]:.2f}",
            f"{right:.3f}",
            f"{tuned.validated:.3f}",
        ],
    ]


class _AsLow(Exception):
    """What is looked for is found."""


def sweep_rows(train: Labelled) -> list[list[str]]:
    training, rows = training_of(*train), []
    losses: dict[str, Loss] = {"logistic": Logistic(), "hinge": SquaredHinge()}
    for (name, loss), head in zip(losses.items(), ("logreg", "linear-svm"), strict=True):
        choices = classifier(head).choices
        heads: list[Linear] = []

        def newton(name: str = name, choices: Sequence[float] = choices, heads: list[Linear] = heads) -> None:
            heads[:] = sweep_linear(training, name, choices)

        ours = cpu_seconds(newton)
        # LinearSVC's loss is the square, not half of it.
        regularisations = [1 / (2 * c) if name == "hinge" else 1 / c for c in choices]
        theirs, above, start = 0.0, 0.0, np.zeros((training.dimensions + 1, training.classes), np.float32)
        for each, regularisation in zip(heads, regularisations, strict=True):
            goal, _ = _objective(training, loss, regularisation, np.vstack([each.weights, each.intercepts]))
            best = [np.inf, start]
            theirs += cpu_seconds(_lbfgs(training, loss, regularisation, goal, best))
            start, above = best[1], max(above, best[0] / goal - 1)
        rows.append([head, f"{ours:.1f} s", f"{theirs:.1f} s", f"{ours / theirs:.2f}", f"{above:.1e}"])
    return rows


def _lbfgs(training: Training, loss: Loss, regularisation: float, goal: float, best: list) -> Callable[[], None]:
    """Looks from best[1] on; leaves the lowest value, and where it is, in it."""

    def at(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(best[1].shape).astype(np.float32)
        value, slope = _objective(training, loss, regularisation, weights)
        if value < best[0]:
            best[:] = value, weights
        if value <= goal * (1 + AS_LOW):
            raise _AsLow
        return value, slope().astype(float).ravel()

    def work() -> None:
        options = {"maxiter": STEPS, "maxfun": STEPS, "ftol": 1e-10, "gtol": 1e-9}
        try:
            minimize(at, best[1].astype(float).ravel(), jac=True, method="L-BFGS-B", options=options)
        except _AsLow:
            return

    return work


def _objective(
    training: Training, loss: Loss, regularisation: float, weights: Floats
) -> tuple[float, Callable[[], Floats]]:
    """Its value, and its gradient, if that is asked for."""
    [features], labels = training.views, training.labels
    scores = features @ weights[:-1] + weights[-1]
    length = float((weights[:-1].astype(float) ** 2).sum())

    def slope() -> Floats:
        found = loss.gradient(scores, labels)
        return np.vstack([features.T @ found + np.float32(regularisation) * weights[:-1], found.sum(0)])

    return loss.value(scores, labels, training.weights) + 0.5 * regularisation * length, slope


def large_rows() -> list[list[str]]:
    training = training_of(*drawn(LARGE_ROWS, LARGE_DIMENSIONS, LARGE_CLASSES, 0))
    validated: list[float] = []
    seconds = cpu_seconds(lambda: validated.append(classifier("ridge").tune(training, ()).validated))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    return [[f"{seconds:.1f} s", f"{memory:.2f} GB", f"{validated[0]:.3f}"]]


def main(parts: Sequence[str] = PARTS, files: tuple[Path, Path] | None = None, layer: str = "head") -> None:
    with threadpool_limits(1):
        if "large" in parts:  # first, while the process is small
            title = f"Ridge of {LARGE_ROWS:,} × {LARGE_DIMENSIONS}, {LARGE_CLASSES} classes"
            print_table(title, ["CPU", "memory", "validated"], large_rows())
        if files is None:
            train, test = (drawn(count, DIMENSIONS, CLASSES, seed) for seed, count in enumerate((ROWS, TEST_ROWS)))
        else:
            train, test = read(*files, layer)
        size = f"{len(train[0]):,} × {train[0].shape[1]}"
        if "ridge" in parts:
            print_table(f"Ridge, {size}", ["by", "CPU", "relative", "accuracy", "validated"], ridge_rows(train, test))
        if "sweep" in parts:
            columns = ["head", "featkit, CPU", "L-BFGS-B", "relative", "L-BFGS-B above"]
            features, labels = train
            for method in ("pca", "none"):  # as the heads have them, and all numbers less their mean
                reduction = fit_reduction((features,), labels, (features.shape[1],), ReductionConfig(method))
                title = f"Six C in turn, {size}, {reduction.dimensions} of them"
                print_table(title, columns, sweep_rows((reduction(features), labels)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--features", type=Path, metavar="FILE", help="to learn from")
    parser.add_argument("--test-features", type=Path, metavar="FILE", help="to test on")
    parser.add_argument("--layer", default="head", help="of the files")
    given = parser.parse_args()
    if (given.features is None) != (given.test_features is None):
        parser.error("--features and --test-features go together")
    print_environment()
    main(given.part, None if given.features is None else (given.features, given.test_features), given.layer)
