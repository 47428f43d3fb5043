"""What a placed panorama needs before it is drawn: colours that match, seams, and where it is cut off.

All of it is found on copies of the photos reduced to about .1 megapixel, and kept in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit import images
from featkit.cache import Cache, make_key
from featkit.images import DecodeOptions, Pixels
from featkit.opencv import cv2
from featkit.stitching.compositing import Correction, coarse_corrections
from featkit.stitching.config import StitchConfig
from featkit.stitching.cropping import largest_rectangle
from featkit.stitching.exposure import Exposure, ToneCurve, balance, overlap_psnr
from featkit.stitching.overlaps import sample_overlaps
from featkit.stitching.photos import InMemory, Source, read_unchanged
from featkit.stitching.pieces import Mask, Piece
from featkit.stitching.poses import Poses
from featkit.stitching.projection import Layout, Region
from featkit.stitching.seams import find_seams
from featkit.stitching.views import View
from featkit.stitching.warping import warp

#: Raise when the same photos and poses would give other colours or seams: it is part of the cache key.
VERSION = 2

# Pixels of a typical photo on the canvas on which seams are found, and longest side of the copies that they, and the
# colours, are found on.
_SEAM_PIXELS = 100_000
_THUMBNAIL_SIDE = 420
# Reduced pixels by which the masks grow beyond all photos, so that the photos' own edges end them at full size.
_RIM = 4
# Reduced pixels by which a photo may end earlier at full size than on the reduced canvas.
_FRAIL = 1


@dataclass(frozen=True)
class Finish:
    """exposure: None where colours stay as they are. masks: of each photo, bool, where it is shown, on its region of
    the reduced layout. corrections: what blending of the coarse octaves changes there; None where nothing is blended
    so. crop: the part of the full-size canvas that is kept. overlap_psnr_db: of what photos show of the same places,
    corrected; None where there is nothing to compare."""

    exposure: Exposure | None
    masks: tuple[Mask, ...]
    corrections: tuple[Correction, ...] | None
    crop: Region
    overlap_psnr_db: float | None

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same as named arrays, for the cache."""
        crop = self.crop
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "crop": np.array([crop.x, crop.y, crop.width, crop.height], np.int64),
            "psnr": np.array(np.nan if self.overlap_psnr_db is None else self.overlap_psnr_db),
        }
        if self.exposure is not None:
            arrays["gains"], arrays["vignetting"] = self.exposure.gains, self.exposure.vignetting
            arrays["groups"], arrays["bends"] = np.array(self.exposure.groups), self.exposure.curve.bends
        for number, mask in enumerate(self.masks):
            arrays[f"mask{number}"], arrays[f"shape{number}"] = np.packbits(mask), np.array(mask.shape)
        for number, correction in enumerate(self.corrections or ()):
            arrays[f"correction{number}"] = correction
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Finish:
        """The inverse of `to_arrays`; KeyError where an array is missing."""
        exposure = corrections = None
        if "gains" in arrays:
            groups = tuple(int(group) for group in arrays["groups"])
            exposure = Exposure(arrays["gains"], arrays["vignetting"], groups, ToneCurve(arrays["bends"]))
        masks: list[Mask] = []
        while f"mask{len(masks)}" in arrays:
            height, width = (int(side) for side in arrays[f"shape{len(masks)}"])
            bits = np.unpackbits(arrays[f"mask{len(masks)}"], count=height * width)
            masks.append(bits.astype(bool).reshape(height, width))
        if "correction0" in arrays:
            corrections = tuple(arrays[f"correction{number}"] for number in range(len(masks)))
        crop = Region(*(int(value) for value in arrays["crop"]))
        psnr = float(arrays["psnr"])
        return Finish(exposure, tuple(masks), corrections, crop, None if np.isnan(psnr) else psnr)


def reduced_layout(layout: Layout) -> Layout:
    """The canvas on which colours and seams are found; its regions reach a little beyond their photos, and begin at
    even pixels."""
    area = float(np.median([region.width * region.height for region in layout.regions]))
    small = layout.scaled(float(min(1.0, np.sqrt(_SEAM_PIXELS / area))))
    regions = []
    for region in small.regions:
        x, y = (region.x - _RIM) // 2 * 2, (region.y - _RIM) // 2 * 2
        width = region.right + _RIM - x
        regions.append(Region(x, y, min(width, small.period or width), region.bottom + _RIM - y))
    return replace(small, regions=regions)


def finish(
    poses: Poses, views: Sequence[View], layout: Layout, small: Layout, config: StitchConfig, cache: Cache, jobs: int
) -> Finish:
    """Find colours and seams, or take them from the cache. views: level (`straightened`). small: `reduced_layout`."""
    key = _key(poses, views, layout, config)
    stored = cache.get(key)
    if stored is not None:
        return Finish.from_arrays(stored)
    sources = poses.sources
    with ThreadPoolExecutor(jobs, thread_name_prefix="featkit") as pool:
        thumbnails = list(pool.map(lambda source: _thumbnail(source, config.decode), sources))
        overlaps = sample_overlaps(thumbnails, views, [(pair.a, pair.b) for pair in poses.pairs])
        exposure = None
        if config.exposure != "none":
            reference = next((n for n, source in enumerate(sources) if source.path == config.reference), None)
            mode: Any = config.exposure
            exposure = balance(overlaps, len(views), mode=mode, reference=reference, groups=_cameras(views))
        pieces = list(pool.map(lambda n: _piece(thumbnails[n], n, views[n], small, exposure), range(len(views))))
    masks = _beyond(pieces, find_seams(pieces, small.period, config.seams), small)
    corrections = None
    if config.blend == "multiband":
        shown = [(piece.pixels, piece.mask) for piece in pieces]
        corrections = tuple(coarse_corrections(shown, masks, small))
    crop = Region(0, 0, *layout.size) if config.crop == "none" else _cropped(pieces, small, layout)
    psnr = overlap_psnr(overlaps, exposure)
    found = Finish(exposure, tuple(masks), corrections, crop, psnr if np.isfinite(psnr) else None)
    cache.put(key, found.to_arrays())
    return found


