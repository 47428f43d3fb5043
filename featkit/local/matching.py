"""Which keypoint of one picture is which of the other.

SIFT and ORB: the nearest neighbour among the descriptors, exact, in blocks, by matrix products. ALIKED and DISK:
LightGlue, in learned.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.local import learned
from featkit.local.features import Features

#: Raise when the same features and configuration would give other matches: it is part of the cache key.
VERSION = 1

# Rows of a similarity block: 256 × 20,000 float32 are 20 MB, and larger blocks are no faster.
_BLOCK_ROWS = 256

# (first row, last row, block to fill)
_Similarity = Callable[[int, int, npt.NDArray[np.float32]], None]


@dataclass(frozen=True)
class MatcherConfig:
    """ratio: a match's distance over the second nearest's (Lowe 2004); 1 switches the test off.
    mutual: both must be each other's nearest. Neither is about ALIKED and DISK: LightGlue decides by itself, and its
    matches are mutual."""

    ratio: float = 0.9
    mutual: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise UsageError("--ratio must lie above 0 and not above 1", hint="0.9 with --mutual is the default")
        if self.ratio == 1 and not self.mutual:
            raise UsageError(
                "--one-way with --ratio 1 keeps every keypoint's nearest neighbour, right or wrong",
                hint="give a --ratio below 1, or --mutual",
            )


@dataclass(frozen=True)
class Matches:
    """Tentative matches, in the order of a's keypoints.

    indices: int32 M×2, (row of a, row of b).
    score: float32 M in [0, 1], higher is better: 1 − distance / second distance, or LightGlue's confidence.
    """

    indices: npt.NDArray[np.int32]
    score: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)


NO_MATCHES = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Neighbours:
    """For every row of a its two nearest rows of b, and for every row of b its nearest row of a.

    nearest, second: int64 N_a (second is −1 where b has one row); distance, second_distance: float32 N_a, Euclidean for
    float rows and Hamming for packed bits (inf where there is no second); back: int64 N_b.
    """

    nearest: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float32]
    second_distance: npt.NDArray[np.float32]
    back: npt.NDArray[np.int64]


def match_features(a: Features, b: Features, config: MatcherConfig | None = None) -> Matches:
    """Match two pictures' features: SIFT as RootSIFT (Arandjelović & Zisserman 2012), ORB by Hamming distance, ALIKED
    and DISK by LightGlue (Lindenberger et al. 2023; DependencyError without that extra)."""
    config = config or MatcherConfig()
    if a.detector != b.detector:
        raise ValueError("the two pictures were described by different detectors")
    if not len(a) or not len(b):
        return NO_MATCHES
    if a.detector in learned.DETECTORS:
        return Matches(*learned.match(a, b))
    found = (
        nearest_binary(a.descriptors, b.descriptors)
        if a.detector == "orb"
        else nearest_neighbours(root_sift(a.descriptors), root_sift(b.descriptors), unit_length=True)
    )
    return select(found, config)


def matcher_digest(detector: str) -> str:
    """What a cached result of `match_features` depends on besides VERSION, OpenCV and the configuration."""
    return learned.matcher_digest(detector) if detector in learned.DETECTORS else ""


def select(found: Neighbours, config: MatcherConfig) -> Matches:
    """The ratio test and the mutual check, on neighbours already found."""
    rows = np.arange(len(found.nearest))
    # Against an infinite or absent second neighbour there is nothing to be ambiguous with.
    with np.errstate(invalid="ignore"):
        ratio = np.where(found.second_distance > 0, found.distance / found.second_distance, 1.0)
    keep = ratio <= config.ratio
    if config.mutual:
        keep &= found.back[found.nearest] == rows
    indices = np.stack([rows[keep], found.nearest[keep]], 1).astype(np.int32)
    return Matches(indices, (1 - ratio[keep]).astype(np.float32))


def root_sift(descriptors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 N×128 -> float32 N×128 of unit length: square root of the L1-normalised histogram."""
    rooted = descriptors.astype(np.float32)
    rooted /= np.maximum(rooted.sum(1, keepdims=True), 1)
    return np.sqrt(rooted, out=rooted)


def nearest_neighbours(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], *, unit_length: bool = False
) -> Neighbours:
    """Exact Euclidean neighbours, both ways, of float32 N_a×D and N_b×D (each at least one row).

    unit_length: all rows have length 1, and the nearest is the one with the largest product.

    What cv2.BFMatcher finds, from one matrix product a block: |x − y|² = |x|² + |y|² − 2 x·y. The distances of the
    pairs found are computed again from the differences, since the product loses digits for near-identical rows.
    """
    half_squares_b = 0.5 * np.einsum("nd,nd->n", b, b)
    half_squares_a = 0.5 * np.einsum("nd,nd->n", a, a)

    def similarity(first: int, last: int, out: npt.NDArray[np.float32]) -> None:
        # −½|x − y|²: the larger, the nearer, comparable along rows and along columns.
        np.matmul(a[first:last], b.T, out=out)
        if not unit_length:
            out -= half_squares_b
            out -= half_squares_a[first:last, None]

    nearest, second, back = _scan(similarity, len(a), len(b))
    distance = _row_distances(a, b, nearest)
    second_distance = np.full(len(a), np.inf, np.float32)
    if len(b) > 1:
        second_distance = _row_distances(a, b, second)
    return Neighbours(nearest, second, distance, second_distance, back)


def nearest_binary(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> Neighbours:
    """Exact Hamming neighbours, both ways, of packed bits uint8 N_a×W and N_b×W (each at least one row).

    Bits as ±1: their product is W·8 − 2·distance, exact in float32.
    """
    signs_b = _signs(b)

    def similarity(first: int, last: int, out: npt.NDArray[np.float32]) -> None:
        np.matmul(_signs(a[first:last]), signs_b.T, out=out)

    nearest, second, back = _scan(similarity, len(a), len(b))
    distance = _hamming(a, b[nearest])
    second_distance = np.full(len(a), np.inf, np.float32)
    if len(b) > 1:
        second_distance = _hamming(a, b[second])
    return Neighbours(nearest, second, distance, second_distance, back)


def _scan(
    similarity: _Similarity, rows: int, columns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The best and second column of every row, and the best row of every column; ties go to the lower index.

    A column's argmax is looked up only in blocks that beat its best so far: after a few blocks that is rare.
    """
    nearest = np.zeros(rows, np.int64)
    second = np.full(rows, -1, np.int64)
    back = np.zeros(columns, np.int64)
    column_best = np.full(columns, -np.inf, np.float32)
    buffer = np.empty((min(_BLOCK_ROWS, rows), columns), np.float32)
    for first in range(0, rows, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, rows)
        block = buffer[: last - first]
        similarity(first, last, block)
        block_best = block.max(0)
        improved = np.flatnonzero(block_best > column_best)
        column_best[improved] = block_best[improved]
        back[improved] = first + block[:, improved].argmax(0)
        nearest[first:last] = block.argmax(1)
        if columns > 1:
            block[np.arange(last - first), nearest[first:last]] = -np.inf
            second[first:last] = block.argmax(1)
    return nearest, second, back


def _row_distances(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], partner: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    distances = np.empty(len(a), np.float32)
    for first in range(0, len(a), _BLOCK_ROWS):
        difference = a[first : first + _BLOCK_ROWS] - b[partner[first : first + _BLOCK_ROWS]]
        distances[first : first + _BLOCK_ROWS] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return distances


def _signs(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1


def _hamming(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(np.bitwise_count(a ^ b).sum(1), np.float32)
