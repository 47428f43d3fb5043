"""How often a classifier is right, how sure that number is, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.records import record

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

#: The normal distribution's 97.5 % quantile: 2.5 % lie beyond it on either side.
QUANTILE_95 = 1.959963984540054


@dataclass(frozen=True)
class ClassResult:
    """One class: count is how many pictures of it there are.

    precision: of the pictures that were given this label, the share that bear it rightly; None where none was given it.
    recall: of its pictures, the share that was recognised; None where it has none. f1: their harmonic mean, 0 where
    none of its pictures was recognised; None where it has none and was never given.
    """

    label: str
    count: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Evaluation:
    """What a classifier said about pictures whose class is known.

    classes: K labels. paths: N, one a picture. truth, predicted: int64 N, indices into classes. scores: float32 N×K,
    larger is more likely; -inf is never. Raises UsageError for no picture at all, ValueError for arrays that do not fit
    together, for scores that are NaN, and for a predicted label whose score is infinite.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    truth: IntArray
    predicted: IntArray
    scores: FloatArray

    def __post_init__(self) -> None:
        count = len(self.paths)
        if not count:
            raise UsageError("there is no picture to evaluate on", hint="name at least one labelled test picture")
        if self.scores.shape != (count, len(self.classes)):
            raise ValueError(f"scores are {self.scores.shape}, for {count} pictures and {len(self.classes)} classes")
        for name, labels in (("truth", self.truth), ("predicted", self.predicted)):
            if labels.shape != (count,):
                raise ValueError(f"{name} has the shape {labels.shape}, for {count} pictures")
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise ValueError(f"{name} names classes that do not exist")
        if np.isnan(self.scores).any() or not np.isfinite(self.scores[np.arange(count), self.predicted]).all():
            raise ValueError("scores must be numbers, and those of the predicted labels finite")

    @property
    def accuracy(self) -> float:
        """The share of pictures whose predicted label is the true one."""
        return int(np.count_nonzero(self.truth == self.predicted)) / len(self.paths)

    @property
    def interval(self) -> tuple[float, float]:
        """`wilson`'s. It accounts for the number of pictures alone, not for how they were chosen."""
        return wilson(self.accuracy, len(self.paths))

    @property
    def confusion(self) -> IntArray:
        """int64 K×K: how many pictures of the class of the row were given the label of the column."""
        size = len(self.classes)
        return np.bincount(self.truth * size + self.predicted, minlength=size * size).reshape(size, size)

    @property
    def per_class(self) -> tuple[ClassResult, ...]:
        """One result a class, in the order of classes."""
        confusion = self.confusion
        hits, counts, given = (each.tolist() for each in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
        return tuple(
            ClassResult(
                label,
                count,
                precision=_share(hit, times),
                recall=_share(hit, count),
                f1=_share(2 * hit, times + count),
            )
            for label, hit, count, times in zip(self.classes, hits, counts, given, strict=True)
        )

    @property
    def hardest_first(self) -> tuple[ClassResult, ...]:
        """The same, the lowest recall first; those without one come last."""
        return tuple(sorted(self.per_class, key=lambda each: 2.0 if each.recall is None else each.recall))

    def worst(self, count: int) -> IntArray:
        """Indices of at most `count` mistakes, the most confident one first: the one in which the predicted label's
        score exceeds the true one's by most; of equals, the one that stands first."""
        rows = np.flatnonzero(self.truth != self.predicted)
        # In float32 the difference of large scores could overflow.
        wrong, true = (self.scores[rows, each[rows]].astype(np.float64) for each in (self.predicted, self.truth))
        return rows[np.argsort(true - wrong, kind="stable")[:count]].astype(np.int64)

    def record(self, **more: object) -> dict[str, object]:
        """The `evaluation` record as plain Python values: accuracy, interval, test (how many pictures), classes,
        confusion and per_class, then what is given, which may replace one of these."""
        fields: dict[str, object] = {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "test": len(self.paths),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "per_class": [vars(each) for each in self.per_class],
        }
        return record("evaluation", **{**fields, **more})


def evaluate(classes: Sequence[str], paths: Sequence[str], truth: npt.ArrayLike, scores: npt.ArrayLike) -> Evaluation:
    """The evaluation of a classifier that predicts the class of the largest score, of equals the first.

    truth: N indices into the K classes; scores: N×K. Raises what Evaluation raises.
    """
    table = np.asarray(scores, np.float32)
    predicted = table.argmax(axis=1) if len(paths) else np.empty(0)
    return Evaluation(tuple(classes), tuple(paths), np.asarray(truth, np.int64), predicted.astype(np.int64), table)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `count` pictures: the shares under which what was counted here is
    not among the 5 % least likely outcomes."""
    spread = QUANTILE_95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    margin = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # It holds the share; rounding must not change that.
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))


def percent(share: float) -> str:
    """As it is shown: 97.5 %."""
    return f"{100 * share:.1f} %"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
