"""Pictures in, matches and geometries out: features once a picture, matches once a pair, both kept in the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from featkit import images
from featkit.cache import Cache, make_key, open_cache
from featkit.configs import given
from featkit.errors import DependencyError, FeatkitError, FileUnreadable
from featkit.local import features as local_features
from featkit.local import matching, second_look
from featkit.local.config import MatchConfig
from featkit.local.describing import describe, detection_key
from featkit.local.geometry import (
    Hypothesis,
    conclude,
    hypothesise,
    matched_places,
    symmetric_distance,
)
from featkit.local.matching import Matches, match_features
from featkit.local.recent import Recent
from featkit.local.results import Attempt, Extracted, MatchResult
from featkit.local.second_look import SecondLook, look_again
from featkit.local.subjects import Mask, Region, Subject, Where, as_subject, read_where
from featkit.local.verdict import NONE, RELIABLE
from featkit.local.workshop import Workshop
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.torch_threads import one_thread_each

Picture = str | os.PathLike[str] | Subject

# Of features that later pairs need: of 50 large photos, or of 500 small ones. To read them again from the cache takes a
# hundredth of the time of a pair; where there is no cache they are found again, which takes as long as a pair.
_FEATURES_HELD_BYTES = 64 << 20
_FEATURES_HELD_WITHOUT_CACHE_BYTES = 256 << 20
# Of decoded pictures, grey, for a second look, and of the features of stronger detectors.
_RECENT_BYTES = 128 << 20

# How many matches must agree before a hypothesis is looked at again. Among 413 pairs of unrelated photos one in three
# has 5, and one has 6; of photos taken 70° apart some have 4.
_FEWEST_FOR_SECOND_LOOK = {"fast": 6, "normal": 6, "wide": 4}


def match(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    config: MatchConfig | None = None,
    *,
    mask_a: str | os.PathLike[str] | None = None,
    mask_b: str | os.PathLike[str] | None = None,
    region_a: Region | None = None,
    region_b: Region | None = None,
    cache: Cache | None = None,
    **options: Any,
) -> MatchResult:
    """Match two picture files.

    config, or the fields of `MatchConfig` as keywords: match("a.jpg", "b.jpg", detector="orb"). mask_a, mask_b: picture
    files that are white where to look. region_a, region_b: x, y, width, height of where to look; see `Subject`. cache:
    the user's own if None. Raises InputError for a picture or mask that cannot be read and UsageError for options that
    make no sense; no resemblance is a result, with verdict "none".
    """
    config = given(config, MatchConfig, options)
    pair = (
        Subject(os.fspath(a), None if mask_a is None else os.fspath(mask_a), region_a),
        Subject(os.fspath(b), None if mask_b is None else os.fspath(mask_b), region_b),
    )
    for outcome in match_pairs([pair], config, cache=cache):
        if isinstance(outcome, FeatkitError):
            raise outcome
        return outcome
    raise AssertionError("a pair has an outcome")


def match_pairs(
    pairs: Iterable[tuple[Picture, Picture]],
    config: MatchConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    keep_pixels: bool = False,
) -> Generator[MatchResult | FeatkitError, None, None]:
    """Match pairs of picture files, yielding results in the order of the pairs whatever the number of workers.

    Of a picture that is a `Subject` only a part may be looked at.

    pairs may be millions: they are read as they are needed. Each picture is read and described once, as long as memory
    allows: 64 MB of features are kept for later pairs, 256 MB without a cache; for second looks 128 MB of grey
    pictures, and others are decoded again. One that cannot be read yields its error, once, and its pairs are left out.
    jobs: worker threads, None for one a processor. cache: the user's own if None. keep_pixels: leave decoded pixels in
    the results, for drawing.
    """
    config = config or MatchConfig()
    cache = open_cache() if cache is None else cache
    workers = threads(jobs)
    # One thread a matrix product: the pairs run side by side, and the sums do not depend on the machine's processors.
    matcher = Matcher(config, cache, keep_pixels=keep_pixels)
    held_bytes = _FEATURES_HELD_WITHOUT_CACHE_BYTES if cache.folder is None else _FEATURES_HELD_BYTES
    with (
        threadpool_limits(1, user_api="blas"),
        one_thread_each(),
        Workshop(matcher.extract, matcher.match, workers, held_bytes) as workshop,
    ):
        yield from workshop.outcomes((as_subject(a), as_subject(b)) for a, b in pairs)


class Matcher:
    """What is done with each picture and each pair of a run; its methods may be called from several threads."""

    def __init__(
        self, config: MatchConfig, cache: Cache, *, keep_pixels: bool = False, recent: Recent | None = None
    ) -> None:
        """keep_pixels: leave decoded pixels in what `extract` returns. recent: what stays in memory."""
        self._config = config
        self._cache = cache
        self._keep_pixels = keep_pixels
        self._recent = Recent(_RECENT_BYTES) if recent is None else recent

    def extract(self, subject: Subject) -> Extracted:
        """Read and describe one picture, or take its features from the cache; InputError where it, or its mask, cannot
        be read."""
        start = time.perf_counter()
        data = images.read_bytes(subject.path)
        where = read_where(subject, self._config.decode)
        digest = sha256(data).hexdigest()
        content = _content(digest, where)
        found, pixels = describe(
            data, content, self._config.detection, self._config.decode, self._cache, path=subject.path, where=where
        )
        if pixels is not None and self._config.looks_again:
            self._keep_gray(digest, pixels)
        focal_px = images.focal_length_px(data)
        return Extracted(
            subject=subject,
            sha256=digest,
            content=content,
            features=found,
            focal_px=focal_px,
            cached=pixels is None,
            seconds=time.perf_counter() - start,
            pixels=pixels if self._keep_pixels else None,
        )

    def match(self, a: Extracted, b: Extracted) -> MatchResult:
        """Match two pictures' features and estimate their geometry; with effort "wide" by stronger and stronger
        detectors, until the verdict is reliable."""
        result = self._attempt(a, b)
        for detector in self._config.stronger_detectors:
            if result.verdict == RELIABLE:
                break
            stronger = Matcher(
                replace(self._config, detector=detector),
                self._cache,
                keep_pixels=self._keep_pixels,
                recent=self._recent,
            )
            try:
                result = result.or_better(stronger._attempt(stronger._described(a), stronger._described(b)))
            except DependencyError as error:
                # Installed, but broken: what was found without it stands.
                unused = Attempt(detector, (0, 0), 0, 0, NONE, "it could not be used", None, error.message)
                result = replace(result, attempts=(*result.attempts, unused))
        return result

    def _described(self, picture: Extracted) -> Extracted:
        key = picture.content, self._config.detection
        described: Extracted | None = self._recent.get(key)
        if described is None:
            described = self.extract(picture.subject)
            if described.content != picture.content:
                raise _changed(picture)
            self._recent.put(key, described, described.nbytes)
        return replace(described, subject=picture.subject, seconds=0.0 if described.cached else described.seconds)

    def _attempt(self, a: Extracted, b: Extracted) -> MatchResult:
        start = time.perf_counter()
        matches = self._matches(a, b)
        matched = time.perf_counter()
        geometry = self._config.geometry
        hypothesis = hypothesise(a.features, b.features, matches, geometry)
        supposed = time.perf_counter()
        confirmation = None
        if self._config.looks_again and self._is_promising(a, b, matches, hypothesis):
            look = self._second_look(a, b, hypothesis)
            confirmation = look.confirmation
            if look.matrix is not None:
                hypothesis = replace(hypothesis, matrix=look.matrix, uncertainty_px=look.uncertainty_px)
        looked = time.perf_counter()
        estimate = conclude(a.features, b.features, matches, hypothesis, geometry, confirmation)
        attempt = Attempt(
            detector=self._config.detector,
            keypoints=(len(a.features), len(b.features)),
            matches=len(matches),
            inliers=int(estimate.inliers.sum()),
            verdict=estimate.verdict,
            reason=estimate.reason,
            second_look=confirmation,
        )
        seconds = {
            "extract": a.seconds + b.seconds,
            "match": matched - start,
            "estimate": supposed - matched + time.perf_counter() - looked,
            "second_look": looked - supposed,
        }
        return MatchResult(a, b, self._config, matches, estimate, (attempt,), seconds)

    def _matches(self, a: Extracted, b: Extracted) -> Matches:
        key = make_key(
            content=[a.content, b.content],
            operation="local-matches",
            version=matching.VERSION,
            config={
                **self._detection_key(),
                "features": local_features.VERSION,
                "matching": asdict(self._config.matching),
                "weights": matching.matcher_digest(self._config.detector),
            },
            libraries={"opencv": cv2.__version__},
        )
        stored = self._cache.get(key)
        if stored is not None:
            return Matches(stored["indices"], stored["score"])
        matches = match_features(a.features, b.features, self._config.matching)
        self._cache.put(key, {"indices": matches.indices, "score": matches.score})
        return matches

    def _detection_key(self) -> dict[str, Any]:
        return detection_key(self._config.detection, self._config.decode)

    def _is_promising(self, a: Extracted, b: Extracted, matches: Matches, hypothesis: Hypothesis) -> bool:
        if hypothesis.matrix is None:
            return False
        xy_a, xy_b = (places[hypothesis.distinct] for places in matched_places(a.features, b.features, matches))
        agreeing = symmetric_distance(hypothesis.matrix, xy_a, xy_b) <= self._config.threshold
        return int(agreeing.sum()) >= _FEWEST_FOR_SECOND_LOOK[self._config.effort]

    def _second_look(self, a: Extracted, b: Extracted, hypothesis: Hypothesis) -> SecondLook:
        matrix = hypothesis.matrix
        assert matrix is not None
        key = make_key(
            content=[a.content, b.content],
            operation="second-look",
            version=second_look.VERSION,
            config={
                "decode": asdict(self._config.decode),
                "max_side": self._config.max_side,
                "detection": detection_key(self._config.detection, self._config.decode)
                if b.features.detector == "sift"
                else None,
                "features": local_features.VERSION,
                "geometry": asdict(self._config.geometry),
                "matrix": matrix.tolist(),
            },
            libraries={"opencv": cv2.__version__},
        )
        stored = self._cache.get(key)
        if stored is not None:
            return SecondLook.from_arrays(stored)
        (gray_a, mask_a), (gray_b, mask_b) = (self._gray(picture) for picture in (a, b))
        look = look_again(
            gray_a,
            gray_b,
            matrix,
            self._config.geometry,
            max_side=self._config.max_side,
            features_b=b.features,
            mask_a=mask_a,
            mask_b=mask_b,
        )
        self._cache.put(key, look.to_arrays())
        return look

    def _gray(self, picture: Extracted) -> tuple[npt.NDArray[np.uint8], Mask | None]:
        """Decoded once more where it is no longer in memory."""
        gray = self._recent.get((picture.sha256, self._config.decode))
        if gray is None:
            loaded = images.load(picture.path, self._config.decode)
            if loaded.sha256 != picture.sha256:
                raise _changed(picture)
            gray = self._keep_gray(picture.sha256, loaded.pixels)
        where = read_where(picture.subject, self._config.decode)
        if _content(picture.sha256, where) != picture.content:
            raise _changed(picture)
        return gray, where.mask(images.size_of(gray))

    def _keep_gray(self, digest: str, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        gray = images.to_gray(pixels)
        self._recent.put((digest, self._config.decode), gray, gray.nbytes)
        return gray


def _content(digest: str, where: Where) -> str:
    """What tells one picture, looked at in one place, from any other."""
    return f"{digest}+{where.digest}" if where.digest else digest


def _changed(picture: Extracted) -> FileUnreadable:
    return FileUnreadable("it was changed while featkit was at work", path=picture.path, hint="run it again")
