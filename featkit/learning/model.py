"""A model: from pictures to labels, in one file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit import __version__
from featkit.cache import Cache, open_cache
from featkit.errors import FeatkitError, ModelDamaged, UsageError
from featkit.extraction import makers
from featkit.extraction.engine import Rows, extract
from featkit.extraction.makers import Source
from featkit.extraction.networks import NetworkSource
from featkit.images import DecodeOptions
from featkit.learning.heads import Head, head_from_parts, head_parts
from featkit.learning.model_files import read_model, write_model
from featkit.learning.reduction import Reduction
from featkit.processors import threads
from featkit.records import record

Floats = npt.NDArray[np.float32]

_ROWS = 4096


@dataclass(frozen=True)
class Prediction:
    """What a picture is taken for. label: the likeliest. score: its score, the larger the likelier; what its numbers
    mean depends on the classifier. margin: how far it is above the next one's. top: the likeliest labels with their
    scores, falling."""

    path: str
    label: str
    score: float
    margin: float
    top: tuple[tuple[str, float], ...]

    def record(self) -> dict[str, object]:
        """The `prediction` record."""
        top = [list(each) for each in self.top]
        return record("prediction", path=self.path, label=self.label, score=self.score, margin=self.margin, top=top)


@dataclass(frozen=True)
class Scored:
    """Of some pictures that follow one another: which of the paths could be read (int64 N, rising), their scores
    (float32 N×K), and the errors of the others, in order."""

    indices: npt.NDArray[np.int64]
    scores: Floats
    failures: tuple[FeatkitError, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """From pictures to labels. classes: K labels, in the order of the scores. source: of what makes vectors of
    pictures. reduction, head: vectors to scores. mirrored: the scores of a picture and of its mirror image are
    averaged. config: how it was made, plain values."""

    classes: tuple[str, ...]
    source: Source
    reduction: Reduction
    head: Head
    mirrored: bool
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """What it sees, and what decides."""
        layer = self.config.get("layer")
        seen = self.source.name if layer in (None, self.source.name) else f"{self.source.name} {layer}"
        return f"{seen}, {self.config['classifier']}"

    def predict(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        top: int = 5,
        decode: DecodeOptions | None = None,
        cache: Cache | None = None,
        jobs: int | None = None,
    ) -> Generator[Prediction | FeatkitError, None, None]:
        """A prediction for each picture file, with the `top` likeliest labels, in the order of the paths and as they
        are done; for one that cannot be read, its error. decode, cache: None for the defaults. jobs: threads, None for
        one a processor. Raises UsageError for fewer than one label or thread."""
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise UsageError(f"several paths are expected, and not one: {paths!r}", hint=f"predict([{paths!r}])")
        _refuse_no_label(top)
        cache = open_cache() if cache is None else cache
        names, start = [os.fspath(path) for path in paths], 0
        for scored in self.score(names, decode=decode or DecodeOptions(), cache=cache, jobs=jobs):
            end = start + len(scored.indices) + len(scored.failures)
            yield from self._predictions(names[start:end], start, scored, top)
            start = end

    def predict_rows(
        self, rows: Iterable[tuple[Sequence[str], Rows]], *, top: int = 5
    ) -> Generator[Prediction | FeatkitError, None, None]:
        """The same of vectors that are there already, with the paths of their pictures, as `stored.rows_for` gives
        them."""
        _refuse_no_label(top)
        for names, each in rows:
            yield from self._predictions(names, each.start, self._scored(each), top)

    def _predictions(
        self, names: Sequence[str], start: int, scored: Scored, top: int
    ) -> Iterator[Prediction | FeatkitError]:
        """Of the pictures of these names, the first of which has the index `start`."""
        failures = iter(scored.failures)
        rows = dict(zip((scored.indices - start).tolist(), scored.scores, strict=True))
        for place, name in enumerate(names):
            yield self._prediction(name, rows[place], top) if place in rows else next(failures)

    def _prediction(self, path: str, scores: Floats, top: int) -> Prediction:
        # The first of equals, as in an evaluation.
        order = np.argsort(-scores, kind="stable")[: max(top, 2)]
        ranked = [(self.classes[k], float(scores[k])) for k in order]
        return Prediction(path, *ranked[0], ranked[0][1] - ranked[1][1], tuple(ranked[:top]))

    def score(
        self, paths: Sequence[str], *, decode: DecodeOptions, cache: Cache, jobs: int | None
    ) -> Generator[Scored, None, None]:
        """The scores of picture files, some at a time, in order. Raises what `Source.opened` raises."""
        jobs = threads(jobs)
        maker = self.source.opened(count=len(paths), cache=cache, jobs=jobs)
        for rows in extract(paths, maker, mirrored=self.mirrored, decode=decode, cache=cache, jobs=jobs):
            yield self._scored(rows)

    def _scored(self, rows: Rows) -> Scored:
        return Scored(rows.indices, self.scores(rows.views), rows.failures)

    def scores(self, views: Sequence[Floats]) -> Floats:
        """float32 N×K of the maker's vectors, float32 N×D: of pictures and perhaps of their mirror images."""
        found = np.empty((len(views[0]), len(self.classes)), np.float32)
        for start in range(0, len(found), _ROWS):
            rows = slice(start, start + _ROWS)
            found[rows] = sum(self.head.scores(self.reduction(np.asarray(view[rows]))) for view in views)
        found /= len(views)
        return found

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """One file, of which the same model makes the same bytes. Raises OutputExists and OutputError."""
        parts = {"maker": self.source.parts(), "reduction": self.reduction.parts(), "head": head_parts(self.head)}
        config = {
            "featkit": __version__,
            "classes": list(self.classes),
            "mirrored": self.mirrored,
            "config": self.config,
            **{name: own for name, (own, _) in parts.items()},
        }
        arrays = {f"{name}/{key}": array for name, (_, own) in parts.items() for key, array in own.items()}
        write_model(path, config, arrays, force=force)


