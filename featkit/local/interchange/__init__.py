"""Matches of one pair of pictures, or of thousands of pairs, as files that other programs read.

    .npz    arrays for a notebook                         npz.py
    .json   one document, a line a pair                   json_file.py
    .csv    one line a match                              csv_file.py
    .h5     hloc's layout                                 hloc.py
    .db     a COLMAP database                             colmap.py

`open_writer` writes one while the pairs come in, `check` tells whether one is whole. Each module's docstring describes
its format. In all of them the same calls give the same bytes, and a picture goes by the name that the caller gives it,
in which a byte that is not UTF-8 stands as `\\xHH`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from featkit.errors import FileMissing, FileUnreadable, NotAFile, OutputDamaged, UsageError
from featkit.records import check_writable, replacing

if TYPE_CHECKING:
    # For the types alone: `check` needs no OpenCV.
    from featkit.local.features import Features
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

#: What every file says it is, where its format has a place to say so.
FORMAT = "featkit-matches"
#: Raised when a reader of the files would have to change.
VERSION = 1

_MODULES = {".npz": "npz", ".json": "json_file", ".csv": "csv_file", ".h5": "hloc", ".db": "colmap"}
FORMATS = tuple(_MODULES)

# A file with one wrong index often has thousands.
_MOST_PROBLEMS = 20
# Detectors that work on a resized copy may place a keypoint a little outside.
_MARGIN_PX = 1.0


@dataclass(frozen=True)
class Image:
    """One picture as a file holds it: `name` as of `stored_name`, the rest as of `MatchWriter.add_image`."""

    name: str
    features: Features
    sha256: str
    focal_px: float | None


@dataclass(frozen=True)
class CheckReport:
    """What a file holds and what is wrong with it: whole if `problems` is empty.

    format: the suffix. images, pairs, matches: how many were found (a .csv knows no picture or pair without matches).
    """

    path: str
    format: str
    images: int
    pairs: int
    matches: int
    problems: tuple[str, ...]


class _FileWriter(Protocol):
    """What a format's module has to offer; pictures go by their position, from 0."""

    def __init__(self, path: Path) -> None: ...

    def __enter__(self) -> _FileWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add_image(self, position: int, image: Image) -> None: ...

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None: ...


class _Module(Protocol):
    Writer: type[_FileWriter]

    def check(self, path: Path, findings: Findings) -> None: ...


def open_writer(path: str | os.PathLike[str], *, force: bool = False) -> MatchWriter:
    """A writer for the format that `path` ends in.

    Raises UsageError for another ending, and OutputExists or OutputError where `path` could not be written.
    """
    module = _module_of(path)
    check_writable(path, force=force)
    return MatchWriter(Path(path), module.Writer, force=force)


class MatchWriter:
    """Writes pictures and pairs to a file that appears, whole, when the context ends without an exception."""

    def __init__(self, path: Path, writer: type[_FileWriter], *, force: bool) -> None:
        self._path = path
        self._make = writer
        self._force = force
        self._cleanup = contextlib.ExitStack()
        self._positions: dict[str, int] = {}
        self._keypoints: list[int] = []
        self._pairs: set[tuple[int, int]] = set()

    def __enter__(self) -> MatchWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path, force=self._force))
            self._writer = stack.enter_context(self._make(temporary))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def add_image(self, name: str, features: Features, *, sha256: str, focal_px: float | None) -> None:
        """Add a picture, once, before its pairs.

        name: its path relative to a folder that all pictures share, with '/'. sha256: of its file, hexadecimal.
        focal_px: pixels of the full-size picture, None if unknown.
        Raises UsageError for a name that is taken, or that the format cannot hold.
        """
        stored = stored_name(name)
        if not stored:
            raise ValueError("a picture needs a name")
        if stored in self._positions:
            raise UsageError(f"two pictures are called {stored}", hint="name each picture once")
        count = len(features)
        if not len(features.size) == len(features.angle) == len(features.descriptors) == count:
            raise ValueError("the arrays of the features differ in length")
        position = len(self._positions)
        self._writer.add_image(position, Image(stored, features, sha256, focal_px))
        self._positions[stored] = position
        self._keypoints.append(count)

    def add_pair(
        self, name_a: str, name_b: str, matches: Matches, estimate: Estimate, record: Mapping[str, object]
    ) -> None:
        """Add a pair of pictures that were added before.

        `record` is the pair's `match` record. Raises UsageError for a pair that is there already, in whichever order,
        and for a picture with itself; ValueError for matches that do not belong to the two pictures' features.
        """
        a, b = self._position(name_a), self._position(name_b)
        if a == b:
            raise UsageError(f"{stored_name(name_a)} cannot be paired with itself", hint="name two pictures")
        if (min(a, b), max(a, b)) in self._pairs:
            raise UsageError(
                f"{stored_name(name_a)} and {stored_name(name_b)} are paired twice", hint="name each pair once"
            )
        indices = matches.indices
        if not len(indices) == len(matches.score) == len(estimate.inliers):
            raise ValueError("the arrays of the matches differ in length")
        if fault := _index_fault(indices, self._keypoints[a], self._keypoints[b]):
            raise ValueError(fault)
        self._writer.add_pair(a, b, matches, estimate, record)
        self._pairs.add((min(a, b), max(a, b)))

    def _position(self, name: str) -> int:
        try:
            return self._positions[stored_name(name)]
        except KeyError:
            raise ValueError(f"the picture {name!r} was not added before its pairs") from None


