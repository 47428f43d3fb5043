"""Features that `featkit extract` wrote, with labels, as what heads learn from and are tested on: no picture is opened.

What the pictures are is known by their recorded paths, what made the features by the recorded config.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from featkit.datasets import Dataset, Split, dataset_of_paths
from featkit.errors import DatasetMalformed, FeatkitError, InputError, ModelMismatch, UsageError
from featkit.extraction import engine, makers
from featkit.extraction.engine import Rows
from featkit.extraction.formats import Features
from featkit.extraction.makers import Source
from featkit.extraction.tables import Field, Table, error_of
from featkit.learning.model import Model, Scored
from featkit.learning.parts import to_test_on
from featkit.learning.rows import allocate
from featkit.learning.testing import Classified, evaluated_scores
from featkit.learning.vectors import Vectors
from featkit.progress import Progress

# Pictures that are named one by one, of those that cannot be used for one reason.
_MOST_TOLD = 5
# Of a layer of which there is none: so many of those that there are.
_MOST_LAYERS = 8
_ROWS = 1024
# Of a hash, in messages.
_DIGITS = 8

_EXTRACT_AGAIN = "make them again with this featkit: featkit extract PICTURES -o FILE"


def layers_of(features: Features) -> tuple[str, ...]:
    """The names of those that heads can be put on: of one value a picture, and not any number, as keypoints have.
    Raises UsageError where there are none."""
    found = tuple(field.name for field in features.fields if not field.ragged)
    if not found:
        raise UsageError(
            "these are keypoints, any number a picture, and a head takes one vector a picture",
            path=features.path,
            hint="featkit extract --backbone NAME or --features hog makes vectors",
        )
    return found


def source(features: Features, layer: str) -> Source:
    """What made the features of a layer, as a model file keeps it. Raises UsageError where they do not say so, or were
    made as this featkit does not make them any more."""
    width = _field(features, layer).width
    try:
        if features.config["engine"] != engine.VERSION:
            raise ValueError("pictures were read otherwise")
        found = makers.source_of(features.config["maker"], layer)
        if sum(found.blocks) != width:
            raise ValueError(f"its vectors are of {sum(found.blocks)} numbers, and not of {width}")
    except Exception as error:  # A config is whatever was written.
        raise UsageError(
            f"what made these features of {layer!r} is not known here, so that no head on them could be used",
            path=features.path,
            hint=_EXTRACT_AGAIN,
        ) from error
    return found


# --- labels


def labelled(features: Features, data: Dataset | None) -> Dataset:
    """The labels of pictures with features, by the paths that were recorded.

    data: their labels; None: their folders are, see `dataset_of_paths`. A picture of `data` is the one recorded with
    the same path; where there is no such picture at all, as after a folder was moved, the one with the same path below
    the folder that all are in, here and there. Those without features are failures, and so are those that are named
    twice; recorded ones that `data` does not name are left out.

    Raises DatasetMalformed where there are no labels, or none that belongs to a recorded picture; InputError as
    `Features.tables` does.
    """
    recorded = [path for table in features.tables([]) for path in table.paths]
    if data is None:
        return dataset_of_paths(recorded)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    given = {name: split for name, split in splits.items() if split is not None}
    matched = _matched(recorded, [path for split in given.values() for path in split.paths])
    missing, again = [], []
    taken: set[str] = set()
    found: dict[str, Split] = {}
    for name, split in given.items():
        pairs = []
        for path, label in zip(split.paths, split.labels, strict=True):
            own = matched.get(path)
            if own is None:
                missing.append(path)
            elif own in taken:
                again.append(path)
            else:
                taken.add(own)
                pairs.append((own, label))
        if pairs:
            found[name] = Split(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))
        elif split is data.train or split is to_test_on(data):
            raise DatasetMalformed(
                f"none of the pictures of {name} is among those with features, as {split.paths[0]}",
                path=features.path,
                hint=f"there are features of {recorded[0]}" if recorded else "there are no pictures in it",
            )
    failures = [
        *_told(missing, "there are no features of it", features, "extract its features, too, or leave it out"),
        *_told(again, "it is the same picture as one before", features, "name each picture once"),
    ]
    return Dataset(found["train"], found.get("validation"), found.get("test"), (*data.failures, *failures))


def _matched(recorded: Sequence[str], named: Sequence[str]) -> dict[str, str]:
    """Path of `named` -> recorded path."""
    places, wanted = ({path: os.path.abspath(path) for path in paths} for paths in (recorded, named))  # noqa: PTH100
    for below in (False, True):
        if below:
            places, wanted = _below_one_folder(places), _below_one_folder(wanted)
        by_place = {place: path for path, place in reversed(places.items())}  # of two with one place the first
        found = {path: by_place[place] for path, place in wanted.items() if place in by_place}
        if found:
            return found
    return {}


def _below_one_folder(places: Mapping[str, str]) -> dict[str, str]:
    """Absolute paths, from the folder on that all lie in."""
    if not places:
        return {}
    root = os.path.commonpath({os.path.dirname(place) for place in places.values()})  # noqa: PTH120
    return {path: place[len(root) :].lstrip(os.sep) for path, place in places.items()}


def _told(paths: Sequence[str], what: str, features: Features, hint: str) -> list[InputError]:
    """An error for each of the first, and one for all others."""
    found = [InputError(what, path=path, hint=hint) for path in paths[:_MOST_TOLD]]
    more = len(paths) - len(found)
    return [*found, InputError(f"and {more} more: {what}", path=features.path, hint=hint)] if more else found


# --- vectors


def rows(features: Features, layer: str) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """The vectors of all pictures in their order, some at a time, with their paths: float32 N×D, of values of any shape
    and dtype. Failures: of pictures that had failed, and of those with values that are not finite.

    Raises UsageError for a layer that there is not, or that is no vector; InputError as `Features.tables` does.
    """
    field, start = _field(features, layer), 0
    for table in features.tables([layer]):
        values = table.values[layer].reshape(len(table), field.width)
        finite = np.isfinite(values).all(1)
        usable = finite & np.array([error == "" for error in table.errors], bool)
        failures = tuple(_failure(table, int(row)) for row in np.flatnonzero(~usable))
        view = values[usable].astype(np.float32, copy=False)
        yield table.paths, Rows(start, start + np.flatnonzero(usable), (view,), failures, table.digests, True)
        start += len(table)


def vectors(features: Features, layer: str, paths: Sequence[str]) -> Vectors:
    """Those of pictures by their recorded paths, in the order of `paths`; one that was recorded twice is the first.

    Besides the array, no more than a table is held in memory. Raises what `rows` raises.
    """
    array = allocate((len(paths), _field(features, layer).width))
    places: dict[str, list[int]] = {}
    for place, path in enumerate(paths):
        places.setdefault(path, []).append(place)
    failures: dict[int, FeatkitError] = {}
    for names, found in rows(features, layer):
        errors = iter(found.failures)
        vector = dict(zip((found.indices - found.start).tolist(), found.views[0], strict=True))
        for number, name in enumerate(names):
            error = None if number in vector else next(errors)
            for place in places.pop(name, ()):
                if error is None:
                    array[place] = vector[number]
                else:
                    failures[place] = error
    for path, others in places.items():
        error = InputError("there are no features of it", path=path, hint=f"there are those in {features.path}")
        failures |= dict.fromkeys(others, error)
    indices = np.array([place for place in range(len(paths)) if place not in failures], np.int64)
    if failures:
        # Where rows go is never behind where they come from.
        for start in range(0, len(indices), _ROWS):
            kept = indices[start : start + _ROWS]
            array[start : start + len(kept)] = array[kept]
    told = tuple(failures[place] for place in sorted(failures))
    return Vectors(indices, (array[: len(indices)],), told, True)


def _field(features: Features, layer: str) -> Field:
    usable = layers_of(features)
    for field in features.fields:
        if field.name == layer and not field.ragged:
            return field
    raise UsageError(
        f"there are no vectors {layer!r} in these features", path=features.path, hint=f"there are: {', '.join(usable)}"
    )


def _failure(table: Table, row: int) -> InputError:
    if table.errors[row]:
        return error_of(table.errors[row], table.paths[row])
    return InputError("its features are not finite", path=table.paths[row], hint=_EXTRACT_AGAIN)


# --- models


def rows_for(model: Model, features: Features) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """As `rows`, of the layer that a model's head was trained on. Raises what `layer_for` raises, at once."""
    return rows(features, layer_for(model, features))


