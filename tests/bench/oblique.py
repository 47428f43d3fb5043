"""Photos seen from ever more obliquely, with exact truth: how many pairs are solved, and what is said about the others.

python -m tests.bench.oblique [--data FOLDER] [--tilt T ...] [--photos N] [--effort NAME ...] [--detector NAME]

A tilt of t compresses a photo t-fold in one direction (a plane seen at an angle of acos 1/t; Morel & Yu 2009), here a
random one, then turns it at random, in slight perspective. Each pixel of the view averages what it covers of the photo;
gamma, gain and noise are those of another exposure. The views are made anew by each run, the same ones each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from featkit import Cache, match
from tests.bench.report import ROOT, arguments, option_parser, print_table
from tests.bench.truth import auc, corner_error

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

TILTS = (2, 3, 4, 5, 6, 8)
SOLVED_PX = 10.0
SAMPLES = ("china.jpg", "coffee.png", "chelsea.png")
# Depth changes by this much over the photo's half diagonal, at most.
MOST_PERSPECTIVE = 0.2
NOISE = 3.0
BACKGROUND = (127, 127, 127)


@dataclass(frozen=True)
class View:
    """pixels: uint8 H×W×3. matrix: 3×3, photo to view."""

    pixels: Pixels
    matrix: Matrix


def view(photo: Pixels, tilt: float, random: np.random.Generator) -> View:
    """The photo, whole, from an oblique direction, in the smallest frame that holds it."""
    height, width = photo.shape[:2]
    direction, turn = random.uniform(0, np.pi), random.uniform(-np.pi, np.pi)
    centred = np.array([[1, 0, (1 - width) / 2], [0, 1, (1 - height) / 2], [0, 0, 1]])
    affine = np.eye(3)
    affine[:2, :2] = _rotation(turn) @ np.diag([1, 1 / tilt]) @ _rotation(direction)
    perspective = np.eye(3)
    slope = random.uniform(0, MOST_PERSPECTIVE)
    perspective[2, :2] = slope / np.hypot(width, height) * 2 * _rotation(random.uniform(0, 2 * np.pi))[0]
    matrix = affine @ perspective @ centred
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float) @ matrix.T
    corners = corners[:, :2] / corners[:, 2:]
    shift = np.eye(3)
    shift[:2, 2] = -corners.min(axis=0)
    matrix = shift @ matrix
    size = np.ceil(np.ptp(corners, axis=0)).astype(int) + 1

    # As many samples a pixel, each way, as photo pixels can fall into it.
    samples = int(np.ceil(tilt * (1 + MOST_PERSPECTIVE) ** 2))
    fine = np.array([[samples, 0, (samples - 1) / 2], [0, samples, (samples - 1) / 2], [0, 0, 1]])
    large: Any = cv2.warpPerspective(
        photo, fine @ matrix, (size * samples).tolist(), flags=cv2.INTER_CUBIC, borderValue=BACKGROUND
    )
    averaged = large.reshape(size[1], samples, size[0], samples, 3).mean(axis=(1, 3))
    exposed = 255 * (averaged / 255) ** random.uniform(0.7, 1.4) * random.uniform(0.8, 1.1)
    noisy = exposed + random.normal(0, NOISE, exposed.shape)
    return View(np.clip(noisy.round(), 0, 255).astype(np.uint8), matrix)


def _rotation(angle: float) -> Matrix:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def photos(data: Path, count: int) -> list[Path]:
    """The samples, and photos evenly from imagenet-sample."""
    others = sorted((data / "imagenet-sample").glob("*.JPEG"))
    own = [ROOT / "samples" / name for name in SAMPLES][:count]
    wanted = count - len(own)
    return own + [others[number * len(others) // max(wanted, 1)] for number in range(wanted)]


def views(data: Path, tilts: Sequence[float], count: int) -> Iterator[tuple[Path, float, View]]:
    for tilt in tilts:
        for number, path in enumerate(photos(data, count)):
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            yield path, tilt, view(pixels, tilt, np.random.default_rng((number, round(tilt * 100))))


def main(
    data: Path,
    tilts: Sequence[float] = TILTS,
    count: int = 15,
    efforts: Sequence[str | None] = (None,),
    **options: Any,
) -> None:
    found: dict[tuple[str | None, float], list[tuple[str, float]]] = {}
    with TemporaryDirectory() as folder:
        target = Path(folder) / "view.png"
        for path, tilt, seen in views(data, tilts, count):
            Image.fromarray(seen.pixels).save(target)
            for effort in efforts:
                chosen = {} if effort is None else {"effort": effort}
                result = match(path, target, cache=Cache(None), **chosen, **options)
                error = corner_error(result.matrix, seen.matrix, result.a.features.image_size)
                found.setdefault((effort, tilt), []).append((result.verdict, error))
    rows = []
    for (effort, tilt), outcomes in sorted(found.items(), key=lambda each: (each[0][0] or "", each[0][1])):
        solved = [verdict for verdict, error in outcomes if error <= SOLVED_PX]
        missed = [verdict for verdict, error in outcomes if error > SOLVED_PX]
        rows.append(
            [
                effort or "default",
                f"{tilt:g}",
                f"{len(solved)} of {len(outcomes)}",
                f"{auc([error for _, error in outcomes], SOLVED_PX):.1f}",
                str(solved.count("reliable")),
                *(str(missed.count(verdict)) for verdict in ("none", "doubtful", "reliable")),
            ]
        )
    columns = [
        "effort",
        "tilt",
        "within 10 px",
        "AUC@10",
        "of these reliable",
        "missed: none",
        "doubtful",
        "“reliable”",
    ]
    print_table(f"Oblique views, {options.get('detector', 'sift').upper()}", columns, rows)


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--tilt", type=float, nargs="+", default=TILTS, help="how oblique (default: 2 3 4 5 6 8)")
    parser.add_argument("--photos", type=int, default=15, help="how many, at each tilt (15)")
    parser.add_argument("--effort", nargs="+", default=[None], help="as of featkit match, one or more to compare")
    parser.add_argument("--detector", default="sift", help="as of featkit match")
    given = arguments(parser)
    main(given.data, given.tilt, given.photos, given.effort, detector=given.detector)
