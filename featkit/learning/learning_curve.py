"""How accuracy grows with the photos that a class has: how many to learn from at each step, which, and how sure the
mean of several draws is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.learning.evaluation import wilson

IntArray = npt.NDArray[np.int64]

# Heads of few photos differ much from draw to draw, and are fitted in no time.
_DRAWS_OF_FEW, _DRAWS_OF_MANY, _FEW = 5, 3, 20


@dataclass(frozen=True)
class CurvePoint:
    """size: photos of each class that were learned from, of all classes together `pictures`. tested: how many others
    each head was tested on. accuracies: one a draw. Raises ValueError where there is none, or nothing was tested on."""

    size: int
    pictures: int
    tested: int
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.accuracies or self.tested < 1:
            raise ValueError("a point of a learning curve needs an accuracy, of some pictures")

    @property
    def mean(self) -> float:
        """Of the draws' accuracies."""
        return math.fsum(self.accuracies) / len(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy to expect from so many photos a class.

        Two things make the mean uncertain: which pictures it was tested on, for which Wilson's interval stands, as if
        the mean were one head's accuracy; and which were drawn to learn from, for which Student's stands, of the mean
        of the draws. The distances of both from the mean are added as squares, on each side (Zou & Donner 2008,
        Statistics in Medicine 27:1693). Of a single draw it is Wilson's: how others would differ is not known. Draws of
        nearly all there is share most of it, and differ less than those of new photos would.
        """
        low, high = wilson(self.mean, self.tested)
        spread = 0.0
        if (draws := len(self.accuracies)) > 1:
            from scipy.special import stdtrit

            spread = float(stdtrit(draws - 1, 0.975)) * float(np.std(self.accuracies, ddof=1)) / math.sqrt(draws)
        below, above = math.hypot(self.mean - low, spread), math.hypot(high - self.mean, spread)
        return max(0.0, self.mean - below), min(1.0, self.mean + above)


def sizes(counts: Sequence[int]) -> tuple[int, ...]:
    """Photos a class to learn from, step by step: 1, 2, 5, 10, 20, 50 and so on, and at last as many as at least half
    of the classes have (the lower median: where all have the same number, that). counts: of each class, empty ones left
    out; of none: no steps."""
    having = sorted(count for count in counts if count > 0)
    if not having:
        return ()
    most = having[(len(having) + 1) // 2 - 1]
    return (*itertools.takewhile(lambda size: size < most, _steps()), most)


def _steps() -> Iterator[int]:
    return (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))


def draw_count(size: int) -> int:
    """How many draws of so many photos a class are worth their time."""
    return _DRAWS_OF_FEW if size <= _FEW else _DRAWS_OF_MANY


def draws(labels: IntArray, size: int, seed: int, number: int) -> list[IntArray]:
    """`number` random draws of `size` pictures of each class, all of a class that has no more: indices into labels, as
    int64 in order. labels: int64 N, 0..K-1.

    The same seed draws the same, and the n-th draw of a size holds the n-th of each smaller size, so a curve is not
    ragged for the pictures' sake. One draw only where it takes all pictures. Raises ValueError for a size or a number
    below 1.
    """
    if size < 1 or number < 1:
        raise ValueError(f"{number} draws of {size} pictures of each class are none")
    if not len(labels) or size >= np.bincount(labels).max():
        return [np.arange(len(labels))]
    return [_draw(labels, size, np.random.default_rng((seed, each))) for each in range(number)]


def _draw(labels: IntArray, size: int, random: np.random.Generator) -> IntArray:
    """The first `size` of each class in a random order of all."""
    shuffled = random.permutation(len(labels))
    # By class, and within it in that order; then each one's place from where its class starts.
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    places = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[places < size])
