"""Which of many photos overlap, and how: every photo described once, every likely pair compared."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np

from featkit import images
from featkit.cache import Cache, make_key
from featkit.errors import FeatkitError
from featkit.images import DecodeOptions, scale_to_fit
from featkit.local import pairing
from featkit.local.config import MatchConfig
from featkit.local.geometry import one_to_one
from featkit.local.pipeline import match_pairs
from featkit.local.recent import Recent
from featkit.local.results import Extracted, MatchResult
from featkit.opencv import cv2
from featkit.progress import Progress
from featkit.stitching import ties
from featkit.stitching.graph import components
from featkit.stitching.photos import Source, read_unchanged
from featkit.stitching.ties import Correspondences, Reduced, Tie, keypoint_covariance, tie

# Keypoints only have to say which photos overlap, and where to some pixels: patches do the rest. At this size SIFT
# takes a third of the time that it takes for a megapixel, and finds as much of what photos from one place share.
_LOOK = MatchConfig(effort="fast", max_side=640, max_keypoints=1500)
# Where that leaves photos alone that something speaks for.
_CLOSER_LOOK = MatchConfig(effort="fast", max_side=1600, max_keypoints=8000)
_FEWEST_FOR_CLOSER_LOOK = 6
_MOST_CLOSER_LOOKS = 4
#: From so many agreeing matches on a pair is looked at closely: among unrelated photos chance makes up to 9 agree
#: (local/verdict.py), and repeated things more; those do not look alike where one photo is laid over the other.
FEWEST_AGREEING = 10
_LEAST_ALIKE = 0.65
_FEWEST_BLOCKS = 4
_SURE_AGREEING = 24
# From so many photos on not every pair is compared, but each with those that look most like it, and with its neighbours
# in the order that they were given in.
_MOST_FOR_ALL_PAIRS = 24
_PARTNERS = 14
_NEIGHBOURS = 2
# Of photos as they are compared: a hundred.
_GRAY_BYTES = 100 << 20


@dataclass(frozen=True)
class Comparison:
    """What speaks for two photos' belonging together. agreeing: how many keypoints do. tie: None where too few do, or
    what they say is not what the photos show."""

    a: str
    b: str
    agreeing: int
    tie: Tie | None


@dataclass
class Matched:
    """photos: by path, what is known of those that can be read. comparisons: by the two paths. failures: by path."""

    photos: dict[str, Extracted] = field(default_factory=dict)
    comparisons: dict[tuple[str, str], Comparison] = field(default_factory=dict)
    failures: dict[str, FeatkitError] = field(default_factory=dict)

    @property
    def tied(self) -> list[Comparison]:
        return [comparison for comparison in self.comparisons.values() if comparison.tie is not None]


def compare_all(
    paths: Sequence[str],
    decode: DecodeOptions,
    cache: Cache,
    jobs: int,
    *,
    seed: int,
) -> Generator[Progress, None, Matched]:
    """Compare photos with one another; returns what was found of all of them."""
    matched = Matched()
    pairs = _pairs(paths, decode, cache, jobs)
    yield from _compare(pairs, _LOOK, matched, decode, cache, jobs, seed, "matching")
    again = list(_worth_a_closer_look(paths, matched))
    if again:
        yield from _compare(again, _CLOSER_LOOK, matched, decode, cache, jobs, seed, "looking closer")
    return matched


def _pairs(paths: Sequence[str], decode: DecodeOptions, cache: Cache, jobs: int) -> list[tuple[str, str]]:
    if len(paths) <= _MOST_FOR_ALL_PAIRS:
        return list(itertools.combinations(paths, 2))
    likely = pairing.auto(paths, _PARTNERS, decode=decode, cache=cache, jobs=jobs)
    return list(dict.fromkeys([*likely, *pairing.sequential(paths, _NEIGHBOURS)]))


def _compare(
    pairs: list[tuple[str, str]],
    look: MatchConfig,
    matched: Matched,
    decode: DecodeOptions,
    cache: Cache,
    jobs: int,
    seed: int,
    stage: str,
) -> Generator[Progress, None, None]:
    config = MatchConfig(
        effort=look.effort, max_side=look.max_side, max_keypoints=look.max_keypoints, seed=seed, decode=decode
    )
    yield Progress(stage, 0, len(pairs))
    promising = []
    for done, outcome in enumerate(match_pairs(pairs, config, cache=cache, jobs=jobs), 1):
        if isinstance(outcome, FeatkitError):
            matched.failures.setdefault(outcome.path or "", outcome)
            continue
        matched.photos.setdefault(outcome.a.path, outcome.a)
        matched.photos.setdefault(outcome.b.path, outcome.b)
        agreeing = _agreeing(outcome)
        comparison = Comparison(outcome.a.path, outcome.b.path, agreeing, None)
        matched.comparisons[comparison.a, comparison.b] = comparison
        if agreeing >= FEWEST_AGREEING and outcome.matrix is not None:
            promising.append((outcome, comparison))
        yield Progress(stage, done, len(pairs))
    grays = _Grays(decode)
    yield Progress("measuring", 0, len(promising))
    with ThreadPoolExecutor(jobs, thread_name_prefix="featkit") as pool:
        measured = pool.map(lambda each: _measured(each[0], grays, cache, decode, seed), promising)
        for done, ((_, comparison), found) in enumerate(zip(promising, measured, strict=True), 1):
            if _is_real(comparison.agreeing, found):
                matched.comparisons[comparison.a, comparison.b] = Comparison(
                    comparison.a, comparison.b, comparison.agreeing, found
                )
            yield Progress("measuring", done, len(promising))


def _agreeing(result: MatchResult) -> int:
    """How many distinct matches agree: a place that was found twice counts once."""
    rows = np.flatnonzero(result.inliers)
    xy_a, xy_b = result.xy_a[rows].astype(float), result.xy_b[rows].astype(float)
    return len(one_to_one(xy_a, xy_b, result.matches.score[rows]))


def _is_real(agreeing: int, found: Tie) -> bool:
    if len(found.used) < FEWEST_AGREEING // 2:
        return False
    if found.blocks < _FEWEST_BLOCKS:
        return agreeing >= _SURE_AGREEING
    return found.alike >= _LEAST_ALIKE


def _worth_a_closer_look(paths: Sequence[str], matched: Matched) -> Iterator[tuple[str, str]]:
    """Pairs that would join what hangs together with what does not, if they were real; the likeliest of each photo."""
    readable = [path for path in paths if path in matched.photos]
    number = {path: position for position, path in enumerate(readable)}
    groups = components(len(readable), [(number[each.a], number[each.b]) for each in matched.tied])
    home = {readable[member]: group for group, members in enumerate(groups) for member in members}
    spent = dict.fromkeys(readable, 0)
    for each in sorted(matched.comparisons.values(), key=lambda each: (-each.agreeing, number[each.a], number[each.b])):
        larger = max(max(matched.photos[path].features.image_size) for path in (each.a, each.b))
        if (
            each.agreeing >= _FEWEST_FOR_CLOSER_LOOK
            and home[each.a] != home[each.b]
            and larger > _LOOK.max_side
            and min(spent[each.a], spent[each.b]) < _MOST_CLOSER_LOOKS
        ):
            spent[each.a] += 1
            spent[each.b] += 1
            yield each.a, each.b


def _measured(result: MatchResult, grays: _Grays, cache: Cache, decode: DecodeOptions, seed: int) -> Tie:
    matrix = result.matrix
    assert matrix is not None
    key = make_key(
        content=[result.a.content, result.b.content],
        operation="stitch-tie",
        version=ties.VERSION,
        config={
            "decode": asdict(decode),
            "max_side": result.config.max_side,
            "max_keypoints": result.config.max_keypoints,
            "matrix": matrix.tolist(),
            "seed": seed,
        },
        libraries={"opencv": cv2.__version__},
    )
    stored = cache.get(key)
    if stored is not None:
        return Tie.from_arrays(stored)
    found = tie(grays.get(result.a), grays.get(result.b), matrix, _keypoints(result), seed)
    cache.put(key, found.to_arrays())
    return found


def _keypoints(result: MatchResult) -> Correspondences:
    """The distinct matches of a pair, right and wrong."""
    xy_a, xy_b = result.xy_a.astype(float), result.xy_b.astype(float)
    rows = one_to_one(xy_a, xy_b, result.matches.score)
    features = result.b.features
    sizes = features.size[result.matches.indices[rows, 1]]
    scale = scale_to_fit(features.image_size, result.config.max_side)
    return Correspondences(xy_a[rows], xy_b[rows], keypoint_covariance(sizes, scale))


class _Grays:
    """Photos as they are compared, read again where they are no longer in memory."""

    def __init__(self, decode: DecodeOptions) -> None:
        self._decode = decode
        self._recent = Recent(_GRAY_BYTES)

    def get(self, photo: Extracted) -> Reduced:
        reduced: Reduced | None = self._recent.get(photo.path)
        if reduced is None:
            source = Source(photo.path, photo.sha256, photo.features.image_size)
            pixels = images.decode(read_unchanged(source), self._decode, path=photo.path)
            reduced = Reduced.of(images.to_gray(pixels))
            self._recent.put(photo.path, reduced, reduced.gray.nbytes)
        return reduced
