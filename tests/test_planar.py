"""Photos of something flat come to lie where they were taken, each family with the freedom that it has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from known_cameras import SIZE, edges_between, overlapping, sheet

from featkit.stitching.adjustment import Adjusted, Edge, bundle, held_out_errors
from featkit.stitching.planar import FAMILIES, Sheets, adjust_planar
from featkit.stitching.views import View

REFERENCE = 4
#: Pixels, root mean square, from matches with a noise of 0.1: .01 to .03 measured.
EXACT_PX = 0.05


def scan(family: str, seed: int = 1) -> list[View]:
    """3 × 3 photos of a flat thing; the one in the middle is its own frame."""
    random = np.random.default_rng(seed)
    views = [sheet(family, random, 300.0 * column, 220.0 * row) for row in range(3) for column in range(3)]
    frame = np.linalg.inv(views[REFERENCE].to_world)
    return [View(view.size, frame @ view.to_world) for view in views]


def adjusted(views: Sequence[View], edges: Sequence[Edge], reference: int = REFERENCE) -> dict[str, Adjusted[Sheets]]:
    return dict(zip(FAMILIES, adjust_planar([view.size for view in views], edges, reference), strict=True))


def views_of(found: Adjusted[Sheets]) -> list[View]:
    return [found.model.view(number) for number in range(found.model.count)]


def error_px(found: Adjusted[Sheets], truth: Sequence[View], pairs: Sequence[tuple[int, int]]) -> float:
    views = views_of(found)
    errors = [
        views[edge.b].project(views[edge.a].lift(edge.used.xy_a)) - edge.used.xy_b
        for edge in edges_between(truth, pairs, seed=99)
    ]
    return float(np.sqrt((np.concatenate(errors) ** 2).sum(1).mean()))


class TestFamilies:
    @pytest.mark.parametrize("wrong", [0.0, 0.2])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_what_has_the_freedom_is_exact_and_what_has_not_is_not(self, family: str, wrong: float) -> None:
        truth = scan(family)
        pairs = overlapping(truth, 0.25)
        assert len(pairs) >= 10

        found = adjusted(truth, edges_between(truth, pairs, noise=0.1, wrong=wrong))

        enough = FAMILIES.index(family)
        for number, name in enumerate(FAMILIES):
            error = error_px(found[name], truth, pairs)
            assert error < EXACT_PX if number >= enough else error > 0.5, name

    def test_without_noise_it_is_exact(self) -> None:
        truth = scan("homography")
        pairs = overlapping(truth)
        assert error_px(adjusted(truth, edges_between(truth, pairs))["homography"], truth, pairs) < 0.01

    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_keeps_its_form(self, family: str) -> None:
        truth = scan("homography")
        found = adjusted(truth, edges_between(truth, overlapping(truth), noise=0.1))[family].model
        assert found.family == family
        for matrix in found.matrices:
            if family != "homography":
                np.testing.assert_array_equal(matrix[2], [0, 0, 1])
            if family == "similarity":
                assert (matrix[0, 0], matrix[0, 1]) == (matrix[1, 1], -matrix[1, 0])

    def test_the_cost_falls_with_freedom(self) -> None:
        truth = scan("homography")
        found = adjusted(truth, edges_between(truth, overlapping(truth), noise=0.1))
        errors = [error_px(found[name], truth, overlapping(truth)) for name in FAMILIES]
        assert errors == sorted(errors, reverse=True)


class TestReference:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("reference", [0, 4, 8])
    def test_the_reference_stays_put(self, reference: int, family: str) -> None:
        """The plane is that of the reference, in its pixels, about its centre."""
        truth = scan(family)
        found = adjusted(truth, edges_between(truth, overlapping(truth), noise=0.3), reference)[family]
        view = views_of(found)[reference]
        corners = np.array([[0, 0], [SIZE[0] - 1, 0], [0, SIZE[1] - 1], [50.0, 70]])
        points = view.lift(corners)
        np.testing.assert_allclose(points[:, :2] / points[:, 2:], corners - view.centre, atol=1e-4)

    def test_photos_of_other_sizes(self) -> None:
        """One is twice as large, and shows things twice as large; another stands upright."""
        truth = [
            View(SIZE, np.eye(3)),
            View((1280, 960), np.array([[0.5, 0, 250], [0, 0.5, 30], [0, 0, 1]])),
            View((480, 640), np.array([[1, 0, 450.0], [0, 1, -80], [0, 0, 1]])),
        ]
        pairs = overlapping(truth)
        found = adjusted(truth, edges_between(truth, pairs, noise=0.1), reference=0)
        for name in FAMILIES:
            assert error_px(found[name], truth, pairs) < 3 * EXACT_PX

    def test_a_quarter_turn_and_upside_down(self) -> None:
        truth = [
            View(SIZE, np.eye(3)),
            View(SIZE, np.array([[0, 1.0, 300], [-1, 0, 500], [0, 0, 1]])),
            View(SIZE, np.array([[-1.0, 0, 900], [0, -1, 480], [0, 0, 1]])),
        ]
        pairs = overlapping(truth)
        found = adjusted(truth, edges_between(truth, pairs, noise=0.1), reference=0)
        for name in FAMILIES:
            assert error_px(found[name], truth, pairs) < 2 * EXACT_PX


class TestChains:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_twenty_photos_in_a_row(self, family: str) -> None:
        """Errors of pairs add up along the row; what photos usually look like holds against it."""
        truth = [View(SIZE, np.array([[1, 0, 300.0 * number], [0, 1, 0], [0, 0, 1]])) for number in range(20)]
        pairs = overlapping(truth, 0.2)
        found = adjusted(truth, edges_between(truth, pairs, noise=0.1), reference=0)[family]

        last = views_of(found)[19].lift(np.array([[0, 0], [639, 479.0]]))

        drift = last[:, :2] / last[:, 2:] - (np.array([[5700, 0], [6339, 479]]) - truth[0].centre)
        # Of a way of 5700 pixels: .2, .6 and 11 measured.
        assert np.abs(drift).max() < {"similarity": 1, "affine": 2, "homography": 25}[family]

    def test_matches_by_the_handful(self) -> None:
        truth = [View(SIZE, np.array([[1, 0, 300.0 * number], [0, 1, 0], [0, 0, 1]])) for number in range(3)]
        edges = edges_between(truth, list(pairwise(range(3))), count=4, noise=0.1)
        for found in adjusted(truth, edges, reference=1).values():
            assert np.median(held_out_errors(views_of(found), edges[0])) < 2


class TestModel:
    @pytest.fixture(params=FAMILIES)
    def model(self, request: pytest.FixtureRequest) -> Sheets:
        random = np.random.default_rng(3)
        values = np.zeros((4, 8))
        freedom = {"similarity": 4, "affine": 6, "homography": 8}[request.param]
        values[:, 0] = 1
        values[:, :freedom] += random.normal(0, 0.05, (4, freedom))
        values[:, 2] += 0.3 * np.arange(4)
        return Sheets(np.array([SIZE, SIZE, (480, 640), SIZE], float), values, request.param, 640.0, 1)

    @pytest.fixture
    def edges(self, model: Sheets) -> list[Edge]:
        views = [model.view(number) for number in range(4)]
        return edges_between(views, overlapping(views), count=40, noise=0.5)

    def test_derivatives_are_those_of_small_steps(self, model: Sheets, edges: list[Edge]) -> None:
        matches = bundle(edges, 3)
        predicted, jacobian, parameters = model.linearise(matches)
        np.testing.assert_array_equal(predicted, model.predict(matches))
        count = 4 * model.freedom
        dense = np.zeros((len(predicted), 2, count))
        for rows, own in zip(matches.edges, parameters, strict=True):
            dense[rows][:, :, own] = jacobian[rows]
        for parameter, step in enumerate(1e-6 * np.eye(count)):
            change = (model.moved(step).predict(matches) - model.moved(-step).predict(matches)) / 2e-6
            np.testing.assert_allclose(dense[:, :, parameter], change, atol=1e-4)

    def test_predicts_what_the_views_do(self, model: Sheets, edges: list[Edge]) -> None:
        matches = bundle(edges, 3)
        predicted = model.predict(matches)
        views = [model.view(number) for number in range(4)]
        for edge, rows in zip(edges, matches.edges, strict=True):
            np.testing.assert_allclose(
                predicted[rows], views[edge.b].project(views[edge.a].lift(matches.xy_a[rows])), atol=1e-7
            )

    def test_what_lies_beyond_the_horizon_is_no_number(self, model: Sheets, edges: list[Edge]) -> None:
        steep = model.values.copy()
        steep[0, 6] = -2.5
        beyond = Sheets(model.sizes, steep, "homography", model.unit, model.reference)
        assert np.isnan(beyond.predict(bundle(edges, 3))).any()
