"""The choice of a setting by cross-validation, for classifiers that have no shorter way to leave pictures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from featkit.learning.training import Training

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_FOLDS = 3
_LARGEST_ROWS = 8000


class _Scoring(Protocol):
    def scores(self, features: Floats) -> Floats: ...


_Choice = TypeVar("_Choice", float, None)


def choose_by_folds(
    training: Training,
    choices: Sequence[_Choice],
    sweep: Callable[[Training, Sequence[_Choice]], Iterable[_Scoring]],
) -> tuple[_Choice, float]:
    """The choice that is right most often on held-out thirds of at most _LARGEST_ROWS pictures, of equals the first;
    and the share that it labels right. sweep: gives a fitted head of each choice, in their order.

    The only picture of a class is always learned from, and none that is held out. Where all are, the first is chosen,
    and the share is 0.
    """
    rows, fold = _folds(training)
    right = np.zeros(len(choices), np.int64)
    for number in range(_FOLDS):
        learned, other = rows[fold != number], rows[fold == number]
        if not len(other):
            continue
        heads = sweep(_part(training, learned), choices)
        for place, head in enumerate(heads):
            scores = sum(head.scores(np.asarray(view[other])) for view in training.views)
            right[place] += (np.argmax(scores, 1) == training.labels[other]).sum()
    best, held_out = int(right.argmax()), int((fold >= 0).sum())
    return choices[best], int(right[best]) / held_out if held_out else 0.0


def _part(training: Training, rows: Labels) -> Training:
    views = tuple(np.asarray(view[rows]) for view in training.views)
    return Training(views, training.labels[rows], training.classes, training.weights[rows], training.seed)


def _folds(training: Training) -> tuple[Labels, Labels]:
    """Some of the rows, each class in proportion, and the fold in which each is held out; -1 for the only one of a
    class, which is always learned from."""
    random = np.random.default_rng(training.seed)
    share = min(1.0, _LARGEST_ROWS / len(training.labels))
    rows, folds = [], []
    for label in range(training.classes):
        own = random.permutation(np.flatnonzero(training.labels == label))
        own = own[: max(2, round(share * len(own)))]
        rows.append(own)
        folds.append(np.arange(len(own)) % _FOLDS if len(own) > 1 else np.full(len(own), -1))
    return np.concatenate(rows), np.concatenate(folds)
