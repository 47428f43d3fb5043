"""Pictures to look at: the matches of two photos, and one photo laid over the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.images import fit_to, size_of
from featkit.opencv import cv2

_Pixels = npt.NDArray[np.uint8]
_Points = npt.NDArray[np.float64]
_Matrix = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]
_Colour = tuple[int, int, int]

_PAPER = 255
_INK: _Colour = (32, 32, 32)
_REJECTED: _Colour = (225, 40, 40)
#: Around warped photos: neither a sky's white nor a shadow's black.
_SURROUND: _Colour = (236, 236, 236)
#: Inliers, by position: blue, cyan, green, yellow. Lightness rises steadily (L* 59, 74, 81, 91), as viridis' does, but
#: without viridis' dark half, which photos swallow; and none of it is near the red of rejected matches.
_COLOUR_STOPS: tuple[_Colour, ...] = ((64, 140, 255), (0, 200, 220), (110, 225, 90), (255, 230, 40))

#: What black and white become where nobody looked: still to be recognised, and not to be mistaken for the photo.
_PALE = (190, 252)

#: Longer than wide by more than this on average, and two photos stand better one above the other.
_PANORAMA_ASPECT = 2.0
#: Photos are shown at least this tall (canvas pixels); beside a larger one, enlarged to the taller of these two limits.
_LEAST_SHOWN = 240
_LEAST_BESIDE_LARGER = 480
_MOST_ENLARGED = 4.0
#: Below this width no title can be read.
_LEAST_WIDTH = 480

#: Lines closer than this (canvas pixels, on average) hide the photos. All inliers are drawn as points.
_LINE_SPACING = 6
_LEAST_LINES = 60
_REJECTED_LINES = 40
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2

#: Samples a side, to find where a warped photo lies.
_FRAME_SAMPLES = 81
#: Shrinking further than this without averaging first aliases.
_MOST_SHRUNK_BY_SAMPLING = 1.5

#: What Pillow's own font has glyphs for.
_PILLOW_GLYPHS = frozenset(map(chr, range(32, 127))) | set("·…±°‘’“”«»")
_LARGEST_FONT, _SMALLEST_FONT = 30, 11


def draw_matches(
    pixels_a: _Pixels,
    pixels_b: _Pixels,
    xy_a: npt.ArrayLike,
    xy_b: npt.ArrayLike,
    inliers: npt.ArrayLike,
    *,
    title: str,
    looked_at_a: _Mask | None = None,
    looked_at_b: _Mask | None = None,
    max_width: int = 2400,
) -> _Pixels:
    """The match picture: both photos, what ties them, and a strip with a title.

    pixels_a, pixels_b: uint8 H×W×3 RGB of any two sizes, set side by side at one height, or one above the other at one
    width if they are wide. xy_a, xy_b: M×2, pixels of each photo; clipped to its frame, rows that are not finite left
    out. inliers: bool M. All inliers are points and an even spread of them lines, coloured by where in a they lie, from
    top to bottom (from left to right where the photos stand one above the other): a wrong match crosses its neighbours
    in another colour. Rejected matches are red and faint. title: one line, shrunk and then shortened inside until it
    fits. looked_at_a, looked_at_b: bool H×W, of the photos' sizes; where False the photo is pale and without colour;
    None is everywhere. max_width: of the result, pixels; below the title it is no taller either.

    Returns uint8 H×W×3 RGB.
    """
    places_a, places_b = (np.asarray(xy, np.float64).reshape(-1, 2) for xy in (xy_a, xy_b))
    usable = np.isfinite(places_a).all(axis=1) & np.isfinite(places_b).all(axis=1)
    agreed = np.asarray(inliers, bool).reshape(-1)[usable]

    layout = _layout(size_of(pixels_a), size_of(pixels_b), max_width)
    photos = np.full((layout.height, layout.width, 3), _PAPER, np.uint8)
    layout.a.show(photos, pixels_a, looked_at_a)
    layout.b.show(photos, pixels_b, looked_at_b)

    ends = np.stack([layout.a.place(places_a[usable]), layout.b.place(places_b[usable])], axis=1)
    rejected, agreeing = ends[~agreed], ends[agreed]
    across = 0 if layout.stacked else 1
    lines = max(_LEAST_LINES, (layout.width, layout.height)[across] // _LINE_SPACING)
    colours = _colours(agreeing[:, 0, across])
    thickness = max(1, round(layout.width / 2400))
    radius = _point_radius(len(agreeing), layout.width)

    few = _spread(rejected[:, 0], _REJECTED_LINES, across)
    _draw_lines(photos, rejected[few], _repeated(_REJECTED, len(few)), thickness, opacity=0.25)
    _draw_points(photos, rejected.reshape(-1, 2), _repeated(_REJECTED, 2 * len(rejected)), radius * 0.7, opacity=0.45)
    few = _spread(agreeing[:, 0], lines, across)
    _draw_lines(photos, agreeing[few], colours[few], thickness, opacity=0.8)
    points = agreeing.reshape(-1, 2)
    _draw_points(photos, points, _repeated(_INK, len(points)), radius + 0.8, opacity=0.6)
    _draw_points(photos, points, colours.repeat(2, axis=0), radius, opacity=1.0)
    return np.concatenate([_title_strip(title, layout.width), photos])


def draw_warp(pixels_a: _Pixels, pixels_b: _Pixels, matrix: npt.ArrayLike, *, max_width: int = 2400) -> _Pixels:
    """b laid over a, so that every misalignment shows.

    pixels_a, pixels_b: uint8 H×W×3 RGB. matrix: 3×3, a → b. Where both photos are, the picture is grey if they agree,
    red where a is brighter and cyan where b is, whose brightness and contrast are first brought to a's: what does not
    meet has a red and a cyan edge. Where one photo is alone it keeps its colours. The frame holds all of a, and of b
    what lies within half a photo around it; it is shrunk until neither side exceeds max_width (pixels). ValueError: a
    matrix that is not 3×3 or not finite.

    Returns uint8 H×W×3 RGB.
    """
    homography = np.asarray(matrix, np.float64)
    if homography.shape != (3, 3) or not np.isfinite(homography).all():
        raise ValueError("the matrix must be 3×3 and finite")
    homography = homography / (np.abs(homography).max() or 1.0)
    left, top, width, height = _warp_frame(size_of(pixels_a), size_of(pixels_b), homography)
    scale = min(1.0, max_width / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    x_step, y_step = width / size[0], height / size[1]
    to_a = np.array([[x_step, 0, left + x_step / 2 - 0.5], [0, y_step, top + y_step / 2 - 0.5], [0, 0, 1]])
    a, cover_a = _seen_from(pixels_a, to_a, size)
    b, cover_b = _seen_from(pixels_b, homography @ to_a, size)
    both = cv2.bitwise_and(cover_a, cover_b)

    gray_a, gray_b = (np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8) for photo in (a, b))
    gray_b = _toned_like(gray_b, gray_a, both)
    picture = cv2.copyTo(cv2.merge([gray_a, gray_b, gray_b]), both, cv2.copyTo(a, cover_a, b))
    left, top, width, height = cv2.boundingRect(cv2.bitwise_or(cover_a, cover_b))
    # Nothing is covered for certain when the whole frame is a pixel or two.
    return np.asarray(picture[top : top + (height or size[1]), left : left + (width or size[0])], np.uint8)


# The match picture: where the photos go.


@dataclass(frozen=True)
class _Panel:
    """One photo's place on the canvas, pixels; original: the photo's (width, height)."""

    left: int
    top: int
    width: int
    height: int
    original: tuple[int, int]

    def place(self, xy: _Points) -> _Points:
        """Pixels of the photo, clipped to its frame → pixels of the canvas."""
        shown = np.array([self.width, self.height])
        scaled = (xy + 0.5) * (shown / self.original) - 0.5
        placed: _Points = np.clip(scaled, 0.0, shown - 1.0) + np.array([self.left, self.top])
        return placed

    def show(self, canvas: _Pixels, pixels: _Pixels, looked_at: _Mask | None) -> None:
        size = self.width, self.height
        if self.original != size:
            pixels = fit_to(pixels, size)
        if looked_at is not None:
            pixels = _paled(pixels, cv2.resize(looked_at.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT))
        canvas[self.top : self.top + self.height, self.left : self.left + self.width] = pixels


def _paled(pixels: _Pixels, looked_at: Any) -> _Pixels:
    """Photo where looked_at is 1; where it is 0, nearly white and grey."""
    gray: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    pale = cv2.LUT(gray, np.linspace(*_PALE, 256).round().astype(np.uint8))
    return np.asarray(cv2.copyTo(pixels, looked_at, cv2.merge([pale] * 3)), np.uint8)


@dataclass(frozen=True)
class _Layout:
    """Both photos on a canvas of width × height, one above the other if stacked."""

    a: _Panel
    b: _Panel
    width: int
    height: int
    stacked: bool


def _layout(size_a: tuple[int, int], size_b: tuple[int, int], max_width: int) -> _Layout:
    sizes = np.array([size_a, size_b], np.float64)
    stacked = bool(np.exp(np.log(sizes[:, 0] / sizes[:, 1]).mean()) > _PANORAMA_ASPECT)
    # Standing one above the other is standing side by side with x and y exchanged.
    along, across = (1, 0) if stacked else (0, 1)

    extents = sizes[:, across]
    shown = min(extents.max(), max(_LEAST_BESIDE_LARGER, _MOST_ENLARGED * extents.min()))
    shown = min(max(shown, _LEAST_SHOWN), max_width)
    gap = min(max(4, round(shown / 60)), 20)
    shown = min(shown, (max_width - gap) / (sizes[:, along] / extents).sum())
    shown_sizes = np.maximum(np.floor(sizes * (shown / extents)[:, None] + 1e-6), 1).astype(int)

    extent = shown_sizes.max(axis=0)
    extent[along] = shown_sizes[:, along].sum() + gap
    width, height = extent.tolist()
    canvas_width = max(width, min(_LEAST_WIDTH, max_width))
    left = (canvas_width - width) // 2
    (width_a, height_a), (width_b, height_b) = shown_sizes.tolist()
    left_b, top_b = (left, height_a + gap) if stacked else (left + width_a + gap, 0)
    a = _Panel(left, 0, width_a, height_a, size_a)
    b = _Panel(left_b, top_b, width_b, height_b, size_b)
    return _Layout(a, b, canvas_width, height, stacked)


# The match picture: points and lines.


def _colours(positions: npt.NDArray[np.float64]) -> _Pixels:
    """N×3 RGB, ordered by position."""
    if not len(positions):
        return np.empty((0, 3), np.uint8)
    order = (positions - positions.min()) / max(float(np.ptp(positions)), 1e-9)
    stops = np.linspace(0, 1, len(_COLOUR_STOPS))
    channels = [np.interp(order, stops, channel) for channel in zip(*_COLOUR_STOPS, strict=True)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)


def _repeated(colour: _Colour, count: int) -> _Pixels:
    return np.full((count, 3), colour, np.uint8)


def _spread(points: _Points, count: int, across: int) -> npt.NDArray[np.intp]:
    """Rows of at most `count` points: one from each of `count` strips across the lines, lest two lines fall together.

    Along the lines each strip prefers another place, by multiples of the golden ratio. across: 0 is x, 1 is y.
    """
    if len(points) <= count:
        return np.arange(len(points))
    order = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-9)
    strip = np.minimum((order[:, across] * count).astype(np.intp), count - 1)
    distance = np.abs(order[:, 1 - across] - strip * _GOLDEN_RATIO % 1)
    by_strip = np.lexsort((distance, strip))
    return by_strip[np.unique(strip[by_strip], return_index=True)[1]]


def _draw_lines(canvas: _Pixels, ends: _Points, colours: _Pixels, thickness: int, opacity: float) -> None:
    """ends: N×2×2. Lines do not add up where they cross: the photo shows through all of them alike."""
    if not len(ends):
        return
    overlay = canvas.copy()
    fraction_bits = 4
    fixed = np.round(ends * 2**fraction_bits).astype(int).tolist()
    for (start, end), colour in zip(fixed, colours.tolist(), strict=True):
        cv2.line(overlay, start, end, colour, thickness, cv2.LINE_AA, fraction_bits)
    cv2.addWeighted(overlay, opacity, canvas, 1 - opacity, 0, dst=canvas)


def _point_radius(count: int, width: int) -> float:
    """Canvas pixels; from 500 points on, the area that all of them cover stays the same."""
    return max(1.2, width / 600 * min(1.0, math.sqrt(500 / max(count, 1))))


def _draw_points(canvas: _Pixels, centres: _Points, colours: _Pixels, radius: float, opacity: float) -> None:
    """Antialiased discs, all points at once for each pixel of a disc. centres: N×2; colours: N×3."""
    height, width = canvas.shape[:2]
    nearest = np.round(centres).astype(np.intp)
    fraction = (nearest - centres).astype(np.float32)
    paint = colours.astype(np.float32)
    reach = math.ceil(radius + 0.5)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if math.hypot(dx, dy) > radius + 0.5 + math.sqrt(0.5):  # too far for any point, wherever in its pixel
                continue
            distance = np.hypot(fraction[:, 0] + dx, fraction[:, 1] + dy)
            x, y = nearest[:, 0] + dx, nearest[:, 1] + dy
            on = np.flatnonzero((distance < radius + 0.5) & (x >= 0) & (x < width) & (y >= 0) & (y < height))
            cover = opacity * np.minimum(radius + 0.5 - distance[on], 1)[:, None]
            below = canvas[y[on], x[on]]
            canvas[y[on], x[on]] = np.rint(below + (paint[on] - below) * cover).astype(np.uint8)


# The match picture: its title.


def _title_strip(title: str, width: int) -> _Pixels:
    """H×width×3: one line of text."""
    text = "".join(map(_printable, title))
    size = round(min(max(width / 60, 14), _LARGEST_FONT))
    padding = size // 2
    room = width - 2 * padding
    coverage = _text(text, size)
    while coverage.shape[1] > room and size > _SMALLEST_FONT:
        size = max(_SMALLEST_FONT, min(size - 1, size * room // coverage.shape[1]))
        coverage = _text(text, size)
    kept = len(text)
    while coverage.shape[1] > room and kept:
        kept = max(0, min(kept - 1, kept * room // coverage.shape[1]))
        # Two thirds for the end, where the counts and the verdict stand.
        coverage = _text(f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}", size)
    strip = np.full((coverage.shape[0] + 2 * padding, width, 3), _PAPER, np.float32)
    part = strip[padding : padding + coverage.shape[0], padding : padding + coverage.shape[1]]
    part += (np.array(_INK) - part) * (coverage[:, : part.shape[1], None] / np.float32(255))
    return np.rint(strip).astype(np.uint8)


def _printable(letter: str) -> str:
    """What stands for a letter on one line. OpenCV crashes on the surrogates in file names that are not UTF-8."""
    if letter.isspace():
        return " "
    return letter if letter.isprintable() else "\ufffd"


def _text(text: str, size: int) -> _Pixels:
    """One line of text, `size` pixels an em: its coverage, uint8 H×W, as wide as the text is.

    Pillow's own font knows little more than ASCII. OpenCV's knows most scripts, and takes 50 ms to unpack.
    """
    height, baseline = math.ceil(size * 1.3), size
    if _PILLOW_GLYPHS.issuperset(text):
        from PIL import ImageFont

        font = ImageFont.load_default(size)
        if isinstance(font, ImageFont.FreeTypeFont):
            mask, (left, top) = font.getmask2(text, mode="L", anchor="ls")
            glyphs = np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[::-1])
            coverage = np.zeros((height, max(0, left) + glyphs.shape[1]), np.uint8)
            coverage[baseline + top : baseline + top + glyphs.shape[0], max(0, left) :] = glyphs
            return coverage
    line: Any = np.zeros((height, (len(text) + 1) * size * 2, 3), np.uint8)
    (end, _), line = cv2.putText(line, text, (0, baseline), (255, 255, 255), cv2.FontFace("uni"), size)
    return np.asarray(line[:, :end, 0], np.uint8)


# The overlay: what of b lies where.


def _warp_frame(size_a: tuple[int, int], size_b: tuple[int, int], matrix: _Matrix) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of a: all of a, and what of b lies within half a photo around it."""
    whole = np.array(size_a)
    furthest = np.array([-0.5, 1.5])[:, None] * whole - 0.5
    depths = _depths_seen(_grid(*furthest), matrix, size_b)
    borders = np.array([[-0.5, -0.5], whole - 0.5])
    if len(depths):
        # b's outline, mapped back. The adjugate does what the inverse does, up to its sign, and every matrix has one.
        adjugate = np.stack([np.cross(matrix[:, i - 2], matrix[:, i - 1]) for i in range(3)])
        grid = _grid(np.array([-0.5, -0.5]), np.array(size_b) - 0.5)
        outline = grid[((grid == grid[0]) | (grid == grid[-1])).any(axis=1)]
        x, y, depth = adjugate @ np.column_stack([outline, np.ones(len(outline))]).T
        front = depth * np.linalg.det(matrix) * depths[0] > 0
        with np.errstate(over="ignore"):
            mapped = np.stack([x[front], y[front]], axis=1) / depth[front, None]
        borders = np.vstack([borders, np.clip(mapped, *furthest)])
    left, top = np.floor(borders.min(axis=0) + 0.5 + 1e-6).astype(int).tolist()
    right, bottom = np.ceil(borders.max(axis=0) + 0.5 - 1e-6).astype(int).tolist()
    return left, top, right - left, bottom - top


