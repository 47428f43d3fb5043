"""Linear heads against scikit-learn's: the same minimum, and the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_points import blobs, training
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC

from featkit.errors import UsageError
from featkit.learning import newton
from featkit.learning.linear import LOSSES, Linear, LinearConfig, fit_linear, sweep_linear
from featkit.learning.newton import Logistic, Problem, SquaredHinge, minimise, softmax

FEATURES, LABELS = blobs(600)
OTHERS, THEIR_LABELS = blobs(400, seed=1)


def objective(head: Linear, c: float, features: np.ndarray, labels: np.ndarray) -> float:
    """What LinearSVC and LogisticRegression minimise, without a price on the intercepts."""
    scores = features.astype(float) @ head.weights + head.intercepts
    right = scores[np.arange(len(labels)), labels]
    if head.loss == "hinge":
        signs = np.where(np.arange(scores.shape[1]) == labels[:, None], 1, -1)
        losses = np.maximum(0, 1 - signs * scores) ** 2
    else:
        losses = np.log(np.exp(scores - right[:, None]).sum(1))
    return float(0.5 * (head.weights.astype(float) ** 2).sum() + c * losses.sum())


class TestSquaredHinge:
    @pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
    def test_the_minimum_is_no_higher_than_linear_svc_s(self, c: float) -> None:
        # A large intercept_scaling makes the price on LinearSVC's intercepts small.
        oracle = LinearSVC(C=c, tol=1e-6, max_iter=50_000, intercept_scaling=30, random_state=0).fit(FEATURES, LABELS)
        theirs = Linear("hinge", oracle.coef_.T, oracle.intercept_)
        ours = fit_linear(training(FEATURES, LABELS), LinearConfig("hinge", c))
        assert objective(ours, c, FEATURES, LABELS) <= 1.001 * objective(theirs, c, FEATURES, LABELS)
        assert (ours.scores(OTHERS).argmax(1) == theirs.scores(OTHERS).argmax(1)).mean() > 0.99

    def test_a_weight_of_two_is_the_picture_twice(self) -> None:
        twice = np.concatenate([np.arange(600), np.arange(100)])
        weights = np.ones(600, np.float32)
        weights[:100] = 2
        weighted = fit_linear(training(FEATURES, LABELS, weights=weights), LinearConfig())
        repeated = fit_linear(training(FEATURES[twice], LABELS[twice]), LinearConfig())
        np.testing.assert_allclose(weighted.scores(OTHERS), repeated.scores(OTHERS), atol=5e-3)

    def test_a_second_view_is_more_pictures(self) -> None:
        views = fit_linear(training(FEATURES[:300], LABELS[:300], -FEATURES[:300]), LinearConfig())
        both = np.concatenate([FEATURES[:300], -FEATURES[:300]]), np.tile(LABELS[:300], 2)
        np.testing.assert_allclose(
            views.scores(OTHERS), fit_linear(training(*both), LinearConfig()).scores(OTHERS), atol=5e-3
        )


class TestLogistic:
    @pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
    def test_as_logistic_regression(self, c: float) -> None:
        oracle = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(FEATURES, LABELS)
        ours = fit_linear(training(FEATURES, LABELS), LinearConfig("logistic", c))
        np.testing.assert_allclose(softmax(ours.scores(OTHERS)), oracle.predict_proba(OTHERS), atol=0.01)


class TestSquares:
    @pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
    def test_as_ridge_classifier(self, c: float) -> None:
        oracle = RidgeClassifier(alpha=1 / (2 * c)).fit(FEATURES, LABELS)
        ours = fit_linear(training(FEATURES, LABELS), LinearConfig("squares", c))
        np.testing.assert_allclose(ours.scores(OTHERS), oracle.decision_function(OTHERS), atol=1e-3)


class TestNewton:
    @given(
        st.integers(20, 200),
        st.integers(2, 5),
        st.integers(1, 12),
        st.floats(-3, 3).map(lambda power: 10.0**power),
        st.sampled_from([SquaredHinge(), Logistic()]),
    )
    @settings(max_examples=40, deadline=None, derandomize=True)
    def test_the_gradient_vanishes_at_what_it_finds(
        self, count: int, classes: int, dimensions: int, regularisation: float, loss: SquaredHinge | Logistic
    ) -> None:
        features, labels = blobs(count, classes, dimensions)
        problem = Problem((features,), labels, np.ones(count, np.float32), classes, loss)
        found = minimise(problem, regularisation).astype(float)

        def gradient(weights: np.ndarray) -> np.ndarray:
            scores = (features @ weights[:-1] + weights[-1]).astype(np.float32)
            slope = loss.gradient(scores, labels).astype(float)
            return np.vstack([features.T @ slope + regularisation * weights[:-1], slope.sum(0)])

        assert np.linalg.norm(gradient(found)) <= 0.02 * np.linalg.norm(gradient(np.zeros_like(found)))

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = fit_linear(training(FEATURES, LABELS), LinearConfig())
        monkeypatch.setattr("featkit.learning.newton._ROWS", 37)
        np.testing.assert_allclose(
            fit_linear(training(FEATURES, LABELS), LinearConfig()).scores(OTHERS), whole.scores(OTHERS), atol=5e-3
        )

    @pytest.mark.parametrize("loss", ["hinge", "logistic"])
    def test_one_c_after_another_is_each_alone(self, loss: str) -> None:
        choices = (0.01, 0.1, 1.0, 10.0)
        learned = training(FEATURES, LABELS)
        for c, head in zip(choices, sweep_linear(learned, loss, choices), strict=True):
            alone = objective(fit_linear(learned, LinearConfig(loss, c)), c, FEATURES, LABELS)
            assert objective(head, c, FEATURES, LABELS) == pytest.approx(alone, rel=1e-3)

    def test_a_sweep_sets_out_from_what_it_has_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = []
        honest = newton._newton_direction

        def counted(*arguments: object) -> tuple:
            steps.append(1)
            return honest(*arguments)

        monkeypatch.setattr(newton, "_newton_direction", counted)
        list(sweep_linear(training(FEATURES, LABELS), "logistic", (1.0, 1.0)))
        twice = len(steps)
        fit_linear(training(FEATURES, LABELS), LinearConfig("logistic", 1.0))
        assert twice == len(steps) - twice + 1

    def test_scores_far_apart_give_no_probability_that_is_slow(self) -> None:
        """Matrix products of float32 below the smallest normal one take five times as long."""
        shares = softmax(np.array([[0, -90, -200], [1e4, -1e4, 0]], np.float32))
        assert shares.min() > np.finfo(np.float32).tiny
        np.testing.assert_allclose(shares, [[1, 0, 0], [1, 0, 0]], atol=1e-15)

    @pytest.mark.parametrize("loss", ["hinge", "logistic", "squares"])
    def test_features_that_say_nothing(self, loss: str) -> None:
        flat = np.zeros((40, 3), np.float32)
        head = fit_linear(training(flat, np.arange(40) % 4), LinearConfig(loss))
        scores = head.scores(flat)
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores, scores[0, 0], atol=1e-4)

    @pytest.mark.parametrize("scale", [1e-4, 1e4])
    def test_whatever_the_scale(self, scale: float) -> None:
        head = fit_linear(training(FEATURES * np.float32(scale), LABELS), LinearConfig("hinge", 1 / scale**2))
        plain = fit_linear(training(FEATURES, LABELS), LinearConfig("hinge", 1))
        found = head.scores(OTHERS * np.float32(scale))
        assert (found.argmax(1) == plain.scores(OTHERS).argmax(1)).mean() > 0.99


class TestParts:
    def test_they_make_it_again(self) -> None:
        head = fit_linear(training(FEATURES, LABELS), LinearConfig())
        np.testing.assert_array_equal(Linear.from_parts(*head.parts()).scores(OTHERS), head.scores(OTHERS))

    def test_that_do_not_fit_together(self) -> None:
        config, arrays = fit_linear(training(FEATURES, LABELS), LinearConfig()).parts()
        with pytest.raises(ValueError, match="fit together"):
            Linear.from_parts(config, {**arrays, "intercepts": arrays["intercepts"][:-1]})


@pytest.mark.parametrize(
    "wrong", [{"C": 0.0}, {"C": -1.0}, {"C": float("nan")}, {"C": float("inf")}, {"loss": "absolute"}]
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(UsageError):
        LinearConfig(**wrong)


@pytest.mark.parametrize("c", [1e-8, 1e5, 1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_any_c_of_features_that_say_the_same(loss: str, c: float) -> None:
    """Of rank 6, in 40 dimensions."""
    features, labels = blobs(2000, 3, dimensions=6)
    many = features @ np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    head = fit_linear(training(many, labels), LinearConfig(loss, c))
    assert np.isfinite(head.scores(many)).all()
    assert c < 1 or (head.scores(many).argmax(1) == labels).mean() > 0.9
