"""What two photos of a panorama see of the same places, to compare their colours by."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.images import Pixels, rescale_points, size_of
from featkit.opencv import cv2
from featkit.stitching.views import View

_Floats = npt.NDArray[np.floating]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]

# Places along a photo's longer side; and the most of all overlaps together, of which each gets a share.
_PLACES = 64
_MOST_PLACES = 100_000
_FEWEST_KEPT = 64
_FEWEST_PLACES = 12
# Standard deviation, pixels of the reduced photos, of the mean over a neighbourhood: against noise and misregistration.
_BLUR = 1.5
# Levels a pixel of the reduced photos: of this gradient on, misregistration outweighs noise.
_STEEP = 2.0


@dataclass(frozen=True)
class Overlap:
    """What two photos, a and b by their numbers, see of the same places.

    colours_a, colours_b: float32 N×3 RGB, 0..255, means over a small neighbourhood. radius_a, radius_b: float32 N, as
    `radii` gives it. weight: float32 N, above 0 and at most 1, less where colours change quickly.
    """

    a: int
    b: int
    colours_a: _Float32
    colours_b: _Float32
    radius_a: _Float32
    radius_b: _Float32
    weight: _Float32

    def __len__(self) -> int:
        return len(self.weight)


def radii(x: _Floats, y: _Floats, size: tuple[int, int]) -> _Float32:
    """Distance from the centre of a picture of `size` over half its diagonal, 0..1 inside: float32, of pixel
    coordinates of any shape."""
    across, down = (np.subtract(each, (side - 1) / 2) for each, side in zip((x, y), size, strict=True))
    return np.asarray(np.hypot(across, down) / (math.hypot(*size) / 2), np.float32)


def sample_overlaps(photos: Sequence[Pixels], views: Sequence[View], pairs: Sequence[tuple[int, int]]) -> list[Overlap]:
    """Look at a grid of places that each pair of photos may have in common.

    photos: uint8 H×W×3 RGB, reduced copies; .1 to .2 megapixels are enough. Each is asked for once, in order. views: of
    the full-size pictures. Pairs that share fewer than a dozen places are left out.
    """
    most = max(_FEWEST_KEPT, _MOST_PLACES // max(len(pairs), 1))
    places = [_common_places(a, b, photos, views, most) for a, b in pairs]
    places = [each for each in places if len(each.xy_a) >= _FEWEST_PLACES]
    of_photo: dict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(places):
        of_photo[each.a].append(index)
        of_photo[each.b].append(index)
    seen: list[dict[int, tuple[_Float32, _Float32]]] = [{} for _ in places]
    for number in sorted(of_photo):
        smooth, gradient = _smooth(photos[number])
        for index in of_photo[number]:
            xy = places[index].xy_a if places[index].a == number else places[index].xy_b
            seen[index][number] = _at(smooth, xy), _at(gradient, xy)
    return [each.overlap(*colours[each.a], *colours[each.b]) for each, colours in zip(places, seen, strict=True)]


@dataclass(frozen=True)
class _Places:
    """xy_a, xy_b: float64 N×2, where the reduced photos a and b show the same."""

    a: int
    b: int
    xy_a: _Float64
    xy_b: _Float64
    radius_a: _Float32
    radius_b: _Float32

    def overlap(self, colours_a: _Float32, gradient_a: _Float32, colours_b: _Float32, gradient_b: _Float32) -> Overlap:
        weight = 1 / (1 + (np.maximum(gradient_a, gradient_b) / _STEEP) ** 2)
        return Overlap(
            self.a, self.b, colours_a, colours_b, self.radius_a, self.radius_b, np.asarray(weight, np.float32)
        )


def _common_places(a: int, b: int, photos: Sequence[Pixels], views: Sequence[View], most: int) -> _Places:
    """At most `most` of a grid over a."""
    size_a, size_b = size_of(photos[a]), size_of(photos[b])
    step = max(1.0, max(size_a) / _PLACES)
    across, down = (np.arange((step - 1) / 2, side, step) for side in size_a)
    xy_a = np.stack(np.meshgrid(across, down), -1).reshape(-1, 2)
    full_a = rescale_points(xy_a, np.divide(views[a].size, size_a))
    full_b = views[b].project(views[a].lift(full_a))
    xy_b = rescale_points(full_b, np.divide(size_b, views[b].size))
    inside = np.flatnonzero(_is_inside(xy_a, size_a) & _is_inside(xy_b, size_b))
    if len(inside) > most:
        inside = inside[np.linspace(0, len(inside) - 1, most).astype(np.int64)]
    radius_a, radius_b = (
        radii(full[inside, 0], full[inside, 1], view.size) for full, view in ((full_a, views[a]), (full_b, views[b]))
    )
    return _Places(a, b, xy_a[inside], xy_b[inside], radius_a, radius_b)


def _is_inside(xy: _Floats, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray(((xy >= 0) & (xy <= np.subtract(size, 1))).all(1))


def _smooth(photo: Pixels) -> tuple[_Float32, _Float32]:
    """The photo blurred, float32 H×W×3, and its largest gradient in a channel, float32 H×W, levels a pixel."""
    smooth = cv2.GaussianBlur(photo.astype(np.float32), (0, 0), _BLUR)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.asarray(smooth, np.float32), np.asarray(cv2.magnitude(across, down), np.float32).max(2)


def _at(image: _Float32, xy: _Float64) -> _Float32:
    """N×C, or N, of an image H×W×C, or H×W."""
    x, y = (each.astype(np.float32)[:, None] for each in xy.T)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR), np.float32)[:, 0]
