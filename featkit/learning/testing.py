"""A model on pictures whose labels are known."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache, open_cache
from featkit.datasets import Dataset, Split
from featkit.errors import DatasetMalformed, FeatkitError, InputError
from featkit.images import DecodeOptions
from featkit.learning.evaluation import Evaluation, evaluate
from featkit.learning.model import Model, Scored
from featkit.learning.parts import because, to_test_on
from featkit.learning.vectors import Vectors
from featkit.progress import Progress

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

#: Notes.
NOTHING_TO_TEST_ON = "there is nothing to test on: every class has one picture"
NONE_TESTED = "none of the pictures to test on can be used"


@dataclass(frozen=True)
class Classified:
    """evaluation: None where there is nothing to test on. features: float32 N×P of the evaluated pictures, as the
    classifier has them. failures: pictures and rows that cannot be used; the rest is. notes: what the user should know.
    trained: how many pictures it learned from, if that was now. seconds: of each step."""

    model: Model
    evaluation: Evaluation | None
    features: Floats | None
    failures: tuple[FeatkitError, ...]
    notes: tuple[str, ...]
    trained: int | None
    seconds: dict[str, float]


def evaluate_steps(
    model: Model,
    dataset: Dataset,
    *,
    decode: DecodeOptions | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
) -> Generator[Progress | Classified, None, None]:
    """Test a model on labelled pictures: their test/, else their val/, else all. The last is the result. Raises
    InputError where none can be used."""
    split = to_test_on(dataset)
    scored = model.score(
        split.paths, decode=decode or DecodeOptions(), cache=open_cache() if cache is None else cache, jobs=jobs
    )
    yield (yield from evaluated_scores(model, split, dataset.failures, scored))


def evaluated_scores(
    model: Model, split: Split, failures: Sequence[FeatkitError], scored: Iterable[Scored]
) -> Generator[Progress, None, Classified]:
    """The same of scores of the split's pictures, some at a time. failures: of its data."""
    start = time.perf_counter()
    scores: list[Floats] = []
    indices: list[Labels] = []
    failed: list[FeatkitError] = []
    yield Progress("testing", 0, len(split.paths))
    for some in scored:
        scores.append(some.scores)
        indices.append(some.indices)
        failed += some.failures
        yield Progress("testing", sum(map(len, indices)) + len(failed), len(split.paths))
    places = np.concatenate(indices)
    known, unknown = _with_known_labels(model, split, places)
    failed += unknown
    if not known.any():
        raise DatasetMalformed(f"there is no picture to test on{because(failed)}", hint=failed[0].hint)
    evaluation = _evaluation(model, split, places[known], np.concatenate(scores)[known])
    seconds = {"test": time.perf_counter() - start}
    return Classified(model, evaluation, None, (*failures, *failed), (), None, seconds)


def evaluated(
    model: Model, split: Split, vectors: Vectors
) -> tuple[Evaluation | None, npt.NDArray[np.bool_], tuple[FeatkitError, ...]]:
    """Of a split whose vectors these are: the evaluation, if it can be, which of the vectors are in it, and an error
    for each of the others."""
    known, unknown = _with_known_labels(model, split, vectors.indices)
    if not known.any():
        return None, known, unknown
    return _evaluation(model, split, vectors.indices[known], model.scores(vectors.views)[known]), known, unknown


def _with_known_labels(
    model: Model, split: Split, indices: Labels
) -> tuple[npt.NDArray[np.bool_], tuple[FeatkitError, ...]]:
    """Of some of its pictures: which have a label that the model knows, and an error for each of the others."""
    labels = set(model.classes)
    known = np.array([split.labels[index] in labels for index in indices], bool)
    return known, tuple(
        InputError(
            f"its label {split.labels[index]!r} is none that the model has learned",
            path=split.paths[index],
            hint="train with pictures of that class, too, or leave it out",
        )
        for index in indices[~known]
    )


def _evaluation(model: Model, split: Split, indices: Labels, scores: Floats) -> Evaluation:
    number = {label: place for place, label in enumerate(model.classes)}
    truth = [number[split.labels[index]] for index in indices]
    return evaluate(model.classes, [split.paths[index] for index in indices], truth, scores)
