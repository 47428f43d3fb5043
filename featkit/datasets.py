"""Labelled pictures, as a user points at them, and a part of them held out.

DATA/cat/1.jpg …                         a folder a class; its name is the label
DATA/train/cat/1.jpg, DATA/test/cat/…    splits, each of class folders: train, and val or test or both
DATA.csv                                 a table with the columns path, label and, if there are splits, split
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featkit.archives import archive_of
from featkit.errors import DatasetMalformed, FeatkitError, FileMissing, FileUnreadable, InputError, UsageError
from featkit.sources import expand, natural_key, open_list

# What splits are called, in lower case, and the field of Dataset that each is.
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
# A shard of one is called so, too: train-0001.tar.
_SPLIT_OF_ARCHIVE = re.compile(rf"(?:{'|'.join(_SPLITS)})(?=$|[-_.0-9])")
# How pandas, R and spreadsheets write that there is no value. Other spellings, as none or na, are labels.
_NO_LABEL = frozenset({"", "nan", "NaN", "null", "NULL", "None", "NA", "N/A", "n/a", "<NA>", "#N/A"})

_LAYOUT = (
    "a dataset is a folder with a folder of pictures for each class (DATA/cat/1.jpg, DATA/dog/1.jpg), the same inside "
    "train and val or test (DATA/train/cat/1.jpg), or a CSV file with the columns path,label[,split]"
)
_LABELS_ELSEWHERE = "give their labels by a CSV file with the columns path,label[,split]"


@dataclass(frozen=True)
class Split:
    """Pictures and their labels, side by side: labels[i] is the class of the picture at paths[i]."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """train: at least one picture, of at least one class. validation, test: None where the user gave none; their
    classes need not be those of train. failures: what was left out, each with its path and mostly a hint; the rest
    stands."""

    train: Split
    validation: Split | None
    test: Split | None
    failures: tuple[FeatkitError, ...]


def read_dataset(name: str) -> Dataset:
    """The labelled pictures of a folder or of a CSV file. No picture is opened: those of a folder are known by their
    extension, those of a CSV are as it says, there or not.

    **Folder.** Each folder in it is a class, with the pictures in it and in folders inside it; classes and pictures
    stand in natural order, what is hidden is skipped. Folders named train, val (valid, validation) or test, in any
    case, are splits, and hold the classes. But a folder train that has no folder inside, and beside it others and no
    split, is a class like those: of trains. Failures: a class without pictures, or that cannot be listed; pictures
    beside the classes or the splits; a folder of pictures beside the splits.

    **CSV.** UTF-8, the fields separated by commas, semicolons or tabs; the header has path, label and perhaps split,
    in any order and case, among any others. A path is relative to the folder of the CSV; rows keep their order; a
    label is text as it stands, also if it is a number. An empty split is train. Rows of nothing are skipped, and a
    row that repeats another is counted once. Failures, which name the line: a row without a path, without a label
    (also NaN, null, None, NA), with a split of another name, with more fields than the header, or with another label
    or split than an earlier row has for that path.

    Raises FileMissing and FileUnreadable; DatasetMalformed for what is none of these, has no picture to train on, or
    has a folder of a split without classes.
    """
    if os.path.isdir(name):  # noqa: PTH112 - Path("") is the current folder
        return _read_folder(_Listed(name))
    if not os.path.lexists(name):
        raise FileMissing("there is no such folder or CSV file", path=name)
    if name.lower().endswith(".csv"):
        return _read_table(name)
    raise DatasetMalformed("this is neither a folder nor a CSV file", path=name, hint=_LAYOUT)


def dataset_of_paths(paths: Sequence[str]) -> Dataset:
    """The same of the paths of pictures alone, as they were recorded: the folders in them name splits and classes as
    those of a folder do, and nobody looks whether anything is there. Each path is a picture, whatever it ends with.

    The data begin at the innermost folder that all paths lie in. A tar archive is the folder that it would be unpacked
    into: the one beside it of its name where its pictures lie in no folder, or where it is named as a split
    (train.tar, val-0001.tar); the one where it lies itself where they have folders, as shards of one collection.

    Raises DatasetMalformed where these folders hold no classes, as where all pictures are in one folder.
    """
    once = dict.fromkeys(paths)
    places = _unpacked({path: os.path.normpath(path) for path in once})
    if len({Path(place).is_absolute() for place in places.values()}) > 1 or any(map(_leads_up, places.values())):
        places = {path: os.path.abspath(place) for path, place in places.items()}  # noqa: PTH100
    folders = {os.path.dirname(place) for place in places.values()}  # noqa: PTH120
    if len(folders) < 2:
        where = "there are no pictures" if not folders else f"all pictures are in one folder, {min(folders) or '.'}"
        raise DatasetMalformed(f"{where}, and the folder of a picture is its class", hint=_LABELS_ELSEWHERE)
    root = os.path.commonpath(folders)
    depth = len(Path(root).parts)
    entries = {path: Path(place).parts[depth:] for path, place in places.items()}
    try:
        return _read_folder(_Recorded(root or ".", entries))
    except DatasetMalformed as error:
        # Another folder cannot be named: there may be none.
        raise DatasetMalformed(error.message, path=error.path, hint=_LABELS_ELSEWHERE) from None


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(the rest, held out): of every class of n pictures round(share · n) are held out, but at least one and at most
    all but one; of a class of one picture, none. Both keep the order of `split`.

    Which they are depends on `seed` (0 or more), the label and n alone, so that other classes may come and go.
    Raises UsageError for a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share to hold out is {share:g}", hint="it lies between 0 and 1, as 0.2 does")
    places: dict[str, list[int]] = {}
    for place, label in enumerate(split.labels):
        places.setdefault(label, []).append(place)
    held: set[int] = set()
    for label, own in places.items():
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        # A name of a folder may hold surrogates, for bytes that are not UTF-8.
        generator = np.random.default_rng((seed, zlib.crc32(label.encode("utf-8", "surrogatepass"))))
        held.update(own[index] for index in generator.permutation(len(own))[:count])
    pairs = list(zip(split.paths, split.labels, strict=True))
    rest = [pair for place, pair in enumerate(pairs) if place not in held]
    return _side_by_side(rest), _side_by_side([pairs[place] for place in sorted(held)])


def _side_by_side(pairs: list[tuple[str, str]]) -> Split:
    return Split(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))


def _dataset(splits: dict[str, list[tuple[str, str]]], failures: list[FeatkitError]) -> Dataset:
    """splits: (path, label) of every picture, by the name of the field; train is there."""
    found = {name: _side_by_side(pairs) for name, pairs in splits.items()}
    return Dataset(found["train"], found.get("validation"), found.get("test"), tuple(failures))


# --- folders


class _Folder(Protocol):
    """Where splits, classes and pictures are looked for; what is hidden is not in it."""

    @property
    def path(self) -> str: ...

    def folders(self) -> Mapping[str, _Folder]:
        """Those in it by their names, in natural order. Raises FileUnreadable."""

    def pictures(self, *, recursive: bool) -> Sequence[str]:
        """In natural order; with `recursive` also those of folders inside, after its own. Raises InputError where there
        are none, or they cannot be listed."""


@dataclass(frozen=True)
class _Listed:
    """A folder of the disk."""

    path: str

    def folders(self) -> Mapping[str, _Folder]:
        """See _Folder. Links to folders are among them."""
        try:
            with os.scandir(self.path) as listing:
                found = {
                    entry.name: entry.path for entry in listing if entry.is_dir() and not entry.name.startswith(".")
                }
        except OSError as error:
            raise FileUnreadable(f"the folder cannot be listed: {error.strerror}", path=self.path) from error
        return {name: _Listed(found[name]) for name in sorted(found, key=natural_key)}

    def pictures(self, *, recursive: bool) -> Sequence[str]:
        return expand([self.path], recursive=recursive)


@dataclass(frozen=True)
class _Recorded:
    """A folder in the paths of pictures. entries: of each path below it the names of the folders from here on, and that
    of the file."""

    path: str
    entries: Mapping[str, tuple[str, ...]]

    def folders(self) -> Mapping[str, _Folder]:
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for path, names in self.entries.items():
            if len(names) > 1 and not names[0].startswith("."):
                found.setdefault(names[0], {})[path] = names[1:]
        inner = {name: os.path.normpath(f"{self.path}{os.sep}{name}") for name in found}
        return {name: _Recorded(inner[name], found[name]) for name in sorted(found, key=natural_key)}

    def pictures(self, *, recursive: bool) -> Sequence[str]:
        found = [
            path
            for path, names in self.entries.items()
            if (len(names) == 1 or (recursive and names)) and not any(name.startswith(".") for name in names)
        ]
        if not found:
            hint = "what has a name that begins with a dot is hidden, and left out"
            raise InputError("there is no picture in this folder", path=self.path, hint=hint)
        return sorted(found, key=self._order)

    def _order(self, path: str) -> list[tuple[bool, tuple[list[tuple[int, str]], str]]]:
        """A folder's own pictures stand before those of the folders inside."""
        *folders, file = self.entries[path]
        return [*((True, natural_key(name)) for name in folders), (False, natural_key(file))]


