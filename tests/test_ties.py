"""Patches of overlapping photos are found where they belong, by hundredths of a pixel; what has moved is not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from exact_warps import corner_error, photo, shift, size_of, view

from featkit.local.geometry import corners_of, transform
from featkit.opencv import cv2
from featkit.stitching.ties import Correspondences, Reduced, Tie, keypoint_covariance, tie

NAMES = ("coffee", "chelsea", "china", "camera")
#: Pixels, of exact warps with noise and another exposure. The median error of a patch: .06 to .08 measured; the mean
#: error of all: up to .03.
EXACT_PX = 0.12
BIAS_PX = 0.05
KEYPOINT_NOISE = 0.5


@cache
def pair(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey photo, another of two thirds of what it shows, from aside and with another exposure; and the truth."""
    a = photo(name, 480)
    size = size_of(a)
    random = np.random.default_rng(len(name))
    corners = corners_of(size)
    moved = corners + random.uniform(-30, 30, (4, 2)) + np.array([-0.3 * size[0], 20])
    truth = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return a[:, :, 0], view(a, truth, size)[:, :, 0], np.asarray(truth)


def collage() -> np.ndarray:
    """A picture of 2240 × 1500 pixels with detail to the last of them."""
    parts = [cv2.resize(photo(name, 640)[:, :, 0], (560, 375), interpolation=cv2.INTER_AREA) for name in NAMES]
    rows = [[parts[(row + column) % 4][:: (-1) ** row, :: (-1) ** column] for column in range(4)] for row in range(4)]
    return np.block(rows)


def keypoints(
    truth: np.ndarray, a: np.ndarray, b: np.ndarray, *, count: int = 200, wrong: float = 0.3
) -> Correspondences:
    """Matches in random places of both, some of which belong nowhere."""
    random = np.random.default_rng(0)
    xy_a = random.uniform((0, 0), size_of(a), (count, 2))
    xy_b = transform(truth, xy_a) + random.normal(0, KEYPOINT_NOISE, (count, 2))
    bad = random.random(count) < wrong
    xy_b[bad] = random.uniform((0, 0), size_of(b), (int(bad.sum()), 2))
    shown = ((xy_b >= 0) & (xy_b < size_of(b))).all(1)
    covariance = np.tile(KEYPOINT_NOISE**2 * np.eye(2), (count, 1, 1))
    return Correspondences(xy_a, xy_b, covariance)[shown]


def no_keypoints() -> Correspondences:
    return Correspondences(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2, 2)))


def tied(a: np.ndarray, b: np.ndarray, matrix: np.ndarray, matches: Correspondences, seed: int = 0) -> Tie:
    return tie(Reduced.of(a), Reduced.of(b), matrix, matches, seed)


def patches(found: Tie) -> Correspondences:
    return found.used[: found.patches]


def errors(matches: Correspondences, truth: np.ndarray) -> np.ndarray:
    """N×2 pixels of b."""
    return np.asarray(matches.xy_b - transform(truth, matches.xy_a))


def assert_same(one: Tie, other: Tie) -> None:
    first, second = one.to_arrays(), other.to_arrays()
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


