"""The rotation model: a camera that turns about its centre, with a focal length and radial distortion.

Where the focal length is not known it is tried out: for each candidate all relative rotations are averaged, which a
full circle can only bear with the right one, and the best go into the bundle adjustment. Rotations, focal lengths and
the distortion are then fitted together, each held by what is known of cameras where the photos say nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featkit.local.geometry import inverse_2x2, median
from featkit.stitching.adjustment import Adjusted, Bundle, Edge, Indices, Vector, adjust, bundle, median_residuals
from featkit.stitching.views import Matrix, Points, View

# Focal lengths over the longer side: from fisheye to a telephoto lens. What is usual, and how far from it (in log).
_CANDIDATES = (0.4, 0.55, 0.75, 1.0, 1.4, 2.0, 3.0, 5.0)
_USUAL_FOCAL = 1.0
_USUAL_SPREAD = 0.7
# EXIF rounds to whole millimetres, and lenses breathe.
_EXIF_SPREAD = 0.08
# Of the photos of one camera at one setting: focusing changes it by 1 %.
_OWN_SPREAD = 0.004
# Where a chain of photos begins and how it lies in the world is free.
_TURN_SPREAD = 1e3
# k1, k2, and the axis, in focal lengths.
_LENS_SPREAD = (0.08, 0.08, 0.01, 0.01)
_OWN = 1 + len(_LENS_SPREAD)
# The best candidates that are adjusted in full.
_STARTS = 2
_FEW_STEPS = 8
# Beyond this many times the longer side the photos do not say what the focal length is.
RUNAWAY = 12.0
_LAST_SCALES = (2.5, 1.0)
_GOOD_START_PX = 3.0
_WORST_START_PX = 1e4
# Matches of each cell of a pair's grid, to find the best start, and to adjust it.
_FEW_A_CELL = 1
_MANY_A_CELL = 3
_LARGEST_FOCAL_STEP = 0.5
_LEAST_DEPTH = 1e-3
_NEWTON_STEPS = 5
_KABSCH_ROUNDS = 4
# Rounds, angles (as the norm of a difference of matrices) that begin to count as disagreement, matches beyond which a
# pair is as sure as any.
_AVERAGING_ROUNDS = 3
_AVERAGING_SCALE = 0.02
_MOST_EVIDENCE = 100


@dataclass(frozen=True)
class Photo:
    """What is known of a photo before it is placed. size: (width, height). focal_px: from EXIF, or None."""

    size: tuple[int, int]
    focal_px: float | None

    @property
    def longer(self) -> int:
        return max(self.size)

    @property
    def camera(self) -> tuple[tuple[int, int], float]:
        """What photos of the same camera at the same setting share; either way up."""
        return (max(self.size), min(self.size)), round(self.focal_px or 0.0, 1)


@dataclass(frozen=True)
class Cameras:
    """A `Model` of N photos that G cameras took. sizes: N×2. rotations: N×3×3, camera to world. focals: N, log of the
    photo's focal length over that of its camera. cameras: G×5, log of the focal length in pixels, k1, k2, and where the
    optical axis meets the picture, from its centre, in focal lengths. groups: N,
    which camera took each. expected, spread: G, of the log focal lengths, before the photos were looked at. Parameters:
    3 of the rotation and 1 of the focal length a photo, then 5 a camera."""

    sizes: npt.NDArray[np.float64]
    rotations: npt.NDArray[np.float64]
    focals: Vector
    cameras: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]
    expected: Vector
    spread: Vector

    @property
    def count(self) -> int:
        return len(self.focals)

    @property
    def focals_px(self) -> Vector:
        return np.asarray(np.exp(self.focals + self.cameras[self.groups, 0]))

    def view(self, number: int) -> View:
        focal = float(self.focals_px[number])
        centre = (self.sizes[number] - 1) / 2
        k1, k2, *axis = (float(value) for value in self.cameras[self.groups[number], 1:])
        axis_px = centre + np.array(axis) * focal
        inverse = np.array([[1, 0, -axis_px[0]], [0, 1, -axis_px[1]], [0, 0, focal]]) / focal
        size = (int(self.sizes[number, 0]), int(self.sizes[number, 1]))
        return View(size, self.rotations[number] @ inverse, focal, (k1, k2))

    def predict(self, matches: Bundle) -> Vector:
        return self._carry(matches)[0]

    def linearise(self, matches: Bundle) -> tuple[Vector, npt.NDArray[np.float64], Indices]:
        predicted, seen_a, plain, world, ray, image, seen_b = self._carry(matches)
        by_distorting, by_own = _derivatives(plain, self.cameras[self.groups[matches.a], 1:3])
        by_seen = inverse_2x2(by_distorting)
        by_own_a = -by_seen @ by_own
        by_image, by_own_b = _derivatives(image, self.cameras[self.groups[matches.b], 1:3])
        a, b = matches.a, matches.b
        focal_b = self.focals_px[b][:, None, None]
        by_ray = np.zeros((len(ray), 2, 3))
        by_ray[:, 0, 0] = by_ray[:, 1, 1] = 1 / ray[:, 2]
        by_ray[:, :, 2] = -ray[:, :2] / ray[:, 2:] ** 2
        by_world = focal_b * by_image @ by_ray @ np.swapaxes(self.rotations[b], 1, 2)
        by_turn = by_world @ _cross(world)
        by_plain = (by_world @ self.rotations[a])[:, :, :2]
        by_focal_a = -by_plain @ by_seen @ seen_a[:, :, None]
        by_focal_b = focal_b * seen_b[:, :, None]
        jacobian = np.concatenate(
            [
                -by_turn,
                by_focal_a,
                by_turn,
                by_focal_b,
                by_focal_a,
                by_plain @ by_own_a,
                -by_plain,
                by_focal_b,
                focal_b * by_own_b,
                focal_b * by_image,
            ],
            2,
        )
        first = matches.starts[:-1]
        parameters = [
            *(4 * number[:, None] + np.arange(4) for number in (a[first], b[first])),
            *(
                4 * self.count + _OWN * self.groups[number][:, None] + np.arange(_OWN)
                for number in (a[first], b[first])
            ),
        ]
        return predicted, jacobian, np.concatenate(parameters, 1)

    def _carry(self, matches: Bundle) -> tuple[Vector, ...]:
        """Points of a into b, and what was met on the way."""
        own_a, own_b = (self.cameras[self.groups[number], 1:] for number in (matches.a, matches.b))
        centre_a, centre_b = ((self.sizes[number] - 1) / 2 for number in (matches.a, matches.b))
        focal_a, focal_b = (self.focals_px[number][:, None] for number in (matches.a, matches.b))
        seen_a = (matches.xy_a - centre_a) / focal_a
        plain = _undistorted(seen_a, own_a[:, :2])
        ahead = np.concatenate([plain - own_a[:, 2:], np.ones((len(plain), 1))], 1)
        world = (self.rotations[matches.a] @ ahead[:, :, None])[:, :, 0]
        ray = (world[:, None] @ self.rotations[matches.b])[:, 0]
        ray[ray[:, 2] <= _LEAST_DEPTH * np.linalg.norm(ray, axis=1)] = np.nan
        image = ray[:, :2] / ray[:, 2:] + own_b[:, 2:]
        seen_b = image * _scale((image**2).sum(1), own_b)[:, None]
        return focal_b * seen_b + centre_b, seen_a, plain, world, ray, image, seen_b

    def prior(self) -> tuple[Vector, Vector]:
        own = self.cameras - np.column_stack([self.expected, np.zeros((len(self.cameras), _OWN - 1))])
        offset = np.concatenate([np.column_stack([np.zeros((self.count, 3)), self.focals]).ravel(), own.ravel()])
        spread = np.tile([_TURN_SPREAD] * 3 + [_OWN_SPREAD], self.count)
        own_spread = np.column_stack([self.spread, np.tile(_LENS_SPREAD, (len(self.cameras), 1))])
        return offset, 1 / np.concatenate([spread, own_spread.ravel()]) ** 2

    def moved(self, step: Vector) -> Cameras:
        turns, own = step[: 4 * self.count].reshape(-1, 4), step[4 * self.count :].reshape(-1, _OWN)
        rotations = np.array([_rotation(turn[:3]) @ old for turn, old in zip(turns, self.rotations, strict=True)])
        limit = np.array([_LARGEST_FOCAL_STEP, *[1.0] * (_OWN - 1)])
        return replace(
            self,
            rotations=rotations,
            focals=self.focals + turns[:, 3],
            cameras=self.cameras + np.clip(own, -limit, limit),
        )


def adjust_rotation(photos: Sequence[Photo], edges: Sequence[Edge]) -> Adjusted[Cameras]:
    """Place photos, all of which hang together by the edges, by turning cameras."""
    kinds = sorted({photo.camera for photo in photos})
    groups = np.array([kinds.index(photo.camera) for photo in photos])
    members = [[photo for photo in photos if photo.camera == kind] for kind in kinds]
    known = [each[0].focal_px for each in members]
    expected = np.log([focal or _USUAL_FOCAL * each[0].longer for focal, each in zip(known, members, strict=True)])
    spread = np.array([_EXIF_SPREAD if focal else _USUAL_SPREAD for focal in known])
    sizes = np.array([photo.size for photo in photos], float)
    longer = np.array([each[0].longer for each in members], float)
    few, many = bundle(edges, _FEW_A_CELL), bundle(edges, _MANY_A_CELL)
    starts: list[tuple[float, int, Cameras]] = []
    others = (np.log(longer * candidate) for candidate in _CANDIDATES)
    for log_focal in (expected, *(other for other in others if not np.allclose(other, expected))):
        cameras = np.column_stack([log_focal, np.zeros((len(kinds), _OWN - 1))])
        rotations = _averaged(few, sizes, np.exp(log_focal)[groups])
        start = Cameras(sizes, rotations, np.zeros(len(photos)), cameras, groups, expected, spread)
        starts.append((_misfit(start, few), len(starts), start))
    starts.sort(key=lambda each: each[:2])
    tried = [adjust(start, few, steps=_FEW_STEPS).model for _, _, start in starts[:_STARTS]]
    best = min(tried, key=lambda cameras: _misfit(cameras, few))
    return adjust(best, many, scales=_LAST_SCALES)


def _misfit(cameras: Cameras, matches: Bundle) -> float:
    """How badly a start fits: the pairs' median residuals, large ones counting by their logarithm."""
    offset, precision = cameras.prior()
    residuals = np.minimum(median_residuals(cameras, matches), _WORST_START_PX)
    return float(np.log1p((residuals / _GOOD_START_PX) ** 2).sum() + (offset**2 * precision).sum())


