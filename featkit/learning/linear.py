"""Linear heads: `linear-svm` (squared hinge, each class against the rest), `logreg` (multinomial) and `ridge`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning import ridge
from featkit.learning.newton import Floats, Logistic, Loss, Problem, SquaredHinge, minima
from featkit.learning.training import Training

LOSSES = ("hinge", "logistic", "squares")


@dataclass(frozen=True)
class LinearConfig:
    """loss: "hinge" (squared), "logistic" or "squares". C: weight of the losses beside half the squared length of the
    weights, as in scikit-learn's LinearSVC and LogisticRegression (which of two classes has one plane, and there takes
    2 C); for "squares" half of 1 / alpha of its RidgeClassifier. Raises UsageError for what makes no sense."""

    loss: str = "hinge"
    C: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"there is no loss {self.loss!r}", hint=f"there are: {', '.join(LOSSES)}")
        if not 0 < self.C < float("inf"):
            raise UsageError(f"C must be positive, not {self.C}")


@dataclass(frozen=True)
class Linear:
    """weights: float32 P×K. intercepts: float32 K."""

    loss: str
    weights: Floats
    intercepts: Floats

    def scores(self, features: Floats) -> Floats:
        """float32 N×K: distances from each class's plane, times the length of its weights."""
        return np.asarray(features @ self.weights + self.intercepts, np.float32)

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        return {"loss": self.loss}, {"weights": self.weights, "intercepts": self.intercepts}

    @classmethod
    def from_parts(cls, config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Linear:
        weights, intercepts = arrays["weights"], arrays["intercepts"]
        if weights.ndim != 2 or intercepts.shape != weights.shape[1:] or config["loss"] not in LOSSES:
            raise ValueError("the parts of a linear head do not fit together")
        return cls(str(config["loss"]), weights, intercepts)


def fit_linear(training: Training, config: LinearConfig) -> Linear:
    """The intercepts are not held small, unlike LinearSVC's."""
    if config.loss == "squares":
        return _with(config.loss, ridge.fit(training, config.C))
    [head] = sweep_linear(training, config.loss, (config.C,))
    return head


def sweep_linear(training: Training, loss: str, choices: Sequence[float]) -> Iterator[Linear]:
    """One of each C, for "hinge" or "logistic"; from each the search for the next sets out.

    Measured on lite0's head of 5,000 pictures of CIFAR-10, six C from .008 to 25, in CPU seconds
    (tests/bench/probing.py, sweep), by Newton's method, and by scipy's L-BFGS-B from the same starts, stopped as soon
    as it was as low: of 800 components, which is what is learned from, 1.7 and 2.7 for "logistic", 2.5 and 7.6 for
    "hinge"; of all 1280 numbers 3.2 and 4.8, 5.1 and 15.5.
    """
    kind: Loss = SquaredHinge() if loss == "hinge" else Logistic()
    problem = Problem(training.views, training.labels, training.weights, training.classes, kind)
    # LinearSVC's loss is the square, not half of it.
    regularisations = [1 / (2 * c) if loss == "hinge" else 1 / c for c in choices]
    for found in minima(problem, regularisations):
        yield _with(loss, found)


def choose_ridge(training: Training, choices: Sequence[float]) -> tuple[Linear, float, float]:
    """The head of the best C, the C, and the share that it labels right of what is left out: as of `ridge.choose`."""
    chosen = ridge.choose(training, choices)
    return _with("squares", chosen.found), chosen.C, chosen.validated


def _with(loss: str, found: Floats) -> Linear:
    return Linear(loss, found[:-1], found[-1])
