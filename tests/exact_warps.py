"""Views of the sample photos under a known homography, for tests that compare with the truth.

Splines are evaluated at the exact place and averaged over each pixel: nothing that featkit warps by has a part in it.
"""

from __future__ import annotations

import numpy as np
from conftest import SAMPLES
from PIL import Image
from scipy.ndimage import map_coordinates, spline_filter

from featkit.local.geometry import corners_of, transform


def photo(name: str, longest_side: int = 400) -> np.ndarray:
    """A sample by the start of its name, grey in three channels, uint8 H×W×3, reduced to this longest side."""
    with Image.open(next(SAMPLES.glob(f"{name}.[jp]*"))) as image:
        image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        return np.repeat(np.asarray(image.convert("L"))[:, :, None], 3, 2)


def view(pixels: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, samples: int = 2) -> np.ndarray:
    """What a camera would see of a grey picture: uint8 H×W×3 of (width, height), with another exposure and some noise.

    matrix: 3×3, picture to view. samples: per pixel each way, as many as picture pixels fall into one.
    """
    width, height = size
    spline = spline_filter(pixels[:, :, 0].astype(float))
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    seen = np.zeros(len(x))
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    for right in offsets:
        for down in offsets:
            place = transform(np.linalg.inv(matrix), np.stack([x + right, y + down], 1))
            seen += map_coordinates(spline, place.T[::-1], mode="constant", cval=127, prefilter=False)
    exposed = 255 * (np.clip(seen / samples**2, 0, 255) / 255) ** 0.8
    noisy = exposed + np.random.default_rng(0).normal(0, 2, exposed.shape)
    gray = np.clip(noisy.round(), 0, 255).astype(np.uint8).reshape(height, width, 1)
    return np.repeat(gray, 3, 2)


def oblique(pixels: np.ndarray, tilt: float, direction: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture as a poster seen from the side: compressed `tilt`-fold along a direction (radians), in slight
    perspective. Returns the view and the matrix, picture to view."""
    size = size_of(pixels)
    cosine, sine = np.cos(direction), np.sin(direction)
    matrix = np.eye(3)
    matrix[:2, :2] = np.diag([1, 1 / tilt]) @ [[cosine, -sine], [sine, cosine]]
    matrix[2, 0] = 0.1 / size[0]
    matrix = matrix @ shift(*(-corners_of(size).mean(0)))
    corners = transform(matrix, corners_of(size))
    matrix = shift(*(-corners.min(0))) @ matrix
    width, height = np.ceil(np.ptp(corners, axis=0)).astype(int) + 1
    return view(pixels, matrix, (int(width), int(height)), samples=int(np.ceil(tilt))), matrix


def size_of(pixels: np.ndarray) -> tuple[int, int]:
    """(width, height)."""
    return pixels.shape[1], pixels.shape[0]


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def corner_error(matrix: np.ndarray, truth: np.ndarray, size: tuple[int, int]) -> float:
    """Mean distance in b of the corners of a, a (width, height) picture, from where they belong, pixels."""
    corners = corners_of(size)
    return float(np.linalg.norm(transform(matrix, corners) - transform(truth, corners), axis=1).mean())
