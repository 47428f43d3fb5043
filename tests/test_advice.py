"""What follows from a sweep: sentences that say which layer is best, which smaller one is as good, and nothing that the
test pictures do not support."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.learning.advice import Candidate, advise
from featkit.learning.comparison import Comparison, compare
from featkit.learning.evaluation import Evaluation, evaluate


def judged(right: Sequence[bool]) -> Evaluation:
    """An evaluation of so many cats; those that are not right were taken for dogs."""
    names = [f"{number}.png" for number in range(len(right))]
    return evaluate(("cat", "dog"), names, [0] * len(right), np.eye(2)[[int(not each) for each in right]])


def candidate(
    name: str,
    dimensions: int,
    depth: int,
    wrong: Sequence[int] | range,
    *,
    of: int = 153,
    validated: float = 0.9,
) -> Candidate:
    """One that has all but the pictures of these numbers right."""
    return Candidate(name, dimensions, depth, judged([number not in wrong for number in range(of)]), validated)


class TestBest:
    def test_one_that_all_others_are_told_from_is_best(self) -> None:
        found = advise(
            [
                candidate("blocks.4", 112, 0, range(400), of=1000),
                candidate("blocks.5", 320, 1, range(236), of=1000),
                candidate("head", 1280, 2, range(200, 500), of=1000),
            ],
            1,
        )
        assert found == ("blocks.5 is best: 76.4 % of 1,000 pictures, 320 numbers each.",)

    def test_a_smaller_one_that_it_is_not_told_from(self) -> None:
        # 13 pictures on which one alone is right: 6 and 7 of them.
        found = advise(
            [
                candidate("stem", 32, 0, range(80)),
                candidate("blocks.3", 320, 3, range(10)),
                candidate("head", 1280, 7, [*range(3), *range(20, 26)]),
            ],
            2,
        )
        assert found[0] == "head gets the most right: 94.1 % of 153 pictures, 1,280 numbers each."
        p = Comparison(153, 7, 6).p
        assert found[1] == (
            "blocks.3 is as good as head at a quarter of the size, as far as 153 pictures can tell: 1 more mistake, "
            f"p = {p:.2f}.".replace("0.", ".")
        )
        assert len(found) == 2

    @pytest.mark.parametrize(
        ("dimensions", "phrase"),
        [
            (640, "at half the size"),
            (320, "at a quarter of the size"),
            (448, "and 2.9 times smaller"),
            (128, "and 10 times smaller"),
            (1270, "with 1,270 numbers instead of 1,280"),
            (1280, "and is reached sooner"),
        ],
    )
    def test_sizes(self, dimensions: int, phrase: str) -> None:
        found = advise([candidate("a", dimensions, 0, [1, 2, 3]), candidate("b", 1280, 1, [1, 2])], 1)
        assert found[1].startswith(
            f"a is as good as b {phrase}, as far as 153 pictures can tell: 1 more mistake, p = .50"
        )

    def test_of_several_the_fewest_numbers_and_of_these_the_shallowest(self) -> None:
        found = advise(
            [
                candidate("a", 64, 0, range(40)),
                candidate("d", 96, 3, range(4)),
                candidate("b", 96, 1, range(5)),
                candidate("c", 512, 2, range(3)),
            ],
            3,
        )
        assert found[1].startswith("b is as good as c and 5.3 times smaller")
        assert "2 more mistakes" in found[1]

    def test_of_equals_the_smallest_is_named_first(self) -> None:
        found = advise([candidate("a", 320, 0, [4]), candidate("b", 32, 1, [9]), candidate("c", 32, 2, [1])], 1)
        assert found == ("None gets more right than b: 99.3 % of 153 pictures, 32 numbers each.",)

    def test_the_smaller_ones_are_all_worse(self) -> None:
        found = advise(
            [candidate("a", 32, 0, range(30)), candidate("b", 64, 1, [1]), candidate("c", 320, 2, [1, 2])], 1
        )
        assert found == (
            "b gets the most right: 99.3 % of 153 pictures, 64 numbers each.",
            "None of the smaller ones is as good.",
        )


class TestSaved:
    def test_another_than_the_best_on_the_test_pictures(self) -> None:
        found = advise(
            [
                candidate("blocks.6", 1280, 0, range(4), validated=0.928),
                candidate("head", 1280, 1, range(6), validated=0.932),
            ],
            1,
        )
        assert found[-1] == (
            "head is saved: it gets 93.2 % of the training pictures right while they are held out, blocks.6 92.8 %; "
            "the test pictures do not tell the two apart, p = .25."
        )

    def test_one_that_does_worse_by_the_test(self) -> None:
        found = advise(
            [candidate("a", 32, 0, range(4), validated=0.8), candidate("b", 32, 1, range(20), validated=0.9)], 1
        )
        assert found[-1] == (
            "b is saved: it gets 90.0 % of the training pictures right while they are held out, a 80.0 %. On the test "
            "pictures a is better, p < .001, but a choice by them would leave none to judge it by."
        )

    def test_no_more_is_claimed_than_is_seen(self) -> None:
        for validated in (0.8, 0.80001):
            found = advise(
                [candidate("a", 32, 0, range(4), validated=0.8), candidate("b", 32, 1, range(5), validated=validated)],
                1,
            )
            assert "80.0 % of the training pictures right while they are held out, a no more;" in found[-1]


class TestFew:
    def test_what_they_cannot_show_is_said(self) -> None:
        found = advise([candidate("a", 32, 0, [1, 2, 3], of=20), candidate("b", 64, 1, [1], of=20)], 1)
        assert found[-1] == "20 pictures cannot tell apart what differs by less than 25 points."

    def test_so_few_that_nothing_can_be_told(self) -> None:
        found = advise([candidate("a", 32, 0, [0, 1], of=3), candidate("b", 64, 1, [], of=3)], 1)
        assert found == (
            "b gets the most right: 100.0 % of 3 pictures, 64 numbers each.",
            "3 pictures cannot tell any two apart.",
        )

    def test_as_many_points_as_is_said_may_be_told(self) -> None:
        for pictures in range(5, 100):
            assert not Comparison(pictures, 4, 0).told_apart
            assert Comparison(pictures, 5, 0).told_apart
            found = advise([candidate("a", 32, 0, range(5), of=pictures), candidate("b", 64, 1, [], of=pictures)], 1)
            points = float(re.fullmatch(r".* less than (\S+) points\.", found[-1])[1])  # type: ignore[index]
            assert points == pytest.approx(500 / pictures, abs=0.051)

    def test_nothing_of_the_kind_is_said_of_many(self) -> None:
        assert len(advise([candidate("a", 32, 0, [1], of=100), candidate("b", 64, 1, [1], of=100)], 0)) == 1

    def test_one_candidate_or_none(self) -> None:
        assert advise([], 0) == ()
        assert advise([candidate("head", 1280, 0, [5], of=20)], 0) == (
            "head: 95.0 % of 20 pictures, 1,280 numbers each.",
        )


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[list[Candidate], int]:
    """Candidates on the same pictures, some much better than others, and which is saved."""
    pictures = draw(st.integers(1, 250))
    hardness = np.random.default_rng(draw(st.integers(0, 99))).uniform(size=pictures)
    found = []
    for number in range(draw(st.integers(1, 6))):
        able, noise = draw(st.floats(0, 1)), draw(st.integers(0, 99))
        right = hardness + np.random.default_rng(noise).normal(0, 0.05, pictures) < able
        depth = draw(st.integers(0, 3))
        found.append(
            Candidate(f"<{number}>", draw(st.integers(1, 2000)), depth, judged(right.tolist()), draw(st.floats(0, 1)))
        )
    return found, draw(st.integers(0, len(found) - 1))


class TestAlways:
    @given(sweeps())
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_claims_what_the_test_supports_and_no_more(self, drawn: tuple[list[Candidate], int]) -> None:
        candidates, saved = drawn
        by_name = {each.name: each for each in candidates}
        first, *rest = advise(candidates, saved)
        best = by_name[re.search(r"<\d>", first)[0]]  # type: ignore[index]
        assert best.evaluation.accuracy == max(each.evaluation.accuracy for each in candidates)
        tests = {each.name: compare(best.evaluation, each.evaluation) for each in candidates if each is not best}
        as_good = [by_name[name] for name, test in tests.items() if not test.told_apart]
        assert first.startswith(f"{best.name} is best") == (len(candidates) > 1 and not as_good)
        for sentence in rest:
            assert sentence.endswith(".")
            if match := re.match(r"(<\d>) is as good as (<\d>) ", sentence):
                assert by_name[match[2]] is best
                least = by_name[match[1]]
                assert not tests[least.name].told_apart
                assert (least.dimensions, least.depth) == min((each.dimensions, each.depth) for each in as_good)
            elif sentence == "None of the smaller ones is as good.":
                assert all(tests[each.name].told_apart for each in candidates if each.dimensions < best.dimensions)
            elif " is saved: " in sentence:
                assert sentence.startswith(candidates[saved].name)
                assert ("do not tell the two apart" in sentence) != tests[candidates[saved].name].told_apart
            else:
                assert "cannot tell" in sentence
        assert any(" is saved: " in each for each in rest) == (candidates[saved] is not best)