# --- rotations


def _averaged(matches: Bundle, sizes: npt.NDArray[np.float64], focals: Vector) -> npt.NDArray[np.float64]:
    """float64 N×3×3, camera to world, that agree best with the relative rotations of the pairs: the smallest
    eigenvectors of their graph's connection Laplacian (Singer 2011), a few times, pairs that disagree losing weight."""
    relative = _relative(matches, sizes, focals)
    first = matches.starts[:-1]
    pairs = list(zip(matches.a[first], matches.b[first], relative, strict=True))
    evidence = np.sqrt(np.minimum(matches.lengths, _MOST_EVIDENCE))
    weights = evidence.copy()
    rotations = np.tile(np.eye(3), (len(sizes), 1, 1))
    for _ in range(_AVERAGING_ROUNDS):
        laplacian = np.zeros((len(sizes), 3, len(sizes), 3))
        for (a, b, turn), weight in zip(pairs, weights, strict=True):
            laplacian[a, :, a] += weight * np.eye(3)
            laplacian[b, :, b] += weight * np.eye(3)
            laplacian[a, :, b] -= weight * turn.T
            laplacian[b, :, a] -= weight * turn
        vectors = np.linalg.eigh(laplacian.reshape(3 * len(sizes), -1))[1][:, :3]
        blocks = vectors.reshape(-1, 3, 3)
        if np.linalg.det(blocks).sum() < 0:
            blocks = blocks * [1, 1, -1]
        rotations = np.swapaxes(_nearest_rotations(blocks), 1, 2)
        angles = np.array([np.linalg.norm(rotations[a] - rotations[b] @ turn) for a, b, turn in pairs])
        weights = evidence / (1 + (angles / _AVERAGING_SCALE) ** 2)
    return rotations


