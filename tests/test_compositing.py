"""Tiles join as if there were none, circles as if they had no edge, and photos as if there were one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_cameras import camera, colours, picture, turned

from featkit.canvas import Canvas
from featkit.errors import FileMissing
from featkit.images import resize
from featkit.opencv import cv2
from featkit.stitching.compositing import (
    BLENDS,
    Sheet,
    coarse_corrections,
    compose,
    compose_tile,
    fine_octaves,
    reach,
    tiles,
)
from featkit.stitching.photos import InMemory
from featkit.stitching.pieces import Piece
from featkit.stitching.projection import Layout, Region, lay_out, straightened
from featkit.stitching.seams import find_seams
from featkit.stitching.views import View
from featkit.stitching.warping import warp

SIZE = (240, 180)
FOCAL = 1280 / (2 * np.pi)  # a circle of 1280 pixels
REDUCED = 0.25


def row(count: int, step: float) -> list[View]:
    return straightened([camera(turned(step * number, 4 * (number % 2)), FOCAL, SIZE) for number in range(count)], 0)


def circle() -> list[View]:
    return row(10, 36)


def pieces_of(pictures: Sequence[np.ndarray], views: Sequence[View], layout: Layout) -> list[Piece]:
    warped = [
        warp(InMemory(resize(pixels, 0.5)), number, view, layout, region)
        for number, (pixels, view, region) in enumerate(zip(pictures, views, layout.regions, strict=True))
    ]
    return [Piece(*each, (region.x, region.y)) for each, region in zip(warped, layout.regions, strict=True)]


def sheet_of(
    views: Sequence[View],
    pictures: Sequence[np.ndarray],
    blend: str,
    *,
    projection: str = "cylindrical",
    octaves: int = 3,
) -> Sheet:
    """Seams half way between the photos, found on the canvas reduced to a quarter."""
    layout = lay_out(views, projection, 1.0)
    reduced = layout.scaled(REDUCED)
    masks = find_seams(pieces_of(pictures, views, reduced), reduced.period, "voronoi")
    rasters = [InMemory(pixels) for pixels in pictures]
    return Sheet(views, layout, lambda number: rasters[number], None, masks, reduced, blend, octaves)


def drawn(sheet: Sheet, side: int = 4096, workers: int = 1) -> np.ndarray:
    """uint8 H×W×4."""
    with Canvas(sheet.layout.size, memory_bytes=1 << 30, folder=".") as canvas:
        for _ in compose(sheet, canvas, side, workers):
            pass
        return canvas.read(0, 0, *sheet.layout.size)


def exposed(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every other photo 20 levels brighter, so that every seam is seen."""
    return [np.clip(pixels + 20.0 * (number % 2), 0, 255).astype(np.uint8) for number, pixels in enumerate(pictures)]


def truth(layout: Layout) -> np.ndarray:
    """uint8 H×W×3: the world itself, on the canvas."""
    width, height = layout.size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return colours(layout.rays(np.stack([x.ravel(), y.ravel()], 1).astype(float))).reshape(height, width, 3)


def well_inside(pixels: np.ndarray, margin: int = 6) -> np.ndarray:
    opaque = np.pad(pixels[:, :, 3] > 0, 1).astype(np.uint8)
    return np.asarray(cv2.erode(opaque, np.ones((2 * margin + 1,) * 2))[1:-1, 1:-1] > 0)


def assert_joined(whole: np.ndarray, parts: np.ndarray, blend: str) -> None:
    """What is summed in another order may be rounded the other way."""
    np.testing.assert_array_equal(whole[:, :, 3], parts[:, :, 3])
    difference = np.abs(whole.astype(int) - parts)
    assert difference.max() <= (1 if blend == "multiband" else 0)
    assert difference.mean() < 0.02


