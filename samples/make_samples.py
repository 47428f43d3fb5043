"""Make the pictures of this folder: originals copied out of scikit-image and scikit-learn, views rendered from them.

    python samples/make_samples.py [FOLDER]      (default: this folder)

Every view is what a second camera would have seen of the flat original: a homography, another exposure and white
balance, sensor noise, JPEG. The homography is known exactly and stands beside the view as `A_to_B.txt` (3×3,
`numpy.loadtxt` reads it; it maps pixels of A to pixels of B, the centre of the top-left pixel being (0, 0)). Nothing is
drawn at random but the noise, and its seed is fixed: two runs write the same bytes.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import skimage
import sklearn
from PIL import Image
from sklearn.datasets import load_digits

Matrix = npt.NDArray[np.float64]

#: The originals, byte for byte as the installed packages carry them. README.md gives their authors and licences.
ORIGINALS = {
    "china.jpg": Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
    "coffee.png": Path(skimage.__file__).parent / "data" / "coffee.png",
    "chelsea.png": Path(skimage.__file__).parent / "data" / "chelsea.png",
    "camera.png": Path(skimage.__file__).parent / "data" / "camera.png",
}

#: Of scikit-learn's handwritten digits, 178 or so of each.
DIGITS_EACH = 30

#: Samples per pixel and axis: a pixel of a view is the mean over its area, not the value at one point.
SUPERSAMPLING = 3

#: Read noise and shot noise of a small sensor at low gain, in linear light (1 = white).
READ_NOISE = 0.002
SHOT_NOISE = 0.008


@dataclass(frozen=True)
class View:
    """One rendered view: where it looks, and what its camera makes of the light.

    homography: original → view, pixels. size: (width, height). exposure: stops. white_balance: gains of R, G and B.
    """

    original: str
    name: str
    homography: Matrix
    size: tuple[int, int]
    exposure: float = 0.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    quality: int = 90


def turned_camera(
    original_size: tuple[int, int],
    size: tuple[int, int],
    focal: float,
    view_focal: float,
    pan: float,
    tilt: float,
    roll: float,
) -> Matrix:
    """Homography from the original to what its camera sees once it has turned.

    pan: degrees to the right; tilt: down; roll: clockwise. focal, view_focal: focal lengths of the original and of the
    view, px. Principal points are the pictures' centres.
    """
    y, x, z = np.radians((pan, tilt, roll))
    turn_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    turn_z = np.array([[np.cos(z), np.sin(z), 0], [-np.sin(z), np.cos(z), 0], [0, 0, 1]])

    def calibration(focal: float, size: tuple[int, int]) -> Matrix:
        return np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])

    matrix = calibration(view_focal, size) @ turn_z @ turn_x @ turn_y @ np.linalg.inv(calibration(focal, original_size))
    return np.asarray(matrix / matrix[2, 2])


def framing(corners: list[tuple[float, float]], size: tuple[int, int]) -> Matrix:
    """Homography that brings four points of the original to the centres of a view's corner pixels.

    corners: where the view's top-left, top-right, bottom-right and bottom-left pixel lie in the original.
    """
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(values, float)), 1.0).reshape(3, 3)


VIEWS = [
    # One camera that turns: the original spans 55° at this focal length, these views 38° each; they share 23°.
    View(
        "china.jpg",
        "china-left.jpg",
        turned_camera((640, 427), (480, 400), focal=620, view_focal=700, pan=-7.6, tilt=-1.2, roll=-1.2),
        (480, 400),
        exposure=-0.25,
        white_balance=(1.04, 1.0, 0.95),
    ),
    View(
        "china.jpg",
        "china-right.jpg",
        turned_camera((640, 427), (480, 400), focal=620, view_focal=700, pan=7.6, tilt=-0.4, roll=1.0),
        (480, 400),
        exposure=-0.7,
        white_balance=(0.96, 1.0, 1.06),
    ),
    # The same photo as a poster on a wall, seen from the far right.
    View(
        "china.jpg",
        "china-oblique.jpg",
        framing([(14, 8), (440, 96), (418, 382), (24, 420)], (480, 480)),
        (480, 480),
        exposure=0.15,
        white_balance=(1.05, 1.0, 0.9),
    ),
    # The camera held upright, a step closer.
    View(
        "coffee.png",
        "coffee-upright.jpg",
        framing([(560, 42), (520, 384), (42, 332), (66, 12)], (384, 560)),
        (384, 560),
        exposure=0.3,
    ),
    # The spoon from near, in poor light.
    View(
        "coffee.png",
        "coffee-near.jpg",
        framing([(282, 128), (556, 110), (572, 352), (300, 368)], (600, 500)),
        (600, 500),
        exposure=-1.3,
        white_balance=(1.0, 1.0, 1.15),
        quality=85,
    ),
]


def linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sRGB values 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.0) + 0.055) / 1.055) ** 2.4)


def encoded(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light 0..1 to sRGB values."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055)


def render(pixels: npt.NDArray[np.float64], homography: Matrix, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The original (H×W×C, sRGB 0..1) as a view of `size` sees it, in linear light: splines, averaged over pixels.

    ValueError where the view looks past the edge of the original.
    """
    width, height = size
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    x, y = np.meshgrid(*(np.add.outer(np.arange(side), offsets).ravel() for side in size))
    sources = np.linalg.inv(homography) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    if sources[2].min() <= 0:
        raise ValueError("the view looks past the horizon")
    at = sources[1::-1] / sources[2]
    if (at < 0).any() or (at.max(axis=1) > np.array(pixels.shape[:2]) - 1).any():
        raise ValueError("the view looks past the edge of the original")
    channels = []
    for channel in np.moveaxis(pixels, 2, 0):
        samples = scipy.ndimage.map_coordinates(channel, at, order=3, mode="mirror")
        blocks = linear(np.clip(samples, 0, 1)).reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
        channels.append(blocks.mean(axis=(1, 3)))
    return np.stack(channels, axis=2)


