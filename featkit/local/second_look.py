"""A second look at two pictures whose transformation is roughly known.

a is warped into the frame of b by a first estimate. There both show the same at the same size and angle, so keypoints
are found that the viewpoint hid, are matched only within a few pixels, and patches can be compared directly. What is
left of the transformation is then fitted to both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import rescale_points, resize, scaling, size_of, to_gray
from featkit.local.agreement import agreement
from featkit.local.features import DetectorConfig, Features, detect
from featkit.local.geometry import (
    Fit,
    GeometryConfig,
    area_scale,
    corners_of,
    fit_displacements,
    median,
    one_to_one,
    refine,
    symmetric_distance,
    transform,
)
from featkit.local.matching import root_sift
from featkit.local.patches import Displacements, PatchTracker
from featkit.local.verdict import NOTHING_FOUND, Confirmation
from featkit.opencv import cv2

#: Raise when the same pictures and first estimate would give another second look: it is part of the cache key.
VERSION = 1

# Matches are sought within this distance, pixels of the frame; sizes may differ by this factor; RootSIFT descriptors of
# the same place have at least this product.
_RADIUS = 8.0
_SIZE_FACTOR = 1.6
_LEAST_SIMILARITY = 0.7
# In the frame: position noise of a SIFT keypoint of median size beside a patch's own covariance, pixels, and the growth
# of it with size.
_KEYPOINT_NOISE_PX = 0.5
_SIZE_EXPONENT = 0.5
_FEWEST_MATCHES = 8
_FEWEST_PATCHES = 20
_KEYPOINT_GATE = 4.0
# (scale, steps): one at half the size brings errors of several pixels within reach of those at full size.
_SCALES = ((0.5, 1), (1.0, 2))
# Above this scale of the frame the features of b are those of the frame.
_SAME_SCALE = 0.9
# Reducing a picture by less than this before it is warped gains nothing over the bicubic kernel.
_LEAST_REDUCTION = 0.75
# Pixels of a's outline that are kept around it in the frame.
_FRAME_MARGIN = 16
_SMALLEST_FRAME = 32
# Warped pixels this close to a's border are partly made up.
_BORDER = 3

_Gray = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True)
class SecondLook:
    """matrix: float64 3×3, a to b, and uncertainty_px: expected mean corner error in b; both are None where too little
    was found to improve on what was known. confirmation: what speaks for the transformation, improved or not."""

    matrix: _Matrix | None
    uncertainty_px: float | None
    confirmation: Confirmation

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same as named arrays, for the cache."""
        arrays = {"confirmation": np.array([float(value) for value in astuple(self.confirmation)])}
        if self.matrix is not None:
            arrays |= {"matrix": self.matrix, "uncertainty_px": np.array(self.uncertainty_px)}
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> SecondLook:
        """The inverse of `to_arrays`; KeyError where an array is missing."""
        matches, agreeing, patches, correlation, alike, blocks, echo = (float(v) for v in arrays["confirmation"])
        confirmation = Confirmation(int(matches), int(agreeing), int(patches), correlation, alike, int(blocks), echo)
        if "matrix" not in arrays:
            return SecondLook(None, None, confirmation)
        return SecondLook(arrays["matrix"], float(arrays["uncertainty_px"]), confirmation)


