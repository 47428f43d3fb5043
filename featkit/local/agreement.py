"""What two pictures themselves say about a transformation between them: whether they look alike under it, everywhere,
and whether they would under another one, too.

Keypoints that agree are no proof: a logo, a frame or a watermark on two unrelated photos gives hundreds, a chessboard
gives as many one period aside, and so does the one wall of a scene that is not plane. The pictures were not asked when
the keypoints were, so their answer is another witness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import resize, scale_to_fit, scaling, size_of, to_gray
from featkit.opencv import cv2

_Gray = npt.NDArray[np.float32]
_Matrix = npt.NDArray[np.floating]

# Pictures are compared at this longest side: a transformation that is right to 1 % then fits to 3 pixels, and a period
# of 10 pixels in a photo of 640 is still seen.
_SIDE = 256
# What is compared lies between these scales, standard deviations in pixels: neither noise nor light and shade.
_FINE, _COARSE = 1.0, 5.0
_GRID = 6
_LEAST_BLOCK = 8
# Grey levels: where neither picture has more contrast there is nothing to compare.
_LEAST_CONTRAST = 3.0
_SMALLEST_CONTRAST = 0.3
_ALIKE = 0.4
_LEAST_OVERLAP = 0.4
_SMALLEST_OVERLAP_PX = 100
_COVERED = 0.99
# A few pixels are left of a side: there is nothing to compare.
_MOST_SHRUNK = 64.0


@dataclass(frozen=True)
class Agreement:
    """alike: the share of the blocks with texture, over what both pictures show, that correlate by more than 0.4.
    blocks: how many those are, 36 at most. echo: the best correlation of the whole under another shift, as a share of
    that under the transformation: 1 for texture that repeats.

    Measured (tests/bench/degenerate.py and photos with truth): alike is at least .7 for planes and turning cameras,
    at most .6 where a logo, a frame or a watermark is all that two photos share; echo is at most .6 for photos, .85 for
    print, at least .94 for tilings.
    """

    alike: float
    blocks: int
    echo: float


def agreement(
    pixels_a: npt.NDArray[np.uint8],
    pixels_b: npt.NDArray[np.uint8],
    matrix: _Matrix,
    mask_a: npt.NDArray[np.bool_] | None = None,
    mask_b: npt.NDArray[np.bool_] | None = None,
    *,
    listen: bool = True,
) -> Agreement | None:
    """Compare two pictures, uint8 H×W×3 RGB or H×W grey, under a homography (3×3, pixels of a to pixels of b).

    mask_a, mask_b: bool H×W, where to look. listen: for the echo, which takes half of the time; 0 without. None where
    too little of one is seen in the other, or neither has any texture there.
    """
    (a, to_small_a), (b, to_small_b) = _small(pixels_a), _small(pixels_b)
    where_a, where_b = _small_mask(mask_a, a), _small_mask(mask_b, b)
    small = to_small_b @ matrix @ np.linalg.inv(to_small_a)
    centre = np.array([a.shape[1] / 2, a.shape[0] / 2, 1])
    area_scale = abs(np.linalg.det(small)) / max(abs(float(small[2] @ centre)) ** 3, 1e-12)
    if area_scale < 1:  # in the frame of the one that shows less detail
        a, b, small, area_scale = b, a, np.linalg.inv(small), 1 / area_scale
        where_a, where_b = where_b, where_a
    warped, covered = _warped(b, where_b, small, a.shape, area_scale)
    covered *= where_a > _COVERED
    if np.count_nonzero(covered) < _SMALLEST_OVERLAP_PX:
        return None
    seen_b = _detail(warped, covered)
    # Both cut alike: at the edge of what is covered, means are taken over one side alone.
    correlations = _block_correlations(_detail(a, covered), seen_b, covered > 0)
    if not len(correlations):
        return None
    echo = _echo(_detail(a, where_a), where_a, seen_b, covered) if listen else 0.0
    return Agreement(float((correlations > _ALIKE).mean()), len(correlations), echo)


def _small(pixels: npt.NDArray[np.uint8]) -> tuple[_Gray, _Matrix]:
    """Grey, reduced; and the matrix from pixels of the picture to those."""
    scale = scale_to_fit(size_of(pixels), _SIDE)
    gray = resize(to_gray(pixels), scale).astype(np.float32)
    return gray, scaling(scale)


def _small_mask(mask: npt.NDArray[np.bool_] | None, small: _Gray) -> _Gray:
    if mask is None:
        return np.ones_like(small)
    reduced = cv2.resize(mask.astype(np.float32), small.shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(reduced > _COVERED, np.float32)


def _warped(b: _Gray, where: _Gray, matrix: _Matrix, shape: tuple[int, ...], area_scale: float) -> tuple[_Gray, _Gray]:
    """b in the frame of a, and 1 where it is seen there, else 0."""
    shrink = min(math.sqrt(area_scale), _MOST_SHRUNK)
    if shrink > 1:  # half a pixel of blur a pixel of shrinking, or sampling would alias
        b = np.asarray(cv2.GaussianBlur(b, (0, 0), max(0.5 * math.sqrt(shrink**2 - 1), 0.1)), np.float32)
    size, flags = (shape[1], shape[0]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: Any = cv2.warpPerspective(b, matrix, size, flags=flags)
    covered: Any = cv2.warpPerspective(where, matrix, size, flags=flags)
    down, right = np.arange(shape[0]) * matrix[2, 1] + matrix[2, 2], np.arange(shape[1]) * matrix[2, 0]
    depth = np.add.outer(down, right)  # beyond the horizon OpenCV draws b a second time
    front = depth * np.sign(depth[shape[0] // 2, shape[1] // 2]) > 0
    return warped, ((covered > _COVERED) & front).astype(np.float32)


def _detail(gray: _Gray, where: _Gray) -> _Gray:
    """What is neither noise nor light and shade; averages are over what is seen, and the rest is 0."""

    def average(scale: float) -> Any:
        weight = cv2.GaussianBlur(where, (0, 0), scale)
        return cv2.GaussianBlur(gray * where, (0, 0), scale) / np.maximum(weight, np.float32(1e-3))

    detail: _Gray = (average(_FINE) - average(_COARSE)) * where
    return detail


def _block_correlations(a: _Gray, b: _Gray, covered: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Of each block of a grid over what is covered, where either has texture: -1..1."""
    left, top, width, height = cv2.boundingRect(covered.view(np.uint8))
    count = max(2, min(_GRID, min(width, height) // _LEAST_BLOCK))
    correlations = []
    for rows in np.array_split(np.arange(top, top + height), count):
        for columns in np.array_split(np.arange(left, left + width), count):
            block = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) and len(columns) else None
            if block is None or np.count_nonzero(covered[block]) < _LEAST_BLOCK**2 / 2:
                continue
            first, second = a[block][covered[block]], b[block][covered[block]]
            deviations = float(first.std()), float(second.std())
            if max(deviations) > _LEAST_CONTRAST:
                common = float(((first - first.mean()) * (second - second.mean())).mean())
                correlations.append(common / math.prod(max(each, _SMALLEST_CONTRAST) for each in deviations))
    return np.array(correlations)


def _echo(a: _Gray, where_a: _Gray, b: _Gray, where_b: _Gray) -> float:
    """The largest correlation at a shift, away from the peak at none, over that peak (Padfield 2012: with masks)."""
    size = cv2.getOptimalDFTSize(2 * a.shape[0]), cv2.getOptimalDFTSize(2 * a.shape[1])

    def spectrum(picture: _Gray) -> Any:
        padded = np.zeros(size, np.float32)
        padded[: a.shape[0], : a.shape[1]] = picture
        return cv2.dft(padded)

    def correlated(first: Any, second: Any) -> Any:
        return cv2.idft(cv2.mulSpectrums(first, second, 0, conjB=True), flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)

    here, there = spectrum(where_a), spectrum(where_b)
    common = correlated(spectrum(a), spectrum(b))
    energy = correlated(spectrum(a * a), there), correlated(here, spectrum(b * b))
    overlap = correlated(here, there)
    with np.errstate(invalid="ignore"):
        correlation = common / np.sqrt(np.maximum(energy[0], 1.0) * np.maximum(energy[1], 1.0))
    correlation[overlap < _LEAST_OVERLAP * float(where_b.sum())] = -1
    peak = float(correlation[np.ix_((-1, 0, 1), (-1, 0, 1))].max())
    if peak <= 0:
        return 1.0
    # The peak is all that hangs together with it at half its height.
    centred = np.roll(correlation, (size[0] // 2, size[1] // 2), (0, 1))
    middle = size[0] // 2, size[1] // 2
    _, labels = cv2.connectedComponents((centred > peak / 2).astype(np.uint8))
    centred[labels == labels[middle]] = -1
    centred[max(0, middle[0] - 3) : middle[0] + 4, max(0, middle[1] - 3) : middle[1] + 4] = -1
    return min(1.0, max(0.0, float(centred.max())) / peak)
