"""Vectors and labels to a model: reduced, and learned from by a head."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.extraction.makers import Source
from featkit.learning.config import AUTO, LearningConfig
from featkit.learning.heads import CLASSIFIERS, Classifier, classifier
from featkit.learning.model import Model
from featkit.learning.reduction import Reduction, ReductionConfig, fit_reduction
from featkit.learning.rows import allocate
from featkit.learning.training import Training
from featkit.progress import Progress
from featkit.sources import natural_key

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_ROWS = 4096


@dataclass(frozen=True)
class Fitted:
    """setting: what its classifier was given, or chose, by name. validated: the share of the training pictures that it
    labels right while they are held out, where that was asked or something chosen by it."""

    model: Model
    setting: dict[str, float]
    validated: float | None


def recipe_of(config: LearningConfig) -> tuple[Classifier, ReductionConfig]:
    """What is named in the configuration. Raises UsageError for what there is not, or does not go together."""
    chosen = classifier(config.classifier)
    default = type(config)
    for setting, value, name in (("C", config.c, "C"), ("neighbours", config.neighbours, "number of neighbours")):
        if value != getattr(default, setting.lower()) and chosen.setting != setting:
            having = [each for each, other in CLASSIFIERS.items() if other.setting == setting]
            hint = f"{'these have' if len(having) > 1 else 'this has'}: {', '.join(having)}"
            raise UsageError(f"the classifier {config.classifier} has no {name}", hint=hint)
    try:
        return chosen, ReductionConfig.parse(config.reduce or chosen.reduction, config.whiten)
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or "for example: pca:100") from error


def fit_model(
    source: Source,
    views: list[Floats],
    names: Sequence[str],
    config: LearningConfig,
    *,
    seconds: dict[str, float],
    spent: bool = False,
    validated: bool = False,
    more: Mapping[str, object] | None = None,
) -> Generator[Progress, None, Fitted]:
    """The model of vectors of pictures, float32 N×D of each view, and of the N names of their classes, two or more.

    source: of the vectors. seconds: the time of each step is added. spent: the vectors are no longer needed; the list
    is emptied, and their memory free once they are reduced. validated: whether that is wanted. more: for the model's
    own configuration.
    """
    chosen, wanted = recipe_of(config)
    classes = tuple(sorted(set(names), key=natural_key))
    number = {label: place for place, label in enumerate(classes)}
    labels = np.array([number[name] for name in names], np.int64)
    with timed(seconds, "reduction"):
        yield Progress("reducing", 0, 1)
        reduction = fit_reduction(views, labels, source.blocks, wanted, source.variances)
        same_shape = reduction.projection.ndim == 1
        found = tuple(
            reduced(
                reduction,
                view,
                view if spent and same_shape else allocate((len(view), reduction.dimensions)),
            )
            for view in views
        )
        if spent:
            views.clear()
    with timed(seconds, "classifier"):
        yield Progress("learning", 0, 1)
        training = Training(found, labels, len(classes), _weights(labels, config.balanced), config.seed)
        given = {"C": config.c, "neighbours": config.neighbours}.get(chosen.setting or "")
        value = None if given in (None, AUTO) else float(given)
        if validated or given == AUTO:
            tuned = chosen.tune(training, () if value is None else (value,))
            head, value, share = tuned.head, tuned.setting, tuned.validated
        else:
            head, share = chosen.fit(training, value), None
    setting = {} if value is None or chosen.setting is None else {chosen.setting: value}
    kept = {
        **config.record(),
        **(more or {}),
        "reduce": f"pca:{reduction.dimensions}" if wanted.method == "pca" else wanted.method,
        "kept_variance": reduction.kept,
        "c": setting.get("C"),
        "neighbours": setting.get("neighbours"),
    }
    return Fitted(Model(classes, source, reduction, head, config.flip, kept), setting, share)


def reduced(reduction: Reduction, view: Floats, into: Floats | None = None) -> Floats:
    """float32 N×P of N×D, some rows at a time."""
    found = np.empty((len(view), reduction.dimensions), np.float32) if into is None else into
    for start in range(0, len(view), _ROWS):
        found[start : start + _ROWS] = reduction(view[start : start + _ROWS])
    return found


def _weights(labels: Labels, balanced: bool) -> Floats:
    """float32 N, mean 1."""
    if not balanced:
        return np.ones(len(labels), np.float32)
    counts = np.bincount(labels)
    return (len(labels) / (np.count_nonzero(counts) * counts[labels])).astype(np.float32)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Adds to that step's."""
    start = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0) + time.perf_counter() - start
