"""What is found of a picture and of a pair of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.local.config import MatchConfig
from featkit.local.features import Features
from featkit.local.geometry import Estimate
from featkit.local.matching import Matches
from featkit.local.subjects import Subject
from featkit.local.verdict import DOUBTFUL, NONE, RELIABLE, Confirmation
from featkit.records import record

_VERDICTS_BY_RANK = (NONE, DOUBTFUL, RELIABLE)


@dataclass(frozen=True)
class Extracted:
    """The features of one picture. sha256: of the file's bytes; content: of those and of where they were looked at.
    focal_px: from EXIF, or None. seconds: what it took. pixels: uint8 H×W×3 RGB, where they were decoded and are to be
    kept."""

    subject: Subject
    sha256: str
    content: str
    features: Features
    focal_px: float | None
    cached: bool
    seconds: float
    pixels: npt.NDArray[np.uint8] | None = None

    @property
    def path(self) -> str:
        return self.subject.path

    @property
    def nbytes(self) -> int:
        """Of memory."""
        features = sum(array.nbytes for array in self.features.to_arrays().values())
        return features + (0 if self.pixels is None else self.pixels.nbytes)


@dataclass(frozen=True)
class Attempt:
    """What one detector made of a pair. second_look: what was found by looking again, None where there was nothing to
    look at again. error: why a stronger detector could not be used, None where it could."""

    detector: str
    keypoints: tuple[int, int]
    matches: int
    inliers: int
    verdict: str
    reason: str
    second_look: Confirmation | None
    error: str | None = None

    def record(self) -> dict[str, Any]:
        """As it stands in the `match` record."""
        said = asdict(self)
        said["keypoints"] = list(self.keypoints)
        if self.second_look is not None:
            for name in ("correlation", "alike", "echo"):
                said["second_look"][name] = round(said["second_look"][name], 3)
        return said


@dataclass(frozen=True)
class MatchResult:
    """What ties picture a to picture b.

    matches: tentative ones; estimate.inliers (bool M) says which of them the geometry confirms. attempts: all that was
    tried, in order; the rest is of the best of them.
    """

    a: Extracted
    b: Extracted
    config: MatchConfig
    matches: Matches
    estimate: Estimate
    attempts: tuple[Attempt, ...]
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

    @property
    def bound_px(self) -> float | None:
        """Pixels of b that the mean error of a's corners stays below in 95 of 100 pairs; None where it is unknown."""
        return self.estimate.bound_px

    def or_better(self, other: MatchResult) -> MatchResult:
        """The one with the better verdict, or with the smaller uncertainty if they are as good; with what was tried
        for both."""
        chosen = min(self, other, key=MatchResult._rank)
        seconds = {name: self.seconds[name] + other.seconds[name] for name in self.seconds}
        return replace(chosen, attempts=self.attempts + other.attempts, seconds=seconds)

    def _rank(self) -> tuple[int, float]:
        return -_VERDICTS_BY_RANK.index(self.verdict), np.inf if self.uncertainty_px is None else self.uncertainty_px

    def record(self) -> dict[str, Any]:
        """The `match` record."""
        return record(
            "match",
            a=self.a.path,
            b=self.b.path,
            **self._where(),
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
            bound_px=None if self.bound_px is None else round(self.bound_px, 3),
            reason=self.estimate.reason,
            effort=self.config.effort,
            attempts=[attempt.record() for attempt in self.attempts],
            cached=[self.a.cached, self.b.cached],
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
        )

    def _where(self) -> dict[str, Any]:
        """What a record says of masks and regions, where there are any."""
        subjects = {"a": self.a.subject, "b": self.b.subject}
        said = {f"mask_{name}": subject.mask for name, subject in subjects.items() if subject.mask is not None}
        regions = {f"region_{name}": list(subject.region) for name, subject in subjects.items() if subject.region}
        return {**said, **regions}