def photograph(view: View, folder: Path) -> bytes:
    """The JPEG file of a view."""
    with Image.open(folder / view.original) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64) / 255
    light = render(pixels, view.homography, view.size) * 2.0**view.exposure * np.array(view.white_balance)
    noise = np.random.default_rng(seed=0).standard_normal(light.shape)
    light = light + noise * np.sqrt(READ_NOISE**2 + SHOT_NOISE**2 * light)
    values = np.round(encoded(np.clip(light, 0, 1)) * 255).astype(np.uint8)
    file = io.BytesIO()
    # 4:4:4: chroma keeps its place to the pixel.
    Image.fromarray(values).save(file, "JPEG", quality=view.quality, subsampling=0, optimize=True)
    return file.getvalue()


def truths() -> dict[str, Matrix]:
    """File name → homography: from each original to its views, and between the views of the turning camera."""
    matrices = {f"{Path(view.original).stem}_to_{Path(view.name).stem}.txt": view.homography for view in VIEWS}
    left_to_right = matrices["china_to_china-right.txt"] @ np.linalg.inv(matrices["china_to_china-left.txt"])
    return {**matrices, "china-left_to_china-right.txt": left_to_right / left_to_right[2, 2]}


def write_digits(folder: Path) -> None:
    """A folder a digit, as `featkit classify` takes them: black on white, as they were written."""
    digits = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
        for number, grey in enumerate(digits.images[digits.target == digit][:DIGITS_EACH]):
            values = 255 - np.round(grey * (255 / 16)).astype(np.uint8)
            Image.fromarray(values).save(folder / str(digit) / f"{number:02}.png", optimize=True)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder / "digits")
    for name, source in ORIGINALS.items():
        shutil.copyfile(source, folder / name)
    for view in VIEWS:
        (folder / view.name).write_bytes(photograph(view, folder))
    for name, matrix in truths().items():
        np.savetxt(folder / name, matrix, fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
