"""Surfaces and back, canvases that hold every photo whole, circles that close, and horizons that are level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_cameras import SIZE, camera, sheet, turned

from featkit.errors import UsageError
from featkit.stitching.projection import PROJECTIONS, Layout, Region, lay_out, straightened
from featkit.stitching.views import View

FOCAL = 600.0
NAMES = [name for name in PROJECTIONS if name != "auto"]
PERIODIC = ["cylindrical", "spherical", "mercator"]
#: Coordinates up to which each surface goes, and from where on it is cut off.
LIMITS = {
    "planar": (4.0, 4.0),
    "cylindrical": (np.pi, np.tan(np.radians(80))),
    "spherical": (np.pi, np.pi / 2),
    "mercator": (np.pi, np.arcsinh(np.tan(np.radians(80)))),
    "stereographic": (8.0, 8.0),
    "fisheye": (np.pi / np.sqrt(2), np.pi / np.sqrt(2)),
}


def row(
    count: int, step: float, focal_px: float = FOCAL, pitch: float = 0.0, size: tuple[int, int] = SIZE
) -> list[View]:
    """Around straight ahead."""
    return [camera(turned(step * (number - (count - 1) / 2), pitch), focal_px, size) for number in range(count)]


def tilted(views: Sequence[View], axes: np.ndarray) -> list[View]:
    """The same in another world: the rig leans, or nobody knows where it stood."""
    return [View(view.size, axes @ view.to_world, view.focal_px, view.distortion) for view in views]


def unit(rays: np.ndarray) -> np.ndarray:
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def every_pixel(size: tuple[int, int], count: int = 25) -> np.ndarray:
    """N×2 of a photo, the corner ones included."""
    xs, ys = (np.linspace(0, side - 1, count) for side in size)
    return np.stack([each.ravel() for each in np.meshgrid(xs, ys)], 1)


def surface_of(name: str) -> Layout:
    """A canvas whose pixels are those of the surface: origin 0, one a unit."""
    layout = lay_out(row(1, 0), name, 1.0)
    return Layout(layout.projection, 1.0, (0.0, 0.0), (1, 1), [], None)


class TestSurfaces:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_ray_s_place_has_that_ray(self, name: str) -> None:
        surface = surface_of(name)
        rays = np.random.default_rng(0).normal(size=(2000, 3)) * np.random.default_rng(1).uniform(0.1, 9, (2000, 1))
        places = surface.place(rays)
        known = np.isfinite(places).all(1)
        # A plane shows less than half of the world, the others nearly all.
        assert 0.2 < known.mean() < 0.5 if name == "planar" else known.mean() > 0.9
        np.testing.assert_allclose(unit(surface.rays(places[known])), unit(rays[known]), atol=1e-9)
        assert (np.abs(places[known]) <= np.maximum(LIMITS[name], np.pi) + 1e-9).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_a_place_s_ray_has_that_place(self, name: str) -> None:
        surface = surface_of(name)
        places = np.random.default_rng(0).uniform(-0.999, 0.999, (2000, 2)) * LIMITS[name]
        np.testing.assert_allclose(surface.place(surface.rays(places)), places, atol=1e-9)

    @pytest.mark.parametrize("name", PERIODIC)
    def test_once_around_is_the_same_place(self, name: str) -> None:
        surface = surface_of(name)
        assert surface.projection.periodic
        places = np.random.default_rng(0).uniform(-1, 1, (200, 2))
        around = surface.rays(places + np.array([2 * np.pi, 0]))
        np.testing.assert_allclose(unit(around), unit(surface.rays(places)), atol=1e-12)

    @pytest.mark.parametrize("name", NAMES)
    def test_straight_ahead_is_0_0_with_x_to_the_right_and_y_down(self, name: str) -> None:
        """And one unit is one radian there."""
        places = surface_of(name).place(np.array([[0, 0, 2.0], [2e-4, 0, 2], [0, 2e-4, 2]]))
        np.testing.assert_allclose(places, [[0, 0], [1e-4, 0], [0, 1e-4]], atol=1e-10)

    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_cut_off_is_no_number(self, name: str) -> None:
        surface = surface_of(name)
        beyond = {
            "planar": [[0, 0, -1.0], [5, 0, 1], [0, -1, 0]],
            "cylindrical": [[0, 1.0, 0], [0, -6, 1]],
            "mercator": [[0, 1.0, 0], [0, -6, 1]],
            "stereographic": [[0, 0, -1.0], [0.1, 0, -1]],
        }.get(name)
        if beyond is not None:
            assert np.isnan(surface.place(np.array(beyond))).any(1).all()
        if name == "fisheye":
            assert np.isnan(surface.rays(np.array([[3, 1.2], [0, -3.2]]))).all()

    def test_beyond_a_pole_a_sphere_goes_down_the_other_side(self) -> None:
        rays = surface_of("spherical").rays(np.array([[0.3, np.pi / 2 + 0.1], [0.3 + np.pi, np.pi / 2 - 0.1]]))
        np.testing.assert_allclose(rays[0], rays[1], atol=1e-12)

    def test_a_straight_line_stays_straight_on_a_plane_and_upright_on_a_cylinder(self) -> None:
        across = np.column_stack([np.linspace(-2, 2, 9), np.full(9, 0.5), np.ones(9)])
        upright = across[:, [1, 0, 2]]
        np.testing.assert_allclose(surface_of("planar").place(across)[:, 1], 0.5)
        np.testing.assert_allclose(np.ptp(surface_of("cylindrical").place(upright)[:, 0]), 0, atol=1e-12)
        assert np.ptp(surface_of("cylindrical").place(across)[:, 1]) > 0.2

    @pytest.mark.parametrize("name", ["mercator", "stereographic"])
    def test_circles_stay_circles(self, name: str) -> None:
        """Conformal: a small step to any side is as long."""
        middle = unit(np.array([[0.6, -0.5, 0.8]]))[0]
        aside = unit(np.cross(middle, [[0, 1, 0.0]]))[0]
        up = np.cross(middle, aside)
        turns = np.linspace(0, 2 * np.pi, 16)
        ring = middle + 1e-5 * (np.cos(turns)[:, None] * aside + np.sin(turns)[:, None] * up)
        surface = surface_of(name)
        radius = np.linalg.norm(surface.place(ring) - surface.place(middle[None]), axis=1)
        np.testing.assert_allclose(radius, radius.mean(), rtol=1e-4)


# --- canvases


def distance_outside(places: np.ndarray, region: Region, period: float | None) -> np.ndarray:
    """How far N×2 pixels of the canvas lie outside a region, whichever turn of a circle is the nearest."""
    across = np.full(len(places), np.inf)
    for turn in (0.0,) if period is None else (-period, 0.0, period):
        x = places[:, 0] + turn
        across = np.minimum(across, np.maximum(region.x - 0.5 - x, x - (region.right - 0.5)))
    down = np.maximum(region.y - 0.5 - places[:, 1], places[:, 1] - (region.bottom - 0.5))
    return np.asarray(np.maximum(np.maximum(across, down), 0))


@st.composite
def rigs(draw: st.DrawFn) -> list[View]:
    """One to four photos that look wherever they like, up and down, upside down, and right at the poles."""
    size = draw(st.integers(2, 900)), draw(st.integers(2, 900))
    focal_px = max(size) * draw(st.floats(0.4, 3))
    spread = draw(st.sampled_from([5, 60, 180]))
    around, up = (
        st.floats(-spread, spread),
        st.floats(-min(spread, 90), min(spread, 90)) | st.sampled_from([-90.0, 90.0]),
    )
    roll = st.floats(-spread, spread) | st.sampled_from([90.0, 180.0])
    lens = draw(st.floats(-0.05, 0.05)), 0.0
    rotations = draw(st.lists(st.builds(turned, around, up, roll), min_size=1, max_size=4))
    return [camera(rotation, focal_px, size, lens) for rotation in rotations]


class TestCanvas:
    @given(rigs(), st.sampled_from(PROJECTIONS), st.floats(0.2, 2))
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_holds_every_pixel_of_every_photo(self, views: list[View], name: str, scale: float) -> None:
        views = straightened(views, None)
        try:
            layout = lay_out(views, name, scale)
        except UsageError as error:
            assert "shows nothing" in error.message  # noqa: PT017 - most rigs fit
            return
        turn = 2 * np.pi * layout.pixels_per_radian if layout.projection.periodic else None
        for view, region in zip(views, layout.regions, strict=True):
            places = layout.place(view.lift(every_pixel(view.size)))
            known = places[np.isfinite(places).all(1)]
            if len(known) == len(places):  # nothing of it is cut off
                assert distance_outside(known, region, turn).max() < 1.5
            assert 0 <= region.y < region.bottom <= layout.size[1]
            if layout.period is None:
                assert -1 <= region.x < region.right <= layout.size[0] + 1
            else:
                assert region.width <= layout.period

    @pytest.mark.parametrize("name", NAMES)
    def test_fits_tightly(self, name: str) -> None:
        """Some photo's edge lies on each edge of the canvas, and of a photo on each of its region's."""
        views = row(3, 20)
        layout = lay_out(views, name, 1.0)
        places = [layout.place(view.lift(every_pixel(view.size, 200))) for view in views]
        for seen, region in zip(places, layout.regions, strict=True):
            np.testing.assert_allclose(seen.min(0), [region.x, region.y], atol=2.5)
            np.testing.assert_allclose(seen.max(0), [region.right, region.bottom], atol=2.5)
        together = np.concatenate(places)
        np.testing.assert_allclose(together.min(0), [0, 0], atol=2.5)
        np.testing.assert_allclose(together.max(0), layout.size, atol=2.5)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("scale", [0.3, 1.0])
    def test_keeps_the_resolution_of_the_photos(self, name: str, scale: float) -> None:
        """A step of one pixel in the middle of the photo that looks straight ahead."""
        view = row(1, 0)[0]
        layout = lay_out([view], name, scale)
        here, there = layout.place(view.lift(np.array([view.centre, view.centre + np.array([1, 0])])))
        np.testing.assert_allclose(there - here, [scale, 0], atol=1e-3)

    def test_the_planar_model_s_canvas_is_its_plane(self) -> None:
        random = np.random.default_rng(0)
        views = [sheet("homography", random, 300.0 * number, -40.0) for number in range(3)]
        for projection in ("auto", "planar"):
            layout = lay_out(views, projection, 0.5)
            assert (layout.projection.name, layout.period, layout.pixels_per_radian) == ("planar", None, 0.5)
            for view, region in zip(views, layout.regions, strict=True):
                places = layout.place(view.lift(every_pixel(view.size)))
                assert distance_outside(places, region, None).max() < 0.5
                plane = view.lift(every_pixel(view.size))
                np.testing.assert_allclose(
                    places - layout.origin, 0.5 * plane[:, :2] / plane[:, 2:], rtol=1e-9, atol=1e-9
                )

    def test_rays_and_places_are_inverses(self) -> None:
        layout = lay_out(row(3, 20), "cylindrical", 0.7)
        xy = np.random.default_rng(0).uniform((0, 0), layout.size, (100, 2))
        np.testing.assert_allclose(layout.place(layout.rays(xy)), xy, atol=1e-9)


class TestCircle:
    @pytest.mark.parametrize("name", PERIODIC)
    @pytest.mark.parametrize("scale", [1.0, 0.37])
    def test_is_as_wide_as_its_period(self, name: str, scale: float) -> None:
        views = straightened(row(12, 30, 500.0), None)
        layout = lay_out(views, name, scale)
        assert layout.period == layout.size[0] == round(2 * np.pi * 500 * scale)
        assert layout.period == pytest.approx(2 * np.pi * layout.pixels_per_radian)
        left, right = layout.rays(np.array([[-0.5, 100.0], [layout.size[0] - 0.5, 100]]))
        np.testing.assert_allclose(left, right, atol=1e-9)

    @pytest.mark.parametrize("name", PERIODIC)
    def test_photos_that_straddle_its_edge_have_regions_of_their_own_width(self, name: str) -> None:
        """Whoever is in front."""
        for reference in (None, 3, 6):
            layout = lay_out(straightened(row(12, 30, 500.0), reference), name, 1.0)
            widths = [region.width for region in layout.regions]
            # arctan(320 / 500) to each side.
            assert np.ptp(widths) <= 1
            assert widths[0] == pytest.approx(2 * np.arctan(320 / 500) * layout.pixels_per_radian, abs=2)
            assert any(region.x < 0 or region.right > layout.size[0] for region in layout.regions)

    @pytest.mark.parametrize("name", ["planar", "stereographic", "fisheye"])
    def test_other_surfaces_have_none(self, name: str) -> None:
        if name == "planar":
            with pytest.raises(UsageError, match="shows nothing"):
                lay_out(row(12, 30, 500.0), name, 1.0)
        else:
            assert lay_out(row(12, 30, 500.0), name, 1.0).period is None

    def test_a_crack_is_none_and_a_gap_is_one(self) -> None:
        """12 photos of 30 degrees each leave no gap, 11 leave one."""
        focal_px = 320 / np.tan(np.radians(15.0))
        for count, closed in ((12, True), (11, False)):
            views = straightened(row(count, 30, focal_px), None)
            layout = lay_out(views, "cylindrical", 1.0)
            assert (layout.period is not None) == closed
            assert layout.size[0] == pytest.approx(np.radians(30 * count) * focal_px, abs=2)

    def test_looks_at_its_reference(self) -> None:
        views = row(12, 30, 500.0)
        for reference in (0, 5, 11):
            placed = straightened(views, reference)
            layout = lay_out(placed, "spherical", 1.0)
            centre = layout.place(placed[reference].lift(placed[reference].centre[None]))[0]
            np.testing.assert_allclose(centre[0], (layout.size[0] - 1) / 2, atol=1)

    def test_a_photo_that_shows_a_pole_goes_all_around(self) -> None:
        views = straightened([*row(12, 30, 500.0), camera(turned(40, 90, 20), 500.0)], None)
        layout = lay_out(views, "spherical", 1.0)
        assert (layout.regions[12].x, layout.regions[12].width) == (0, layout.size[0])
        assert layout.regions[12].y == 0
        assert layout.pixels_per_radian * np.pi / 2 == pytest.approx(layout.origin[1], abs=1)

    def test_a_fisheye_of_everything_is_a_disc(self) -> None:
        views = [*row(6, 60, 300.0), camera(turned(0, 90), 300.0), camera(turned(0, -90), 300.0)]
        layout = lay_out(views, "fisheye", 1.0)
        np.testing.assert_allclose(layout.size, 2 * np.pi * 300, atol=2)


class TestScaled:
    @given(
        st.sampled_from(["planar", "cylindrical", "circle", "flat"]),
        st.floats(0.02, 1.5),
    )
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_edges_of_pixels_stay_where_they_are(self, kind: str, scale: float) -> None:
        views = {
            "circle": straightened(row(12, 30, 500.0), None),
            "flat": [View(SIZE, np.array([[1, 0, 77.3], [0, 1, -15.1], [0, 0, 1]]))],
        }.get(kind, row(3, 20))
        layout = lay_out(views, kind if kind in NAMES else "auto", 1.0)
        smaller = layout.scaled(scale)
        actual = smaller.pixels_per_radian / layout.pixels_per_radian
        assert actual == pytest.approx(scale, abs=1 / layout.size[0])

        xy = np.random.default_rng(0).uniform((0, 0), layout.size, (50, 2))
        same = smaller.place(layout.rays(xy))
        np.testing.assert_allclose(same, (xy + 0.5) * actual - 0.5, atol=1e-6)
        np.testing.assert_allclose(smaller.size, np.array(layout.size) * actual, atol=1)
        for before, after in zip(layout.regions, smaller.regions, strict=True):
            assert after.x <= before.x * actual + 1e-5
            assert after.y <= before.y * actual + 1e-5
            assert after.right >= before.right * actual - 1e-5
            assert after.bottom >= before.bottom * actual - 1e-5
            assert after.width <= before.width * actual + 2
            assert after.height <= before.height * actual + 2
        if kind == "circle":
            assert smaller.period == smaller.size[0] == pytest.approx(2 * np.pi * smaller.pixels_per_radian)

    def test_by_one_is_the_same(self) -> None:
        layout = lay_out(row(3, 20), "cylindrical", 1.0)
        assert layout.scaled(1.0) == layout


# --- horizons


def level(views: Sequence[View]) -> float:
    """Degrees by which the photos' rows are off the level, at most."""
    slopes = []
    for view in views:
        left, right = unit(view.lift(np.array([view.centre - [10, 0], view.centre + np.array([10, 0])])))
        step = (right - left) / np.linalg.norm(right - left)
        slopes.append(np.degrees(np.arcsin(step[1])))
    return float(np.abs(slopes).max())