def check(path: str | os.PathLike[str]) -> CheckReport:
    """Read a whole file of matches and verify what its format promises.

    Raises UsageError for an ending that featkit does not write, FileMissing, NotAFile or FileUnreadable as usual, and
    OutputDamaged for a file that is cut short, is none of featkit's, or is too damaged to look further.
    """
    module = _module_of(path)
    name = os.fspath(path)
    try:
        # Not by opening it: that would wait for ever on a pipe that nobody writes to.
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile("is not a regular file", path=name, hint="name a file that featkit match -o wrote")
        with Path(name).open("rb"):
            pass
    except FileNotFoundError as error:
        raise FileMissing("there is no such file", path=name) from error
    except OSError as error:
        raise FileUnreadable(f"cannot be read: {error.strerror}", path=name) from error
    if status.st_size == 0:
        raise damaged("is empty", path)
    findings = Findings()
    module.check(Path(name), findings)
    return CheckReport(
        name,
        Path(name).suffix.lower(),
        findings.images,
        findings.pairs,
        findings.matches,
        findings.problems(),
    )


class Findings:
    """What a check has met so far."""

    def __init__(self) -> None:
        self.images = 0
        self.pairs = 0
        self.matches = 0
        self._problems: list[str] = []
        self._more = 0

    def add(self, problem: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more += 1

    def problems(self) -> tuple[str, ...]:
        return (*self._problems, *([f"and {self._more} more"] if self._more else []))

    def check_keypoints(self, where: str, xy: npt.NDArray[np.floating], size: tuple[int, int]) -> None:
        """xy: N×2 pixels. size: (width, height) of their picture."""
        if not np.isfinite(xy).all():
            self.add(f"{where}: a keypoint is not a finite number")
        elif len(xy) and ((xy < -0.5 - _MARGIN_PX) | (xy > np.subtract(size, 0.5 - _MARGIN_PX))).any():
            self.add(f"{where}: a keypoint lies outside the picture")

    def check_indices(self, where: str, indices: npt.NDArray[np.integer], count_a: int, count_b: int) -> None:
        """indices: M×2 rows of a and b, which have count_a and count_b keypoints."""
        if fault := _index_fault(indices, count_a, count_b):
            self.add(f"{where}: {fault}")

    def check_scores(self, where: str, scores: npt.NDArray[np.floating]) -> None:
        if not ((scores >= 0) & (scores <= 1)).all():
            self.add(f"{where}: a score is not between 0 and 1")

    def check_matrix(self, where: str, matrix: npt.NDArray[np.floating]) -> None:
        if not np.isfinite(matrix).all():
            self.add(f"{where}: the matrix has an entry that is not a finite number")


def damaged(message: str, path: str | os.PathLike[str]) -> OutputDamaged:
    return OutputDamaged(message, path=os.fspath(path), hint="write it again with featkit match -o")


def stored_name(name: str) -> str:
    """A picture's name as files hold it: bytes that are not UTF-8, which Python keeps as surrogates, become `\\xHH`."""
    return re.sub("[\ud800-\udfff]", _escape, name)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def match_rows(
    xy_a: npt.NDArray[np.float32], xy_b: npt.NDArray[np.float32], matches: Matches, estimate: Estimate
) -> list[list[float]]:
    """[x_a, y_a, x_b, y_b, score, inlier] a match; four decimals are what float32 has at 2,000 pixels."""
    points = np.hstack([xy_a[matches.indices[:, 0]], xy_b[matches.indices[:, 1]]]).astype(np.float64)
    return [
        [*point, score, inlier]
        for point, score, inlier in zip(
            points.round(4).tolist(),
            matches.score.astype(np.float64).round(6).tolist(),
            estimate.inliers.astype(int).tolist(),
            strict=True,
        )
    ]


def _index_fault(indices: npt.NDArray[np.integer], count_a: int, count_b: int) -> str | None:
    """What is wrong with M×2 rows of a and b; many rows of a may share one of b, as one-way matching allows."""
    if not len(indices):
        return None
    if indices.min() < 0 or (indices >= (count_a, count_b)).any():
        return "a match names a keypoint that is not there"
    if len(np.unique(indices[:, 0])) != len(indices):
        return "a keypoint of the first picture is matched twice"
    return None


def _module_of(path: str | os.PathLike[str]) -> _Module:
    suffix = Path(path).suffix.lower()
    if suffix not in _MODULES:
        raise UsageError(
            f"there is no match file format {suffix}" if suffix else "the match file's name has no ending",
            path=os.fspath(path),
            hint=f"end its name in one of: {', '.join(FORMATS)}",
        )
    # Loaded late: h5py and sqlite3 cost a run that does not need them.
    return cast(_Module, importlib.import_module(f"{__name__}.{_MODULES[suffix]}"))
