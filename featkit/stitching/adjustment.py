"""Least squares over everything that ties photos together: what both camera models share.

A camera model says where a point of photo a lies in photo b, and how that moves with its parameters; this file weighs
what was measured against it. Matches of a pair that do not fit as well as they should (parallax, people who walk) add
to the pair's own variance; single ones that do not fit at all lose their weight (Cauchy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from featkit.local.geometry import inverse_2x2, median
from featkit.stitching.ties import Correspondences, spread
from featkit.stitching.views import View

Vector = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]

_STEPS = 30
# Scales of the Cauchy weight, in standard deviations: chains of photos begin far from where they close.
_CAUCHY_SCALES = (30.0, 8.0, 2.5)
_SMALLEST_GAIN = 1e-4
_MEDIAN_CHI_SQUARE = 1.386  # of two degrees of freedom
# Pixels: what no pair is without, for photos are resampled, and have rolling shutters.
_LEAST_RELIEF = 0.03
# No pair may excuse itself by more than this many times what is common, or the last pair of a circle would take all of
# its error upon itself.
_LARGEST_EXCUSE = 2.0
_LEAST_EXCUSE = 0.5
_LARGEST_DAMPING = 1e8
# What lies nowhere costs as much as what lies this many standard deviations off.
_NOWHERE = 1e4


@dataclass(frozen=True)
class Edge:
    """What ties photo a to photo b, by their numbers."""

    a: int
    b: int
    used: Correspondences
    held_out: Correspondences


@dataclass(frozen=True)
class Bundle:
    """The matches of all edges, one after the other. a, b: int N, photos. xy_a, xy_b: float64 N×2. covariance: N×2×2.
    starts: where each edge's matches begin, and, last, N."""

    a: Indices
    b: Indices
    xy_a: Vector
    xy_b: Vector
    covariance: npt.NDArray[np.float64]
    starts: Indices

    @property
    def edges(self) -> list[slice]:
        return [slice(first, last) for first, last in zip(self.starts[:-1], self.starts[1:], strict=True)]

    @property
    def lengths(self) -> Indices:
        return np.diff(self.starts)


def bundle(edges: Sequence[Edge], each_cell: int) -> Bundle:
    """At most 100 · each_cell matches an edge, spread over what both photos show."""
    chosen = [spread(edge.used, each_cell) for edge in edges]
    lengths = [len(each) for each in chosen]
    return Bundle(
        a=np.repeat([edge.a for edge in edges], lengths),
        b=np.repeat([edge.b for edge in edges], lengths),
        xy_a=np.concatenate([each.xy_a for each in chosen]),
        xy_b=np.concatenate([each.xy_b for each in chosen]),
        covariance=np.concatenate([each.covariance for each in chosen]),
        starts=np.cumsum([0, *lengths]),
    )


_SomeModel = TypeVar("_SomeModel", bound="Model")


class Model(Protocol):
    """Parameters of cameras, and how places depend on them."""

    def predict(self, matches: Bundle) -> Vector:
        """float64 N×2: where the points of a lie in b; not finite where nowhere."""

    def linearise(self, matches: Bundle) -> tuple[Vector, npt.NDArray[np.float64], Indices]:
        """The same, the derivative N×2×k, and which k parameters those are for each edge, E×k."""

    def prior(self) -> tuple[Vector, Vector]:
        """How far each of the p parameters is from what is expected, and the precision (1 / variance) of that."""

    def moved(self: _SomeModel, step: Vector) -> _SomeModel:
        """With p parameters changed."""

    def view(self, number: int) -> View:
        """Of a photo."""


@dataclass(frozen=True)
class Adjusted(Generic[_SomeModel]):
    """model: as it fits best. cost: what is left, with the prior. reliefs: of each edge, pixels an axis that its
    matches scatter by beyond their own covariances."""

    model: _SomeModel
    cost: float
    reliefs: Vector


