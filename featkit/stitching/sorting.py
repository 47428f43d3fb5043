"""Which photos make which panorama, and which are in none, and why: from pictures to poses, kept in the cache."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from featkit.cache import Cache, make_key
from featkit.errors import FeatkitError
from featkit.images import read_bytes
from featkit.local import features
from featkit.local import matching as local_matching
from featkit.opencv import cv2
from featkit.progress import Progress
from featkit.records import record
from featkit.stitching import ties
from featkit.stitching.adjustment import Edge
from featkit.stitching.config import StitchConfig
from featkit.stitching.matching import FEWEST_AGREEING, Matched, compare_all
from featkit.stitching.photos import Source
from featkit.stitching.placing import Placement, place
from featkit.stitching.poses import Pair, Poses, from_bytes, to_bytes
from featkit.stitching.rotation import Photo

#: Raise when the same photos would be placed in another way: it is part of the cache key.
VERSION = 1


@dataclass(frozen=True)
class LeftOut:
    """A photo that is in no panorama. matches: how many keypoints agree with `nearest`, the photo that it shares most
    with (None: nothing with any). reason, hint: for people."""

    path: str
    reason: str
    matches: int
    nearest: str | None
    hint: str

    def record(self) -> dict[str, Any]:
        """The `left_out` record."""
        return record(
            "left_out", path=self.path, reason=self.reason, matches=self.matches, nearest=self.nearest, hint=self.hint
        )


@dataclass(frozen=True)
class Sorted:
    """poses: of each panorama, that of most photos first. left_out: in the order given. matched: all that was compared;
    None where the result came from the cache, which is never so if a photo could not be read."""

    poses: list[Poses]
    left_out: tuple[LeftOut, ...]
    matched: Matched | None
    seconds: dict[str, float]


def sort_photos(
    paths: Sequence[str], config: StitchConfig, cache: Cache, jobs: int, *, compared: bool = False
) -> Generator[Progress, None, Sorted]:
    """Match, connect and adjust. paths: distinct. compared: `matched` is wanted in any case."""
    start = time.perf_counter()
    key = _key(paths, config)
    stored = None if key is None or compared else cache.get(key)
    if stored is not None:
        left_out = tuple(LeftOut(**each) for each in json.loads(stored["left_out"].tobytes()))
        return Sorted(from_bytes(stored["poses"].tobytes()), left_out, None, {"matching": time.perf_counter() - start})
    matched = yield from compare_all(paths, config.decode, cache, jobs, seed=config.seed)
    yield Progress("adjusting", 0, 1)
    adjusting = time.perf_counter()
    poses = _placed(paths, matched, config)
    left_out = _left_out(paths, matched, poses)
    if key is not None and not matched.failures:
        texts = {"poses": to_bytes(poses), "left_out": json.dumps([asdict(each) for each in left_out]).encode()}
        cache.put(key, {name: np.frombuffer(text, np.uint8) for name, text in texts.items()})
    seconds = {"matching": adjusting - start, "adjusting": time.perf_counter() - adjusting}
    return Sorted(poses, left_out, matched, seconds)


def _key(paths: Sequence[str], config: StitchConfig) -> str | None:
    """None where a photo cannot be read."""
    try:
        digests = [sha256(read_bytes(path)).hexdigest() for path in paths]
    except FeatkitError:
        return None
    return make_key(
        content=digests,
        operation="stitch-poses",
        version=VERSION,
        config={
            # They are in what is kept: a photo that was renamed since would be called by its old name. As characters:
            # in another locale the same bytes are others.
            "paths": [path.encode(errors="surrogatepass").hex() for path in paths],
            "decode": asdict(config.decode),
            "model": config.cameras,
            "reference": config.reference is not None and [path == config.reference for path in paths],
            "seed": config.seed,
            "versions": [features.VERSION, local_matching.VERSION, ties.VERSION],
        },
        libraries={"opencv": cv2.__version__},
    )


def _placed(paths: Sequence[str], matched: Matched, config: StitchConfig) -> list[Poses]:
    originals = _originals(paths, matched)
    number = {path: position for position, path in enumerate(originals)}
    known = [matched.photos[path] for path in originals]
    edges = [
        Edge(number[each.a], number[each.b], each.tie.used, each.tie.held_out)
        for each in matched.tied
        if each.tie is not None and each.a in number and each.b in number
    ]
    reference = number.get(config.reference) if config.reference is not None else None
    placements = place(
        [Photo(each.features.image_size, each.focal_px) for each in known], edges, config.cameras, reference
    )
    sources = [Source(each.path, each.sha256, each.features.image_size) for each in known]
    return [_poses(placement, sources) for placement in placements]


def _poses(placement: Placement, sources: Sequence[Source]) -> Poses:
    every = np.concatenate([*placement.held_out, np.zeros(0)])
    median, p95 = (float(np.percentile(every, share)) if len(every) else None for share in (50, 95))
    pairs = [
        Pair(edge.a, edge.b, len(edge.used), float(np.median(error)) if len(error) else None)
        for edge, error in zip(placement.edges, placement.held_out, strict=True)
    ]
    own = tuple(sources[member] for member in placement.members)
    return Poses(placement.model, own, tuple(placement.views), tuple(pairs), median, p95)


def _originals(paths: Sequence[str], matched: Matched) -> list[str]:
    """Readable photos, of those with the same bytes the first."""
    first: dict[str, str] = {}
    for path in paths:
        if path in matched.photos:
            first.setdefault(matched.photos[path].sha256, path)
    return list(first.values())


def _left_out(paths: Sequence[str], matched: Matched, poses: Sequence[Poses]) -> tuple[LeftOut, ...]:
    used = {source.path for each in poses for source in each.sources}
    originals = {matched.photos[path].sha256: path for path in reversed(_originals(paths, matched))}
    return tuple(_reason(path, matched, originals) for path in paths if path not in used)


def _reason(path: str, matched: Matched, originals: dict[str, str]) -> LeftOut:
    if path in matched.failures:
        failure = matched.failures[path]
        hint = failure.hint or "leave it away, or replace the file"
        return LeftOut(path, f"it could not be read: {failure.message}", 0, None, hint)
    if path not in matched.photos:
        return LeftOut(path, "no photo that it could belong to can be read", 0, None, "see what is wrong with those")
    photo = matched.photos[path]
    compared = [
        each
        for each in matched.comparisons.values()
        if path in (each.a, each.b) and matched.photos[each.a].sha256 != matched.photos[each.b].sha256
    ]
    best = max(compared, key=lambda each: (each.tie is not None, each.agreeing), default=None)
    matches = 0 if best is None else best.agreeing
    nearest = None if best is None or not matches else (best.b if best.a == path else best.a)
    original = originals[photo.sha256]
    if original != path:
        reason = f"it is the same picture as {original}"
        return LeftOut(path, reason, len(photo.features), original, "nothing is lost without it")
    if not compared:
        return LeftOut(path, "there is nothing but the same picture again", 0, None, "add photos that overlap with it")
    if not len(photo.features):
        return LeftOut(
            path, "there is nothing in it to match: it is blank, or too small", 0, None, "use a photo that shows more"
        )
    if best is not None and best.tie is not None:
        return LeftOut(
            path,
            f"what it shares with {nearest} does not fit with the other photos",
            matches,
            nearest,
            "stitch the two alone, or take it from where the others were taken",
        )
    if matches >= FEWEST_AGREEING:
        return LeftOut(
            path,
            f"{matches} matches agree with {nearest}, but the photos do not look alike there",
            matches,
            nearest,
            "if they do belong together, add photos between them",
        )
    return LeftOut(
        path,
        "it shares nothing with any other photo that is more than chance",
        matches,
        nearest,
        "neighbouring photos should overlap by a third; if it belongs here, add one between it and the others",
    )
