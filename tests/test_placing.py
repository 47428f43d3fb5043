"""Which model fits is decided by matches that it has not seen; pairs that cannot be right are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from known_cameras import SIZE, camera, edges_between, overlapping, pixels, seen_by_both, turned

from featkit.stitching.adjustment import Edge
from featkit.stitching.placing import Placement, angle_across, place
from featkit.stitching.rotation import Photo
from featkit.stitching.ties import Correspondences
from featkit.stitching.views import View

FOCAL = 600.0


def turning(count: int, step: float, focal_px: float = FOCAL) -> list[View]:
    return [camera(turned(step * number, 2 * (number % 2)), focal_px) for number in range(count)]


def flat(columns: int, rows: int) -> list[View]:
    """A scanner that moves and does nothing else."""
    return [
        View(SIZE, np.array([[1, 0, 300.0 * column], [0, 1, 250.0 * row], [0, 0, 1]]))
        for row in range(rows)
        for column in range(columns)
    ]


def tied(views: Sequence[View], *, noise: float = 0.1, count: int = 120) -> list[Edge]:
    return edges_between(views, overlapping(views), noise=noise, count=count)


def photos(views: Sequence[View], exif: float | None = None) -> list[Photo]:
    return [Photo(view.size, exif) for view in views]


def only(placements: list[Placement]) -> Placement:
    assert len(placements) == 1
    return placements[0]


def pairs_of(placement: Placement) -> set[tuple[int, int]]:
    """By the photos' own numbers."""
    return {(placement.members[edge.a], placement.members[edge.b]) for edge in placement.edges}


def renumbered(edges: Sequence[Edge], numbers: Sequence[int]) -> list[Edge]:
    return [replace(edge, a=numbers[edge.a], b=numbers[edge.b]) for edge in edges]


def lie(a: int, b: int, first: View, second: View, count: int = 120) -> Edge:
    """Photos a and b seem to lie as two others do."""
    return Edge(a, b, *(seen_by_both(first, second, np.random.default_rng(seed), count=count) for seed in (1, 2)))


class TestModel:
    @pytest.mark.parametrize("exif", [None, FOCAL])
    @pytest.mark.parametrize(("count", "step"), [(3, 20), (4, 12)])
    def test_a_camera_that_turns(self, count: int, step: float, exif: float | None) -> None:
        views = turning(count, step)
        found = only(place(photos(views, exif), tied(views), "auto", None))
        assert (found.model, found.members) == ("rotation", list(range(count)))
        assert found.error < 0.15
        assert all(view.focal_px == pytest.approx(FOCAL, rel=0.02) for view in found.views)

    @pytest.mark.parametrize("exif", [None, FOCAL])
    def test_a_camera_that_moves_over_something_flat(self, exif: float | None) -> None:
        views = flat(2, 2)
        found = only(place(photos(views, exif), tied(views), "auto", None))
        assert (found.model, found.members) == ("planar", list(range(4)))
        assert found.error < 0.15
        assert all(view.focal_px is None for view in found.views)

    def test_where_noise_hides_the_difference_both_will_do(self) -> None:
        """1.18 deviations is the median of what noise alone makes."""
        noise = 0.7
        for views in (turning(3, 8), flat(3, 1)):
            found = only(place(photos(views), tied(views, noise=noise), "auto", None))
            assert found.error < 1.5 * noise

    def test_what_goes_all_around_is_no_plane(self) -> None:
        views = turning(12, 30, 500.0)
        found = only(place(photos(views), tied(views), "auto", None))
        assert found.model == "rotation"
        assert np.degrees(angle_across(found.views)) > 150

    def test_a_focal_length_that_runs_away_never_wins(self) -> None:
        """A lens of fifteen times the longer side: that is no rotation that anyone could tell from a shift."""
        views = turning(3, 1.5, 15.0 * max(SIZE))
        assert only(place(photos(views, 15.0 * max(SIZE)), tied(views), "rotation", None)).error < 0.2
        assert only(place(photos(views, 15.0 * max(SIZE)), tied(views), "auto", None)).model == "planar"

    @pytest.mark.parametrize("model", ["rotation", "planar"])
    def test_who_names_a_model_gets_it(self, model: str) -> None:
        for views in (turning(3, 20), flat(3, 1)):
            assert only(place(photos(views), tied(views), model, None)).model == model

    @pytest.mark.parametrize(("stretch", "family"), [(1.0, "similarity"), (1.1, "affine")])
    def test_the_smallest_family_that_does(self, stretch: float, family: str) -> None:
        """A scanner whose second pass is a little longer than the first."""
        views = flat(3, 1)
        views[1] = View(SIZE, views[1].to_world @ np.diag([stretch, 1, 1]))
        found = only(place(photos(views), tied(views), "planar", None))
        for view in found.views:
            normal = view.to_world / view.to_world[2, 2]
            assert np.abs(normal[2, :2]).max() < 1e-9
            square = np.hypot(*normal[:2, 0]) == pytest.approx(np.hypot(*normal[:2, 1]), rel=1e-6)
            assert square or family == "affine"
        assert found.error < 0.2