class TestPatches:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_exact(self, name: str) -> None:
        """From a homography that is four pixels off."""
        a, b, truth = pair(name)
        found = tied(a, b, shift(3, -2.5) @ truth, keypoints(truth, a, b))

        assert found.patches > 80
        off = errors(patches(found), truth)
        assert np.median(np.linalg.norm(off, axis=1)) < EXACT_PX
        assert np.abs(off.mean(0)).max() < BIAS_PX
        assert np.abs(np.median(off, axis=0)).max() < BIAS_PX
        assert corner_error(found.matrix, truth, size_of(a)) < 0.4
        assert found.correlation > 0.9
        assert found.alike > 0.9
        assert found.blocks > 20

    @pytest.mark.parametrize("name", NAMES)
    def test_say_how_exact_they_are(self, name: str) -> None:
        """1.4 is the median square of a normal distribution of two dimensions, in its own deviations."""
        a, b, truth = pair(name)
        found = patches(tied(a, b, truth, no_keypoints()))
        off = errors(found, truth)
        squares = np.einsum("ni,nij,nj->n", off, np.linalg.inv(found.covariance), off)
        assert 0.3 < np.median(squares) < 3

    @pytest.mark.parametrize("off", [(9.0, -6.0), (-12.0, 5.0)])
    def test_a_coarse_look_comes_first(self, off: tuple[float, float]) -> None:
        """Patches are followed by three pixels; at a third of the size that is nine."""
        size = 1440, 960
        large_a, large_b = (cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in pair("coffee")[:2])
        scaling = np.array([[3, 0, 1], [0, 3, 1], [0, 0, 1.0]])
        truth = scaling @ pair("coffee")[2] @ np.linalg.inv(scaling)

        found = tied(large_a, large_b, shift(*off) @ truth, no_keypoints())
        assert corner_error(found.matrix, truth, size) < 1.5
        assert np.median(np.linalg.norm(errors(patches(found), truth), axis=1)) < 0.6

    def test_of_larger_photos_lie_in_pixels_of_these(self) -> None:
        """Two parts of one large picture, one of which is compared at a smaller size. Forgetting that pixels have an
        extent would be an error of .17 at three quarters, of half a pixel at half."""
        picture = collage()
        noise = np.random.default_rng(0).normal(0, 2, picture.shape)
        noisy = np.clip(0.8 * picture + 20 + noise, 0, 255).round().astype(np.uint8)
        large, small = np.ascontiguousarray(picture[:1200, :1600]), np.ascontiguousarray(noisy[301:861, 913:1613])
        assert Reduced.of(large).scale < Reduced.of(small).scale == 1
        for a, b, truth in ((large, small, shift(-913, -301)), (small, large, shift(913, 301))):
            found = tied(a, b, shift(3, -3) @ truth, no_keypoints())
            off = errors(patches(found), truth)
            assert np.abs(off.mean(0)).max() < 2 * BIAS_PX
            assert np.median(np.linalg.norm(off, axis=1)) < 2 * EXACT_PX
            assert corner_error(found.matrix, truth, size_of(a)) < 0.3

    @pytest.mark.parametrize("times", [0.4, 2.5])
    def test_of_a_photo_from_nearer(self, times: float) -> None:
        a = photo("camera", 480)
        truth = shift(-60, -40) @ np.diag([times, times, 1])
        width, height = size_of(a)
        size = (min(width, int(times * width) - 60), min(height, int(times * height) - 40))
        b = view(a, truth, size, samples=3)[:, :, 0]
        found = tied(a[:, :, 0], b, shift(1, -1) @ truth, no_keypoints())
        assert found.patches >= 12
        assert np.median(np.linalg.norm(errors(patches(found), truth), axis=1)) < max(times, 1) * EXACT_PX

    def test_are_not_where_a_photo_is_burnt_out(self) -> None:
        a, b, truth = pair("china")
        bright = np.clip(b * 1.5, 0, 255).astype(np.uint8)
        found = patches(tied(a, bright, truth, no_keypoints()))
        assert len(found) > 10
        x, y = found.xy_b.round().astype(int).T
        assert (bright[y, x] < 255).all()
        assert np.abs(errors(found, truth).mean(0)).max() < 3 * BIAS_PX


class TestWhatMoves:
    @pytest.mark.parametrize("step", [1.5, 5.0, 40.0])
    def test_contributes_nothing(self, step: float) -> None:
        """A cat that walks across the view of a temple: seen in both photos, and somewhere else in the second."""
        a, b, truth = (np.array(each) for each in pair("china"))
        cat = photo("chelsea", 200)[20:120, 40:140, 0]
        disc = np.hypot(*(np.mgrid[:100, :100] - 49.5)) < 50
        there = np.array([270.0, 150.0])
        here = transform(truth, there[None])[0].round() + np.array([step, 0]).round()
        for picture, (x, y) in ((a, there.astype(int)), (b, here.astype(int))):
            picture[y - 50 : y + 50, x - 50 : x + 50][disc] = cat[disc]

        found = tied(a, b, shift(2, -1) @ truth, keypoints(truth, a, b))

        matches = patches(found)
        assert len(matches) > 60
        off = np.linalg.norm(errors(matches, truth), axis=1)
        inside = np.linalg.norm(matches.xy_b - here, axis=1) < 40
        assert np.median(off[~inside]) < EXACT_PX
        assert corner_error(found.matrix, truth, size_of(a)) < 0.5
        if step >= 5:
            assert (off[inside] > 1.5).sum() <= 2
            assert inside.sum() <= 4

    def test_keypoints_far_from_where_the_patches_have_them_are_none(self) -> None:
        a, b, truth = pair("coffee")
        found = tied(a, b, truth, keypoints(truth, a, b, wrong=0.5))
        for part in (found.used[found.patches :], found.held_out):
            assert len(part) > 5
            distance = np.linalg.norm(part.xy_b - transform(found.matrix, part.xy_a), axis=1)
            assert distance.max() < 0.015 * np.hypot(*size_of(b))


class TestHeldOut:
    @pytest.mark.parametrize("count", [0, 3, 60, 201])
    def test_is_a_fifth_that_the_adjustment_never_sees(self, count: int) -> None:
        a, b, truth = pair("coffee")
        matches = keypoints(truth, a, b, wrong=0)[:count]
        found = tied(a, b, truth, matches)
        kept = found.used[found.patches :]
        assert len(found.held_out) == len(matches) // 5
        assert len(kept) + len(found.held_out) == len(matches)
        together = kept.joined(found.held_out)
        for given, split in zip(
            (matches.xy_a, matches.xy_b, matches.covariance),
            (together.xy_a, together.xy_b, together.covariance),
            strict=True,
        ):
            rows = np.lexsort(together.xy_a.T), np.lexsort(matches.xy_a.T)
            np.testing.assert_allclose(split[rows[0]], given[rows[1]], atol=1e-9)
        assert not set(map(tuple, kept.xy_a)) & set(map(tuple, found.held_out.xy_a))

    def test_is_drawn_by_the_seed(self) -> None:
        a, b, truth = pair("coffee")
        matches = keypoints(truth, a, b)
        one, again, other = (tied(a, b, truth, matches, seed) for seed in (1, 1, 2))
        assert_same(one, again)
        assert not np.array_equal(one.held_out.xy_a, other.held_out.xy_a)
        np.testing.assert_array_equal(patches(one).xy_b, patches(other).xy_b)


