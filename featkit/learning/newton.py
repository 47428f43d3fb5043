"""Linear classifiers in the primal, by Newton's method with conjugate gradients (Keerthi & DeCoste 2005; for kernels
Rudi et al. 2017).

Minimised over the weights W (M×K) and the intercepts: λ/2 · tr(Wᵀ A W) + Σ weight · loss(label, scores), where A is the
identity or, for a kernel, its matrix among the landmarks. The Gram matrix of the features bounds the curvature of the
loss; its Cholesky factor makes a few steps of conjugate gradients enough, whatever the features' scales.

Rows are read a block at a time, from memory or from a memory-mapped file, once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_ROWS = 2048
_LARGEST_STEPS = 30
_LARGEST_INNER_STEPS = 40
# Of the sum: how far above its minimum is near enough.
_TOLERANCE = 1e-4
# Of a probability: smaller ones count for nothing, and matrix products of float32 below 1e-38 take five times as long.
_LEAST_LOGARITHM = -40.0
# How exactly a Newton step is solved: the next is not worth more.
_INNER_TOLERANCE = 0.1
_SHORTEST_STEP = 1 / 64
# Added to the diagonal of what is factorised, of its mean, until it can be.
_JITTERS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-2)


class Loss(Protocol):
    """A loss of scores float32 N×K, given labels N: summed value, gradient N×K, and its curvature applied to N×K."""

    #: No curvature of a single score is larger.
    curvature: float

    def value(self, scores: Floats, labels: Labels, weights: Floats) -> float: ...
    def gradient(self, scores: Floats, labels: Labels) -> Floats: ...
    def bend(self, scores: Floats, labels: Labels, direction: Floats) -> Floats: ...


class SquaredHinge:
    """½ · max(0, 1 - y s)² of each class against the rest, y = ±1."""

    curvature = 1.0

    def _short(self, scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
        signs = np.full(scores.shape, -1, np.float32)
        signs[np.arange(len(labels)), labels] = 1
        short = np.float32(1) - signs * scores
        return np.maximum(short, 0, out=short), signs

    def value(self, scores: Floats, labels: Labels, weights: Floats) -> float:
        short, _ = self._short(scores, labels)
        return float(0.5 * weights @ np.einsum("ij,ij->i", short, short))

    def gradient(self, scores: Floats, labels: Labels) -> Floats:
        short, signs = self._short(scores, labels)
        return -signs * short

    def bend(self, scores: Floats, labels: Labels, direction: Floats) -> Floats:
        short, _ = self._short(scores, labels)
        return np.asarray(direction * (short > 0))


class Logistic:
    """Minus the logarithm of the softmax of the right class: multinomial."""

    curvature = 0.5

    def value(self, scores: Floats, labels: Labels, weights: Floats) -> float:
        highest = scores.max(1)
        total = np.log(np.exp(np.maximum(scores - highest[:, None], _LEAST_LOGARITHM)).sum(1)) + highest
        return float(weights @ (total - scores[np.arange(len(labels)), labels]))

    def gradient(self, scores: Floats, labels: Labels) -> Floats:
        found = softmax(scores)
        found[np.arange(len(labels)), labels] -= 1
        return found

    def bend(self, scores: Floats, labels: Labels, direction: Floats) -> Floats:
        share = softmax(scores)
        return np.asarray(share * (direction - np.einsum("ij,ij->i", share, direction)[:, None]))


def softmax(scores: Floats) -> Floats:
    """float32 N×K, rows that sum to 1."""
    found = scores - scores.max(1, keepdims=True)
    np.maximum(found, _LEAST_LOGARITHM, out=found)
    np.exp(found, out=found)
    found /= found.sum(1, keepdims=True)
    return np.asarray(found, np.float32)


@dataclass(frozen=True)
class Problem:
    """views: float32 N×M each, the same N pictures; labels: N, 0..K-1; weights: N. metric: A, float32 M×M, or None."""

    views: Sequence[Floats]
    labels: Labels
    weights: Floats
    classes: int
    loss: Loss
    metric: Floats | None = None

    def blocks(self) -> Iterator[tuple[slice, Floats, Labels, Floats]]:
        """Where the rows are among all scores, the rows, their labels and weights."""
        count = len(self.labels)
        for number, view in enumerate(self.views):
            for start in range(0, count, _ROWS):
                rows = slice(start, min(start + _ROWS, count))
                place = slice(number * count + rows.start, number * count + rows.stop)
                yield place, np.asarray(view[rows]), self.labels[rows], self.weights[rows]

    def bent(self, weights: Floats) -> Floats:
        """A W, with nothing for the intercepts, which lie in the last row."""
        found = np.zeros_like(weights)
        found[:-1] = weights[:-1] if self.metric is None else self.metric @ weights[:-1]
        return found


def gram(problem: Problem) -> npt.NDArray[np.float64]:
    """(M+1)×(M+1): the weighted sum of the products of all features, the last of which is 1."""
    dimensions = problem.views[0].shape[1]
    found = np.zeros((dimensions + 1, dimensions + 1))
    for _, rows, _, weights in problem.blocks():
        scaled = rows * np.sqrt(weights)[:, None]
        found[:-1, :-1] += scaled.T @ scaled
        found[-1, :-1] += weights @ rows
        found[-1, -1] += weights.sum()
    found[:-1, -1] = found[-1, :-1]
    return found


def minimise(problem: Problem, regularisation: float) -> Floats:
    """float32 (M+1)×K, the intercepts last."""
    [found] = minima(problem, (regularisation,))
    return found


def minima(problem: Problem, regularisations: Sequence[float]) -> Iterator[Floats]:
    """Of each λ, as of `minimise`; each is looked for from where the last was found. The products of the features are
    summed once."""
    products = gram(problem)
    products *= problem.loss.curvature
    weights = np.zeros((problem.views[0].shape[1] + 1, problem.classes), np.float32)
    for regularisation in regularisations:
        weights = _minimised(problem, regularisation, _preconditioner(problem, regularisation, products), weights)
        yield weights


def _minimised(
    problem: Problem, regularisation: float, precondition: Callable[[npt.NDArray[Any]], Floats], start: Floats
) -> Floats:
    weights, scores = start.copy(), _scores(problem, start)
    for _ in range(_LARGEST_STEPS):
        gradient = _gradient(problem, scores, weights, regularisation)
        direction, moved = _newton_direction(problem, scores, gradient, regularisation, precondition)
        length, before = _length(problem, scores, moved, weights, direction, gradient, regularisation)
        weights += np.float32(length) * direction
        scores += np.float32(length) * moved
        # As far above the minimum as the parabola says that is laid through here.
        if length == 0 or -0.5 * float(np.vdot(gradient, direction)) <= _TOLERANCE * before:
            break
    return weights


def _preconditioner(
    problem: Problem, regularisation: float, products: npt.NDArray[np.float64]
) -> Callable[[npt.NDArray[Any]], Floats]:
    """Solves for the largest curvature that the loss can have."""
    bound = products.copy()
    inner = bound[:-1, :-1]
    if problem.metric is None:
        inner[np.diag_indices_from(inner)] += regularisation
    else:
        inner += regularisation * problem.metric
    return solver(bound)


def solver(matrix: npt.NDArray[np.float64], more: float = 0.0) -> Callable[[npt.NDArray[Any]], Floats]:
    """Solves for right sides with a symmetric matrix, with `more` on its diagonal, that is positive definite, but for
    rounding: as much again is added as it takes.

    In float64: kernel matrices have directions that float32 cannot tell from none; nor can the sums, of float32
    products.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    mean = float(np.trace(matrix)) / len(matrix) + more or 1.0
    for jitter in _JITTERS:
        damped = matrix.copy().T  # in LAPACK's order, to be overwritten
        damped[np.diag_indices_from(damped)] += more + jitter * mean
        try:
            factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            continue
        return lambda sides: cho_solve(factor, sides, check_finite=False).astype(np.float32)
    raise AssertionError("a matrix of products is positive definite, but for rounding")