def evaluate_steps(
    model: Model, features: Features, data: Dataset | None
) -> Generator[Progress | Classified, None, None]:
    """Test a model on what there is to test on: of `data`, or of the folders of these features' pictures. The last is
    the result. Raises what `layer_for`, `labelled` and `vectors` raise, and InputError where none can be used."""
    layer = layer_for(model, features)
    # What is not tested on need not have features.
    chosen = data and Dataset(to_test_on(data), None, None, data.failures)
    found = labelled(features, chosen)
    split = to_test_on(found)
    seen = vectors(features, layer, split.paths)
    scored = Scored(seen.indices, model.scores(seen.views), seen.failures)
    yield (yield from evaluated_scores(model, split, found.failures, [scored]))


def layer_for(model: Model, features: Features) -> str:
    """The layer that a model's head was trained on, made by the same network or without one, in the same way.

    Raises ModelMismatch where it is not among these features, and what `source` raises.
    """
    if model.mirrored:
        raise ModelMismatch(
            "the model looks at mirror images of pictures, too, and there are no features of these",
            path=features.path,
            hint=_INSTEAD,
        )
    known = layers_of(features)
    trained = _facts(model.source)
    layer = trained["layer"]
    here = _facts(source(features, layer if layer in known else known[0]))
    if layer not in known:
        here["layer"] = f"{', '.join(known[:_MOST_LAYERS])}{' …' if len(known) > _MOST_LAYERS else ''}"
    if trained == here:
        return layer
    named = [name for name in (*trained, *here) if trained.get(name) != here.get(name)]
    if "features" in named:
        named = ["weights", "layer"]  # the rest follows from it
    named = [name for name in named if name != "shapes"] or named
    ours, theirs = (_described(facts, dict.fromkeys(["features", *named])) for facts in (trained, here))
    raise ModelMismatch(
        f"the head was trained on {ours}; these are features of {theirs}", path=features.path, hint=_INSTEAD
    )