class TestReference:
    def test_lies_as_it_is(self) -> None:
        views = flat(3, 2)
        for reference in (0, 5):
            found = only(place(photos(views), tied(views), "planar", reference))
            points = found.views[reference].lift(np.array([[0, 0], [639, 479.0]]))
            across = np.diff(points[:, :2] / points[:, 2:], axis=0)
            np.testing.assert_allclose(across, [[639, 479]], atol=1e-3)

    def test_of_another_group_means_nothing_here(self) -> None:
        views = flat(3, 1)
        edges = [*renumbered(tied(views), [0, 1, 2]), *renumbered(tied(views[:2]), [3, 4])]
        found = place(photos([*views, *views[:2]]), edges, "planar", 4)
        assert [placement.members for placement in found] == [[0, 1, 2], [3, 4]]
        points = found[1].views[1].lift(np.array([[0, 0], [639, 479.0]]))
        np.testing.assert_allclose(np.diff(points[:, :2] / points[:, 2:], axis=0), [[639, 479]], atol=1e-3)


class TestWrongPairs:
    def test_of_a_turning_camera(self) -> None:
        """Photo 5 seems to lie to the right of photo 1."""
        views = turning(6, 20, 500.0)
        wrong = lie(1, 5, views[1], camera(turned(40), 500.0))
        found = only(place(photos(views), [*tied(views), wrong], "auto", None))
        assert found.members == list(range(6))
        assert pairs_of(found) == set(overlapping(views))
        assert found.error < 0.2

    def test_two_of_them(self) -> None:
        views = turning(6, 20, 500.0)
        wrong = [
            lie(1, 5, views[1], camera(turned(40), 500.0)),
            lie(0, 4, views[0], camera(turned(10), 500.0)),
        ]
        found = only(place(photos(views), [*tied(views), *wrong], "auto", None))
        assert pairs_of(found) == set(overlapping(views))

    @pytest.mark.parametrize("lies", [[(0, 8, 0, 1)], [(0, 8, 0, 1), (2, 6, 0, 4)], [(0, 5, 0, 3)]], ids=str)
    def test_of_something_flat(self, lies: list[tuple[int, int, int, int]]) -> None:
        """Photo 8 seems to lie where photo 1 does, by as many matches as the right pairs have."""
        views = flat(3, 3)
        wrong = [lie(a, b, views[first], views[second]) for a, b, first, second in lies]
        found = only(place(photos(views), [*tied(views), *wrong], "planar", None))
        assert pairs_of(found) == set(overlapping(views))
        assert found.error < 0.2

    def test_what_only_a_wrong_pair_ties_is_left_alone(self) -> None:
        """Photo 4 and photo 1 share matches that no two cameras could."""
        views = turning(4, 15)
        random = np.random.default_rng(0)
        nonsense = Correspondences(pixels(SIZE, 60, random), pixels(SIZE, 60, random), np.tile(np.eye(2), (60, 1, 1)))
        edges = [*tied(views), Edge(1, 4, nonsense, nonsense)]
        found = only(place([*photos(views), Photo(SIZE, None)], edges, "auto", None))
        assert found.members == [0, 1, 2, 3]
        assert (1, 4) not in pairs_of(found)

    def test_a_right_pair_with_parallax_stays(self) -> None:
        """Things near the camera are seen a few pixels beside where they belong."""
        views = turning(5, 15)
        edges = tied(views)
        used = edges[2].used
        beside = used.xy_b + np.random.default_rng(0).normal(0, 4, used.xy_b.shape)
        edges[2] = replace(edges[2], used=Correspondences(used.xy_a, beside, used.covariance))
        found = only(place(photos(views), edges, "auto", None))
        assert pairs_of(found) == set(overlapping(views))
        assert found.error < 0.3


