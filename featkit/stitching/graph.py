"""Which photos hang together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class _Edge(Protocol):
    @property
    def a(self) -> int: ...
    @property
    def b(self) -> int: ...


def components(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Photos that hang together by pairs, the most first, then by the first photo; each ascending."""
    home = list(range(count))

    def root(number: int) -> int:
        while home[number] != number:
            home[number] = home[home[number]]
            number = home[number]
        return number

    for a, b in pairs:
        home[max(root(a), root(b))] = min(root(a), root(b))
    found: dict[int, list[int]] = {}
    for number in range(count):
        found.setdefault(root(number), []).append(number)
    return sorted(found.values(), key=lambda members: (-len(members), members[0]))


def middle(count: int, edges: Sequence[_Edge]) -> int:
    """The photo from which the others are reached in the fewest steps."""
    steps = np.full((count, count), np.inf)
    np.fill_diagonal(steps, 0)
    for edge in edges:
        steps[edge.a, edge.b] = steps[edge.b, edge.a] = 1
    for through in range(count):
        steps = np.minimum(steps, steps[:, through, None] + steps[through])
    return int(steps.sum(1).argmin())
