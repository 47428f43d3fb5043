"""Where in a picture which colours are: mean and spread of each channel in a grid of cells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import Pixels

#: Raise when the same pictures would give other features: it is part of the cache key.
VERSION = 1

Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int64]

# Their squares take 384 KB; larger blocks are no faster.
_PIXELS_AT_ONCE = 1 << 16


def colour_grid(images: Pixels, cells: int = 4) -> Floats:
    """float32 N×(cells² · 6), 0..1, of uint8 N×H×W×3: of each cell, row by row, the means of the three channels, then
    their standard deviations (of all its pixels, at most .5).

    Cell i of a side of L pixels goes from ⌊i·L / cells⌋ to ⌊(i+1)·L / cells⌋. The sums are of whole numbers, so that a
    cell of one colour has a spread of exactly 0. Raises UsageError for pictures of fewer pixels a side than cells.
    """
    height, width = images.shape[1:3]
    if cells < 1:
        raise UsageError(f"a grid of colours has 1 cell a side or more, not {cells}")
    if min(height, width) < cells:
        raise UsageError(f"these pictures of {width} × {height} pixels are too small for {cells} cells a side")
    rows, columns = (np.arange(cells + 1) * side // cells for side in (height, width))
    counts = np.diff(rows)[:, None, None] * np.diff(columns)[:, None]
    found = np.empty((len(images), cells, cells, 2, 3), np.float32)
    step = max(1, _PIXELS_AT_ONCE // (height * width))
    for start in range(0, len(images), step):
        block, out = images[start : start + step], found[start : start + step]
        sums = _sums(block, rows, columns)
        squares = _sums(np.square(block, dtype=np.uint16), rows, columns)
        # The variance, about the whole part of the mean: large numbers are subtracted while they are whole.
        whole = sums // counts
        squares -= whole * (2 * sums - counts * whole)
        rest = (sums - counts * whole) / counts
        out[..., 0, :] = sums / counts
        out[..., 1, :] = np.sqrt(squares / counts - rest**2)
    found /= 255
    return found.reshape(len(images), cells * cells * 6)


def _sums(values: npt.NDArray[Any], rows: _Integers, columns: _Integers) -> _Integers:
    """int64 N×cells×cells×3: sums over the cells between `rows` and `columns`, of uint8 or uint16 N×H×W×3."""
    bands = [values[:, top:bottom].sum(1, dtype=np.int64) for top, bottom in pairwise(rows)]
    return np.asarray(np.add.reduceat(np.stack(bands, 1), columns[:-1], 2))
