"""Whether one classifier is better than another, and by how much, on the pictures that both were tested on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featkit.errors import UsageError
from featkit.learning.evaluation import QUANTILE_95, Evaluation

#: From this probability on, a difference may be chance.
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """pictures: how many both were tested on. only_first, only_second: how many of these the first alone, or the second
    alone, labelled right. Raises ValueError for counts that cannot be."""

    pictures: int
    only_first: int
    only_second: int

    def __post_init__(self) -> None:
        if min(self.only_first, self.only_second) < 0 or not 0 < self.pictures >= self.only_first + self.only_second:
            raise ValueError(f"{self.only_first} and {self.only_second} of {self.pictures} pictures cannot be")

    @property
    def p(self) -> float:
        """McNemar's test (1947): how likely two equally good classifiers are to differ so much or more.

        Exact, from the binomial distribution of the pictures that one alone has right, as two-sided mid-p: what is
        just as likely as what was seen counts half. Fagerland, Lydersen & Laake (2013, BMC Medical Research Methodology
        13:91) advise against the one without it, which finds far fewer differences than its level allows; mid-p kept
        to the level in all of their 9,595 cases. 1 where both counts are equal.
        """
        from scipy.special import bdtr

        fewer, discordant = min(self.only_first, self.only_second), self.only_first + self.only_second
        if 2 * fewer == discordant:
            return 1.0
        below = float(bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0
        return below + float(bdtr(fewer, discordant, 0.5))

    @property
    def told_apart(self) -> bool:
        """Whether p is below 5 %. Of many comparisons one in twenty is so by chance."""
        return self.p < LEVEL

    @property
    def difference(self) -> float:
        """The first's accuracy on these pictures less the second's."""
        return (self.only_first - self.only_second) / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference: Wald's with a picture added to each of the two counts (Bonett & Price 2012,
        Journal of Educational and Behavioral Statistics 37:479). It may just hold 0 where p is just below 5 %."""
        count = self.pictures + 2
        first, second = (self.only_first + 1) / count, (self.only_second + 1) / count
        centre = first - second
        margin = QUANTILE_95 * math.sqrt((first + second - centre**2) / count)
        return max(-1.0, centre - margin), min(1.0, centre + margin)


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Of the pictures with a path that both have; one that stands there twice counts once.

    The two may number their classes differently. Raises UsageError where no picture is in both, or where one bears
    another true label in each.
    """
    ours, theirs = _judged(first), _judged(second)
    common = ours.keys() & theirs.keys()
    if not common:
        raise UsageError(
            "no picture was tested on by both: nothing can be compared", hint="evaluate both on the same pictures"
        )
    others = sorted(path for path in common if ours[path][0] != theirs[path][0])
    if others:
        raise UsageError(
            f"is {ours[others[0]][0]!r} in one evaluation and {theirs[others[0]][0]!r} in the other",
            path=others[0],
            hint="evaluate both with the same labels",
        )
    right = [(ours[path][1], theirs[path][1]) for path in common]
    return Comparison(len(right), right.count((True, False)), right.count((False, True)))


def _judged(evaluation: Evaluation) -> dict[str, tuple[str, bool]]:
    """Path -> true label, and whether it was given."""
    right = (evaluation.truth == evaluation.predicted).tolist()
    labels = (evaluation.classes[index] for index in evaluation.truth.tolist())
    return dict(zip(evaluation.paths, zip(labels, right, strict=True), strict=True))
