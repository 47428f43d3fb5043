"""Labelled pictures, made on the spot: three textures with noise, which classifiers tell apart, though not without a
mistake; shared by several tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from featkit.images import Pixels

KINDS = ("across", "down", "spots")


def texture(kind: str, seed: int, width: int = 32, height: int = 32) -> Pixels:
    """uint8 H×W×3: stripes that run across or down, or spots, of a period of 6 to 9 pixels and some colour."""
    random = np.random.default_rng((KINDS.index(kind), seed))
    y, x = np.mgrid[:height, :width] * (2 * np.pi / random.uniform(6, 9))
    phase = random.uniform(0, 2 * np.pi)
    wave = {"across": np.sin(y + phase), "down": np.sin(x + phase), "spots": np.sin(x + phase) * np.sin(y)}[kind]
    noisy = 128 + 60 * wave[..., None] * random.uniform(0.3, 1, 3) + random.normal(0, 30, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def save_textures(
    folder: Path, count: int, *, first: int = 0, size: tuple[int, int] = (32, 32), kinds: tuple[str, ...] = KINDS
) -> None:
    """Pictures `first`.png, … of each kind in a folder of its name. size: (width, height)."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            Image.fromarray(texture(kind, number, *size)).save(folder / kind / f"{number}.png")
