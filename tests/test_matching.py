"""The exact matcher: against cv2.BFMatcher, against naive Python, on ties, on nothing, and in little memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import UsageError
from featkit.images import load
from featkit.local.features import DetectorConfig, Features, detect
from featkit.local.matching import (
    NO_MATCHES,
    MatcherConfig,
    Neighbours,
    match_features,
    nearest_binary,
    nearest_neighbours,
    root_sift,
    select,
)
from featkit.opencv import cv2

BLOCK = 256  # rows that the matcher compares at once


def brute_force(a: np.ndarray, b: np.ndarray) -> Neighbours:
    """What cv2.BFMatcher finds, both ways."""
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING if a.dtype == np.uint8 else cv2.NORM_L2)
    forward = [[(m.trainIdx, m.distance) for m in found] for found in matcher.knnMatch(a, b, k=2)]
    forward = [[*found, (-1, np.inf)][:2] for found in forward]
    index, distance = np.array(forward).transpose(2, 0, 1)
    back = [found[0].trainIdx for found in matcher.knnMatch(b, a, k=1)]
    return Neighbours(
        index[:, 0].astype(int),
        index[:, 1].astype(int),
        distance[:, 0].astype(np.float32),
        distance[:, 1].astype(np.float32),
        np.array(back),
    )


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    np.testing.assert_array_equal(found.nearest, expected.nearest)
    np.testing.assert_array_equal(found.second, expected.second)
    np.testing.assert_array_equal(found.back, expected.back)
    np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-5, atol=TOLERANCE["float32"])
    np.testing.assert_allclose(found.second_distance, expected.second_distance, rtol=1e-5, atol=TOLERANCE["float32"])


@pytest.fixture(scope="module")
def sift(samples: Path) -> tuple[Features, Features]:
    a, b = (detect(load(samples / f"china-{side}.jpg").pixels) for side in ("left", "right"))
    return a, b


@pytest.fixture(scope="module")
def orb(samples: Path) -> tuple[Features, Features]:
    config = DetectorConfig("orb", max_keypoints=1500)
    a, b = (detect(load(samples / f"china-{side}.jpg").pixels, config) for side in ("left", "right"))
    return a, b


def first(features: Features, count: int) -> Features:
    arrays = (features.xy, features.size, features.angle, features.descriptors)
    return Features(*(array[:count] for array in arrays), features.image_size, features.detector)


sizes = st.one_of(st.integers(1, 12), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]))


class TestAgainstBruteForce:
    def test_root_sift_of_photos(self, sift: tuple[Features, Features]) -> None:
        a, b = (root_sift(features.descriptors) for features in sift)
        expected = brute_force(a, b)
        assert_same(nearest_neighbours(a, b, unit_length=True), expected)
        assert_same(nearest_neighbours(a, b), expected)

    def test_raw_sift_of_photos(self, sift: tuple[Features, Features]) -> None:
        a, b = (features.descriptors.astype(np.float32) for features in sift)
        assert_same(nearest_neighbours(a, b), brute_force(a, b))

    def test_packed_bits_of_photos(self, orb: tuple[Features, Features]) -> None:
        a, b = (features.descriptors for features in orb)
        assert_same(nearest_binary(a, b), brute_force(a, b))

    @given(rows=sizes, columns=sizes, dimensions=st.integers(1, 40), values=st.integers(1, 9), seed=st.integers(0, 999))
    @settings(max_examples=80, deadline=None)
    def test_whole_numbers_with_many_ties(
        self, rows: int, columns: int, dimensions: int, values: int, seed: int
    ) -> None:
        """Few values in few dimensions: duplicates, ties, all rows equal (values=1)."""
        random = np.random.default_rng(seed)
        a = random.integers(0, values, (rows, dimensions)).astype(np.float32)
        b = random.integers(0, values, (columns, dimensions)).astype(np.float32)
        assert_same(nearest_neighbours(a, b), brute_force(a, b))

    @given(rows=sizes, columns=sizes, width=st.integers(1, 40), values=st.integers(1, 256), seed=st.integers(0, 999))
    @settings(max_examples=80, deadline=None)
    def test_any_packed_bits(self, rows: int, columns: int, width: int, values: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        a = random.integers(0, values, (rows, width)).astype(np.uint8)
        b = random.integers(0, values, (columns, width)).astype(np.uint8)
        assert_same(nearest_binary(a, b), brute_force(a, b))

    @given(rows=sizes, columns=sizes, dimensions=st.integers(2, 40), seed=st.integers(0, 999))
    @settings(max_examples=40, deadline=None)
    def test_any_directions(self, rows: int, columns: int, dimensions: int, seed: int) -> None:
        """Unit vectors: both ways to compare them find neighbours as near as the nearest."""
        random = np.random.default_rng(seed)
        a, b = (random.normal(size=(count, dimensions)).astype(np.float32) for count in (rows, columns))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        distances = np.linalg.norm(a[:, None].astype(float) - b, axis=2)
        for unit_length in (True, False):
            found = nearest_neighbours(a, b, unit_length=unit_length)
            np.testing.assert_allclose(found.distance, distances.min(1), atol=1e-3)
            np.testing.assert_allclose(distances[found.back, np.arange(columns)], distances.min(0), atol=1e-3)
            if columns > 1:
                np.testing.assert_allclose(found.second_distance, np.partition(distances, 1, 1)[:, 1], atol=1e-3)


class TestTies:
    def test_the_lower_index_is_the_nearest(self) -> None:
        a = np.array([[0, 0], [4, 4]], np.float32)
        b = np.array([[9, 9], [0, 0], [4, 4], [0, 0], [4, 4]], np.float32)
        found = nearest_neighbours(a, b)
        assert found.nearest.tolist() == [1, 2]
        assert found.second.tolist() == [3, 4]

    @pytest.mark.parametrize("at", [0, 3, BLOCK - 1])
    def test_an_equal_row_in_a_later_block_does_not_win(self, at: int) -> None:
        a = np.zeros((2 * BLOCK, 2), np.float32)
        a[:, 0] = 7
        a[[at, BLOCK, BLOCK + 5]] = 1
        assert nearest_neighbours(a, np.ones((3, 2), np.float32)).back.tolist() == [at] * 3

    def test_one_row_has_no_second(self) -> None:
        for found in (
            nearest_neighbours(np.ones((3, 2), np.float32), np.zeros((1, 2), np.float32)),
            nearest_binary(np.ones((3, 2), np.uint8), np.zeros((1, 2), np.uint8)),
        ):
            assert found.second.tolist() == [-1, -1, -1]
            assert np.isinf(found.second_distance).all()

    def test_equal_rows_have_distance_zero(self) -> None:
        """The product alone would leave the square root of its rounding error: .0005 of the length."""
        rows = np.random.default_rng(0).uniform(0, 200, (50, 128)).astype(np.float32)
        assert (nearest_neighbours(rows, rows).distance == 0).all()


class TestRootSift:
    def test_is_the_root_of_the_normalised_histogram(self) -> None:
        rows = np.random.default_rng(0).integers(0, 256, (20, 128)).astype(np.uint8)
        expected = [[np.sqrt(value / sum(row)) for value in row] for row in rows.tolist()]
        np.testing.assert_allclose(root_sift(rows), expected, atol=TOLERANCE["float32"])
        assert root_sift(rows).dtype == np.float32

    def test_an_empty_histogram_stays_zero(self) -> None:
        assert (root_sift(np.zeros((2, 128), np.uint8)) == 0).all()


class TestSelection:
    @staticmethod
    def naive(found: Neighbours, config: MatcherConfig) -> list[tuple[int, int, float]]:
        selected = []
        for row, partner in enumerate(found.nearest.tolist()):
            first, second = float(found.distance[row]), float(found.second_distance[row])
            ratio = 1.0 if second == 0 else 0.0 if second == np.inf else first / second
            if ratio <= config.ratio and (not config.mutual or found.back[partner] == row):
                selected.append((row, partner, 1 - ratio))
        return selected

    @given(
        rows=st.integers(1, 30),
        columns=st.integers(1, 30),
        values=st.integers(1, 6),
        ratio=st.sampled_from([0.3, 0.75, 0.9, 1.0]),
        mutual=st.booleans(),
        seed=st.integers(0, 999),
    )
    @settings(max_examples=100, deadline=None)
    def test_as_in_plain_python(
        self, rows: int, columns: int, values: int, ratio: float, mutual: bool, seed: int
    ) -> None:
        config = MatcherConfig(ratio, mutual or ratio == 1)
        random = np.random.default_rng(seed)
        a, b = (random.integers(0, values, (count, 3)).astype(np.float32) for count in (rows, columns))
        found = nearest_neighbours(a, b)
        matches, expected = select(found, config), self.naive(found, config)
        assert matches.indices.tolist() == [[row, partner] for row, partner, _ in expected]
        np.testing.assert_allclose(matches.score, [score for *_, score in expected], atol=TOLERANCE["float32"])
        assert (matches.indices.dtype, matches.score.dtype) == (np.int32, np.float32)
        assert ((matches.score >= 0) & (matches.score <= 1)).all()

    def test_the_ratio_test_leaves_out_what_is_ambiguous(self) -> None:
        a = np.array([[0, 0], [10, 0]], np.float32)
        b = np.array([[1, 0], [0, 1.05], [10, 1]], np.float32)
        found = nearest_neighbours(a, b)
        assert select(found, MatcherConfig(0.9)).indices.tolist() == [[1, 2]]
        assert select(found, MatcherConfig(1)).indices.tolist() == [[0, 0], [1, 2]]

    def test_mutual_makes_one_to_one(self, sift: tuple[Features, Features]) -> None:
        mutual, one_way = (match_features(*sift, MatcherConfig(0.9, mutual)) for mutual in (True, False))
        assert len(np.unique(mutual.indices[:, 1])) == len(mutual)
        assert len(np.unique(one_way.indices[:, 1])) < len(one_way)
        assert {tuple(pair) for pair in mutual.indices} < {tuple(pair) for pair in one_way.indices}


class TestMatchFeatures:
    @pytest.mark.parametrize("detector", ["sift", "orb"])
    def test_nothing_matches_nothing(
        self, sift: tuple[Features, Features], orb: tuple[Features, Features], detector: str
    ) -> None:
        some = (sift if detector == "sift" else orb)[0]
        nothing = first(some, 0)
        for a, b in ((some, nothing), (nothing, some), (nothing, nothing)):
            assert match_features(a, b) is NO_MATCHES
        assert len(NO_MATCHES) == 0

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_single_keypoint(self, sift: tuple[Features, Features], count: int) -> None:
        a = sift[0]
        assert match_features(first(a, count), a).indices.tolist() == [[row, row] for row in range(count)]

    def test_a_picture_matches_itself(self, sift: tuple[Features, Features], orb: tuple[Features, Features]) -> None:
        for features, _ in (sift, orb):
            matches = match_features(features, features)
            assert len(matches) > 0.98 * len(features)  # two keypoints with one descriptor are ambiguous
            np.testing.assert_array_equal(matches.indices[:, 0], matches.indices[:, 1])
            assert (matches.score == 1).all()

    def test_the_default_is_mutual_with_a_ratio(self, orb: tuple[Features, Features]) -> None:
        expected = select(brute_force(*(features.descriptors for features in orb)), MatcherConfig(0.9, True))
        matches = match_features(*orb)
        np.testing.assert_array_equal(matches.indices, expected.indices)
        np.testing.assert_array_equal(matches.score, expected.score)
        assert (np.diff(matches.indices[:, 0]) > 0).all()

    def test_two_detectors_do_not_match(self, sift: tuple[Features, Features], orb: tuple[Features, Features]) -> None:
        with pytest.raises(ValueError, match="different detectors"):
            match_features(sift[0], orb[0])

    def test_two_runs_agree(self, sift: tuple[Features, Features]) -> None:
        for first, second in zip(astuple(match_features(*sift)), astuple(match_features(*sift)), strict=True):
            np.testing.assert_array_equal(first, second)


class TestConfig:
    @pytest.mark.parametrize("ratio", [0.0, -1.0, 1.01, float("nan"), float("inf")])
    def test_a_ratio_that_makes_no_sense(self, ratio: float) -> None:
        with pytest.raises(UsageError, match="--ratio") as error:
            MatcherConfig(ratio=ratio)
        assert error.value.hint

    def test_no_test_at_all(self) -> None:
        with pytest.raises(UsageError, match="right or wrong") as error:
            MatcherConfig(ratio=1, mutual=False)
        assert error.value.hint


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_five_thousand_against_five_thousand_in_little_memory(kind: str) -> None:
    """Their distances alone would take 100 MB."""
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 256, (5000, 128 if kind == "sift" else 32)).astype(np.uint8) for _ in range(2))
    rooted = [root_sift(a), root_sift(b)]
    tracemalloc.start()
    try:
        if kind == "sift":
            nearest_neighbours(*rooted, unit_length=True)
        else:
            nearest_binary(a, b)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64e6
