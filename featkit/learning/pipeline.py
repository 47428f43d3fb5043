"""Labelled pictures in, a model and its evaluation out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache, open_cache
from featkit.classical.patches import PatchConfig
from featkit.configs import given
from featkit.datasets import Dataset, Split, hold_out, read_dataset
from featkit.errors import DatasetMalformed, FeatkitError, InputError, UsageError
from featkit.extraction.engine import common_size, extract, sample_pictures
from featkit.extraction.makers import Maker, make
from featkit.images import DecodeOptions, load
from featkit.learning.config import ClassifyConfig
from featkit.learning.evaluation import Evaluation, evaluate
from featkit.learning.heads import CLASSIFIERS, Classifier, Head, classifier
from featkit.learning.model import Model
from featkit.learning.reduction import Reduction, ReductionConfig, fit_reduction
from featkit.learning.rows import allocate
from featkit.learning.training import Training
from featkit.processors import threads
from featkit.progress import Progress, followed
from featkit.sources import natural_key

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Pictures that are not all of one small size are brought to this: with 8 × 8 cells of HOG 16 pixels a cell.
_SIDE = 128
_LARGEST_OWN_SIDE = 64
# Smaller ones are enlarged by a whole number: digits of 8 pixels a side, 98.3 % right, are 98.9 % at 32.
_SMALLEST_OWN_SIDE, _SMALLEST_SIDE = 16, 32
# What patches are learned from: so many pictures, in so many bytes.
_SAMPLE, _SAMPLE_BYTES = 10_000, 128 << 20
# For the choice of C.
_FOLDS = 3
_LARGEST_FOLD_ROWS = 8000
_ROWS = 4096


@dataclass(frozen=True)
class Classified:
    """evaluation: None where there is nothing to test on. features: float32 N×P of the evaluated pictures, as the
    classifier has them. failures: pictures and rows that cannot be used; the rest is. notes: what the user should know.
    trained: how many pictures it learned from. seconds: of each step."""

    model: Model
    evaluation: Evaluation | None
    features: Floats | None
    failures: tuple[FeatkitError, ...]
    notes: tuple[str, ...]
    trained: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Parts:
    """The labelled pictures of a run. train: to learn from. test: None where there is nothing to test on. notes: what
    the user should know of them. failures: what of the data cannot be used."""

    train: Split
    test: Split | None
    notes: tuple[str, ...]
    failures: tuple[FeatkitError, ...]


@dataclass(frozen=True)
class Vectors:
    """Of the pictures that could be read: which of the paths they are, and float32 N×D of each view. failures: of the
    others. cached: whether all of them were in the cache."""

    indices: Labels
    views: tuple[Floats, ...]
    failures: tuple[FeatkitError, ...]
    cached: bool


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
    with _timed(seconds, "features"):
        maker = maker_of(parts.train, config)
    model, trained = yield from _learned(parts, maker, config, cache, jobs, seconds, notes, failures)
    evaluation, features = None, None
    if parts.test is None:
        notes.append("there is nothing to test on: every class has one picture")
    else:
        with _timed(seconds, "test"):
            found = yield from vectors_of(
                "testing", parts.test.paths, maker, config, mirrored=config.flip, cache=cache, jobs=jobs
            )
            evaluation, known, unknown = evaluated(model, parts.test, found)
            failures += [*found.failures, *unknown]
            if evaluation is not None:
                features = _reduced(model.reduction, found.views[0])[known]
            else:
                notes.append("none of the pictures to test on can be used")
    yield Classified(model, evaluation, features, tuple(failures), tuple(notes), trained, seconds)


def evaluate_steps(
    model: Model,
    split: Split,
    *,
    decode: DecodeOptions | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
) -> Generator[Progress | tuple[Evaluation, tuple[FeatkitError, ...]], None, None]:
    """Test a model on labelled pictures; the last is the evaluation, and what could not be used. Raises InputError if
    that is everything."""
    cache = open_cache() if cache is None else cache
    scores: list[Floats] = []
    indices: list[Labels] = []
    failures: list[FeatkitError] = []
    yield Progress("testing", 0, len(split.paths))
    for scored in model.score(split.paths, decode=decode or DecodeOptions(), cache=cache, jobs=jobs):
        scores.append(scored.scores)
        indices.append(scored.indices)
        failures += scored.failures
        yield Progress("testing", sum(map(len, indices)) + len(failures), len(split.paths))
    places = np.concatenate(indices)
    known, unknown = _with_known_labels(model, split, places)
    failures += unknown
    if not known.any():
        raise DatasetMalformed(f"there is no picture to test on{_because(failures)}", hint=failures[0].hint)
    yield _evaluation(model, split, places[known], np.concatenate(scores)[known]), tuple(failures)


def evaluated(
    model: Model, split: Split, vectors: Vectors
) -> tuple[Evaluation | None, npt.NDArray[np.bool_], tuple[FeatkitError, ...]]:
    """Of a split whose vectors these are: the evaluation, if it can be, which of the vectors are in it, and an error
    for each of the others."""
    known, unknown = _with_known_labels(model, split, vectors.indices)
    if not known.any():
        return None, known, unknown
    return _evaluation(model, split, vectors.indices[known], model.scores(vectors.views)[known]), known, unknown


# --- the pictures


def parts_of(dataset: Dataset, config: ClassifyConfig, test: Dataset | None = None) -> Parts:
    """What is learned from, and what is tested on: `test`, else a part of the data that is named so, else a part held
    out. Raises InputError where there are fewer than two classes to learn, or none of those that are tested."""
    failures = (*dataset.failures, *(test.failures if test is not None else ()))
    train, tested, notes = dataset.train, None, []
    if test is not None:
        tested = to_test_on(test)
    elif dataset.test is not None or dataset.validation is not None:
        tested = to_test_on(dataset)
    for name, split in (("val", dataset.validation), ("test", dataset.test)):
        if split is not None and split is not tested:
            notes.append(f"the {len(split.paths)} pictures of {name} are neither learned from nor tested on")
    _refuse_one_class(set(train.labels), dataset.failures)
    if tested is None:
        counts = Counter(train.labels)
        single = sorted((label for label, count in counts.items() if count == 1), key=natural_key)
        notes += [f"the class {label!r} has one picture: it is learned from, and not tested" for label in single]
        train, tested = hold_out(train, config.hold_out, config.seed)
    elif not set(tested.labels) & set(train.labels):
        raise DatasetMalformed(
            f"none of the classes to test on is one to learn: {tested.labels[0]!r} is not {train.labels[0]!r}",
            hint="the same classes have the same names in both",
        )
    again = len(_files(train.paths) & _files(tested.paths))
    if again:
        notes.append(f"pictures that are tested on and learned from, too: {again}; the accuracy will flatter")
    return Parts(train, tested if tested.paths else None, tuple(notes), failures)


def _files(paths: Sequence[str]) -> set[str]:
    """Without links. Of many files in few folders each folder is resolved once: 60,000 paths take .8 s otherwise."""
    folders: dict[str, str] = {}
    found = set()
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        is_link = os.path.islink(path)  # noqa: PTH114 - of paths by the ten thousand
        found.add(os.path.realpath(path) if is_link else f"{folders[folder]}{os.sep}{name}")
    return found


def to_test_on(dataset: Dataset) -> Split:
    """Its test split; else the one for validation; else all of it."""
    return dataset.test or dataset.validation or dataset.train


def _refuse_one_class(labels: set[str], failures: Sequence[FeatkitError]) -> None:
    if len(labels) < 2:
        there, hint = "there is no picture to learn from", failures[0].hint if failures else None
        if labels:
            there, hint = f"there is one class, {min(labels)!r}, and it takes two or more", None
        hint = hint or "a folder a class: DATA/cat/*.jpg DATA/dog/*.jpg"
        raise DatasetMalformed(f"{there}{_because(failures)}", hint=hint)


def _because(failures: Sequence[FeatkitError]) -> str:
    if not failures:
        return ""
    place = f"{failures[0].path}: " if failures[0].path else ""
    more = f"; and {len(failures) - 1} more cannot be used" if len(failures) > 1 else ""
    return f"; {place}{failures[0].message}{more}"


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


# --- the steps


def recipe_of(config: ClassifyConfig) -> tuple[Classifier, ReductionConfig]:
    """What is named in the configuration. Raises UsageError for what there is not, or does not go together."""
    chosen = classifier(config.classifier)
    if config.c is not None and not chosen.choices:
        having = [name for name, each in CLASSIFIERS.items() if each.choices]
        raise UsageError(f"the classifier {config.classifier} has no C", hint=f"these have: {', '.join(having)}")
    try:
        return chosen, ReductionConfig.parse(config.reduce or chosen.reduction, config.whiten)
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or "for example: pca:100") from error


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
            _refuse_one_class(set(), tuple(_unreadable(train.paths, config.decode)))
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


def vectors_of(
    stage: str,
    paths: Sequence[str],
    maker: Maker,
    config: ClassifyConfig,
    *,
    mirrored: bool,
    cache: Cache,
    jobs: int,
) -> Generator[Progress, None, Vectors]:
    """Those of all pictures."""
    count, cached = 0, True
    arrays = [allocate((len(paths), sum(maker.blocks))) for _ in range(1 + mirrored)]
    indices = np.empty(len(paths), np.int64)
    failures: list[FeatkitError] = []
    yield Progress(stage, 0, len(paths))
    for rows in extract(paths, maker, mirrored=mirrored, decode=config.decode, cache=cache, jobs=jobs):
        place = slice(count, count + len(rows.indices))
        indices[place] = rows.indices
        for array, view in zip(arrays, rows.views, strict=True):
            array[place] = view
        count = place.stop
        failures += rows.failures
        cached &= rows.cached
        yield Progress(stage, count + len(failures), len(paths))
    return Vectors(indices[:count], tuple(array[:count] for array in arrays), tuple(failures), cached)


def _learned(
    parts: Parts,
    maker: Maker,
    config: ClassifyConfig,
    cache: Cache,
    jobs: int,
    seconds: dict[str, float],
    notes: list[str],
    failures: list[FeatkitError],
) -> Generator[Progress, None, tuple[Model, int]]:
    """The model, and of how many pictures. Adds to what it is given last."""
    paths = parts.train.paths
    with _timed(seconds, "features"):
        found = yield from vectors_of("features", paths, maker, config, mirrored=config.flip, cache=cache, jobs=jobs)
    failures += found.failures
    views, found = list(found.views), replace(found, views=())
    labels = [parts.train.labels[index] for index in found.indices]
    _refuse_one_class(set(labels), found.failures)
    lost = sorted(set(parts.train.labels) - set(labels), key=natural_key)
    notes += [f"no picture of the class {label!r} can be read: it is not learned" for label in lost]
    model = yield from fit_model(maker, views, labels, config, seconds=seconds, spent=True)
    wanted = recipe_of(config)[1].components
    if config.reduce is not None and wanted is not None and model.reduction.dimensions < wanted:
        notes.append(
            f"there are {model.reduction.dimensions} components, and not {wanted}: of vectors of "
            f"{sum(maker.blocks)} numbers of {len(labels)} pictures no more can be found"
        )
    return model, len(labels)


def fit_model(
    maker: Maker,
    views: list[Floats],
    names: Sequence[str],
    config: ClassifyConfig,
    *,
    seconds: dict[str, float],
    spent: bool = False,
) -> Generator[Progress, None, Model]:
    """The model of vectors of pictures, float32 N×D of each view, and of the N names of their classes, two or more. The
    time of each step is added to `seconds`. spent: the vectors are no longer needed; the list is emptied, and their
    memory free once they are reduced."""
    chosen, wanted = recipe_of(config)
    classes = tuple(sorted(set(names), key=natural_key))
    number = {label: place for place, label in enumerate(classes)}
    labels = np.array([number[name] for name in names], np.int64)
    with _timed(seconds, "reduction"):
        yield Progress("reducing", 0, 1)
        reduction = fit_reduction(views, labels, maker.blocks, wanted, maker.variances)
        same_shape = reduction.projection.ndim == 1
        reduced = tuple(
            _reduced(
                reduction,
                view,
                view if spent and same_shape else allocate((len(view), reduction.dimensions)),
            )
            for view in views
        )
        if spent:
            views.clear()
    with _timed(seconds, "classifier"):
        yield Progress("learning", 0, 1)
        training = Training(reduced, labels, len(classes), _weights(labels, config.balanced), config.seed)
        c = _chosen_c(training, chosen) if config.c == "auto" else config.c
        head = chosen.fit(training, None if c is None else float(c))
    return Model(classes, maker, reduction, head, config.flip, _plain(config, maker, wanted.method, reduction, c))


def _reduced(reduction: Reduction, view: Floats, into: Floats | None = None) -> Floats:
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


def _chosen_c(training: Training, chosen: Classifier) -> float:
    """The choice that is right most often on held-out thirds of at most _LARGEST_FOLD_ROWS pictures; of equals the
    smallest."""
    rows, fold = _folds(training)
    right = np.zeros(len(chosen.choices))
    for number in range(_FOLDS):
        learned, other = rows[fold != number], rows[fold == number]
        part = Training(
            tuple(np.asarray(view)[learned] for view in training.views),
            training.labels[learned],
            training.classes,
            training.weights[learned],
            training.seed,
        )
        for place, c in enumerate(chosen.choices):
            head: Head = chosen.fit(part, c)
            scores = sum(head.scores(np.asarray(view)[other]) for view in training.views)
            right[place] += (np.argmax(scores, 1) == training.labels[other]).sum()
    return chosen.choices[int(right.argmax())]


def _folds(training: Training) -> tuple[Labels, Labels]:
    """Some of the rows, each class in proportion, and the fold in which each is held out; -1 for the only one of a
    class, which is always learned from."""
    random = np.random.default_rng(training.seed)
    share = min(1.0, _LARGEST_FOLD_ROWS / len(training.labels))
    rows, folds = [], []
    for label in range(training.classes):
        own = random.permutation(np.flatnonzero(training.labels == label))
        own = own[: max(2, round(share * len(own)))]
        rows.append(own)
        folds.append(np.arange(len(own)) % _FOLDS if len(own) > 1 else np.array([-1]))
    return np.concatenate(rows), np.concatenate(folds)


def _plain(
    config: ClassifyConfig, maker: Maker, method: str, reduction: Reduction, c: float | str | None
) -> dict[str, Any]:
    """For records and model files: as it was asked for, with what was chosen."""
    found = {name: value for name, value in asdict(config).items() if name != "decode"}
    reduce = f"pca:{reduction.dimensions}" if method == "pca" else method
    return {**found, "size": list(maker.size), "reduce": reduce, "kept_variance": reduction.kept, "c": c}


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Adds to that step's."""
    start = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0) + time.perf_counter() - start
