"""What HOG sees of a picture, drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featkit.classical.hog import FLAT, HogConfig, histograms
from featkit.images import Pixels

# Pixels of a cell's shorter side, at least; between the picture and what is drawn of it; of a line, of a cell's side.
_DRAWN_CELL, _GAP, _LINE_WIDTH = 48, 16, 0.06


def draw_hog(image: Pixels, config: HogConfig | None = None) -> Pixels:
    """uint8 H×W×3: the picture, enlarged by a whole number, and beside it what HOG sees of it.

    Each cell has a line for each direction that edges in it have, at right angles to their gradients; the lines of a
    gradient and of its opposite are one. Brightness is strength, and the strongest one in the picture is white; the
    lines of a weak cell are brightened, to the root of what the strongest of them would have.
    image: uint8 H×W or H×W×3. Errors: as in `hog`.
    """
    config = config or HogConfig()
    [strengths] = histograms(image[None], config)
    if config.orientations % 2 == 0:
        strengths = strengths[..., : config.orientations // 2] + strengths[..., config.orientations // 2 :]
    strongest = strengths.max(2, keepdims=True)
    strengths = strengths / np.sqrt(np.maximum(strongest, FLAT) * max(float(strongest.max()), FLAT))
    height, width = image.shape[:2]
    scale = -(-_DRAWN_CELL * config.cells // min(height, width))
    (row, down), (column, across) = (_cell_offsets(side * scale, config.cells) for side in (height, width))
    side = scale * min(height, width) / config.cells
    lines = np.zeros((height * scale, width * scale), np.float32)
    for number in range(strengths.shape[2]):
        angle = 2 * np.pi * (number + 0.5) / config.orientations
        off = np.abs(down[:, None] * np.sin(angle) + across * np.cos(angle))
        along = np.abs(down[:, None] * np.cos(angle) - across * np.sin(angle))
        inside = np.clip(side * _LINE_WIDTH / 2 + 0.5 - off, 0, 1) * np.clip(side * 0.46 + 0.5 - along, 0, 1)
        np.maximum(lines, strengths[row[:, None], column, number] * inside, out=lines)
    drawn = np.rint(255 * lines).astype(np.uint8)
    seen = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    gap = np.full((height * scale, _GAP, 3), 255, np.uint8)
    return np.hstack([seen.repeat(scale, 0).repeat(scale, 1), gap, np.repeat(drawn[..., None], 3, 2)])


def _cell_offsets(side: int, cells: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Of each pixel along a side the cell that it lies in, and how far it is from that cell's centre."""
    position = np.arange(side) + 0.5
    cell = (position * cells / side).astype(np.int64)
    return cell, (position - (cell + 0.5) * side / cells).astype(np.float32)
