"""What hangs together, by which pairs, and where its middle is; against slower ways to find it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.stitching.graph import components, middle


@dataclass(frozen=True)
class Edge:
    """Two photos that overlap."""

    a: int
    b: int


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    """Up to nine photos, any pairs of them in any order, either way round."""
    count = draw(st.integers(1, 9))
    every = list(combinations(range(count), 2))
    pairs = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    turned = [pair[:: draw(st.sampled_from([1, -1]))] for pair in pairs]
    return count, [Edge(*pair) for pair in turned]


def pairs_of(edges: list[Edge]) -> list[tuple[int, int]]:
    return [(edge.a, edge.b) for edge in edges]


def reachable(count: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """bool N×N, by powers of the adjacency matrix."""
    adjacent = np.eye(count, dtype=int)
    for a, b in pairs:
        adjacent[a, b] = adjacent[b, a] = 1
    return np.asarray(np.linalg.matrix_power(adjacent, count) > 0)


def steps(count: int, edges: list[Edge]) -> np.ndarray:
    """float N×N, by searching outwards from each photo."""
    found = np.full((count, count), np.inf)
    for start in range(count):
        reached, distance = {start}, 0
        while reached:
            found[start, list(reached)] = distance
            neighbours = {edge.b if edge.a in reached else edge.a for edge in edges if {edge.a, edge.b} & reached}
            reached = {number for number in neighbours if np.isinf(found[start, number])}
            distance += 1
    return found


class TestComponents:
    @given(graphs())
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_hang_together_and_nothing_else_does(self, graph: tuple[int, list[Edge]]) -> None:
        count, edges = graph
        together = reachable(count, pairs_of(edges))
        found = components(count, pairs_of(edges))
        assert sorted(number for members in found for number in members) == list(range(count))
        for members in found:
            np.testing.assert_array_equal(np.flatnonzero(together[members[0]]), members)
        assert found == sorted(found, key=lambda members: (-len(members), members[0]))

    def test_the_largest_comes_first(self) -> None:
        assert components(7, [(5, 1), (6, 2), (4, 2)]) == [[2, 4, 6], [1, 5], [0], [3]]

    def test_a_long_chain(self) -> None:
        """Thousands of photos, and no recursion."""
        count = 5000
        assert components(count, [(number + 1, number) for number in reversed(range(count - 1))]) == [
            list(range(count))
        ]

    def test_without_pairs_everything_is_alone(self) -> None:
        assert components(3, []) == [[0], [1], [2]]
        assert components(0, []) == []


class TestMiddle:
    @given(graphs())
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_has_the_fewest_steps_to_the_others(self, graph: tuple[int, list[Edge]]) -> None:
        count, edges = graph
        assert middle(count, edges) == int(steps(count, edges).sum(1).argmin())

    def test_of_a_row(self) -> None:
        assert middle(5, [Edge(number, number + 1) for number in range(4)]) == 2

    def test_of_a_star(self) -> None:
        assert middle(6, [Edge(3, number) for number in range(6) if number != 3]) == 3

    def test_of_one(self) -> None:
        assert middle(1, []) == 0
