"""Charts of accuracies: that dots and intervals stand where they should, that all is named and nothing is cut, and that
no name and no number breaks them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit import images
from featkit.images import Pixels
from featkit.learning.curves import Point, comparison_chart, learning_curve_chart, sweep_chart
from featkit.learning.evaluation import wilson
from featkit.learning.learning_curve import CurvePoint

#: The colours of the first three series, and of the frame.
BLUE, ORANGE, GREEN, FRAME = (0, 114, 178), (213, 94, 0), (0, 158, 115), (200, 200, 200)

AWKWARD = (
    "$\\frac{1}{$", "_hidden", "a very long name " * 12, "W" * 200, "漢字", "🦊", "caf\udce9", "two\nlines", "مرحبا",
    "{title} %s", "null\0byte", " ", "",
)  # fmt: skip


def point(name: str, accuracy: float, *, series: str = "ridge", reach: float = 0.01, saved: bool = False) -> Point:
    return Point(series, name, 320, accuracy, (accuracy - reach, accuracy + reach), saved=saved)


def sweep(layers: int, name: str = "blocks.{}", series: Sequence[str] = ("ridge",)) -> list[Point]:
    """Accuracies that grow with depth, each series a little below the one before; the last layer but one is saved."""
    found = []
    for below, each in enumerate(series):
        for depth in range(layers):
            share = 0.9 - 0.5 * 0.8**depth - 0.03 * below
            saved = below == 0 and depth == max(layers - 2, 0)
            interval = wilson(share, 1000)
            found.append(Point(each, name.format(depth), 16 << depth % 8, share, interval, share - 0.01, saved))
    return found


def where(pixels: Pixels, colour: tuple[int, int, int]) -> np.ndarray:
    """N×2: rows and columns of the pixels of exactly this colour."""
    return np.argwhere((pixels == colour).all(axis=2))


def frame(pixels: Pixels) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what the axes enclose."""
    grey = (pixels == FRAME).all(axis=2)
    rows, columns = np.flatnonzero(grey.mean(1) > 0.3), np.flatnonzero(grey.mean(0) > 0.3)
    return rows[0], columns[0], rows[-1], columns[-1]


def drawn(chart: bytes) -> Pixels:
    """Within the axes."""
    pixels = images.decode(chart)
    top, left, bottom, right = frame(pixels)
    return pixels[top + 2 : bottom - 1, left + 2 : right - 1]


def runs(taken: np.ndarray, gap: int = 1) -> list[tuple[int, int]]:
    """First and last places of what is taken, parted by at least `gap` that is not."""
    places = np.flatnonzero(taken)
    parts = np.split(places, np.flatnonzero(np.diff(places) > gap) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts if len(part)]


def bluish(pixels: Pixels) -> np.ndarray:
    """Where the first series is drawn, its thin lines too."""
    return pixels[..., 2].astype(int) - pixels[..., 0] > 60


def ink(pixels: Pixels) -> np.ndarray:
    """Which pixels are of text."""
    return pixels.max(axis=2) < 170


