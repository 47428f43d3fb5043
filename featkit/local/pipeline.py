"""Pictures in, matches and geometries out: features once a picture, matches once a pair, both kept in the cache."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from featkit import images
from featkit.cache import Cache, make_key, open_cache
from featkit.errors import FeatkitError, UsageError
from featkit.images import DecodeOptions
from featkit.local import features as local_features
from featkit.local import matching
from featkit.local.features import DetectorConfig, Features, detect
from featkit.local.geometry import MINIMAL_SAMPLE, Estimate, GeometryConfig, estimate
from featkit.local.matching import MatcherConfig, Matches, match_features
from featkit.opencv import cv2
from featkit.records import record

# Pairs handed to the workers ahead of the one that is awaited: enough to keep them busy, few enough to hold in memory.
_PAIRS_AHEAD_PER_WORKER = 4


@dataclass(frozen=True)
class MatchConfig:
    """Everything that decides what `match` finds; see the parts for the meaning of each field."""

    detector: str = DetectorConfig.detector
    max_keypoints: int | None = DetectorConfig.max_keypoints
    max_side: int = DetectorConfig.max_side
    ratio: float = MatcherConfig.ratio
    mutual: bool = MatcherConfig.mutual
    model: str = GeometryConfig.model
    threshold: float = GeometryConfig.threshold
    seed: int = GeometryConfig.seed
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        for part in (DetectorConfig, MatcherConfig, GeometryConfig):
            self._part(part)
        needed = MINIMAL_SAMPLE.get(self.model, 1)
        if self.max_keypoints is not None and self.max_keypoints < needed:
            raise UsageError(
                f"--max-keypoints {self.max_keypoints} cannot fix a {self.model} model, which takes {needed} matches",
                hint="thousands of keypoints are usual; leave --max-keypoints out for the default",
            )

    def _part(self, part: type[Any]) -> Any:
        return part(**{each.name: getattr(self, each.name) for each in fields(part)})

    @property
    def detection(self) -> DetectorConfig:
        return self._part(DetectorConfig)  # type: ignore[no-any-return]

    @property
    def matching(self) -> MatcherConfig:
        return self._part(MatcherConfig)  # type: ignore[no-any-return]

    @property
    def geometry(self) -> GeometryConfig:
        return self._part(GeometryConfig)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Extracted:
    """The features of one picture. sha256: of the file's bytes. focal_px: from EXIF, or None. seconds: what it took.
    pixels: uint8 H×W×3 RGB, where they were decoded and are to be kept."""

    path: str
    sha256: str
    features: Features
    focal_px: float | None
    cached: bool
    seconds: float
    pixels: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class MatchResult:
    """What ties picture a to picture b.

    matches: tentative ones; estimate.inliers (bool M) says which of them the geometry confirms.
    """

    a: Extracted
    b: Extracted
    config: MatchConfig
    matches: Matches
    estimate: Estimate
    seconds: dict[str, float]

    @property
    def xy_a(self) -> npt.NDArray[np.float32]:
        """float32 M×2: the matched keypoints of a, pixels."""
        return self.a.features.xy[self.matches.indices[:, 0]]

    @property
    def xy_b(self) -> npt.NDArray[np.float32]:
        """float32 M×2: the matched keypoints of b, pixels."""
        return self.b.features.xy[self.matches.indices[:, 1]]

    @property
    def inliers(self) -> npt.NDArray[np.bool_]:
        return self.estimate.inliers

    @property
    def matrix(self) -> npt.NDArray[np.floating] | None:
        return self.estimate.matrix

    @property
    def verdict(self) -> str:
        return self.estimate.verdict

    @property
    def uncertainty_px(self) -> float | None:
        return self.estimate.uncertainty_px

    def record(self) -> dict[str, Any]:
        """The `match` record."""
        return record(
            "match",
            a=self.a.path,
            b=self.b.path,
            size_a=list(self.a.features.image_size),
            size_b=list(self.b.features.image_size),
            detector=self.config.detector,
            keypoints=[len(self.a.features), len(self.b.features)],
            matches=len(self.matches),
            inliers=int(self.inliers.sum()),
            model=self.estimate.model,
            matrix=None if self.matrix is None else self.matrix.tolist(),
            verdict=self.verdict,
            uncertainty_px=None if self.uncertainty_px is None else round(self.uncertainty_px, 3),
            reason=self.estimate.reason,
            cached=[self.a.cached, self.b.cached],
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
        )


def match(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    config: MatchConfig | None = None,
    *,
    cache: Cache | None = None,
    **options: Any,
) -> MatchResult:
    """Match two picture files.

    config, or the fields of `MatchConfig` as keywords: match("a.jpg", "b.jpg", detector="orb"). cache: the user's own
    if None. Raises InputError for a picture that cannot be read and UsageError for options that make no sense; no
    resemblance is a result, with verdict "none".
    """
    if config is not None and options:
        raise UsageError("give either a config or single options, not both")
    config = config or match_config(**options)
    for outcome in match_pairs([(os.fspath(a), os.fspath(b))], config, cache=cache):
        if isinstance(outcome, FeatkitError):
            raise outcome
        return outcome
    raise AssertionError("a pair has an outcome")


def match_config(**options: Any) -> MatchConfig:
    """A `MatchConfig` from keywords; UsageError names an unknown one."""
    known = [each.name for each in fields(MatchConfig)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}", hint=f"there are: {', '.join(known)}")
    return MatchConfig(**options)


def match_pairs(
    pairs: Sequence[tuple[str, str]],
    config: MatchConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    keep_pixels: bool = False,
) -> Generator[MatchResult | FeatkitError, None, None]:
    """Match pairs of picture files, yielding results in the order of the pairs whatever the number of workers.

    Each picture is read and described once. One that cannot be read yields its error, once, and its pairs are left out.
    jobs: worker threads, None for one a processor. cache: the user's own if None. keep_pixels: leave decoded pixels in
    the results, for drawing.
    """
    config = config or MatchConfig()
    cache = open_cache() if cache is None else cache
    workers = usable_processors() if jobs is None else jobs
    if workers < 1:
        raise UsageError("--jobs must be at least 1")
    # One thread a matrix product: the pairs run side by side, and the sums do not depend on the machine's processors.
    with threadpool_limits(1, user_api="blas"), _Workshop(config, cache, workers, keep_pixels) as workshop:
        yield from workshop.outcomes(pairs)


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def extract(path: str, config: MatchConfig, cache: Cache, *, keep_pixels: bool = False) -> Extracted:
    """Read and describe one picture, or take its features from the cache; InputError where it cannot be read."""
    start = time.perf_counter()
    data = images.read_bytes(path)
    digest = sha256(data).hexdigest()
    key = make_key(
        content=[digest],
        operation="local-features",
        version=local_features.VERSION,
        config=_detection_key(config),
        libraries={"opencv": cv2.__version__},
    )
    stored = cache.get(key)
    pixels = None
    if stored is not None:
        found = Features.from_arrays(stored)
    else:
        pixels = images.decode(data, config.decode, path=path)
        found = detect(pixels, config.detection)
        cache.put(key, found.to_arrays())
    focal_px = images.focal_length_px(data)
    seconds = time.perf_counter() - start
    return Extracted(path, digest, found, focal_px, stored is not None, seconds, pixels if keep_pixels else None)


def match_extracted(a: Extracted, b: Extracted, config: MatchConfig, cache: Cache) -> MatchResult:
    """Match two pictures' features and estimate their geometry."""
    start = time.perf_counter()
    key = make_key(
        content=[a.sha256, b.sha256],
        operation="local-matches",
        version=matching.VERSION,
        config={**_detection_key(config), "features": local_features.VERSION, "matching": asdict(config.matching)},
        libraries={"opencv": cv2.__version__},
    )
    stored = cache.get(key)
    if stored is not None:
        matches = Matches(stored["indices"], stored["score"])
    else:
        matches = match_features(a.features, b.features, config.matching)
        cache.put(key, {"indices": matches.indices, "score": matches.score})
    matched = time.perf_counter()
    estimated = estimate(a.features, b.features, matches, config.geometry)
    seconds = {
        "extract": a.seconds + b.seconds,
        "match": matched - start,
        "estimate": time.perf_counter() - matched,
    }
    return MatchResult(a, b, config, matches, estimated, seconds)