class TestNothingToCompare:
    def check(self, found: Tie, matches: Correspondences) -> None:
        assert (found.patches, found.correlation) == (0, 0)
        assert found.alike < 0.3
        assert len(found.used) + len(found.held_out) <= len(matches)
        assert_same(Tie.from_arrays(found.to_arrays()), found)

    @pytest.mark.parametrize(("x", "y"), [(2000, 0), (-470, 0), (0, 310), (1e9, -1e9)])
    def test_photos_that_do_not_overlap(self, x: float, y: float) -> None:
        a, b, truth = pair("coffee")
        matches = keypoints(truth, a, b)
        self.check(tied(a, b, shift(x, y), matches), matches)

    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_flat_photos(self, level: int) -> None:
        a, b, truth = pair("coffee")
        flat = np.full(a.shape, level, np.uint8)
        matches = keypoints(truth, a, b)
        for one, other in ((flat, b), (a, flat), (flat, flat)):
            self.check(tied(one, other, truth, matches), matches)

    @pytest.mark.parametrize("size", [(1, 1), (2, 2), (300, 1), (20, 20)])
    def test_tiny_photos(self, size: tuple[int, int]) -> None:
        tiny = np.full(size[::-1], 7, np.uint8)
        self.check(tied(tiny, tiny, np.eye(3), no_keypoints()), no_keypoints())
        a = pair("coffee")[0]
        self.check(tied(a, tiny, np.eye(3), no_keypoints()), no_keypoints())
        self.check(tied(tiny, a, np.eye(3), no_keypoints()), no_keypoints())

    @pytest.mark.parametrize(
        "matrix",
        [
            pytest.param([[1, 0, 0], [0, 1, 0], [-1 / 240, 0, 1]], id="horizon through the middle"),
            pytest.param([[1, 0, 0], [0, 1, 0], [-1 / 100, 0, 1]], id="horizon through the left"),
            pytest.param([[-1, 0, 479], [0, 1, 0], [0, 0, 1]], id="mirror image"),
            pytest.param(np.diag([1e6, 1e6, 1]), id="enlarged"),
            pytest.param(np.diag([1e-6, 1e-6, 1]), id="reduced"),
            pytest.param(np.diag([1, 1e-9, 1]), id="to a line"),
        ],
    )
    def test_what_no_camera_makes_is_no_proof(self, matrix: np.ndarray) -> None:
        a, b, _ = pair("coffee")
        found = tied(a, b, np.asarray(matrix, float), no_keypoints())
        assert found.patches < 30
        assert found.alike < 0.5

    def test_two_strangers(self) -> None:
        found = tied(pair("coffee")[0], pair("chelsea")[0], np.eye(3), no_keypoints())
        assert found.alike < 0.3


class TestKeypointCovariance:
    def test_grows_with_the_keypoint_and_as_the_picture_was_reduced(self) -> None:
        sizes = np.array([2.0, 4, 8])
        variance = keypoint_covariance(sizes, 1.0)
        assert variance.shape == (3, 2, 2)
        np.testing.assert_allclose(variance, variance[:, :1, :1] * np.eye(2))
        np.testing.assert_allclose(variance[:, 0, 0], 0.6**2 * sizes / 4)
        np.testing.assert_allclose(keypoint_covariance(sizes, 0.25), 16 * variance)

    def test_of_none(self) -> None:
        assert keypoint_covariance(np.zeros(0), 1.0).shape == (0, 2, 2)


class TestArrays:
    def test_there_and_back(self) -> None:
        a, b, truth = pair("coffee")
        for found in (tied(a, b, truth, keypoints(truth, a, b)), tied(a, b, shift(1e4, 0), no_keypoints())):
            again = Tie.from_arrays(found.to_arrays())
            assert_same(found, again)
            assert (again.patches, again.correlation, again.alike, again.blocks) == (
                found.patches,
                found.correlation,
                found.alike,
                found.blocks,
            )
            assert type(again.patches) is type(again.blocks) is int

    def test_a_missing_array(self) -> None:
        arrays = tied(*pair("coffee"), no_keypoints()).to_arrays()
        for name in arrays:
            with pytest.raises(KeyError):
                Tie.from_arrays({other: array for other, array in arrays.items() if other != name})


def test_correspondences_are_resized_about_the_pixels_edges() -> None:
    matches = Correspondences(np.array([[-0.5, 9.5]]), np.array([[3.5, 1.5]]), np.eye(2)[None])
    half = matches.rescaled(0.5, 0.25)
    np.testing.assert_allclose(half.xy_a, [[-0.5, 4.5]])
    np.testing.assert_allclose(half.xy_b, [[0.5, 0.0]])
    np.testing.assert_allclose(half.covariance, np.eye(2)[None] / 16)
