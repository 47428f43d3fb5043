"""The panorama itself, tile by tile: photos warped, their exposure corrected, cut at the seams and blended.

Blending is in two parts. The coarse octaves, which make a step in a sky vanish over a good part of a photo, are blended
once, on the reduced canvas (`coarse_corrections`): what that changes of each photo is a smooth picture, which is added
to it when it is drawn. The fine ones are blended at full size, and reach no farther than some reduced pixels. A tile is
made with a halo, as wide as blending reaches, so that tiles join as if there were none; on a full circle the halo of
the leftmost comes from the far right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.canvas import Canvas
from featkit.images import Pixels
from featkit.opencv import cv2
from featkit.stitching import seams
from featkit.stitching.exposure import Exposure
from featkit.stitching.photos import Raster
from featkit.stitching.pieces import Mask
from featkit.stitching.projection import Layout, Region
from featkit.stitching.views import View
from featkit.stitching.warping import warp

Levels = npt.NDArray[np.int16]
#: int8 h×w×3, in half levels.
Correction = npt.NDArray[np.int8]

BLENDS = ("multiband", "feather", "none")

# Standard deviation, in pixels of half the reduced canvas, over which photos fade into each other there: a photo has
# some 150 of them.
_FADING = 10.0
# The same of what is smooth: the full-size octaves reach that far.
_COARSE_BLUR = 1.0
# The full-size octaves reach so many beyond the reduced pixel.
_COMMON_OCTAVES = 1
# Levels: no larger correction is meant to make up for what exposure left.
_LARGEST_CORRECTION = 60.0
# Corrections are kept in 8 bits, in this part of a level.
_CORRECTION_UNIT = 0.5
_CORRECTION_FINENESS = 64
# Pixels of reach of a band's filters, in units of its own.
_REACH = 3
_FEATHER_PX = 24
_LEAST_WEIGHT = 1e-4
_SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Sheet:
    """All that composition needs. photo: gives one by its number, at full size or reduced. masks: where each photo
    is shown, of the canvas reduced by `mask_layout`. octaves: that "multiband" blends over. corrections: of each photo,
    on the region that its mask has; None for none."""

    views: Sequence[View]
    layout: Layout
    photo: Callable[[int], Raster]
    exposure: Exposure | None
    masks: Sequence[Mask]
    mask_layout: Layout
    blend: str
    octaves: int
    corrections: Sequence[Correction] | None = None


def fine_octaves(layout: Layout, reduced: Layout) -> int:
    """Octaves to be blended at full size, beside those of the reduced canvas."""
    return int(np.ceil(np.log2(layout.pixels_per_radian / reduced.pixels_per_radian))) + _COMMON_OCTAVES


def reach(blend: str, octaves: int) -> int:
    """Pixels around a tile that its blending looks at."""
    return {"multiband": _REACH << octaves, "feather": 2 * _FEATHER_PX, "none": 0}[blend]


def coarse_corrections(
    pieces: Sequence[tuple[Pixels, Mask]], masks: Sequence[Mask], layout: Layout
) -> list[Correction]:
    """What blending on the reduced canvas changes of each photo: int8 h×w×3, in half levels, smooth, h and w half of
    its region's, rounded up.

    pieces: of each photo on its region of the layout, uint8 h×w×3 and bool h×w; masks: bool h×w, where it is shown.
    What is smooth of the photos is averaged where several show the same, each with a weight that fades across its
    seams, and before it ends: over two bands as in Brown & Lowe 2007.
    """
    width, height = (-(-side // 2) for side in layout.size)
    total, weights = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    smooth = []
    for (pixels, mask), shown, region in zip(pieces, masks, layout.regions, strict=True):
        inside = _halved(mask.astype(np.float32))
        known: Any = cv2.GaussianBlur(inside, (0, 0), _COARSE_BLUR)
        blurred: Any = cv2.GaussianBlur(_halved(pixels * mask[:, :, None].astype(np.float32)), (0, 0), _COARSE_BLUR)
        blurred /= np.maximum(known, _LEAST_WEIGHT)[:, :, None]
        covered = inside > 0.5
        weight: Any = cv2.GaussianBlur(_halved((shown & mask).astype(np.float32)), (0, 0), _FADING)
        depth: Any = cv2.distanceTransform(np.pad(covered, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        weight = (weight + _LEAST_WEIGHT) * np.minimum(depth / np.float32(_FADING), 1)
        for place, own in _on_canvas(region, covered.shape, layout, (width, height)):
            total[place] += blurred[own] * weight[own][:, :, None]
            weights[place] += weight[own]
        smooth.append((blurred, covered))
    total /= np.maximum(weights, _SMALLEST_WEIGHT)[:, :, None]
    found = []
    for (blurred, covered), region in zip(smooth, layout.regions, strict=True):
        change = np.zeros_like(blurred)
        for place, own in _on_canvas(region, covered.shape, layout, (width, height)):
            change[own] = (total[place] - blurred[own]) * (covered[own] & (weights[place] > 0))[:, :, None]
        limited = np.clip(change, -_LARGEST_CORRECTION, _LARGEST_CORRECTION)
        found.append(np.rint(limited / _CORRECTION_UNIT).astype(np.int8))
    return found


def _halved(image: npt.NDArray[Any]) -> Any:
    """Averages of 2 × 2 pixels; odd sides are continued."""
    even: Any = cv2.copyMakeBorder(image, 0, image.shape[0] % 2, 0, image.shape[1] % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _on_canvas(
    region: Region, shape: tuple[int, ...], layout: Layout, size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Where on a canvas of half the layout's size a halved region lies, as slices of the canvas and of the region; in
    parts where the canvas is a full circle. Regions with odd corners are half a pixel off: what lies there is
    smooth."""
    x, y = region.x // 2, region.y // 2
    whole = Region(0, 0, *size)
    for shift in (0,) if layout.period is None else (-size[0], 0, size[0]):
        own = Region(x + shift, y, shape[1], shape[0])
        common = own.common(whole)
        if common:
            yield _slices(common, whole), _slices(common, own)


