"""The transformation that ties two pictures together, refined, and how exactly it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.local.features import Features
from featkit.local.matching import Matches
from featkit.local.verdict import DOUBTFUL, NONE, Confirmation, Evidence, judge
from featkit.opencv import cv2

MODELS = ("homography", "affine", "fundamental", "none")

#: How many matches define each model.
MINIMAL_SAMPLE = {"homography": 4, "affine": 3, "fundamental": 7}

# 95 % bound over expected error, measured by tests/bench/verdicts.py.
_BOUND = 2.0
_ITERATIONS = 10_000
_CONFIDENCE = 0.9999
# Refinement sees matches this many thresholds away: beyond, the Cauchy weight is below 3 % anyway.
_REFINEMENT_GATE = 4.0
_REFINEMENT_STEPS = 20
# In normalised coordinates: about a hundred-thousandth of a pixel.
_STEP_TOLERANCE = 1e-7
# Scale of the Cauchy weight, pixels, for a keypoint of median size; flat between .7 and 1.5 on exact warps.
_CAUCHY_SCALE_PX = 1.0
# Position noise grows with the keypoint's size; the exponent .5 was as good as any on exact warps (0: −1 AUC@1).
_SIZE_EXPONENT = 0.5
# What the residuals do not show: a shift of each quarter of the matches, pixels, per square pixel of median residual.
_MISFIT_PER_SQUARE_PX = 0.05
# The same where matches have covariances: what the scene's relief adds to them, and at least this many pixels, for
# resampling shifts patches by some hundredths. Measured on exact warps of 80 photos, half of them with relief added.
_CAUCHY_SCALE_SIGMA = 1.5
_RELIEF_INFLATION = 1.5
_LEAST_RELIEF_PX = 0.02
_LARGEST_RELIEF_PX = 5.0
# Matches that share a cell, of so many each way over all of them, share the relief. Warps with relief: AUC@3 54 -> 56.
_GRID = 6
_RELIEF_STEPS = 10
_MEDIAN_CHI_SQUARE = 1.386  # of two degrees of freedom
# Beyond this condition of the information matrix (in the coordinates of `_normalisation`) matches lie on one line.
_LARGEST_CONDITION = 1e12

_Points = npt.NDArray[np.floating]
_Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True)
class GeometryConfig:
    """model: what to estimate. threshold: inlier distance in pixels; USAC wants 1–1.5. seed: of the random samples."""

    model: str = "homography"
    threshold: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UsageError(f"there is no model {self.model!r}", hint=f"choose one of: {', '.join(MODELS)}")
        if not 0.1 <= self.threshold <= 100:
            raise UsageError("--threshold must lie between 0.1 and 100 pixels", hint="1 to 3 suits most photos")
        if not 0 <= self.seed < 2**31:
            raise UsageError("--seed must lie between 0 and 2147483647")


@dataclass(frozen=True)
class Estimate:
    """What ties two pictures together, and how far to believe it.

    model: what was asked for. matrix: float64 3×3 or None; a homography or affinity maps a to b, a fundamental matrix
    satisfies x_bᵀ F x_a = 0. inliers: bool M, which matches agree with it. verdict: "reliable", "doubtful" or "none"
    (then matrix is None). uncertainty_px: expected mean distance, pixels of b, by which a's corners are misplaced; None
    where it is unknown. reason: why the verdict, in a sentence for people.
    """

    model: str
    matrix: _Matrix | None
    inliers: npt.NDArray[np.bool_]
    verdict: str
    uncertainty_px: float | None
    reason: str

    @property
    def bound_px(self) -> float | None:
        """Pixels of b that the mean error of a's corners stays below in 95 of 100 pairs; None where it is unknown."""
        return None if self.uncertainty_px is None else _BOUND * self.uncertainty_px


@dataclass(frozen=True)
class Hypothesis:
    """What consensus and refinement make of tentative matches, before it is judged.

    matrix: float64 3×3, or None with the reason. uncertainty_px: expected mean corner error in b; None where it is
    unknown. distinct: which matches share no place.
    """

    matrix: _Matrix | None
    uncertainty_px: float | None
    distinct: npt.NDArray[np.int64]
    reason: str = ""


