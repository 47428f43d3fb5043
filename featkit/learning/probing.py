"""Which features, which layer, how good: heads learned from vectors that are not learned themselves, and tested.

The vectors are those of a network's layers, all from one pass over the pictures, or of a file that `extract` wrote.
What is saved is the head that is best on the training pictures, each labelled while it was held out; the pictures that
are tested on choose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache, open_cache
from featkit.configs import given
from featkit.datasets import Dataset, Split, read_dataset
from featkit.errors import DatasetMalformed, DependencyError, FeatkitError, InputError, UsageError
from featkit.extraction.formats import Features
from featkit.extraction.formats import read as read_features
from featkit.extraction.makers import MAKERS, Maker, Source
from featkit.extraction.networks import NetworkMaker, NetworkSource, network_maker
from featkit.learning import stored
from featkit.learning.advice import Candidate, advise
from featkit.learning.comparison import Comparison, compare
from featkit.learning.config import ALL, ClassifyConfig, LearningConfig, ProbeConfig
from featkit.learning.evaluation import Evaluation
from featkit.learning.fitting import fit_model, recipe_of, reduced, timed
from featkit.learning.heads import CLASSIFIERS
from featkit.learning.learning_curve import CurvePoint, draw_count, draws, sizes
from featkit.learning.model import Model
from featkit.learning.parts import Parts, learned_labels, parts_of
from featkit.learning.pipeline import maker_of
from featkit.learning.testing import NONE_TESTED, NOTHING_TO_TEST_ON, Classified, evaluated
from featkit.learning.vectors import Vectors, vectors_of
from featkit.processors import threads
from featkit.progress import Progress, followed
from featkit.records import record

Floats = npt.NDArray[np.float32]

#: Told the bytes of weights that were downloaded, and of how many.
Downloading = Callable[[int, int], None]
#: Told the maker of a network's vectors, once it is known how that is computed.
Opened = Callable[[NetworkMaker], None]


@dataclass(frozen=True)
class Probe:
    """A head on the vectors of one layer.

    features: what makes them, a backbone's name or that of features without one. layer: which of its layers.
    dimensions: numbers a picture. classifier: its name. setting: what was chosen for it, by name. validated: share of
    the training pictures that were labelled right while they were held out, None where that was not looked at.
    evaluation: on the pictures to test on; None where there are none. seconds: to learn it, and to test it.
    """

    features: str
    layer: str
    dimensions: int
    classifier: str
    setting: dict[str, float]
    validated: float | None
    evaluation: Evaluation | None
    seconds: dict[str, float]

    def record(self, **more: object) -> dict[str, object]:
        """The `probe` record; test: of how many pictures the accuracy is."""
        tested = self.evaluation
        return record(
            "probe",
            features=self.features,
            layer=self.layer,
            dim=self.dimensions,
            classifier=self.classifier,
            setting=self.setting,
            validated=self.validated,
            accuracy=None if tested is None else tested.accuracy,
            interval=None if tested is None else list(tested.interval),
            test=0 if tested is None else len(tested.paths),
            seconds=self.seconds,
            **more,
        )


@dataclass(frozen=True)
class Probed:
    """probes: a head for each layer, from the first to the last, and of each classifier. chosen: the one of the highest
    `validated`. result: its model, evaluated. advice: which layer serves, in sentences. curve: what it would be,
    learned from fewer pictures; empty where that was not asked."""

    probes: tuple[Probe, ...]
    chosen: Probe
    result: Classified
    advice: tuple[str, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Compared:
    """What a backbone is worth beside the first. comparison: on the pictures of both; None for the first itself, and
    where there is nothing to test on."""

    probed: Probed
    comparison: Comparison | None

    def record(self) -> dict[str, object]:
        """The `comparison` record: that of its probe, and how it compares to the first; seconds are of its features,
        too."""
        found = self.comparison
        more: dict[str, object] = dict.fromkeys(("difference", "difference_interval", "only_this", "only_first", "p"))
        if found is not None:
            more = {
                "difference": found.difference,
                "difference_interval": list(found.interval),
                "only_this": found.only_first,
                "only_first": found.only_second,
                "p": found.p,
            }
        probed = self.probed
        return {**probed.chosen.record(), "type": "comparison", "seconds": probed.result.seconds, **more}


def probe(
    data: str | os.PathLike[str] | None = None,
    config: ProbeConfig | None = None,
    *,
    test: str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    learning_curve: bool = False,
    cache: Cache | None = None,
    jobs: int | None = None,
    **options: Any,
) -> Probed:
    """Learn to label pictures from what a network sees in them, and test it on others.

        featkit.probe("flowers/", classifier="logreg").result.model.save("flowers.fk")

    data, test, config, cache, jobs: as of `classify`. features: a file or a folder that `extract` wrote: its pictures
    are not opened, and data, which then may be None, only labels them. learning_curve: also learn from fewer.

    Raises what `classify` raises; DependencyError and InputError for a network or weights that cannot be had;
    UsageError for a layer that there is not; for features what `featkit.read_features` raises.
    """
    config = given(config, ProbeConfig, options)
    labels, other = (None if name is None else read_dataset(os.fspath(name)) for name in (data, test))
    if features is not None:
        steps = probe_features_steps(read_features(features), labels, config, test=other, learning_curve=learning_curve)
    elif labels is not None:
        steps = probe_steps(labels, config, test=other, learning_curve=learning_curve, cache=cache, jobs=jobs)
    else:
        raise UsageError("there is nothing to learn from", hint="name labelled pictures, or features")
    return followed(steps)


def probe_steps(
    dataset: Dataset,
    config: ProbeConfig,
    *,
    test: Dataset | None = None,
    learning_curve: bool = False,
    cache: Cache | None = None,
    jobs: int | None = None,
    downloading: Downloading | None = None,
    opened: Opened | None = None,
) -> Generator[Progress | Probed, None, None]:
    """The same, telling how far it is; the last is the result. downloading: told the bytes of weights, and of how
    many."""
    parts = _checked(parts_of(dataset, config, test), config)
    work = _Work(parts, open_cache() if cache is None else cache, threads(jobs), downloading, opened)
    yield (yield from _probed_network(work, config, learning_curve))


def probe_features_steps(
    features: Features,
    dataset: Dataset | None,
    config: ProbeConfig,
    *,
    layers: Sequence[str] | None = None,
    test: Dataset | None = None,
    learning_curve: bool = False,
) -> Generator[Progress | Probed, None, None]:
    """The same of features that are there already. dataset: labels of their pictures; None: their folders are. layers:
    None for all that can be used."""
    labelled = stored.labelled(features, dataset)
    tested = None if test is None else stored.labelled(features, test)
    parts = _checked(parts_of(labelled, config, tested), config)

    def layer(name: str) -> _Layer:
        def vectors(split: Split) -> Vectors:
            return stored.vectors(features, name, split.paths)

        return _Layer(name, stored.source(features, name), vectors)

    found = [layer(name) for name in layers or stored.layers_of(features)]
    yield (yield from _probed(found[0].source.name, found, parts, config, {}, learning_curve=learning_curve))


def compare_steps(
    dataset: Dataset,
    names: Sequence[str],
    config: ProbeConfig,
    *,
    test: Dataset | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
    downloading: Downloading | None = None,
    opened: Opened | None = None,
) -> Generator[Progress | Compared | FeatkitError, None, None]:
    """The same pictures under several backbones, and under features of `classify` (with its own classifier); each as it
    is done, or an error for one that cannot be had. Raises UsageError for fewer than two names, or one given twice;
    DatasetMalformed for data that no head can be learned from, and the last error where no backbone can be had."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError("two or more different backbones are compared", hint="for example: lite0,resnet50,hog")
    parts = _checked(parts_of(dataset, config, test), config)
    work = _Work(parts, open_cache() if cache is None else cache, threads(jobs), downloading, opened)
    first: Evaluation | None = None
    done = 0
    for number, name in enumerate(names, 1):
        try:
            if name in MAKERS:
                probed = yield from _probed_classical(work, name, config)
            else:
                own = replace(config, network=replace(config.network, backbone=name))
                probed = yield from _probed_network(work, own, False)
        except (UsageError, DependencyError, InputError) as error:
            # The data are those of all.
            if isinstance(error, DatasetMalformed) or (number == len(names) and not done):
                raise
            yield error
            continue
        done += 1
        tested = probed.result.evaluation
        yield Compared(probed, None if first is None or tested is None else compare(tested, first))
        first = first or tested


