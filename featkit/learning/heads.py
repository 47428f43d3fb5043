"""The classifiers by name, what they learn from unless told otherwise, and how their one setting is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.learning.kernel import KernelConfig, KernelMachine, fit_kernel, sweep_kernel
from featkit.learning.linear import Linear, LinearConfig, choose_ridge, fit_linear, sweep_linear
from featkit.learning.neighbours import CHOICES, Neighbours, NeighboursConfig, choose_neighbours, fit_neighbours
from featkit.learning.network import Network, NetworkConfig, fit_network
from featkit.learning.training import Training
from featkit.learning.tuning import choose_by_folds

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
class Tuned:
    """head: fitted to all pictures. setting: the best of the choices, None where there is nothing to choose. validated:
    share of the pictures that were labelled right while they were held out; those that are alone in their class are
    not; 0 if none was."""

    head: Head
    setting: float | None
    validated: float


@dataclass(frozen=True)
class Classifier:
    """fit: from what it learns from, and its setting, or None for its own. reduction: as --reduce has it. choices: of
    the setting; empty: `tune` has its own, made for what it learns from. setting: what is chosen, "C" or "neighbours";
    None: nothing. tune: with the best of some choices, of none the classifier's own."""

    fit: Callable[[Training, float | None], Head]
    reduction: str
    choices: tuple[float, ...]
    setting: str | None
    tune: Callable[[Training, tuple[float, ...]], Tuned]


def by_folds(
    fit: Callable[[Training, float | None], Head],
    reduction: str,
    choices: tuple[float, ...],
    sweep: Callable[[Training, Sequence[float]], Iterable[Head]] | None = None,
) -> Classifier:
    """One whose C is chosen by cross-validation. sweep: fits with each of some, from the smallest to the largest."""

    def each(training: Training, candidates: Sequence[float]) -> Iterator[Head]:
        return (fit(training, c) for c in candidates)

    def tune(training: Training, given: tuple[float, ...]) -> Tuned:
        c, validated = choose_by_folds(training, sorted(given or choices), sweep or each)
        return Tuned(fit(training, c), c, validated)

    return Classifier(fit, reduction, choices, "C", tune)


def _svm(training: Training, c: float | None) -> Head:
    return fit_kernel(training, KernelConfig() if c is None else KernelConfig(C=c))


def _linear(loss: str) -> Callable[[Training, float | None], Head]:
    return lambda training, c: fit_linear(training, LinearConfig(loss) if c is None else LinearConfig(loss, c))


def _by_newton(loss: str) -> Classifier:
    return by_folds(
        _linear(loss), "pca", _EACH_FIVEFOLD, lambda training, choices: sweep_linear(training, loss, choices)
    )


def _ridge_tuned(training: Training, choices: tuple[float, ...]) -> Tuned:
    return Tuned(*choose_ridge(training, choices))


def _knn(training: Training, neighbours: float | None) -> Head:
    return fit_neighbours(training, NeighboursConfig() if neighbours is None else NeighboursConfig(int(neighbours)))


def _knn_tuned(training: Training, choices: tuple[float, ...]) -> Tuned:
    neighbours, validated = choose_neighbours(training, choices)
    return Tuned(_knn(training, neighbours), neighbours, validated)


def _mlp(training: Training, _: float | None) -> Head:
    return fit_network(training, NetworkConfig())


def _mlp_validated(training: Training, _: tuple[float, ...]) -> Tuned:
    setting, validated = choose_by_folds(training, (None,), lambda part, _: (_mlp(part, None),))
    return Tuned(_mlp(training, None), setting, validated)


_EACH_FIVEFOLD = (0.008, 0.04, 0.2, 1.0, 5.0, 25.0)

CLASSIFIERS = {
    "svm": by_folds(_svm, "pca", (0.2, 1.0, 5.0, 25.0), sweep_kernel),
    "linear-svm": _by_newton("hinge"),
    "logreg": _by_newton("logistic"),
    "ridge": Classifier(_linear("squares"), "none", (), "C", _ridge_tuned),
    "knn": Classifier(_knn, "pca:100", CHOICES, "neighbours", _knn_tuned),
    "mlp": Classifier(_mlp, "pca:480", (), None, _mlp_validated),
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
