"""The classifiers by name, and what they learn from unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning.kernel import KernelConfig, KernelMachine, fit_kernel
from featkit.learning.linear import Linear, LinearConfig, fit_linear
from featkit.learning.neighbours import Neighbours, NeighboursConfig, fit_neighbours
from featkit.learning.network import Network, NetworkConfig, fit_network
from featkit.learning.training import Training

Floats = npt.NDArray[np.float32]


class Head(Protocol):
    """A fitted classifier of vectors."""

    def scores(self, features: Floats) -> Floats:
        """float32 N×K from float32 N×P: the larger, the likelier."""
        ...

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        """What a model file keeps: plain values, and arrays."""
        ...


@dataclass(frozen=True)
class Classifier:
    """fit: from what it learns from, and C, or None for its own. reduction: as --reduce has it. choices: of C for
    "auto"; empty where there is no C."""

    fit: Callable[[Training, float | None], Head]
    reduction: str
    choices: tuple[float, ...] = ()


def _svm(training: Training, c: float | None) -> Head:
    return fit_kernel(training, KernelConfig() if c is None else KernelConfig(C=c))


def _linear(loss: str) -> Callable[[Training, float | None], Head]:
    return lambda training, c: fit_linear(training, LinearConfig(loss) if c is None else LinearConfig(loss, c))


_EACH_FIVEFOLD = (0.008, 0.04, 0.2, 1.0, 5.0, 25.0)

CLASSIFIERS = {
    "svm": Classifier(_svm, "pca", (0.2, 1.0, 5.0, 25.0)),
    "linear-svm": Classifier(_linear("hinge"), "pca", _EACH_FIVEFOLD),
    "logreg": Classifier(_linear("logistic"), "pca", _EACH_FIVEFOLD),
    "ridge": Classifier(_linear("squares"), "none", _EACH_FIVEFOLD),
    "knn": Classifier(lambda training, _: fit_neighbours(training, NeighboursConfig()), "pca:100"),
    "mlp": Classifier(lambda training, _: fit_network(training, NetworkConfig()), "pca:480"),
}

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Linear, KernelMachine, Neighbours, Network)}


def classifier(name: str) -> Classifier:
    """Raises UsageError for a name that there is not."""
    if name not in CLASSIFIERS:
        raise UsageError(f"there is no classifier {name!r}", hint=f"there are: {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]


def head_parts(head: Head) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
    config, arrays = head.parts()
    return {"kind": type(head).__name__, **config}, arrays


def head_from_parts(config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Head:
    """Raises ValueError or KeyError for parts that are none."""
    found: Head = _KINDS[config["kind"]].from_parts(config, arrays)
    return found
