"""Known transformations come back, with the uncertainty that they deserve; what fixes nothing is no answer."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import UsageError
from featkit.local.features import Features
from featkit.local.geometry import (
    MINIMAL_SAMPLE,
    MODELS,
    Estimate,
    GeometryConfig,
    corners_of,
    epipolar_distance,
    estimate,
    one_to_one,
    refine,
    sample_consensus,
    symmetric_distance,
    transform,
)
from featkit.local.matching import NO_MATCHES, Matches
from featkit.local.verdict import uncertainty_limit
from featkit.opencv import cv2

SIZE = (640, 480)
PLANE_MODELS = ("homography", "affine")


def features_at(xy: np.ndarray, diameters: np.ndarray | None = None, size: tuple[int, int] = SIZE) -> Features:
    count = len(xy)
    diameters = np.full(count, 5.0) if diameters is None else diameters
    angle, descriptors = np.zeros(count, np.float32), np.zeros((count, 128), np.uint8)
    return Features(xy.astype(np.float32), diameters.astype(np.float32), angle, descriptors, size, "sift")


def row_by_row(count: int) -> Matches:
    """Each row of a with the same row of b, the first the best."""
    indices = np.stack([np.arange(count)] * 2, 1).astype(np.int32)
    return Matches(indices, np.linspace(1, 0.1, count).astype(np.float32))


def estimate_at(xy_a: np.ndarray, xy_b: np.ndarray, model: str = "homography", seed: int = 0) -> Estimate:
    return estimate(features_at(xy_a), features_at(xy_b), row_by_row(len(xy_a)), GeometryConfig(model, seed=seed))


def uniform(random: np.random.Generator, count: int) -> np.ndarray:
    return random.uniform((0, 0), SIZE, (count, 2))


def random_matrix(random: np.random.Generator, model: str = "homography") -> np.ndarray:
    """A turn by up to 30°, a change of scale, some shear, and perspective unless it is to be affine."""
    turn, scale = random.uniform(-0.5, 0.5), random.uniform(0.7, 1.4)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * rotation @ [[1, random.uniform(-0.1, 0.1)], [0, random.uniform(0.8, 1.2)]]
    matrix[:2, 2] = random.uniform(-100, 100, 2)
    if model == "homography":
        matrix[2, :2] = random.uniform(-2e-4, 2e-4, 2)
    return matrix


def corner_error(matrix: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance in b of a's corners from where they belong, pixels."""
    corners = corners_of(SIZE)
    return float(np.linalg.norm(transform(matrix, corners) - transform(truth, corners), axis=1).mean())


def noisy_plane(
    seed: int, model: str, noise: float, *, right: int = 150, wrong: int = 80
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correspondences in random order, some of them wrong, with normal noise in b (pixels an axis); the truth."""
    random = np.random.default_rng(seed)
    truth = random_matrix(random, model)
    xy_a = uniform(random, right + wrong)
    xy_b = transform(truth, xy_a) + random.normal(0, noise, xy_a.shape)
    xy_b[right:] = uniform(random, wrong)
    order = random.permutation(right + wrong)
    return xy_a[order], xy_b[order], truth


def two_views(seed: int, count: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Projections of random points in space by two cameras."""
    random = np.random.default_rng(seed)
    space = random.uniform((-3, -2, 4), (3, 2, 10), (count, 3))
    calibration = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]])
    rotation = cv2.Rodrigues(random.normal(0, 0.08, 3))[0]
    views = [points @ calibration.T for points in (space, space @ rotation.T + [1, 0.1, 0.2])]
    a, b = (view[:, :2] / view[:, 2:] + random.normal(0, noise, (count, 2)) for view in views)
    return a, b