def _refuse_no_label(top: int) -> None:
    if top < 1:
        raise UsageError(f"there is 1 label or more for each picture, not {top}", hint="--top 5 gives five")


def load_model(path: str | os.PathLike[str], weights: str | None = None) -> Model:
    """weights: a file with those of its network, in place of where they were when it was trained; or "random".

    Raises FileMissing, NotAFile, FileUnreadable, and ModelDamaged for a file that is no model, or not whole, or of
    another version; UsageError for weights where the model has no network.
    """
    config, arrays = read_model(path)
    try:
        model = _model(config, arrays)
    except Exception as error:  # Whoever wrote a file with a right checksum by hand may make anything fail.
        raise ModelDamaged(
            "it is whole, but what it holds is no model for this featkit",
            path=os.fspath(path),
            hint=f"it was written by featkit {config.get('featkit')}, and this is {__version__}: train it again",
        ) from error
    if weights is None:
        return model
    if not isinstance(model.source, NetworkSource):
        raise UsageError(
            f"the features of this model are {model.source.name}, without a network", hint="leave out --weights"
        )
    return replace(model, source=model.source.with_weights(weights))


def _model(config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Model:
    def own(name: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        prefix = f"{name}/"
        return config[name], {key[len(prefix) :]: each for key, each in arrays.items() if key.startswith(prefix)}

    classes = tuple(map(str, config["classes"]))
    model = Model(
        classes,
        makers.from_parts(*own("maker")),
        Reduction.from_parts(*own("reduction")),
        head_from_parts(*own("head")),
        bool(config["mirrored"]),
        dict(config["config"]),
    )
    # What does not fit together shows here, and not at the first picture.
    scores = model.scores([np.zeros((1, sum(model.source.blocks)), np.float32)])
    if len(classes) < 2 or scores.shape != (1, len(classes)):
        raise ValueError("there are fewer than two classes, or the scores are not one a class")
    return model