class TestGroups:
    def test_each_group_is_a_placement_and_what_is_alone_is_in_none(self) -> None:
        """Photos of three places, shuffled: a scan, two views from a tower, and a stranger."""
        scan, tower = flat(3, 1), turning(2, 20)
        edges = [*renumbered(tied(tower), [0, 3]), *renumbered(tied(scan), [5, 1, 4])]
        found = place([Photo(SIZE, None)] * 6, edges, "auto", None)

        assert [placement.members for placement in found] == [[1, 4, 5], [0, 3]]
        assert found[0].model == "planar"
        assert [pairs_of(placement) for placement in found] == [{(5, 1), (1, 4)}, {(0, 3)}]
        for placement in found:
            assert len(placement.views) == len(placement.members)
            assert len(placement.held_out) == len(placement.edges)
            assert placement.error < 0.2
        # In the order of the members, not of the edges.
        x = [view.lift(view.centre[None])[0] for view in found[0].views]
        assert [round(float(each[0] / each[2] / 300)) for each in x] in ([0, 1, -1], [1, 2, 0], [-1, 0, -2])

    def test_equal_groups_come_in_the_order_of_their_photos(self) -> None:
        pair = tied(flat(2, 1))
        edges = [edge for numbers in ([2, 5], [4, 1], [0, 3]) for edge in renumbered(pair, numbers)]
        found = place([Photo(SIZE, None)] * 6, edges, "planar", None)
        assert [placement.members for placement in found] == [[0, 3], [1, 4], [2, 5]]

    def test_nothing_to_place(self) -> None:
        assert place([], [], "auto", None) == []
        assert place([Photo(SIZE, None)] * 3, [], "auto", None) == []


class TestHeldOut:
    def test_the_error_is_of_what_was_held_out(self) -> None:
        """Matches that are all five pixels off, where the adjustment did not see them."""
        views = flat(3, 1)
        edges = [
            replace(
                edge,
                held_out=Correspondences(
                    edge.held_out.xy_a, edge.held_out.xy_b + np.array([3, 4]), edge.held_out.covariance
                ),
            )
            for edge in tied(views, noise=0.0)
        ]
        found = only(place(photos(views), edges, "planar", None))
        assert found.error == pytest.approx(5, abs=0.05)

    def test_without_any_the_error_is_unknown(self) -> None:
        views = turning(3, 20)
        edges = [replace(edge, held_out=edge.held_out[:0]) for edge in tied(views)]
        found = only(place(photos(views), edges, "auto", None))
        assert found.error == np.inf
        assert found.model == "rotation"


def test_angle_across() -> None:
    assert angle_across(turning(1, 0)) == pytest.approx(0, abs=1e-6)
    views = [camera(turned(yaw, pitch)) for yaw, pitch in ((0, 0), (40, 0), (-30, 0), (5, 20))]
    centres = [turned(yaw, pitch)[:, 2] for yaw, pitch in ((0, 0), (40, 0), (-30, 0), (5, 20))]
    expected = max(np.degrees(np.arccos(a @ b)) for a, b in pairwise([centres[2], centres[1], centres[3]]))
    assert np.degrees(angle_across(views)) == pytest.approx(expected) == pytest.approx(70)
