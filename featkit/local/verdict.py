"""Whether an estimated geometry deserves to be believed, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

RELIABLE = "reliable"
DOUBTFUL = "doubtful"
NONE = "none"

_FEWEST_FOR_DOUBT = 8
_FEWEST_FOR_TRUST = 12
_LEAST_DEPTH = 0.02
_LARGEST_AREA_SCALE = 400.0
# Of the diagonal of picture b, and its bounds in pixels.
_UNCERTAINTY_SHARE = 0.003
_UNCERTAINTY_RANGE = (3.0, 8.0)
_EPIPOLAR_CHANCE = 0.1
_LEAST_SPREAD = 0.08


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against an estimate.

    matrix: float64 3×3. xy_a, xy_b: float64 M×2 pixels, one-to-one tentative matches; inliers: bool M.
    size_a, size_b: (width, height). uncertainty_px: expected corner error in b, or None.
    """

    model: str
    matrix: npt.NDArray[np.floating]
    xy_a: npt.NDArray[np.floating]
    xy_b: npt.NDArray[np.floating]
    inliers: npt.NDArray[np.bool_]
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    uncertainty_px: float | None

    @cached_property
    def agreeing(self) -> int:
        return int(self.inliers.sum())

    @cached_property
    def spread(self) -> float:
        """Share of the cells of an 8×8 grid that inliers occupy, 0..1, in the picture where it is smaller."""
        shares = []
        for points, (width, height) in ((self.xy_a, self.size_a), (self.xy_b, self.size_b)):
            cells = np.floor(np.clip((points[self.inliers] + 0.5) / (width, height), 0, 0.999) * 8).astype(int)
            shares.append(len(np.unique(cells @ [8, 1])) / 64)
        return float(min(shares))

    @cached_property
    def corner_depths(self) -> npt.NDArray[np.floating]:
        """Homogeneous depth of a's corners over that of the inliers' centre: 1 everywhere for an affinity."""
        width, height = self.size_a
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
        centre = self.xy_a[self.inliers].mean(0)
        return np.asarray(
            (corners @ self.matrix[2, :2] + self.matrix[2, 2]) / (centre @ self.matrix[2, :2] + self.matrix[2, 2])
        )

    @cached_property
    def area_scale(self) -> float:
        """Area in b per area in a at the inliers' centre; negative for a mirror image."""
        centre = self.xy_a[self.inliers].mean(0)
        depth = centre @ self.matrix[2, :2] + self.matrix[2, 2]
        return float(np.linalg.det(self.matrix) / depth**3)


def judge(evidence: Evidence) -> tuple[str, str]:
    """The verdict and its reason, a sentence for people.

    Unrelated photos and failed wide baselines end with up to 9 agreeing matches (SIFT) or 17 (ORB, in one corner);
    right answers that few matches carry are as good as all wide-spread. tests/bench/verdicts.py shows both populations.
    """
    count = f"{evidence.agreeing} of {len(evidence.inliers)} matches agree"
    if evidence.agreeing < _FEWEST_FOR_DOUBT:
        return NONE, f"{count}: no more than chance gives"
    if evidence.model == "fundamental":
        return _judge_epipolar(evidence, count)
    if evidence.area_scale < 0:
        return NONE, f"{count}, on a mirror image, which no camera makes"
    if evidence.corner_depths.min() < _LEAST_DEPTH:
        return _distrust(evidence), f"{count}, but the transformation folds the picture at its horizon"
    if not 1 / _LARGEST_AREA_SCALE < evidence.area_scale < _LARGEST_AREA_SCALE:
        return _distrust(evidence), f"{count}, but at an extreme change of scale"
    if evidence.uncertainty_px is None:
        return _distrust(evidence), f"{count}, too few or too close together to fix the transformation"
    if evidence.agreeing < _FEWEST_FOR_TRUST:
        return DOUBTFUL, f"{count}: few, though more than chance gives"
    if evidence.uncertainty_px > uncertainty_limit(evidence.size_b):
        return DOUBTFUL, f"{count}, but leave the corners uncertain by {evidence.uncertainty_px:.1f} pixels"
    return RELIABLE, f"{count}"


def uncertainty_limit(size_b: tuple[int, int]) -> float:
    """Largest expected corner error, pixels, of a reliable transformation into a (width, height) picture."""
    return float(np.clip(_UNCERTAINTY_SHARE * np.hypot(*size_b), *_UNCERTAINTY_RANGE))


def _distrust(evidence: Evidence) -> str:
    return DOUBTFUL if evidence.agreeing >= _FEWEST_FOR_TRUST else NONE


def _judge_epipolar(evidence: Evidence, count: str) -> tuple[str, str]:
    # A point meets a random epipolar line far more often than a random point, so chance alone gives a share of all.
    expected = _EPIPOLAR_CHANCE * len(evidence.inliers)
    if evidence.agreeing < _FEWEST_FOR_DOUBT + expected:
        return NONE, f"{count}: no more than chance gives"
    if evidence.agreeing < 2 * _FEWEST_FOR_TRUST + 2 * expected:
        return DOUBTFUL, f"{count}: few, though more than chance gives"
    if evidence.spread < _LEAST_SPREAD:
        return DOUBTFUL, f"{count}, but only in one small place"
    return RELIABLE, count
