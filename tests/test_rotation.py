"""Known cameras come back from what they see: turns, focal length, lens; with noise, with lies, and all around."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from known_cameras import SIZE, camera, edges_between, overlapping, seen_by_both, turned

from featkit.stitching.adjustment import Adjusted, Edge, adjust, bundle, held_out_errors
from featkit.stitching.rotation import RUNAWAY, Cameras, Photo, adjust_rotation
from featkit.stitching.ties import Correspondences
from featkit.stitching.views import View

FOCAL = 600.0
LENS = (-0.08, 0.02)
#: Pixels, root mean square over what pairs share, where matches have a noise of 0.1: 0.01 to 0.025 measured.
EXACT_PX = 0.04
#: Share of the focal length, of eight photos and more: 1e-5 to 2e-4 measured.
EXACT_FOCAL = 1e-3


def row(count: int, step: float, focal_px: float = FOCAL, **lens: tuple[float, float]) -> list[View]:
    """Photos side by side, held not quite straight."""
    random = np.random.default_rng(5)
    return [camera(turned(number * step, *random.normal(0, 2, 2)), focal_px, **lens) for number in range(count)]


def placed(views: Sequence[View], edges: Sequence[Edge], exif: float | None) -> tuple[list[View], Cameras]:
    model = adjust_rotation([Photo(view.size, exif) for view in views], edges).model
    return [model.view(number) for number in range(len(views))], model


def error_px(found: Sequence[View], truth: Sequence[View], pairs: Sequence[tuple[int, int]]) -> float:
    """Root mean square distance of where the points of one photo are put in another from where they belong."""
    errors = [
        found[edge.b].project(found[edge.a].lift(edge.used.xy_a)) - edge.used.xy_b
        for edge in edges_between(truth, pairs, seed=99)
    ]
    return float(np.sqrt((np.concatenate(errors) ** 2).sum(1).mean()))


def angle_between(a: View, b: View) -> float:
    """Degrees between the rays of their centres."""
    rays = [view.lift(view.centre[None])[0] for view in (a, b)]
    cosine = rays[0] @ rays[1] / np.prod([np.linalg.norm(ray) for ray in rays])
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


class TestKnownCameras:
    @pytest.mark.parametrize("exif", [FOCAL, None, 0.7 * FOCAL, 1.4 * FOCAL], ids=["exif", "no exif", "less", "more"])
    def test_a_row(self, exif: float | None) -> None:
        """Whatever EXIF says, and whether or not it says anything."""
        truth = row(8, 20)
        pairs = overlapping(truth)

        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), exif)

        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=EXACT_FOCAL)
        assert angle_between(found[0], found[7]) == pytest.approx(angle_between(truth[0], truth[7]), abs=0.05)

    @pytest.mark.parametrize("exif", [FOCAL, None])
    def test_the_lens(self, exif: float | None) -> None:
        """Two rows say what k1, k2 and the optical axis are: of photos of one row only the axis' height is unsure."""
        truth = [
            camera(turned(20 * number, pitch), FOCAL, distortion=LENS, axis=(6.0, -4.0))
            for pitch in (-12, 12)
            for number in range(5)
        ]
        pairs = overlapping(truth, 0.2)

        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), exif)

        assert error_px(found, truth, pairs) < EXACT_PX
        _, k1, k2, x, y = model.cameras[0]
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=EXACT_FOCAL)
        assert (k1, k2) == (pytest.approx(LENS[0], abs=2e-3), pytest.approx(LENS[1], abs=5e-3))
        assert (x * FOCAL, y * FOCAL) == (pytest.approx(6, abs=0.2), pytest.approx(-4, abs=0.2))

    def test_without_noise_it_is_exact(self) -> None:
        truth = row(5, 22, distortion=LENS)
        pairs = overlapping(truth)
        found, model = placed(truth, edges_between(truth, pairs), None)
        assert error_px(found, truth, pairs) < 1e-3
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=1e-4)

    @pytest.mark.parametrize(("focal_px", "count", "exif"), [(500.0, 14, None), (300.0, 8, None), (300.0, 8, 420.0)])
    def test_a_full_circle_closes(self, focal_px: float, count: int, exif: float | None) -> None:
        truth = row(count, 360 / count, focal_px)
        pairs = overlapping(truth)
        assert (0, count - 1) in pairs

        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), exif)

        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, focal_px, rtol=EXACT_FOCAL)
        around = sum(angle_between(a, b) for a, b in pairwise([*found, found[0]]))
        assert around == pytest.approx(sum(angle_between(a, b) for a, b in pairwise([*truth, truth[0]])), abs=0.05)

    def test_an_open_chain_goes_around_without_being_told_that_it_closes(self) -> None:
        """14 photos over 325 degrees, each tied to the next alone: errors of the focal length add up."""
        truth = row(14, 25, 500.0)
        chain = list(pairwise(range(14)))
        found, _ = placed(truth, edges_between(truth, chain, noise=0.1), None)
        assert error_px(found, truth, chain) < EXACT_PX
        # 0.1 % of the focal length is a third of a degree.
        assert angle_between(found[0], found[13]) == pytest.approx(angle_between(truth[0], truth[13]), abs=0.5)

    def test_a_telephoto_lens(self) -> None:
        """Six photos of 15 degrees: the focal length is unsure by a per cent, and where the photos lie is not."""
        truth = row(6, 6, 2500.0)
        pairs = overlapping(truth)
        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), None)
        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, 2500, rtol=0.03)

    def test_two_cameras_upright_and_not(self) -> None:
        truth = [
            camera(turned(16 * number), *((900.0, (800, 600)) if number % 2 else (FOCAL, (480, 640))))
            for number in range(6)
        ]
        pairs = overlapping(truth)
        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), None)
        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, [FOCAL, 900] * 3, rtol=5e-3)

    def test_a_camera_that_was_turned_by_a_quarter(self) -> None:
        """Photos of one camera share a lens, whichever way up they were taken."""
        sizes = [SIZE, SIZE, SIZE[::-1], SIZE, SIZE[::-1]]
        truth = [camera(turned(17 * number), FOCAL, size) for number, size in enumerate(sizes)]
        pairs = overlapping(truth)
        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), None)
        assert len(model.cameras) == 1
        assert error_px(found, truth, pairs) < EXACT_PX

    def test_focusing_changes_the_focal_length_a_little(self) -> None:
        focals = FOCAL * np.array([1, 1.01, 0.995, 1.005, 0.99])
        truth = [camera(turned(18 * number), focal) for number, focal in enumerate(focals)]
        pairs = overlapping(truth)
        found, model = placed(truth, edges_between(truth, pairs, noise=0.1), FOCAL)
        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, focals, rtol=3e-3)


