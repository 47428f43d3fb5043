"""What each stage of a classifier is worth: one after the other is left out or swapped, and all else stays.

But a classifier that is swapped in brings its own reduction, where none was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from featkit.cache import Cache, open_cache
from featkit.datasets import Dataset, Split
from featkit.errors import FeatkitError, InputError
from featkit.extraction.makers import MAKERS, Maker
from featkit.learning.config import ClassifyConfig
from featkit.learning.fitting import fit_model, recipe_of
from featkit.learning.heads import CLASSIFIERS
from featkit.learning.parts import parts_of
from featkit.learning.pipeline import maker_of
from featkit.learning.rows import allocate
from featkit.learning.testing import NONE_TESTED, NOTHING_TO_TEST_ON, evaluated
from featkit.learning.vectors import Vectors, vectors_of
from featkit.processors import threads
from featkit.progress import Progress
from featkit.records import record

# What features are swapped for: those that take seconds where patches take minutes.
_SWAPPED_FOR = ("hog", "hog-skimage", "pixels")
# HOG has 3624 numbers at most, 32 × 32 pixels 3072. Reduction takes time that grows with the cube of that.
_LARGEST_DIMENSIONS = 4096


@dataclass(frozen=True)
class Trial:
    """stage: "as asked", "features", "reduce", "classifier" or "flip". change: what is done there instead; "" for the
    first. accuracy, interval: as of an evaluation. difference: of the accuracy from the first's. cpu_seconds: of
    "features" (of all pictures; None where they come from the cache or from an earlier trial), "fit" and "test"."""

    stage: str
    change: str
    accuracy: float
    interval: tuple[float, float]
    difference: float
    cpu_seconds: dict[str, float | None]

    def record(self) -> dict[str, object]:
        """The `ablation` record."""
        return record("ablation", **{**vars(self), "interval": list(self.interval)})


@dataclass(frozen=True)
class _Pictures:
    """As vectors: those that are learned from, and those that are tested on."""

    maker: Maker
    train: Vectors
    test: Vectors
    cpu_seconds: float | None


def ablate_steps(
    dataset: Dataset,
    config: ClassifyConfig,
    *,
    test: Dataset | None = None,
    maker: Maker | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
) -> Generator[Progress | Trial | FeatkitError, None, None]:
    """A trial of the configuration as it is, then one of each change, all on the pictures that `classify_steps` learns
    from and tests on; an error for a change that cannot be tried. maker: that of a model learned from the same; None:
    it is made. Raises what `classify_steps` raises, and InputError where there is nothing to test on."""
    cache = open_cache() if cache is None else cache
    jobs = threads(jobs)
    parts = parts_of(dataset, config, test)
    if parts.test is None:
        raise InputError(NOTHING_TO_TEST_ON)
    ablation = _Ablation(parts.train, parts.test, config, cache, jobs)
    maker = maker_of(parts.train, config) if maker is None else maker
    yield from ablation.trials_of_the_same(maker)
    other = replace(config, flip=not config.flip)
    yield from ablation.trial_of("flip", "on" if other.flip else "off", other, maker)
    for name in _SWAPPED_FOR:
        if name != config.features:
            yield from ablation.swap(name, maker.size)


def _changes(config: ClassifyConfig) -> Iterator[tuple[str, str, ClassifyConfig]]:
    """Of what follows the features: stage, change, and the configuration with it."""
    _, reduction = recipe_of(config)
    for method in ("none", "pca", "lda"):
        if method != reduction.method:
            yield "reduce", method, replace(config, reduce=method)
    if reduction.method != "lda":  # which whitens by itself
        yield "reduce", "not whitened" if config.whiten else "whitened", replace(config, whiten=not config.whiten)
    for name, classifier in CLASSIFIERS.items():
        if name != config.classifier:
            # What is a good C for one is none for another.
            c = "auto" if config.c == "auto" and classifier.setting == "C" else None
            other = replace(config, classifier=name, c=c)
            own = recipe_of(other)[1] != reduction
            yield "classifier", f"{name}, {classifier.reduction}" if own else name, other


def _without(pictures: _Pictures, block: int) -> _Pictures:
    """The same with a block of zeros, which tells nothing."""
    start = sum(pictures.maker.blocks[:block])
    columns = slice(start, start + pictures.maker.blocks[block])

    def blanked(vectors: Vectors) -> Vectors:
        views = tuple(allocate(view.shape) for view in vectors.views)
        for view, original in zip(views, vectors.views, strict=True):
            view[:] = original
            view[:, columns] = 0
        return replace(vectors, views=views)

    return replace(pictures, train=blanked(pictures.train), test=blanked(pictures.test))


@dataclass
class _Ablation:
    """What all trials share. as_asked: the accuracy of the first one."""

    train: Split
    test: Split
    config: ClassifyConfig
    cache: Cache
    jobs: int
    as_asked: float | None = None

    def trials_of_the_same(self, maker: Maker) -> Generator[Progress | Trial | FeatkitError, None, None]:
        """As asked, and with each change that needs no other vectors."""
        pictures = yield from self.pictures(maker, self.config)
        yield from self.trial("as asked", "", self.config, pictures)
        pictures = replace(pictures, cpu_seconds=None)
        for stage, change, other in _changes(self.config):
            yield from self.trial(stage, change, other, pictures)
        if len(maker.blocks) > 1:
            for number, block in enumerate(MAKERS[self.config.features]):
                yield from self.trial("features", f"without {block}", self.config, _without(pictures, number))

    def trial_of(
        self, stage: str, change: str, config: ClassifyConfig, maker: Maker
    ) -> Generator[Progress | Trial | FeatkitError, None, None]:
        """With vectors of its own."""
        pictures = yield from self.pictures(maker, config)
        yield from self.trial(stage, change, config, pictures)

    def pictures(self, maker: Maker, config: ClassifyConfig) -> Generator[Progress, None, _Pictures]:
        start = time.process_time()
        train = yield from self._vectors(self.train, maker, config)
        test = yield from self._vectors(self.test, maker, config)
        seconds = None if train.cached and test.cached else time.process_time() - start
        return _Pictures(maker, train, test, seconds)

    def _vectors(self, split: Split, maker: Maker, config: ClassifyConfig) -> Generator[Progress, None, Vectors]:
        return vectors_of("features", split.paths, maker, config, cache=self.cache, jobs=self.jobs)

    def trial(
        self, stage: str, change: str, config: ClassifyConfig, pictures: _Pictures
    ) -> Generator[Progress | Trial | FeatkitError, None, None]:
        start = time.process_time()
        names = [self.train.labels[index] for index in pictures.train.indices]
        try:
            views = list(pictures.train.views)
            model = (yield from fit_model(pictures.maker.source, views, names, config, seconds={})).model
        except FeatkitError as error:
            yield _about(error, change)
            return
        fitted = time.process_time()
        evaluation, _, _ = evaluated(model, self.test, pictures.test)
        if evaluation is None:
            raise InputError(NONE_TESTED)
        seconds = {"features": pictures.cpu_seconds, "fit": fitted - start, "test": time.process_time() - fitted}
        if self.as_asked is None:
            self.as_asked = evaluation.accuracy
        difference = evaluation.accuracy - self.as_asked
        yield Trial(stage, change, evaluation.accuracy, evaluation.interval, difference, seconds)

    def swap(self, name: str, size: tuple[int, int]) -> Generator[Progress | Trial | FeatkitError, None, None]:
        """Other features, of pictures of half the size, or half of that, where their vectors would be too long."""
        try:
            others = replace(self.config, features=name, dictionary=None, stride=None)
            maker = maker_of(self.train, replace(others, size=size))
            while sum(maker.blocks) > _LARGEST_DIMENSIONS:
                size = size[0] // 2, size[1] // 2
                maker = maker_of(self.train, replace(others, size=size))
        except FeatkitError as error:
            yield _about(error, name)
            return
        yield from self.trial_of("features", f"{name}, {size[0]}x{size[1]}", self.config, maker)


def _about(error: FeatkitError, change: str) -> FeatkitError:
    return type(error)(f"{change}: {error.message}", path=error.path, hint=error.hint)
