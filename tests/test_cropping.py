"""The largest rectangle, against all there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from featkit.stitching.cropping import largest_rectangle

shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def largest_area(inside: np.ndarray) -> int:
    """Of every rectangle that is True everywhere; 0 if nothing is."""
    height, width = inside.shape
    sums = np.pad(inside.astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return max(
        (
            (bottom - top) * (right - left)
            for top in range(height)
            for bottom in range(top + 1, height + 1)
            for left in range(width)
            for right in range(left + 1, width + 1)
            if sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
            == (bottom - top) * (right - left)
        ),
        default=0,
    )


@given(shapes.flatmap(lambda shape: arrays(bool, shape, elements=st.integers(0, 7).map(bool))))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_none_is_larger(inside: np.ndarray) -> None:
    found = largest_rectangle(inside)
    if found is None:
        assert not inside.any()
        return
    x, y, width, height = found
    assert min(x, y) >= 0
    assert inside[y : y + height, x : x + width].shape == (height, width)
    assert inside[y : y + height, x : x + width].all()
    assert width * height == largest_area(inside)


def test_in_a_disc_it_is_the_square() -> None:
    """Of a disc of radius r the largest rectangle is a square of side r √2."""
    y, x = np.mgrid[-100:101, -100:101]
    found = largest_rectangle(x**2 + y**2 <= 100**2)
    assert found is not None
    assert found[2] * found[3] == pytest.approx(2 * 100**2, rel=0.02)
    assert found[0] + (found[2] - 1) / 2 == pytest.approx(100, abs=1)
    assert found[1] + (found[3] - 1) / 2 == pytest.approx(100, abs=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 6)])
def test_all_and_nothing(shape: tuple[int, int]) -> None:
    assert largest_rectangle(np.ones(shape, bool)) == (0, 0, shape[1], shape[0])
    assert largest_rectangle(np.zeros(shape, bool)) is None


def test_around_a_hole() -> None:
    inside = np.ones((10, 20), bool)
    inside[5, 7] = False
    assert largest_rectangle(inside) == (8, 0, 12, 10)