class TestTiles:
    @given(st.integers(1, 700), st.integers(1, 700), st.integers(16, 256))
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_cover_the_canvas_once(self, width: int, height: int, side: int) -> None:
        layout = replace(lay_out(row(1, 0), "planar", 1.0), size=(width, height))
        count = np.zeros((height, width), int)
        every = tiles(layout, side)
        for tile in every:
            assert 0 < tile.width <= side
            assert 0 < tile.height <= side
            count[tile.y : tile.bottom, tile.x : tile.right] += 1
        assert (count == 1).all()
        # Those beside each other come one after the other across the longer side.
        if width >= height and height <= side:
            assert [tile.x for tile in every] == sorted(tile.x for tile in every)

    @pytest.mark.parametrize("side", [32, 100, 128])
    @pytest.mark.parametrize("blend", BLENDS)
    def test_join_as_if_there_were_none(self, blend: str, side: int) -> None:
        views = row(4, 30)
        sheet = sheet_of(views, exposed([picture(view) for view in views]), blend)
        assert_joined(drawn(sheet), drawn(sheet, side), blend)

    @pytest.mark.parametrize("blend", BLENDS)
    def test_on_a_circle(self, blend: str) -> None:
        views = circle()
        sheet = sheet_of(views, exposed([picture(view) for view in views]), blend)
        assert sheet.layout.period is not None
        assert_joined(drawn(sheet), drawn(sheet, 96), blend)

    @pytest.mark.parametrize("blend", BLENDS)
    def test_by_several_at_a_time(self, blend: str) -> None:
        views = row(3, 30)
        sheet = sheet_of(views, exposed([picture(view) for view in views]), blend)
        np.testing.assert_array_equal(drawn(sheet, 64, workers=3), drawn(sheet, 64))