def _scores(problem: Problem, weights: Floats) -> Floats:
    scores = np.empty((len(problem.views) * len(problem.labels), weights.shape[1]), np.float32)
    for place, rows, _, _ in problem.blocks():
        scores[place] = rows @ weights[:-1] + weights[-1]
    return scores


def _gradient(problem: Problem, scores: Floats, weights: Floats, regularisation: float) -> Floats:
    found = np.float32(regularisation) * problem.bent(weights)
    for place, rows, labels, importance in problem.blocks():
        slope = importance[:, None] * problem.loss.gradient(scores[place], labels)
        found[:-1] += rows.T @ slope
        found[-1] += slope.sum(0)
    return found


def _newton_direction(
    problem: Problem, scores: Floats, gradient: Floats, regularisation: float, precondition: Any
) -> tuple[Floats, Floats]:
    """The step, and what it moves the scores by. Conjugate gradients over all classes at once."""
    direction, moved = np.zeros_like(gradient), np.zeros_like(scores)
    left = -gradient
    ahead = precondition(left)
    across = ahead.copy()
    energy = float(np.vdot(left, ahead))
    enough = _INNER_TOLERANCE**2 * energy
    for _ in range(_LARGEST_INNER_STEPS):
        product = np.float32(regularisation) * problem.bent(across)
        change = np.empty_like(scores)
        for place, rows, labels, importance in problem.blocks():
            change[place] = rows @ across[:-1] + across[-1]
            bent = importance[:, None] * problem.loss.bend(scores[place], labels, change[place])
            product[:-1] += rows.T @ bent
            product[-1] += bent.sum(0)
        curvature = float(np.vdot(across, product))
        if not curvature > 0:
            break
        length = np.float32(energy / curvature)
        direction += length * across
        moved += length * change
        left -= length * product
        ahead = precondition(left)
        energy, before = float(np.vdot(left, ahead)), energy
        if energy <= enough:
            break
        across = ahead + np.float32(energy / before) * across
    return direction, moved


def _length(
    problem: Problem,
    scores: Floats,
    moved: Floats,
    weights: Floats,
    direction: Floats,
    gradient: Floats,
    regularisation: float,
) -> tuple[float, float]:
    """The first of 1, ½, ¼ … of the step that makes the sum less, by a share of what its slope promises (Armijo), or 0;
    and the sum before the step."""
    slope = float(np.vdot(gradient, direction))
    bent, bent_step = problem.bent(weights), problem.bent(direction)
    start = 0.5 * regularisation * float(np.vdot(bent, weights))
    still = _loss(problem, scores) + start
    linear = regularisation * float(np.vdot(bent, direction))
    square = 0.5 * regularisation * float(np.vdot(bent_step, direction))
    length = 1.0
    while length >= _SHORTEST_STEP:
        after = _loss(problem, scores + np.float32(length) * moved) + start + length * linear + length**2 * square
        if after <= still + 1e-4 * length * slope + 1e-7 * abs(still):
            return length, still
        length /= 2
    return 0.0, still


def _loss(problem: Problem, scores: Floats) -> float:
    count = len(problem.labels)
    return sum(
        problem.loss.value(scores[number * count : (number + 1) * count], problem.labels, problem.weights)
        for number in range(len(problem.views))
    )
