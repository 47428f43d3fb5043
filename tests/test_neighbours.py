"""The nearest neighbours against scikit-learn's, which looks at each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_points import blobs, training
from sklearn.neighbors import KNeighborsClassifier

from featkit.errors import UsageError
from featkit.learning.neighbours import Neighbours, NeighboursConfig, fit_neighbours


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
