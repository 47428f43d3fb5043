"""Accuracy with its interval, confusion and the classes' results, against their definitions and scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.errors import UsageError
from featkit.learning.evaluation import Evaluation, evaluate
from featkit.records import to_json

ANIMALS = ("cat", "dog", "emu")

#: Labels of a few pictures, twice: true and predicted ones.
labelled = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=60),
    )
)


def judged(truth: list[int], predicted: list[int], classes: tuple[str, ...] = ANIMALS) -> Evaluation:
    """The evaluation of a classifier that is sure of what it says."""
    return evaluate(classes, [f"{number}.png" for number in range(len(truth))], truth, np.eye(len(classes))[predicted])


@pytest.fixture
def animals() -> Evaluation:
    """Of two cats and three dogs one each is taken for the other; there is no emu."""
    return judged([0, 0, 1, 1, 1], [0, 1, 1, 1, 0])


class TestCounts:
    def test_what_was_taken_for_what(self, animals: Evaluation) -> None:
        assert animals.accuracy == 0.6
        assert animals.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
        cat, dog, emu = animals.per_class
        assert (cat.label, cat.count, cat.precision, cat.recall, cat.f1) == ("cat", 2, 0.5, 0.5, 0.5)
        assert (dog.label, dog.count, dog.precision, dog.recall, dog.f1) == ("dog", 3, 2 / 3, 2 / 3, 2 / 3)
        assert (emu.label, emu.count, emu.precision, emu.recall, emu.f1) == ("emu", 0, None, None, None)

    def test_a_class_of_which_nothing_is_recognised_has_an_f1_of_0(self) -> None:
        emu = judged([2, 2, 0], [0, 1, 0]).per_class[2]
        assert (emu.precision, emu.recall, emu.f1) == (None, 0.0, 0.0)

    def test_the_largest_score_is_predicted_and_of_equals_the_first(self) -> None:
        found = evaluate(ANIMALS, ["a", "b", "c"], [0, 1, 2], [[-3, -2, -5], [0, 1, 1], [-np.inf, -np.inf, -9e9]])
        assert found.predicted.tolist() == [1, 1, 2]
        assert found.scores.dtype == np.float32

    @given(labelled)
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_as_scikit_learn_counts(self, drawn: tuple[int, list[tuple[int, int]]]) -> None:
        from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

        classes, pairs = drawn
        truth, predicted = (list(each) for each in zip(*pairs, strict=True))
        found = judged(truth, predicted, tuple("abcdef"[:classes]))
        every = range(classes)
        np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, predicted, labels=every))
        assert found.accuracy == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
        expected = precision_recall_fscore_support(truth, predicted, labels=every, zero_division=np.nan)
        for each, precision, recall, f1, count in zip(found.per_class, *expected, strict=True):
            assert each.count == count
            for ours, theirs in ((each.precision, precision), (each.recall, recall), (each.f1, f1)):
                assert (np.nan if ours is None else ours) == pytest.approx(theirs, abs=1e-12, nan_ok=True)


class TestInterval:
    @pytest.mark.parametrize(
        ("right", "pictures", "low", "high"),
        # Newcombe 1998, table I, method 3.
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published_ones(self, right: int, pictures: int, low: float, high: float) -> None:
        found = judged([0] * pictures, [0] * right + [1] * (pictures - right)).interval
        assert found == pytest.approx((low, high), abs=5e-5)

    @given(st.integers(1, 3000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_as_scipy_has_it(self, drawn: tuple[int, int]) -> None:
        from scipy.stats import binomtest

        right, count = drawn
        found = judged([0] * count, [0] * right + [1] * (count - right))
        assert found.interval == pytest.approx(binomtest(right, count).proportion_ci(method="wilson"), abs=1e-12)
        assert 0 <= found.interval[0] <= found.accuracy <= found.interval[1] <= 1


class TestMistakes:
    def test_the_most_confident_ones_come_first(self) -> None:
        scores = [[0, 1, 0], [5, 1, 0], [0, 9, -9], [3, 0, 1], [2, 3, 0]]
        found = evaluate(ANIMALS, list("abcde"), [0, 0, 2, 2, 0], scores)
        assert found.worst(10).tolist() == [2, 3, 0, 4]
        assert found.worst(2).tolist() == [2, 3]

    def test_a_true_label_that_could_never_be_given_is_the_worst(self) -> None:
        found = evaluate(("cat", "dog"), ["a", "b"], [1, 0], [[2, -3e38], [-np.inf, 0]])
        assert found.worst(5).tolist() == [1, 0]

    def test_none(self) -> None:
        assert judged([0, 1], [0, 1]).worst(5).tolist() == []


class TestRecord:
    def test_is_plain_and_holds_what_is_added(self, animals: Evaluation) -> None:
        record = animals.record(train=20, seconds={"fit": 1.5})
        assert json.loads(to_json(record)) == record
        assert list(record)[:3] == ["v", "type", "accuracy"]
        assert record["type"] == "evaluation"
        assert record["interval"] == list(animals.interval)
        assert (record["train"], record["test"], record["seconds"]) == (20, 5, {"fit": 1.5})
        assert record["classes"] == list(ANIMALS)
        assert record["confusion"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
        assert record["per_class"][0] == {"label": "cat", "count": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
        assert record["per_class"][2] == {"label": "emu", "count": 0, "precision": None, "recall": None, "f1": None}

    def test_what_is_added_may_replace(self, animals: Evaluation) -> None:
        assert animals.record(test="photos/test")["test"] == "photos/test"


class TestRefusal:
    def test_nothing_to_evaluate_on(self) -> None:
        with pytest.raises(UsageError, match="no picture to evaluate on"):
            evaluate(ANIMALS, [], [], np.empty((0, 3)))

    @pytest.mark.parametrize(
        ("truth", "scores", "complaint"),
        [
            ([0, 3], [[0, 1, 0]] * 2, "truth names classes that do not exist"),
            ([0, -1], [[0, 1, 0]] * 2, "truth names classes that do not exist"),
            ([0], [[0, 1, 0]] * 2, r"truth has the shape \(1,\)"),
            ([0, 1], [[0, 1]] * 2, r"scores are \(2, 2\), for 2 pictures and 3 classes"),
            ([0, 1], [[0, 1, 0], [0, np.nan, 0]], "scores must be numbers"),
            ([0, 1], [[0, 1, 0], [-np.inf] * 3], "scores must be numbers"),
        ],
    )
    def test_what_does_not_fit_together(self, truth: list[int], scores: list[list[float]], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            evaluate(ANIMALS, ["a", "b"], truth, scores)
