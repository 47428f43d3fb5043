"""What pictures say of a transformation: whether they look alike under it, and whether under another one, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featkit.local.agreement import agreement
from featkit.opencv import cv2

Pixels = np.ndarray


def load(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


@pytest.mark.parametrize("pair", ["china_to_china-oblique", "china-left_to_china-right", "coffee_to_coffee-near"])
def test_two_views_look_alike_under_their_homography(samples: Path, pair: str) -> None:
    a, b = (load(next(samples.glob(f"{name}.[jp]*"))) for name in pair.split("_to_"))

    found = agreement(a, b, np.loadtxt(samples / f"{pair}.txt"))

    assert found is not None
    assert found.alike > 0.8
    assert found.echo < 0.7


def test_both_directions_say_the_same(samples: Path) -> None:
    a, b = load(samples / "china.jpg"), load(samples / "china-oblique.jpg")
    matrix = np.loadtxt(samples / "china_to_china-oblique.txt")

    forth, back = agreement(a, b, matrix), agreement(b, a, np.linalg.inv(matrix))

    assert forth is not None
    assert back is not None
    assert forth.alike == pytest.approx(back.alike, abs=0.15)


def test_exposure_and_colour_do_not_matter(samples: Path) -> None:
    a = load(samples / "chelsea.png")
    darker = (a.astype(float) ** 1.5 / 255**0.5 * [0.5, 0.6, 0.4] + 20).astype(np.uint8)

    found = agreement(a, darker, np.eye(3))

    assert found is not None
    assert found.alike > 0.95


def test_two_photos_with_the_same_frame_do_not_look_alike(samples: Path) -> None:
    size = (480, 360)
    a, b = (
        cv2.resize(load(samples / name), size, interpolation=cv2.INTER_AREA) for name in ("coffee.png", "chelsea.png")
    )
    frame = np.random.default_rng(0).integers(0, 256, (360, 480, 3)).astype(np.uint8)
    frame = cv2.GaussianBlur(frame, (0, 0), 2)
    for each in (a, b):
        each[:24], each[-24:], each[:, :24], each[:, -24:] = frame[:24], frame[-24:], frame[:, :24], frame[:, -24:]

    found = agreement(a, b, np.eye(3))

    assert found is not None
    assert found.alike < 0.6


def test_a_wrong_shift_of_a_right_pair_is_not_alike(samples: Path) -> None:
    a = load(samples / "china.jpg")

    found = agreement(a, a, shift(60, 25))

    assert found is not None
    assert found.alike < 0.4


def test_a_tiling_looks_alike_under_another_shift_too(samples: Path) -> None:
    tile = cv2.resize(load(samples / "chelsea.png"), (80, 80), interpolation=cv2.INTER_AREA)
    tiles = np.tile(tile, (6, 8, 1))

    found = agreement(tiles[:360, :480], tiles[40:400, 80:560], shift(0, -40))

    assert found is not None
    assert found.alike > 0.95
    assert found.echo > 0.95


def test_without_texture_or_overlap_there_is_no_answer(samples: Path) -> None:
    flat = np.full((200, 300, 3), 90, np.uint8)
    photo = load(samples / "coffee.png")

    assert agreement(flat, flat, np.eye(3)) is None
    assert agreement(photo, photo, shift(5000, 0)) is None


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (8, 8), (4000, 3)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)

    found = agreement(pixels, pixels, np.eye(3))

    assert found is None or 0 <= found.alike <= 1


def test_beyond_the_horizon_nothing_is_seen(samples: Path) -> None:
    photo = load(samples / "coffee.png")
    folded = np.array([[1, 0, 0], [0, 1, 0], [-1 / 300, 0, 1.0]])  # the right half lies behind the camera

    found = agreement(photo, photo, folded)

    assert found is None or found.alike < 0.6
