"""The largest upright rectangle inside a shape."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def largest_rectangle(inside: npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x, y, width, height of the largest rectangle of a bool H×W picture that is True everywhere; None if nothing is.

    Row by row, the largest rectangle under the histogram of how far up True reaches from there, with a stack.
    """
    heights = np.zeros(inside.shape[1], np.int64)
    best, found = 0, None
    for row in range(inside.shape[0]):
        heights = np.where(inside[row], heights + 1, 0)
        stack: list[tuple[int, int]] = []  # (first column, height), heights rising
        for column, height in enumerate([*heights.tolist(), 0]):
            first = column
            while stack and stack[-1][1] >= height:
                first, tall = stack.pop()
                if tall * (column - first) > best:
                    best = tall * (column - first)
                    found = first, row - tall + 1, column - first, tall
            stack.append((first, height))
    return found
