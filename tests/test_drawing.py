"""The match picture and the overlay: what is where, in which colour, and that nothing breaks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.local.drawing import draw_matches, draw_warp
from featkit.opencv import cv2

Pixels = np.ndarray
NO_POINTS = np.empty((0, 2))


def flat(width: int, height: int, colour: tuple[int, int, int] = (128, 128, 128)) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def photo(width: int, height: int, seed: int = 0) -> Pixels:
    """Blobs of all sizes, in colour."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, None, 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def coloured(picture: Pixels) -> np.ndarray:
    """Which pixels are not grey."""
    return np.ptp(picture.astype(int), axis=2) > 20


def below_title(picture: Pixels) -> Pixels:
    """The photos without the strip of an empty title: from the first grey row to the last."""
    photos = np.flatnonzero((picture == 128).all(axis=2).any(axis=1))
    return picture[photos[0] : photos[-1] + 1]


@pytest.fixture(scope="module")
def china(samples: Path) -> tuple[Pixels, Pixels, np.ndarray]:
    """The left and the right view, and the true homography between them."""
    left, right = (
        np.ascontiguousarray(cv2.imread(str(samples / f"china-{side}.jpg"))[:, :, ::-1]) for side in ("left", "right")
    )
    return left, right, np.loadtxt(samples / "china-left_to_china-right.txt")


