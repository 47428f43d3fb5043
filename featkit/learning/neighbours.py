"""The `knn` head: the nearest training pictures, exactly, by blocked matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning.newton import Floats, Labels
from featkit.learning.training import Training

_ROWS = 512
# Square of the distance below which float32 cannot tell two unit vectors apart.
_SAME_SQUARE = 1e-6
# That are held out for the choice of how many vote, evenly spread over all.
_LARGEST_QUERIES = 8000
#: Of which one is chosen.
CHOICES = (1, 3, 5, 10, 20, 50)


@dataclass(frozen=True)
class NeighboursConfig:
    """neighbours: how many vote. Raises UsageError for fewer than one."""

    neighbours: int = 10

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise UsageError(f"there must be 1 neighbour or more, not {self.neighbours}")


@dataclass(frozen=True)
class Neighbours:
    """features: float32 N×P, unit length. labels: int64 N. weights: float32 N, of the votes. classes: K."""

    features: Floats
    labels: Labels
    weights: Floats
    classes: int
    neighbours: int

    def scores(self, features: Floats) -> Floats:
        """float32 N×K: the votes of the neighbours of smallest angle, each weighing 1 / distance of the unit
        vectors."""
        count = min(self.neighbours, len(self.features))
        found = np.zeros((len(features), self.classes), np.float32)
        for start in range(0, len(features), _ROWS):
            cosines = _unit(features[start : start + _ROWS]) @ self.features.T
            nearest = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
            votes = self.weights[nearest] / _distances(np.take_along_axis(cosines, nearest, 1))
            _count(found[start : start + _ROWS], self.labels[nearest], votes)
        return found

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "features": self.features,
            "labels": self.labels,
            "weights": self.weights,
        }
        return {"classes": self.classes, "neighbours": self.neighbours}, arrays

    @classmethod
    def from_parts(cls, config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Neighbours:
        features, labels, weights = arrays["features"], arrays["labels"], arrays["weights"]
        classes = int(config["classes"])
        fits = features.ndim == 2 and labels.shape == weights.shape == features.shape[:1] and labels.dtype == np.int64
        if not fits or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError("the parts of a head of neighbours do not fit together")
        return cls(features, labels, weights, classes, int(config["neighbours"]))


def _distances(cosines: Floats) -> Floats:
    """Of unit vectors."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * cosines, _SAME_SQUARE)))


def _count(scores: Floats, labels: Labels, votes: Floats) -> None:
    """Adds n×k votes for n×k classes to scores n×K."""
    np.add.at(scores, (np.repeat(np.arange(len(labels)), labels.shape[1]), labels.ravel()), votes.ravel())


def _unit(features: Floats) -> Floats:
    length = np.sqrt(np.einsum("ij,ij->i", features, features))
    return np.asarray(features / np.where(length > 0, length, 1)[:, None], np.float32)


def fit_neighbours(training: Training, config: NeighboursConfig) -> Neighbours:
    """Keeps all training pictures; the mirror images need not be kept, a picture to be named is compared as both."""
    return Neighbours(
        _unit(np.asarray(training.views[0])), training.labels, training.weights, training.classes, config.neighbours
    )


def choose_neighbours(training: Training, choices: Sequence[float]) -> tuple[int, float]:
    """How many of `choices`, of none of CHOICES, label the most pictures right whose own vote does not count; of equals
    the fewest. And the share that they label right, of pictures that are not alone in their class; 0 if all are.

    Of two views the votes are added up, as at prediction. Of more than _LARGEST_QUERIES pictures so many are held out,
    but all of them vote. Choices of more than there are other pictures are passed over, unless all are; then it is the
    smallest.
    """
    sizes = [int(each) for each in choices or CHOICES]
    candidates = sorted(each for each in sizes if each < len(training.labels)) or [min(sizes)]
    head = fit_neighbours(training, NeighboursConfig())
    several = np.flatnonzero(np.bincount(training.labels)[training.labels] > 1)
    asked = several[np.linspace(0, len(several) - 1, min(len(several), _LARGEST_QUERIES)).astype(np.int64)]
    right = np.zeros(len(candidates), np.int64)
    for start in range(0, len(asked), _ROWS):
        queries = asked[start : start + _ROWS]
        found = np.zeros((len(candidates), len(queries), training.classes), np.float32)
        for view in training.views:
            _count_nearest(found, head, np.asarray(view[queries]), queries, candidates)
        right += (found.argmax(2) == training.labels[queries]).sum(1)
    best = int(right.argmax())
    return candidates[best], int(right[best]) / len(asked) if len(asked) else 0.0


def _count_nearest(scores: Floats, head: Neighbours, features: Floats, own: Labels, candidates: Sequence[int]) -> None:
    """Adds to scores, candidates×n×K, the votes of the nearest of n pictures, whose own places are `own`."""
    cosines = _unit(features) @ head.features.T
    np.put_along_axis(cosines, own[:, None], -np.inf, 1)
    count = min(candidates[-1], len(head.labels) - 1)
    nearest = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
    found = np.take_along_axis(cosines, nearest, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    nearest, found = np.take_along_axis(nearest, order, 1), np.take_along_axis(found, order, 1)
    votes = head.weights[nearest] / _distances(found)
    for place, many in enumerate(candidates):
        _count(scores[place], head.labels[nearest[:, :many]], votes[:, :many])
