"""The labelled pictures of a run: which are learned from, which are tested on, and what cannot be used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from featkit.datasets import Dataset, Split, hold_out
from featkit.errors import DatasetMalformed, FeatkitError
from featkit.learning.config import LearningConfig
from featkit.learning.vectors import Vectors
from featkit.sources import natural_key


@dataclass(frozen=True)
class Parts:
    """The labelled pictures of a run. train: to learn from. test: None where there is nothing to test on. notes: what
    the user should know of them. failures: what of the data cannot be used."""

    train: Split
    test: Split | None
    notes: tuple[str, ...]
    failures: tuple[FeatkitError, ...]


def parts_of(dataset: Dataset, config: LearningConfig, test: Dataset | None = None) -> Parts:
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
    refuse_one_class(set(train.labels), dataset.failures)
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


def to_test_on(dataset: Dataset) -> Split:
    """Its test split; else the one for validation; else all of it."""
    return dataset.test or dataset.validation or dataset.train


def learned_labels(split: Split, vectors: Vectors) -> tuple[list[str], tuple[str, ...]]:
    """Of the pictures to learn from that could be read: their labels; and a note for each class that is lost. Raises
    InputError where fewer than two classes are left."""
    labels = [split.labels[index] for index in vectors.indices]
    refuse_one_class(set(labels), vectors.failures)
    lost = sorted(set(split.labels) - set(labels), key=natural_key)
    return labels, tuple(f"no picture of the class {label!r} can be read: it is not learned" for label in lost)


def refuse_one_class(labels: set[str], failures: Sequence[FeatkitError]) -> None:
    """Raises InputError for labels that are fewer than two. failures: why that may be."""
    if len(labels) < 2:
        there, hint = "there is no picture to learn from", failures[0].hint if failures else None
        if labels:
            there, hint = f"there is one class, {min(labels)!r}, and it takes two or more", None
        hint = hint or "a folder a class: DATA/cat/*.jpg DATA/dog/*.jpg"
        raise DatasetMalformed(f"{there}{because(failures)}", hint=hint)


def because(failures: Sequence[FeatkitError]) -> str:
    """A clause that says what cannot be used."""
    if not failures:
        return ""
    place = f"{failures[0].path}: " if failures[0].path else ""
    more = f"; and {len(failures) - 1} more cannot be used" if len(failures) > 1 else ""
    return f"; {place}{failures[0].message}{more}"


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
