"""What two overlapping photos show of the same places, to some hundredths of a pixel, and what speaks against them.

Keypoints say roughly how one photo lies on the other. Then the one is warped onto the other, coarsely first, and small
patches are compared (local/patches.py): each gives a place in both photos, and how exactly. The keypoints stay as other
witnesses; a fifth of them is kept from the adjustment, to measure it with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import rescale_points, resize, scale_to_fit, scaling, size_of
from featkit.local.agreement import agreement
from featkit.local.geometry import area_scale, corners_of, fit_displacements, median, transform
from featkit.local.patches import Displacements, PatchTracker
from featkit.opencv import cv2
from featkit.stitching.views import Matrix, Points

#: Raise when the same photos and matches would give another tie: it is part of the cache key.
VERSION = 1

# Longest sides at which patches are compared. The first brings errors of ten pixels within reach of the second, which
# is taken twice where patches had to be moved by more than this, pixels of the reduced photo.
_LOOKS = (320, 800)
_FAR = 0.7
_MOST_STEPS = 2
_FEWEST_PATCHES = 12
# Patches that look different, as a person who has walked on, and those that lie where a photo is burnt out.
_LEAST_CORRELATION = 0.5
_BURNT = 250
# Pixels: to the edge of a warped photo; of a fitted map.
_BORDER = 3
_SMALLEST_OVERLAP = 24
# Keypoints that are this share of the diagonal away from where the patches' map has them are no matches: parallax moves
# things by 1 %, seldom by more.
_KEYPOINT_GATE = 0.015
# Standard deviation of a SIFT keypoint, pixels of the picture that it was looked for in, for one of median size.
_KEYPOINT_NOISE = 0.6
_HELD_OUT = 5
# Of the grid that matches are chosen from; and how many of each cell say where one photo lies on the other.
_GRID = 10
_EACH_CELL = 3

_Gray = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Correspondences:
    """xy_a, xy_b: float64 N×2, pixels of the full-size photos. covariance: float64 N×2×2, of xy_b, pixels²."""

    xy_a: Points
    xy_b: Points
    covariance: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.xy_a)

    def __getitem__(self, rows: Any) -> Correspondences:
        return Correspondences(self.xy_a[rows], self.xy_b[rows], self.covariance[rows])

    def rescaled(self, scale_a: float, scale_b: float) -> Correspondences:
        """The same in resized photos."""
        xy_a, xy_b = rescale_points(self.xy_a, scale_a), rescale_points(self.xy_b, scale_b)
        return Correspondences(xy_a, xy_b, self.covariance * scale_b**2)

    def joined(self, other: Correspondences) -> Correspondences:
        """Both, one after the other."""
        return Correspondences(
            np.concatenate([self.xy_a, other.xy_a]),
            np.concatenate([self.xy_b, other.xy_b]),
            np.concatenate([self.covariance, other.covariance]),
        )


@dataclass(frozen=True)
class Tie:
    """What ties photo a to photo b. used: for the adjustment; held_out: matches that it never sees. correlation: median
    of the patches, -1..1. alike, blocks: how the photos look where one is laid over the other (local/agreement.py)."""

    used: Correspondences
    held_out: Correspondences
    matrix: Matrix
    patches: int
    correlation: float
    alike: float
    blocks: int

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same as named arrays, for the cache."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"matrix": np.asarray(self.matrix)}
        for name, part in (("used", self.used), ("held_out", self.held_out)):
            arrays |= {f"{name}_a": part.xy_a, f"{name}_b": part.xy_b, f"{name}_covariance": part.covariance}
        arrays["found"] = np.array([self.patches, self.correlation, self.alike, self.blocks], float)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Tie:
        """The inverse of `to_arrays`; KeyError where an array is missing."""
        used, held_out = (
            Correspondences(arrays[f"{name}_a"], arrays[f"{name}_b"], arrays[f"{name}_covariance"])
            for name in ("used", "held_out")
        )
        patches, correlation, alike, blocks = (float(value) for value in arrays["found"])
        return Tie(used, held_out, arrays["matrix"], int(patches), correlation, alike, int(blocks))


@dataclass(frozen=True)
class Reduced:
    """A photo as it is compared. gray: uint8 H×W. scale: of its pixels to those of the full-size photo, at most 1."""

    gray: _Gray
    scale: float

    @staticmethod
    def of(gray: _Gray) -> Reduced:
        """Of a full-size photo, uint8 H×W."""
        scale = scale_to_fit(size_of(gray), _LOOKS[-1])
        return Reduced(gray if scale == 1 else resize(gray, scale), scale)


def tie(a: Reduced, b: Reduced, matrix: Matrix, keypoints: Correspondences, seed: int = 0) -> Tie:
    """Compare two photos whose homography (3×3, pixels of the full-size a to b) is right to some pixels.

    keypoints: their matched keypoints, right and wrong, in pixels of the full-size photos.
    """
    small = scaling(b.scale) @ matrix @ np.linalg.inv(scaling(a.scale))
    found = _tie(a.gray, b.gray, small, keypoints.rescaled(a.scale, b.scale), seed)
    return replace(
        found,
        used=found.used.rescaled(1 / a.scale, 1 / b.scale),
        held_out=found.held_out.rescaled(1 / a.scale, 1 / b.scale),
        matrix=np.linalg.inv(scaling(b.scale)) @ found.matrix @ scaling(a.scale),
    )


def _tie(a: _Gray, b: _Gray, matrix: Matrix, keypoints: Correspondences, seed: int) -> Tie:
    patches: Correspondences | None = None
    correlation = 0.0
    for longest_side in _LOOKS:
        for _ in range(_MOST_STEPS):
            found = _compare(a, b, matrix, longest_side)
            if found is None or len(found[0]) < _FEWEST_PATCHES:
                break
            sample = spread(found[0], _EACH_CELL)
            better = fit_displacements(matrix, sample.xy_a, sample.xy_b, sample.covariance, "homography")
            if better is None:
                break
            (patches, correlation), before, matrix = found, matrix, better.matrix
            moved = float(median(np.linalg.norm(transform(before, patches.xy_a) - patches.xy_b, axis=1)))
            if moved * scale_to_fit(size_of(b), longest_side) < _FAR:
                break
        if longest_side >= max(*size_of(a), *size_of(b)):
            break
    seen = agreement(a, b, matrix, listen=False)
    kept, held_out = _split(_near(keypoints, matrix, size_of(b)), seed)
    return Tie(
        used=kept if patches is None else patches.joined(kept),
        held_out=held_out,
        matrix=matrix,
        patches=0 if patches is None else len(patches),
        correlation=correlation,
        alike=0.0 if seen is None else seen.alike,
        blocks=0 if seen is None else seen.blocks,
    )


def spread(matches: Correspondences, each_cell: int) -> Correspondences:
    """At most 100 · each_cell of them, spread over what both photos show: the most exact of each cell of a grid."""
    if not len(matches):
        return matches
    low, high = matches.xy_b.min(0), matches.xy_b.max(0)
    cells = np.clip((matches.xy_b - low) / np.maximum(high - low, 1e-9) * _GRID, 0, _GRID - 1).astype(np.int64)
    cell = cells @ [1, _GRID]
    order = np.lexsort((np.trace(matches.covariance, axis1=1, axis2=2), cell))
    rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return matches[np.sort(order[rank < each_cell])]


def keypoint_covariance(sizes: npt.NDArray[np.floating], scale: float) -> npt.NDArray[np.float64]:
    """float64 N×2×2, pixels² of the full-size photo, from N keypoint diameters there; scale: of the picture that they
    were looked for in. Noise grows with the square root of the size, as local/geometry.py has it."""
    if not len(sizes):
        return np.zeros((0, 2, 2))
    variance = (_KEYPOINT_NOISE / scale) ** 2 * sizes / median(sizes)
    return np.asarray(variance[:, None, None] * np.eye(2), float)


def _near(keypoints: Correspondences, matrix: Matrix, size_b: tuple[int, int]) -> Correspondences:
    distance = np.linalg.norm(transform(matrix, keypoints.xy_a) - keypoints.xy_b, axis=1)
    return keypoints[distance < _KEYPOINT_GATE * np.hypot(*size_b)]


def _split(matches: Correspondences, seed: int) -> tuple[Correspondences, Correspondences]:
    """Four fifths and one fifth, at random."""
    order = np.random.default_rng(seed).permutation(len(matches))
    out = order[: len(matches) // _HELD_OUT]
    return matches[np.setdiff1d(order, out, assume_unique=True)], matches[np.sort(out)]


def _compare(a: _Gray, b: _Gray, matrix: Matrix, longest_side: int) -> tuple[Correspondences, float] | None:
    """Patches of both at this size of b, or at that of a if it shows less detail; and their median correlation."""
    scale_b = scale_to_fit(size_of(b), longest_side)
    detail = np.sqrt(abs(area_scale(matrix, size_of(a))))
    if not np.isfinite(detail) or detail < 1e-3:
        return None
    scale_b = min(scale_b, 1 / detail)
    scale_a = min(1.0, scale_b * detail)
    small_a, small_b = (
        picture if scale == 1 else resize(picture, scale) for picture, scale in ((a, scale_a), (b, scale_b))
    )
    small = scaling(scale_b) @ matrix @ np.linalg.inv(scaling(scale_a))
    region = _overlap(size_of(small_a), size_of(small_b), small)
    if region is None:
        return None
    x, y, width, height = region
    to_region = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], float) @ small
    flags = cv2.INTER_CUBIC
    warped = cv2.warpPerspective(small_a, to_region, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    fixed = np.ascontiguousarray(small_b[y : y + height, x : x + width])
    tracker = PatchTracker(fixed, _comparable(warped, fixed, small_a, to_region))
    if len(tracker) < _FEWEST_PATCHES:
        return None
    found = tracker.track(np.asarray(warped, np.uint8))
    if not len(found):
        return None
    correlation = float(median(found.correlation))
    return _full_size(found, region, small, scale_a, scale_b), correlation


def _comparable(warped: Any, fixed: _Gray, a: _Gray, to_region: Matrix) -> _Mask:
    """bool H×W: where both show something that is neither the edge nor burnt out."""
    size = fixed.shape[1], fixed.shape[0]
    inside = cv2.warpPerspective(np.full(a.shape, 255, np.uint8), to_region, size, flags=cv2.INTER_NEAREST)
    seen = (inside == 255) & (warped < _BURNT) & (fixed < _BURNT)
    kernel = np.ones((2 * _BORDER + 1,) * 2, np.uint8)
    opened: Any = cv2.erode(seen.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray(opened > 0)


def _full_size(
    found: Displacements, region: tuple[int, int, int, int], small: Matrix, scale_a: float, scale_b: float
) -> Correspondences:
    alike = found.correlation > _LEAST_CORRELATION
    corner = np.array(region[:2], float)
    in_a = transform(np.linalg.inv(small), found.xy[alike] + corner)
    in_b = found.found[alike] + corner
    return Correspondences(
        rescale_points(in_a, 1 / scale_a), rescale_points(in_b, 1 / scale_b), found.covariance[alike] / scale_b**2
    )


def _overlap(size_a: tuple[int, int], size_b: tuple[int, int], matrix: Matrix) -> tuple[int, int, int, int] | None:
    """x, y, width, height in b of what a shows of it; None where that is hardly anything."""
    centre = np.array([(size_a[0] - 1) / 2, (size_a[1] - 1) / 2, 1])
    corners = np.column_stack([corners_of(size_a), np.ones(4)])
    depth = corners @ matrix[2] * np.sign(matrix[2] @ centre)
    low, high = np.zeros(2), np.array(size_b, float) - 1
    if (depth > 0).all():
        shown = transform(matrix, corners[:, :2])
        low, high = np.maximum(low, np.floor(shown.min(0))), np.minimum(high, np.ceil(shown.max(0)))
    x, y = low.astype(int)
    width, height = (high - low).astype(int) + 1
    return (x, y, width, height) if min(width, height) >= _SMALLEST_OVERLAP else None
