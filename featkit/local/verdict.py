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
# ORB finds the corner of a drawing at every level; right answers have 14 inliers this far apart, or more.
_APART_PX = 8.0
_LEAST_DEPTH = 0.02
_LARGEST_AREA_SCALE = 400.0
# Of the diagonal of picture b, and its bounds in pixels.
_UNCERTAINTY_SHARE = 0.0025
_UNCERTAINTY_RANGE = (2.5, 8.0)
# Of a second look. Wrong transformations, of which 391 between unrelated photos were followed up, reach .14 in
# correlation, and .55 in agreement where there are few matches; right ones begin at .6 and .6.
_LEAST_AGREEMENT = 0.4
_FEWEST_PATCHES = 20
_LEAST_CORRELATION = 0.4
# Of the comparison of both pictures as a whole, by tests/bench/degenerate.py: right answers are alike in .77 of their
# blocks or more, overlays (logo, frame, watermark) on unrelated photos in .56 or less, chance in .3. Repeated texture
# has an echo of .94 or more, text .85 or less, photos .6.
_FEWEST_BLOCKS = 4
_LEAST_ALIKE = 0.65
_HARDLY_ALIKE = 0.35
_OVERLAY_MATCHES = 24
_LARGEST_ECHO = 0.9
_EPIPOLAR_CHANCE = 0.05
_LEAST_SPREAD = 0.08
_LEAST_THICKNESS = 0.01
# Repeated texture: others that agree on one and the same shift, as a share of the inliers, and how well they mix with
# those. Measured on views of tilings, flat and in perspective: at least .41 and .16 in 154 of 156 wrong answers; right
# ones stay below .4 except on nearly perfect tilings, as do warps of photos. A second surface exceeds 1, but mixes by
# .1 at most (photos of a castle).
_LARGEST_RIVAL_SHARE = 0.4
_LARGEST_RIVAL_MIXING = 0.15
_RIVAL_SHIFT_PX = 8.0
_RIVAL_CELL_PX = 4.0
_RIVAL_TOLERANCE_PX = 3.0
_RIVAL_STEPS = 4
_RIVAL_NEIGHBOURS = 5
_RIVALS_ASKED = 200
_LARGEST_SHIFT_PX = 1e6


@dataclass(frozen=True)
class Confirmation:
    """What a second look found where a transformation lays a on b.

    matches: keypoints matched within a few pixels, one to one; agreeing: how many of them the transformation explains.
    patches: how many textured patches were compared; correlation: their median correlation, -1..1, 0 without patches.
    alike: share of the blocks of the overlap that look alike, 0..1; blocks: how many have texture; echo: how well the
    overlap would also fit at another shift, 0..1 (see agreement.py).
    """

    matches: int
    agreeing: int
    patches: int
    correlation: float
    alike: float
    blocks: int
    echo: float

    @property
    def improves(self) -> bool:
        """Whether enough was found to move the transformation by."""
        return self.agreeing >= _FEWEST_FOR_TRUST and self.agreeing >= _LEAST_AGREEMENT * self.matches

    @property
    def proves(self) -> bool:
        """Whether this is more than any wrong transformation shows."""
        return (
            self.improves
            and self.patches >= _FEWEST_PATCHES
            and self.correlation >= _LEAST_CORRELATION
            and not self.differs
        )

    @property
    def differs(self) -> bool:
        """Whether part of what both pictures show does not look alike."""
        return self.blocks >= _FEWEST_BLOCKS and self.alike < _LEAST_ALIKE

    @property
    def differs_nearly_everywhere(self) -> bool:
        return self.blocks >= _FEWEST_BLOCKS and self.alike < _HARDLY_ALIKE

    @property
    def repeats(self) -> bool:
        """Whether the pictures would fit as well one period aside."""
        return self.blocks >= _FEWEST_BLOCKS and self.echo > _LARGEST_ECHO


