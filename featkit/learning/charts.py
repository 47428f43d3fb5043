"""What an evaluation shows: which classes are confused, the worst mistakes, and a map of the features.

Class names may hold anything: they are shown as they are, never read as formulas.
"""

from __future__ import annotations

import colorsys
import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featkit import images
from featkit.errors import FeatkitError
from featkit.images import Pixels
from featkit.learning.evaluation import Evaluation, FloatArray, IntArray
from featkit.learning.figures import INK, MUTED, POINT_PIXELS, blank, default_style, drawable, png
from featkit.records import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Points = npt.NDArray[np.float64]

_WRONG, _RIGHT = "#b3261e", "#1b6e3c"

#: Of the confusion matrix, pixels: a small one in all, and what a cell may be; a label needs the smallest of these.
_MATRIX_SIDE, _LEAST_CELL, _LARGEST_CELL, _LARGEST_MATRIX = 900, 14, 80, 2000
_LONGEST_LABEL = 28

#: A mistake's picture, pixels: larger ones are reduced to it, smaller ones enlarged by whole numbers up to it.
THUMBNAIL_SIDE = 192
_COLUMNS, _GAP, _LINE = 6, 20, 17

#: Of a map, pixels.
_MAP_WIDTH, _LEAST_MAP_HEIGHT, _LARGEST_MAP_HEIGHT = 876, 440, 876
_LEGEND_CLASSES = 20
_MOST_ROWS = 2000
_COMPONENTS = 50
#: t-SNE's own default; a third of the other rows where there are few, as the method's authors advise.
_PERPLEXITY = 30.0
#: Half of scikit-learn's default takes half the time and ends within 3 % of its divergence (2000 pictures of CIFAR-10).
_ITERATIONS = 500


# --- confusion


def confusion_chart(evaluation: Evaluation) -> bytes:
    """A PNG of the confusion matrix: rows are true classes, columns predicted ones, a cell's colour its share of the
    row, its number the count where that fits. Beyond 140 classes not every one is labelled."""
    from matplotlib.colors import PowerNorm

    confusion = evaluation.confusion
    classes = len(confusion)
    cell = min(max(_MATRIX_SIDE / classes, _LEAST_CELL), _LARGEST_CELL, _LARGEST_MATRIX / classes)
    side = cell * classes
    # Square roots of the shares: one mistake in a hundred is seen beside the diagonal.
    norm = PowerNorm(0.5, 0, 1)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    labels = _labels(evaluation.classes)
    with default_style():
        figure = blank(side, side)
        axes = figure.add_axes((0, 0, 1, 1))
        drawn = axes.imshow(shares, cmap="Blues", norm=norm)
        for number in range(1, classes) if cell >= _LEAST_CELL else ():
            axes.axhline(number - 0.5, color="#e4e4e4", linewidth=0.5)
            axes.axvline(number - 0.5, color="#e4e4e4", linewidth=0.5)
        _write_counts(axes, confusion, shares, cell)
        shown = range(0, classes, math.ceil(_LEAST_CELL / cell))
        size = min(max(cell * 0.6 / POINT_PIXELS, 7), 10)
        widest = max(len(label) for label in labels) * 0.62 * size * POINT_PIXELS
        axes.set_xticks(shown, [labels[each] for each in shown], rotation=90 if widest > cell else 0, fontsize=size)
        axes.set_yticks(shown, [labels[each] for each in shown], fontsize=size)
        axes.tick_params(length=0, colors=INK)
        axes.set_xlabel("predicted class", color=MUTED)
        axes.set_ylabel("true class", color=MUTED)
        axes.set_title(_headline(evaluation), loc="left", color=INK, fontsize=11)
        height = max(min(side, 240), 160)
        legend = figure.add_axes((1 + 16 / side, 1 - height / side, 14 / side, height / side))
        bar = figure.colorbar(drawn, cax=legend, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
        bar.ax.set_yticklabels(["0", "1 %", "10 %", "25 %", "50 %", "100 %"], fontsize=8)
        bar.set_label("share of the true class", color=MUTED, fontsize=8)
        return png(figure, tight=True)


def _headline(evaluation: Evaluation) -> str:
    accuracy, low, high = (100 * share for share in (evaluation.accuracy, *evaluation.interval))
    return f"accuracy {accuracy:.1f} %  (95 %: {low:.1f} – {high:.1f} %, {len(evaluation.paths)} pictures)"


def _write_counts(axes: Axes, confusion: IntArray, shares: npt.NDArray[np.float64], cell: float) -> None:
    """Numbers in the cells that are not 0, if all of them fit."""
    digits = len(str(confusion.max()))
    size = min(11.0, cell * 0.9 / (0.64 * digits) / POINT_PIXELS)
    if size < 6.5 or cell < 20:
        return
    for row, column in np.argwhere(confusion):
        colour = "white" if shares[row, column] > 0.4 else INK
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=size)


