"""Labelled pictures in, a model and its evaluation out."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache, open_cache
from featkit.classical.patches import PatchConfig
from featkit.configs import given
from featkit.datasets import Dataset, Split, read_dataset
from featkit.errors import FeatkitError, InputError, UsageError
from featkit.extraction.engine import common_size, sample_pictures
from featkit.extraction.makers import Maker, make
from featkit.images import DecodeOptions, load
from featkit.learning.config import ClassifyConfig
from featkit.learning.fitting import fit_model, recipe_of, reduced, timed
from featkit.learning.model import Model
from featkit.learning.parts import learned_labels, parts_of, refuse_one_class
from featkit.learning.testing import NONE_TESTED, NOTHING_TO_TEST_ON, Classified, evaluated
from featkit.learning.vectors import vectors_of
from featkit.processors import threads
from featkit.progress import Progress, followed

# Pictures that are not all of one small size are brought to this: with 8 × 8 cells of HOG 16 pixels a cell.
_SIDE = 128
_LARGEST_OWN_SIDE = 64
# Smaller ones are enlarged by a whole number: digits of 8 pixels a side, 98.3 % right, are 98.9 % at 32.
_SMALLEST_OWN_SIDE, _SMALLEST_SIDE = 16, 32
# What patches are learned from: so many pictures, in so many bytes.
_SAMPLE, _SAMPLE_BYTES = 10_000, 128 << 20


def classify(
    data: str | os.PathLike[str],
    config: ClassifyConfig | None = None,
    *,
    test: str | os.PathLike[str] | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
    **options: Any,
) -> Classified:
    """Learn to label pictures from labelled ones, and test it on others.

        featkit.classify("flowers/", classifier="logreg").model.save("flowers.fk")

    data, test: folders or CSV files, as `read_dataset` takes them; what to test on is test, else a part of data that is
    named so, else a part held out. config: or its fields as keywords. cache: None for the user's own. jobs: threads,
    None for one a processor. Raises UsageError; InputError for data that cannot be read, or are of fewer than two
    classes. Pictures that cannot be read are no such error, but among the `failures`.
    """
    config = given(config, ClassifyConfig, options)
    other = None if test is None else read_dataset(os.fspath(test))
    return followed(classify_steps(read_dataset(os.fspath(data)), config, test=other, cache=cache, jobs=jobs))


def classify_steps(
    dataset: Dataset,
    config: ClassifyConfig,
    *,
    test: Dataset | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
) -> Generator[Progress | Classified, None, None]:
    """The same, telling how far it is; the last is the result."""
    cache = open_cache() if cache is None else cache
    jobs = threads(jobs)
    recipe_of(config)  # What cannot be is refused before pictures are read.
    parts = parts_of(dataset, config, test)
    notes, failures, seconds = list(parts.notes), list(parts.failures), dict[str, float]()
    yield Progress("preparing", 0, 1)
    with timed(seconds, "features"):
        maker = maker_of(parts.train, config)
        train = yield from vectors_of("features", parts.train.paths, maker, config, cache=cache, jobs=jobs)
    failures += train.failures
    labels, lost = learned_labels(parts.train, train)
    notes += lost
    views, train = list(train.views), replace(train, views=())
    more = {"size": list(maker.size)}
    fitted = yield from fit_model(maker.source, views, labels, config, seconds=seconds, spent=True, more=more)
    notes += _fewer_components(config, maker, fitted.model, len(labels))
    evaluation, features = None, None
    if parts.test is None:
        notes.append(NOTHING_TO_TEST_ON)
    else:
        with timed(seconds, "test"):
            found = yield from vectors_of("testing", parts.test.paths, maker, config, cache=cache, jobs=jobs)
            evaluation, known, unknown = evaluated(fitted.model, parts.test, found)
            failures += [*found.failures, *unknown]
            if evaluation is None:
                notes.append(NONE_TESTED)
            else:
                features = reduced(fitted.model.reduction, found.views[0])[known]
    yield Classified(fitted.model, evaluation, features, tuple(failures), tuple(notes), len(labels), seconds)


def _fewer_components(config: ClassifyConfig, maker: Maker, model: Model, pictures: int) -> list[str]:
    """What to say where there are fewer than were asked for."""
    wanted = recipe_of(config)[1].components
    if config.reduce is None or wanted is None or model.reduction.dimensions >= wanted:
        return []
    return [
        f"there are {model.reduction.dimensions} components, and not {wanted}: of vectors of "
        f"{sum(maker.blocks)} numbers of {pictures} pictures no more can be found"
    ]


def maker_of(train: Split, config: ClassifyConfig) -> Maker:
    """The maker of the features, which may learn from the pictures. Raises UsageError for what cannot be."""
    size = config.size
    if size is None:
        size = common_size(train.paths, config.decode, config.seed)
        if size is None or max(size) > _LARGEST_OWN_SIDE:
            size = (_SIDE, _SIDE)
        elif max(size) < _SMALLEST_OWN_SIDE:
            times = -(-_SMALLEST_SIDE // max(size))
            size = (times * size[0], times * size[1])

    def sample() -> npt.NDArray[np.uint8]:
        count = min(_SAMPLE, max(1, _SAMPLE_BYTES // (3 * size[0] * size[1])))
        found = sample_pictures(train.paths, size, count, config.seed, config.decode)
        if not len(found):
            refuse_one_class(set(), tuple(_unreadable(train.paths, config.decode)))
        return found

    try:
        return make(config.features, size, sample, _patches(config))
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or "choose a larger --size, or other --features") from error


def _unreadable(paths: Sequence[str], decode: DecodeOptions) -> Iterator[FeatkitError]:
    for path in paths:
        try:
            load(path, decode)
        except InputError as error:
            yield error


def _patches(config: ClassifyConfig) -> PatchConfig:
    default = PatchConfig(seed=config.seed)
    return replace(default, atoms=config.dictionary or default.atoms, stride=config.stride or default.stride)