class TestExactCorrespondences:
    @pytest.mark.parametrize("model", PLANE_MODELS)
    @pytest.mark.parametrize("seed", range(5))
    def test_a_plane(self, model: str, seed: int) -> None:
        xy_a, xy_b, truth = noisy_plane(seed, model, 0, wrong=0)
        found = estimate_at(xy_a, xy_b, model)
        assert found.matrix is not None
        assert corner_error(found.matrix, truth) < TOLERANCE["exact_points_px"]
        assert (found.model, found.verdict) == (model, "reliable")
        assert found.inliers.all()
        assert found.uncertainty_px is not None
        assert found.uncertainty_px < 0.05
        assert found.matrix[2, 2] == 1
        if model == "affine":
            assert found.matrix[2].tolist() == [0, 0, 1]

    @pytest.mark.parametrize("model", PLANE_MODELS)
    def test_refinement_reaches_the_precision_of_its_numbers(self, model: str) -> None:
        xy_a, xy_b, truth = noisy_plane(0, model, 0, wrong=0)
        off = truth.copy()
        off[:2, 2] += 2
        refined = refine(off, xy_a, xy_b, np.full((150, 2), 5.0), GeometryConfig(model))
        assert refined is not None
        assert corner_error(refined.matrix, truth) < TOLERANCE["float64"]

    @pytest.mark.parametrize("seed", range(3))
    def test_epipolar_geometry(self, seed: int) -> None:
        xy_a, xy_b = two_views(seed, 100)
        found = estimate_at(xy_a, xy_b, "fundamental")
        assert found.matrix is not None
        assert epipolar_distance(found.matrix, xy_a, xy_b).max() < 0.01
        assert (found.verdict, found.uncertainty_px) == ("reliable", None)
        assert found.inliers.all()
        singular = np.linalg.svd(found.matrix, compute_uv=False)
        assert singular[2] < 1e-6 * singular[0]

    def test_the_identity(self) -> None:
        points = uniform(np.random.default_rng(0), 60)
        found = estimate_at(points, points)
        np.testing.assert_allclose(found.matrix, np.eye(3), atol=1e-6)

    def test_without_a_model(self) -> None:
        points = uniform(np.random.default_rng(0), 60)
        found = estimate_at(points, points, "none")
        assert (found.model, found.matrix, found.verdict, found.uncertainty_px) == ("none", None, "doubtful", None)
        assert "not verified" in found.reason
        assert not found.inliers.any()


class TestNoise:
    @pytest.mark.parametrize("model", PLANE_MODELS)
    def test_a_third_of_the_matches_is_wrong(self, model: str) -> None:
        errors = []
        for seed in range(20):
            xy_a, xy_b, truth = noisy_plane(seed, model, 0.5)
            found = estimate_at(xy_a, xy_b, model)
            assert found.matrix is not None
            assert found.verdict == "reliable"
            errors.append(corner_error(found.matrix, truth))
        assert np.mean(errors) < TOLERANCE["homography_px"] / 2
        assert max(errors) < 2 * TOLERANCE["homography_px"]

    def test_most_matches_are_wrong(self) -> None:
        xy_a, xy_b, truth = noisy_plane(0, "homography", 0.5, right=60, wrong=400)
        found = estimate_at(xy_a, xy_b)
        assert found.matrix is not None
        assert corner_error(found.matrix, truth) < 2 * TOLERANCE["homography_px"]
        assert 50 <= found.inliers.sum() <= 64

    def test_inliers_are_what_agrees_with_the_matrix(self) -> None:
        xy_a, xy_b, _ = noisy_plane(3, "homography", 0.8)
        found = estimate_at(xy_a, xy_b)
        assert found.matrix is not None
        distance = symmetric_distance(found.matrix, *(xy.astype(np.float32).astype(float) for xy in (xy_a, xy_b)))
        np.testing.assert_array_equal(found.inliers, distance <= 1.5)

    def test_epipolar_geometry(self) -> None:
        xy_a, xy_b = two_views(0, 200, 0.3)
        xy_b[150:] = uniform(np.random.default_rng(1), 50)
        found = estimate_at(xy_a, xy_b, "fundamental")
        assert found.verdict == "reliable"
        assert found.inliers[:150].mean() > 0.95
        assert found.inliers[150:].mean() < 0.1

    @pytest.mark.parametrize("model", PLANE_MODELS)
    def test_refinement_improves_on_the_sample_consensus(self, model: str) -> None:
        """On the average of many, with noise that grows with the keypoint's size, as it does in photos."""
        before, after = [], []
        for seed in range(40):
            random = np.random.default_rng(1000 + seed)
            truth = random_matrix(random, model)
            xy_a = uniform(random, 150)
            sizes = 5 * np.exp(random.normal(0, 0.7, (150, 1))) * [1, 1]
            xy_b = transform(truth, xy_a) + random.normal(0, 0.5, (150, 2)) * np.sqrt(sizes / 5)
            config = GeometryConfig(model)
            coarse = sample_consensus(xy_a, xy_b, np.ones(150, np.float32), config)
            assert coarse is not None
            fine = refine(coarse, xy_a, xy_b, sizes, config)
            assert fine is not None
            before.append(corner_error(coarse, truth))
            after.append(corner_error(fine.matrix, truth))
        assert np.mean(after) < 0.95 * np.mean(before)

    @pytest.mark.parametrize("model", PLANE_MODELS)
    @pytest.mark.parametrize("noise", [0.25, 0.5, 1.0])
    @pytest.mark.parametrize("right", [40, 200])
    def test_the_uncertainty_is_the_error_to_expect(self, model: str, noise: float, right: int) -> None:
        errors, stated = [], []
        for seed in range(100):
            random = np.random.default_rng(seed)
            truth = random_matrix(random, model)
            xy_a = uniform(random, right)
            xy_b = transform(truth, xy_a) + random.normal(0, noise, (right, 2))
            refined = refine(truth, xy_a, xy_b, np.full((right, 2), 5.0), GeometryConfig(model))
            assert refined is not None
            uncertainty = refined.uncertainty(corners_of(SIZE))
            assert uncertainty is not None
            errors.append(corner_error(refined.matrix, truth))
            stated.append(uncertainty)
        # Of few matches a quarter is much: without it the fit changes more than it is off.
        assert 0.5 < np.mean(stated) / np.mean(errors) < (2.5 if right < 100 else 2)
        assert np.quantile(np.divide(errors, stated), 0.9) < 2

    def test_the_uncertainty_grows_where_the_matches_are_far_from_the_corners(self) -> None:
        xy_a, xy_b, _ = noisy_plane(0, "homography", 0.5, right=400, wrong=0)
        near = (xy_a < np.array(SIZE) / 3).all(1)
        everywhere, corner = estimate_at(xy_a[: near.sum()], xy_b[: near.sum()]), estimate_at(xy_a[near], xy_b[near])
        assert everywhere.uncertainty_px is not None
        assert corner.uncertainty_px is not None
        assert corner.uncertainty_px > 10 * everywhere.uncertainty_px
        assert (everywhere.verdict, corner.verdict) == ("reliable", "doubtful")