def _leads_up(path: str) -> bool:
    return path.split(os.sep, 1)[0] == os.pardir


def _unpacked(places: Mapping[str, str]) -> dict[str, str]:
    """Where pictures of archives would lie if these were unpacked; the values of others as they are."""
    inside = {path: found for path, place in places.items() if (found := archive_of(place)) is not None}
    with_folders = {archive for archive, member in inside.values() if os.sep in member}
    return {**places, **{path: _beside(*found, found[0] in with_folders) for path, found in inside.items()}}


def _beside(archive: str, member: str, has_folders: bool) -> str:
    folder, file = os.path.split(archive)
    name = Path(file).stem
    split = _SPLIT_OF_ARCHIVE.match(name.lower())
    if not has_folders:
        return os.path.join(folder, name, member)  # noqa: PTH118
    if split is not None and member.split(os.sep, 1)[0].lower() not in _SPLITS:
        return os.path.join(folder, split[0], member)  # noqa: PTH118
    return os.path.join(folder, member)  # noqa: PTH118


def _read_folder(root: _Folder) -> Dataset:
    failures: list[FeatkitError] = []
    folders = root.folders()
    named = [name for name in folders if name.lower() in _SPLITS]
    only_train = len(named) == 1 < len(folders) and named[0].lower() == "train"
    if not named or (only_train and not folders[named[0]].folders()):
        return _dataset({"train": _read_classes(root, failures)}, failures)
    places = {_SPLITS[name.lower()]: folders[name] for name in named}
    if len(places) < len(named):
        joined = ", ".join(named)
        raise DatasetMalformed(f"two of {joined} are one split", path=root.path, hint="join them, or rename one")
    if "train" not in places:
        hint = f"to use one split alone, name it: {folders[named[0]].path}"
        raise DatasetMalformed(f"there is {' and '.join(named)}, and no train", path=root.path, hint=hint)
    alone = f"to use train alone, name it: {places['train'].path}"
    splits = {
        split: _read_classes(folder, failures, _LAYOUT if split == "train" else alone)
        for split, folder in places.items()
    }
    failures += _strays(root)
    for name, folder in folders.items():
        if name not in named:
            failures += _strays(folder, recursive=True)
    return _dataset(splits, failures)


