"""Where small patches of one picture lie in another that is already aligned with it to a few pixels.

Keypoints are found anew in each picture, with an error of their own in each; a patch is compared as it is. On exact
warps of photos, a homography through patches is three times as exact as one through keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.local.geometry import inverse_2x2
from featkit.opencv import cv2

# Half the side of the square in which brightness and contrast are taken out, and of the patch itself, pixels. A patch
# half the size or twice the size is as good on exact warps and on warps with relief.
_NORMALISATION_RADIUS = 10
_PATCH_RADIUS = 7
# Standard deviations, pixels and grey levels: of the blur that makes a patch's gradients linear over half a pixel, and
# of what counts as no texture.
_BLUR = 0.8
_FLAT_VARIANCE = 4.0
# Smallest eigenvalue of the structure tensor of a normalised patch, per pixel: below, its place is not fixed both ways.
_LEAST_TEXTURE = 0.01
_SPACING = 6
_MOST_PATCHES = 1500
# A patch is followed this far, pixels, in one step.
_REACH = 3.0
_LEAST_RESIDUAL = 1e-4

_Gray = npt.NDArray[np.uint8]
_Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Displacements:
    """xy: float64 N×2, centres of patches in the moving picture, pixels. found: float64 N×2, where the fixed picture
    shows the same. covariance: float64 N×2×2, pixels², by the texture and what is left of the difference.
    correlation: float64 N in -1..1, of the patches as they lie, before they are moved.
    """

    xy: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.xy)


class PatchTracker:
    """Patches of a fixed picture, to be looked for in others that are nearly aligned with it (Lucas & Kanade 1981, one
    step, with brightness and contrast taken out locally)."""

    def __init__(self, fixed: _Gray, valid: npt.NDArray[np.bool_]) -> None:
        """fixed: uint8 H×W. valid: bool H×W, where patches may lie whole."""
        self._fixed = _normalised(fixed)
        self._gradient = cv2.filter2D(self._fixed, -1, _DERIVATIVE), cv2.filter2D(self._fixed, -1, _DERIVATIVE.T)
        horizontal, vertical = self._gradient
        tensor = [_mean(product) for product in (horizontal**2, horizontal * vertical, vertical**2)]
        self._rows, self._columns = _textured_places(tensor, valid)
        self._tensor = np.stack([each[self._rows, self._columns] for each in tensor], 1).astype(float)

    def __len__(self) -> int:
        return len(self._rows)

    def track(self, moving: _Gray) -> Displacements:
        """Where each patch lies in `moving` (uint8 H×W, the size of the fixed picture)."""
        at = self._rows, self._columns
        normalised = _normalised(moving)
        difference = self._fixed - normalised
        along = np.stack([_mean(each * difference)[at] for each in self._gradient], 1).astype(float)
        energy = _mean(difference**2)[at].astype(float)
        correlation = _mean(self._fixed * normalised)[at] / np.sqrt(
            np.maximum(_mean(self._fixed**2)[at] * _mean(normalised**2)[at], 1e-12)
        )
        inverse = inverse_2x2(np.stack([self._tensor[:, :2], self._tensor[:, 1:]], 1))
        step = np.einsum("nij,nj->ni", inverse, along)
        residual = np.maximum(energy - (along * step).sum(1), _LEAST_RESIDUAL)
        # Neighbouring pixels of a blurred picture are one observation.
        independent = (2 * _PATCH_RADIUS + 1) ** 2 / (1 + 4 * np.pi * _BLUR**2)
        covariance = inverse * (residual / independent)[:, None, None]
        near = (np.abs(step) < _REACH).all(1)
        xy = np.stack([self._columns, self._rows], 1).astype(float)
        return Displacements(xy[near], (xy - step)[near], covariance[near], correlation[near].astype(float))


_DERIVATIVE = np.array([[-0.5, 0, 0.5]], np.float32)


def _normalised(gray: _Gray) -> _Image:
    """Every pixel less the mean of its surroundings, over their standard deviation."""
    blurred: Any = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _BLUR)
    blurred -= _mean(blurred, _NORMALISATION_RADIUS)
    deviation = np.sqrt(_mean(blurred**2, _NORMALISATION_RADIUS) + _FLAT_VARIANCE)
    return np.asarray(blurred / deviation)


def _mean(image: npt.NDArray[Any], radius: int = _PATCH_RADIUS) -> _Image:
    return np.asarray(cv2.boxFilter(image, -1, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT_101))


def _textured_places(
    tensor: list[_Image], valid: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the local maxima of the structure tensor's smaller eigenvalue (Shi & Tomasi 1994)."""
    xx, xy, yy = tensor
    smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    margin = _PATCH_RADIUS + 3
    whole = cv2.erode(
        valid.astype(np.uint8), np.ones((2 * margin + 1,) * 2), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    smaller[whole == 0] = 0
    highest = cv2.dilate(smaller, np.ones((2 * _SPACING + 1,) * 2))
    rows, columns = np.nonzero((smaller == highest) & (smaller > _LEAST_TEXTURE))
    strongest = np.argsort(-smaller[rows, columns], kind="stable")[:_MOST_PATCHES]
    return rows[strongest], columns[strongest]
