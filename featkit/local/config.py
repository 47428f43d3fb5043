"""Everything that decides what `match` finds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from featkit.errors import DependencyError, UsageError
from featkit.images import DecodeOptions
from featkit.local import learned
from featkit.local.features import DetectorConfig
from featkit.local.geometry import MINIMAL_SAMPLE, GeometryConfig
from featkit.local.matching import MatcherConfig

EFFORTS = ("fast", "normal", "wide")
# Others take ten times as long, or more, as a second look, and need it: affine views mistake one square of a chessboard
# for another, and LightGlue leaves no match that would show a texture to repeat.
_FAST_DETECTORS = ("sift", "orb")


@dataclass(frozen=True)
class MatchConfig:
    """Everything that decides what `match` finds; see the parts for the meaning of each field.

    effort: "fast" looks once. "normal" warps a onto b by what it found and looks again, for a homography or affinity;
    with detectors beside which that costs nothing "fast" does so, too. "wide" does so for weaker findings, and where
    the verdict is not reliable it looks with stronger detectors.
    """

    effort: str = "normal"
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
        if self.effort not in EFFORTS:
            raise UsageError(f"there is no effort {self.effort!r}", hint=f"choose one of: {', '.join(EFFORTS)}")
        for part in (DetectorConfig, MatcherConfig, GeometryConfig):
            self._part(part)
        needed = MINIMAL_SAMPLE.get(self.model, 1)
        if self.max_keypoints is not None and self.max_keypoints < needed:
            raise UsageError(
                f"--max-keypoints {self.max_keypoints} cannot fix a {self.model} model, which takes {needed} matches",
                hint="thousands of keypoints are usual; leave --max-keypoints out for the default",
            )

    @property
    def looks_again(self) -> bool:
        """Whether a transformation that was found is improved by a second look."""
        once = self.effort == "fast" and self.detector in _FAST_DETECTORS
        return not once and self.model in ("homography", "affine")

    @property
    def stronger_detectors(self) -> tuple[str, ...]:
        """What is tried, in this order, where the verdict is not reliable."""
        if self.effort != "wide" or self.model == "none":
            return ()
        stronger = ["affine-sift", "aliked"]
        try:
            learned.require("aliked")
        except DependencyError:
            stronger.remove("aliked")
        return tuple(detector for detector in stronger if detector != self.detector)

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