def look_again(
    a: npt.NDArray[np.uint8],
    b: npt.NDArray[np.uint8],
    matrix: _Matrix,
    config: GeometryConfig,
    *,
    max_side: int = DetectorConfig.max_side,
    features_b: Features | None = None,
    mask_a: _Mask | None = None,
    mask_b: _Mask | None = None,
) -> SecondLook:
    """Improve a transformation of a to b that is right to a few pixels, and see what speaks for it.

    a, b: uint8 H×W×3 RGB, or H×W grey. matrix: 3×3, pixels of a to pixels of b. features_b: of the first look; SIFT is
    not detected twice. mask_a, mask_b: bool H×W, where to look.
    """
    a, b = to_gray(a), to_gray(b)
    frame = _frame(size_of(a), size_of(b), matrix, max_side)
    if frame is None:
        return SecondLook(None, None, NOTHING_FOUND)
    found = _correct(a, b, matrix, frame, config, features_b, mask_a, mask_b)
    confirmation = NOTHING_FOUND if found is None else found[1]
    refined, uncertainty = None, None
    if found is not None and confirmation.improves:
        to_frame = frame.from_b @ matrix
        uncertainty = found[0].uncertainty(transform(to_frame, corners_of(size_of(a))))
        if uncertainty is not None:
            uncertainty /= frame.scale
            refined = np.linalg.inv(frame.from_b) @ found[0].matrix @ to_frame
            refined /= refined[2, 2]
    seen = agreement(a, b, matrix if refined is None else refined, mask_a, mask_b)
    if seen is not None:
        confirmation = replace(confirmation, alike=seen.alike, blocks=seen.blocks, echo=seen.echo)
    return SecondLook(refined, uncertainty, confirmation)


def _correct(
    a: npt.NDArray[np.uint8],
    b: npt.NDArray[np.uint8],
    matrix: _Matrix,
    frame: _Frame,
    config: GeometryConfig,
    features_b: Features | None,
    mask_a: _Mask | None,
    mask_b: _Mask | None,
) -> tuple[Fit, Confirmation] | None:
    """The correction that lays the warped a on b, in the frame, and what it rests on; None where that is too little."""
    to_frame = frame.from_b @ matrix
    fixed = frame.cut(b)
    inside_b = np.ones(fixed.shape, bool) if mask_b is None else frame.cut(mask_b.astype(np.uint8) * 255) >= 128
    source, from_a = _reduced(a, area_scale(to_frame, size_of(a)))
    inside_a = np.full(source.shape, 255, np.uint8) if mask_a is None else _like(mask_a, source)
    seen = _overlap(inside_a, inside_b, to_frame @ from_a)

    of_a = _sift(_warp(source, to_frame @ from_a, fixed.shape), seen)
    known = features_b is not None and features_b.detector == "sift" and frame.scale > _SAME_SCALE
    of_b = _in_frame(features_b, frame, seen) if features_b is not None and known else _sift(fixed, seen)
    keypoints = _match_near(of_a, of_b)
    if len(keypoints.xy_a) < _FEWEST_MATCHES:
        return None
    fit, patches = _fit_patches(keypoints, source, fixed, seen, to_frame @ from_a, config)
    if fit is None:
        return None
    agreeing = symmetric_distance(fit.matrix, keypoints.xy_a, keypoints.xy_b) <= config.threshold
    confirmation = replace(NOTHING_FOUND, matches=len(keypoints.xy_a), agreeing=int(agreeing.sum()))
    if patches is not None:
        middle = float(median(patches.correlation))
        confirmation = replace(confirmation, patches=len(patches), correlation=middle)
    return fit, confirmation


# --- the frame in which both pictures are compared


@dataclass(frozen=True)
class _Frame:
    """b, reduced to the resolution of a where that is lower, and cut to what a shows of it. scale: frame pixels per
    pixel of b. from_b: 3×3. corner: of the cut in the reduced b. size: (width, height)."""

    scale: float
    corner: tuple[int, int]
    size: tuple[int, int]

    @property
    def from_b(self) -> _Matrix:
        return _translation(-self.corner[0], -self.corner[1]) @ scaling(self.scale)

    def cut(self, image: _Gray) -> _Gray:
        (x, y), (width, height) = self.corner, self.size
        reduced = image if self.scale == 1 else resize(image, self.scale)
        return np.ascontiguousarray(reduced[y : y + height, x : x + width])


