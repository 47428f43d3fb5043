"""Points of a plane and of more dimensions, with classes, for tests of what learns."""

from __future__ import annotations

import numpy as np

from featkit.learning.training import Training


def blobs(count: int, classes: int = 4, dimensions: int = 12, spread: float = 1.0, seed: int = 0) -> tuple:
    """float32 N×P around a centre a class, and labels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dimensions)) * 1.5
    labels = random.permutation(np.arange(count) % classes)
    return (centres[labels] + spread * random.normal(size=(count, dimensions))).astype(np.float32), labels.astype(
        np.int64
    )


def rings(count: int, seed: int = 0) -> tuple:
    """Two rings, one around the other: no line divides them."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % 2)
    angle = random.uniform(0, 2 * np.pi, count)
    radius = 1 + 2 * labels + random.normal(0, 0.2, count)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32), labels.astype(np.int64)


def training(
    features: np.ndarray, labels: np.ndarray, *more: np.ndarray, weights: np.ndarray | None = None
) -> Training:
    """more: views beside the first."""
    ones = np.ones(len(labels), np.float32)
    return Training((features, *more), labels, int(labels.max()) + 1, ones if weights is None else weights, 0)