def _read_classes(folder: _Folder, failures: list[FeatkitError], hint: str = _LAYOUT) -> list[tuple[str, str]]:
    """(path, label) of the pictures in class folders. Adds to `failures` each class without pictures, and what belongs
    to no class."""
    found: list[tuple[str, str]] = []
    without: list[InputError] = []
    for label, inner in folder.folders().items():
        try:
            found += [(path, label) for path in inner.pictures(recursive=True)]
        except InputError as error:
            without.append(error)
    if not found:
        reason = f"; of {without[0].path}: {without[0].message}" if without else ""
        raise DatasetMalformed(f"there is no class folder with pictures in it{reason}", path=folder.path, hint=hint)
    failures += [*without, *_strays(folder)]
    return found


def _strays(folder: _Folder, *, recursive: bool = False) -> list[InputError]:
    """One error for all the pictures in a folder that belong to no class; none where there are none."""
    try:
        count = len(folder.pictures(recursive=recursive))
    except InputError:
        return []
    return [
        InputError(
            f"the pictures in this folder belong to no class: {count}",
            path=folder.path,
            hint="each picture lies in the folder of its class",
        )
    ]


# --- tables


def _read_table(name: str) -> Dataset:
    failures: list[FeatkitError] = []
    found: dict[str, tuple[str, str]] = {}
    rows = _rows(_text_of(name), name)
    _, columns = next(rows)
    for line, row in rows:
        try:
            relative, label, split = _read_row(row, columns)
            path = str(Path(name).parent / relative)
            if found.setdefault(path, (label, split)) != (label, split):
                raise InputError(
                    f"{label} in {split} for {relative}, and before it was {' in '.join(found[path])}",
                    hint="leave one row for each picture",
                )
        except InputError as error:
            failures.append(InputError(f"line {line}: {error.message}", path=name, hint=error.hint))
    splits: dict[str, list[tuple[str, str]]] = {}
    for path, (label, split) in found.items():
        splits.setdefault(split, []).append((path, label))
    if "train" not in splits:
        reason = f"; {failures[0].message}" if failures else ""
        raise DatasetMalformed(f"there is no row to train on{reason}", path=name, hint="an empty split is train")
    return _dataset(splits, failures)


