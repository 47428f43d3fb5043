"""Matches as one JSON document, with a pair on each line:

    {"format": "featkit-matches", "version": 1, "pairs": [
    {"v": 1, "type": "match", "a": …, "b": …, "matches": [[x_a, y_a, x_b, y_b, score, inlier], …]},
    …
    ], "images": [
    {"name": …, "size": [width, height], "sha256": …, "focal_px": …, "keypoints": n},
    …
    ]}

A pair is its `match` record with the matches in place of their count, the pictures' names as in `images`, and without
`seconds` and `cached`, which differ from run to run. Coordinates are pixels with four decimals, scores have six; inlier
is 0 or 1. The lines are part of the format: they let a file of any size be written and checked pair by pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from featkit.local.interchange import FORMAT, VERSION, Findings, Image, damaged, match_rows
from featkit.records import to_json

if TYPE_CHECKING:
    from featkit.local.geometry import Estimate
    from featkit.local.matching import Matches

_HEAD = f'{{"format": "{FORMAT}", "version": {VERSION}, "pairs": ['
_MIDDLE = '], "images": ['
_TAIL = "]}"
_COLUMNS = 6
# What differs between two runs of the same command.
_VOLATILE = ("seconds", "cached")


class Writer:
    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="ascii", newline="\n")
        self._images: list[dict[str, object]] = []
        self._points: list[npt.NDArray[np.float32]] = []
        self._separator = "\n"
        self._stream.write(_HEAD)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            if error is None:
                self._stream.write(f"\n{_MIDDLE}")
                self._separator = "\n"
                for image in self._images:
                    self._write_line(image)
                self._stream.write(f"\n{_TAIL}\n")

    def add_image(self, position: int, image: Image) -> None:
        self._images.append(
            {
                "name": image.name,
                "size": list(image.features.image_size),
                "sha256": image.sha256,
                "focal_px": image.focal_px,
                "keypoints": len(image.features),
            }
        )
        self._points.append(image.features.xy)

    def add_pair(self, a: int, b: int, matches: Matches, estimate: Estimate, record: Mapping[str, object]) -> None:
        pair = {key: value for key, value in record.items() if key not in _VOLATILE}
        pair["a"], pair["b"] = self._images[a]["name"], self._images[b]["name"]
        # Taken out and put in again, so that the long list comes last.
        pair.pop("matches", None)
        pair["matches"] = match_rows(self._points[a], self._points[b], matches, estimate)
        self._write_line(pair)

    def _write_line(self, item: Mapping[str, object]) -> None:
        self._stream.write(self._separator + to_json(item))
        self._separator = ",\n"


def check(path: Path, findings: Findings) -> None:
    # As bytes and line by line: a foreign file of any size is refused after its first few.
    with path.open("rb") as stream:
        if stream.readline(len(_HEAD) + 2).rstrip(b"\r\n") != _HEAD.encode():
            raise damaged("was not written by featkit match, or was laid out anew since", path)
        pairs = [_check_pair(pair, findings) for pair in _items(stream, path, _MIDDLE)]
        sizes: dict[str, tuple[int, int]] = {}
        for image in _items(stream, path, _TAIL):
            _check_image(image, sizes, findings)
        if stream.read(1):
            raise damaged("goes on after its end", path)
    for number, ends in enumerate(pairs, 1):
        for name, bounds in ends:
            if name not in sizes:
                findings.add(f"pair {number} names a picture that is not there")
            else:
                findings.check_keypoints(f"pair {number}", bounds, sizes[name])
    named = [frozenset(name for name, _ in ends) for ends in pairs if ends]
    if len(set(named)) != len(named):
        findings.add("a pair is listed twice")


def _items(stream: BinaryIO, path: Path, end: str) -> Iterator[dict[str, Any]]:
    """The objects on the lines up to `end`, each but the last with a comma."""
    comma = None
    for number, line in enumerate(stream, 1):
        text = line.rstrip(b"\r\n")
        if not line.endswith(b"\n"):
            break
        if text == end.encode() and not comma:
            return
        if comma is False:
            raise damaged(f"line {number} of a list has no comma before it", path)
        comma = text.endswith(b",")
        try:
            item = json.loads(text.removesuffix(b","), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise damaged(f"line {number} of a list is no JSON: {error}", path) from error
        if not isinstance(item, dict):
            raise damaged(f"line {number} of a list is no JSON object", path)
        yield item
    raise damaged("is cut short", path)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_pair(pair: dict[str, Any], findings: Findings) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Both pictures' names, as found, with the lowest and the highest coordinates of their matched points, 2×2."""
    findings.pairs += 1
    where = f"pair {findings.pairs}"
    if not isinstance(pair.get("a"), str) or not isinstance(pair.get("b"), str) or pair["a"] == pair["b"]:
        findings.add(f"{where} does not name two pictures")
        return []
    rows = pair.get("matches")
    if not isinstance(rows, list):
        findings.add(f"{where} has no list of matches")
        return []
    findings.matches += len(rows)
    if (matrix := _table(pair.get("matrix") or [], 3)) is None or len(matrix) not in (0, 3):
        findings.add(f"{where} has a matrix that is not 3×3 numbers")
    table = _table(rows, _COLUMNS)
    if table is None:
        findings.add(f"{where}: a match is not {_COLUMNS} numbers")
        return []
    findings.check_scores(where, table[:, 4])
    if not np.isin(table[:, 5], (0, 1)).all():
        findings.add(f"{where}: inlier is neither 0 nor 1")
    if pair.get("inliers") not in (None, int(table[:, 5].sum())):
        findings.add(f"{where} counts {pair['inliers']} inliers and marks {int(table[:, 5].sum())}")
    return [
        (name, np.stack([points.min(0), points.max(0)]) if rows else points)
        for name, points in ((pair["a"], table[:, :2]), (pair["b"], table[:, 2:4]))
    ]


def _table(rows: object, columns: int) -> npt.NDArray[np.float64] | None:
    """Lists of `columns` numbers each as N×columns, or None if they are anything else."""
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != columns for row in rows):
        return None
    if any(type(value) not in (int, float) for row in rows for value in row):
        return None
    try:
        return np.array(rows, np.float64).reshape(-1, columns)
    except OverflowError:
        return None


def _check_image(image: dict[str, Any], sizes: dict[str, tuple[int, int]], findings: Findings) -> None:
    findings.images += 1
    name, size = image.get("name"), image.get("size")
    if not isinstance(name, str) or name in sizes:
        findings.add(f"picture {findings.images} has no name of its own")
    elif not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        findings.add(f"picture {findings.images} has no size")
        sizes[name] = (0, 0)
    else:
        sizes[name] = (size[0], size[1])
