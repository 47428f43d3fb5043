"""Where the photos of one panorama look: what matching and adjustment come to, and all that drawing needs of them.

Kept in a file, it lets a panorama be drawn again, another way, without matching. Photos are known there by the SHA-256
of their bytes, so they may be renamed and moved, and a photo that has changed is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from featkit.errors import FileMissing, FileUnreadable, PosesMalformed, UsageError
from featkit.images import read_bytes
from featkit.records import record, to_json, write_atomically
from featkit.stitching.photos import Source
from featkit.stitching.views import View

VERSION = 1

_LARGEST_FILE_BYTES = 64 << 20
_LARGEST_SIDE = 1_000_000
_MODELS = ("rotation", "planar")


@dataclass(frozen=True)
class Pair:
    """Two photos that overlap, by their positions. matches: of the adjustment. held_out_px: median error of those that
    it has not seen, pixels of b; None where there are none."""

    a: int
    b: int
    matches: int
    held_out_px: float | None


@dataclass(frozen=True)
class Poses:
    """model: "rotation" or "planar". sources, views: of each photo. pairs: what they hang together by.
    held_out_median_px, held_out_p95_px: of the held-out matches of all pairs; None where there are none."""

    model: str
    sources: tuple[Source, ...]
    views: tuple[View, ...]
    pairs: tuple[Pair, ...]
    held_out_median_px: float | None
    held_out_p95_px: float | None

    def only(self, kept: Sequence[int]) -> Poses:
        """Of some of the photos, by their positions."""
        position = {number: new for new, number in enumerate(kept)}
        return Poses(
            self.model,
            tuple(self.sources[number] for number in kept),
            tuple(self.views[number] for number in kept),
            tuple(
                Pair(position[pair.a], position[pair.b], pair.matches, pair.held_out_px)
                for pair in self.pairs
                if pair.a in position and pair.b in position
            ),
            self.held_out_median_px,
            self.held_out_p95_px,
        )


def chosen(panoramas: Sequence[Poses], paths: Sequence[str]) -> tuple[list[Poses], dict[str, str]]:
    """Of the photos at these paths alone, which may have other names now; of all if there are no paths. And why the
    others are in none, for people, by path. Raises InputError for a photo that cannot be read, and UsageError where
    fewer than two are left of each panorama."""
    if not paths:
        return list(panoramas), {}
    digests = {path: sha256(read_bytes(path)).hexdigest() for path in paths}
    named = {digest: path for path, digest in reversed(digests.items())}
    found = []
    for poses in panoramas:
        kept = [number for number, source in enumerate(poses.sources) if source.sha256 in named]
        if len(kept) > 1:
            sources = tuple(replace(source, path=named.get(source.sha256, source.path)) for source in poses.sources)
            found.append(replace(poses, sources=sources).only(kept))
    if not found:
        raise UsageError(
            "no two of these photos are in the same panorama of the file of poses",
            hint="name those that are, none for all of them, or another file to match anew",
        )
    used = {source.path for poses in found for source in poses.sources}
    known = {source.sha256 for poses in panoramas for source in poses.sources}
    reasons = {}
    for path, digest in digests.items():
        if named[digest] != path:
            reasons[path] = f"it is the same picture as {named[digest]}"
        elif digest not in known:
            reasons[path] = "it is not in the file of poses: it was left out when that was made, or has changed since"
        elif path not in used:
            reasons[path] = "no other photo of its panorama is named"
    return found, reasons


def write_poses(path: str | os.PathLike[str], panoramas: Sequence[Poses], *, force: bool = False) -> None:
    """Write the poses of panoramas as JSON; paths are relative to the file. Raises OutputError."""
    folder = Path(path).resolve().parent
    content = record("poses", panoramas=[_to_json(poses, folder) for poses in panoramas])
    write_atomically(path, (to_json(content) + "\n").encode(), force=force)


def to_bytes(panoramas: Sequence[Poses]) -> bytes:
    """What `from_bytes` reads, with the paths as they are: for the cache."""
    return to_json(record("poses", panoramas=[_to_json(poses, None) for poses in panoramas])).encode()


def from_bytes(data: bytes) -> list[Poses]:
    """Raises ValueError, KeyError or TypeError for what `to_bytes` has not made."""
    return _from_document(json.loads(data, parse_constant=_refuse_constant), None)


def _to_json(poses: Poses, folder: Path | None) -> dict[str, Any]:
    return {
        "model": poses.model,
        "images": [
            {
                "path": source.path if folder is None else _relative(source.path, folder),
                "sha256": source.sha256,
                "size": list(source.size),
                "to_world": view.to_world.tolist(),
                "focal_px": view.focal_px,
                "distortion": list(view.distortion),
            }
            for source, view in zip(poses.sources, poses.views, strict=True)
        ],
        "pairs": [
            {"a": pair.a, "b": pair.b, "matches": pair.matches, "held_out_px": pair.held_out_px} for pair in poses.pairs
        ],
        "held_out_px": {"median": poses.held_out_median_px, "p95": poses.held_out_p95_px},
    }


def _relative(path: str, folder: Path) -> str:
    return PurePath(os.path.relpath(Path(path).resolve(), folder)).as_posix()


def read_poses(path: str | os.PathLike[str]) -> list[Poses]:
    """The inverse of `write_poses`, with paths as seen from here. Raises FileMissing, FileUnreadable, and
    PosesMalformed for whatever is not such a file, whole and of this version."""
    name = os.fspath(path)
    try:
        with Path(name).open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise FileMissing("there is no such file", path=name) from error
    except OSError as error:
        raise FileUnreadable(f"it cannot be read: {error.strerror}", path=name) from error
    try:
        if len(data) > _LARGEST_FILE_BYTES:
            raise ValueError("it is too large")
        return _from_document(json.loads(data, parse_constant=_refuse_constant), Path(name).parent)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        if isinstance(error, (UnicodeDecodeError, json.JSONDecodeError)):
            what = "it is no JSON, or not all of it"
        hint = "name a file that is not there yet, and it is made"
        raise PosesMalformed(f"these are no poses: {what}", path=name, hint=hint) from error


def _from_document(content: Any, folder: Path | None) -> list[Poses]:
    if not isinstance(content, dict) or content.get("type") != "poses":
        raise ValueError("it is JSON, but not of poses")
    if content.get("v") != VERSION:
        raise ValueError(f"it is of version {content.get('v')}, and this featkit reads version {VERSION}")
    return [_from_json(each, folder) for each in _list(content["panoramas"])]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is missing")
    return value


def _from_json(content: dict[str, Any], folder: Path | None) -> Poses:
    model = content["model"]
    if model not in _MODELS:
        raise ValueError(f"there is no model {model!r}")
    images = _list(content["images"])
    if len(images) < 2:
        raise ValueError("a panorama has two photos, or more")
    held_out = content["held_out_px"]
    sources = tuple(_source(image, folder) for image in images)
    if len({source.sha256 for source in sources}) < len(sources):
        raise ValueError("a photo is there twice")
    return Poses(
        model,
        sources,
        tuple(_view(image, model) for image in images),
        tuple(
            Pair(
                _integer(pair["a"], 0, len(images) - 1),
                _integer(pair["b"], 0, len(images) - 1),
                _integer(pair["matches"], 0, 1 << 40),
                _optional(pair["held_out_px"]),
            )
            for pair in _list(content["pairs"])
        ),
        _optional(held_out["median"]),
        _optional(held_out["p95"]),
    )


def _source(image: dict[str, Any], folder: Path | None) -> Source:
    path, digest = image["path"], image["sha256"]
    if not isinstance(path, str) or not isinstance(digest, str):
        raise ValueError("a path or a digest is no text")
    full = path if folder is None or PurePath(path).is_absolute() else os.path.normpath(folder / path)
    return Source(os.fspath(full), digest, _size(image))


def _view(image: dict[str, Any], model: str) -> View:
    matrix = np.array([[_number(value) for value in _list(row)] for row in _list(image["to_world"])])
    if matrix.shape != (3, 3) or not matrix.any() or abs(np.linalg.det(matrix / np.abs(matrix).max())) < 1e-18:
        raise ValueError("a matrix to_world cannot be inverted")
    focal, (k1, k2) = _optional(image["focal_px"]), image["distortion"]
    if (model == "rotation") != (focal is not None) or (focal is not None and focal <= 0):
        raise ValueError("a focal length does not go with the model")
    return View(_size(image), matrix, focal, (_number(k1), _number(k2)))


def _size(image: dict[str, Any]) -> tuple[int, int]:
    width, height = image["size"]
    return _integer(width, 1, _LARGEST_SIDE), _integer(height, 1, _LARGEST_SIDE)


def _integer(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{value!r} is not between {low} and {high}")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e12:
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)