class TestLies:
    def test_a_fifth_of_the_matches_is_wrong(self) -> None:
        truth = row(8, 20, distortion=LENS)
        pairs = overlapping(truth)
        edges = edges_between(truth, pairs, noise=0.1, wrong=0.2)
        assert np.mean(np.concatenate([_off(edge, truth) for edge in edges]) > 5) > 0.15

        found, model = placed(truth, edges, None)

        assert error_px(found, truth, pairs) < EXACT_PX
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=3 * EXACT_FOCAL)

    @pytest.mark.parametrize("step", [20, 30], ids=["row", "circle"])
    def test_one_wrong_pair(self, step: int) -> None:
        """Photo 7 shows, besides what is around it, what looks like the place to the right of photo 2."""
        truth = row(12, step, 500.0)
        pairs = overlapping(truth, 0.3)
        elsewhere = camera(turned(2 * step + 15, 5), 500.0)
        lie = Edge(2, 7, *(seen_by_both(truth[2], elsewhere, np.random.default_rng(seed)) for seed in (1, 2)))

        found, model = placed(truth, [*edges_between(truth, pairs, noise=0.1), lie], None)

        assert np.median(held_out_errors(found, lie)) > 100
        assert error_px(found, truth, pairs) < 0.5
        np.testing.assert_allclose(model.focals_px, 500, rtol=0.01)

    def test_matches_with_their_own_covariance_count_by_it(self) -> None:
        """Half of them are ten times as exact as the other half, and say so."""
        truth = row(4, 20)
        pairs = overlapping(truth)
        exact, rough = (edges_between(truth, pairs, seed=seed, noise=noise) for seed, noise in ((1, 0.05), (2, 0.5)))
        both = [
            Edge(one.a, one.b, one.used.joined(other.used), one.held_out)
            for one, other in zip(exact, rough, strict=True)
        ]
        errors = [error_px(placed(truth, edges, FOCAL)[0], truth, pairs) for edges in (exact, both, rough)]
        assert errors[1] < 1.5 * errors[0] < 0.5 * errors[2]


