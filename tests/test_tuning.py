"""How the one setting of a classifier is chosen, on pictures that are held out of those to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from learned_points import blobs, rings, training
from sklearn.linear_model import LogisticRegression

from featkit.learning import heads, tuning
from featkit.learning.heads import CLASSIFIERS, Tuned
from featkit.learning.network import NetworkConfig
from featkit.learning.training import Training
from featkit.learning.tuning import choose_by_folds


@dataclass(frozen=True)
class _Nearest:
    """Gives a picture the label of the learned one that is nearest, `off` classes further."""

    learned: Training
    off: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        distances = ((features[:, None] - self.learned.views[0]) ** 2).sum(2)
        labels = self.learned.labels[distances.argmin(1)] + self.off
        return np.eye(self.learned.classes, dtype=np.float32)[labels % self.learned.classes]


class TestFolds:
    @staticmethod
    def parts(learned: Training) -> list[Training]:
        """What is learned from when each fold is held out."""
        seen: list[Training] = []

        def sweep(part: Training, choices: Sequence[float]) -> Iterator[_Nearest]:
            seen.append(part)
            return (_Nearest(part, int(each)) for each in choices)

        choose_by_folds(learned, (0.0,), sweep)
        return seen

    def test_the_best_of_equals_the_first(self) -> None:
        features, labels = blobs(60, 3, spread=0.1)

        def sweep(part: Training, choices: Sequence[float]) -> Iterator[_Nearest]:
            return (_Nearest(part, int(each)) for each in choices)

        assert choose_by_folds(training(features, labels), (1.0, 3.0, 0.0, 2.0), sweep) == (3.0, 1.0)
        assert choose_by_folds(training(features, labels), (1.0, 2.0), sweep) == (1.0, 0.0)

    def test_each_picture_is_held_out_once(self) -> None:
        features, labels = blobs(60, 3)
        parts = self.parts(training(features, labels, -features))
        rows = [{row.tobytes() for row in part.views[0]} for part in parts]

        held_out = [{row.tobytes() for row in features} - each for each in rows]
        assert sum(map(len, held_out)) == len(set.union(*held_out)) == 60
        assert [np.bincount(part.labels).tolist() for part in parts] == [[13] * 3, [13] * 3, [14] * 3]
        assert all((part.views[1] == -part.views[0]).all() for part in parts)

    def test_the_only_picture_of_a_class_is_always_learned_from(self) -> None:
        features, labels = blobs(30, 2, spread=0.1)
        lonely = training(np.vstack([features, -9 * features[:1]]), np.append(labels, 2))
        assert [(part.labels == 2).sum() for part in self.parts(lonely)] == [1, 1, 1]
        assert choose_by_folds(lonely, (0.0,), lambda part, _: [_Nearest(part, 0)]) == (0.0, 1.0)

    def test_no_more_pictures_than_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tuning, "_LARGEST_ROWS", 60)
        features, labels = blobs(600, 3)
        assert [len(part.labels) for part in self.parts(training(features, labels))] == [39, 39, 42]

    def test_nothing_to_hold_out(self) -> None:
        features, labels = blobs(3, 3)
        assert choose_by_folds(training(features, labels), (5.0, 7.0), lambda *_: []) == (5.0, 0.0)


@pytest.mark.parametrize("name", CLASSIFIERS)
class TestEveryClassifier:
    @pytest.fixture(autouse=True)
    def _small_networks(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if name == "mlp":
            pytest.importorskip("torch")
            small = NetworkConfig(members=1, hidden=(32,), epochs=1, least_steps=100)
            monkeypatch.setattr(heads, "NetworkConfig", lambda: small)

    def test_tells_how_often_it_would_be_right(self, name: str) -> None:
        """What is held out says the same as pictures that it has never seen."""
        features, labels = blobs(400, 3, spread=2.5)
        others, theirs = blobs(2000, 3, spread=2.5, seed=1)
        classifier = CLASSIFIERS[name]
        tuned = classifier.tune(training(features, labels), classifier.choices)

        right = (tuned.head.scores(others).argmax(1) == theirs).mean()
        assert tuned.validated == pytest.approx(right, abs=0.05)
        assert 0.6 < right < 0.95
        self._is_fitted_with_what_is_chosen(name, tuned, training(features, labels), others)

    def _is_fitted_with_what_is_chosen(self, name: str, tuned: Tuned, learned: Training, others: np.ndarray) -> None:
        classifier = CLASSIFIERS[name]
        assert (tuned.setting is None) == (classifier.setting is None)
        assert not classifier.choices or tuned.setting in classifier.choices
        again = classifier.fit(learned, tuned.setting)
        np.testing.assert_array_equal(tuned.head.scores(others), again.scores(others))

    def test_of_one_choice_that(self, name: str) -> None:
        if CLASSIFIERS[name].setting is None:
            pytest.skip("there is nothing to choose")
        features, labels = blobs(60, 3)
        tuned = CLASSIFIERS[name].tune(training(features, labels), (4.0,))
        assert tuned.setting == pytest.approx(4)

    @pytest.mark.parametrize("count", [2, 3, 7])
    def test_few_pictures(self, name: str, count: int) -> None:
        """One a class, two of one, or features that say nothing: an answer, and no warning."""
        features, labels = blobs(count, 2)
        for learned in (features, np.ones_like(features)):
            tuned = CLASSIFIERS[name].tune(training(learned, labels), ())
            assert np.isfinite(tuned.head.scores(features)).all()
            assert 0 <= tuned.validated <= 1
            assert count > 2 or tuned.validated == 0


def test_choices_are_tried_from_the_smallest() -> None:
    """Of equals the smallest C is chosen, in whatever order they are given."""
    features, labels = blobs(90, 3, spread=0.05)
    for name in ("svm", "linear-svm", "logreg"):
        tuned = CLASSIFIERS[name].tune(training(features, labels), (25.0, 1.0, 5.0))
        assert (tuned.setting, tuned.validated) == (1.0, 1.0)


def test_a_kernel_is_told_from_a_plane() -> None:
    features, labels = rings(120)
    validated = {name: CLASSIFIERS[name].tune(training(features, labels), ()).validated for name in ("svm", "logreg")}
    assert validated["svm"] > 0.95
    assert validated["logreg"] < 0.7


def test_a_sweep_of_c_is_scikit_learn_s() -> None:
    """On the same folds."""
    features, labels = blobs(150, 3, spread=3)
    learned, choices = training(features, labels), (0.001, 0.03, 1.0)
    rows, fold = tuning._folds(learned)
    right = dict.fromkeys(choices, 0)
    for number in range(3):
        part, other = rows[fold != number], rows[fold == number]
        for c in choices:
            oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(features[part], labels[part])
            right[c] += (oracle.predict(features[other]) == labels[other]).sum()
    tuned = CLASSIFIERS["logreg"].tune(learned, choices)
    assert tuned.setting == max(choices, key=lambda c: right[c])
    assert tuned.validated == pytest.approx(max(right.values()) / 150, abs=0.01)