def directions(views: Sequence[View]) -> np.ndarray:
    """N×2 degrees: to the right, and up."""
    rays = unit(np.concatenate([view.lift(view.centre[None]) for view in views]))
    return np.degrees(np.stack([np.arctan2(rays[:, 0], rays[:, 2]), -np.arcsin(rays[:, 1])], 1))


class TestStraightened:
    @given(st.tuples(st.floats(-180, 180), st.floats(-89, 89), st.floats(-180, 180)), st.floats(-30, 30))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_a_rig_that_leans_comes_out_level(self, lean: tuple[float, float, float], pitch: float) -> None:
        """However it stood: only the photos say what is up. Straight ahead is the middle of what they show. Of a row
        that looks up or down a little is taken off: that the photos are upright counts, too."""
        views = straightened(tilted(row(6, 25, pitch=pitch), turned(*lean)), None)
        off = 0.01 + 0.04 * abs(pitch)
        assert level(views) < off
        np.testing.assert_allclose(
            directions(views), np.column_stack([25 * (np.arange(6) - 2.5), np.full(6, pitch)]), atol=off
        )

    def test_all_around(self) -> None:
        views = straightened(tilted(row(12, 30, 500.0), turned(70, -25, 130)), 4)
        assert level(views) < 0.01
        heading, height = directions(views).T
        np.testing.assert_allclose(height, 0, atol=0.01)
        np.testing.assert_allclose(heading[4], 0, atol=0.01)
        np.testing.assert_allclose((np.diff(heading) + 360) % 360, 30, atol=0.01)

    def test_the_photos_wobble(self) -> None:
        """Each is held two degrees askew: the whole is level to a good part of a degree."""
        random = np.random.default_rng(0)
        views = [camera(turned(20.0 * number, *random.normal(0, 2, 2)), FOCAL) for number in range(10)]
        rolls = [level([view]) for view in straightened(tilted(views, turned(0, 15, 30)), None)]
        assert np.mean(rolls) < 2
        found = straightened(tilted(views, turned(0, 15, 30)), None)
        assert np.abs(np.polyfit(*directions(found).T, 1)[0]) < 0.02

    def test_a_single_photo_and_a_column_stand_upright(self) -> None:
        """Without a turn about the upright axis the photos' own columns say what is up."""
        column = [camera(turned(0, 20.0 * number), FOCAL) for number in range(3)]
        for views in (column[:1], column):
            found = straightened(tilted(views, turned(-50, 30, 80)), None)
            assert level(found) < 0.01
            assert np.abs(directions(found)[:, 0]).max() < 0.01

    def test_upright_is_what_the_photos_show_upright(self) -> None:
        found = straightened(tilted(row(6, 25), turned(0, 0, 180)), None)
        top, bottom = found[0].lift(np.array([[319.5, 0], [319.5, 479]]))
        assert top[1] < 0 < bottom[1]

    def test_straight_up_and_down(self) -> None:
        for pitch in (-90, 90):
            (found,) = straightened([camera(turned(0, pitch), FOCAL)], None)
            assert np.isfinite(found.to_world).all()
            np.testing.assert_allclose(np.abs(np.linalg.det(found.to_world * FOCAL ** (2 / 3))), 1, rtol=1e-6)

    def test_the_world_turns_and_nothing_else_does(self) -> None:
        views = row(4, 25)
        for before, after in zip(views, straightened(tilted(views, turned(9, 8, 7)), 2), strict=True):
            turn = after.to_world @ np.linalg.inv(before.to_world)
            np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
            assert (after.size, after.focal_px, after.distortion) == (before.size, before.focal_px, before.distortion)

    def test_a_plane_stays_as_it_is(self) -> None:
        views = [sheet("homography", np.random.default_rng(0), 300.0 * number, 0) for number in range(3)]
        assert straightened(views, 1) == views