class TestCircle:
    @pytest.mark.parametrize("blend", BLENDS)
    def test_the_left_edge_continues_the_right_one(self, blend: str) -> None:
        """Drawn once more by someone who looks the other way: the same picture, half a turn on."""
        views = circle()
        pictures = exposed([picture(view) for view in views])
        around = [View(view.size, turned(180) @ view.to_world, view.focal_px, view.distortion) for view in views]
        first, second = (sheet_of(each, pictures, blend) for each in (views, around))
        width = first.layout.size[0]
        assert (second.layout.size, width % 8) == (first.layout.size, 0)

        one, other = drawn(first), np.roll(drawn(second), width // 2, 1)

        assert (one[:, :, 3] != other[:, :, 3]).mean() < 1e-3
        both = (one[:, :, 3] > 0) & (other[:, :, 3] > 0)
        difference = np.abs(one[:, :, :3].astype(int) - other[:, :, :3])[both]
        # Seams lie a pixel aside here and there.
        assert np.percentile(difference, 99) <= 2
        assert difference.max() <= 22

    @pytest.mark.parametrize("blend", BLENDS)
    def test_no_step_where_it_closes(self, blend: str) -> None:
        views = circle()
        pixels = drawn(sheet_of(views, [picture(view) for view in views], blend)).astype(int)
        closing = np.abs(pixels[:, 0, :3] - pixels[:, -1, :3])
        elsewhere = np.abs(np.diff(pixels[:, :, :3], axis=1)).max()
        inside = (pixels[:, 0, 3] > 0) & (pixels[:, -1, 3] > 0)
        assert inside.mean() > 0.7
        assert closing[inside].max() <= elsewhere + 1


class TestBlends:
    @pytest.mark.parametrize("projection", ["planar", "cylindrical", "fisheye"])
    @pytest.mark.parametrize("blend", BLENDS)
    def test_photos_that_agree_give_the_world(self, blend: str, projection: str) -> None:
        views = row(3, 25)
        sheet = sheet_of(views, [picture(view) for view in views], blend, projection=projection)
        pixels = drawn(sheet)
        inside = well_inside(pixels)
        assert inside.mean() > 0.5
        difference = np.abs(pixels[:, :, :3].astype(int) - truth(sheet.layout))[inside]
        assert difference.max() <= 4
        assert difference.mean() < 0.8

    @pytest.mark.parametrize("blend", BLENDS)
    def test_a_single_photo_stays_as_it_is(self, blend: str) -> None:
        views = row(1, 0)
        sheet = sheet_of(views, [picture(views[0])], blend)
        pixels = drawn(sheet)
        warped, _ = warp(InMemory(picture(views[0])), 0, views[0], sheet.layout, Region(0, 0, *sheet.layout.size))
        shown = pixels[:, :, 3] > 0
        assert np.abs(pixels[:, :, :3].astype(int) - warped)[shown].max() <= (1 if blend == "multiband" else 0)

    @pytest.mark.parametrize("level", [0, 1, 97, 255])
    @pytest.mark.parametrize("blend", BLENDS)
    def test_one_colour_stays_one(self, blend: str, level: int) -> None:
        """Up to the last pixel that is shown, and across every seam."""
        views = circle()
        flat = [np.full((SIZE[1], SIZE[0], 3), level, np.uint8) for _ in views]
        pixels = drawn(sheet_of(views, flat, blend))
        assert (pixels[pixels[:, :, 3] > 0] == [level, level, level, 255]).all()

    @pytest.mark.parametrize("blend", BLENDS)
    def test_a_step_is_spread(self, blend: str) -> None:
        """Two photos of one grey, and one 40 levels brighter."""
        views = row(2, 30)
        grays = [np.full((SIZE[1], SIZE[0], 3), level, np.uint8) for level in (90, 130)]
        sheet = sheet_of(views, grays, blend)
        pixels = drawn(sheet)
        line = pixels[sheet.layout.size[1] // 2, 8:-8].astype(int)
        assert (line[:, 3] == 255).all()
        steps = np.diff(line[:, 0])
        assert (line[0, 0], line[-1, 0]) == (90, 130)
        assert (steps >= -1).all()
        wide = np.flatnonzero(steps)
        if blend == "none":
            assert (steps != 0).sum() == 1
        else:
            assert steps.max() <= 8
            assert 8 <= wide[-1] - wide[0] <= 2 * reach(blend, sheet.octaves)

    @pytest.mark.parametrize("blend", BLENDS)
    def test_outside_is_nothing(self, blend: str) -> None:
        views = row(3, 25)
        sheet = sheet_of(views, [picture(view) for view in views], blend)
        pixels = drawn(sheet)
        canvas = Region(0, 0, *sheet.layout.size)
        covered = np.any(
            [warp(sheet.photo(number), number, view, sheet.layout, canvas)[1] for number, view in enumerate(views)], 0
        )
        assert set(np.unique(pixels[:, :, 3])) == {0, 255}
        assert not pixels[pixels[:, :, 3] == 0].any()
        assert not (pixels[:, :, 3] > 0)[~covered].any()
        # What a reduced mask misses is a rim of its own pixels.
        rim = covered & (pixels[:, :, 3] == 0)
        deep = cv2.erode(np.pad(covered, 1).astype(np.uint8), np.ones((17, 17)))[1:-1, 1:-1] > 0
        assert not (rim & deep).any()

    def test_without_blending_every_pixel_is_of_one_photo(self) -> None:
        views = row(3, 25)
        sheet = sheet_of(views, exposed([picture(view) for view in views]), "none")
        pixels = drawn(sheet)
        canvas = Region(0, 0, *sheet.layout.size)
        warped = [warp(sheet.photo(number), number, view, sheet.layout, canvas)[0] for number, view in enumerate(views)]
        shown = pixels[:, :, 3] > 0
        nearest = np.min([np.abs(pixels[:, :, :3].astype(int) - each).max(2) for each in warped], 0)
        assert nearest[shown].max() <= 2


class TestRun:
    def test_tells_how_many_tiles_are_done(self) -> None:
        views = row(2, 30)
        sheet = sheet_of(views, [picture(view) for view in views], "none")
        with Canvas(sheet.layout.size, memory_bytes=1 << 30, folder=".") as canvas:
            assert list(compose(sheet, canvas, 64, 2)) == list(range(1, len(tiles(sheet.layout, 64)) + 1))

    def test_can_be_left(self) -> None:
        """What was not begun then is not begun."""
        views = row(2, 30)
        sheet = sheet_of(views, [picture(view) for view in views], "none")
        count = len(tiles(sheet.layout, 16))
        asked: list[int] = []
        rasters = sheet.photo

        def counting(number: int) -> InMemory:
            asked.append(number)
            return InMemory(rasters(number).read(0, 0, *SIZE))

        with Canvas(sheet.layout.size, memory_bytes=1 << 30, folder=".") as canvas:
            steps = compose(replace(sheet, photo=counting), canvas, 16, 1)
            assert next(steps) == 1
            steps.close()
        assert len(asked) < count

    def test_a_photo_that_cannot_be_read_any_more(self) -> None:
        views = row(2, 30)
        sheet = sheet_of(views, [picture(view) for view in views], "none")

        def gone(number: int) -> InMemory:
            raise FileMissing("there is no such file", path=f"{number}.jpg")

        with (
            Canvas(sheet.layout.size, memory_bytes=1 << 30, folder=".") as canvas,
            pytest.raises(FileMissing),
        ):
            list(compose(replace(sheet, photo=gone), canvas, 64, 2))

    def test_a_canvas_on_the_disk_is_the_same(self, tmp_path: Path) -> None:
        views = row(2, 30)
        sheet = sheet_of(views, [picture(view) for view in views], "feather")
        with Canvas(sheet.layout.size, memory_bytes=0, folder=tmp_path) as canvas:
            for _ in compose(sheet, canvas, 64, 2):
                pass
            np.testing.assert_array_equal(canvas.read(0, 0, *sheet.layout.size), drawn(sheet, 64))

    def test_a_tile_that_no_photo_reaches(self) -> None:
        views = row(1, 0)
        sheet = sheet_of(views, [picture(views[0])], "multiband")
        far = compose_tile(sheet, Region(5000, 5000, 20, 10))
        assert far.shape == (10, 20, 4)
        assert not far.any()


class TestCoarseOctaves:
    def corrected(self, levels: Sequence[int]) -> tuple[Sheet, np.ndarray, np.ndarray]:
        """Flat photos of these levels; drawn without corrections, and with them."""
        views = circle() if len(levels) == 10 else row(len(levels), 30)
        flat = [np.full((SIZE[1], SIZE[0], 3), level, np.uint8) for level in levels]
        sheet = sheet_of(views, flat, "multiband", octaves=3)
        even = sheet.mask_layout
        even = replace(
            even, regions=[Region(r.x // 2 * 2, r.y // 2 * 2, r.width + 2, r.height + 2) for r in even.regions]
        )
        pieces = pieces_of(flat, views, even)
        masks = find_seams(pieces, even.period, "voronoi")
        corrections = coarse_corrections([(piece.pixels, piece.mask) for piece in pieces], masks, even)
        sheet = replace(sheet, masks=masks, mask_layout=even)
        return sheet, drawn(sheet), drawn(replace(sheet, corrections=corrections))

    @pytest.mark.parametrize("count", [3, 10])
    def test_photos_that_agree_stay_as_they_are(self, count: int) -> None:
        _, before, after = self.corrected([120] * count)
        np.testing.assert_array_equal(before, after)

    def test_a_step_is_spread_farther(self) -> None:
        sheet, before, after = self.corrected([90, 130])
        lines = [pixels[sheet.layout.size[1] // 2, 12:-12, 0].astype(int) for pixels in (before, after)]
        widths = [np.ptp(np.flatnonzero(np.diff(line))) for line in lines]
        assert widths[1] > 1.5 * widths[0]
        assert np.abs(np.diff(lines[1])).max() < np.abs(np.diff(lines[0])).max()
        assert 80 <= lines[1].min() < lines[1].max() <= 140

    def test_all_around(self) -> None:
        """The step between the last photo and the first is spread, too."""
        sheet, _, after = self.corrected([90, 100] * 5)
        line = after[sheet.layout.size[1] // 2, :, 0].astype(int)
        assert np.abs(np.diff([*line, line[0]])).max() <= 2

    def test_octaves_of_full_size_reach_a_little_beyond_the_reduced_pixel(self) -> None:
        layout = lay_out(row(2, 30), "cylindrical", 1.0)
        for factor, octaves in ((1.0, 1), (0.5, 2), (0.26, 3), (0.25, 3), (0.1, 5)):
            assert fine_octaves(layout, layout.scaled(factor)) == octaves
        assert reach("multiband", 3) == 24
        assert reach("none", 3) == 0
