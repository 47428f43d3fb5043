"""HOG on one core, pictures a second: `skimage.feature.hog`, what gives the same here, and what classifies better.

python -m tests.bench.hog_rate

The pictures are pieces of the samples, at random places. The largest difference is over these, and over pictures of
noise.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage.feature import hog as skimage_hog

from featkit.classical.hog import HogConfig, hog, hog_as_skimage
from tests.bench.report import ROOT, median_cpu_seconds, print_table

REPETITIONS = 7
# The side of the pictures, how many there are, and cells a side of `hog`, as `featkit classify` has them.
SIZES = ((32, 3000, 4), (128, 300, 8))
CHANNELS = ("grey", "rgb")
_NOISY = 100

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]


def pieces(side: int, count: int) -> Pixels:
    """uint8 N×side×side×3 out of the samples, seeded."""
    random = np.random.default_rng(0)
    paths = sorted(path for path in (ROOT / "samples").iterdir() if path.suffix in (".jpg", ".png"))
    samples = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    found = np.empty((count, side, side, 3), np.uint8)
    for piece in found:
        sample = samples[random.integers(len(samples))]
        y, x = (random.integers(length - side + 1) for length in sample.shape[:2])
        piece[:] = sample[y : y + side, x : x + side]
    return found


def noise(side: int, count: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)


def by_skimage(images: Pixels) -> Floats:
    """float64 N×D, with the defaults; channels, if there are any, come last."""
    axis = -1 if images.ndim == 4 else None
    return np.array([skimage_hog(image, channel_axis=axis) for image in images])


def row(side: int, count: int, cells: int, channels: str) -> list[str]:
    images, noisy = pieces(side, count), noise(side, _NOISY)
    if channels == "grey":
        images, noisy = images[..., 1].copy(), noisy[..., 1].copy()
    config = HogConfig(cells)
    # Also makes the tables, which are made once a process.
    hog(noisy, config)
    difference = max(np.abs(hog_as_skimage(each) - by_skimage(each)).max() for each in (images, noisy))
    works = (lambda: by_skimage(images), lambda: hog_as_skimage(images), lambda: hog(images, config))
    theirs, same, better = (count / seconds for seconds in median_cpu_seconds(works, REPETITIONS))
    return [
        f"{side} × {side}, {channels}",
        f"{theirs:,.0f}",
        f"{same:,.0f}",
        f"{same / theirs:.1f}",
        f"{difference:.1e}",
        f"{better:,.0f}",
        f"{better / theirs:.1f}",
    ]


def main() -> None:
    rows = (row(*size, channels) for size in SIZES for channels in CHANNELS)
    columns = ["pictures", "scikit-image", "`hog-skimage`", "ratio", "largest difference", "`hog`", "ratio"]
    print_table("HOG: pictures a CPU second, 8 × 8 pixels a cell in scikit-image", columns, rows)


if __name__ == "__main__":
    main()
