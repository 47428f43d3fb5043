"""The RBF support vector machine: exact for few pictures, by Nyström features for many.

Each class is divided from the rest with the squared hinge, by Newton's method in the primal (Chapelle 2007; newton.py).
Up to some thousands of pictures the kernel is taken to all of them, which is exact; beyond that to some of them only,
the landmarks (Williams & Seeger 2001), in time that grows with the number of pictures.

Measured: where classes are many and pictures few, it beats LIBSVM's one class against one, 75 to 70 % in
cross-validation over 15 classes of 30 pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning.newton import Floats, Problem, SquaredHinge, minima
from featkit.learning.reduction import spread
from featkit.learning.rows import allocate
from featkit.learning.training import Training

_ROWS = 2048
# Of each landmark's kernel to itself, which is 1. Where pictures are alike, their kernels are the same to float32, and
# weights of opposite signs would grow without end for nothing: rounding takes their square for negative. It is the
# rounding of sums of 5,000.
_DAMPING = np.float32(1e-5)
# exp(-87) is the last that float32 does not lose digits of, and time.
_FARTHEST = 87.0


@dataclass(frozen=True)
class KernelConfig:
    """C: weight of the losses, as in scikit-learn. gamma: of exp(-gamma · squared distance), as a multiple of 1 / the
    total variance, which is scikit-learn's gamma="scale"; of .5, .7 and 1 the best on 45,000 pictures of CIFAR-10, by
    .1 points. landmarks: for pictures beyond exact_up_to; CIFAR-10: 2000 cost 1 point against 3000, 4500
    bring half of one. Raises UsageError for what makes no sense."""

    C: float = 5.0
    gamma: float = 0.7
    landmarks: int = 3000
    exact_up_to: int = 5000

    def __post_init__(self) -> None:
        if not 0 < self.C < float("inf"):
            raise UsageError(f"C must be positive, not {self.C}")
        if not 0 < self.gamma < float("inf"):
            raise UsageError(f"gamma must be positive, not {self.gamma}")
        if self.landmarks < 1:
            raise UsageError(f"there must be 1 landmark or more, not {self.landmarks}")


@dataclass(frozen=True)
class KernelMachine:
    """landmarks: float32 M×P. gamma. weights: float32 M×K, of the kernel to each landmark. intercepts: float32 K."""

    landmarks: Floats
    gamma: float
    weights: Floats
    intercepts: Floats

    def scores(self, features: Floats) -> Floats:
        """float32 N×K."""
        found = np.empty((len(features), len(self.intercepts)), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            found[rows] = rbf(features[rows], self.landmarks, self.gamma) @ self.weights + self.intercepts
        return found

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        arrays = {"landmarks": self.landmarks, "weights": self.weights, "intercepts": self.intercepts}
        return {"gamma": self.gamma}, arrays

    @classmethod
    def from_parts(cls, config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> KernelMachine:
        landmarks, weights, intercepts = (arrays[name] for name in ("landmarks", "weights", "intercepts"))
        if landmarks.ndim != 2 or weights.shape != (len(landmarks), len(intercepts)):
            raise ValueError("the parts of a kernel head do not fit together")
        return cls(landmarks, float(config["gamma"]), weights, intercepts)


def rbf(a: npt.NDArray[Any], b: npt.NDArray[Any], gamma: float) -> npt.NDArray[Any]:
    """exp(-gamma · squared distance) of rows: N×M, of the type of a."""
    found = a @ (-2 * b.T)
    found += np.einsum("ij,ij->i", b, b)
    found += np.einsum("ij,ij->i", a, a)[:, None]
    # Of features that are all equal gamma is so large that its product with a distance is too large for float32.
    np.clip(found, 0, min(_FARTHEST / gamma, float(np.finfo(a.dtype).max)), out=found)
    found *= a.dtype.type(-gamma)
    return np.asarray(np.exp(found, out=found))


def fit_kernel(training: Training, config: KernelConfig) -> KernelMachine:
    """Mirror images count as pictures."""
    [found] = sweep_kernel(training, [config.C], config)
    return found


def sweep_kernel(
    training: Training, choices: Sequence[float], config: KernelConfig | None = None
) -> Iterator[KernelMachine]:
    """One of each C; from each the search for the next sets out. The kernel is computed once. config: all but C."""
    config = config or KernelConfig()
    count = len(training.labels) * len(training.views)
    gamma = config.gamma / spread(training.views)
    wanted = count if count <= config.exact_up_to else config.landmarks
    chosen = np.random.default_rng(training.seed).permutation(count)[:wanted]
    landmarks = np.concatenate(
        [
            np.asarray(view)[chosen[chosen // len(training.labels) == n] % len(training.labels)]
            for n, view in enumerate(training.views)
        ]
    )
    kernel = allocate((count, len(landmarks)))
    for number, view in enumerate(training.views):
        for start in range(0, len(view), _ROWS):
            rows = rbf(np.asarray(view[start : start + _ROWS]), landmarks, gamma)
            at = number * len(view) + start
            kernel[at : at + len(rows)] = rows
    labels = np.tile(training.labels, len(training.views))
    weights = np.tile(training.weights, len(training.views))
    among = rbf(landmarks, landmarks, gamma)
    among[np.diag_indices_from(among)] += _DAMPING
    problem = Problem((kernel,), labels, weights, training.classes, SquaredHinge(), among)
    for weighted in minima(problem, [1 / (2 * c) for c in choices]):
        yield KernelMachine(landmarks, gamma, weighted[:-1], weighted[-1])