# --- vectors


@dataclass(frozen=True)
class _Work:
    """What all backbones share."""

    parts: Parts
    cache: Cache
    jobs: int
    downloading: Downloading | None
    opened: Opened | None


@dataclass(frozen=True)
class _Layer:
    """name; source: of its vectors; vectors: gives those of the pictures to learn from, or to test on."""

    name: str
    source: Source
    vectors: Callable[[Split], Vectors]


def _checked(parts: Parts, config: ProbeConfig) -> Parts:
    """What cannot be is refused before pictures are read."""
    for one in _each(config):
        recipe_of(one)
    return parts


def _probed_network(work: _Work, config: ProbeConfig, learning_curve: bool) -> Generator[Progress, None, Probed]:
    parts = work.parts
    count = sum(len(split.paths) for split in (parts.train, parts.test) if split is not None)
    yield Progress("loading the network", 0, 1)
    maker = network_maker(config.network, count=count, jobs=work.jobs, cache=work.cache, progress=work.downloading)
    if work.opened is not None:
        work.opened(maker)
    seconds: dict[str, float] = {}
    with timed(seconds, "features"):
        vectors = yield from _described(maker, work, config)
    ends = np.cumsum([0, *maker.blocks]).tolist()

    def layer(name: str, start: int, end: int) -> _Layer:
        def part(split: Split) -> Vectors:
            found = vectors[id(split)]
            return replace(found, views=tuple(view[:, start:end] for view in found.views))

        return _Layer(name, maker.source.of_layer(name), part)

    layers = [layer(*each) for each in zip(maker.layers, ends, ends[1:], strict=False)]
    return (yield from _probed(maker.name, layers, parts, config, seconds, learning_curve=learning_curve))