def estimate(a: Features, b: Features, matches: Matches, config: GeometryConfig | None = None) -> Estimate:
    """Estimate `config.model` from tentative matches, refine it, and judge it."""
    config = config or GeometryConfig()
    return conclude(a, b, matches, hypothesise(a, b, matches, config), config)


def hypothesise(a: Features, b: Features, matches: Matches, config: GeometryConfig) -> Hypothesis:
    """The transformation on which most matches agree, refined by all that are near it."""
    nothing = Hypothesis(None, None, np.zeros(0, np.int64))
    if config.model == "none":
        return replace(
            nothing, reason="matches were not verified by a geometric model" if len(matches) else "no matches"
        )
    if len(matches) < MINIMAL_SAMPLE[config.model]:
        return replace(nothing, reason=f"{len(matches)} matches are too few for a {config.model} model")
    xy_a, xy_b = matched_places(a, b, matches)
    # Many matches of one place (SIFT repeats a point for each orientation) would count as many witnesses.
    distinct = one_to_one(xy_a, xy_b, matches.score)
    matrix = sample_consensus(xy_a[distinct], xy_b[distinct], matches.score[distinct], config)
    if matrix is None:
        return replace(nothing, reason="no transformation agrees with enough matches")
    if config.model == "fundamental":
        return Hypothesis(matrix, None, distinct)
    sizes = np.stack([a.size[matches.indices[:, 0]], b.size[matches.indices[:, 1]]], 1).astype(float)
    refined = refine(matrix, xy_a[distinct], xy_b[distinct], sizes[distinct], config)
    if refined is None:
        return Hypothesis(matrix, None, distinct)
    return Hypothesis(refined.matrix, refined.uncertainty(corners_of(a.image_size)), distinct)


def conclude(
    a: Features,
    b: Features,
    matches: Matches,
    hypothesis: Hypothesis,
    config: GeometryConfig,
    confirmation: Confirmation | None = None,
) -> Estimate:
    """Judge a hypothesis by the matches and, where there was one, by what a second look found."""
    if hypothesis.matrix is None:
        unverified = config.model == "none" and len(matches)
        verdict = DOUBTFUL if unverified else NONE
        return Estimate(config.model, None, np.zeros(len(matches), bool), verdict, None, hypothesis.reason)
    matrix, uncertainty = hypothesis.matrix, hypothesis.uncertainty_px
    xy_a, xy_b = matched_places(a, b, matches)
    distance = epipolar_distance if config.model == "fundamental" else symmetric_distance
    inliers = distance(matrix, xy_a, xy_b) <= config.threshold
    evidence = Evidence(
        model=config.model,
        matrix=matrix,
        xy_a=xy_a[hypothesis.distinct],
        xy_b=xy_b[hypothesis.distinct],
        inliers=inliers[hypothesis.distinct],
        size_a=a.image_size,
        size_b=b.image_size,
        uncertainty_px=uncertainty,
        confirmation=confirmation,
    )
    verdict, reason = judge(evidence)
    if verdict == NONE:
        # What chance has put together is no transformation; nobody should warp a picture by it.
        return Estimate(config.model, None, inliers, verdict, None, reason)
    return Estimate(config.model, matrix, inliers, verdict, uncertainty, reason)


def matched_places(a: Features, b: Features, matches: Matches) -> tuple[_Points, _Points]:
    """float64 M×2 each: where the matches lie in a and in b, pixels."""
    return a.xy[matches.indices[:, 0]].astype(float), b.xy[matches.indices[:, 1]].astype(float)