def tiles(layout: Layout, side: int) -> list[Region]:
    """Squares that cover the canvas, along its longer side first, so that few photos are needed at a time."""
    width, height = layout.size
    columns = [(x, min(side, width - x)) for x in range(0, width, side)]
    rows = [(y, min(side, height - y)) for y in range(0, height, side)]
    if width >= height:
        return [Region(x, y, w, h) for x, w in columns for y, h in rows]
    return [Region(x, y, w, h) for y, h in rows for x, w in columns]


def compose(sheet: Sheet, canvas: Canvas, side: int, workers: int) -> Generator[int, None, None]:
    """Draw on the canvas, with tiles of `side` pixels; yields the number of tiles that are done."""
    every = tiles(sheet.layout, side)
    stopped = threading.Event()

    def draw(tile: Region) -> None:
        if not stopped.is_set():
            canvas.put(tile.x, tile.y, compose_tile(sheet, tile))

    with ThreadPoolExecutor(workers, thread_name_prefix="featkit") as pool:
        try:
            for done, _ in enumerate(pool.map(draw, every), 1):
                yield done
        finally:
            stopped.set()


def compose_tile(sheet: Sheet, tile: Region) -> Pixels:
    """uint8 h×w×4 RGBA of one tile."""
    halo = reach(sheet.blend, sheet.octaves)
    # Pyramids of neighbouring tiles agree where these begin at multiples of their coarsest pixel.
    wide = Region(tile.x - halo, tile.y - halo, tile.width + 2 * halo, tile.height + 2 * halo)
    blender = _BLENDERS[sheet.blend](wide, sheet.octaves)
    for number, view in enumerate(sheet.views):
        for shift in _shifts(sheet.layout):
            window = sheet.layout.regions[number].shifted(shift).common(wide)
            if not window:
                continue
            shown = _mask(sheet, number, window.shifted(-shift))
            window, shown = _trimmed(window, shown, halo)
            if not window:
                continue
            pixels, inside = warp(
                sheet.photo(number), number, view, sheet.layout, window.shifted(-shift), sheet.exposure
            )
            levels = pixels.astype(np.int16)
            if sheet.corrections is not None:
                levels += _correction(sheet, number, window.shifted(-shift))
            blender.feed(levels, inside, shown, window)
    return np.ascontiguousarray(blender.result()[halo : halo + tile.height, halo : halo + tile.width])