def _frame(size_a: tuple[int, int], size_b: tuple[int, int], matrix: _Matrix, max_side: int) -> _Frame | None:
    magnification = np.sqrt(abs(area_scale(matrix, size_a)))
    if not np.isfinite(magnification) or magnification == 0:
        return None
    limit = max_side / max(size_b) if max_side else 1.0
    scale = float(min(1.0, 1 / magnification, limit))
    width, height = (max(1, round(side * scale)) for side in size_b)
    outline = _outline(size_a)
    homogeneous = np.column_stack([outline, np.ones(len(outline))]) @ (scaling(scale) @ matrix).T
    depth = homogeneous[:, 2] * np.sign(matrix[2] @ [(size_a[0] - 1) / 2, (size_a[1] - 1) / 2, 1])
    low, high = np.zeros(2), np.array([width, height], float)
    if (depth > 0).all():
        shown = homogeneous[:, :2] / homogeneous[:, 2:]
        low = np.clip(np.floor(shown.min(0)) - _FRAME_MARGIN, 0, high)
        high = np.clip(np.ceil(shown.max(0)) + _FRAME_MARGIN, 0, high)
    x, y, columns, rows = (int(v) for v in (*low, *(high - low)))
    return None if min(columns, rows) < _SMALLEST_FRAME else _Frame(scale, (x, y), (columns, rows))


