"""A photo on the canvas: the same as if the place of every pixel had been computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from known_cameras import SIZE, camera, sheet, turned

from featkit.images import resize
from featkit.opencv import cv2
from featkit.stitching.exposure import Exposure, ToneCurve
from featkit.stitching.photos import InMemory
from featkit.stitching.projection import PROJECTIONS, Layout, Region, lay_out
from featkit.stitching.views import View
from featkit.stitching.warping import warp

NAMES = [name for name in PROJECTIONS if name != "auto"]
#: Levels a pixel, at most, of `waves`: .02 pixel is half a level there.
STEEPEST = 2 * np.pi * 90 / 24


def waves(size: tuple[int, int]) -> np.ndarray:
    """A smooth picture whose every place looks different: uint8 H×W×3."""
    x, y = np.meshgrid(*(np.arange(side) for side in size))
    channels = [np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / 24 + a) for a in (0.0, 1.3, 2.5)]
    return np.rint(128 + 90 * np.stack(channels, 2)).astype(np.uint8)


def dense(view: View, layout: Layout, region: Region, size: tuple[int, int]) -> np.ndarray:
    """float64 h×w×2: where each pixel of the region lies in a photo of that size; far outside where nowhere."""
    x, y = np.meshgrid(region.x + np.arange(region.width), region.y + np.arange(region.height))
    rays = layout.rays(np.stack([x.ravel(), y.ravel()], 1).astype(float))
    xy = view.project(np.nan_to_num(rays))
    xy[~np.isfinite(rays).all(1) | ~np.isfinite(xy).all(1)] = -1e4
    xy = (xy + 0.5) * (np.array(size) / view.size) - 0.5
    return np.asarray(xy.reshape(region.height, region.width, 2))


def remapped(pixels: np.ndarray, xy: np.ndarray) -> np.ndarray:
    x, y = (np.ascontiguousarray(xy[:, :, axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def depth(xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far inside the outermost pixels' centres each place lies, below 0 outside."""
    return np.asarray(np.minimum(xy, np.array(size) - 1 - xy).min(2))


def assert_as_dense(pixels: np.ndarray, view: View, layout: Layout, region: Region, within: float = 0.02) -> None:
    """within: how far places may be off, pixels of the photo."""
    size = pixels.shape[1], pixels.shape[0]
    warped, mask = warp(InMemory(pixels), 0, view, layout, region)
    xy = dense(view, layout, region, size)
    inside = depth(xy, size)

    assert (warped.dtype, mask.dtype) == (np.uint8, bool)
    assert warped.shape == (region.height, region.width, 3)
    clear = np.abs(inside) > within
    np.testing.assert_array_equal(mask[clear], inside[clear] >= 0)
    assert mask.any()
    difference = np.abs(warped[mask].astype(int) - remapped(pixels, xy)[mask])
    # OpenCV knows places to 1/32 pixel, and colours to a level.
    assert difference.max() <= np.ceil(STEEPEST * (1 / 32 + within) + 1)
    assert difference.mean() < 0.02 * STEEPEST


