"""The nearest neighbours against scikit-learn's, which looks at each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_points import blobs, training
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from featkit.errors import UsageError
from featkit.learning import neighbours
from featkit.learning.neighbours import Neighbours, NeighboursConfig, choose_neighbours, fit_neighbours


@given(st.integers(2, 150), st.integers(1, 20), st.integers(2, 5))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_votes_as_scikit_learn_counts_them(count: int, neighbours: int, classes: int) -> None:
    features, labels = blobs(max(count, classes), classes)
    others, _ = blobs(60, classes, seed=1)
    unit, other_unit = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (features, others))
    used = min(neighbours, len(features))
    oracle = KNeighborsClassifier(used, weights="distance", algorithm="brute").fit(unit.astype(float), labels)
    scores = fit_neighbours(training(features, labels), NeighboursConfig(neighbours)).scores(others)
    shares = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, oracle.predict_proba(other_unit.astype(float)), atol=1e-2)


def test_a_training_picture_is_its_own_neighbour() -> None:
    features, labels = blobs(100, spread=5)
    scores = fit_neighbours(training(features, labels), NeighboursConfig(5)).scores(features)
    np.testing.assert_array_equal(scores.argmax(1), labels)


def test_weights_count() -> None:
    features, labels = blobs(100, 2, spread=5)
    weights = np.where(labels == 0, 100, 0.01).astype(np.float32)
    head = fit_neighbours(training(features, labels, weights=weights), NeighboursConfig(20))
    assert (head.scores(blobs(50, 2, seed=1)[0]).argmax(1) == 0).all()


def test_parts_make_it_again() -> None:
    features, labels = blobs(50)
    head = fit_neighbours(training(features, labels), NeighboursConfig())
    config, arrays = head.parts()
    np.testing.assert_array_equal(Neighbours.from_parts(config, arrays).scores(features), head.scores(features))
    with pytest.raises(ValueError, match="fit together"):
        Neighbours.from_parts(config, {**arrays, "labels": arrays["labels"] + 10})


def test_no_neighbours_are_too_few() -> None:
    with pytest.raises(UsageError):
        NeighboursConfig(0)


class TestHowMany:
    """Vote, of those that label the most pictures right whose own vote does not count."""

    FEATURES, LABELS = blobs(90, 3, spread=3.5)

    @pytest.mark.parametrize("views", [1, 2])
    def test_as_when_each_picture_is_left_out_in_earnest(self, views: int) -> None:
        mirrored = self.FEATURES + np.random.default_rng(1).normal(size=self.FEATURES.shape).astype(np.float32)
        weights = np.where(self.LABELS == 0, 1.5, 0.8).astype(np.float32)
        learned = training(self.FEATURES, self.LABELS, *[mirrored][: views - 1], weights=weights)
        right = dict.fromkeys((1, 3, 5, 10, 20, 50), 0)
        for picture in range(90):
            others = np.delete(np.arange(90), picture)
            part = training(self.FEATURES[others], self.LABELS[others], weights=weights[others])
            for count in right:
                head = fit_neighbours(part, NeighboursConfig(count))
                scores = sum(head.scores(view[picture : picture + 1]) for view in learned.views)
                right[count] += np.argmax(scores) == self.LABELS[picture]

        for count, many in right.items():
            assert choose_neighbours(learned, (count,)) == (count, many / 90)
        best = max(right.values())
        assert len(set(right.values())) > 1
        assert choose_neighbours(learned, ()) == (min(n for n, many in right.items() if many == best), best / 90)

    def test_as_scikit_learn_leaves_out(self) -> None:
        unit = self.FEATURES / np.linalg.norm(self.FEATURES, axis=1, keepdims=True)
        oracle = KNeighborsClassifier(7, weights="distance", algorithm="brute")
        right = cross_val_score(oracle, unit.astype(float), self.LABELS, cv=LeaveOneOut()).mean()
        assert choose_neighbours(training(self.FEATURES, self.LABELS), (7,)) == (7, right)

    def test_in_blocks_and_of_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        learned = training(self.FEATURES, self.LABELS)
        whole = choose_neighbours(learned, ())
        monkeypatch.setattr(neighbours, "_ROWS", 7)
        assert choose_neighbours(learned, ()) == whole
        monkeypatch.setattr(neighbours, "_LARGEST_QUERIES", 40)
        assert (choose_neighbours(learned, (5,))[1] * 40) % 1 == pytest.approx(0)

    def test_of_choices_that_are_too_many(self) -> None:
        features, labels = blobs(8, 2, spread=0.1)
        assert choose_neighbours(training(features, labels), (20, 3, 10)) == (3, 1.0)
        # All seven others vote, four of which are of the other class, far away.
        assert choose_neighbours(training(features, labels), (20, 8)) == (8, 1.0)

    def test_pictures_alone_in_their_class_are_not_asked_for(self) -> None:
        features, labels = blobs(40, 2, spread=0.1)
        more = training(np.vstack([features, -5 * features[:1]]), np.append(labels, 2))
        assert choose_neighbours(more, ())[1] == 1
        assert choose_neighbours(training(features[:1], labels[:1]), ()) == (1, 0.0)
        assert choose_neighbours(training(features[:3], np.arange(3)), ()) == (1, 0.0)

    def test_features_that_are_all_equal(self) -> None:
        chosen, validated = choose_neighbours(training(np.ones((30, 4), np.float32), np.arange(30) % 2), ())
        assert chosen in neighbours.CHOICES
        assert 0 <= validated <= 1