def _relative(matches: Bundle, sizes: npt.NDArray[np.float64], focals: Vector) -> npt.NDArray[np.float64]:
    """E×3×3: rays of a to rays of b (Kabsch 1976), those that do not fit losing weight."""
    rays_a, rays_b = (
        _unit(np.column_stack([(xy - (sizes[numbers] - 1) / 2) / focals[numbers, None], np.ones(len(xy))]))
        for xy, numbers in ((matches.xy_a, matches.a), (matches.xy_b, matches.b))
    )
    products = rays_b[:, :, None] * rays_a[:, None]
    weights = np.ones(len(rays_a))
    for _ in range(_KABSCH_ROUNDS):
        sums = np.add.reduceat(products * weights[:, None, None], matches.starts[:-1])
        turns = _nearest_rotations(sums)
        turned = (np.repeat(turns, matches.lengths, axis=0) @ rays_a[:, :, None])[:, :, 0]
        angle = np.linalg.norm(rays_b - turned, axis=1)
        usual = np.array([max(float(median(angle[rows])), 1e-6) for rows in matches.edges])
        weights = 1 / (1 + (angle / np.repeat(usual, matches.lengths)) ** 2)
    return turns


def _unit(rays: Points) -> Points:
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _nearest_rotations(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """N×3×3, in the least squares sense."""
    left, _, right = np.linalg.svd(matrices)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    return np.asarray(left @ right)


def _rotation(vector: Vector) -> Matrix:
    """3×3 from an axis times its angle (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    cross = _cross(vector[None] / angle)[0]
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _cross(vectors: Points) -> npt.NDArray[np.float64]:
    """N×3×3: the matrices of v ×."""
    x, y, z = vectors.T
    zero = np.zeros(len(vectors))
    return np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1), np.stack([-y, x, zero], 1)], 1)


# --- distortion


def _scale(r2: Vector, own: npt.NDArray[np.float64]) -> Vector:
    """Distorted over plain radius at squared plain radii N, by k1, k2: N×2 or more."""
    return np.asarray(1 + r2 * (own[:, 0] + own[:, 1] * r2))


def _derivatives(
    plain: Points, own: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of the distorted points by the plain ones N×2×2, and by k1, k2 N×2×2."""
    r2 = (plain**2).sum(1)
    growth = 2 * own[:, 0] + 4 * own[:, 1] * r2
    by_plain = np.empty((len(plain), 2, 2))
    x, y = plain.T
    by_plain[:, 0, 0] = by_plain[:, 1, 1] = _scale(r2, own)
    by_plain[:, 0, 0] += growth * x * x
    by_plain[:, 1, 1] += growth * y * y
    by_plain[:, 0, 1] = by_plain[:, 1, 0] = growth * x * y
    by_k1 = plain * r2[:, None]
    return by_plain, np.stack([by_k1, by_k1 * r2[:, None]], 2)


def _undistorted(seen: Points, own: npt.NDArray[np.float64]) -> Points:
    """Plain points N×2 from distorted ones, by Newton's method on their radius."""
    radius = np.sqrt((seen**2).sum(1))
    plain = radius.copy()
    for _ in range(_NEWTON_STEPS):
        r2 = plain * plain
        slope = 1 + r2 * (3 * own[:, 0] + 5 * own[:, 1] * r2)
        plain -= (plain * _scale(r2, own) - radius) / slope
    return np.asarray(seen * (plain / np.maximum(radius, 1e-12))[:, None])
