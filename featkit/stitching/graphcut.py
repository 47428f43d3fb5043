"""Seams where photos agree.

Photos of one place differ where something moved, where parallax shifts what is near, and by noise. The canvas is
divided into small cells, and each cell is given to one of the photos that show it, so that the disagreement along the
borders between cells of different photos becomes least: alpha expansion (Boykov, Veksler & Zabih 2001), which asks of
one photo after another which cells it had better take from all others together, each time by a minimum cut. So no seam
is settled before every photo has been weighed for its place, and a full circle is a graph like any other.

What moves is there in one photo and not in another. It stays whole, because a seam through it pays for each pixel in
which it differs from the background: by the square of the difference above the noise, and gaps between differences are
closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import Pixels
from featkit.opencv import cv2
from featkit.stitching.pieces import Canvas, Indices, Mask, Numbers, Piece, as_bytes, place_of, remoteness

_Costs = npt.NDArray[np.float64]
_Image = npt.NDArray[np.float32]

# Measured on rows and grids of photos with up to six figures that move between them, many in the colour of their
# background, with misregistration of half a pixel, noise of 3 levels and exposure that is off by 3 %: about half and
# twice each value are as good. Pixels are those of the reduced canvas; costs are those of a pixel of a seam.

# Side of a cell. From 3 to 8 pixels, seams are equally good, and time falls with the number of cells.
_CELL = 8
# Differences of levels, in the channel that differs most: what is noise after a blur of this standard deviation, and
# what above it costs 1. What costs this much is different, and cannot be more so.
_BLUR = 1.0
_NOISE = 4
_UNIT = 10
_DIFFERENT = 30.0
# Radius that closes gaps between differences, as where a sleeve has the colour of the grass.
_CLOSING = 4
# Of every seam; of one along the rim of a photo, where there is no room to blend, falling to nothing at a distance from
# it; and of one where photos meet without overlapping, so that nothing can be compared.
_LENGTH = 0.3
_ALONG_RIM = 2.0
_RIM_REACH = 10
_UNKNOWN = 30.0
# Of every pixel of a cell, for its remoteness in the photo: decides where photos are alike.
_REMOTENESS = 0.01
# A cell chooses among the photos in which it is least remote.
_CHOICES = 8
_SWEEPS = 4
# Minimum cuts are found in whole numbers.
_FINENESS = 100
# Standard deviation of the blur that rounds the corners of cells.
_ROUNDING = 3.0


def least_disagreement(pieces: Sequence[Piece], masks: Sequence[Mask], canvas: Canvas) -> Numbers:
    """int32 H×W: the number of the piece that is shown, -1 where there is none.

    masks: bool h×w, where each piece may be shown, at least somewhere; pieces are compared wherever they overlap.
    """
    cells = _cells(masks, canvas)
    choices = _choices(pieces, masks, canvas, cells)
    borders = _borders(cells, canvas.circle)
    seams = _Seams(borders, len(pieces), dict(_compared(pieces, choices, borders, canvas)))
    best, *others = _starts(choices, borders.cells)
    _expand(best, choices, seams)
    for other in others:
        _expand(other, choices, seams)
        _improve(best, other, np.arange(borders.cells), seams)
    return _rounded(np.where(cells >= 0, best.labels[cells], -1), masks, canvas)


# --- the graph


def _cells(masks: Sequence[Mask], canvas: Canvas) -> Numbers:
    """int32 H×W: the canvas in squares, divided where the rim of a photo runs through them, so that a cell is all
    inside a photo or all outside; -1 where there is no photo."""
    covering = np.zeros(canvas.shape, np.int64)  # the number of a set of photos
    sets = 1
    for mask, place in zip(masks, canvas.places, strict=True):
        extended = np.flatnonzero(np.bincount(covering[place][mask]))
        number = np.arange(sets)
        number[extended] = sets + np.arange(len(extended))
        covering[place] = np.where(mask, number[covering[place]], covering[place])
        sets += len(extended)
    height, width = canvas.shape
    squares = np.add.outer(np.arange(height) // _CELL * width, np.arange(width) // _CELL)
    names = np.where(covering > 0, squares * sets + covering, -1).ravel()
    runs = np.flatnonzero(np.diff(names, prepend=-2))
    used, numbers = np.unique(names[runs], return_inverse=True)
    cells = np.repeat(numbers - (used[0] < 0), np.diff(runs, append=names.size))
    return np.asarray(cells.reshape(canvas.shape), np.int32)


@dataclass(frozen=True)
class _Choice:
    """The cells, int64 n in rising order, that one photo may take, and float64 n, what each costs."""

    cells: Indices
    costs: _Costs


def _choices(pieces: Sequence[Piece], masks: Sequence[Mask], canvas: Canvas, cells: Numbers) -> list[_Choice]:
    count = int(cells.max()) + 1
    seen: list[Indices] = []
    remote: list[_Costs] = []
    for piece, mask, place in zip(pieces, masks, canvas.places, strict=True):
        inside = cells[place][mask]
        seen.append(np.flatnonzero(np.bincount(inside, minlength=count)))
        remote.append(np.asarray(np.bincount(inside, remoteness(piece.mask)[mask], count)[seen[-1]], float))
    photo = np.repeat(np.arange(len(seen)), [len(each) for each in seen])
    cell, cost = np.concatenate(seen), np.concatenate(remote)
    order = np.lexsort((photo, cost, cell))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    kept = [(photo == number) & (rank < _CHOICES) for number in range(len(seen))]
    return [_Choice(cell[each], _REMOTENESS * cost[each]) for each in kept]


@dataclass(frozen=True)
class _Borders:
    """Where `cells` cells touch. first, second: int64 E, the cells beside each border. one, other: int32 M, places on
    the flat canvas of the pixels on its two sides, and owner: int64 M, of which border. length: int64 E, how many."""

    cells: int
    first: Indices
    second: Indices
    one: Numbers
    other: Numbers
    owner: Indices
    length: Indices


def _borders(cells: Numbers, circle: bool) -> _Borders:
    flat = np.arange(cells.size, dtype=np.int32).reshape(cells.shape)
    sides = [(flat[:, :-1], flat[:, 1:]), (flat[:-1], flat[1:])]
    if circle:
        sides.append((flat[:, -1:], flat[:, :1]))
    number = cells.ravel()
    pixels = []
    for here, there in sides:
        border = (number[here] != number[there]) & (number[here] >= 0) & (number[there] >= 0)
        pixels.append((here[border], there[border]))
    one, other = (np.concatenate(side) for side in zip(*pixels, strict=True))
    touching = number[one].astype(np.int64), number[other]
    count = int(cells.max()) + 1
    names, owner = np.unique(np.minimum(*touching) * count + np.maximum(*touching), return_inverse=True)
    length = np.bincount(owner, minlength=len(names))
    return _Borders(count, names // count, names % count, one, other, owner, length)


# --- what seams cost


@dataclass(frozen=True)
class _Seams:
    """What a seam costs along each border, by the two photos beside it. tables: of photos a < b that overlap, the
    borders, in rising order, along which they can be compared, and the costs there."""

    borders: _Borders
    photos: int
    tables: dict[tuple[int, int], tuple[Indices, _Costs]]

    def costs(self, a: npt.NDArray[Any] | int, b: npt.NDArray[Any] | int, borders: Indices) -> _Costs:
        """float64 n: a, b: numbers of the photos beside each of n borders; 0 where they are the same."""
        low, high = np.minimum(a, b), np.maximum(a, b)
        pairs = low.astype(np.int64) * self.photos + high
        result = np.zeros(len(borders))
        seams = np.flatnonzero(low != high)
        for pair in np.unique(pairs[seams]):
            along = seams[pairs[seams] == pair]
            wanted = borders[along]
            result[along] = 2 * _UNKNOWN * self.borders.length[wanted]
            known, costs = self.tables.get(divmod(int(pair), self.photos), (wanted[:0], result[:0]))
            at = np.searchsorted(known, wanted)
            hit = np.append(known, -1)[at] == wanted
            result[along[hit]] = costs[at[hit]]
        return result


def _compared(
    pieces: Sequence[Piece], choices: Sequence[_Choice], borders: _Borders, canvas: Canvas
) -> Iterator[tuple[tuple[int, int], tuple[Indices, _Costs]]]:
    """The tables of seams."""
    smoothed = [_smoothed(piece) for piece in pieces]
    rims = [_along_rim(piece.mask) for piece in pieces]
    # Of the second photo of a pair, on the canvas, and 0 where unknown, what a seam costs.
    seen = np.zeros(canvas.shape, bool)
    colours = np.zeros((*canvas.shape, 3), np.uint8)
    rim = np.zeros(canvas.shape, np.float32)
    costs = np.zeros(canvas.shape, np.float32)
    for a, (piece, place) in enumerate(zip(pieces, canvas.places, strict=True)):
        mine = np.zeros(borders.cells, bool)
        mine[choices[a].cells] = True
        near = mine[borders.first] | mine[borders.second]
        numbers, sampled = np.flatnonzero(near), near[borders.owner]
        one, other = borders.one[sampled], borders.other[sampled]
        owner = (np.cumsum(near) - 1)[borders.owner[sampled]]
        for b in range(a + 1, len(pieces)):
            if not canvas.overlaps[a, b]:
                continue
            seen[canvas.places[b]] = pieces[b].mask
            both = seen[place] & piece.mask
            seen[canvas.places[b]] = False
            if not both.any():
                continue
            colours[canvas.places[b]], rim[canvas.places[b]] = smoothed[b], rims[b]
            x, y, width, height = cv2.boundingRect(as_bytes(both))
            part = np.s_[y : y + height, x : x + width]
            here = place_of(canvas.rows[a][part[0]], canvas.columns[a][part[1]])
            disagreement = _disagreement(smoothed[a][part], colours[here], both[part])
            costs[here] = np.where(both[part], disagreement + rims[a][part] + rim[here], 0)
            sides = costs.ravel()[one], costs.ravel()[other]
            costs[here] = 0
            known = (sides[0] > 0).astype(np.int64) + (sides[1] > 0)
            # Where one side is unknown it costs as much as the other.
            compared = np.bincount(owner, (sides[0] + sides[1]) * np.where(known == 1, 2, 1), len(numbers))
            length = np.bincount(owner[known > 0], minlength=len(numbers))
            total = compared + 2 * _UNKNOWN * (borders.length[numbers] - length)
            yield (a, b), (np.asarray(numbers[length > 0], np.int64), np.asarray(total[length > 0], float))


def _smoothed(piece: Piece) -> Pixels:
    """uint8 h×w×3: without noise, and without what lies beyond the mask."""
    if not piece.mask.any():
        return piece.pixels
    mask = piece.mask.astype(np.float32)
    weight: Any = cv2.GaussianBlur(mask, (0, 0), _BLUR)
    blurred: Any = cv2.GaussianBlur(piece.pixels * mask[:, :, None], (0, 0), _BLUR)
    return np.asarray(np.rint(blurred / np.maximum(weight, 1e-3)[:, :, None]), np.uint8)


def _along_rim(mask: Mask) -> _Image:
    """float32 h×w: the cost of a seam near the rim of a photo."""
    distance: Any = cv2.distanceTransform(np.pad(as_bytes(mask), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(_ALONG_RIM * np.maximum(1 - distance / _RIM_REACH, 0), np.float32)


def _disagreement(a: Pixels, b: Pixels, both: Mask) -> _Image:
    """float32 h×w: the cost of a seam between two photos. both: bool h×w, where they are compared."""
    difference = a.astype(np.int16) - b
    difference -= _exposure_left(difference[both])
    levels = (np.minimum(np.abs(difference).max(2), 255) * both).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _CLOSING + 1,) * 2)
    closed: Any = cv2.morphologyEx(levels, cv2.MORPH_CLOSE, kernel)
    return np.asarray(_COST_OF_LEVELS[closed])


def _exposure_left(differences: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """int16 3: the difference of levels in each channel that most places share, which blending hides; or none, where
    more places agree without. The median alone would be that of somebody who fills most of the overlap."""
    sample = differences[:: 1 + len(differences) // _SAMPLED]
    middle = np.median(sample, axis=0).astype(np.int16)
    agreeing, anyway = (np.count_nonzero(np.abs(sample - left).max(1) <= _NOISE) for left in (middle, 0))
    return middle if agreeing > anyway else np.zeros(3, np.int16)


_SAMPLED = 10_000
_COST_OF_LEVELS = np.asarray(
    _LENGTH + np.minimum((np.maximum(np.arange(256) - _NOISE, 0) / _UNIT) ** 2, _DIFFERENT), np.float32
)


# --- alpha expansion


@dataclass(frozen=True)
class _Labelling:
    """int32 and float64, of each cell: the photo, and what the cell costs with it."""

    labels: Numbers
    costs: _Costs


def _starts(choices: Sequence[_Choice], count: int) -> Iterator[_Labelling]:
    """The least remote photos; then every other photo over the rest, and the rest over them. Expansion adds one photo
    at a time: where it should take two in place of a third, it gets no further unless it begins without that one."""
    even, odd = range(0, len(choices), 2), range(1, len(choices), 2)
    for order, regardless in (([*even, *odd], False), ([*odd, *even], True), ([*even, *odd], True)):
        start = _Labelling(np.full(count, -1, np.int32), np.full(count, np.inf))
        for number in order:
            choice = choices[number]
            taken = regardless | (choice.costs < start.costs[choice.cells])
            start.labels[choice.cells[taken]], start.costs[choice.cells[taken]] = number, choice.costs[taken]
        yield start


def _expand(current: _Labelling, choices: Sequence[_Choice], seams: _Seams) -> None:
    """Offer every cell every photo, until nothing is better."""
    count = len(current.labels)
    # A photo is asked again once a cell that it could take has changed.
    waiting = np.ones(len(choices), bool)
    for _ in range(_SWEEPS):
        for number, choice in enumerate(choices):
            if not waiting[number]:
                continue
            waiting[number] = False
            offer = _Labelling(np.full(count, number, np.int32), np.zeros(count))
            offer.costs[choice.cells] = choice.costs
            changed = np.zeros(count, bool)
            changed[_improve(current, offer, choice.cells, seams)] = True
            waiting |= [other is not choice and bool(changed[other.cells].any()) for other in choices]


def _improve(current: _Labelling, offer: _Labelling, cells: Indices, seams: _Seams) -> Indices:
    """Take from another labelling what makes this one better, all at once (Lempitsky, Rother, Roth & Blake 2010).

    cells: that may change, in rising order. Returns those that have.
    """
    free = cells[current.labels[cells] != offer.labels[cells]]
    nodes = len(free)
    node = np.full(len(current.labels), -1)
    node[free] = np.arange(nodes)
    near = np.flatnonzero((node[seams.borders.first] >= 0) | (node[seams.borders.second] >= 0))
    a, b = seams.borders.first[near], seams.borders.second[near]
    i, j = node[a], node[b]
    # Of each border: as it is, with the offer taken on one side, on the other, and on both.
    neither = seams.costs(current.labels[a], current.labels[b], near)
    with_a = seams.costs(offer.labels[a], current.labels[b], near)
    with_b = seams.costs(current.labels[a], offer.labels[b], near)
    with_both = seams.costs(offer.labels[a], offer.labels[b], near)

    keep, take = current.costs[free], offer.costs[free]
    for end, other, with_end in ((i, j, with_a), (j, i, with_b)):
        fixed = other < 0
        keep = keep + np.bincount(end[fixed], neither[fixed], nodes)
        take = take + np.bincount(end[fixed], with_end[fixed], nodes)
    inner = (i >= 0) & (j >= 0)
    i, j, with_a, with_b, with_both = i[inner], j[inner], with_a[inner], with_b[inner], with_both[inner]
    # Written as a cut after Kolmogorov & Zabih 2004. Squares break the triangle inequality now and then. What exceeds
    # it is left out, which can make the cut a bad one, and that is noticed below.
    at_most = np.minimum(neither[inner], with_a + with_b - with_both)
    keep += np.bincount(i, at_most, nodes)
    take += np.bincount(i, with_a, nodes) + np.bincount(j, with_both - with_a, nodes)
    taken = free[_minimum_cut(keep, take, i, j, with_a + with_b - with_both - at_most)]

    after = current.labels.copy()
    after[taken] = offer.labels[taken]
    gain = (neither - seams.costs(after[a], after[b], near)).sum() + (current.costs - offer.costs)[taken].sum()
    changed: Indices = taken if gain > 0 else taken[:0]
    current.labels[changed], current.costs[changed] = offer.labels[changed], offer.costs[changed]
    return changed


def _minimum_cut(keep: _Costs, take: _Costs, i: Indices, j: Indices, weights: _Costs) -> Mask:
    """bool n: which of n nodes take, so that it costs least. keep, take: float64 n, of any sign. weights: float64 m,
    not negative, of pairs in which node i keeps and node j takes."""
    nodes = len(keep)
    each, source, sink = np.arange(nodes), nodes, nodes + 1
    least = np.minimum(keep, take)
    tails = np.concatenate([i, np.full(nodes, source), each])
    heads = np.concatenate([j, each, np.full(nodes, sink)])
    capacities = np.rint(np.concatenate([weights, take - least, keep - least]) * _FINENESS).astype(np.int32)
    used = capacities > 0
    # Late: they take as long to load as it takes to cut a few photos, and what is in the cache needs no cutting.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    network = csr_array((capacities[used], (tails[used], heads[used])), shape=(nodes + 2, nodes + 2))
    left = network - maximum_flow(network, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    # Of several cuts that cost least, the one that takes least: what can still reach the sink.
    takes = np.zeros(nodes + 2, bool)
    takes[breadth_first_order(left.T.tocsr(), sink, return_predecessors=False)] = True
    return takes[:nodes]


def _rounded(labels: Numbers, masks: Sequence[Mask], canvas: Canvas) -> Numbers:
    """Without the corners of cells: a pixel goes to the photo that has most of its surroundings."""
    result = labels.copy()
    most = np.zeros(canvas.shape, np.float32)
    for number, (mask, place) in enumerate(zip(masks, canvas.places, strict=True)):
        own = labels[place] == number
        if not own.any():
            continue
        share: Any = cv2.GaussianBlur(own.astype(np.float32), (0, 0), _ROUNDING)
        more = mask & (share > most[place])
        result[place] = np.where(more, number, result[place])
        most[place] = np.where(more, share, most[place])
    return result
