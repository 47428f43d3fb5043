"""Matches as a table, a line a match: image_a, image_b, x_a, y_a, x_b, y_b, score, inlier.

UTF-8 with line feeds; names are quoted as in RFC 4180 where they hold a comma, a quote or a line end. Coordinates are
pixels with four decimals, scores have six; inlier is 0 or 1. The header line is the mark of the format's version. A
pair without matches leaves no line, and a file cut exactly between two lines still looks whole: choose another format
where that matters.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featkit.local.interchange import Findings, Image, damaged, match_rows

if TYPE_CHECKING:
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

_HEADER = ["image_a", "image_b", "x_a", "y_a", "x_b", "y_b", "score", "inlier"]


class Writer:
    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._stream, lineterminator="\n")
        self._names: list[str] = []
        self._points: list[npt.NDArray[np.float32]] = []
        self._rows.writerow(_HEADER)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add_image(self, position: int, image: Image) -> None:
        self._names.append(image.name)
        self._points.append(image.features.xy)

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None:
        names = [self._names[a], self._names[b]]
        self._rows.writerows(names + row for row in match_rows(self._points[a], self._points[b], matches, estimate))


def check(path: Path, findings: Findings) -> None:
    with path.open("rb") as stream:
        if stream.readline(200).rstrip(b"\r\n") != ",".join(_HEADER).encode():
            raise damaged("does not begin with the header that featkit match writes", path)
        stream.seek(-1, 2)
        if stream.read(1) != b"\n":
            raise damaged("is cut short: its last line has no end", path)
    names: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    current = None
    for where, row in _rows(path):
        if len(row) != len(_HEADER):
            findings.add(f"{where} has {len(row)} fields instead of {len(_HEADER)}")
            continue
        findings.matches += 1
        pair = (row[0], row[1])
        if pair != current:
            if row[0] == row[1] or pair in pairs or pair[::-1] in pairs:
                findings.add(f"{where} takes up a pair again, or pairs a picture with itself")
            current = pair
            pairs.add(pair)
            names.update(pair)
        _check_numbers(where, row[2:], findings)
    findings.images, findings.pairs = len(names), len(pairs)


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            next(reader)
            for row in reader:
                yield f"line {reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise damaged(f"line {reader.line_num + 1} cannot be read: {error}", path) from error


def _check_numbers(where: str, fields: list[str], findings: Findings) -> None:
    *numbers, inlier = fields
    try:
        *point, score = (float(number) for number in numbers)
    except ValueError:
        findings.add(f"{where} has something that is no number")
        return
    if not all(math.isfinite(value) for value in point):
        findings.add(f"{where} has a coordinate that is not a finite number")
    if not 0 <= score <= 1:
        findings.add(f"{where}: a score is not between 0 and 1")
    if inlier not in ("0", "1"):
        findings.add(f"{where}: inlier is neither 0 nor 1")
