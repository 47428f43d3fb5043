"""Photos as they lie on the reduced canvas on which seams are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import Pixels
from featkit.opencv import cv2

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
# Numbers of pieces, or of cells, on the canvas; -1 where there is none.
Numbers = npt.NDArray[np.int32]
Place = tuple[Any, Any]

# A photo is not shown this near to its rim where another can be: what it covers at low resolution it may not cover at
# full size.
_RIM = 2


@dataclass(frozen=True)
class Piece:
    """One photo on the canvas. pixels: uint8 h×w×3, exposure corrected. mask: bool h×w, where it shows anything.
    corner: (x, y) of its first pixel; x may lie beyond the canvas where that is a full circle.
    """

    pixels: Pixels
    mask: Mask
    corner: tuple[int, int]


@dataclass(frozen=True)
class Canvas:
    """shape: (height, width). rows, columns: int64, which of them each piece covers. places: the same as an index.
    overlaps: int64 N×N, pixels that the rectangles of two pieces have in common. circle: whether it is a full one.
    """

    shape: tuple[int, int]
    rows: tuple[Indices, ...]
    columns: tuple[Indices, ...]
    places: tuple[Place, ...]
    overlaps: Indices
    circle: bool


def canvas_around(pieces: Sequence[Piece], period: int | None) -> Canvas:
    """period: the width of the canvas where that is a full circle; ValueError if a piece is wider."""
    x, y = np.array([piece.corner for piece in pieces], np.int64).T
    heights, widths = np.array([piece.mask.shape for piece in pieces], np.int64).T
    left, top = (int(x.min()) if period is None else 0), int(y.min())
    width = int((x + widths).max()) - left if period is None else period
    if widths.max() > width:
        raise ValueError(f"a piece is {widths.max()} pixels wide, and the full circle {width}")
    rows = tuple(first - top + np.arange(length) for first, length in zip(y, heights, strict=True))
    columns = tuple((first - left + np.arange(length)) % width for first, length in zip(x, widths, strict=True))
    return Canvas(
        shape=(int((y + heights).max()) - top, width),
        rows=rows,
        columns=columns,
        places=tuple(map(place_of, rows, columns)),
        overlaps=_in_common(x, widths, period) * _in_common(y, heights, None),
        circle=period is not None,
    )


def place_of(rows: Indices, columns: Indices) -> Place:
    """The index of a rectangle of the canvas: slices, which are fast, unless it reaches around the circle."""
    if not len(rows) or not len(columns) or columns[0] > columns[-1]:
        grid = np.ix_(rows, columns)
        return grid[0], grid[1]
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _in_common(first: Indices, length: Indices, period: int | None) -> Indices:
    """int64 N×N: of N intervals of a line, or of a circle."""
    shifts = (0,) if period is None else (-period, 0, period)
    first = first if period is None else first % period
    common = np.zeros((len(first),) * 2, np.int64)
    for shift in shifts:
        low = np.maximum.outer(first, first + shift)
        high = np.minimum.outer(first + length, first + shift + length)
        common += np.maximum(high - low, 0)
    return common


def without_rims(pieces: Sequence[Piece], canvas: Canvas) -> list[Mask]:
    """The masks, less their rims where the inside of another covers them. Together they cover as much as before."""
    kernel = np.ones((2 * _RIM + 1,) * 2, np.uint8)
    inner = [
        np.asarray(cv2.erode(as_bytes(mask), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0)
        if mask.size
        else mask
        for mask in (piece.mask for piece in pieces)
    ]
    covered = np.zeros(canvas.shape, bool)
    for mask, place in zip(inner, canvas.places, strict=True):
        covered[place] |= mask
    return [
        mask | (piece.mask & ~covered[place]) for piece, mask, place in zip(pieces, inner, canvas.places, strict=True)
    ]


def remoteness(mask: Mask) -> npt.NDArray[np.float32]:
    """float32 h×w: the squared distance from the centre of what a mask covers, in halves of its width and height."""
    x, y, width, height = cv2.boundingRect(as_bytes(mask)) if mask.any() else (0, 0, 1, 1)
    across = (np.arange(mask.shape[1], dtype=np.float32) - (x + (width - 1) / 2)) / (width / 2)
    down = (np.arange(mask.shape[0], dtype=np.float32) - (y + (height - 1) / 2)) / (height / 2)
    return np.asarray(np.add.outer(down**2, across**2), np.float32)


def as_bytes(mask: Mask) -> Pixels:
    """uint8, 0 and 1: what OpenCV takes for a mask."""
    return np.ascontiguousarray(mask).view(np.uint8)
