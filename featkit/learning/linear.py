"""Linear heads: `linear-svm` (squared hinge, each class against the rest), `logreg` (multinomial) and `ridge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning.newton import Floats, Logistic, Loss, Problem, SquaredHinge, gram, minimise, solver
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
        return _fit_squares(training, config)
    loss: Loss = SquaredHinge() if config.loss == "hinge" else Logistic()
    problem = Problem(training.views, training.labels, training.weights, training.classes, loss)
    # LinearSVC's loss is the square, not half of it.
    regularisation = 1 / (2 * config.C) if config.loss == "hinge" else 1 / config.C
    found = minimise(problem, regularisation)
    return Linear(config.loss, found[:-1], found[-1])


def _fit_squares(training: Training, config: LinearConfig) -> Linear:
    """Least squares to +1 for the class and -1 for the others."""
    problem = Problem(training.views, training.labels, training.weights, training.classes, SquaredHinge())
    products = gram(problem)
    targets = np.zeros((len(products), training.classes))
    for _, rows, labels, weights in problem.blocks():
        signs = np.full((len(rows), training.classes), -1, np.float32)
        signs[np.arange(len(rows)), labels] = 1
        signs *= weights[:, None]
        targets[:-1] += rows.T @ signs
        targets[-1] += signs.sum(0)
    inner = products[:-1, :-1]
    inner[np.diag_indices_from(inner)] += 1 / (2 * config.C)
    found = solver(products)(targets)
    return Linear(config.loss, found[:-1], found[-1])