class TestPlaces:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(("focal_px", "within"), [(400.0, 0.15), (800.0, 0.02)])
    def test_on_every_surface(self, name: str, focal_px: float, within: float) -> None:
        """The shorter the lens, the more bent is what is interpolated: of 800 pixels .005 to .018 are measured."""
        view = camera(turned(14, 7, 8), focal_px, SIZE, (-0.05, 0.01), axis=(3, -5))
        layout = lay_out([view], name, 1.0)
        assert_as_dense(waves(SIZE), view, layout, layout.regions[0], within)

    def test_on_the_plane_of_something_flat(self) -> None:
        view = sheet("homography", np.random.default_rng(1), 150.0, -70.0)
        layout = lay_out([view], "auto", 1.0)
        assert_as_dense(waves(SIZE), view, layout, layout.regions[0])

    @pytest.mark.parametrize(("scale", "within"), [(0.5, 0.1), (1.7, 0.02)])
    def test_smaller_and_larger(self, scale: float, within: float) -> None:
        view = camera(turned(-20, 5, 3), 600.0)
        layout = lay_out([view], "spherical", scale)
        assert_as_dense(waves(SIZE), view, layout, layout.regions[0], within)

    def test_of_a_reduced_photo(self) -> None:
        """A view is of the full size; the pixels may be fewer."""
        size = 320, 241
        view = camera(turned(15, 5, -4), 1200.0, (640, 482))
        layout = lay_out([view], "cylindrical", 0.5)
        assert_as_dense(waves(size), view, layout, layout.regions[0])

    def test_a_reduced_photo_shows_what_the_photo_does(self) -> None:
        """Where the edges of pixels lie matters: half a pixel would be 1 level in the mean, 2.5 at most."""
        x, y = np.meshgrid(np.arange(640), np.arange(480))
        large = np.rint(128 + 100 * np.sin(x / 20) * np.cos(y / 20)).astype(np.uint8)[:, :, None].repeat(3, 2)
        view = camera(turned(10), 600.0)
        layout = lay_out([view], "cylindrical", 0.5)
        shown = [warp(InMemory(pixels), 0, view, layout, layout.regions[0]) for pixels in (large, resize(large, 0.5))]
        both = shown[0][1] & shown[1][1]
        difference = shown[0][0][both].astype(int) - shown[1][0][both]
        assert np.abs(difference).mean() < 0.6

    @pytest.mark.parametrize("corner", [(-3, 5), (100, 201), (317, -40)])
    @pytest.mark.parametrize("size", [(1, 1), (7, 300), (133, 64)])
    def test_any_window(self, corner: tuple[int, int], size: tuple[int, int]) -> None:
        """What a tile is given is what the whole has there, to the bit."""
        view = camera(turned(25, 12, 8), 400.0)
        layout = lay_out([view], "cylindrical", 1.0)
        pixels = waves(SIZE)
        whole, covered = warp(InMemory(pixels), 0, view, layout, Region(-64, -64, 800, 800))
        region = Region(*corner, *size)

        part, mask = warp(InMemory(pixels), 0, view, layout, region)

        place = np.s_[region.y + 64 : region.bottom + 64, region.x + 64 : region.right + 64]
        np.testing.assert_array_equal(mask, covered[place])
        np.testing.assert_array_equal(part[mask], whole[place][mask])

    def test_beyond_the_edge_of_a_circle(self) -> None:
        """Left of it as right of it."""
        views = [camera(turned(30.0 * number), 1920 / (2 * np.pi)) for number in range(12)]
        layout = lay_out(views, "cylindrical", 1.0)
        assert layout.period is not None
        region = layout.regions[6]
        assert region.right > layout.size[0] or region.x < 0
        both = [warp(InMemory(waves(SIZE)), 6, views[6], layout, region.shifted(s)) for s in (0, layout.period)]
        assert (both[0][1] != both[1][1]).mean() < 1e-4
        assert np.abs(both[0][0].astype(int) - both[1][0]).max() <= 2

    @pytest.mark.parametrize("pitch", [90, -90])
    def test_up_to_the_pole(self, pitch: float) -> None:
        """Nothing is missing where the camera looked straight up, or down."""
        view = camera(turned(0, pitch), 300.0)
        layout = lay_out([view, camera(turned(0), 300.0)], "spherical", 1.0)
        region = layout.regions[0]
        _, mask = warp(InMemory(waves(SIZE)), 0, view, layout, region)
        rows = np.s_[:40] if pitch > 0 else np.s_[-40:]
        assert mask[rows].all()


