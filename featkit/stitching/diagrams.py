"""What happened, as pictures: which photos hang together, what was matched, where the seams run, what exposure did."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from featkit import images
from featkit.canvas import Canvas
from featkit.errors import OutputError, OutputExists
from featkit.images import DecodeOptions, Pixels
from featkit.local.drawing import draw_matches
from featkit.opencv import cv2
from featkit.records import check_writable
from featkit.stitching.matching import Comparison
from featkit.stitching.panorama import Panorama
from featkit.stitching.pipeline import Stitched
from featkit.stitching.projection import Region

_THUMBNAIL_SIDE = 150
_MARGIN = 24
_PREVIEW_WIDTH = 2000
_MATCHES_SIDE = 900
_TIED, _REFUSED, _INK = (31, 119, 180), (220, 90, 70), (30, 30, 30)
_SCALE_OF_TEXT = 0.42
_NAMES = ("graph.png", "matches-*.jpg", "seams-*.jpg", "exposure-*.jpg")
# Of the name of a photo in that of a diagram, bytes: two fit into what file systems allow.
_LONGEST_LABEL = 100


def check_diagrams(folder: Path, *, force: bool) -> None:
    """Refuse a folder into which `write_diagrams` could not write, before any work is done for it. Raises OutputError,
    and OutputExists for diagrams that are there already."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", path=str(folder), hint="name a folder, or a new one")
    for name in () if force else _NAMES:
        for found in sorted(folder.glob(name)):
            raise OutputExists("exists already", path=str(found), hint="--force overwrites it; or name a new folder")
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    check_writable(there / _NAMES[0], force=True)


