"""Which photo each place of a panorama is taken from, found on a canvas reduced to about .1 megapixel a photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featkit.opencv import cv2
from featkit.stitching.graphcut import least_disagreement
from featkit.stitching.pieces import (
    Canvas,
    Indices,
    Mask,
    Numbers,
    Piece,
    as_bytes,
    canvas_around,
    remoteness,
    without_rims,
)

# A border between reduced pixels is at one place, from whichever mask's corner it is computed, in spite of rounding.
_ROUNDING = 1e-6


def find_seams(pieces: Sequence[Piece], width: int | None, method: str = "graphcut") -> list[Mask]:
    """Where each photo is shown: bool h×w for each piece, within its mask. Together they cover what the masks cover,
    and they do not overlap.

    width: period of x, where the canvas is a full circle; no piece may be wider. method: one of `SEAMS`. "graphcut":
    seams run where photos agree, and what moves stays whole. "dp": photos are added one by one, each along the path of
    least difference that dynamic programming finds, in a quarter of the time. "voronoi": the photo whose centre is
    nearest, whatever is seen. "none": no seams: everything is shown, and overlaps.
    """
    if method == "none" or not any(piece.mask.any() for piece in pieces):
        return [piece.mask.copy() for piece in pieces]
    canvas = canvas_around(pieces, width)
    masks = without_rims(pieces, canvas)
    labels = _FINDERS[method](pieces, masks, canvas)
    return [
        mask & (labels[place] == number) for number, (mask, place) in enumerate(zip(masks, canvas.places, strict=True))
    ]


def window(mask: Mask, scale: float, x: float, y: float, width: int, height: int) -> Mask:
    """bool height×width: a part of a mask, enlarged; False outside the mask.

    scale: pixels for each pixel of the mask. x, y: of the part's first pixel, in enlarged pixels from the mask's
    corner. Every pixel is looked up at one place, so enlarged masks overlap, and leave gaps, no more than the masks do.
    """
    columns, rows = (
        np.clip(np.floor((first + 0.5 + np.arange(length)) / scale + _ROUNDING), -1, side).astype(np.int64)
        for first, length, side in ((x, width, mask.shape[1]), (y, height, mask.shape[0]))
    )
    return np.asarray(np.pad(mask, 1)[np.ix_(rows + 1, columns + 1)])


def _least_remote(pieces: Sequence[Piece], masks: Sequence[Mask], canvas: Canvas) -> Numbers:
    labels = np.full(canvas.shape, -1, np.int32)
    least = np.full(canvas.shape, np.inf, np.float32)
    for number, (piece, mask, place) in enumerate(zip(pieces, masks, canvas.places, strict=True)):
        remote = remoteness(piece.mask)
        nearer = mask & (remote < least[place])
        least[place] = np.where(nearer, remote, least[place])
        labels[place] = np.where(nearer, number, labels[place])
    return labels


def _one_by_one(pieces: Sequence[Piece], masks: Sequence[Mask], canvas: Canvas) -> Numbers:
    """Each piece is cut against what is there already, as OpenCV cuts two photos."""
    labels = np.full(canvas.shape, -1, np.int32)
    colours = np.zeros((*canvas.shape, 3), np.uint8)
    finder: Any = cv2.detail.DpSeamFinder("COLOR")
    for number in _by_overlap(canvas.overlaps):
        place, mask, pixels = canvas.places[number], masks[number], pieces[number].pixels
        there = labels[place] >= 0
        taken = mask & ~there
        if (mask & there).any():
            images = [each.astype(np.float32) for each in (colours[place], pixels)]
            cut = finder.find(images, [(0, 0), (0, 0)], [as_bytes(there) * 255, as_bytes(mask) * 255])[1]
            # It may leave gaps, or give a place to both, where outlines are odd: what it gives the new one counts.
            taken |= mask & (np.asarray(cut.get()) > 0)
        labels[place] = np.where(taken, number, labels[place])
        colours[place] = np.where(taken[:, :, None], pixels, colours[place])
    return labels


def _by_overlap(overlaps: Indices) -> list[int]:
    """Numbers of pieces: first the one that overlaps most, then always the one that overlaps most with one before."""
    waiting = np.ones(len(overlaps), bool)
    nearness = overlaps.sum(1)
    order: list[int] = []
    while waiting.any():
        number = int(np.argmax(np.where(waiting, nearness, -1)))
        nearness = np.maximum(nearness, overlaps[number]) if order else overlaps[number]
        waiting[number] = False
        order.append(number)
    return order


_FINDERS = {"graphcut": least_disagreement, "dp": _one_by_one, "voronoi": _least_remote}
SEAMS = (*_FINDERS, "none")

__all__ = ["SEAMS", "Piece", "find_seams", "window"]
