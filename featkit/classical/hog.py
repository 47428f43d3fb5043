"""Histograms of oriented gradients of many pictures at once, in numpy (Dalal & Triggs 2005).

Differences of uint8 pixels are whole numbers from -255 to 255, so that a table of 511 × 511 entries holds magnitude and
orientation of every gradient there can be: no root and no arctangent a pixel. Pictures go through in blocks of 65,536
pixels, which stay in the processor's cache.

`hog_as_skimage` gives what `skimage.feature.hog` gives. `hog` is what classifies better: the sign of the gradient
counts, each pixel is shared between the nearest two orientations and four cells, blocks are 2 × 2 cells, and the root
is taken of what is normalised.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import Pixels

#: Raise when the same pictures and configuration would give other features: it is part of the cache key.
VERSION = 1

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]

_LARGEST = 255
_SPAN = 2 * _LARGEST + 1
# The index of no difference.
_CENTRE = _LARGEST * _SPAN + _LARGEST
# The last bits of a table's entry: see `_table`.
_ORIENTATION_BITS = 14
_ORIENTATION_MASK = (1 << _ORIENTATION_BITS) - 1
_LAST_BITS = _ORIENTATION_BITS + 2
_PIXELS_A_BLOCK = 1 << 16
# One a degree: those bits tell 16,384 directions apart, and bins are to be many times wider.
_MOST_ORIENTATIONS = 360
# The length of a block's histograms, in grey levels, below which it counts as flat; and scikit-image's.
FLAT = 0.1
_SKIMAGE_FLAT = 1e-5


@dataclass(frozen=True)
class HogConfig:
    """cells: along each side of a picture, whatever its size. orientations: bins of the full circle. clip: the largest
    share of a block's length that one bin keeps.

    18 orientations are Felzenszwalb's (2010). On CIFAR-10, of training pictures held out of 12,000, RBF ridge: 12 or 24
    lose .4 points, and to ignore the gradient's sign loses 4. Before roots a clip of .35 beats Dalal's .2 by .2 points,
    and none at all by .1.

    Raises UsageError for values that make no sense.
    """

    cells: int = 4
    orientations: int = 18
    clip: float = 0.35

    def __post_init__(self) -> None:
        if self.cells < 2:
            raise UsageError(f"HOG takes 2 cells a side or more, not {self.cells}")
        if not 2 <= self.orientations <= _MOST_ORIENTATIONS:
            raise UsageError(f"HOG takes 2 to {_MOST_ORIENTATIONS} orientations, not {self.orientations}")
        if not 0 < self.clip <= 1:
            raise UsageError(f"HOG clips at a share from 0 to 1, not {self.clip}")


@dataclass(frozen=True)
class SkimageHogConfig:
    """Arguments of `skimage.feature.hog`, by its defaults. orientations: bins of the half circle. cell: pixels a side.
    block: cells a side. Raises UsageError for values that make no sense."""

    orientations: int = 9
    cell: int = 8
    block: int = 3

    def __post_init__(self) -> None:
        if min(self.orientations, self.cell, self.block) < 1:
            raise UsageError("orientations, cell and block of HOG are 1 or more")
        if self.orientations > _MOST_ORIENTATIONS:
            raise UsageError(f"HOG takes up to {_MOST_ORIENTATIONS} orientations, not {self.orientations}")


def hog(images: Pixels, config: HogConfig | None = None) -> Floats:
    """float32 N×D, 0..1, D = (cells - 1)² · 4 · orientations: the blocks of 2 × 2 cells row by row, of each block its
    cells row by row, of each cell the roots of its normalised histogram; 0 for a block of one colour.

    images: uint8 N×H×W or N×H×W×3; of the channels each pixel takes the one that changes most there, the first of
    equals. Raises UsageError for pictures of fewer pixels a side than cells, or than 3.
    """
    config = config or HogConfig()
    found = np.empty((len(images), (config.cells - 1) ** 2 * 4 * config.orientations), np.float32)
    for start, counts in _soft_histograms(images, config):
        blocks = found[start : start + len(counts)]
        _write_normalised_blocks(counts, 2, config.clip, FLAT, blocks)
        np.sqrt(blocks, out=blocks)
    return found


def histograms(images: Pixels, config: HogConfig) -> Floats:
    """float32 N×cells×cells×orientations: what `hog` normalises. Of each cell and bin the magnitudes of the gradients,
    each the difference of the two neighbours in x and in y in grey levels, summed and divided by the pixels of a cell.

    Bin k is centred at (k + ½) · 360° / orientations, from x (right) to y (down). images, errors: as in `hog`.
    """
    found = [counts for _, counts in _soft_histograms(images, config)]
    return (
        np.concatenate(found) if found else np.empty((0, config.cells, config.cells, config.orientations), np.float32)
    )


def _soft_histograms(images: Pixels, config: HogConfig) -> Iterator[tuple[int, Floats]]:
    """The number of the first of some pictures, and their histograms."""
    height, width = images.shape[1:3]
    cells, bins = config.cells, config.orientations
    if min(height, width) < max(cells, 3):
        raise UsageError(f"these pictures of {width} × {height} pixels are too small for {cells} cells of HOG a side")
    before_x, shares_x = _cell_shares(width, cells)
    before_y, shares_y = _cell_shares(height, cells)
    # One cell more at each side and one bin more at the end, so that the next of two is always one further.
    strides = (cells + 2) ** 2 * (bins + 1), (cells + 2) * (bins + 1), bins + 1
    corners = [(y * strides[1] + x * strides[2], shares_y[y][:, None] * shares_x[x]) for y in (0, 1) for x in (0, 1)]
    table, lower_of, upper_share_of = _soft_table(bins)
    gradients = _Gradients(images, table)
    cell = before_y[:, None] * strides[1] + before_x * strides[2]
    origin = np.arange(gradients.pictures)[:, None, None] * strides[0] + cell
    position, index = np.empty_like(origin), np.empty_like(origin)
    shared, upper, part = (np.empty(origin.shape) for _ in range(3))
    for start, entries in gradients:
        count = len(entries)
        if count < len(origin):
            origin, position, index, shared, upper, part = (
                each[:count] for each in (origin, position, index, shared, upper, part)
            )
        np.bitwise_and(entries, _ORIENTATION_MASK, out=position)
        np.take(lower_of, position, mode="wrap", out=index)
        index += origin
        np.take(upper_share_of, position, mode="wrap", out=upper)
        upper *= _magnitude(entries)
        lower = np.subtract(_magnitude(entries), upper, out=shared)
        sums = np.zeros(count * strides[0])
        for bin_step, weight in ((0, lower), (1, upper)):
            for cell_step, share in corners:
                np.multiply(weight, share, out=part)
                counted = np.bincount(index.reshape(-1), part.reshape(-1), len(sums))
                sums[bin_step + cell_step :] += counted[: len(sums) - bin_step - cell_step]
        counts = sums.astype(np.float32).reshape(-1, cells + 2, cells + 2, bins + 1)[:, 1:-1, 1:-1]
        counts[..., 0] += counts[..., bins]
        counts = np.ascontiguousarray(counts[..., :bins])
        counts *= np.float32(cells * cells / (height * width))
        yield start, counts


def hog_as_skimage(images: Pixels, config: SkimageHogConfig | None = None) -> Floats:
    """float32 N×D: to 1e-6 what `skimage.feature.hog(image, orientations, (cell, cell), (block, block))` gives.

    images: uint8 N×H×W, or N×H×W×3 as with channel_axis=-1. Raises UsageError for pictures smaller than a block.
    """
    config = config or SkimageHogConfig()
    height, width = images.shape[1:3]
    rows, columns = height // config.cell, width // config.cell
    if min(rows, columns) < config.block:
        side = config.cell * config.block
        raise UsageError(
            f"these pictures of {width} × {height} pixels are smaller than a block of HOG, {side} × {side}"
        )
    bins, cells = config.orientations, rows * columns
    found = np.empty(
        (len(images), (rows - config.block + 1) * (columns - config.block + 1) * config.block**2 * bins), np.float32
    )
    y, x = np.arange(height) // config.cell, np.arange(width) // config.cell
    gradients = _Gradients(images, _hard_table(bins))
    # What belongs to no whole cell goes to a last one, which is not looked at.
    cell = np.where((y < rows)[:, None] & (x < columns), y[:, None] * columns + x, cells)
    origin = (np.arange(gradients.pictures)[:, None, None] * (cells + 1) + cell) * bins
    index = np.empty_like(origin)
    for start, entries in gradients:
        count = len(entries)
        np.bitwise_and(entries, _ORIENTATION_MASK, out=index[:count])
        index[:count] += origin[:count]
        weights = _magnitude(entries)
        sums = np.bincount(index[:count].reshape(-1), weights.reshape(-1), count * (cells + 1) * bins)
        means = (sums * (1 / config.cell**2)).astype(np.float32)
        whole = means.reshape(-1, cells + 1, bins)[:, :cells]
        counts = np.ascontiguousarray(whole).reshape(-1, rows, columns, bins)
        _write_normalised_blocks(counts, config.block, 0.2, _SKIMAGE_FLAT, found[start : start + len(counts)])
    return found


# --- gradients


class _Gradients:
    """Of some pictures at a time the magnitude and the orientation of each pixel's gradient, as entries of a table:
    of a whole one, or of the second half of one where opposite gradients are alike.

    Its arrays are used again for each block: to get new ones from the system takes as long as all the arithmetic.
    """

    def __init__(self, images: Pixels, table: _Indices) -> None:
        height, width = images.shape[1:3]
        self._images, self._table = images, table
        self._step = max(1, _PIXELS_A_BLOCK // (height * width))
        self.pictures = min(self._step, len(images))
        shape = self.pictures, height, width
        self._pixels, self._down, self._across = (np.zeros(shape, np.int32) for _ in range(3))
        self._codes, self._best, self._other = (np.empty(shape, np.int64) for _ in range(3))

    def __iter__(self) -> Iterator[tuple[int, _Indices]]:
        """The number of the first picture, and N×H×W entries of the table, which the next block overwrites."""
        for start in range(0, len(self._images), self._step):
            block = self._images[start : start + self._step]
            best, other = self._best[: len(block)], self._other[: len(block)]
            channels = [block] if block.ndim == 3 else [block[..., channel] for channel in range(block.shape[3])]
            self._look_up(channels[0], best, len(channels) - 1)
            for number, channel in enumerate(channels[1:], 2):
                self._look_up(channel, other, len(channels) - number)
                np.maximum(best, other, out=best)
            yield start, best

    def _look_up(self, pixels: Pixels, found: _Indices, preference: int) -> None:
        count, width = len(pixels), pixels.shape[2]
        down, across, codes = self._down[:count], self._across[:count], self._codes[:count]
        self._pixels[:count] = pixels
        # Each pass is over one run of memory, from row to row and from picture to picture; at the edges, where such a
        # difference is of what does not belong together, there is none.
        run = self._pixels[:count].reshape(-1)
        np.subtract(run[2 * width :], run[: -2 * width], out=down.reshape(-1)[width:-width])
        down[:, 0] = down[:, -1] = 0
        np.subtract(run[2:], run[:-2], out=across.reshape(-1)[1:-1])
        across[:, :, 0] = across[:, :, -1] = 0
        down *= _SPAN
        down += across
        if len(self._table) > _CENTRE + 1:
            down += _CENTRE
        else:
            np.abs(down, out=down)
        codes[...] = down
        # No index is outside; of the modes that need no copy of what they find this one takes the least time.
        np.take(self._table, codes, mode="wrap", out=found)
        if preference:
            found += preference << _ORIENTATION_BITS


def _magnitude(entries: _Indices) -> _Doubles:
    """A view: the entry as a whole is the magnitude, to 1e-11 of it, whatever its last bits say besides."""
    return entries.view(np.float64)


def _table(orientation: _Indices) -> _Indices:
    """Magnitude and orientation of every gradient in 64 bits each, in the order of the magnitudes: the float64 of the
    magnitude with its last 16 bits replaced, by 2 that prefer a channel among equals and 14 for the orientation.

    Magnitudes that differ by rounding alone stay different, since scikit-image, too, prefers the larger of two such.
    """
    values, rank = np.unique(np.hypot(*_components()), return_inverse=True)
    leading = values.view(np.int64) >> _LAST_BITS
    steps = np.arange(len(leading))
    leading = np.maximum.accumulate(leading - steps) + steps
    return np.asarray(leading[rank] << _LAST_BITS | orientation)


@functools.cache
def _components() -> tuple[_Doubles, _Doubles]:
    """The differences down and across that each index stands for."""
    differences = np.arange(-_LARGEST, _LARGEST + 1, dtype=float)
    down, across = np.meshgrid(differences, differences, indexing="ij")
    return down.ravel(), across.ravel()


@functools.cache
def _hard_table(orientations: int) -> _Indices:
    """The orientation is the bin of the half circle. The second half alone, from no difference on: what the first has
    are the opposites, which are alike."""
    degrees = np.rad2deg(np.arctan2(*_components())) % 180
    edges = np.arange(1, orientations) * (180 / orientations)
    return _table(np.searchsorted(edges, degrees, side="right"))[_CENTRE:]


@functools.cache
def _soft_table(orientations: int) -> tuple[_Indices, _Indices, _Doubles]:
    """The orientation is the place on the full circle, in equal steps; then of each step the nearest bin below it, and
    the share of the next one, 0..1."""
    steps = (1 << _ORIENTATION_BITS) // orientations
    angle = np.arctan2(*_components()) / (2 * np.pi)
    position = np.rint((angle * orientations - 0.5) * steps).astype(np.int64) % (orientations * steps)
    step = np.arange(orientations * steps)
    return _table(position), step // steps, step % steps / steps


# --- cells and blocks


def _cell_shares(side: int, cells: int) -> tuple[_Indices, tuple[_Doubles, _Doubles]]:
    """Of each pixel along a side the last cell whose centre lies before it, where 0 is one outside; that cell's share
    of the pixel, which falls linearly to 0 at the next centre; and the next cell's, the rest."""
    position = (np.arange(side) + 0.5) * cells / side + 0.5
    before = np.floor(position).astype(np.int64)
    return before, (1 - (position - before), position - before)


def _write_normalised_blocks(counts: Floats, block: int, clip: float, flat: float, found: Floats) -> None:
    """Into N×D, of N×R×C×bins: the blocks of block × block cells row by row, each by L2-Hys (Lowe 2004): to unit
    length, clipped, and to unit length again. flat: a length that is as good as none."""
    count, rows, columns, bins = counts.shape
    n, y, x, each = counts.strides
    shape = count, rows - block + 1, columns - block + 1, block, block * bins
    np.copyto(found.reshape(shape), np.lib.stride_tricks.as_strided(counts, shape, (n, y, x, y, each)))
    blocks = found.reshape(-1, block * block * bins)
    for limit in (clip, None):
        length = np.einsum("ij,ij->i", blocks, blocks)
        length += flat**2
        blocks *= (1 / np.sqrt(length, out=length))[:, None]
        if limit is not None:
            np.minimum(blocks, limit, out=blocks)