def _off(edge: Edge, views: Sequence[View]) -> np.ndarray:
    """Distance of an edge's matches from the truth, pixels."""
    return np.asarray(
        np.linalg.norm(views[edge.b].project(views[edge.a].lift(edge.used.xy_a)) - edge.used.xy_b, axis=1)
    )


class TestLittleIsKnown:
    @pytest.mark.parametrize("exif", [FOCAL, None])
    @pytest.mark.parametrize("step", [0.0, 0.05, 1.0])
    @pytest.mark.parametrize("noise", [0.0, 0.5])
    def test_photos_that_hardly_moved(self, step: float, noise: float, exif: float | None) -> None:
        """They say nothing about the focal length: it stays where it was expected."""
        truth = [camera(turned(0)), camera(turned(step))]

        found, model = placed(truth, edges_between(truth, [(0, 1)], noise=noise), exif)

        assert (model.focals_px < RUNAWAY * max(SIZE) / 4).all()
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=0.1 if exif else 0.4)
        assert error_px(found, truth, [(0, 1)]) < max(noise, 1e-3)

    @pytest.mark.parametrize("count", [1, 2, 4, 8])
    def test_a_handful_of_matches(self, count: int) -> None:
        truth = row(2, 20)
        _, model = placed(truth, edges_between(truth, [(0, 1)], count=count, noise=0.1), None)
        np.testing.assert_allclose(model.focals_px, FOCAL, rtol=0.15)

    def test_a_camera_that_moves_past_a_wall_seems_to_have_a_long_lens(self) -> None:
        """Shifts and nothing else are what an endless focal length would show; that it does not fit as well is for the
        choice of the model."""
        wall = [View(SIZE, np.array([[1, 0, 200.0 * number], [0, 1, 0], [0, 0, 1]])) for number in range(3)]
        _, model = placed(wall, edges_between(wall, list(pairwise(range(3))), noise=0.1), None)
        assert (model.focals_px > 3 * max(SIZE)).all()

    def test_what_cannot_be_seen_is_no_number(self) -> None:
        """Matches between photos that look away from each other neither fail nor warn."""
        truth = [camera(turned(0)), camera(turned(170))]
        nothing = seen_by_both(truth[0], truth[0], np.random.default_rng(0))
        model = cameras_of([turned(0), turned(170)], [[np.log(FOCAL), 0, 0, 0, 0]], [0, 0])
        matches = bundle([Edge(0, 1, nothing, nothing)], 3)
        predicted, _, _ = model.linearise(matches)
        assert np.isnan(predicted).any()
        assert np.isfinite(adjust(model, matches, steps=3).cost)


def cameras_of(rotations: Sequence[np.ndarray], kinds: Sequence[Sequence[float]], groups: Sequence[int]) -> Cameras:
    """kinds: of each camera the logarithm of the focal length, k1, k2, and the axis."""
    return Cameras(
        sizes=np.array([SIZE] * len(rotations), float),
        rotations=np.array(rotations),
        focals=np.random.default_rng(1).normal(0, 0.01, len(rotations)),
        cameras=np.array(kinds),
        groups=np.array(groups),
        expected=np.full(len(kinds), np.log(FOCAL)),
        spread=np.full(len(kinds), 0.1),
    )


