"""Accuracies side by side, as charts: of a sweep's layers, of a learning curve, and of several backbones.

All show 95 % intervals, and axes of accuracy begin where the intervals do, so that differences are seen: these are
dots, not bars, whose lengths would mislead then. Names may hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featkit.learning.evaluation import percent
from featkit.learning.figures import INK, MUTED, POINT_PIXELS, blank, default_style, drawable, png
from featkit.learning.learning_curve import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_Values = npt.NDArray[np.float64]

#: Colours that are told apart by people who do not see all of them, too (Okabe & Ito 2008), the darker ones first.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GRID = "#e4e4e4"
_SMALL, _MEDIUM, _TITLE = 8, 9, 11

#: Pixels: of the axes in all, and of what stands beside another.
_HEIGHT, _WIDTH, _LEAST_WIDTH, _STEP, _LEAST_STEP = 400, 1000, 480, 110, 34
_ROW, _ROW_OF_SERIES = 48, 17
_LONGEST_NAME = 36
#: An axis of accuracy shows at least this much, and a margin of this share beyond what is drawn.
_LEAST_SPAN, _MARGIN = 0.02, 0.06
#: Of the place that a layer has on its axis, the share that its series stand in side by side.
_SHARED = 0.4


@dataclass(frozen=True)
class Point:
    """An accuracy on test pictures, 0..1, and its 95 % interval. series: what is drawn in one colour, as a classifier.
    name: of the layer or backbone, and dimensions: the numbers that a picture has there. validated: the accuracy on
    training pictures that were held out, None where it is not known. saved: whether it is what was chosen."""

    series: str
    name: str
    dimensions: int
    accuracy: float
    interval: tuple[float, float]
    validated: float | None = None
    saved: bool = False


def sweep_chart(points: Sequence[Point], title: str = "") -> bytes:
    """A PNG of accuracy against depth: layers from left to right in the order in which they first come, under each one
    its name and dimensions, a line for each series, dashed the validated accuracies. ValueError: no point."""
    names, series = _order(point.name for point in points), _order(point.series for point in points)
    dimensions = [f"{_first(points, name).dimensions:,}" for name in names]
    step = max(_LEAST_STEP, max(map(len, dimensions)) * 0.64 * _SMALL * POINT_PIXELS + 8)
    step = max(step, min(_STEP, _WIDTH / len(names)))
    width = max(_LEAST_WIDTH, step * len(names))
    with default_style():
        figure = blank(width, _HEIGHT)
        axes = figure.add_axes((0, 0, 1, 1))
        for number, each in enumerate(series):
            own = [point for point in points if point.series == each]
            places = np.array([names.index(point.name) for point in own], float)
            _draw_series(axes, places + _aside(number, len(series), _SHARED / len(series)), own, number)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_xticks([])
        _percent_axis(axes, "y", _shown(points))
        axes.set_ylabel("accuracy, 95 % interval", color=MUTED)
        _draw_title(axes, title)
        _name_layers(axes, [_shortened(name) for name in names], dimensions, width / len(names))
        _draw_legend(axes, points, series)
        return png(figure, tight=True)


def learning_curve_chart(points: Sequence[CurvePoint], title: str = "") -> bytes:
    """A PNG of accuracy against photos a class: the mean of the draws as a line in the band of its interval, each draw
    as a faint dot. points: one or more, of growing sizes. ValueError: no point."""
    if not points:
        raise ValueError("there is no point to draw")
    sizes = np.array([point.size for point in points], float)
    means = np.array([point.mean for point in points])
    low, high = np.array([point.interval for point in points]).T
    drawn = [(point.size, share) for point in points for share in point.accuracies if len(point.accuracies) > 1]
    name, colour = "mean of the draws" if drawn else "accuracy", _COLOURS[0]
    with default_style():
        figure = blank(640, _HEIGHT)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xscale("log")
        if len(points) > 1:
            axes.plot(sizes, means, "o-", color=colour, markersize=5, label=name)
            axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0, label="its 95 % interval")
        else:
            reach = [means - low, high - means]
            axes.errorbar(sizes, means, reach, fmt="o", color=colour, capsize=4, label=f"{name}, 95 % interval")
        if drawn:
            places, shares = zip(*drawn, strict=True)
            axes.scatter(places, shares, s=22, color=INK, alpha=0.3, linewidths=0, label="a draw", zorder=1.5)
        axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
        axes.minorticks_off()
        axes.set_xticks(sizes, [f"{point.size:,}" for point in points])
        _thin_labels(axes)
        _percent_axis(axes, "y", [*low, *high, *(share for _, share in drawn)])
        axes.set_xlabel("photos of each class to learn from", color=MUTED)
        axes.set_ylabel("accuracy", color=MUTED)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=_MEDIUM)
        _draw_title(axes, title)
        return png(figure, tight=True)


def comparison_chart(points: Sequence[Point], title: str = "") -> bytes:
    """A PNG of accuracies from left to right, a row for each name from top to bottom in the order in which they first
    come, series under one another in it. ValueError: no point."""
    # How well each did on the training pictures is another question, and would be taken for an answer to this one.
    points = [replace(point, validated=None) for point in points]
    names, series = _order(point.name for point in points), _order(point.series for point in points)
    there = {(point.name, point.series) for point in points}
    rows = {name: [each for each in series if (name, each) in there] for name in names}
    row = _ROW + _ROW_OF_SERIES * (max(map(len, rows.values())) - 1)
    with default_style():
        figure = blank(560, len(names) * row)
        axes = figure.add_axes((0, 0, 1, 1))
        for number, each in enumerate(series):
            own = [point for point in points if point.series == each]
            places = np.array(
                [
                    names.index(name) + _aside(rows[name].index(each), len(rows[name]), _ROW_OF_SERIES / row)
                    for name in (point.name for point in own)
                ]
            )
            shares, reach = _accuracies(own)
            colour, marker = _style(number)
            axes.errorbar(shares, places, xerr=reach, color=colour, marker=marker, linestyle="", capsize=4)
            _mark_saved(axes, shares, places, own)
            for place, point in zip(places.tolist(), own, strict=True):
                text = percent(point.accuracy)
                _write_beside(axes, text, (1, place), bold=point.saved)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks([])
        for place, name in enumerate(names):
            numbers = f"{_first(points, name).dimensions:,} numbers"
            _write_left(axes, _shortened(name), place, 1, INK, _MEDIUM)
            _write_left(axes, numbers, place, -1, MUTED, _SMALL)
            if place:
                axes.axhline(place - 0.5, color=_GRID, linewidth=0.8)
        _percent_axis(axes, "x", _shown(points))
        axes.set_xlabel("accuracy, 95 % interval", color=MUTED)
        _draw_title(axes, title)
        _draw_legend(axes, points, series, beside=70)
        return png(figure, tight=True)


# --- parts of them


def _draw_series(axes: Axes, places: _Values, points: Sequence[Point], number: int) -> None:
    shares, reach = _accuracies(points)
    colour, marker = _style(number)
    axes.errorbar(
        places, shares, reach, color=colour, marker=marker, markersize=5, linewidth=1.6, elinewidth=1.1, capsize=3
    )
    validated = [math.nan if point.validated is None else point.validated for point in points]
    # Short strokes: what has no neighbour is seen, too.
    axes.plot(places, validated, "--", marker="_", color=colour, linewidth=0.9, markersize=7)
    _mark_saved(axes, places, shares, points)


def _style(series: int) -> tuple[str, str]:
    """Colour and marker, which are different together in thirty-six series."""
    return _COLOURS[series % len(_COLOURS)], _MARKERS[(series + series // len(_COLOURS)) % len(_MARKERS)]


def _mark_saved(axes: Axes, x: _Values, y: _Values, points: Sequence[Point]) -> None:
    saved = np.array([point.saved for point in points])
    axes.scatter(x[saved], y[saved], s=150, facecolors="none", edgecolors=INK, linewidths=1.4, zorder=4, clip_on=False)


def _accuracies(points: Sequence[Point]) -> tuple[_Values, _Values]:
    """float64 N, and 2×N: how far down and up the intervals go."""
    shares = np.array([point.accuracy for point in points])
    low, high = np.array([point.interval for point in points]).T
    return shares, np.maximum([shares - low, high - shares], 0)


def _draw_legend(axes: Axes, points: Sequence[Point], series: Sequence[str], beside: int = 8) -> None:
    """What the lines and marks are, to the right of the axes; series where there are several. beside: pixels."""
    from matplotlib.lines import Line2D

    entries = []
    if len(series) > 1:
        for number, name in enumerate(series):
            colour, marker = _style(number)
            entries.append((Line2D([], [], color=colour, marker=marker, markersize=5), _shortened(name)))
    if any(point.validated is not None for point in points):
        dashes = Line2D([], [], color=MUTED, linestyle="--", linewidth=0.9, marker="_", markersize=7)
        entries.append((dashes, "validated, training pictures"))
    if any(point.saved for point in points):
        ring = Line2D([], [], color=INK, marker="o", markersize=11, markerfacecolor="none", linestyle="")
        entries.append((ring, "saved"))
    if not entries:
        return
    # Names are put in afterwards: a legend leaves out what starts with an underscore.
    legend = axes.legend(
        [handle for handle, _ in entries],
        ["-"] * len(entries),
        loc="upper left",
        bbox_to_anchor=(1 + beside / axes.get_window_extent().width, 1),
        borderaxespad=0,
        frameon=False,
        fontsize=_MEDIUM,
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)


def _name_layers(axes: Axes, names: Sequence[str], dimensions: Sequence[str], step: float) -> None:
    """Under the axis a row of names, turned if one is wider than its place of `step` pixels, and one of dimensions."""
    written = [_write_below(axes, name, place, 6, INK) for place, name in enumerate(names)]
    if max(text.get_window_extent().width for text in written) > step - 6:
        for text in written:
            text.set_rotation(90)
    below = axes.get_window_extent().y0 - min(text.get_window_extent().y0 for text in written)
    for place, numbers in enumerate(dimensions):
        _write_below(axes, numbers, place, below + 5, MUTED)
    header = _write_below(axes, "numbers", -0.5, below + 5, MUTED)
    header.set_horizontalalignment("right")


def _write_below(axes: Axes, text: str, place: float, pixels: float, colour: str) -> Text:
    """So many pixels below the axis, under a place on it."""
    return axes.annotate(
        text,
        (place, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, -pixels / POINT_PIXELS),
        textcoords="offset points",
        ha="center",
        va="top",
        color=colour,
        fontsize=_SMALL,
    )


def _write_left(axes: Axes, text: str, place: float, side: int, colour: str, size: float) -> None:
    """Left of the axes at a place of the vertical one; side: 1 above it, -1 below it."""
    axes.annotate(
        text,
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(-8, side),
        textcoords="offset points",
        ha="right",
        va="bottom" if side > 0 else "top",
        color=colour,
        fontsize=size,
    )


def _write_beside(axes: Axes, text: str, place: tuple[float, float], *, bold: bool) -> None:
    axes.annotate(
        text,
        place,
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        fontsize=_MEDIUM,
        fontweight="bold" if bold else "normal",
    )


def _thin_labels(axes: Axes) -> None:
    """Leave out labels of the horizontal axis that would run into the next one; the last one stays."""
    taken = math.inf
    for label in reversed(axes.get_xticklabels()):
        box = label.get_window_extent()
        if box.x1 + 4 > taken:
            label.set_visible(False)
        else:
            taken = box.x0


def _draw_title(axes: Axes, title: str) -> None:
    axes.set_title(drawable(title), loc="left", color=INK, fontsize=_TITLE)


def _percent_axis(axes: Axes, which: str, shares: Sequence[float]) -> None:
    """An axis that shows all of the shares, with a margin and no closer than differences that matter; round percentages
    along it, and lines from them."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(shares), max(shares)
    span = max(high - low, _LEAST_SPAN)
    low = min(max((low + high - span) / 2, 0), 1 - span)
    low, high = low - _MARGIN * span, low + (1 + _MARGIN) * span
    every = np.round(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high), 10).tolist()
    ticks = [each for each in every if max(low, 0) <= each <= min(high, 1)]
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_ticks(ticks, [f"{100 * each:.10g} %" for each in ticks])
    (axes.set_ylim if which == "y" else axes.set_xlim)(low, high)
    axes.grid(axis=which, color=_GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=_MEDIUM)
    for spine in axes.spines.values():
        spine.set_color("#c8c8c8")


# --- numbers and names


def _order(names: Iterable[str]) -> list[str]:
    """Each once, as they first come. ValueError: none."""
    found = list(dict.fromkeys(names))
    if not found:
        raise ValueError("there is no point to draw")
    return found


def _first(points: Sequence[Point], name: str) -> Point:
    return next(point for point in points if point.name == name)


def _aside(number: int, of: int, apart: float) -> float:
    """How far from the place of a layer or backbone one of several series stands."""
    return (number - (of - 1) / 2) * apart


def _shown(points: Sequence[Point]) -> list[float]:
    validated = [point.validated for point in points if point.validated is not None]
    return [*(share for point in points for share in (point.accuracy, *point.interval)), *validated]


def _shortened(name: str) -> str:
    """Without its middle where it is long: what differs stands at the ends."""
    text = drawable(name)
    if len(text) <= _LONGEST_NAME:
        return text
    start = _LONGEST_NAME // 3
    return f"{text[:start]}…{text[start + 1 - _LONGEST_NAME :]}"