def _trimmed(window: Region, shown: Mask, halo: int) -> tuple[Region, Mask]:
    """The part of a window in which a photo is shown, and so much around it as blending looks at."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(rows):
        return Region(window.x, window.y, 0, 0), shown
    top, bottom = max(rows[0] - halo, 0), min(rows[-1] + 1 + halo, window.height)
    left, right = max(columns[0] - halo, 0), min(columns[-1] + 1 + halo, window.width)
    part = Region(window.x + int(left), window.y + int(top), int(right - left), int(bottom - top))
    return part, shown[top:bottom, left:right]


def _shifts(layout: Layout) -> tuple[int, ...]:
    return (0,) if layout.period is None else (-layout.period, 0, layout.period)


def _mask(sheet: Sheet, number: int, window: Region) -> Mask:
    """bool h×w: where a photo is shown in a window of the canvas."""
    coarse = sheet.mask_layout.regions[number]
    scale = sheet.layout.pixels_per_radian / sheet.mask_layout.pixels_per_radian
    corner = np.array([coarse.x, coarse.y]) * scale
    x, y = window.x - corner[0], window.y - corner[1]
    return np.asarray(seams.window(sheet.masks[number], scale, x, y, window.width, window.height))


def _correction(sheet: Sheet, number: int, window: Region) -> Levels:
    """int16 h×w×3: what to add to a photo in a window of the canvas."""
    assert sheet.corrections is not None
    coarse = sheet.mask_layout.regions[number]
    scale = sheet.layout.pixels_per_radian / sheet.mask_layout.pixels_per_radian
    from_window = np.array(
        [
            [0.5 / scale, 0, ((window.x + 0.5) / scale - coarse.x) / 2 - 0.5],
            [0, 0.5 / scale, ((window.y + 0.5) / scale - coarse.y) / 2 - 0.5],
        ]
    )
    # Fixed point: interpolation rounds to the 16 bits that it is given.
    change = sheet.corrections[number].astype(np.int16) * int(_CORRECTION_FINENESS * _CORRECTION_UNIT)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = window.width, window.height
    large: Any = cv2.warpAffine(change, from_window, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray((large + _CORRECTION_FINENESS // 2) // _CORRECTION_FINENESS, np.int16)


class _Multiband:
    """Burt & Adelson 1983: each octave of the photos is blended over its own width.

    In 32-bit floats. OpenCV's MultiBandBlender works in 16-bit integers, and gives back a single photo with errors of 2
    to 3 levels, 1 of them in the mean: measured, and enough to cost a panorama 3 dB.
    """

    def __init__(self, region: Region, octaves: int) -> None:
        self._region = region
        self._octaves = octaves
        unit = 1 << octaves
        width, height = (-(-length // unit) * unit for length in (region.width, region.height))
        shapes = [(height >> level, width >> level) for level in range(octaves + 1)]
        self._sums = [np.zeros((*shape, 3), np.float32) for shape in shapes]
        self._weights = [np.zeros(shape, np.float32) for shape in shapes]
        self._covered = np.zeros((height, width), bool)

    def feed(self, levels: Levels, inside: Mask, shown: Mask, window: Region) -> None:
        mask = inside & shown
        (x, y), (width, height) = self._aligned(window)
        left, top = window.x - self._region.x - x, window.y - self._region.y - y
        margins = top, height - top - window.height, left, width - left - window.width
        image: Any = cv2.copyMakeBorder(levels, *margins, cv2.BORDER_REPLICATE).astype(np.float32)
        weight: Any = cv2.copyMakeBorder(mask.astype(np.float32), *margins, cv2.BORDER_CONSTANT, value=0)
        self._covered[y : y + height, x : x + width] |= weight > 0
        for level in range(self._octaves + 1):
            part = np.s_[y >> level : (y + height) >> level, x >> level : (x + width) >> level]
            detail = image
            if level < self._octaves:
                image = cv2.pyrDown(detail)
                detail -= cv2.pyrUp(image, dstsize=(detail.shape[1], detail.shape[0]))
            cv2.accumulateProduct(detail, cv2.merge([weight] * 3), self._sums[level][part])
            self._weights[level][part] += weight
            if level < self._octaves:
                weight = cv2.pyrDown(weight)

    def _aligned(self, window: Region) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where its octaves reach to, in whole pixels of the coarsest: corner and size, in the region."""
        unit, around = 1 << self._octaves, _REACH << self._octaves
        height, width = self._covered.shape
        x, y = window.x - self._region.x, window.y - self._region.y
        left, top = (max((first - around) // unit * unit, 0) for first in (x, y))
        right = min(-(-(x + window.width + around) // unit) * unit, width)
        bottom = min(-(-(y + window.height + around) // unit) * unit, height)
        return (left, top), (right - left, bottom - top)

    def result(self) -> Pixels:
        for total, weight in zip(self._sums, self._weights, strict=True):
            cv2.divide(total, cv2.merge([np.maximum(weight, _SMALLEST_WEIGHT)] * 3), dst=total)
        blended: Any = self._sums.pop()
        while self._sums:
            finer = self._sums.pop()
            blended = cv2.add(finer, cv2.pyrUp(blended, dstsize=(finer.shape[1], finer.shape[0])), dst=finer)
        colours: Any = cv2.add(blended, np.zeros(3), dtype=cv2.CV_8U)  # rounds, and clips
        alpha = self._covered.astype(np.uint8) * 255
        return np.asarray(cv2.merge([*(cv2.bitwise_and(each, alpha) for each in cv2.split(colours)), alpha]), np.uint8)


class _Feather:
    """Each photo fades out towards the rim of where it is shown."""

    def __init__(self, region: Region, octaves: int) -> None:
        self._region = region
        self._colours = np.zeros((region.height, region.width, 3), np.float32)
        self._weight = np.zeros((region.height, region.width), np.float32)

    def feed(self, levels: Levels, inside: Mask, shown: Mask, window: Region) -> None:
        # Beyond the seam it fades as its neighbour comes up.
        beyond: Any = cv2.distanceTransform((~shown).astype(np.uint8), cv2.DIST_L2, 3)
        within: Any = cv2.distanceTransform(shown.astype(np.uint8), cv2.DIST_L2, 3)
        weight = np.clip((within - beyond) / (2 * _FEATHER_PX) + 0.5, 0, 1) + _LEAST_WEIGHT * shown
        weight *= inside
        rows, columns = _slices(window, self._region)
        self._colours[rows, columns] += levels * weight[:, :, None]
        self._weight[rows, columns] += weight

    def result(self) -> Pixels:
        alpha = (self._weight > 0).astype(np.uint8) * 255
        colours = self._colours / np.maximum(self._weight, _LEAST_WEIGHT / 2)[:, :, None]
        return np.dstack([np.rint(colours).astype(np.uint8), alpha])


class _Plain:
    """What is shown as it is; where several photos are shown, the first."""

    def __init__(self, region: Region, octaves: int) -> None:
        self._region = region
        self._result = np.zeros((region.height, region.width, 4), np.uint8)

    def feed(self, levels: Levels, inside: Mask, shown: Mask, window: Region) -> None:
        part = self._result[_slices(window, self._region)]
        free = inside & shown & (part[:, :, 3] == 0)
        part[free, :3], part[free, 3] = levels[free], 255

    def result(self) -> Pixels:
        return self._result


_BLENDERS: dict[str, type[_Multiband | _Feather | _Plain]] = {
    "multiband": _Multiband,
    "feather": _Feather,
    "none": _Plain,
}


def _slices(window: Region, region: Region) -> tuple[slice, slice]:
    x, y = window.x - region.x, window.y - region.y
    return slice(y, y + window.height), slice(x, x + window.width)