class TestModel:
    @pytest.fixture
    def model(self) -> Cameras:
        kinds = [[np.log(FOCAL), -0.1, 0.03, 0.01, -0.02], [np.log(1.1 * FOCAL), 0.05, -0.02, 0.0, 0.015]]
        return cameras_of([turned(14 * number, 3 * number, 5) for number in range(4)], kinds, [0, 1, 0, 1])

    @pytest.fixture
    def edges(self, model: Cameras) -> list[Edge]:
        views = [model.view(number) for number in range(4)]
        return edges_between(views, overlapping(views), count=40, noise=0.5)

    def test_derivatives_are_those_of_small_steps(self, model: Cameras, edges: list[Edge]) -> None:
        matches = bundle(edges, 3)
        predicted, jacobian, parameters = model.linearise(matches)
        np.testing.assert_array_equal(predicted, model.predict(matches))
        count = len(model.prior()[0])
        dense = np.zeros((len(predicted), 2, count))
        for rows, own in zip(matches.edges, parameters, strict=True):
            for column, parameter in enumerate(own):  # a parameter that both photos share appears twice
                dense[rows, :, parameter] += jacobian[rows, :, column]
        for parameter, step in enumerate(1e-6 * np.eye(count)):
            change = (model.moved(step).predict(matches) - model.moved(-step).predict(matches)) / 2e-6
            np.testing.assert_allclose(dense[:, :, parameter], change, atol=1e-5 * max(np.abs(change).max(), 1))

    def test_predicts_what_the_views_do(self, model: Cameras, edges: list[Edge]) -> None:
        matches = bundle(edges, 3)
        predicted = model.predict(matches)
        views = [model.view(number) for number in range(4)]
        for edge, rows in zip(edges, matches.edges, strict=True):
            np.testing.assert_allclose(
                predicted[rows], views[edge.b].project(views[edge.a].lift(matches.xy_a[rows])), atol=1e-7
            )

    def test_the_prior_is_of_what_is_expected(self, model: Cameras) -> None:
        offset, precision = model.prior()
        assert offset.shape == precision.shape == (4 * 4 + 5 * 2,)
        assert (precision > 0).all()
        step = np.random.default_rng(0).normal(0, 0.01, offset.shape)
        moved, _ = model.moved(step).prior()
        turns = np.isin(np.arange(16) % 4, [0, 1, 2])
        np.testing.assert_allclose((moved - offset)[:16][~turns], step[:16][~turns], atol=1e-12)
        np.testing.assert_allclose((moved - offset)[16:], step[16:], atol=1e-12)

    def test_rotations_stay_rotations(self, model: Cameras) -> None:
        for seed in range(20):
            model = model.moved(np.random.default_rng(seed).normal(0, 0.3, len(model.prior()[0])))
        np.testing.assert_allclose(
            model.rotations @ np.swapaxes(model.rotations, 1, 2), np.tile(np.eye(3), (4, 1, 1)), atol=1e-12
        )
        np.testing.assert_allclose(np.linalg.det(model.rotations), 1)


class TestBundle:
    def test_takes_the_most_exact_of_each_cell(self) -> None:
        random = np.random.default_rng(0)
        xy = random.uniform(0, 100, (3000, 2))
        variance = random.uniform(0.01, 1, 3000)
        matches = Correspondences(xy, xy, variance[:, None, None] * np.eye(2))

        chosen = bundle([Edge(0, 1, matches, matches)], 2)

        assert chosen.lengths.tolist() == [200]
        cell = np.clip((xy - xy.min(0)) / np.ptp(xy, axis=0) * 10, 0, 9).astype(int) @ [1, 10]
        best = np.concatenate([np.argsort(np.where(cell == number, variance, np.inf))[:2] for number in range(100)])
        np.testing.assert_array_equal(chosen.xy_b, xy[np.sort(best)])

    def test_edges_lie_one_after_the_other(self) -> None:
        views = row(3, 20)
        edges = edges_between(views, [(0, 1), (2, 1)], count=30)
        matches = bundle(edges, 100)
        assert matches.starts.tolist() == [0, 30, 60]
        for edge, rows in zip(edges, matches.edges, strict=True):
            assert (set(matches.a[rows]), set(matches.b[rows])) == ({edge.a}, {edge.b})
            np.testing.assert_array_equal(matches.xy_a[rows], edge.used.xy_a)


def test_held_out_errors_are_distances_in_b() -> None:
    views = [camera(turned(0)), camera(turned(15))]
    used = seen_by_both(views[0], views[1], np.random.default_rng(0), count=20)
    shifted = Correspondences(used.xy_a, used.xy_b + np.array([3, -4]), used.covariance)
    np.testing.assert_allclose(held_out_errors(views, Edge(0, 1, used, shifted)), 5)
    behind = [views[0], camera(turned(180))]
    assert np.isinf(held_out_errors(behind, Edge(0, 1, used, used))).all()
    assert len(held_out_errors(views, Edge(0, 1, used, used[:0]))) == 0


def test_what_is_left_is_told_as_relief() -> None:
    """Matches of one pair that scatter by two pixels more than they say."""
    truth = row(3, 20)
    edges = edges_between(truth, [(0, 1), (1, 2)], noise=0.1)
    scattered = edges[0].used.xy_b + np.random.default_rng(0).normal(0, 2, edges[0].used.xy_b.shape)
    edges[0] = Edge(0, 1, Correspondences(edges[0].used.xy_a, scattered, edges[0].used.covariance), edges[0].held_out)
    adjusted: Adjusted[Cameras] = adjust_rotation([Photo(SIZE, FOCAL)] * 3, edges)
    assert adjusted.reliefs[0] == pytest.approx(2, rel=0.3)
    assert adjusted.reliefs[1] < 0.2