_INSTEAD = "label the pictures themselves: featkit predict MODEL PICTURES; or extract what it was trained on"


def _facts(made_by: Source) -> dict[str, str]:
    """What features are, one by one, as texts: all that has to be the same. "features" and "layer" are always there."""
    parts, arrays = made_by.parts()
    facts = {"features": made_by.name, "layer": made_by.name}
    for name, value in parts.items():
        if name == "features":
            assert isinstance(value, dict)
            facts |= _flat({**value, "layer": ", ".join(value["layers"]), "layers": None})
        elif name not in ("name", "backbone", "weights_file"):
            facts |= _flat({name: value})
    # Of those that are learned from pictures, which `extract` does not make.
    return facts | dict.fromkeys(arrays, "learned")


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    """What is in mappings by its own name; as JSON has it, where tuples are lists."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat({f"{name} {key}": each for key, each in value.items()})
        elif isinstance(value, (list, tuple)):
            found[name] = " × ".join(map(str, value))
        elif value is not None:
            found[name] = str(value)
    return found


def _described(facts: Mapping[str, str], names: Iterable[str]) -> str:
    """lite0, weights 1a2b3c4d…, layer blocks.5"""
    found = []
    for name in names:
        text = facts.get(name)
        if name == "features":
            found.append(str(text))
        elif text is not None and text != facts["features"]:
            long = name == "weights" and len(text) > 2 * _DIGITS
            found.append(f"{name} {text[:_DIGITS]}…" if long else f"{name} {text}")
    return ", ".join(found)
