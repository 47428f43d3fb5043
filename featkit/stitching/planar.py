"""The planar model: photos of something flat, each with a similarity, an affinity or a homography to one plane.

For scans, slides under a microscope, and photos of the ground from above, where the camera moves and does not turn.
Each family begins where the smaller one ended; which of them is used is decided outside, by matches that none has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featkit.local.geometry import median
from featkit.stitching.adjustment import Adjusted, Bundle, Edge, Indices, Vector, adjust, bundle
from featkit.stitching.views import View

# Real or complex.
_Numbers = npt.NDArray[np.inexact]

FAMILIES = ("similarity", "affine", "homography")

# How far photos of one flat thing differ from squares seen straight on: in stretch and shear, and in how much nearer
# one side is than the other. Loose enough for a hand-held scan, tight enough to keep a long chain from curling up.
_SHAPE_SPREAD = 0.1
_PERSPECTIVE_SPREAD = 0.2
_FREE_SPREAD = 1e3
_PINNED_SPREAD = 1e-6
_LEAST_DEPTH = 1e-2
_EACH_CELL = 3
_START_ROUNDS = 5
# Rounds, distances (over the longer side) that begin to count as disagreement, matches beyond which a pair is as sure
# as any.
_AVERAGING_ROUNDS = 8
_AVERAGING_SCALE = 0.01
_MOST_EVIDENCE = 100

# Rows: the 4, 6 and 8 parameters; columns: the entries of a 3×3 matrix. The first four keep squares square, the next
# two stretch and shear, the last two give perspective.
_BASIS = np.array(
    [
        [1, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, -1, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, -1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
    ],
    float,
)
_FREEDOM = {"similarity": 4, "affine": 6, "homography": 8}


@dataclass(frozen=True)
class Sheets:
    """A `Model` of N photos on a plane. values: N×8, how much of each row of the basis; what the family lacks stays 0.
    Both sides are in units of `unit` pixels, photos about their centres. reference: the photo that the plane is of."""

    sizes: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    family: str
    unit: float
    reference: int

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def freedom(self) -> int:
        return _FREEDOM[self.family]

    @property
    def matrices(self) -> npt.NDArray[np.float64]:
        """N×3×3: of the photos' normalised coordinates to the plane's."""
        return np.asarray((self.values @ _BASIS).reshape(-1, 3, 3) + np.diag([0, 0, 1]))

    def view(self, number: int) -> View:
        """With plane points in pixels of the reference."""
        centre = (self.sizes[number] - 1) / 2
        to_normal = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, self.unit]]) / self.unit
        size = (int(self.sizes[number, 0]), int(self.sizes[number, 1]))
        return View(size, np.diag([self.unit, self.unit, 1]) @ self.matrices[number] @ to_normal)

    def predict(self, matches: Bundle) -> Vector:
        _, _, depth, seen, _ = self._carry(matches)
        return self._pixels(seen[:, :2] / depth, matches)

    def linearise(self, matches: Bundle) -> tuple[Vector, npt.NDArray[np.float64], Indices]:
        normal, _, depth, seen, back = self._carry(matches)
        image = seen[:, :2] / depth
        by_seen = np.zeros((len(seen), 2, 3))
        by_seen[:, 0, 0] = by_seen[:, 1, 1] = 1 / depth[:, 0]
        by_seen[:, :, 2] = -image / depth
        by_plane = self.unit * by_seen @ back
        basis = _BASIS[: self.freedom].reshape(-1, 3, 3)
        # d(B⁻¹ A x) = B⁻¹ dA x − B⁻¹ dB B⁻¹ A x
        by_a = by_plane @ np.einsum("kij,nj->nik", basis, normal)
        by_b = -by_plane @ np.einsum("kij,nj->nik", basis, seen)
        first = matches.starts[:-1]
        own = np.arange(self.freedom)
        parameters = [self.freedom * number[first][:, None] + own for number in (matches.a, matches.b)]
        return self._pixels(image, matches), np.concatenate([by_a, by_b], 2), np.concatenate(parameters, 1)

    def prior(self) -> tuple[Vector, Vector]:
        spread = [_FREE_SPREAD] * 4 + [_SHAPE_SPREAD] * 2 + [_PERSPECTIVE_SPREAD] * 2
        precision = np.tile(1 / np.array(spread[: self.freedom]) ** 2, (self.count, 1))
        precision[self.reference] = 1 / _PINNED_SPREAD**2
        offset = self.values[:, : self.freedom].copy()
        offset[:, 0] -= 1
        return offset.ravel(), precision.ravel()

    def moved(self, step: Vector) -> Sheets:
        values = self.values.copy()
        values[:, : self.freedom] += step.reshape(self.count, -1)
        return replace(self, values=values)

    def _carry(self, matches: Bundle) -> tuple[Vector, ...]:
        """Normalised points of a N×3, on the plane N×3, and seen by b: depth N×1 and homogeneous points N×3; and the
        matrices of the plane to b N×3×3."""
        matrices = self.matrices
        centre = (self.sizes[matches.a] - 1) / 2
        normal = np.concatenate([(matches.xy_a - centre) / self.unit, np.ones((len(matches.xy_a), 1))], 1)
        plane = (matrices[matches.a] @ normal[:, :, None])[:, :, 0]
        back = np.linalg.inv(matrices)[matches.b]
        seen = (back @ plane[:, :, None])[:, :, 0]
        depth = seen[:, 2:].copy()
        depth[depth <= _LEAST_DEPTH] = np.nan
        return normal, plane, depth, seen, back

    def _pixels(self, image: Vector, matches: Bundle) -> Vector:
        return np.asarray(image * self.unit + (self.sizes[matches.b] - 1) / 2)


def adjust_planar(sizes: Sequence[tuple[int, int]], edges: Sequence[Edge], reference: int) -> list[Adjusted[Sheets]]:
    """Place photos, all of which hang together by the edges, on the plane of the reference, once for each family."""
    matches = bundle(edges, _EACH_CELL)
    unit = float(max(sizes[reference]))
    model = Sheets(np.array(sizes, float), _averaged(sizes, edges, unit, reference), FAMILIES[0], unit, reference)
    found = []
    for family in FAMILIES:
        adjusted = adjust(replace(model, family=family), matches)
        model = adjusted.model
        found.append(adjusted)
    return found


def _averaged(
    sizes: Sequence[tuple[int, int]], edges: Sequence[Edge], unit: float, reference: int
) -> npt.NDArray[np.float64]:
    """N×8: the similarities that agree best with those of the pairs, first how photos are turned and scaled, then where
    they lie, a few times, pairs that disagree losing weight. In complex numbers, in which a similarity is linear."""
    points = [
        [(xy - (np.array(sizes[number]) - 1) / 2) / unit @ [1, 1j] for number, xy in sides]
        for sides in (((edge.a, edge.used.xy_a), (edge.b, edge.used.xy_b)) for edge in edges)
    ]
    factor, mean_a, mean_b = np.array([_similarity(*both) for both in points]).T
    a, b = (np.array([getattr(edge, side) for edge in edges]) for side in "ab")
    evidence = np.sqrt(np.minimum([len(edge.used) for edge in edges], _MOST_EVIDENCE))
    weights = evidence.copy()
    for _ in range(_AVERAGING_ROUNDS):
        turns = _potentials(a, b, factor, np.zeros(len(edges)), weights, reference, 1.0, len(sizes))
        gaps = turns[b] * mean_b - turns[a] * mean_a
        shifts = _potentials(a, b, np.ones(len(edges)), gaps, weights, reference, 0.0, len(sizes))
        off = np.abs(turns[a] - factor * turns[b]) + np.abs(shifts[a] - shifts[b] - gaps)
        weights = evidence / (1 + (off / _AVERAGING_SCALE) ** 2)
    values = np.zeros((len(sizes), 8))
    values[:, 0], values[:, 1], values[:, 2], values[:, 3] = turns.real, turns.imag, shifts.real, shifts.imag
    return values


def _potentials(
    a: Indices,
    b: Indices,
    factor: _Numbers,
    gap: _Numbers,
    weights: Vector,
    reference: int,
    known: float,
    count: int,
) -> _Numbers:
    """complex N: values of photos, for which that of a less factor times that of b is the gap, by least squares; that
    of the reference is known."""
    rows = np.arange(len(a))
    system = np.zeros((len(a), count), complex)
    system[rows, a] += weights
    system[rows, b] -= weights * factor
    others = np.arange(count) != reference
    found = np.full(count, known, complex)
    goal = weights * gap - system[:, reference] * known
    found[others] = np.linalg.lstsq(system[:, others], goal, rcond=None)[0]
    return found


def _similarity(x: _Numbers, y: _Numbers) -> tuple[complex, complex, complex]:
    """factor, mean_x, mean_y of y - mean_y = factor (x - mean_x), by least squares, what does not fit losing weight."""
    weight = np.ones(len(x))
    for _ in range(_START_ROUNDS):
        mean_x, mean_y = (np.average(each, weights=weight) for each in (x, y))
        factor = (weight * (y - mean_y) * (x - mean_x).conj()).sum() / max((weight * abs(x - mean_x) ** 2).sum(), 1e-12)
        distance = abs(factor * (x - mean_x) + mean_y - y)
        weight = 1 / (1 + (distance / max(float(median(distance)), 1e-6)) ** 2)
    return complex(factor), complex(mean_x), complex(mean_y)
