"""Photos of one scene, rendered from a sample by cameras that are known: turned on the spot, or moved over it.

Splines are evaluated at the exact place, and every photo has an exposure and noise of its own: nothing that featkit
warps by has a part in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from conftest import SAMPLES
from exact_warps import shift, size_of
from known_cameras import turned
from PIL import Image
from scipy.ndimage import map_coordinates, spline_filter

from featkit.local.geometry import transform

SIZE = (320, 240)
# Pixels: of the sample, taken for a photo of what is far away, and of the camera that turns.
_SCENE_FOCAL, FOCAL = 480.0, 380.0
# Degrees to the right, upwards; and pixels from the left, from the top.
_TURNS = {"turned-1.jpg": (-16, 1), "turned-2.jpg": (-5, -1), "turned-3.jpg": (6, 2), "turned-4.jpg": (16, 0)}
_PLACES = {"flat-1.jpg": (2.3, 4.1), "flat-2.jpg": (127.6, 1.4), "flat-3.jpg": (8.2, 58.7), "flat-4.jpg": (125.1, 57.3)}

TURNED, FLAT = list(_TURNS), list(_PLACES)
STRANGER, COPY, CUT = "stranger.jpg", "twin of turned-1.jpg", "cut.jpg"


def make_album(folder: Path) -> dict[str, np.ndarray]:
    """Write the photos of two panoramas into a folder, and three that belong to none: one of something else, one that
    is another's copy, and half a file. Returns, of those of the panoramas, the 3×3 matrix from their pixels to those of
    their scene."""
    truth = {name: turned_by(*turn) for name, turn in _TURNS.items()}
    truth.update({name: shift(*place) for name, place in _PLACES.items()})
    scenes = {"turned": sample("china"), "flat": sample("chelsea")}
    for number, (name, to_scene) in enumerate(truth.items()):
        photo = seen(scenes[name.split("-")[0]], to_scene, exposure=0.9 + 0.03 * number, seed=number)
        Image.fromarray(photo).save(folder / name, quality=95)
    Image.fromarray(sample("coffee")).resize(SIZE).save(folder / STRANGER, quality=95)
    shutil.copy(folder / TURNED[0], folder / COPY)
    whole = (folder / TURNED[1]).read_bytes()
    (folder / CUT).write_bytes(whole[: len(whole) // 2])
    return truth


def sample(name: str) -> np.ndarray:
    """A sample by the start of its name, uint8 H×W×3."""
    with Image.open(next(SAMPLES.glob(f"{name}.[jp]*"))) as image:
        return np.asarray(image.convert("RGB"))


def turned_by(yaw: float, pitch: float) -> np.ndarray:
    """3×3, from the pixels of a photo to those of the scene "china"; degrees."""
    scene = calibration(_SCENE_FOCAL, size_of(sample("china")))
    return scene @ turned(yaw, pitch) @ np.linalg.inv(calibration(FOCAL, SIZE))


def calibration(focal_px: float, size: tuple[int, int]) -> np.ndarray:
    return np.array([[focal_px, 0, (size[0] - 1) / 2], [0, focal_px, (size[1] - 1) / 2], [0, 0, 1]])


def seen(scene: np.ndarray, to_scene: np.ndarray, *, exposure: float, seed: int) -> np.ndarray:
    """uint8 H×W×3 of `SIZE`. exposure: a factor; seed: of the noise."""
    width, height = SIZE
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    places = transform(to_scene, np.stack([x, y], 1)).T[::-1]
    channels = [
        map_coordinates(spline_filter(scene[:, :, channel].astype(float)), places, mode="nearest", prefilter=False)
        for channel in range(3)
    ]
    photo = np.stack(channels, 1).reshape(height, width, 3) * exposure
    noisy = photo + np.random.default_rng(seed).normal(0, 1, photo.shape)
    return np.asarray(np.clip(noisy.round(), 0, 255).astype(np.uint8))