class TestSweep:
    def test_dots_are_true_to_scale_and_intervals_reach_as_far_as_they_do(self) -> None:
        series = [(BLUE, 0.96, 0.002), (ORANGE, 0.97, 0.004), (GREEN, 0.975, 0.008)]
        points = [point("a", share, series=str(number), reach=reach) for number, (_, share, reach) in enumerate(series)]
        pixels = drawn(sweep_chart(points))
        spans = [(rows.min(), rows.max()) for rows in (where(pixels, colour)[:, 0] for colour, _, _ in series)]
        # The lengths are in pixels, of which a cap's thickness is one or two; the places from bottom to top.
        middles = [-(low + high) / 2 for low, high in spans]
        lengths = [high - low for low, high in spans]
        by_share = (middles[2] - middles[0]) / 0.015
        assert middles[1] - middles[0] == pytest.approx(0.01 * by_share, abs=2)
        for length, (_, _, reach) in zip(lengths, series, strict=True):
            assert length == pytest.approx(2 * reach * by_share, abs=3)

    def test_what_differs_little_is_seen_to_differ(self) -> None:
        pixels = drawn(sweep_chart([point("a", 0.97, reach=0.002), point("b", 0.985, reach=0.002)]))
        rows = where(pixels, BLUE)[:, 0]
        assert np.ptp(rows) > 0.7 * len(pixels)

    def test_what_is_equal_looks_equal(self) -> None:
        pixels = drawn(sweep_chart([point(str(number), 0.97, reach=1e-4) for number in range(5)]))
        assert np.ptp(where(pixels, BLUE)[:, 0]) < 12

    def test_layers_stand_in_their_order_and_evenly(self) -> None:
        pixels = drawn(sweep_chart([point(name, 0.5, reach=0.2) for name in ("z", "a", "m", "b")]))
        bars = runs(bluish(pixels).sum(axis=0) > 100)
        assert len(bars) == 4
        middles = np.array([sum(bar) / 2 for bar in bars])
        assert np.diff(middles) == pytest.approx(np.full(3, pixels.shape[1] / 4), abs=2)
        grown = drawn(sweep_chart([point("z", 0.1), point("a", 0.2), point("m", 0.9)]))
        blue = where(grown, BLUE)
        third = grown.shape[1] / 3
        heights = [blue[(blue[:, 1] // third) == each, 0].max() for each in range(3)]
        assert heights[0] > heights[1] > heights[2]

    @pytest.mark.parametrize("layers", [1, 5, 13, 26])
    @pytest.mark.parametrize("name", ["blocks.{}", "features.denseblock4.denselayer{}.conv2.of.many"])
    def test_every_layer_is_named_apart_from_the_next(self, layers: int, name: str) -> None:
        pixels = images.decode(sweep_chart(sweep(layers, name)))
        _, left, bottom, right = frame(pixels)
        names = ink(pixels[bottom + 3 :, left:right])
        rows = runs(names.any(axis=1), gap=4)
        assert len(rows) == 2  # of names, and of dimensions
        for first, last in rows:
            columns = runs(names[first : last + 1].any(axis=0), gap=5)
            assert len(columns) == layers

    def test_the_saved_one_is_ringed(self) -> None:
        points = [point("a", 0.5), point("b", 0.7), point("c", 0.6)]
        ringed = [*points[:1], point("b", 0.7, saved=True), *points[2:]]
        before, after = (drawn(sweep_chart(each)) for each in (points, ringed))
        (top, left), (bottom, right) = (
            each(np.argwhere((before != after).any(axis=2)), axis=0) for each in (np.min, np.max)
        )
        middle = before.shape[1] // 2
        interval = np.flatnonzero(bluish(before)[:, middle - 1 : middle + 2].any(axis=1))
        assert (top + bottom) / 2 == pytest.approx((interval.min() + interval.max()) / 2, abs=2)
        assert (left + right) / 2 == pytest.approx(middle, abs=2)
        assert right - left < 30

    def test_validated_accuracies_are_shown_as_far_as_they_are_known(self) -> None:
        points = [Point("ridge", name, 8, 0.9, (0.89, 0.91), known) for name, known in (("a", None), ("b", 0.5))]
        pixels = drawn(sweep_chart(points))
        low = bluish(pixels)[int(0.8 * len(pixels)) :]
        middle = low.shape[1] // 2
        assert not low[:, :middle].any()
        assert low[:, middle:].any()

    def test_several_series_have_a_colour_each_and_a_legend(self) -> None:
        one, three = (
            images.decode(sweep_chart(sweep(5, series=each))) for each in (("ridge",), ("ridge", "svm", "knn"))
        )
        for colour in (BLUE, ORANGE, GREEN):
            right = frame(three)[3]
            assert len(where(three[:, right:], colour)) > 20
        assert not len(where(one, ORANGE))
        assert not len(where(one[:, frame(one)[3] + 2 :], BLUE))


class TestLearningCurve:
    def test_sizes_stand_on_a_logarithmic_scale(self) -> None:
        points = [CurvePoint(size, size, 10**6, (0.8,)) for size in (1, 10, 100)]
        pixels = drawn(learning_curve_chart(points))
        dots = runs(bluish(pixels).sum(axis=0) > 5)
        assert len(dots) == 3
        first, second, third = ((left + right) / 2 for left, right in dots)
        assert second - first == pytest.approx(third - second, abs=1.5)

    def test_the_mean_stands_between_the_draws(self) -> None:
        points = [CurvePoint(1, 2, 1000, (0.3, 0.7)), CurvePoint(2, 4, 1000, (0.5, 0.9))]
        pixels = drawn(learning_curve_chart(points)).astype(int)
        column = where(pixels, BLUE)[:, 1].min() + 4
        # Beside the band's tone and the lines in it.
        dark = pixels[:, column - 1 : column + 2].mean(axis=1).sum(axis=1) < 700 - 150
        found = [sum(each) / 2 for each in runs(dark, gap=2)]
        assert len(found) == 3
        assert found[1] == pytest.approx((found[0] + found[2]) / 2, abs=3)

    def test_the_band_holds_the_interval(self) -> None:
        for tested in (100, 400, 1600):
            low, high = wilson(0.5, tested)
            # The others stretch the axis from 10 % to 90 %.
            sizes = ((1, tested, 0.5), (10, tested, 0.5), (100, 10**9, 0.1), (200, 10**9, 0.9))
            pixels = drawn(learning_curve_chart([CurvePoint(size, 1, count, (each,)) for size, count, each in sizes]))
            column = pixels[:, pixels.shape[1] // 4].astype(int)
            height = int((column[:, 2] - column[:, 0] > 10).sum())
            assert height / len(pixels) == pytest.approx((high - low) / 0.8 / 1.12, abs=0.01)

    def test_sizes_too_near_to_be_read_are_left_out(self) -> None:
        sizes = (1, 2, 5, 10, 20, 50, 100, 121)
        pixels = images.decode(learning_curve_chart([CurvePoint(size, size, 100, (0.8,)) for size in sizes]))
        _, left, bottom, right = frame(pixels)
        below = ink(pixels[bottom + 3 :, left - 10 : right + 10])
        first, last = runs(below.any(axis=1), gap=2)[0]
        assert len(runs(below[first : last + 1].any(axis=0), gap=4)) == len(sizes) - 1

    def test_one_point(self) -> None:
        pixels = drawn(learning_curve_chart([CurvePoint(3, 6, 100, (0.5,))]))
        assert np.ptp(where(pixels, BLUE)[:, 0]) > 0.7 * len(pixels)


class TestComparison:
    def test_rows_from_top_to_bottom_dots_true_to_scale(self) -> None:
        shares = (0.9, 0.8, 0.95, 0.6)
        pixels = drawn(comparison_chart([point(str(number), share, reach=1e-4) for number, share in enumerate(shares)]))
        middles = []
        for part in np.array_split(np.arange(len(pixels)), 4):
            middles.append(where(pixels[part], BLUE)[:, 1].mean())
        scale = (middles[2] - middles[3]) / 0.35
        assert [(each - middles[3]) / scale + 0.6 for each in middles] == pytest.approx(shares, abs=0.003)

    def test_series_stand_under_one_another_in_their_row(self) -> None:
        points = [
            point(name, 0.8, series=series, saved=series == "svm" and name == "b")
            for name in ("a", "b")
            for series in ("ridge", "svm", "knn")
        ]
        pixels = drawn(comparison_chart(points))
        half = len(pixels) // 2
        for part in (pixels[:half], pixels[half:]):
            rows = [where(part, colour)[:, 0].mean() for colour in (BLUE, ORANGE, GREEN)]
            assert rows[0] + 10 < rows[1] < rows[2] - 10

    def test_what_was_validated_is_left_out(self) -> None:
        plain = [Point("ridge", "lite0", 1280, 0.9, (0.85, 0.93))]
        assert comparison_chart([Point("ridge", "lite0", 1280, 0.9, (0.85, 0.93), 0.2)]) == comparison_chart(plain)

    def test_a_row_is_as_high_as_its_own_series_take(self) -> None:
        """One classifier of each: as one for all."""

        def height(other: str) -> int:
            points = [Point(series, name, 9, 0.9, (0.8, 0.95)) for series, name in (("ridge", "lite0"), (other, "hog"))]
            return len(drawn(comparison_chart(points)))

        assert height("svm") == height("ridge")


CHARTS = {
    "sweep": lambda points: sweep_chart(points, "a title"),
    "comparison": lambda points: comparison_chart(points, "a title"),
    "curve": lambda points: learning_curve_chart(
        [CurvePoint(1 << n, 1 << n, 100, (each.accuracy, each.interval[0])) for n, each in enumerate(points[:16])]
    ),
}


@pytest.mark.parametrize("chart", CHARTS)
class TestAll:
    @pytest.mark.parametrize(("layers", "series"), [(1, 1), (2, 7), (26, 2)])
    def test_nothing_is_cut(self, chart: str, layers: int, series: int) -> None:
        points = sweep(layers, "features.denseblock4.denselayer{}.conv2.of.many", [f"head {n}" for n in range(series)])
        pixels = images.decode(CHARTS[chart](points))
        assert (pixels[:6] == 255).all()
        assert (pixels[-6:] == 255).all()
        assert (pixels[:, :6] == 255).all()
        assert (pixels[:, -6:] == 255).all()
        assert max(pixels.shape) < 3000

    @given(st.lists(st.sampled_from([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0]), min_size=1, max_size=4), st.integers(1, 10**9))
    @settings(max_examples=12, deadline=None, derandomize=True)
    def test_any_accuracy(self, chart: str, shares: list[float], pictures: int) -> None:
        points = [Point("ridge", str(n), 1, share, wilson(share, pictures)) for n, share in enumerate(shares)]
        assert len(where(drawn(CHARTS[chart](points)), BLUE)) > 10

    def test_twice_the_same_whatever_the_users_own_style_is(self, chart: str) -> None:
        import matplotlib

        before = CHARTS[chart](sweep(5))
        with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
            assert CHARTS[chart](sweep(5)) == before

    def test_nothing_to_draw(self, chart: str) -> None:
        with pytest.raises(ValueError, match="no point to draw"):
            CHARTS[chart]([])


@pytest.mark.parametrize("chart", [sweep_chart, comparison_chart])
def test_no_name_breaks_it(chart: type) -> None:
    for name in AWKWARD:
        assert chart([Point(name, name, 1, 0.5, (0.4, 0.6), 0.5), Point("b", "b", 1, 0.5, (0.4, 0.6))], name)
    assert chart([Point("a", name, 1, 0.5, (0.4, 0.6)) for name in AWKWARD])


def test_does_without_pyplot() -> None:
    program = (
        "import sys; from featkit.learning.curves import Point, sweep_chart\n"
        "assert sweep_chart([Point('a', 'b', 1, .5, (.4, .6))])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