def _probed_classical(work: _Work, name: str, config: ProbeConfig) -> Generator[Progress, None, Probed]:
    """As `classify` does it by default."""
    shared = {each: getattr(config, each) for each in ("balanced", "flip", "hold_out", "seed", "decode")}
    classical = ClassifyConfig(features=name, **shared)
    seconds: dict[str, float] = {}
    with timed(seconds, "features"):
        maker = maker_of(work.parts.train, classical)
        vectors = yield from _described(maker, work, classical)
    layer = _Layer(name, maker.source, lambda split: vectors[id(split)])
    return (yield from _probed(name, [layer], work.parts, classical, seconds))


def _described(maker: Maker, work: _Work, config: LearningConfig) -> Generator[Progress, None, dict[int, Vectors]]:
    """Of each split, by its id."""
    found = {}
    for stage, split in (("features", work.parts.train), ("testing", work.parts.test)):
        if split is not None:
            found[id(split)] = yield from vectors_of(
                stage, split.paths, maker, config, cache=work.cache, jobs=work.jobs
            )
    return found


# --- heads


def _each(config: LearningConfig) -> Iterator[LearningConfig]:
    """One for each classifier; of several, what is given for one is not for the others."""
    if not isinstance(config, ProbeConfig) or config.classifier != ALL:
        yield config
        return
    for name in config.classifiers:
        setting = CLASSIFIERS[name].setting
        yield replace(
            config,
            classifier=name,
            c=config.c if setting == "C" else ProbeConfig.c,
            neighbours=config.neighbours if setting == "neighbours" else ProbeConfig.neighbours,
        )


@dataclass(frozen=True)
class _Best:
    """The probe that is chosen so far, and what it was learned from and by."""

    probe: Probe
    model: Model
    layer: _Layer
    config: LearningConfig

    @property
    def rank(self) -> tuple[float, int]:
        """The larger, the better: of equals the one with fewer numbers a picture."""
        validated = self.probe.validated
        return -1.0 if validated is None else validated, -self.probe.dimensions


def _probed(
    features: str,
    layers: Sequence[_Layer],
    parts: Parts,
    config: LearningConfig,
    seconds: dict[str, float],
    *,
    learning_curve: bool = False,
) -> Generator[Progress, None, Probed]:
    """A head for each layer and classifier."""
    told = _Told(parts)
    configs = list(_each(config))
    alone = len(layers) == len(configs) == 1 and not learning_curve
    probes: list[Probe] = []
    best: _Best | None = None
    for layer in layers:
        train = layer.vectors(parts.train)
        test = None if parts.test is None else layer.vectors(parts.test)
        labels = told.labels(train, layer)
        for one in configs:
            took: dict[str, float] = {}
            fitted = yield from fit_model(
                layer.source,
                list(train.views),
                labels,
                one,
                seconds=took,
                spent=alone,
                validated=isinstance(config, ProbeConfig),
                more=_made_by(layer),
            )
            evaluation = None
            if test is not None:
                with timed(took, "test"):
                    evaluation = told.evaluation(fitted.model, test)
            probes.append(
                Probe(
                    features,
                    layer.name,
                    sum(layer.source.blocks),
                    one.classifier,
                    fitted.setting,
                    fitted.validated,
                    evaluation,
                    took,
                )
            )
            candidate = _Best(probes[-1], fitted.model, layer, one)
            if best is None or candidate.rank > best.rank:
                best = candidate
    assert best is not None
    tested = None
    curve: tuple[CurvePoint, ...] = ()
    if parts.test is not None and best.probe.evaluation is not None:
        test = best.layer.vectors(parts.test)
        _, known, _ = evaluated(best.model, parts.test, test)
        tested = reduced(best.model.reduction, test.views[0])[known]
        if learning_curve:
            curve = yield from _curve(best, parts, best.layer.vectors(parts.train), test)
    result = Classified(
        best.model,
        best.probe.evaluation,
        tested,
        told.failures,
        told.notes,
        len(labels),
        {**seconds, **best.probe.seconds},
    )
    return Probed(tuple(probes), best.probe, result, _advice(probes, best.probe), curve)


