"""Patches are found where the picture was moved to, by hundredths of a pixel, and say how exactly they know it."""

from __future__ import annotations

import numpy as np
import pytest
from exact_warps import photo
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as moved_by_spline

from featkit.local.patches import Displacements, PatchTracker

REACH = 7  # half the side of a patch


def gray(name: str = "chelsea", longest_side: int = 320) -> np.ndarray:
    return photo(name, longest_side)[:, :, 0]


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape, bool)


def moved(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The same, to the right by x and down by y pixels, by splines of fifth order."""
    exact = moved_by_spline(image.astype(float), (y, x), order=5, mode="mirror")
    return np.clip(exact.round(), 0, 255).astype(np.uint8)


def track(fixed: np.ndarray, moving: np.ndarray) -> Displacements:
    return PatchTracker(fixed, everywhere(fixed)).track(moving)


def steps(found: Displacements) -> np.ndarray:
    """From the moving picture to the fixed one."""
    return found.found - found.xy


@pytest.mark.parametrize("name", ["chelsea", "coffee", "china"])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.25, -0.4), (-0.5, 0.1), (0.03, 0.02)])
def test_a_known_shift(name: str, x: float, y: float) -> None:
    fixed = gray(name)

    found = track(fixed, moved(fixed, x, y))

    assert len(found) > 60
    error = steps(found) + np.array([x, y])
    # One step goes nine tenths of the way.
    assert np.linalg.norm(np.median(error, axis=0)) < 0.01 + 0.15 * np.hypot(x, y)
    assert np.median(np.linalg.norm(error, axis=1)) < 0.02 + 0.3 * np.hypot(x, y)


@pytest.mark.parametrize(("x", "y"), [(1.3, -0.9), (-1.6, 1.5)])
def test_more_than_a_pixel_takes_another_step(x: float, y: float) -> None:
    """One step goes most of the way; after it the picture is moved and looked at again."""
    fixed = gray()
    tracker = PatchTracker(fixed, everywhere(fixed))
    known = np.zeros(2)
    errors = []
    for _ in range(4):
        step = np.median(steps(tracker.track(moved(fixed, *(known + np.array([x, y]))))), axis=0)
        known = known + step
        errors.append(np.hypot(*(known + np.array([x, y]))))

    assert errors[0] < 0.5 * np.hypot(x, y)
    assert errors[-1] < 0.02


def test_brightness_and_contrast_do_not_matter() -> None:
    fixed = gray()
    moving = moved(fixed, 0.3, -0.2)
    exposed = (0.6 * moving + 40).round().astype(np.uint8)
    lit = np.clip(moving * np.linspace(0.5, 1, fixed.shape[1]), 0, 255).round().astype(np.uint8)

    for other in (exposed, lit):
        error = steps(track(fixed, other)) + np.array([0.3, -0.2])
        assert np.abs(np.median(error, axis=0)).max() < 0.05


def test_places_are_whole_pixels_of_the_fixed_picture_apart_from_each_other() -> None:
    found = track(gray(), gray())

    places = found.xy
    np.testing.assert_array_equal(places, places.round())
    distance = np.abs(places[:, None] - places[None]).max(2)
    assert distance[~np.eye(len(places), dtype=bool)].min() > 6
    assert np.abs(steps(found)).max() < 1e-3


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_flat_picture_has_no_patches(value: int) -> None:
    flat = np.full((120, 160), value, np.uint8)

    tracker = PatchTracker(flat, everywhere(flat))

    assert len(tracker) == 0
    assert len(tracker.track(flat)) == 0
    assert tracker.track(gray()[:120, :160]).covariance.shape == (0, 2, 2)


def test_a_straight_edge_fixes_no_place() -> None:
    edge = np.where(np.arange(160) < 80, 60, 190).astype(np.uint8)
    vertical = np.tile(edge, (120, 1))

    assert len(PatchTracker(vertical, everywhere(vertical))) == 0


def test_along_streaks_the_place_is_less_certain_than_across() -> None:
    random = np.random.default_rng(0)
    streaks = gaussian_filter(random.normal(0, 1, (160, 160)), (1.5, 9))
    across = (128 + 40 * streaks / streaks.std()).round()

    for fixed, along in ((across, 0), (across.T, 1)):
        noisy = np.clip(fixed + random.normal(0, 3, fixed.shape), 0, 255).round().astype(np.uint8)
        variance = np.diagonal(track(fixed.astype(np.uint8), noisy).covariance, axis1=1, axis2=2)
        assert len(variance) > 10
        assert np.median(variance[:, along] / variance[:, 1 - along]) > 5


def test_the_covariance_is_the_error_to_expect() -> None:
    """With noise: Mahalanobis distances of two degrees of freedom have the median 1.39."""
    fixed = gray("coffee")
    random = np.random.default_rng(0)
    distances = []
    for noise in (4, 10):
        moving = np.clip(moved(fixed, 0.2, 0.1) + random.normal(0, noise, fixed.shape), 0, 255).round()
        found = track(fixed, moving.astype(np.uint8))
        error = steps(found) + np.array([0.2, 0.1])
        distances.append(np.median(np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance), error)))

    assert min(distances) > 0.4
    assert max(distances) < 4


def test_more_noise_more_variance() -> None:
    fixed = gray()
    random = np.random.default_rng(0)
    variances = [
        np.median(np.trace(track(fixed, noisy).covariance, axis1=1, axis2=2))
        for noise in (1, 5, 15)
        for noisy in [np.clip(fixed + random.normal(0, noise, fixed.shape), 0, 255).astype(np.uint8)]
    ]

    assert variances[0] < variances[1] < variances[2]


def test_covariances_are_symmetric_and_positive() -> None:
    found = track(gray(), moved(gray(), 0.4, 0.4))

    np.testing.assert_allclose(found.covariance, np.swapaxes(found.covariance, 1, 2))
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()


def test_the_correlation_tells_the_same_from_another() -> None:
    fixed, other = gray("chelsea")[:200, :300], gray("coffee")[:200, :300]

    same, shifted, unrelated, negative = (
        track(fixed, moving).correlation for moving in (fixed, moved(fixed, 0.3, 0.3), other, 255 - fixed)
    )

    assert same.min() > 0.999
    assert np.median(shifted) > 0.9
    assert abs(np.median(unrelated)) < 0.15
    assert negative.size == 0 or negative.max() < -0.99


def test_patches_lie_whole_where_they_may() -> None:
    fixed = gray()
    valid = np.zeros(fixed.shape, bool)
    valid[30:150, 40:200] = True
    valid[80:90, 100:120] = False

    found = PatchTracker(fixed, valid).track(fixed)

    assert 5 < len(found) < len(track(fixed, fixed))
    for x, y in found.xy.astype(int):
        assert valid[y - REACH : y + REACH + 1, x - REACH : x + REACH + 1].all()


def test_what_lies_outside_the_mask_changes_nothing() -> None:
    fixed = gray()
    valid = np.zeros(fixed.shape, bool)
    valid[:, :160] = True
    moving = moved(fixed, 0.3, 0.2)
    overwritten = moving.copy()
    overwritten[:, 180:] = 255 - moving[:, 180:]

    whole, part = (PatchTracker(fixed, valid).track(each) for each in (moving, overwritten))

    np.testing.assert_array_equal(whole.xy, part.xy)
    np.testing.assert_allclose(whole.found, part.found, atol=1e-4)


def test_there_are_patches_only_where_all_of_one_is_in_the_picture() -> None:
    for size in ((1, 1), (5, 300), (20, 20)):
        noise = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
        assert len(track(noise, noise)) == 0
    noise = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    found = track(noise, noise)
    assert len(found) > 0
    assert (found.xy >= REACH).all()
    assert (found.xy < 40 - REACH).all()