def _outline(size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Points around a (width, height) picture: a curved side of a warped one may reach further than its ends."""
    start = corners_of(size)
    along = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    return np.asarray((start + along * (np.roll(start, -1, 0) - start)).reshape(-1, 2))


def _translation(x: float, y: float) -> _Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def _reduced(gray: _Gray, area: float) -> tuple[_Gray, _Matrix]:
    """A picture that is going to be warped, without the detail that would alias; and from its pixels to the original's,
    3×3."""
    scale = float(np.sqrt(abs(area)))
    if scale > _LEAST_REDUCTION:
        return gray, np.eye(3)
    return resize(gray, scale), scaling(1 / scale)


def _like(mask: _Mask, gray: _Gray) -> _Gray:
    return np.asarray(cv2.resize(mask.astype(np.uint8) * 255, gray.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _warp(gray: _Gray, matrix: _Matrix, shape: tuple[int, ...]) -> _Gray:
    size = shape[1], shape[0]
    return np.asarray(
        cv2.warpPerspective(gray, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _overlap(inside_a: _Gray, inside_b: _Mask, matrix: _Matrix) -> _Mask:
    """bool H×W in the frame: what both pictures show, a border of a left out."""
    shape = inside_b.shape
    within = cv2.warpPerspective(inside_a, matrix, (shape[1], shape[0]), flags=cv2.INTER_NEAREST)
    kernel = np.ones((2 * _BORDER + 1,) * 2)
    within = cv2.erode(within, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return np.asarray((within >= 128) & inside_b)


# --- keypoints


@dataclass(frozen=True)
class _Keypoints:
    """Matches in the frame: xy_a (in the warped a), xy_b float64 N×2; sizes N×2."""

    xy_a: npt.NDArray[np.float64]
    xy_b: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]


def _sift(gray: _Gray, seen: _Mask) -> Features:
    return _seen(detect(np.repeat(gray[:, :, None], 3, 2), DetectorConfig(max_side=0)), seen)


def _in_frame(features: Features, frame: _Frame, seen: _Mask) -> Features:
    """Features of b as the frame shows them."""
    return _seen(
        replace(features, xy=(rescale_points(features.xy, frame.scale) - frame.corner).astype(np.float32)), seen
    )


def _seen(features: Features, seen: _Mask) -> Features:
    height, width = seen.shape
    column, row = np.floor(features.xy + 0.5).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside[inside] = seen[row[inside], column[inside]]
    return replace(
        features,
        xy=features.xy[inside],
        size=features.size[inside],
        angle=features.angle[inside],
        descriptors=features.descriptors[inside],
    )


def _match_near(a: Features, b: Features) -> _Keypoints:
    """Mutually most similar keypoints within the search radius, one to one."""
    rows_a, rows_b = _near(a.xy, b.xy, _RADIUS)
    alike = np.abs(np.log(a.size[rows_a] / b.size[rows_b])) < np.log(_SIZE_FACTOR)
    rows_a, rows_b = rows_a[alike], rows_b[alike]
    similarity = np.einsum("nd,nd->n", root_sift(a.descriptors)[rows_a], root_sift(b.descriptors)[rows_b])
    best_a, best_b = np.zeros(len(a), np.float32), np.zeros(len(b), np.float32)
    np.maximum.at(best_a, rows_a, similarity)
    np.maximum.at(best_b, rows_b, similarity)
    keep = (similarity >= best_a[rows_a]) & (similarity >= best_b[rows_b]) & (similarity > _LEAST_SIMILARITY)
    rows_a, rows_b, similarity = rows_a[keep], rows_b[keep], similarity[keep]
    xy_a, xy_b = a.xy[rows_a].astype(float), b.xy[rows_b].astype(float)
    distinct = one_to_one(xy_a, xy_b, similarity)
    sizes = np.stack([a.size[rows_a], b.size[rows_b]], 1).astype(float)
    return _Keypoints(xy_a[distinct], xy_b[distinct], sizes[distinct])


def _near(
    a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of N×2 and M×2 points that lie within a radius of each other, by a grid of cells of that size."""
    cells_a, cells_b = (np.floor(points / radius).astype(np.int64) + 1 for points in (a, b))
    across = max(int(cells[:, 0].max(initial=0)) for cells in (cells_a, cells_b)) + 2
    numbers_b = cells_b @ [1, across]
    order = np.argsort(numbers_b, kind="stable")
    pairs_a, pairs_b = [], []
    for step in (column + row * across for row in (-1, 0, 1) for column in (-1, 0, 1)):
        wanted = cells_a @ [1, across] + step
        first = np.searchsorted(numbers_b[order], wanted, "left")
        count = np.searchsorted(numbers_b[order], wanted, "right") - first
        rows = np.repeat(np.arange(len(a)), count)
        position = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        pairs_a.append(rows)
        pairs_b.append(order[np.repeat(first, count) + position])
    rows_a, rows_b = np.concatenate(pairs_a), np.concatenate(pairs_b)
    within = ((a[rows_a] - b[rows_b]) ** 2).sum(1) <= radius**2
    return rows_a[within], rows_b[within]


def _fit_patches(
    keypoints: _Keypoints,
    source: _Gray,
    fixed: _Gray,
    seen: _Mask,
    to_frame: _Matrix,
    config: GeometryConfig,
) -> tuple[Fit | None, Displacements | None]:
    """The correction in the frame that lays the warped a on b, by patches and keypoints together, and those patches.

    to_frame: pixels of `source` to the frame. Where there is too little texture for patches, the keypoints decide.
    """
    fit = refine(np.eye(3), keypoints.xy_a, keypoints.xy_b, keypoints.sizes, config)
    if fit is None:
        return None, None
    near = symmetric_distance(fit.matrix, keypoints.xy_a, keypoints.xy_b) <= _KEYPOINT_GATE * config.threshold
    diameter = keypoints.sizes[near].max(1)
    noise = _KEYPOINT_NOISE_PX * (diameter / median(diameter)) ** _SIZE_EXPONENT
    keypoint_covariance = noise[:, None, None] ** 2 * np.eye(2)
    patches = None
    for scale, steps in _SCALES:
        small = resize(fixed, scale) if scale < 1 else fixed
        tracker = PatchTracker(small, _at_scale(seen, small.shape))
        if len(tracker) < _FEWEST_PATCHES:
            continue
        smaller, from_smaller = _reduced(source, area_scale(scaling(scale) @ fit.matrix @ to_frame, source.shape[::-1]))
        for _ in range(steps):
            found = tracker.track(_warp(smaller, scaling(scale) @ fit.matrix @ to_frame @ from_smaller, small.shape))
            if len(found) < _FEWEST_PATCHES:
                break
            better = fit_displacements(
                fit.matrix,
                np.concatenate(
                    [transform(np.linalg.inv(fit.matrix), rescale_points(found.xy, 1 / scale)), keypoints.xy_a[near]]
                ),
                np.concatenate([rescale_points(found.found, 1 / scale), keypoints.xy_b[near]]),
                np.concatenate([found.covariance / scale**2, keypoint_covariance]),
                config.model,
            )
            if better is None:
                break
            fit, patches = better, found
    return fit, patches


def _at_scale(mask: _Mask, shape: tuple[int, ...]) -> _Mask:
    resized = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized > 0)