def _key(poses: Poses, views: Sequence[View], layout: Layout, config: StitchConfig) -> str:
    return make_key(
        content=[source.sha256 for source in poses.sources],
        operation="stitch-finish",
        version=VERSION,
        config={
            "decode": asdict(config.decode),
            "views": [[view.to_world.tolist(), view.focal_px, list(view.distortion)] for view in views],
            "pairs": [[pair.a, pair.b] for pair in poses.pairs],
            "projection": layout.projection.name,
            "scale": config.scale,
            "reference": [source.path == config.reference for source in poses.sources],
            **{name: getattr(config, name) for name in ("crop", "blend", "seams", "exposure")},
        },
        libraries={"opencv": cv2.__version__},
    )


def _thumbnail(source: Source, decode: DecodeOptions) -> Pixels:
    return images.thumbnail(read_unchanged(source), _THUMBNAIL_SIDE, decode, path=source.path)


def _cameras(views: Sequence[View]) -> list[int]:
    """Of each photo, which camera took it, for vignetting: the same size, either way up, and nearly the same focal
    length."""
    keys = [(max(view.size), min(view.size), round(np.log(view.focal_px or 1.0) / 0.05)) for view in views]
    kinds = sorted(set(keys))
    return [kinds.index(key) for key in keys]


def _piece(thumbnail: Pixels, number: int, view: View, small: Layout, exposure: Exposure | None) -> Piece:
    region = small.regions[number]
    pixels, mask = warp(InMemory(thumbnail), number, view, small, region, exposure)
    return Piece(pixels, mask, (region.x, region.y))


def _cover(pieces: Sequence[Piece], small: Layout) -> Mask:
    """bool H×W: where the reduced canvas shows anything."""
    width, height = small.size
    cover = np.zeros((height, width), bool)
    for piece in pieces:
        rows = piece.corner[1] + np.arange(piece.mask.shape[0])
        columns = piece.corner[0] + np.arange(piece.mask.shape[1])
        if small.period is not None:
            columns %= small.period
        inside = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        cover[np.ix_(rows[inside[0]], columns[inside[1]])] |= piece.mask[np.ix_(*inside)]
    return cover


def _beyond(pieces: Sequence[Piece], masks: Sequence[Mask], small: Layout) -> list[Mask]:
    """The masks, grown all around into what no photo covers, and to where another photo is shown that ends there: at
    full size it may end a little earlier, and leave a hole."""
    cover = _cover(pieces, small)
    ends = [replace(piece, mask=mask & ~_eroded(piece.mask)) for piece, mask in zip(pieces, masks, strict=True)]
    frail = _cover(ends, small)
    height, width = cover.shape
    kernel = np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)
    grown = []
    for piece, mask, region in zip(pieces, masks, small.regions, strict=True):
        rows = np.arange(region.y, region.bottom)
        columns = np.arange(region.x, region.right)
        outside = ((rows < 0) | (rows >= height))[:, None]
        if small.period is None:
            outside = outside | (columns < 0) | (columns >= width)
        place = np.ix_(np.clip(rows, 0, height - 1), columns % width)
        covered = cover[place] & ~outside
        larger: Any = cv2.dilate(mask.astype(np.uint8), kernel)
        grown.append(mask | ((larger > 0) & ~covered) | (piece.mask & frail[place] & ~outside))
    return grown


def _eroded(mask: Mask) -> Mask:
    kernel = np.ones((2 * _FRAIL + 1, 2 * _FRAIL + 1), np.uint8)
    return np.asarray(cv2.erode(mask.astype(np.uint8), kernel, borderValue=0) > 0)


def _cropped(pieces: Sequence[Piece], small: Layout, layout: Layout) -> Region:
    """The largest rectangle of the canvas that shows photos everywhere."""
    cover = _cover(pieces, small)
    found = largest_rectangle(cover)
    if found is None:
        return Region(0, 0, *layout.size)
    x, y, width, height = found
    scale = layout.pixels_per_radian / small.pixels_per_radian
    # A reduced pixel at the edge of the photos may lie half outside.
    margin = [0 if small.period is not None and width == small.period else 1, 1]
    left, top = np.ceil((np.array([x, y]) + margin) * scale).astype(int)
    right, bottom = np.floor((np.array([x + width, y + height]) - margin) * scale).astype(int)
    right, bottom = min(right, layout.size[0]), min(bottom, layout.size[1])
    if margin[0] == 0:
        left, right = 0, layout.size[0]
    if right <= left or bottom <= top:
        return Region(0, 0, *layout.size)
    return Region(int(left), int(top), int(right - left), int(bottom - top))