NOTHING_FOUND = Confirmation(matches=0, agreeing=0, patches=0, correlation=0.0, alike=0.0, blocks=0, echo=0.0)


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against an estimate.

    matrix: float64 3×3. xy_a, xy_b: float64 M×2 pixels, one-to-one tentative matches; inliers: bool M.
    size_a, size_b: (width, height). uncertainty_px: expected corner error in b, or None. confirmation: of a second
    look, if there was one.
    """

    model: str
    matrix: npt.NDArray[np.floating]
    xy_a: npt.NDArray[np.floating]
    xy_b: npt.NDArray[np.floating]
    inliers: npt.NDArray[np.bool_]
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    uncertainty_px: float | None
    confirmation: Confirmation | None = None

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
    def places(self) -> int:
        """How many inliers lie apart from each other in both pictures, as far as trust asks: a detector may find one
        place many times over."""
        places = np.zeros((0, 2, 2))
        for pair in np.stack([self.xy_a, self.xy_b], 1)[self.inliers]:
            if (np.linalg.norm(places - pair, axis=2) > _APART_PX).all():
                places = np.append(places, pair[None], axis=0)
            if len(places) == _FEWEST_FOR_TRUST:
                break
        return len(places)

    @cached_property
    def thickness(self) -> float:
        """How far inliers lie from one line, root mean square as a share of the diagonal, in the picture where it is
        less."""
        shares = []
        for points, size in ((self.xy_a, self.size_a), (self.xy_b, self.size_b)):
            across = np.linalg.svd(points[self.inliers] - points[self.inliers].mean(0), compute_uv=False)[-1]
            shares.append(across / np.sqrt(self.agreeing) / np.hypot(*size))
        return float(min(shares))

    @cached_property
    def centre(self) -> npt.NDArray[np.floating]:
        """Of the inliers in a; of a itself where a second look moved away from all of them."""
        if not self.agreeing:
            return (np.array(self.size_a) - 1) / 2
        return np.asarray(self.xy_a[self.inliers].mean(0))

    @cached_property
    def corner_depths(self) -> npt.NDArray[np.floating]:
        """Homogeneous depth of a's corners over that of the inliers' centre: 1 everywhere for an affinity."""
        width, height = self.size_a
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
        centre_depth = self.centre @ self.matrix[2, :2] + self.matrix[2, 2]
        return np.asarray((corners @ self.matrix[2, :2] + self.matrix[2, 2]) / centre_depth)

    @cached_property
    def area_scale(self) -> float:
        """Area in b per area in a at the inliers' centre; negative for a mirror image."""
        depth = self.centre @ self.matrix[2, :2] + self.matrix[2, 2]
        return float(np.linalg.det(self.matrix) / depth**3)

    @cached_property
    def rivals(self) -> npt.NDArray[np.int64]:
        """Which other matches agree on one shift of the transformation, in a or in b: the most there are."""
        others = np.flatnonzero(~self.inliers)
        xy_a, xy_b = self.xy_a[others], self.xy_b[others]
        in_b = _agreeing_on_a_shift(_mapped(self.matrix, xy_a), xy_b)
        in_a = _agreeing_on_a_shift(_mapped(np.linalg.inv(self.matrix), xy_b), xy_a)
        return np.asarray(others[max(in_a, in_b, key=len)])

    @cached_property
    def rival_mixing(self) -> float:
        """How far rivals stand among inliers, in the picture where they do so less: 0 keeps apart, 1 is at random."""
        sample = self.rivals[:: -(-len(self.rivals) // _RIVALS_ASKED)]
        crowd = np.append(np.flatnonzero(self.inliers), self.rivals)
        nearest = []
        for points in (self.xy_a, self.xy_b):
            distance = np.linalg.norm(points[sample, None] - points[crowd], axis=2)
            distance[distance < 1e-6] = np.inf
            neighbours = np.argpartition(distance, _RIVAL_NEIGHBOURS, axis=1)[:, :_RIVAL_NEIGHBOURS]
            nearest.append(float((neighbours < self.agreeing).mean()))
        return min(nearest) / (self.agreeing / (len(crowd) - 1))


def judge(evidence: Evidence) -> tuple[str, str]:
    """The verdict and its reason, a sentence for people.

    Unrelated photos and failed wide baselines end with up to 9 agreeing matches (SIFT) or 17 (ORB, in one corner);
    right answers that few matches carry are as good as all wide-spread. A second look tells the two apart where the
    count does not: tests/bench/verdicts.py shows both populations.
    """
    count = f"{evidence.agreeing} of {len(evidence.inliers)} distinct matches agree"
    look = evidence.confirmation
    proven = look is not None and look.proves
    if proven and look is not None:
        count += f", and {look.agreeing} of {look.matches} at a second look"
    uncertain = evidence.uncertainty_px is None or evidence.uncertainty_px > uncertainty_limit(evidence.size_b)
    if evidence.agreeing < _FEWEST_FOR_DOUBT and not proven:
        return NONE, f"{count}: no more than chance gives"
    if evidence.model == "fundamental":
        return _judge_epipolar(evidence, count)
    if evidence.area_scale < 0:
        return NONE, f"{count}, on a mirror image, which no camera makes"
    if look is not None and look.differs_nearly_everywhere and (uncertain or evidence.agreeing < _OVERLAY_MATCHES):
        return NONE, f"{count}, but what lies between them looks different"
    if evidence.corner_depths.min() < _LEAST_DEPTH:
        return _distrust(evidence), f"{count}, but the transformation folds the picture at its horizon"
    if not 1 / _LARGEST_AREA_SCALE < evidence.area_scale < _LARGEST_AREA_SCALE:
        return _distrust(evidence), f"{count}, but at an extreme change of scale"
    if evidence.uncertainty_px is None:
        return _distrust(evidence), f"{count}, too few or too close together to fix the transformation"
    if evidence.agreeing < _FEWEST_FOR_TRUST and not proven:
        return DOUBTFUL, f"{count}: few, though more than chance gives"
    if evidence.places < _FEWEST_FOR_TRUST and not proven:
        return DOUBTFUL, f"{count}, but only in {evidence.places} places"
    if uncertain:
        return DOUBTFUL, f"{count}, but leave the corners uncertain by {evidence.uncertainty_px:.1f} pixels"
    if look is not None and look.differs:
        share = f"only {look.alike:.0%} of what both pictures show looks alike"
        return DOUBTFUL, f"{count}, but {share}: a logo or frame, or a scene with depth"
    if look is not None and look.repeats:
        return DOUBTFUL, f"{count}, but it would fit as well one period aside: the texture repeats"
    if _is_repeated(evidence):
        return DOUBTFUL, f"{count}, but {len(evidence.rivals)} agree on the same, shifted: the texture repeats"
    return RELIABLE, count


def uncertainty_limit(size_b: tuple[int, int]) -> float:
    """Largest expected corner error, pixels, of a reliable transformation into a (width, height) picture."""
    return float(np.clip(_UNCERTAINTY_SHARE * np.hypot(*size_b), *_UNCERTAINTY_RANGE))


def _mapped(matrix: npt.NDArray[np.floating], points: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _agreeing_on_a_shift(expected: npt.NDArray[np.floating], found: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Which of N×2 points, pixels, were found as far from where they were expected as most others were."""
    length = np.linalg.norm(found - expected, axis=1)
    far = np.flatnonzero((length > _RIVAL_SHIFT_PX) & (length < _LARGEST_SHIFT_PX))
    shifts = (found - expected)[far]
    heap = np.zeros(0, np.int64)
    for offset in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        cells = np.floor(shifts / _RIVAL_CELL_PX + offset) @ [2.0**26, 1]
        heap = max(heap, _most_common(cells), key=len)
    # Under perspective a period changes over the picture, at first order linearly.
    largest = heap
    places = np.column_stack([expected[far], np.ones(len(far))])
    for _ in range(_RIVAL_STEPS):
        if len(heap) < 3:
            break
        field = np.linalg.lstsq(places[heap], shifts[heap], rcond=None)[0]
        heap = np.flatnonzero(np.linalg.norm(shifts - places @ field, axis=1) < _RIVAL_TOLERANCE_PX)
        largest = max(largest, heap, key=len)
    return np.asarray(far[largest])


def _most_common(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Indices of the value that occurs most often (np.unique would load numpy.ma)."""
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True)) + 1
    lengths = np.diff(ends, prepend=0)
    end, length = ends[lengths.argmax()], lengths.max()
    return order[end - length : end]


def _is_repeated(evidence: Evidence) -> bool:
    """Whether the same transformation, one period aside, would do nearly as well.

    What lies at another depth is shifted too, but keeps to its own region, where few inliers are.
    """
    return (
        evidence.agreeing > 0
        and len(evidence.rivals) >= max(_LARGEST_RIVAL_SHARE * evidence.agreeing, _FEWEST_FOR_DOUBT)
        and evidence.rival_mixing > _LARGEST_RIVAL_MIXING
    )


def _distrust(evidence: Evidence) -> str:
    return DOUBTFUL if evidence.agreeing >= _FEWEST_FOR_TRUST else NONE


def _judge_epipolar(evidence: Evidence, count: str) -> tuple[str, str]:
    # A point meets a random epipolar line far more often than a random point: chance gives a share of all, besides
    # those that the model was fitted to. Of 281 unrelated pairs none had more.
    chance = _FEWEST_FOR_TRUST + _EPIPOLAR_CHANCE * len(evidence.inliers)
    if evidence.agreeing < chance:
        return NONE, f"{count}: no more than chance gives"
    if evidence.agreeing < 2 * chance:
        return DOUBTFUL, f"{count}: few, though more than chance gives"
    if evidence.spread < _LEAST_SPREAD:
        return DOUBTFUL, f"{count}, but only in one small place"
    if evidence.thickness < _LEAST_THICKNESS:
        return DOUBTFUL, f"{count}, but all on one line"
    return RELIABLE, count