def one_to_one(xy_a: _Points, xy_b: _Points, score: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Indices, ascending, of matches that share no place in a and no place in b: the best-scored of each."""
    order = np.argsort(-score, kind="stable")
    for points in (xy_a, xy_b):
        order = order[np.sort(_first_occurrences(points[order]))]
    return np.sort(order)


def _first_occurrences(points: _Points) -> npt.NDArray[np.int64]:
    """Index of the first of each distinct row (as np.unique finds them; like np.median it would load numpy.ma)."""
    order = np.lexsort(points.T)
    differs = (points[order[1:]] != points[order[:-1]]).any(1)
    return np.asarray(order[np.concatenate([[True], differs])[: len(points)]])


def sample_consensus(
    xy_a: _Points, xy_b: _Points, score: npt.NDArray[np.float32], config: GeometryConfig
) -> _Matrix | None:
    """OpenCV's USAC (Barath et al. 2018) on one-to-one matches, N×2 pixels each; None where no model stands out."""
    if len(xy_a) < MINIMAL_SAMPLE[config.model]:
        return None
    parameters = cv2.UsacParams()
    parameters.randomGeneratorState = config.seed
    parameters.threshold = config.threshold
    parameters.confidence = _CONFIDENCE
    parameters.maxIterations = _ITERATIONS
    parameters.score = cv2.SCORE_METHOD_MSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO
    parameters.loIterations = 5
    parameters.loSampleSize = 14
    # Best first: with PROSAC sampling (Chum & Matas 2005) a good model comes early.
    parameters.sampler = cv2.SAMPLING_PROSAC
    order = np.argsort(-score, kind="stable")
    source, target = np.ascontiguousarray(xy_a[order]), np.ascontiguousarray(xy_b[order])
    try:
        if config.model == "homography":
            matrix, _ = cv2.findHomography(source, target, parameters)
        elif config.model == "affine":
            rows, _ = cv2.estimateAffine2D(source, target, parameters)
            matrix = None if rows is None else np.vstack([rows, [0, 0, 1]])
        else:
            matrix, _ = cv2.findFundamentalMat(source, target, parameters)
    except cv2.error:  # all points in one place or on one line
        return None
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None
    if config.model != "fundamental" and abs(np.linalg.det(matrix)) < 1e-12:
        return None
    return np.asarray(matrix, float)


def transform(matrix: _Matrix, points: _Points) -> _Points:
    """Map N×2 points by a 3×3 homography; inf where a point goes to the horizon."""
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def symmetric_distance(matrix: _Matrix, xy_a: _Points, xy_b: _Points) -> npt.NDArray[np.floating]:
    """The larger of both transfer errors, pixels (forward in b, backward in a); inf beyond the horizon."""
    forward = np.linalg.norm(transform(matrix, xy_a) - xy_b, axis=1)
    backward = np.linalg.norm(transform(np.linalg.inv(matrix), xy_b) - xy_a, axis=1)
    return np.asarray(np.nan_to_num(np.maximum(forward, backward), nan=np.inf, posinf=np.inf))


def epipolar_distance(matrix: _Matrix, xy_a: _Points, xy_b: _Points) -> npt.NDArray[np.floating]:
    """The larger distance of a point to its epipolar line, pixels, of both pictures."""
    lines_b = xy_a @ matrix[:, :2].T + matrix[:, 2]
    lines_a = xy_b @ matrix[:2, :] + matrix[2, :]
    residual = np.abs((lines_b[:, :2] * xy_b).sum(1) + lines_b[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = residual / np.minimum(np.hypot(*lines_a[:, :2].T), np.hypot(*lines_b[:, :2].T))
    return np.asarray(np.nan_to_num(distances, nan=np.inf, posinf=np.inf))


def corners_of(size: tuple[int, int]) -> _Points:
    """float64 4×2: centres of the corner pixels of a (width, height) picture, around it."""
    width, height = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)


def area_scale(matrix: _Matrix, size: tuple[int, int]) -> float:
    """Area in b per area in a at the centre of a, a (width, height) picture; negative for a mirror image, infinite
    where the centre goes to the horizon."""
    depth = matrix[2] @ [(size[0] - 1) / 2, (size[1] - 1) / 2, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.linalg.det(matrix) / depth**3)


@dataclass(frozen=True)
class Fit:
    """matrix: float64 3×3, last entry 1. covariance: float64 9×9 of its entries in row order, in normalised coordinates
    given by `to_normal_a` and `to_normal_b`, where the matrix is `normal`."""

    matrix: _Matrix
    normal: _Matrix
    covariance: _Matrix
    to_normal_a: _Matrix
    to_normal_b: _Matrix

    def uncertainty(self, points: _Points) -> float | None:
        """Expected mean distance between N×2 points where they are put and where they belong, pixels of b."""
        _, jacobian = _project(self.normal, transform(self.to_normal_a, points))
        variance = np.einsum("nki,ij,nkj->n", jacobian, self.covariance, jacobian) / self.to_normal_b[0, 0] ** 2
        expected = float(np.sqrt(np.maximum(variance, 0)).mean())
        return expected if np.isfinite(expected) else None


def refine(matrix: _Matrix, xy_a: _Points, xy_b: _Points, sizes: _Points, config: GeometryConfig) -> Fit | None:
    """Least squares of the symmetric transfer error with Cauchy weights, by Gauss–Newton (Hartley & Zisserman 2004, 4).

    xy_a, xy_b: N×2 pixels, one-to-one. sizes: N×2 keypoint diameters in a and b. Returns None where the matches near
    the given matrix do not determine the model.
    """
    near = symmetric_distance(matrix, xy_a, xy_b) <= _REFINEMENT_GATE * config.threshold
    if near.sum() < 2 * MINIMAL_SAMPLE[config.model]:
        return None
    xy_a, xy_b, sizes = xy_a[near], xy_b[near], sizes[near]
    to_normal_a, to_normal_b = _normalisation(xy_a), _normalisation(xy_b)
    normal_a, normal_b = transform(to_normal_a, xy_a), transform(to_normal_b, xy_b)
    per_pixel = np.array([to_normal_a[0, 0], to_normal_b[0, 0]])
    sigma = (sizes / median(sizes)) ** _SIZE_EXPONENT

    normal = to_normal_b @ matrix @ np.linalg.inv(to_normal_a)
    normal /= np.linalg.norm(normal)
    try:
        for _ in range(_REFINEMENT_STEPS):
            information, gradients, tangent = _linearise(normal, normal_a, normal_b, sigma, per_pixel, config.model)
            step = tangent @ np.linalg.solve(information.sum(0), gradients.sum(0))
            normal = normal + step.reshape(3, 3)
            normal /= np.linalg.norm(normal)
            if np.linalg.norm(step) < _STEP_TOLERANCE:
                break
        refined = np.linalg.inv(to_normal_b) @ normal @ to_normal_a
        if not np.isfinite(refined).all() or abs(refined[2, 2]) < 1e-12:
            return None
        information, gradients, tangent = _linearise(normal, normal_a, normal_b, sigma, per_pixel, config.model)
        moved = _project(normal, normal_a)[1] @ tangent / per_pixel[1]
        residual = float(median(symmetric_distance(refined, xy_a, xy_b)))
        covariance = _covariance(information, gradients, moved, _quarters(xy_a), _MISFIT_PER_SQUARE_PX * residual**2)
    except np.linalg.LinAlgError:
        return None
    if covariance is None:
        return None
    return Fit(refined / refined[2, 2], normal, tangent @ covariance @ tangent.T, to_normal_a, to_normal_b)


def fit_displacements(
    start: _Matrix, xy_a: _Points, xy_b: _Points, covariance: npt.NDArray[np.floating], model: str
) -> Fit | None:
    """Least squares of the transfer error in b, each match weighted by its own covariance, with Cauchy weights.

    start: 3×3. xy_a, xy_b: N×2 pixels of one frame, nearly the same. covariance: N×2×2, pixels². What a scene that is
    not quite planar adds to it is estimated along the way, as one variance for all. None where the matches do not
    determine the model.
    """
    to_normal = _normalisation(xy_a)
    per_pixel = to_normal[0, 0]
    normal_a, normal_b = transform(to_normal, xy_a), transform(to_normal, xy_b)
    normal = to_normal @ start @ np.linalg.inv(to_normal)
    normal /= normal[2, 2]
    tangent = np.eye(9)[:, : 6 if model == "affine" else 8]
    relief = 0.0
    # Neighbours share the scene's relief: together they say as much about it as one (a block of equal correlations).
    cells = _cells(xy_a)
    neighbours = np.bincount(cells)[cells]
    variance = np.trace(covariance, axis1=1, axis2=2) / 2
    try:
        for _ in range(_REFINEMENT_STEPS):
            mapped, jacobian = _project(normal, normal_a)
            residual = (normal_b - mapped) / per_pixel
            relief = _relief(residual, covariance)
            precision = inverse_2x2(covariance + relief**2 * np.eye(2))
            weighted_residual = np.einsum("nij,nj->ni", precision, residual)
            weight = 1 / (1 + (residual * weighted_residual).sum(1) / _CAUCHY_SCALE_SIGMA**2)
            weight /= 1 + (neighbours - 1) * relief**2 / (relief**2 + variance)
            moved = jacobian @ tangent / per_pixel
            weighted = weight[:, None, None] * (precision @ moved)
            information = np.swapaxes(weighted, 1, 2) @ moved
            gradients = (weighted * residual[:, :, None]).sum(1)
            step = tangent @ np.linalg.solve(information.sum(0), gradients.sum(0))
            normal = normal + step.reshape(3, 3)
            if np.linalg.norm(step) < _STEP_TOLERANCE:
                break
        fitted = np.linalg.inv(to_normal) @ normal @ to_normal
        if not np.isfinite(fitted).all() or abs(fitted[2, 2]) < 1e-12:
            return None
        misfit = max(_RELIEF_INFLATION * relief, _LEAST_RELIEF_PX)
        total = _covariance(information, gradients, moved, _quarters(xy_a), misfit)
    except np.linalg.LinAlgError:
        return None
    if total is None:
        return None
    return Fit(fitted / fitted[2, 2], normal, tangent @ total @ tangent.T, to_normal, to_normal)


def _relief(residual: _Points, covariance: npt.NDArray[np.floating]) -> float:
    """Standard deviation, pixels, that must be added to each axis of the N×2×2 covariances for the median of the
    residuals' Mahalanobis distances to be what a normal distribution gives."""
    low, high = 0.0, _LARGEST_RELIEF_PX
    for _ in range(_RELIEF_STEPS):
        middle = (low + high) / 2
        precision = inverse_2x2(covariance + middle**2 * np.eye(2))
        distance = np.einsum("ni,nij,nj->n", residual, precision, residual)
        if median(distance) > _MEDIAN_CHI_SQUARE:
            low = middle
        else:
            high = middle
    return low


def inverse_2x2(matrices: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Inverses of symmetric N×2×2 matrices."""
    xx, xy, yy = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]
    adjugate = np.stack([np.stack([yy, -xy], 1), np.stack([-xy, xx], 1)], 1)
    return np.asarray(adjugate / (xx * yy - xy * xy)[:, None, None])


def _cells(points: _Points) -> npt.NDArray[np.int64]:
    """Which cell of a grid over all N×2 points each lies in."""
    low, high = points.min(0), points.max(0)
    column, row = np.clip((points - low) / np.maximum(high - low, 1e-9) * _GRID, 0, _GRID - 1).astype(np.int64).T
    return np.asarray(row * _GRID + column)


def _quarters(points: _Points) -> npt.NDArray[np.int64]:
    """Which of four parts of equal number, left and right, above and below, each of N×2 points belongs to."""
    left = points[:, 0] < median(points[:, 0])
    part = 2 * left.astype(np.int64)
    for side in (left, ~left):
        part[side] += points[side, 1] < median(points[side, 1])
    return part


def _covariance(
    information: npt.NDArray[np.floating],
    gradients: _Points,
    moved: npt.NDArray[np.floating],
    parts: npt.NDArray[np.int64],
    misfit_px: float,
) -> _Matrix | None:
    """How much the k parameters of a fit may be off, k×k; None where they are not determined.

    information: N×k×k and gradients: N×k of the weighted matches. moved: N×2×k, pixels of b per unit of each parameter.
    The fit without each of the parts in turn (delete-a-group jackknife) shows what noise does, and surfaces that are
    not quite planar, whose residuals go together; misfit_px is a shift of each part that residuals cannot show.
    """
    total = information.sum(0)
    if np.linalg.cond(total) > _LARGEST_CONDITION:
        return None
    names = range(int(parts.max()) + 1)
    jackknife = np.zeros_like(total)
    for name in names:
        inside = parts == name
        change = np.linalg.solve(total - information[inside].sum(0), gradients[inside].sum(0))
        jackknife += np.outer(change, change) * (len(names) - 1) / len(names)
    share = 1 / np.bincount(parts)[parts]
    return np.asarray(jackknife + misfit_px**2 * np.linalg.inv(_gram(moved * share[:, None, None], moved)))


def _linearise(
    normal: _Matrix, normal_a: _Points, normal_b: _Points, sigma: _Points, per_pixel: _Points, model: str
) -> tuple[_Matrix, _Points, _Matrix]:
    """Each match's information N×k×k and weighted gradient N×k, and the tangent basis 9×k that both refer to."""
    # A homography's scale is free: move at right angles to it. An affinity keeps its last row.
    tangent = np.eye(9)[:, :6] if model == "affine" else np.linalg.svd(normal.reshape(1, 9))[2][1:].T
    inverse = np.linalg.inv(normal)
    mapped_b, jacobian_b = _project(normal, normal_a)
    mapped_a, jacobian_a = _project(inverse, normal_b)
    # d(H⁻¹) = −H⁻¹ dH H⁻¹
    jacobian_a = jacobian_a @ -np.kron(inverse, inverse.T)
    information = np.zeros((len(normal_a),) + (tangent.shape[1],) * 2)
    gradients = np.zeros((len(normal_a), tangent.shape[1]))
    for residual, jacobian, noise in (
        ((normal_a - mapped_a) / per_pixel[0], jacobian_a / per_pixel[0], sigma[:, 0]),
        ((normal_b - mapped_b) / per_pixel[1], jacobian_b / per_pixel[1], sigma[:, 1]),
    ):
        weight = 1 / (noise**2 + (residual**2).sum(1) / _CAUCHY_SCALE_PX**2)
        moved = jacobian @ tangent
        weighted = moved * weight[:, None, None]
        information += np.swapaxes(weighted, 1, 2) @ moved
        gradients += (weighted * residual[:, :, None]).sum(1)
    return information, gradients, tangent


def median(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Upper median along the first axis. np.median loads numpy.ma at its first call, a fiftieth of a run of `match`."""
    return np.asarray(np.partition(values, len(values) // 2, axis=0)[len(values) // 2])


def _gram(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> _Matrix:
    """Sum over the first two axes of the outer products of the third: N×2×k, N×2×k -> k×k."""
    size = left.shape[2]
    return np.asarray(left.reshape(-1, size).T @ right.reshape(-1, size))


def _project(matrix: _Matrix, points: _Points) -> tuple[_Points, npt.NDArray[np.float64]]:
    """Mapped points N×2 and their derivative N×2×9 by the matrix's entries in row order."""
    homogeneous = np.column_stack([points, np.ones(len(points))])
    mapped = homogeneous @ matrix.T
    inverse_depth = 1 / mapped[:, 2:]
    image = mapped[:, :2] * inverse_depth
    rows = homogeneous * inverse_depth
    jacobian = np.zeros((len(points), 2, 9))
    jacobian[:, 0, 0:3] = rows
    jacobian[:, 1, 3:6] = rows
    jacobian[:, 0, 6:9] = -image[:, :1] * rows
    jacobian[:, 1, 6:9] = -image[:, 1:] * rows
    return image, jacobian


def _normalisation(points: _Points) -> _Matrix:
    """3×3 similarity that moves the centroid to 0 and the mean square distance to 2 (Hartley 1997)."""
    centre = points.mean(0)
    scale = np.sqrt(2 / max(float(((points - centre) ** 2).sum(1).mean()), 1e-12))
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])