def _read_row(row: list[str], columns: list[str]) -> tuple[str, str, str]:
    """Path as it is written, label, field of Dataset. Raises InputError, which does not know the line."""
    if len(row) > len(columns):
        raise InputError(
            f"{len(row)} fields, and the header has {len(columns)}",
            hint="a field that holds the separator stands in quotes",
        )
    fields = dict(zip(columns, row, strict=False))
    path, label, split = fields.get("path", ""), fields.get("label", "").strip(), fields.get("split", "").strip()
    if not path.strip():
        raise InputError("no path", hint="name the picture, relative to the folder of the CSV")
    if label in _NO_LABEL:
        raise InputError(f"no label for {path}", hint="name its class, or take the row out")
    if split and split.lower() not in _SPLITS:
        raise InputError(
            f"unknown split {split} for {path}", hint=f"use one of {', '.join(_SPLITS)}, or leave it empty"
        )
    return path, label, _SPLITS[split.lower() or "train"]


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line from 1, fields) of every row that is not blank; the header comes first, in lower case."""
    for separator in ",;\t":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        with contextlib.suppress(csv.Error):  # a quoted field, and after it another separator
            columns = [column.strip().lower() for column in next(reader, [])]
            if columns.count("path") == columns.count("label") == 1 >= columns.count("split"):
                break
    else:
        raise DatasetMalformed(
            "the first line does not name the columns path and label, once each",
            path=name,
            hint="begin with the line path,label or path,label,split",
        )
    yield 1, columns
    line = reader.line_num + 1
    try:
        for row in reader:
            if any(row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DatasetMalformed(
            f"line {line} begins a row that is no CSV: {error}",
            path=name,
            hint="a field that holds a quote stands in quotes, and each quote in it is doubled",
        ) from error


def _text_of(name: str) -> str:
    with open_list(name) as stream:
        try:
            data = stream.read()
        except OSError as error:
            raise FileUnreadable(f"the CSV file cannot be read: {error.strerror}", path=name) from error
    if not data:
        raise DatasetMalformed("the CSV file is empty", path=name, hint=_LAYOUT)
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetMalformed(f"line {line} is not UTF-8", path=name, hint="save the file as UTF-8") from error
    if "\0" in text:
        raise DatasetMalformed("it holds a NUL, as no CSV file does", path=name, hint="save the file as UTF-8")
    return text