# --- the worst mistakes


@dataclass(frozen=True)
class Mistake:
    """One of them. truth, predicted: labels, with the scores of both. thumbnail: uint8 H×W×3 RGB of at most
    THUMBNAIL_SIDE a side, to be shown `enlarged` times; None where the picture can no longer be read."""

    path: str
    truth: str
    predicted: str
    true_score: float
    predicted_score: float
    thumbnail: Pixels | None

    @property
    def enlarged(self) -> int:
        """By what whole number the thumbnail is shown larger, its pixels as squares."""
        return 1 if self.thumbnail is None else max(1, THUMBNAIL_SIDE // max(self.thumbnail.shape[:2]))


def worst_mistakes(evaluation: Evaluation, load: Callable[[str], Pixels], count: int = 24) -> tuple[Mistake, ...]:
    """At most `count` of the mistakes, the most confident one first. load: a path's pixels; a FeatkitError that it
    raises leaves the mistake without its picture."""
    return tuple(_mistake(evaluation, index, load) for index in evaluation.worst(count).tolist())


def _mistake(evaluation: Evaluation, index: int, load: Callable[[str], Pixels]) -> Mistake:
    path, truth, predicted = evaluation.paths[index], evaluation.truth[index], evaluation.predicted[index]
    thumbnail = None
    with contextlib.suppress(FeatkitError):
        pixels = load(path)
        scale = images.scale_to_fit(images.size_of(pixels), THUMBNAIL_SIDE)
        thumbnail = images.resize(pixels, scale) if scale < 1 else pixels
    return Mistake(
        path,
        evaluation.classes[truth],
        evaluation.classes[predicted],
        float(evaluation.scores[index, truth]),
        float(evaluation.scores[index, predicted]),
        thumbnail,
    )


def gallery(mistakes: Sequence[Mistake]) -> bytes:
    """A PNG of the mistakes in rows: each picture, under it the predicted class, the true one, and the file's name."""
    columns = max(3, min(_COLUMNS, len(mistakes)))
    width = columns * (THUMBNAIL_SIDE + _GAP) + _GAP
    tile = THUMBNAIL_SIDE + 3 * _LINE + _GAP
    top = _GAP + _LINE
    height = top + max(1, math.ceil(len(mistakes) / columns)) * (tile if mistakes else _LINE) + _GAP
    with default_style():
        figure = blank(width, height)
        page = _Page(figure, width, height)
        title = "the most confident mistakes:  ✗ predicted  ✓ true, with their scores" if mistakes else "no mistakes"
        page.write(title, _GAP, _GAP, INK, width=width - 2 * _GAP)
        for number, mistake in enumerate(mistakes):
            left = _GAP + number % columns * (THUMBNAIL_SIDE + _GAP)
            _draw_mistake(page, mistake, left, top + _GAP // 2 + number // columns * tile)
        return png(figure)


def _draw_mistake(page: _Page, mistake: Mistake, left: int, top: int) -> None:
    if mistake.thumbnail is None:
        page.write("(cannot be read)", left, top + THUMBNAIL_SIDE // 2, MUTED)
    else:
        shown = mistake.thumbnail.repeat(mistake.enlarged, axis=0).repeat(mistake.enlarged, axis=1)
        page.show(shown, left, top + THUMBNAIL_SIDE - shown.shape[0])
    line = top + THUMBNAIL_SIDE + _LINE
    for mark, label, score, colour in (
        ("✗", mistake.predicted, mistake.predicted_score, _WRONG),
        ("✓", mistake.truth, mistake.true_score, _RIGHT),
    ):
        taken = page.write(f"{score:.3g}", left + THUMBNAIL_SIDE, line, colour, right=True)
        page.write(f"{mark} {drawable(label)}", left, line, colour, width=THUMBNAIL_SIDE - taken - 8)
        line += _LINE
    page.write(drawable(PurePath(mistake.path).name), left, line, MUTED, size=7.5)


class _Page:
    """A figure on which things have their places in pixels from the top left."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        self._figure, self._width, self._height = figure, width, height

    def show(self, pixels: Pixels, left: int, top: int) -> None:
        self._figure.figimage(pixels, left, self._height - top - pixels.shape[0])

    def write(
        self,
        text: str,
        left: int,
        baseline: int,
        colour: str,
        *,
        size: float = 9,
        width: int = THUMBNAIL_SIDE,
        right: bool = False,
    ) -> int:
        """One line, shortened to the width; right: it ends at `left`. Returns the pixels that it takes."""
        place = left / self._width, 1 - baseline / self._height
        drawn = self._figure.text(*place, text, ha="right" if right else "left", color=colour, fontsize=size)
        kept = len(text)
        while (extent := drawn.get_window_extent().width) > width and kept > 1:
            kept = max(1, min(kept - 1, int(kept * width / extent)))
            drawn.set_text(text[:kept] + "…")
        return math.ceil(extent)


# --- maps


def embed(features: FloatArray, method: str, seed: int) -> tuple[_Points, IntArray]:
    """Places of feature vectors on a map: (float64 M×2, the M rows that they are of, in order).

    features: float32 N×D; of more than 2000 rows a random 2000 are shown. method: "pca", the first two principal
    components; or "tsne" (van der Maaten & Hinton 2008; Barnes–Hut) on the first 50, started from the first two. Fewer
    than four rows, or equal ones, have nothing that t-SNE could show, and come out as by "pca". ValueError: another
    method.
    """
    if method not in ("tsne", "pca"):
        raise ValueError(f"a map is made by tsne or pca, not by {method}")
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    random = np.random.default_rng(seed)
    rows = np.arange(len(features))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(random.choice(rows, _MOST_ROWS, replace=False))
    centred = features[rows]
    centred -= centred.mean(axis=0)
    # One thread: sums in another order would move t-SNE's points, and two runs would differ.
    with threadpool_limits(1):
        left, values, _ = randomized_svd(centred, min(_COMPONENTS, *centred.shape), random_state=seed)
        components = np.asarray(left * values, np.float64)
        places = np.zeros((len(rows), 2))
        places[:, : components.shape[1]] = components[:, :2]
        spread = float(places[:, 0].std())
        if method == "tsne" and len(rows) >= 4 and spread > 0:
            places = _tsne(components, places / spread, seed)
    return places, rows


def _tsne(components: _Points, start: _Points, seed: int) -> _Points:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    # scikit-learn starts from PCA at this spread too.
    mapper = TSNE(perplexity=perplexity, init=start * 1e-4, max_iter=_ITERATIONS, random_state=seed)
    return np.asarray(mapper.fit_transform(components), np.float64)


def map_chart(points: _Points, labels: IntArray, classes: Sequence[str], title: str) -> bytes:
    """A PNG of points (N×2) in their classes' colours. labels: int N, indices into classes. Up to 20 classes stand in a
    legend; of more, each has its name where the middle of its points is, or beside, as far as there is room."""
    spans = np.maximum(np.ptp(points, axis=0), 1e-9)
    height = min(max(_MAP_WIDTH * float(spans[1] / spans[0]), _LEAST_MAP_HEIGHT), _LARGEST_MAP_HEIGHT)
    with default_style():
        figure = blank(_MAP_WIDTH, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#c8c8c8")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(drawable(title), loc="left", color=INK, fontsize=11)
        area = min(max(24_000 / max(len(points), 1), 12), 60)
        if len(classes) <= _LEGEND_CLASSES:
            _draw_with_legend(axes, points, labels, _labels(classes), area)
        else:
            # Hues a golden section apart: neighbours differ.
            hues = (number * 0.618034 % 1 for number in range(len(classes)))
            colours = np.array([colorsys.hsv_to_rgb(hue, 0.75, 0.8) for hue in hues])
            axes.scatter(points[:, 0], points[:, 1], s=area, c=colours[labels], linewidths=0, alpha=0.8)
            _name_classes(axes, points, labels, _labels(classes), 0.6 * colours)
        return png(figure, tight=True)


def _draw_with_legend(axes: Axes, points: _Points, labels: IntArray, names: Sequence[str], area: float) -> None:
    """Each class with a colour and a marker of its own: ten strong ones, then the same ten, light and with corners."""
    import matplotlib

    paired = matplotlib.colormaps["tab20"](np.arange(_LEGEND_CLASSES))
    marks = [*((colour, "o") for colour in paired[::2]), *((colour, "^") for colour in paired[1::2])]
    handles = []
    for number, (colour, marker) in enumerate(marks[: len(names)]):
        x, y = points[labels == number].T
        handles.append(axes.scatter(x, y, s=area, color=colour, marker=marker, linewidths=0, alpha=0.8))
    # Names are put in afterwards: a legend leaves out what starts with an underscore.
    legend = axes.legend(
        handles,
        ["-"] * len(handles),
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=9,
        markerscale=math.sqrt(60 / area),
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def _name_classes(
    axes: Axes, points: _Points, labels: IntArray, names: Sequence[str], colours: npt.NDArray[np.float64]
) -> None:
    """Write each class's name above the middle of its points, or at the nearest free place with a line to the middle;
    the largest class chooses first."""
    from matplotlib.patheffects import withStroke

    axes.apply_aspect()
    frame = axes.get_window_extent()
    turns = np.arange(12) * math.pi / 6
    around = np.concatenate([radius * np.stack([np.cos(turns), np.sin(turns)], axis=1) for radius in range(0, 90, 6)])
    taken = np.empty((0, 4))
    present, counts = np.unique(labels, return_counts=True)
    for number in present[np.argsort(-counts, kind="stable")].tolist():
        middle = np.median(points[labels == number], axis=0)
        colour = tuple(colours[number].tolist())
        text = axes.text(middle[0], middle[1], names[number], fontsize=8, ha="center", va="center", color=colour)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2 + 1
        centres = axes.transData.transform(middle) + np.array([0, 1.2 * half[1]]) + around
        boxes = np.hstack([centres - half, centres + half])
        inside = (boxes[:, :2] >= frame.min).all(axis=1) & (boxes[:, 2:] <= frame.max).all(axis=1)
        left, bottom, right, top = np.hsplit(boxes, 4)
        overlaps = (left < taken[:, 2]) & (right > taken[:, 0]) & (bottom < taken[:, 3]) & (top > taken[:, 1])
        free = np.flatnonzero(inside & ~overlaps.any(axis=1))
        if not len(free):
            text.remove()
            continue
        taken = np.vstack([taken, boxes[free[0]]])
        place = axes.transData.inverted().transform(centres[free[0]])
        text.set_position((place[0], place[1]))
        if np.abs(around[free[0]]).max() > 2 * half[1]:
            axes.plot(*np.stack([middle, place], axis=1), color=colour, linewidth=0.7, zorder=2.5)


# --- names


def _labels(classes: Sequence[str]) -> list[str]:
    """The classes' names as a chart can show them; one that is too long, or has letters that the font lacks, gets its
    number, counted from 1."""
    labels = []
    for number, name in enumerate(classes, 1):
        label = drawable(name)
        if len(label) > _LONGEST_LABEL:
            label = label[: _LONGEST_LABEL - 1] + "…"
        labels.append(label if label == printable(name) else f"{number}: {label}")
    return labels
