"""A photo as the canvas shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import Pixels
from featkit.opencv import cv2
from featkit.stitching.exposure import Exposure
from featkit.stitching.overlaps import radii
from featkit.stitching.photos import Raster
from featkit.stitching.pieces import Mask
from featkit.stitching.projection import Layout, Region
from featkit.stitching.views import View

# Where each pixel comes from is computed at every eighth and interpolated linearly: off by at most 8² / 8 f, .02 pixel
# for a focal length of 400. OpenCV's cubic interpolation does not even keep a straight line, and is off by .4.
_STEP = 8
_OUTSIDE = -1e4
# Pixels to each side that cubic interpolation looks at.
_KERNEL = 2


def warp(
    photo: Raster, number: int, view: View, layout: Layout, region: Region, exposure: Exposure | None = None
) -> tuple[Pixels, Mask]:
    """A window of the canvas as one photo shows it: uint8 h×w×3 RGB, and bool h×w where it shows anything.

    photo: at any size, of which no more is read than is needed. view: of its full size. region: x may lie beyond a full
    circle's canvas.
    """
    cells = _whole_cells(region)
    xy = _sources(view, layout, cells)
    width, height = photo.size
    shown = _upsampled(_resized_points(xy, view.size, (width, height)), cells, region)
    x, y = shown[:, :, 0].copy(), shown[:, :, 1].copy()
    mask = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if not mask.any():
        return np.zeros((region.height, region.width, 3), np.uint8), mask
    left, top, right, bottom = _needed(x[mask], y[mask], photo.size)
    part = photo.read(left, top, right - left, bottom - top)
    warped: Any = cv2.remap(part, x - left, y - top, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if exposure is not None:
        inner = np.nan_to_num(xy[1:-1, 1:-1], nan=0.0, posinf=0.0, neginf=0.0)
        radius = np.minimum(radii(inner[:, :, 0], inner[:, :, 1], view.size), 1)
        left, top = region.x - cells.x, region.y - cells.y
        margins = top, cells.bottom - region.bottom, left, cells.right - region.right
        padded = np.asarray(cv2.copyMakeBorder(warped, *margins, cv2.BORDER_REPLICATE), np.uint8)
        warped = exposure.apply(number, padded, radius)[top : top + region.height, left : left + region.width]
    return warped, mask


def _needed(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that interpolation looks at."""
    return (
        max(int(x.min()) - _KERNEL, 0),
        max(int(y.min()) - _KERNEL, 0),
        min(int(x.max()) + _KERNEL + 2, size[0]),
        min(int(y.max()) + _KERNEL + 2, size[1]),
    )


def _whole_cells(region: Region) -> Region:
    """The cells of 8 × 8 pixels of the canvas that a region touches. Wherever a window begins, its pixels come from the
    same places: tiles agree to the last bit."""
    x, y = (first // _STEP * _STEP for first in (region.x, region.y))
    right, bottom = (-(-last // _STEP) * _STEP for last in (region.right, region.bottom))
    return Region(x, y, right - x, bottom - y)


def _sources(view: View, layout: Layout, cells: Region) -> npt.NDArray[np.float64]:
    """Pixels of the full-size photo, at the centres of cells of 8 × 8 pixels and of one more around; NaN where it shows
    nothing."""
    across, down = (
        first + _STEP * np.arange(-1, length // _STEP + 1) + (_STEP - 1) / 2
        for first, length in ((cells.x, cells.width), (cells.y, cells.height))
    )
    nodes = np.stack(np.meshgrid(across, down), -1)
    rays = layout.rays(nodes.reshape(-1, 2))
    xy = view.project(np.nan_to_num(rays))
    xy[~np.isfinite(rays).all(1) | ~np.isfinite(xy).all(1)] = np.nan
    return np.asarray(xy.reshape(nodes.shape))


def _resized_points(
    xy: npt.NDArray[np.float64], full: tuple[int, int], actual: tuple[int, int]
) -> npt.NDArray[np.float64]:
    if full == actual:
        return xy
    return np.asarray((xy + 0.5) * (np.array(actual) / full) - 0.5)


def _upsampled(nodes: npt.NDArray[np.float64], cells: Region, region: Region) -> npt.NDArray[np.float32]:
    size = nodes.shape[1] * _STEP, nodes.shape[0] * _STEP
    dense: Any = cv2.resize(nodes.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    x, y = region.x - cells.x + _STEP, region.y - cells.y + _STEP
    cut = np.ascontiguousarray(dense[y : y + region.height, x : x + region.width])
    cv2.patchNaNs(cut, _OUTSIDE)
    return cut