class TestChoice:
    @pytest.mark.parametrize(
        ("views", "name"),
        [
            pytest.param(row(1, 0), "planar", id="one photo"),
            pytest.param(row(2, 20), "planar", id="two photos"),
            pytest.param(row(6, 20), "cylindrical", id="a row"),
            pytest.param(row(12, 30), "cylindrical", id="all around"),
            pytest.param(row(6, 20, 300.0, size=(480, 640)), "spherical", id="a row of tall photos"),
            pytest.param([*row(3, 20), *row(3, 20, pitch=45.0)], "spherical", id="up to the sky"),
            pytest.param([sheet("affine", np.random.default_rng(0), 0, 0)], "planar", id="a scan"),
        ],
    )
    def test_what_looks_natural(self, views: list[View], name: str) -> None:
        assert lay_out(straightened(views, None), "auto", 1.0).projection.name == name

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "planar"])
    def test_something_flat_has_no_other_projection(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"flat have no {name}") as caught:
            lay_out([View(SIZE, np.eye(3))], name, 1.0)
        assert caught.value.hint is not None
        assert "--model rotation" in caught.value.hint

    def test_what_lies_behind_is_not_on_a_plane(self) -> None:
        with pytest.raises(UsageError, match="a planar panorama shows nothing") as caught:
            lay_out([camera(turned(0)), camera(turned(180))], "planar", 1.0)
        assert caught.value.hint == "choose --projection spherical"

    def test_a_canvas_beyond_all_bounds(self) -> None:
        with pytest.raises(UsageError, match=r"would have \d+ × \d+ pixels") as caught:
            lay_out(row(12, 30, 200_000.0, size=(220_000, 1000)), "cylindrical", 1.0)
        assert caught.value.hint is not None
        assert "--scale" in caught.value.hint


class TestRegion:
    @given(*[st.builds(Region, st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 9), st.integers(0, 9))] * 2)
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_what_two_have_in_common(self, one: Region, other: Region) -> None:
        def places(region: Region) -> set[tuple[int, int]]:
            return {(x, y) for x in range(region.x, region.right) for y in range(region.y, region.bottom)}

        common = one.common(other)
        assert places(common) == places(one) & places(other)
        assert bool(common) == bool(places(one) & places(other))
        assert places(one.shifted(3)) == {(x + 3, y) for x, y in places(one)}
