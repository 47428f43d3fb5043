"""How many photos to learn from at each step of a learning curve, which ones, and how sure its points are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.learning.evaluation import wilson
from featkit.learning.learning_curve import CurvePoint, draw_count, draws, sizes

accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(tuple)


class TestSizes:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ([30] * 15, (1, 2, 5, 10, 20, 30)),
            ([500] * 10, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
            ([121, 123], (1, 2, 5, 10, 20, 50, 100, 121)),
            ([1, 1], (1,)),
            ([2], (1, 2)),
            ([], ()),
            ([0, 0], ()),
        ],
    )
    def test_up_to_what_there_is(self, counts: list[int], expected: tuple[int, ...]) -> None:
        assert sizes(counts) == expected

    @pytest.mark.parametrize(("counts", "most"), [([1, 40, 1000], 40), ([3, 7, 50, 60], 7), ([0, 0, 9, 9], 9)])
    def test_of_classes_that_differ_half_have_the_most(self, counts: list[int], most: int) -> None:
        assert sizes(counts)[-1] == most

    @given(st.lists(st.integers(0, 3000), max_size=30))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_they_grow(self, counts: list[int]) -> None:
        found = sizes(counts)
        assert list(found) == sorted(set(found))
        having = [count for count in counts if count]
        if having:
            assert found[0] == 1
            assert 2 * sum(count >= found[-1] for count in having) >= len(having)


class TestDraws:
    @given(
        st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 20), st.integers(0, 9), st.integers(1, 5)
    )
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_so_many_of_each_class(self, drawn: list[int], size: int, seed: int, number: int) -> None:
        labels = np.array(drawn, np.int64)
        found = draws(labels, size, seed, number)
        for indices in found:
            assert indices.dtype == np.int64
            assert (np.diff(indices) > 0).all()
            counts = np.bincount(labels)
            assert np.bincount(labels[indices], minlength=len(counts)).tolist() == np.minimum(counts, size).tolist()
        assert len(found) == (number if size < np.bincount(labels).max() else 1)

    def test_twice_the_same_and_another_seed_others(self) -> None:
        labels = np.arange(200) % 4
        first, again, other = (draws(labels, 10, seed, 5) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        every = {tuple(each.tolist()) for each in [*first, *other]}
        assert len(every) == 10

    def test_a_draw_holds_the_smaller_ones_of_its_number(self) -> None:
        labels = np.random.default_rng(3).integers(5, size=300)
        before = draws(labels, 1, 7, 5)
        for size in (2, 5, 10, 20):
            after = draws(labels, size, 7, 5)
            for small, large in zip(before, after, strict=True):
                assert set(small.tolist()) < set(large.tolist())
            before = after

    def test_every_picture_is_as_likely(self) -> None:
        labels = np.repeat([0, 1], [10, 40])
        found = np.bincount(np.concatenate(draws(labels, 5, 0, 4000)), minlength=50) / 4000
        assert found[:10] == pytest.approx(np.full(10, 0.5), abs=0.04)
        assert found[10:] == pytest.approx(np.full(40, 0.125), abs=0.03)

    def test_all_pictures_are_drawn_once(self) -> None:
        labels = np.array([1, 0, 1, 0, 0])
        assert [each.tolist() for each in draws(labels, 3, 0, 5)] == [[0, 1, 2, 3, 4]]
        assert len(draws(labels, 2, 0, 5)) == 5

    def test_more_of_few(self) -> None:
        assert draw_count(1) == 5
        assert draw_count(20) == 5
        assert draw_count(50) == 3

    @pytest.mark.parametrize(("size", "number"), [(0, 5), (5, 0), (-1, 1)])
    def test_none(self, size: int, number: int) -> None:
        with pytest.raises(ValueError, match="are none"):
            draws(np.array([0, 1]), size, 0, number)


class TestPoint:
    def test_of_one_draw_it_is_known_what_it_was_tested_on_alone(self) -> None:
        assert CurvePoint(30, 450, 1000, (0.9,)).interval == pytest.approx(wilson(0.9, 1000), abs=1e-12)
        assert CurvePoint(30, 450, 1000, (0.9,) * 5).interval == pytest.approx(wilson(0.9, 1000), abs=1e-12)

    def test_of_very_many_pictures_it_is_students_interval_of_the_draws(self) -> None:
        from scipy.stats import t

        found = CurvePoint(2, 4, 10**12, (0.5, 0.6, 0.55, 0.52, 0.61))
        spread = np.std(found.accuracies, ddof=1) / np.sqrt(5)
        assert found.mean == pytest.approx(np.mean(found.accuracies))
        assert found.interval == pytest.approx(t.interval(0.95, 4, loc=found.mean, scale=spread), abs=1e-5)

    @given(accuracies, st.integers(1, 5000))
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_no_narrower_than_either(self, drawn: tuple[float, ...], tested: int) -> None:
        found = CurvePoint(5, 10, tested, drawn)
        low, high = found.interval
        assert 0 <= low <= found.mean <= high <= 1
        assert min(drawn) - 1e-12 <= found.mean <= max(drawn) + 1e-12
        narrow = wilson(found.mean, tested)
        assert low <= narrow[0] + 1e-12
        assert high >= narrow[1] - 1e-12

    def test_covers_the_accuracy_to_expect(self) -> None:
        """Heads whose own accuracies differ from draw to draw, tested on the same few pictures."""
        random = np.random.default_rng(0)
        within = []
        for _ in range(1500):
            # How hard each test picture is; a head has it right where it is good enough.
            hardness = random.uniform(size=200)
            heads = random.normal(0.7, 0.05, size=5)
            low, high = CurvePoint(5, 10, 200, tuple((hardness < heads[:, None]).mean(1).tolist())).interval
            within.append(low <= 0.7 <= high)
        assert np.mean(within) > 0.94

    @pytest.mark.parametrize(("tested", "accuracies"), [(10, ()), (0, (0.5,))])
    def test_nothing(self, tested: int, accuracies: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="needs an accuracy"):
            CurvePoint(1, 2, tested, accuracies)
