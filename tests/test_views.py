"""Pixels to rays, or to points of a plane, and back; what no lens can show is nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TOLERANCE
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from known_cameras import SIZE, camera, pixels, turned

from featkit.local.geometry import corners_of, transform
from featkit.opencv import cv2
from featkit.stitching.views import View

angles = st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
focal_lengths = st.floats(0.3, 8).map(lambda longer_sides: longer_sides * max(SIZE))
# Shares of the radius by which each of the two terms moves the corners: at most as much as leaves every corner visible.
bends = st.tuples(st.floats(-0.08, 0.12), st.floats(-0.02, 0.05))


def bent(bend: tuple[float, float], focal_px: float) -> tuple[float, float]:
    """k1, k2 of such a bend, so that short and long lenses are bent alike."""
    corner = np.hypot(*SIZE) / 2 / focal_px
    return bend[0] / corner**2, bend[1] / corner**4


def grid(size: tuple[int, int]) -> np.ndarray:
    """N×2, with the corners of the outermost pixels."""
    xs, ys = (np.linspace(-0.5, side - 0.5, 9) for side in size)
    return np.stack([each.ravel() for each in np.meshgrid(xs, ys)], 1)


def unit(rays: np.ndarray) -> np.ndarray:
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


class TestRotatingCamera:
    @given(angles, focal_lengths, bends)
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_a_pixel_s_ray_comes_back_to_it(
        self, angle: tuple[float, float, float], focal_px: float, bend: tuple[float, float]
    ) -> None:
        view = camera(turned(*angle), focal_px, distortion=bent(bend, focal_px), axis=(7, -4))
        xy = grid(SIZE)
        np.testing.assert_allclose(view.project(view.lift(xy)), xy, atol=1e-6)

    @given(angles, focal_lengths, bends, st.floats(1e-3, 1e3))
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_a_ray_s_pixel_has_that_ray(
        self, angle: tuple[float, float, float], focal_px: float, bend: tuple[float, float], length: float
    ) -> None:
        rotation = turned(*angle)
        view = camera(rotation, focal_px, distortion=bent(bend, focal_px))
        ahead = np.column_stack([(grid(SIZE) - view.centre) / focal_px, np.ones(81)]) * length @ rotation.T
        np.testing.assert_allclose(unit(view.lift(view.project(ahead))), unit(ahead), atol=1e-8)

    @given(angles, focal_lengths, st.floats(-0.25, 0.25), st.floats(-0.25, 0.25))
    @example((0.0, 0.0, 0.0), 200.0, 0.25, -0.0625)  # Newton's method alone leaves the part before the fold
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_whatever_the_lens_no_ray_is_seen_at_two_pixels(
        self, angle: tuple[float, float, float], focal_px: float, k1: float, k2: float
    ) -> None:
        """A lens may be so bent that some pixels see nothing."""
        view = camera(turned(*angle), focal_px, distortion=(k1, k2))
        xy = pixels(SIZE, 100, np.random.default_rng(0))
        rays = view.lift(xy)
        seen = np.isfinite(rays).all(1)
        np.testing.assert_allclose(view.project(rays[seen]), xy[seen], atol=0.05)
        assert np.isinf(view.project(rays[~seen])).all()
        radius = np.linalg.norm(xy - view.centre, axis=1) / focal_px
        distances = np.linspace(0, 10, 100_001)
        values = distances * (1 + k1 * distances**2 + k2 * distances**4)
        falling = np.flatnonzero(np.diff(values) <= 0)
        farthest = values[falling[0]] if len(falling) else np.inf
        clear = np.abs(radius - farthest) > 0.01 * radius  # at the fold itself the inverse is not defined
        np.testing.assert_array_equal(seen[clear], (radius < farthest)[clear])

    @pytest.mark.parametrize("distortion", [(0.0, 0.0), (-0.11, 0.03), (0.07, -0.01), (0.0, 0.02)])
    @pytest.mark.parametrize("angle", [(0, 0, 0), (30, -20, 10), (-160, 50, -75)], ids=str)
    def test_as_opencv_projects(self, distortion: tuple[float, float], angle: tuple[float, float, float]) -> None:
        rotation, focal_px = turned(*angle), 480.0
        view = camera(rotation, focal_px, distortion=distortion)
        random = np.random.default_rng(0)
        rays = np.column_stack([random.uniform(-0.8, 0.8, (200, 2)), np.ones(200)]) @ rotation.T
        matrix = np.array([[focal_px, 0, view.centre[0]], [0, focal_px, view.centre[1]], [0, 0, 1]])
        vector = cv2.Rodrigues(rotation.T)[0]
        expected = cv2.projectPoints(rays, vector, np.zeros(3), matrix, np.array([*distortion, 0, 0]))[0]
        np.testing.assert_allclose(view.project(rays), expected.reshape(-1, 2), atol=1e-6)

    def test_the_axes(self) -> None:
        """x to the right, y down, z ahead; pixel centres are whole numbers."""
        view = camera(turned(0), 100.0, size=(5, 3))
        seen = view.project(np.array([[0, 0, 1.0], [1, 0, 1], [0, 1, 1]]))
        np.testing.assert_allclose(seen, [[2, 1], [102, 1], [2, 101]])
        to_the_right = camera(turned(90))
        np.testing.assert_allclose(unit(to_the_right.lift(to_the_right.centre[None])), [[1, 0, 0]], atol=1e-12)

    def test_what_lies_behind_the_camera_is_nowhere(self) -> None:
        view = camera(turned(25, 10, 5), distortion=(-0.05, 0.0))
        ahead = unit(view.lift(grid(SIZE)))
        assert np.isfinite(view.project(ahead)).all()
        assert np.isinf(view.project(-ahead)).all()
        sideways = np.cross(ahead[40], [0, 1, 0])
        assert np.isinf(view.project(np.array([sideways, -sideways]))).all()

    def test_what_the_lens_turns_back_is_nowhere(self) -> None:
        """r (1 - r² / 4) rises up to r = 1.155; a ray farther out would be seen in the middle once more."""
        view = camera(turned(0), 600.0, distortion=(-0.25, 0.0))
        outwards = np.column_stack([np.linspace(0, 3, 301), np.zeros(301), np.ones(301)])
        shown = np.isfinite(view.project(outwards)).all(1)
        np.testing.assert_array_equal(shown, outwards[:, 0] < np.sqrt(4 / 3))

    @given(angles, st.floats(1e-9, 1e9))
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_the_scale_of_the_matrix_means_nothing(self, angle: tuple[float, float, float], factor: float) -> None:
        view = camera(turned(*angle))
        scaled = View(SIZE, factor * view.to_world, view.focal_px)
        rays = unit(np.random.default_rng(0).normal(size=(300, 3)))
        np.testing.assert_allclose(scaled.project(rays), view.project(rays), rtol=1e-6)


class TestPlane:
    @given(st.lists(st.floats(-0.4, 0.4), min_size=8, max_size=8))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_there_and_back(self, corners: list[float]) -> None:
        """Corners that move by up to .4 of a side."""
        moved = corners_of(SIZE) + np.array(corners).reshape(4, 2) * SIZE
        matrix = np.asarray(cv2.getPerspectiveTransform(corners_of(SIZE).astype(np.float32), moved.astype(np.float32)))
        xy = pixels(SIZE, 100, np.random.default_rng(0))
        depth = np.column_stack([xy, np.ones(100)]) @ matrix[2]
        assume(depth.min() > 0.05)
        view = View(SIZE, matrix)
        np.testing.assert_allclose(view.lift(xy)[:, :2] / view.lift(xy)[:, 2:], transform(matrix, xy), rtol=1e-9)
        np.testing.assert_allclose(view.project(view.lift(xy)), xy, atol=1e-6)

    def test_what_lies_beyond_the_horizon_is_nowhere(self) -> None:
        """The plane from aside: 1 - x / 800, so its points' x are those of a photo that ends at 800."""
        view = View(SIZE, np.array([[1, 0, 0], [0, 1, 0], [-1 / 800, 0, 1]]))
        x = np.array([-5000, -900, -700, 0, 100, 3000])
        points = np.column_stack([x, np.zeros(6), np.ones(6)])
        np.testing.assert_array_equal(np.isfinite(view.project(points)).all(1), x > -800)

    def test_a_plane_has_no_distortion(self) -> None:
        xy = grid(SIZE)
        np.testing.assert_array_equal(View(SIZE, np.eye(3), None, (0.1, 0.1)).lift(xy)[:, :2], xy)


@pytest.mark.parametrize("view", [camera(turned(5), distortion=(0.1, 0.0)), View(SIZE, np.eye(3))])
def test_no_points(view: View) -> None:
    assert view.lift(np.zeros((0, 2))).shape == (0, 3)
    assert view.project(np.zeros((0, 3))).shape == (0, 2)


def test_the_caller_s_points_stay_as_they_are() -> None:
    view = camera(turned(5), distortion=(-0.2, 0.0))
    xy, rays = grid(SIZE), np.random.default_rng(0).normal(size=(50, 3))
    before = xy.copy(), rays.copy()
    view.lift(xy)
    view.project(rays)
    np.testing.assert_array_equal(xy, before[0])
    np.testing.assert_array_equal(rays, before[1])


def test_the_centre_is_that_of_the_pixels() -> None:
    np.testing.assert_allclose(camera(turned(0), size=(4, 3)).centre, [1.5, 1.0], atol=TOLERANCE["float64"])
