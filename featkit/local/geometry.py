"""The transformation that ties two pictures together, refined, and how exactly it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.local.features import Features
from featkit.local.matching import Matches
from featkit.local.verdict import DOUBTFUL, NONE, Evidence, judge
from featkit.opencv import cv2

MODELS = ("homography", "affine", "fundamental", "none")

#: How many matches define each model.
MINIMAL_SAMPLE = {"homography": 4, "affine": 3, "fundamental": 7}

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
# Residuals of neighbouring keypoints go together (surfaces that are not quite planar, lens distortion); the covariance
# counts each cell of this grid over picture a as one observation.
_CELLS = 6
# What the residuals say about the error, and what a model that does not quite fit adds: (pixels of median residual)²
# times the second, in every cell. Measured by tests/bench/verdicts.py: on exact warps, true over expected error has a
# median of .87 (SIFT) and .53 (ORB).
_NOISE_INFLATION = 1.2
_MISFIT_PER_SQUARE_PX = 0.3
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


def estimate(a: Features, b: Features, matches: Matches, config: GeometryConfig | None = None) -> Estimate:
    """Estimate `config.model` from tentative matches, refine it, and judge it."""
    config = config or GeometryConfig()
    nothing = Estimate(config.model, None, np.zeros(len(matches), bool), NONE, None, "")
    if config.model == "none":
        if not len(matches):
            return replace(nothing, reason="no matches")
        return replace(nothing, verdict=DOUBTFUL, reason="matches were not verified by a geometric model")
    if len(matches) < MINIMAL_SAMPLE[config.model]:
        return replace(nothing, reason=f"{len(matches)} matches are too few for a {config.model} model")

    xy_a = a.xy[matches.indices[:, 0]].astype(float)
    xy_b = b.xy[matches.indices[:, 1]].astype(float)
    sizes = np.stack([a.size[matches.indices[:, 0]], b.size[matches.indices[:, 1]]], 1).astype(float)
    # Many matches of one place (SIFT repeats a point for each orientation) would count as many witnesses.
    distinct = one_to_one(xy_a, xy_b, matches.score)

    matrix = sample_consensus(xy_a[distinct], xy_b[distinct], matches.score[distinct], config)
    if matrix is None:
        return replace(nothing, reason="no transformation agrees with enough matches")
    uncertainty = None
    if config.model == "fundamental":
        distance = epipolar_distance(matrix, xy_a, xy_b)
    else:
        refined = refine(matrix, xy_a[distinct], xy_b[distinct], sizes[distinct], a.image_size, config)
        if refined is not None:
            matrix, uncertainty = refined.matrix, refined.corner_uncertainty(a.image_size)
        distance = symmetric_distance(matrix, xy_a, xy_b)
    inliers = distance <= config.threshold

    evidence = Evidence(
        model=config.model,
        matrix=matrix,
        xy_a=xy_a[distinct],
        xy_b=xy_b[distinct],
        inliers=inliers[distinct],
        size_a=a.image_size,
        size_b=b.image_size,
        uncertainty_px=uncertainty,
    )
    verdict, reason = judge(evidence)
    if verdict == NONE:
        # What chance has put together is no transformation; nobody should warp a picture by it.
        matrix, uncertainty = None, None
    return Estimate(config.model, matrix, inliers, verdict, uncertainty, reason)


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


@dataclass(frozen=True)
class Refined:
    """matrix: float64 3×3, last entry 1. covariance: float64 9×9 of its entries in row order, in normalised coordinates
    given by `to_normal_a` and `to_normal_b`, where the matrix is `normal`."""

    matrix: _Matrix
    normal: _Matrix
    covariance: _Matrix
    to_normal_a: _Matrix
    to_normal_b: _Matrix

    def corner_uncertainty(self, size_a: tuple[int, int]) -> float | None:
        """Expected mean distance between a's corners where they are put and where they belong, pixels of b."""
        _, jacobian = _project(self.normal, transform(self.to_normal_a, corners_of(size_a)))
        variance = np.einsum("nki,ij,nkj->n", jacobian, self.covariance, jacobian) / self.to_normal_b[0, 0] ** 2
        expected = float(np.sqrt(np.maximum(variance, 0)).mean())
        return expected if np.isfinite(expected) else None


