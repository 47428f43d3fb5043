"""What a head learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """views: one or two float32 N×P, the pictures, and the same mirrored; perhaps memory-mapped, so they are read some
    rows at a time. labels: int64 N, 0..K-1. classes: K. weights: float32 N, of mean 1, how much each picture counts.
    seed: of all that is random. Raises ValueError for what does not fit together."""

    views: tuple[Floats, ...]
    labels: Labels
    classes: int
    weights: Floats
    seed: int

    def __post_init__(self) -> None:
        count = len(self.labels)
        if not self.views or not count or any(view.shape != (count, self.dimensions) for view in self.views):
            raise ValueError("the views are not of one size, or there is nothing in them")
        if self.weights.shape != (count,) or not (self.weights > 0).all():
            raise ValueError("the weights are not one a picture, or not positive")
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise ValueError("there are labels of no class")

    @property
    def dimensions(self) -> int:
        """P"""
        return int(self.views[0].shape[-1])