class TestProperties:
    @given(seed=st.integers(0, 10**6), model=st.sampled_from(PLANE_MODELS))
    @settings(max_examples=25, deadline=None)
    def test_swapped_pictures_have_the_inverse(self, seed: int, model: str) -> None:
        xy_a, xy_b, _ = noisy_plane(seed, model, 0.4)
        forward, backward = estimate_at(xy_a, xy_b, model), estimate_at(xy_b, xy_a, model)
        assert forward.matrix is not None
        assert backward.matrix is not None
        assert corner_error(np.linalg.inv(backward.matrix), forward.matrix) < TOLERANCE["homography_px"] / 4

    @given(seed=st.integers(0, 10**6), x=st.integers(-3000, 3000), y=st.integers(-3000, 3000))
    @settings(max_examples=25, deadline=None)
    def test_moved_coordinates_have_the_moved_matrix(self, seed: int, x: int, y: int) -> None:
        xy_a, xy_b, truth = noisy_plane(seed, "homography", 0.4)
        move = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        found, moved = estimate_at(xy_a, xy_b), estimate_at(xy_a, xy_b + np.array([x, y]))
        assert found.matrix is not None
        assert moved.matrix is not None
        assert corner_error(moved.matrix, move @ truth) < 3 * TOLERANCE["homography_px"]
        assert corner_error(moved.matrix, move @ found.matrix) < TOLERANCE["homography_px"] / 4

    @given(seed=st.integers(0, 10**6), model=st.sampled_from(("homography", "affine", "fundamental")))
    @settings(max_examples=15, deadline=None)
    def test_a_seed_gives_the_same_answer_each_time(self, seed: int, model: str) -> None:
        xy_a, xy_b, _ = noisy_plane(seed, "homography", 0.5)
        first, second = (estimate_at(xy_a, xy_b, model, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(first.matrix, second.matrix)
        np.testing.assert_array_equal(first.inliers, second.inliers)
        assert (first.uncertainty_px, first.reason) == (second.uncertainty_px, second.reason)

    @given(
        count=st.integers(0, 40),
        values=st.integers(1, 400),
        seed=st.integers(0, 10**6),
        model=st.sampled_from(MODELS),
        threshold=st.sampled_from([0.1, 1.5, 100.0]),
    )
    @settings(max_examples=150, deadline=None)
    def test_any_matches_give_an_answer(self, count: int, values: int, seed: int, model: str, threshold: float) -> None:
        """Few places, many times over: no exception, no warning, and never a matrix beside the verdict "none"."""
        xy_a, xy_b = np.random.default_rng(seed).integers(0, values, (2, count, 2)).astype(float)
        config = GeometryConfig(model, threshold)
        found = estimate(features_at(xy_a), features_at(xy_b), row_by_row(count), config)
        assert found.inliers.shape == (count,)
        assert found.verdict in ("reliable", "doubtful", "none")
        assert found.reason
        if found.verdict == "none":
            assert found.matrix is None
            assert found.uncertainty_px is None
        if found.matrix is not None:
            assert np.isfinite(found.matrix).all()


class TestDegenerate:
    """The models that matches do not determine."""

    along = np.linspace(0, 400, 60)

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    def test_fewer_matches_than_the_model_takes(self, model: str) -> None:
        points = uniform(np.random.default_rng(0), MINIMAL_SAMPLE[model] - 1)
        found = estimate_at(points, points, model)
        assert (found.verdict, found.matrix) == ("none", None)
        assert "too few" in found.reason

    @pytest.mark.parametrize("model", MODELS)
    def test_no_matches(self, model: str) -> None:
        nothing = features_at(np.zeros((0, 2)))
        found = estimate(nothing, nothing, NO_MATCHES, GeometryConfig(model))
        assert (found.verdict, found.matrix, found.inliers.shape) == ("none", None, (0,))
        assert found.reason

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    @pytest.mark.parametrize("extra", [0, 1])
    def test_as_many_as_the_model_takes_prove_nothing(self, model: str, extra: int) -> None:
        xy_a, xy_b, _ = noisy_plane(0, "affine", 0, right=MINIMAL_SAMPLE[model] + extra, wrong=0)
        found = estimate_at(xy_a, xy_b, model)
        assert found.verdict == "none"
        assert found.reason

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    @pytest.mark.parametrize("places", [1, 2, 3])
    def test_a_few_places_many_times_over(self, model: str, places: int) -> None:
        points = np.repeat([[10.0, 20], [200, 100], [50, 300]][:places], 20, axis=0)
        found = estimate_at(points, points + np.array([30, -5]), model)
        assert (found.verdict, found.matrix) == ("none", None)
        assert found.reason

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    @pytest.mark.parametrize("noise", [0.0, 0.3])
    @pytest.mark.parametrize("slope", [0.0, 0.5])
    def test_all_on_one_line(self, model: str, noise: float, slope: float) -> None:
        line = np.stack([self.along, slope * self.along + 20], 1)
        for moved in (line, line + np.array([30, -5]), line * 1.2):
            found = estimate_at(line, moved + np.random.default_rng(0).normal(0, noise, (60, 2)), model)
            assert found.verdict != "reliable", found

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    def test_a_picture_onto_a_point_or_a_line(self, model: str) -> None:
        xy_a = uniform(np.random.default_rng(0), 60)
        for xy_b in (np.full((60, 2), 5.0), xy_a * [1, 0] + 7):
            assert estimate_at(xy_a, xy_b, model).verdict != "reliable"

    @pytest.mark.parametrize("model", MINIMAL_SAMPLE)
    def test_chance(self, model: str) -> None:
        for seed in range(10):
            xy_a, xy_b = np.random.default_rng(seed).uniform((0, 0), SIZE, (2, 300, 2))
            assert estimate_at(xy_a, xy_b, model).verdict == "none"


class TestOneToOne:
    @staticmethod
    def naive(xy_a: np.ndarray, xy_b: np.ndarray, score: np.ndarray) -> list[int]:
        """The best of each place of a, then of those the best of each place of b."""
        kept = sorted(range(len(score)), key=lambda index: -score[index])
        for points in (xy_a, xy_b):
            seen: set[tuple[float, ...]] = set()
            places = [tuple(points[index]) for index in kept]
            kept = [i for i, place in zip(kept, places, strict=True) if not (place in seen or seen.add(place))]
        return sorted(kept)

    @given(count=st.integers(0, 60), values=st.integers(1, 6), scores=st.integers(1, 20), seed=st.integers(0, 999))
    @settings(max_examples=100, deadline=None)
    def test_as_in_plain_python(self, count: int, values: int, scores: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        xy_a, xy_b = random.integers(0, values, (2, count, 2)).astype(float)
        score = random.integers(0, scores, count).astype(np.float32)
        found = one_to_one(xy_a, xy_b, score)
        assert found.tolist() == self.naive(xy_a, xy_b, score)
        for points in (xy_a, xy_b):
            assert len(np.unique(points[found], axis=0)) == len(found)

    def test_the_best_scored_stays(self) -> None:
        xy_a = np.array([[1.0, 1], [1, 1], [2, 2], [3, 3]])
        xy_b = np.array([[5.0, 5], [6, 6], [7, 7], [7, 7]])
        assert one_to_one(xy_a, xy_b, np.array([0.2, 0.8, 0.5, 0.6], np.float32)).tolist() == [1, 3]


class TestDistances:
    @pytest.mark.parametrize("seed", range(3))
    def test_symmetric_distance_is_the_larger_transfer_error(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        matrix = random_matrix(random)
        xy_a, xy_b = random.uniform(0, 500, (2, 20, 2))
        expected = []
        for a, b in zip(xy_a, xy_b, strict=True):
            x, y, depth = matrix @ [*a, 1]
            u, v, back_depth = np.linalg.inv(matrix) @ [*b, 1]
            forward = np.hypot(x / depth - b[0], y / depth - b[1])
            expected.append(max(forward, np.hypot(u / back_depth - a[0], v / back_depth - a[1])))
        np.testing.assert_allclose(symmetric_distance(matrix, xy_a, xy_b), expected, rtol=TOLERANCE["float64"])

    @pytest.mark.parametrize("seed", range(3))
    def test_epipolar_distance_is_the_larger_distance_to_a_line(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        matrix = random.normal(size=(3, 3))
        xy_a, xy_b = random.uniform(0, 500, (2, 20, 2))
        expected = []
        for a, b in zip(xy_a, xy_b, strict=True):
            line_b, line_a = matrix @ [*a, 1], matrix.T @ [*b, 1]
            in_b = abs(line_b @ [*b, 1]) / np.hypot(*line_b[:2])
            expected.append(max(in_b, abs(line_a @ [*a, 1]) / np.hypot(*line_a[:2])))
        np.testing.assert_allclose(epipolar_distance(matrix, xy_a, xy_b), expected, rtol=1e-9)

    def test_beyond_the_horizon_the_distance_is_infinite(self) -> None:
        matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # x = 100 goes to infinity
        distance = symmetric_distance(matrix, np.array([[100.0, 7], [0, 0]]), np.array([[3.0, 4], [0, 0]]))
        assert distance.tolist() == [np.inf, 0]

    def test_at_the_epipole_the_distance_is_infinite(self) -> None:
        sideways = np.array([[0, 0, 0], [0, 0, -1], [0, 1, -5.0]])
        assert np.isinf(epipolar_distance(np.zeros((3, 3)), np.ones((1, 2)), np.ones((1, 2)))).all()
        assert epipolar_distance(sideways, np.array([[3.0, 9]]), np.array([[50.0, 6]])).tolist() == [2]

    def test_corners_are_centres_of_pixels(self) -> None:
        assert corners_of((4, 3)).tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]


class TestConfig:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": "similarity"}, "'similarity'"),
            ({"threshold": 0}, "--threshold"),
            ({"threshold": float("nan")}, "--threshold"),
            ({"threshold": 101}, "--threshold"),
            ({"seed": -1}, "--seed"),
            ({"seed": 2**31}, "--seed"),
        ],
    )
    def test_options_that_make_no_sense(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            GeometryConfig(**options)

    def test_a_larger_picture_may_be_less_certain(self) -> None:
        assert uncertainty_limit((320, 240)) < uncertainty_limit((2000, 1500)) <= uncertainty_limit((9000, 6000))
