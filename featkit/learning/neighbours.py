"""The `knn` head: the nearest training pictures, exactly, by blocked matrix products."""

from __future__ import annotations

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
            distances = np.sqrt(np.maximum(2 - 2 * np.take_along_axis(cosines, nearest, 1), _SAME_SQUARE))
            rows = np.repeat(np.arange(start, start + len(nearest)), count)
            np.add.at(found, (rows, self.labels[nearest].ravel()), (self.weights[nearest] / distances).ravel())
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


def _unit(features: Floats) -> Floats:
    length = np.sqrt(np.einsum("ij,ij->i", features, features))
    return np.asarray(features / np.where(length > 0, length, 1)[:, None], np.float32)


def fit_neighbours(training: Training, config: NeighboursConfig) -> Neighbours:
    """Keeps all training pictures; the mirror images need not be kept, a picture to be named is compared as both."""
    return Neighbours(
        _unit(np.asarray(training.views[0])), training.labels, training.weights, training.classes, config.neighbours
    )