@pytest.fixture(scope="module")
def matches(china: tuple[Pixels, Pixels, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2000 matches between the views: two thirds of them true."""
    random = np.random.default_rng(0)
    xy_a = random.uniform((230, 10), (470, 390), (2000, 2))
    xy_b = cv2.perspectiveTransform(xy_a[:, None], china[2])[:, 0]
    inliers = random.uniform(size=2000) < 0.66
    xy_b[~inliers] = random.uniform((0, 0), (479, 399), (int((~inliers).sum()), 2))
    return xy_a, xy_b, inliers


class TestMatchPicture:
    def test_photos_of_one_size_stand_side_by_side_untouched(self, china: tuple[Pixels, Pixels, np.ndarray]) -> None:
        left, right, _ = china
        picture = draw_matches(left, right, NO_POINTS, NO_POINTS, np.empty(0, bool), title="no match")
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        np.testing.assert_array_equal(picture[-400:, :480], left)
        np.testing.assert_array_equal(picture[-400:, -480:], right)

    def test_what_was_not_looked_at_is_pale_and_grey(self, china: tuple[Pixels, Pixels, np.ndarray]) -> None:
        left, right, _ = china
        looked_at = np.zeros(left.shape[:2], bool)
        looked_at[100:300, 50:250] = True
        picture = draw_matches(left, right, NO_POINTS, NO_POINTS, np.empty(0, bool), title="", looked_at_a=looked_at)
        photo_a, photo_b = picture[-400:, :480], picture[-400:, -480:]
        np.testing.assert_array_equal(photo_a[looked_at], left[looked_at])
        np.testing.assert_array_equal(photo_b, right)
        assert not coloured(photo_a[~looked_at][None]).any()
        assert photo_a[~looked_at].min() >= 190

    def test_a_mask_shrinks_with_its_photo(self) -> None:
        blue = flat(4000, 3000, (0, 0, 200))
        looked_at = np.zeros((3000, 4000), bool)
        looked_at[:, :1000] = True
        picture = draw_matches(
            blue, blue, NO_POINTS, NO_POINTS, np.empty(0, bool), title="", looked_at_a=looked_at, looked_at_b=~looked_at
        )
        columns = np.flatnonzero((picture[-1] == (0, 0, 200)).all(axis=1))
        assert len(columns) == pytest.approx(picture.shape[1] / 2, rel=0.02)  # a quarter of a, three of b
        assert (columns < picture.shape[1] / 2).sum() == pytest.approx(picture.shape[1] / 8, rel=0.02)

    def test_the_inputs_stay_as_they_are_and_two_runs_agree(
        self, china: tuple[Pixels, Pixels, np.ndarray], matches: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        arrays = [*china[:2], *matches]
        before = [array.copy() for array in arrays]
        first = draw_matches(*arrays, title="china")
        second = draw_matches(*arrays, title="china")
        np.testing.assert_array_equal(first, second)
        for array, copy in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_wide_photos_stand_one_above_the_other(self) -> None:
        blue, green = flat(900, 300, (0, 0, 200)), flat(900, 300, (0, 200, 0))
        picture = draw_matches(blue, green, NO_POINTS, NO_POINTS, np.empty(0, bool), title="")
        assert picture.shape[1] == 900
        assert (picture[-1, 0] == (0, 200, 0)).all()
        assert (picture[-400, 0] == (0, 0, 200)).all()

    @pytest.mark.parametrize("sizes", [((100, 80), (4000, 3000)), ((200, 150), (3000, 2000)), ((640, 480), (320, 240))])
    def test_photos_of_unequal_size_are_shown_equally_tall(
        self, sizes: tuple[tuple[int, int], tuple[int, int]]
    ) -> None:
        blue, green = flat(*sizes[0], (0, 0, 200)), flat(*sizes[1], (0, 200, 0))
        picture = draw_matches(blue, green, NO_POINTS, NO_POINTS, np.empty(0, bool), title="")
        heights = [(picture == colour).all(axis=2).any(axis=1).sum() for colour in ((0, 0, 200), (0, 200, 0))]
        assert heights[0] == heights[1] >= 480
        assert picture.shape[1] <= 2400

    def test_matches_are_placed_by_pixel_centres_when_photos_are_scaled(self) -> None:
        """The corner pixel of a photo enlarged 3 times is drawn at the centre of the 3×3 block that it became."""
        corner = [[0.0, 0.0], [99.0, 79.0]]
        picture = draw_matches(flat(100, 80), flat(100, 80), corner, corner, [True, True], title="")
        photos = below_title(picture)
        assert photos.shape[0] == 240
        # Antialiased discs are symmetric: the nearest pixel to the centre has the disc's own colour.
        assert tuple(photos[1, 1]) == (64, 140, 255)
        assert tuple(photos[-2, -2]) == (255, 230, 40)

    def test_inliers_run_from_blue_above_to_yellow_below(self) -> None:
        xy = np.array([[50.0, 20.0], [50.0, 150.0], [50.0, 280.0]])
        photos = below_title(draw_matches(flat(400, 300), flat(400, 300), xy, xy, [True] * 3, title=""))
        top, middle, bottom = (photos[y, 50].astype(int) for y in (20, 150, 280))
        assert tuple(top) == (64, 140, 255)
        assert middle[1] > max(middle[0], middle[2])
        assert tuple(bottom) == (255, 230, 40)
        np.testing.assert_array_equal(photos[20, 50], photos[20, -350])

    def test_an_inlier_is_a_line_all_the_way(self) -> None:
        xy_a, xy_b = [[100.0, 100.0]], [[300.0, 200.0]]
        photos = below_title(draw_matches(flat(400, 300), flat(400, 300), xy_a, xy_b, [True], title=""))
        columns = np.flatnonzero(coloured(photos).any(axis=0))
        np.testing.assert_array_equal(columns, np.arange(columns[0], columns[-1] + 1))
        gap = photos.shape[1] - 800
        assert columns[0] == pytest.approx(100, abs=4)
        assert columns[-1] == pytest.approx(400 + gap + 300, abs=4)

    def test_rejected_matches_are_red_and_fainter_than_inliers(self) -> None:
        xy = np.array([[100.0, 100.0]])

        def changed(inlier: bool) -> np.ndarray:
            photos = below_title(draw_matches(flat(400, 300), flat(400, 300), xy, xy, [inlier], title=""))
            return np.asarray(photos[100, 250].astype(int) - 128)  # on the line, far from both points

        rejected, agreed = changed(False), changed(True)
        assert rejected[0] > 0 > max(rejected[1], rejected[2])
        assert np.abs(rejected).max() < 0.6 * np.abs(agreed).max()

    def test_thousands_of_inliers_leave_the_photos_visible(self) -> None:
        a = flat(1000, 700)
        xy = np.random.default_rng(0).uniform((0, 0), (999, 699), (3000, 2))
        photos = below_title(draw_matches(a, a, xy, xy, np.ones(3000, bool), title=""))
        assert 0.15 < coloured(photos).mean() < 0.45

    def test_lines_are_spread_over_all_inliers(self) -> None:
        """10 inliers at the top are not lost among 5000 at the bottom, whatever their order."""
        random = np.random.default_rng(0)
        xy = np.vstack([random.uniform((0, 300), (399, 399), (5000, 2)), random.uniform((0, 0), (399, 40), (10, 2))])
        photos = below_title(draw_matches(flat(400, 400), flat(400, 400), xy, xy, np.ones(5010, bool), title=""))
        assert coloured(photos[:45, 400:404]).any()

    def test_matches_outside_a_photo_are_clipped_to_it_and_unusable_ones_left_out(self) -> None:
        a = flat(300, 300)
        xy_a = [[-1e9, 1e9], [np.nan, 5], [10, np.inf], [250, 250]]
        xy_b = [[1e9, -5], [5, 5], [5, 5], [1e300, 250]]
        photos = below_title(draw_matches(a, a, xy_a, xy_b, [True] * 4, title=""))
        assert coloured(photos)[-3:, :3].any()
        assert not coloured(photos)[:100, :200].any()

    def test_the_width_is_bounded(self, china: tuple[Pixels, Pixels, np.ndarray]) -> None:
        picture = draw_matches(*china[:2], NO_POINTS, NO_POINTS, np.empty(0, bool), title="china", max_width=600)
        assert picture.shape[1] <= 600

    @pytest.mark.parametrize(
        "sizes",
        [
            ((1, 1), (1, 1)),
            ((20, 2000), (20, 2000)),
            ((2000, 20), (2000, 20)),
            ((20, 2000), (2000, 20)),
            ((1, 1), (3000, 1)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("inliers", [True, False], ids=["all inliers", "all rejected"])
    def test_odd_shapes(self, sizes: tuple[tuple[int, int], tuple[int, int]], inliers: bool) -> None:
        xy = np.random.default_rng(0).uniform(-5, 2000, (200, 2))
        picture = draw_matches(flat(*sizes[0]), flat(*sizes[1]), xy, xy[::-1], [inliers] * 200, title="odd shapes")
        assert picture.dtype == np.uint8
        assert 480 <= picture.shape[1] <= 2400
        assert picture.shape[0] <= 2500


class TestTitle:
    @staticmethod
    def title_strip(title: str, width: int = 400) -> Pixels:
        blue = (0, 0, 200)
        picture = draw_matches(
            flat(width, 300, blue), flat(width, 300, blue), NO_POINTS, NO_POINTS, np.empty(0, bool), title=title
        )
        return picture[: np.flatnonzero((picture == blue).all(axis=2).any(axis=1))[0]]

    def test_it_is_dark_on_white_and_starts_at_the_left(self) -> None:
        strip = self.title_strip("612 matches · 571 inliers · reliable")
        columns = np.flatnonzero((strip < 100).any(axis=(0, 2)))
        assert columns[0] < 20
        assert (strip == 255).mean() > 0.8

    @pytest.mark.parametrize("width", [100, 400, 1000])
    def test_a_long_one_fits_and_keeps_its_end(self, width: int) -> None:
        end = "612 matches · 571 inliers · homography · reliable"
        strip = self.title_strip(f"{'a-very-long-name' * 20}.jpg   {end}", width)
        assert (strip[:, -4:] == 255).all()
        # The last letters are those of the verdict: the same columns as in any other cut title with this end.
        other = self.title_strip(f"{'another-long-name' * 20}.jpg   {end}", width)
        ink, other_ink = ((picture < 128).any(axis=2) for picture in (strip, other))
        right, other_right = (np.flatnonzero(picture.any(axis=0))[-1] for picture in (ink, other_ink))
        np.testing.assert_array_equal(ink[:, right - 60 : right], other_ink[:, other_right - 60 : other_right])

    @pytest.mark.parametrize("name", ["中国", "日本", "Фото", "φωτο", "é–×"])
    def test_names_in_other_scripts_are_legible(self, name: str) -> None:
        assert not np.array_equal(self.title_strip(name), self.title_strip("?" * len(name)))
        assert not np.array_equal(self.title_strip(name), self.title_strip(name[::-1]))

    @pytest.mark.parametrize("title", ["", "caf\udce9.jpg", "a\nb\tc\x00d\x1b[31m", "😀" * 100, "\u202eabc", "ﷺ" * 300])
    def test_no_title_breaks_it(self, title: str) -> None:
        strip = self.title_strip(title)
        assert 20 < strip.shape[0] < 60

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.characters(exclude_categories=[]), max_size=80))
    def test_any_text_can_be_a_title(self, title: str) -> None:
        assert (self.title_strip(title)[:, -4:] == 255).all()


class TestOverlay:
    def test_a_photo_over_itself_is_grey(self) -> None:
        a = photo(300, 200)
        overlay = draw_warp(a, a, np.eye(3))
        assert overlay.shape == (200, 300, 3)
        np.testing.assert_array_equal(overlay, np.repeat(cv2.cvtColor(a, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2))

    def test_the_true_homography_gives_grey_and_a_wrong_one_colour(
        self, china: tuple[Pixels, Pixels, np.ndarray]
    ) -> None:
        left, right, matrix = china

        def colour(matrix: np.ndarray) -> float:
            """Mean difference of red and cyan where both views overlap, far from the edges."""
            overlay = draw_warp(left, right, matrix).astype(int)
            _, top, _ = np.array(overlay.shape) - (400, 480, 0)
            assert top > 0
            return float(np.abs(overlay[50:350, 260:460, 0] - overlay[50:350, 260:460, 1]).mean())

        shifted = np.array([[1, 0, 3], [0, 1, 3], [0, 0, 1]]) @ matrix
        assert colour(matrix) < 6
        assert colour(shifted) > 3 * colour(matrix)

    def test_exposure_and_contrast_are_no_misalignment(self) -> None:
        a = photo(300, 200) // 2 + 60
        darker = (a * 0.6).astype(np.uint8)
        overlay = draw_warp(a, darker, np.eye(3)).astype(int)
        assert np.abs(overlay[:, :, 0] - overlay[:, :, 1]).max() <= 4

    def test_what_only_one_photo_shows_keeps_its_colours(self) -> None:
        a, b = photo(300, 200, seed=1), photo(300, 200, seed=2)
        overlay = draw_warp(a, b, np.array([[1.0, 0, -100], [0, 1, 0], [0, 0, 1]]))
        assert overlay.shape == (200, 400, 3)
        np.testing.assert_array_equal(overlay[:, :100], a[:, :100])
        np.testing.assert_array_equal(overlay[:, 300:], b[:, 200:])

    def test_edges_point_out_the_photo_that_they_come_from(self) -> None:
        """A white square that a alone has is red, one that b alone has is cyan."""
        a, b = flat(300, 200), flat(300, 200)
        a[50:100, 50:100] = 255
        b[50:100, 200:250] = 255
        overlay = draw_warp(a, b, np.eye(3)).astype(int)
        assert overlay[75, 75, 0] > overlay[75, 75, 1] + 50
        assert overlay[75, 225, 1] > overlay[75, 225, 0] + 50
        assert overlay[75, 225, 1] == overlay[75, 225, 2]

    def test_the_inputs_stay_as_they_are_and_two_runs_agree(self, china: tuple[Pixels, Pixels, np.ndarray]) -> None:
        before = [array.copy() for array in china]
        np.testing.assert_array_equal(draw_warp(*china), draw_warp(*china))
        for array, copy in zip(china, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_the_frame_reaches_half_a_photo_around_a_and_no_further(self) -> None:
        a, b = flat(300, 200, (10, 20, 30)), flat(2000, 2000, (200, 100, 50))
        overlay = draw_warp(a, b, np.array([[1.0, 0, 900], [0, 1, 900], [0, 0, 1]]))
        assert overlay.shape == (400, 600, 3)

    def test_nothing_appears_beyond_the_horizon(self) -> None:
        """The matrix maps x to x / (1 - x / 200): a photo pixel is seen before x = 200, its mirror image behind."""
        a, b = flat(300, 200, (0, 0, 0)), flat(300, 200, (250, 0, 0))
        overlay = draw_warp(a, b, np.array([[1, 0, 0], [0, 1, 0], [-1 / 200, 0, 1]]))
        np.testing.assert_array_equal(overlay[:, 205:300], a[:, 205:300])
        assert overlay.shape[1] <= 600

    def test_a_much_larger_photo_is_averaged_not_sampled(self) -> None:
        a = flat(100, 80)
        b = np.random.default_rng(0).integers(0, 256, (1600, 2000, 3), dtype=np.uint8)
        overlay = draw_warp(a, b, np.array([[20.0, 0, -700], [0, 20, 0], [0, 0, 1]]))
        alone = overlay[:, -30:]  # b without a
        assert abs(float(alone.mean()) - 127) < 3
        assert alone.std() < 10

    def test_the_size_is_bounded(self) -> None:
        overlay = draw_warp(photo(900, 600), photo(900, 600), np.eye(3), max_width=450)
        assert overlay.shape == (300, 450, 3)
        assert not coloured(overlay).any()

    @pytest.mark.parametrize(
        "matrix",
        [
            np.zeros((3, 3)),
            np.ones((3, 3)),
            np.eye(3) * 1e-300,
            np.diag([1e200, 1e200, 1.0]),
            np.diag([1e-9, 1e-9, 1.0]),
            np.array([[1, 0, 5000], [0, 1, 0], [0, 0, 1.0]]),
            np.array([[1, 2, 3], [2, 4, 6 + 1e-9], [0, 0, 1]]),
            np.array([[1, 0, 0], [0, 1, 0], [1 / 300, 0, -1]]),
        ],
        ids=["zero", "ones", "tiny", "shrinks all", "magnifies all", "no overlap", "nearly singular", "horizon"],
    )
    def test_degenerate_matrices(self, matrix: np.ndarray) -> None:
        overlay = draw_warp(photo(300, 200), photo(280, 210), matrix)
        assert overlay.dtype == np.uint8
        assert 200 <= overlay.shape[0] <= 400
        assert 280 <= overlay.shape[1] <= 600

    @pytest.mark.parametrize("sizes", [((1, 1), (1, 1)), ((20, 2000), (2000, 20)), ((1, 3000), (5, 5))], ids=str)
    def test_odd_shapes(self, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
        overlay = draw_warp(flat(*sizes[0]), flat(*sizes[1]), np.eye(3))
        assert min(overlay.shape[:2]) >= 1
        assert max(overlay.shape[:2]) <= 2400

    @pytest.mark.parametrize("matrix", [np.eye(2), np.full((3, 3), np.nan), np.diag([1, 1, np.inf])])
    def test_a_matrix_that_is_none_is_refused(self, matrix: np.ndarray) -> None:
        with pytest.raises(ValueError, match="3×3 and finite"):
            draw_warp(flat(10, 10), flat(10, 10), matrix)