def adjust(
    model: _SomeModel, matches: Bundle, scales: Sequence[float] = _CAUCHY_SCALES, steps: int = _STEPS
) -> Adjusted[_SomeModel]:
    """Levenberg–Marquardt with Cauchy weights whose scale shrinks (graduated non-convexity, Blake & Zisserman 1987)."""
    cost = np.inf
    for scale in scales:
        excused = _excused(_reliefs(model.predict(matches), matches))
        cost = _cost(model, matches, excused, scale)
        damping = 1e-3
        for _ in range(steps):
            information, gradient = _normal_equations(model, matches, excused, scale)
            while damping < _LARGEST_DAMPING:
                step = np.linalg.solve(information + damping * np.diag(np.diag(information)), gradient)
                proposed = model.moved(step)
                proposed_cost = _cost(proposed, matches, excused, scale)
                if proposed_cost < cost:
                    break
                damping *= 4
            else:
                break
            gain = (cost - proposed_cost) / max(cost, 1e-12)
            model, cost, damping = proposed, proposed_cost, max(damping / 10, 1e-9)
            if gain < _SMALLEST_GAIN:
                break
    return Adjusted(model, cost, _reliefs(model.predict(matches), matches))


def median_residuals(model: Model, matches: Bundle) -> Vector:
    """float64 E: of each edge, pixels of b."""
    distance = np.linalg.norm(model.predict(matches) - matches.xy_b, axis=1)
    distance = np.nan_to_num(distance, nan=np.inf, posinf=np.inf)
    return np.array([float(median(distance[rows])) if rows.stop > rows.start else np.inf for rows in matches.edges])


def held_out_errors(views: Sequence[View], edge: Edge) -> Vector:
    """float64 N: pixels of b between where the views put what matches and where it is; inf where a view has it
    nowhere."""
    places = views[edge.b].project(views[edge.a].lift(edge.held_out.xy_a))
    error = np.linalg.norm(places - edge.held_out.xy_b, axis=1)
    return np.asarray(np.nan_to_num(error, nan=np.inf, posinf=np.inf))


def _reliefs(predicted: Vector, matches: Bundle) -> Vector:
    # One variance an axis: exact where the matches' own covariance is small beside it, or it beside that.
    squared = ((matches.xy_b - predicted) ** 2).sum(1)
    squared = np.nan_to_num(squared, nan=1e12, posinf=1e12)
    own = np.trace(matches.covariance, axis1=1, axis2=2) / 2
    excess = [
        float(median(squared[rows])) / _MEDIAN_CHI_SQUARE - float(median(own[rows])) if rows.stop > rows.start else 0.0
        for rows in matches.edges
    ]
    return np.sqrt(np.maximum(excess, _LEAST_RELIEF**2))


def _excused(reliefs: Vector) -> Vector:
    return np.minimum(reliefs, max(_LARGEST_EXCUSE * float(median(reliefs)), _LEAST_EXCUSE))


def _weighed(
    residual: Vector, matches: Bundle, excused: Vector, scale: float
) -> tuple[npt.NDArray[np.float64], Vector, Vector]:
    """Precisions N×2×2, squared Mahalanobis distances N, and Cauchy weights N; what is nowhere has none."""
    variance = np.repeat(excused**2, matches.lengths)
    precision = inverse_2x2(matches.covariance + variance[:, None, None] * np.eye(2))
    finite = np.asarray(np.isfinite(residual).all(1))
    known = np.where(finite[:, None], residual, 0.0)
    squared = (known * (precision @ known[:, :, None])[:, :, 0]).sum(1)
    return precision, np.where(finite, squared, _NOWHERE**2), np.where(finite, 1 / (1 + squared / scale**2), 0.0)


def _cost(model: Model, matches: Bundle, excused: Vector, scale: float) -> float:
    offset, precision = model.prior()
    _, squared, _ = _weighed(matches.xy_b - model.predict(matches), matches, excused, scale)
    data = scale**2 * np.log1p(np.minimum(squared, _NOWHERE**2) / scale**2)
    return float((offset**2 * precision).sum() + data.sum())


def _normal_equations(
    model: Model, matches: Bundle, excused: Vector, scale: float
) -> tuple[npt.NDArray[np.floating], Vector]:
    """p×p and p."""
    offset, expected = model.prior()
    information, gradient = np.diag(expected), -expected * offset
    predicted, jacobian, parameters = model.linearise(matches)
    residual = matches.xy_b - predicted
    precision, _, weight = _weighed(residual, matches, excused, scale)
    unknown = weight == 0
    residual[unknown], jacobian[unknown] = 0, 0
    weighted = (weight[:, None, None] * precision) @ jacobian
    for rows, own in zip(matches.edges, parameters, strict=True):
        left, right = (each[rows].reshape(-1, len(own)) for each in (weighted, jacobian))
        np.add.at(information, (own[:, None], own[None]), left.T @ right)
        np.add.at(gradient, own, left.T @ residual[rows].ravel())
    return information, gradient