def write_diagrams(
    folder: Path, stitched: Stitched, decode: DecodeOptions, *, force: bool, jobs: int
) -> Iterator[Path]:
    """Write the pictures into a folder, which is made if need be; yields each path as it is written.

    graph.png, matches-A-B.jpg for each pair that was compared closely, and for each panorama seams-N.jpg,
    exposure-before-N.jpg and exposure-after-N.jpg. A photo is never overwritten. Raises OutputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos = {os.path.realpath(path) for panorama in stitched.panoramas for path in panorama.paths}
    if stitched.matched is not None:
        photos.update(os.path.realpath(path) for path in stitched.matched.photos)
        labels, names = _labels(stitched.matched.photos), set[str]()
        yield _saved(folder / "graph.png", _graph(stitched, decode), force, photos)
        for comparison in stitched.matched.tied:
            name = _unlike(names, f"{labels[comparison.a]}-{labels[comparison.b]}")
            names.add(name)
            yield _saved(folder / f"matches-{name}.jpg", _matches(comparison, decode), force, photos)
    for number, panorama in enumerate(stitched.panoramas, 1):
        preview = _preview(panorama)
        after = _drawn(preview, jobs)
        yield _saved(folder / f"seams-{number}.jpg", _with_seams(after, preview), force, photos)
        before = _drawn(_plain(replace(preview, finish=replace(preview.finish, exposure=None))), jobs)
        yield _saved(folder / f"exposure-before-{number}.jpg", before[:, :, :3], force, photos)
        plain = _drawn(_plain(preview), jobs)
        yield _saved(folder / f"exposure-after-{number}.jpg", plain[:, :, :3], force, photos)


def _saved(path: Path, pixels: Pixels, force: bool, photos: AbstractSet[str]) -> Path:
    images.save(path, pixels, force=force and os.path.realpath(path) not in photos)
    return path


def _labels(paths: Iterable[str]) -> dict[str, str]:
    """What each photo is called in names of files: by its own name, numbered where that is not the only one."""
    labels: dict[str, str] = {}
    for path in paths:
        plain = "".join(letter if letter.isprintable() else "_" for letter in PurePath(path).stem)
        labels[path] = _unlike(labels.values(), plain.encode()[:_LONGEST_LABEL].decode(errors="ignore"))
    return labels


def _unlike(others: Collection[str], name: str) -> str:
    numbered = (f"{name}({number})" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in others)


# --- pairs


def _matches(comparison: Comparison, decode: DecodeOptions) -> Pixels:
    """Both photos, reduced, and lines between what the adjustment uses; what it does not see is drawn apart."""
    tie = comparison.tie
    assert tie is not None
    thumbnails, places = [], []
    for path, used, held_out in (
        (comparison.a, tie.used.xy_a, tie.held_out.xy_a),
        (comparison.b, tie.used.xy_b, tie.held_out.xy_b),
    ):
        data = images.read_bytes(path)
        thumbnail = images.thumbnail(data, _MATCHES_SIDE, decode, path=path)
        scale = max(images.size_of(thumbnail)) / max(images.measure(data, decode, path=path))
        thumbnails.append(thumbnail)
        places.append(images.rescale_points(np.concatenate([used, held_out]), scale).astype(np.float32))
    used_ones = np.arange(len(places[0])) < len(tie.used)
    names = " · ".join(PurePath(path).name for path in (comparison.a, comparison.b))
    title = f"{names}: {tie.patches} patches, {len(tie.used) - tie.patches} keypoints; {len(tie.held_out)} held out"
    (a, b), (xy_a, xy_b) = thumbnails, places
    return draw_matches(a, b, xy_a, xy_b, used_ones, title=title)


def _graph(stitched: Stitched, decode: DecodeOptions) -> Pixels:
    """Photos as thumbnails around a circle, lines between those that are tied: thicker for more matches. Thin red ones:
    something agreed, and was not believed."""
    matched = stitched.matched
    assert matched is not None
    paths = list(matched.photos)
    # Neighbours in a panorama lie side by side.
    order = [path for panorama in stitched.panoramas for path in _around(panorama)]
    order += [path for path in paths if path not in order]
    radius = max(300, round(len(order) * (1.5 * _THUMBNAIL_SIDE + _MARGIN) / (2 * math.pi)))
    side = 2 * (radius + _THUMBNAIL_SIDE)
    canvas: Any = np.full((side, side, 3), 255, np.uint8)
    angles = np.arange(len(order)) * 2 * math.pi / max(len(order), 1) - math.pi / 2
    places = {
        path: (round(side / 2 + radius * math.cos(angle)), round(side / 2 + radius * math.sin(angle)))
        for path, angle in zip(order, angles, strict=True)
    }
    labels = []
    for comparison in sorted(matched.comparisons.values(), key=lambda each: each.tie is not None):
        ends = places[comparison.a], places[comparison.b]
        if comparison.tie is not None:
            count = len(comparison.tie.used)
            cv2.line(canvas, *ends, _TIED, 1 + min(6, count // 60), cv2.LINE_AA)
            middle = [round(0.5 * (a + b)) for a, b in zip(*ends, strict=True)]
            labels.append((middle, str(count)))
        elif comparison.agreeing >= 8:
            cv2.line(canvas, *ends, _REFUSED, 1, cv2.LINE_AA)
    for path, (x, y) in places.items():
        thumbnail = images.thumbnail(images.read_bytes(path), _THUMBNAIL_SIDE, decode, path=path)
        height, width = thumbnail.shape[:2]
        left, top = x - width // 2, y - height // 2
        canvas[top : top + height, left : left + width] = thumbnail
        used = any(path in panorama.paths for panorama in stitched.panoramas)
        cv2.rectangle(canvas, (left - 1, top - 1), (left + width, top + height), _INK if used else _REFUSED, 2)
        _label(canvas, PurePath(path).name, (x, top + height + 12), _INK if used else _REFUSED)
    for (x, y), text in labels:
        _label(canvas, text, (x, y), _TIED)
    return np.asarray(canvas, np.uint8)


def _around(panorama: Panorama) -> list[str]:
    """Paths from left to right."""
    regions = panorama.layout.regions
    order = sorted(range(len(regions)), key=lambda number: regions[number].x + regions[number].width / 2)
    return [panorama.paths[number] for number in order]


def _label(canvas: Any, text: str, centre: tuple[int, int] | list[int], colour: tuple[int, int, int]) -> None:
    shown = text.encode("ascii", "replace").decode()
    (width, height), _ = cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, _SCALE_OF_TEXT, 1)
    left = min(max(centre[0] - width // 2, 2), max(canvas.shape[1] - width - 2, 2))
    bottom = centre[1] + height // 2
    cv2.rectangle(canvas, (left - 2, bottom - height - 2), (left + width + 2, bottom + 3), (255, 255, 255), -1)
    cv2.putText(canvas, shown, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, _SCALE_OF_TEXT, colour, 1, cv2.LINE_AA)


# --- panoramas


def _preview(panorama: Panorama) -> Panorama:
    """The same, small."""
    scale = min(1.0, _PREVIEW_WIDTH / max(panorama.layout.size))
    layout = panorama.layout.scaled(scale)
    return replace(
        panorama,
        layout=layout,
        finish=replace(panorama.finish, crop=Region(0, 0, *layout.size)),
        config=replace(panorama.config, scale=panorama.config.scale * scale),
    )


def _plain(panorama: Panorama) -> Panorama:
    """Without blending, which would hide what exposure leaves."""
    finish = replace(panorama.finish, corrections=None)
    return replace(panorama, finish=finish, config=replace(panorama.config, blend="none"))


def _drawn(panorama: Panorama, jobs: int) -> Pixels:
    with Canvas(panorama.layout.size, memory_bytes=1 << 62, folder=os.curdir) as canvas:
        for _ in panorama.draw(canvas, panorama.plan(jobs)):
            pass
        return canvas.read(0, 0, *panorama.layout.size)


def _with_seams(drawn: Pixels, panorama: Panorama) -> Pixels:
    """The panorama, and over it in colour the outline of what each photo shows, with its number."""
    shown: Any = np.ascontiguousarray(drawn[:, :, :3])
    width = shown.shape[1]
    scale = panorama.layout.pixels_per_radian / panorama.reduced.pixels_per_radian
    for number, (mask, region) in enumerate(zip(panorama.finish.masks, panorama.reduced.regions, strict=True)):
        size = round(mask.shape[1] * scale), round(mask.shape[0] * scale)
        large: Any = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
        outlines, _ = cv2.findContours((large > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        corner = np.round(np.array([region.x, region.y]) * scale).astype(np.int32)
        colour = _colour(number)
        for shift in (0,) if panorama.layout.period is None else (-width, 0, width):
            moved = [outline + corner + [shift, 0] for outline in outlines]
            cv2.polylines(shown, [each.astype(np.int32) for each in moved], True, colour, 2, cv2.LINE_AA)
            if outlines:
                x, y = np.concatenate(moved).reshape(-1, 2).mean(0).round().astype(int).tolist()
                if 0 <= x < width:
                    _label(shown, f"{number + 1} {PurePath(panorama.paths[number]).name}", (x, y), _INK)
    return np.asarray(shown, np.uint8)


def _colour(number: int) -> tuple[int, int, int]:
    # Hues a golden section apart: neighbours differ.
    hue = int(number * 0.618034 * 180) % 180
    pixel = np.asarray(cv2.cvtColor(np.array([[[hue, 230, 250]]], np.uint8), cv2.COLOR_HSV2RGB))
    red, green, blue = (int(value) for value in pixel[0, 0])
    return red, green, blue