class TestMasks:
    def test_what_a_photo_does_not_show_is_empty_and_not_read(self) -> None:
        view = camera(turned(0), 400.0)
        layout = lay_out([view, camera(turned(60), 400.0)], "cylindrical", 1.0)
        photo = Recorder(waves(SIZE))
        warped, mask = warp(photo, 0, view, layout, Region(700, 20, 50, 60))
        assert not mask.any()
        assert not warped.any()
        assert photo.windows == []

    def test_behind_the_camera_is_nothing(self) -> None:
        view = camera(turned(0), 400.0)
        layout = lay_out([view, camera(turned(180), 400.0)], "spherical", 1.0)
        once = warp(InMemory(waves(SIZE)), 0, view, layout, layout.regions[0])[1].sum()
        _, around = warp(InMemory(waves(SIZE)), 0, view, layout, Region(-300, 0, 2513, layout.size[1]))
        assert around.sum() == pytest.approx(once, rel=0.01)  # 2π · 400 pixels are one turn

    def test_a_photo_of_one_pixel(self) -> None:
        view = camera(turned(0), 2.0, (1, 1))
        layout = lay_out([view], "planar", 1.0)
        warped, mask = warp(InMemory(np.full((1, 1, 3), 77, np.uint8)), 0, view, layout, layout.regions[0])
        assert (warped[mask] == 77).all()


@dataclass
class Recorder:
    """A picture that remembers which windows of it were read: x, y, width, height."""

    pixels: np.ndarray
    windows: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        assert min(x, y) >= 0
        assert x + width <= self.size[0]
        assert y + height <= self.size[1]
        self.windows.append((x, y, width, height))
        return self.pixels[y : y + height, x : x + width]


class TestReading:
    def test_no_more_is_read_than_is_needed(self) -> None:
        view = camera(turned(20, 10, 5), 500.0)
        layout = lay_out([view], "cylindrical", 1.0)
        whole, covered = warp(InMemory(waves(SIZE)), 0, view, layout, layout.regions[0])
        photo = Recorder(waves(SIZE))
        part, mask = warp(photo, 0, view, layout, Region(300, 200, 64, 64))
        ((_, _, width, height),) = photo.windows
        assert max(width, height) < 100
        x, y = 300 - layout.regions[0].x, 200 - layout.regions[0].y
        assert mask.all()
        assert covered[y : y + 64, x : x + 64].all()
        np.testing.assert_array_equal(part, whole[y : y + 64, x : x + 64])

    def test_at_the_edge_nothing_else_is_seen(self) -> None:
        """Cubic interpolation looks beyond the place; the part that is read has what it looks at."""
        view = camera(turned(0), 500.0)
        layout = lay_out([view], "planar", 1.0)
        photo = waves(SIZE)
        for x in range(0, 600, 57):
            region = Region(x, 10, 9, 30)
            assert_as_dense(photo, view, layout, region)


class TestExposure:
    def exposure(self, vignetting: tuple[float, float]) -> Exposure:
        gains = np.array([[1.0, 1, 1], [1.3, 1.0, 0.8]])
        return Exposure(gains, np.array([vignetting]), (0, 0), ToneCurve(np.zeros(8)))

    @pytest.mark.parametrize("number", [0, 1])
    @pytest.mark.parametrize("vignetting", [(0.0, 0.0), (-0.5, -0.2)])
    def test_a_warped_photo_is_corrected_as_it_would_be_before(
        self, vignetting: tuple[float, float], number: int
    ) -> None:
        exposure = self.exposure(vignetting)
        view = camera(turned(20, 10, 5), 500.0, (321, 243))
        layout = lay_out([view], "cylindrical", 1.0)
        region = replace(layout.regions[0], width=201)
        picture = np.full((243, 321, 3), (60, 110, 170), np.uint8)

        warped, mask = warp(InMemory(picture), number, view, layout, region, exposure)

        xy = dense(view, layout, region, view.size)[mask]
        radius = np.linalg.norm(xy - view.centre, axis=1) / (np.hypot(*view.size) / 2)
        expected = exposure.correct(number, np.tile([60.0, 110, 170], (len(xy), 1)), radius)
        difference = warped[mask] - expected
        assert np.abs(difference).max() < 2.5
        assert np.abs(difference.mean(0)).max() < 0.6