def _grid(first: _Points, last: _Points) -> _Points:
    """N×2 points, evenly from one corner to the other."""
    steps = np.linspace(first, last, _FRAME_SAMPLES)
    return np.stack(np.meshgrid(steps[:, 0], steps[:, 1]), axis=2).reshape(-1, 2)


def _depths_seen(points: _Points, matrix: _Matrix, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Third homogeneous coordinates of those points that the matrix maps into a photo of `size`.

    Only of the points on one side of the horizon, where most of them lie: all depths have one sign.
    """
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    depths = mapped[:, 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        xy = mapped[:, :2] / depths[:, None]
    within = ((xy >= -0.5) & (xy <= np.array(size) - 0.5)).all(axis=1)
    before, behind = depths[within & (depths > 0)], depths[within & (depths < 0)]
    return before if len(before) >= len(behind) else behind


def _seen_from(pixels: _Pixels, matrix: _Matrix, size: tuple[int, int]) -> tuple[_Pixels, _Pixels]:
    """The photo on a canvas of `size`, and a mask (255 or 0) of what it covers. matrix: canvas → photo."""
    width, height = size
    depths = _depths_seen(_grid(np.zeros(2), np.array(size) - 1.0), matrix, size_of(pixels))
    if not len(depths):
        return np.full((height, width, 3), _SURROUND, np.uint8), np.zeros((height, width), np.uint8)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # A homography magnifies areas by its determinant over depth³.
        areas = np.abs(np.linalg.det(matrix) / depths**3)
    shrink = min(math.sqrt(float(np.nan_to_num(np.median(areas)))), max(size_of(pixels)))
    if shrink > _MOST_SHRUNK_BY_SAMPLING:
        full_width, full_height = size_of(pixels)
        pixels = fit_to(pixels, (max(1, round(full_width / shrink)), max(1, round(full_height / shrink))))
        x_scale, y_scale = pixels.shape[1] / full_width, pixels.shape[0] / full_height
        matrix = np.array([[x_scale, 0, x_scale / 2 - 0.5], [0, y_scale, y_scale / 2 - 0.5], [0, 0, 1]]) @ matrix
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cover: Any = cv2.warpPerspective(np.full(pixels.shape[:2], 255, np.uint8), matrix, size, flags=flags)
    photo: Any = cv2.warpPerspective(pixels, matrix, size, flags=flags, borderValue=_SURROUND)
    down, right = np.arange(height) * matrix[2, 1] + matrix[2, 2], np.arange(width) * matrix[2, 0]
    before = np.sign(depths[0])
    if (np.add.outer(down[[0, -1]], right[[0, -1]]) * before <= 0).any():
        # Beyond the horizon OpenCV draws the photo a second time, mirrored.
        beyond = np.add.outer(down, right) * before <= 0
        cover[beyond], photo[beyond] = 0, _SURROUND
    return photo, np.asarray(cv2.threshold(cover, 254, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _toned_like(gray: _Pixels, model: _Pixels, where: Any) -> _Pixels:
    """gray with the mean and, within a factor of two, the contrast that model has under the mask."""
    mean, deviation = (float(value.item()) for value in cv2.meanStdDev(gray, mask=where))
    wanted_mean, wanted_deviation = (float(value.item()) for value in cv2.meanStdDev(model, mask=where))
    gain = min(max((wanted_deviation + 1) / (deviation + 1), 0.5), 2.0)
    levels = np.clip((np.arange(256) - mean) * gain + wanted_mean, 0, 255)
    return np.asarray(cv2.LUT(gray, np.rint(levels).astype(np.uint8)), np.uint8)