def _made_by(layer: _Layer) -> dict[str, object]:
    """What its vectors are, for the model's configuration."""
    found: dict[str, object] = {"features": layer.source.name, "layer": layer.name, "size": list(layer.source.size)}
    if isinstance(layer.source, NetworkSource):
        own = layer.source.config.features
        found |= {"weights": layer.source.weights, "pool": own.pool, "normalize": own.normalize}
    return found


class _Told:
    """What is to be said of the pictures, once for all layers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._notes = dict.fromkeys(parts.notes)
        self._failures: dict[tuple[str | None, str], FeatkitError] = {}
        self._failed(parts.failures)
        if parts.test is None:
            self._notes[NOTHING_TO_TEST_ON] = None

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    @property
    def failures(self) -> tuple[FeatkitError, ...]:
        return tuple(self._failures.values())

    def labels(self, train: Vectors, layer: _Layer) -> list[str]:
        """Of the vectors to learn from. Raises InputError for fewer than two classes."""
        self._failed(train.failures)
        labels, lost = learned_labels(self._parts.train, train)
        self._notes.update(dict.fromkeys(lost))
        if all((view == train.views[0][:1]).all() for view in train.views):
            self._notes[f"{layer.name} is the same of all pictures: nothing can be learned from it"] = None
        return labels

    def evaluation(self, model: Model, test: Vectors) -> Evaluation | None:
        assert self._parts.test is not None
        found, _, unknown = evaluated(model, self._parts.test, test)
        self._failed((*test.failures, *unknown))
        if found is None:
            self._notes[NONE_TESTED] = None
        return found

    def _failed(self, failures: Iterable[FeatkitError]) -> None:
        for failure in failures:
            self._failures.setdefault((failure.path, failure.message), failure)


def _advice(probes: Sequence[Probe], chosen: Probe) -> tuple[str, ...]:
    """Of several on the same pictures."""
    layers = list(dict.fromkeys(probe.layer for probe in probes))
    several = len({probe.classifier for probe in probes}) > 1
    candidates = [
        Candidate(
            " with ".join([probe.layer, probe.classifier] if several else [probe.layer]),
            probe.dimensions,
            layers.index(probe.layer),
            probe.evaluation,
            probe.validated,
        )
        for probe in probes
        if probe.evaluation is not None and probe.validated is not None
    ]
    return advise(candidates, probes.index(chosen)) if len(candidates) == len(probes) > 1 else ()


def _curve(
    best: _Best, parts: Parts, train: Vectors, test: Vectors
) -> Generator[Progress, None, tuple[CurvePoint, ...]]:
    """Heads learned from fewer pictures a class."""
    assert parts.test is not None
    names = [parts.train.labels[index] for index in train.indices]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    labels = np.array([numbers[name] for name in names], np.int64)
    found = []
    steps = sizes(np.bincount(labels).tolist())
    for done, size in enumerate(steps):
        yield Progress("learning from fewer pictures", done, len(steps))
        accuracies = []
        for rows in draws(labels, size, best.config.seed, draw_count(size)):
            views = [np.asarray(view[rows]) for view in train.views]
            drawn = [names[row] for row in rows]
            fitted = yield from fit_model(best.layer.source, views, drawn, best.config, seconds={}, spent=True)
            evaluation, _, _ = evaluated(fitted.model, parts.test, test)
            if evaluation is not None:
                accuracies.append(evaluation.accuracy)
                count = len(rows), len(evaluation.paths)
        if accuracies:
            found.append(CurvePoint(size, *count, tuple(accuracies)))
    return tuple(found)
