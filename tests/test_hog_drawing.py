"""What HOG sees, drawn: lines along the edges, in the cells where they are."""

from __future__ import annotations

import numpy as np
import pytest

from featkit.classical.hog import HogConfig
from featkit.classical.hog_drawing import draw_hog
from featkit.errors import UsageError


def glyphs_of(drawn: np.ndarray, width: int) -> np.ndarray:
    """The right part, one channel, as float; the left part is the picture, enlarged to `width`."""
    assert (drawn[:, :, 0] == drawn[:, :, 2])[:, width:].all()
    return drawn[:, -width:, 0].astype(float)


@pytest.mark.parametrize("step", [80, -80])
def test_an_edge_is_a_line_along_it(step: int) -> None:
    """Whichever side is the brighter one; and none where all is flat."""
    picture = np.full((32, 32, 3), 100, np.uint8)
    picture[:, 12:] += np.array(step).astype(np.uint8)  # through the second column of cells

    drawn = draw_hog(picture)

    scale = len(drawn) // 32
    assert np.array_equal(drawn[::scale, : 32 * scale : scale], picture)
    lines = glyphs_of(drawn, 32 * scale)
    cell = lines[: 8 * scale, 8 * scale : 16 * scale]
    assert cell.max() > 200
    assert cell[:, 4 * scale].mean() > 3 * cell[4 * scale].mean()
    assert lines[:, 24 * scale :].max() == 0


def test_a_slanted_edge() -> None:
    """It falls from left to right, and so do the brightest pixels."""
    y, x = np.mgrid[:48, :48]
    picture = np.where(y > x, 220, 30).astype(np.uint8)

    lines = glyphs_of(draw_hog(picture, HogConfig(cells=2)), 96)

    y, x = np.nonzero(lines[:48, :48] > 0.9 * lines[:48, :48].max())
    assert np.corrcoef(x, y)[0, 1] > 0.8


def test_grey_and_colour_are_drawn_alike() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    assert np.array_equal(draw_hog(grey), draw_hog(np.repeat(grey[..., None], 3, 2)))


def test_nothing_to_see() -> None:
    drawn = draw_hog(np.full((16, 16, 3), 77, np.uint8))
    assert drawn[:, -len(drawn) :].max() == 0


def test_odd_numbers_of_orientations_and_cells_that_are_not_square() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (37, 90, 3), dtype=np.uint8)
    drawn = draw_hog(picture, HogConfig(cells=5, orientations=7))
    assert drawn.shape[0] % 37 == 0
    assert drawn.shape[0] >= 5 * 48
    assert drawn.max() == 255


def test_too_small_for_cells() -> None:
    with pytest.raises(UsageError, match="too small for 4 cells"):
        draw_hog(np.zeros((3, 9, 3), np.uint8))