def refine(
    matrix: _Matrix, xy_a: _Points, xy_b: _Points, sizes: _Points, size_a: tuple[int, int], config: GeometryConfig
) -> Refined | None:
    """Least squares of the symmetric transfer error with Cauchy weights, by Gauss–Newton (Hartley & Zisserman 2004, 4).

    xy_a, xy_b: N×2 pixels, one-to-one. sizes: N×2 keypoint diameters in a and b. size_a: (width, height). Returns None
    where the matches near the given matrix do not determine the model. The covariance adds the sandwich estimator,
    clustered by place (noise), to what an unmodelled shift of each place would do (misfit).
    """
    near = symmetric_distance(matrix, xy_a, xy_b) <= _REFINEMENT_GATE * config.threshold
    if near.sum() < 2 * MINIMAL_SAMPLE[config.model]:
        return None
    xy_a, xy_b, sizes = xy_a[near], xy_b[near], sizes[near]
    to_normal_a, to_normal_b = _normalisation(xy_a), _normalisation(xy_b)
    normal_a, normal_b = transform(to_normal_a, xy_a), transform(to_normal_b, xy_b)
    per_pixel = np.array([to_normal_a[0, 0], to_normal_b[0, 0]])
    sigma = (sizes / _median(sizes)) ** _SIZE_EXPONENT

    normal = to_normal_b @ matrix @ np.linalg.inv(to_normal_a)
    normal /= np.linalg.norm(normal)
    try:
        for _ in range(_REFINEMENT_STEPS):
            information, gradients, tangent = _linearise(normal, normal_a, normal_b, sigma, per_pixel, config.model)
            step = tangent @ np.linalg.solve(information, gradients.sum(0))
            normal = normal + step.reshape(3, 3)
            normal /= np.linalg.norm(normal)
            if np.linalg.norm(step) < _STEP_TOLERANCE:
                break
        refined = np.linalg.inv(to_normal_b) @ normal @ to_normal_a
        if not np.isfinite(refined).all() or abs(refined[2, 2]) < 1e-12:
            return None
        information, gradients, tangent = _linearise(normal, normal_a, normal_b, sigma, per_pixel, config.model)
        if np.linalg.cond(information) > _LARGEST_CONDITION:
            return None
        cells = _cells(xy_a, size_a)
        bread = np.linalg.inv(information)
        noise = bread @ _clustered(gradients, cells) @ bread
        moved = _project(normal, normal_a)[1] @ tangent / per_pixel[1]
        misfit = np.linalg.inv(_gram(moved / np.bincount(cells)[cells][:, None, None], moved))
    except np.linalg.LinAlgError:
        return None
    residual = float(_median(symmetric_distance(refined, xy_a, xy_b)))
    covariance = _NOISE_INFLATION**2 * noise + (_MISFIT_PER_SQUARE_PX * residual**2) ** 2 * misfit
    return Refined(refined / refined[2, 2], normal, tangent @ covariance @ tangent.T, to_normal_a, to_normal_b)


def _linearise(
    normal: _Matrix, normal_a: _Points, normal_b: _Points, sigma: _Points, per_pixel: _Points, model: str
) -> tuple[_Matrix, _Points, _Matrix]:
    """Information matrix k×k, each match's weighted gradient N×k, and the tangent basis 9×k that both refer to."""
    # A homography's scale is free: move at right angles to it. An affinity keeps its last row.
    tangent = np.eye(9)[:, :6] if model == "affine" else np.linalg.svd(normal.reshape(1, 9))[2][1:].T
    inverse = np.linalg.inv(normal)
    mapped_b, jacobian_b = _project(normal, normal_a)
    mapped_a, jacobian_a = _project(inverse, normal_b)
    # d(H⁻¹) = −H⁻¹ dH H⁻¹
    jacobian_a = jacobian_a @ -np.kron(inverse, inverse.T)
    information = np.zeros((tangent.shape[1],) * 2)
    gradients = np.zeros((len(normal_a), tangent.shape[1]))
    for residual, jacobian, noise in (
        ((normal_a - mapped_a) / per_pixel[0], jacobian_a / per_pixel[0], sigma[:, 0]),
        ((normal_b - mapped_b) / per_pixel[1], jacobian_b / per_pixel[1], sigma[:, 1]),
    ):
        weight = 1 / (noise**2 + (residual**2).sum(1) / _CAUCHY_SCALE_PX**2)
        moved = jacobian @ tangent
        weighted = moved * weight[:, None, None]
        information += _gram(weighted, moved)
        gradients += (weighted * residual[:, :, None]).sum(1)
    return information, gradients, tangent


def _median(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
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


def _cells(points: _Points, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Which cell of a `_CELLS`² grid over a (width, height) picture each of N×2 points lies in."""
    column, row = np.clip((points + 0.5) / size * _CELLS, 0, _CELLS - 1).astype(np.int64).T
    return np.asarray(row * _CELLS + column)


def _clustered(gradients: _Points, cells: npt.NDArray[np.int64]) -> _Matrix:
    """Sum over the cells of the outer product of the gradients' sum in a cell, k×k, for so few cells as there are."""
    sums = np.zeros((_CELLS**2, gradients.shape[1]))
    np.add.at(sums, cells, gradients)
    occupied = int((np.bincount(cells) > 0).sum())
    return np.asarray(sums.T @ sums * (occupied / max(occupied - 1, 1)))