def _detection_key(config: MatchConfig) -> dict[str, Any]:
    detection = config.detection
    return {
        "detector": detection.detector,
        "keypoint_limit": detection.keypoint_limit,
        "max_side": detection.max_side,
        "decode": asdict(config.decode),
    }


class _Workshop:
    """Threads that extract each picture once, just before its first pair, and match pairs in order.

    Extraction is queued ahead of the pairs that wait for it, and the queue is first in, first out: a waiting pair
    always waits for work that has begun, so one pool suffices.
    """

    def __init__(self, config: MatchConfig, cache: Cache, workers: int, keep_pixels: bool) -> None:
        self._config = config
        self._keep_pixels = keep_pixels
        self._cache = cache
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="featkit")
        self._ahead = _PAIRS_AHEAD_PER_WORKER * workers
        self._extracted: dict[str, Future[Extracted]] = {}
        self._reported: set[str] = set()

    def __enter__(self) -> _Workshop:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def outcomes(self, pairs: Iterable[tuple[str, str]]) -> Iterator[MatchResult | FeatkitError]:
        pairs = list(pairs)
        uses = Counter(path for pair in pairs for path in pair)
        waiting: deque[tuple[tuple[str, str], Future[MatchResult]]] = deque()
        upcoming = iter(pairs)
        while True:
            while len(waiting) < self._ahead and (pair := next(upcoming, None)) is not None:
                waiting.append((pair, self._submit(pair)))
            if not waiting:
                return
            pair, future = waiting.popleft()
            try:
                yield future.result()
            except FeatkitError:
                yield from self._unreported(pair)
            for path in pair:
                uses[path] -= 1
                if not uses[path] and path not in self._reported:
                    self._extracted.pop(path, None)

    def _submit(self, pair: tuple[str, str]) -> Future[MatchResult]:
        for path in pair:
            if path not in self._extracted:
                self._extracted[path] = self._pool.submit(
                    extract, path, self._config, self._cache, keep_pixels=self._keep_pixels
                )
        return self._pool.submit(self._match, *(self._extracted[path] for path in pair))

    def _match(self, a: Future[Extracted], b: Future[Extracted]) -> MatchResult:
        return match_extracted(a.result(), b.result(), self._config, self._cache)

    def _unreported(self, pair: tuple[str, str]) -> Iterator[FeatkitError]:
        for path in dict.fromkeys(pair):
            error = self._extracted[path].exception()
            if isinstance(error, FeatkitError) and path not in self._reported:
                self._reported.add(path)
                yield error
