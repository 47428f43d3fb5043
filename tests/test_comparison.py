"""Two classifiers on the same pictures: whether one is better, against scipy's binomial test and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import UsageError
from featkit.learning.comparison import Comparison, compare
from featkit.learning.evaluation import Evaluation, evaluate

#: Pictures, and of them those that the first alone and the second alone have right.
counted = st.integers(1, 400).flatmap(
    lambda pictures: st.integers(0, pictures).flatmap(
        lambda first: st.tuples(st.just(pictures), st.just(first), st.integers(0, pictures - first))
    )
)


def judged(labels: dict[str, tuple[str, str]], classes: tuple[str, ...]) -> Evaluation:
    """labels: path -> true and predicted label."""
    truth, predicted = ([classes.index(pair[each]) for pair in labels.values()] for each in (0, 1))
    return evaluate(classes, list(labels), truth, np.eye(len(classes))[predicted])


def differing(pictures: int, only_first: int, only_second: int) -> tuple[Evaluation, Evaluation]:
    """Two evaluations of the same pictures, all cats. Of those that they agree on every other one is right."""
    agreed = [(number % 2, number % 2) for number in range(pictures - only_first - only_second)]
    right = [(1, 0)] * only_first + [(0, 1)] * only_second + agreed
    first, second = (
        judged({f"{n}.png": ("cat", "cat" if pair[each] else "dog") for n, pair in enumerate(right)}, ("cat", "dog"))
        for each in (0, 1)
    )
    return first, second


class TestCounts:
    def test_who_alone_is_right(self) -> None:
        first = {"a": ("cat", "cat"), "b": ("cat", "dog"), "c": ("dog", "dog"), "d": ("dog", "dog")}
        second = {"a": ("cat", "dog"), "b": ("cat", "dog"), "c": ("dog", "cat"), "d": ("dog", "dog")}
        assert compare(*(judged(each, ("cat", "dog")) for each in (first, second))) == Comparison(4, 2, 0)

    def test_classes_are_told_by_their_labels_whatever_their_numbers(self) -> None:
        labels = {"a": ("cat", "cat"), "b": ("dog", "cat"), "c": ("dog", "dog")}
        assert compare(judged(labels, ("cat", "dog")), judged(labels, ("dog", "emu", "cat"))) == Comparison(3, 0, 0)

    def test_only_pictures_that_both_have_count_in_any_order(self) -> None:
        first = {"a": ("cat", "cat"), "b": ("cat", "dog"), "c": ("dog", "dog")}
        second = {"z": ("cat", "dog"), "c": ("dog", "cat"), "b": ("cat", "cat"), "y": ("dog", "cat")}
        assert compare(*(judged(each, ("cat", "dog")) for each in (first, second))) == Comparison(2, 1, 1)

    @given(counted)
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_as_they_were_made(self, counts: tuple[int, int, int]) -> None:
        first, second = differing(*counts)
        found = compare(first, second)
        assert found == Comparison(*counts)
        assert found.difference == pytest.approx(first.accuracy - second.accuracy, abs=1e-12)
        assert compare(second, first) == Comparison(counts[0], counts[2], counts[1])


class TestMcNemar:
    def test_a_published_one(self) -> None:
        # Bentur et al. 2009, as in Fagerland, Lydersen & Laake 2013.
        assert Comparison(21, 1, 7).p == pytest.approx(0.0391, abs=5e-5)

    @given(counted)
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_is_scipys_binomial_test_less_the_likelihood_of_what_was_seen(self, counts: tuple[int, int, int]) -> None:
        from scipy.stats import binom, binomtest

        _, first, second = counts
        found = Comparison(*counts)
        discordant = first + second
        if first == second:
            assert found.p == 1
        else:
            exact = binomtest(first, discordant).pvalue
            assert found.p == pytest.approx(exact - binom.pmf(first, discordant, 0.5), rel=1e-9)
            assert 0 < found.p < exact
        assert found.p == Comparison(counts[0], second, first).p
        assert found.told_apart == (found.p < 0.05)

    @pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 1), (0, 5), (4, 3), (1, 7), (2, 9)])
    def test_as_counted_over_all_outcomes(self, first: int, second: int) -> None:
        """Two equally good classifiers: each picture that one alone has right is the first's or the second's."""
        discordant, seen = first + second, abs(first - second)
        outcomes = [abs(discordant - 2 * sum(each)) for each in itertools.product((0, 1), repeat=discordant)]
        likelihood = (sum(each > seen for each in outcomes) + sum(each == seen for each in outcomes) / 2) / len(
            outcomes
        )
        assert Comparison(100, first, second).p == pytest.approx(likelihood, abs=1e-12)

    def test_of_very_many_pictures(self) -> None:
        assert Comparison(10**6, 50_000, 50_000).p == 1
        assert Comparison(10**6, 60_000, 40_000).p < 1e-300
        assert Comparison(10**6, 50_100, 50_000).p == pytest.approx(math.erfc(100 / math.sqrt(2 * 100_100)), rel=1e-3)

    @pytest.mark.parametrize("pictures", [20, 50, 150])
    @pytest.mark.parametrize("differing", [0.05, 0.2, 0.5])
    def test_keeps_to_its_level(self, pictures: int, differing: float) -> None:
        """Of equally good classifiers, one alone of which is right on a share of the pictures, it tells at most 5 % of
        pairs apart, and more than the test without the half, which is too careful."""
        from scipy.stats import binom

        ours, careful = 0.0, 0.0
        for discordant in range(pictures + 1):
            likely = binom.pmf(discordant, pictures, differing)
            chances = binom.pmf(np.arange(discordant + 1), discordant, 0.5)
            for first, chance in enumerate(chances.tolist()):
                found = Comparison(pictures, first, discordant - first)
                ours += likely * chance * found.told_apart
                careful += likely * chance * (found.p + chance < 0.05)
        assert careful < ours <= 0.05

    def test_from_five_pictures_on(self) -> None:
        assert not Comparison(10, 4, 0).told_apart
        assert Comparison(10, 5, 0).told_apart


class TestDifference:
    def test_a_published_interval(self) -> None:
        # The example of statpsych's ci.prop.ps, by the authors of the method.
        found = Comparison(48, 26, 4)
        assert found.difference == pytest.approx(22 / 48)
        assert found.interval == pytest.approx((0.2548067, 0.6251933), abs=5e-8)

    @given(counted)
    @settings(max_examples=300, deadline=None, derandomize=True)
    def test_holds_the_difference_and_turns_with_it(self, counts: tuple[int, int, int]) -> None:
        pictures, first, second = counts
        found, turned = Comparison(*counts), Comparison(pictures, second, first)
        low, high = found.interval
        assert -1 <= low <= found.difference <= high <= 1
        assert turned.interval == pytest.approx((-high, -low), abs=1e-12)

    def test_covers_the_true_difference(self) -> None:
        random = np.random.default_rng(0)
        both = random.multinomial(100, [0.1, 0.03, 0.87], size=2000)
        within = [low <= 0.07 <= high for low, high in (Comparison(100, a, b).interval for a, b, _ in both.tolist())]
        assert 0.93 < np.mean(within) < 0.985


class TestRefusal:
    def test_no_picture_in_common(self) -> None:
        first, second = judged({"a": ("cat", "cat")}, ("cat", "dog")), judged({"b": ("cat", "cat")}, ("cat", "dog"))
        with pytest.raises(UsageError, match="no picture was tested on by both") as caught:
            compare(first, second)
        assert caught.value.hint

    def test_pictures_that_are_something_else_there(self) -> None:
        first, second = judged({"a": ("cat", "cat")}, ("cat", "dog")), judged({"a": ("dog", "dog")}, ("cat", "dog"))
        with pytest.raises(UsageError, match="is 'cat' in one evaluation and 'dog' in the other") as caught:
            compare(first, second)
        assert caught.value.path == "a"

    @pytest.mark.parametrize("counts", [(0, 0, 0), (3, 2, 2), (3, -1, 2)])
    def test_counts_that_cannot_be(self, counts: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError, match="cannot be"):
            Comparison(*counts)
