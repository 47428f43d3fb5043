"""Ridge regression against leaving each picture out in earnest, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_points import blobs, training
from sklearn.linear_model import Ridge, RidgeCV

from featkit.learning import ridge
from featkit.learning.linear import LinearConfig, choose_ridge, fit_linear
from featkit.learning.training import Training

CLASSES = 3


def signs(labels: np.ndarray, classes: int = CLASSES) -> np.ndarray:
    return np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)


def planes(learned: Training, c: float) -> tuple[np.ndarray, np.ndarray]:
    """By scikit-learn in float64."""
    rows = np.concatenate(learned.views).astype(float)
    weights, labels = (np.tile(each, len(learned.views)) for each in (learned.weights, learned.labels))
    oracle = Ridge(alpha=1 / (2 * c), solver="cholesky").fit(rows, signs(labels, learned.classes), weights)
    return oracle.coef_.T, oracle.intercept_


def without(learned: Training, picture: int) -> Training:
    rows = np.delete(np.arange(len(learned.labels)), picture)
    views = tuple(view[rows] for view in learned.views)
    return Training(views, learned.labels[rows], learned.classes, learned.weights[rows], learned.seed)


def in_earnest(learned: Training, c: float) -> tuple[int, float]:
    """Pictures labelled wrong, and squares missed, by what is fitted to the others."""
    wrong, missed = 0, 0.0
    for picture, (label, weight) in enumerate(zip(learned.labels, learned.weights, strict=True)):
        weights, intercepts = planes(without(learned, picture), c)
        scores = [view[picture] @ weights + intercepts for view in learned.views]
        wrong += np.sum(scores, 0).argmax() != label
        missed += weight * sum(((each - signs(learned.labels)[picture]) ** 2).sum() for each in scores)
    return wrong, missed


def example(count: int, dimensions: int, views: int, weighted: bool) -> Training:
    """Pictures that are hard to tell apart, and perhaps their mirror images, which are like them."""
    features, labels = blobs(count, CLASSES, dimensions, spread=4)
    features += 20  # A mean that is not 0.
    random = np.random.default_rng(5)
    mirrored = [(features + random.normal(size=features.shape)).astype(np.float32)] * (views - 1)
    weights = np.where(labels == 0, 2.5, 0.5).astype(np.float32) if weighted else None
    return training(features, labels, *mirrored, weights=weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("dimensions", [5, 39, 40, 41, 80, 100])
def test_as_when_each_picture_is_left_out_in_earnest(dimensions: int, views: int, weighted: bool) -> None:
    """With more rows than features and with fewer, where the best of each λ alone is that λ."""
    learned = example(40, dimensions, views, weighted)
    total = float(np.concatenate(learned.views).var(0).sum()) * 40 * views
    choices = [1 / (2 * total * relative) for relative in (0.3, 1e-2, 1e-3, 1e-5)]
    oracle = [in_earnest(learned, c) for c in choices]

    for c, (wrong, _) in zip(choices, oracle, strict=True):
        assert ridge.choose(learned, (c,)).validated == pytest.approx(1 - wrong / 40)
    chosen = ridge.choose(learned, choices)
    assert choices[min(range(4), key=lambda place: oracle[place])] == chosen.C
    assert len({missed for _, missed in oracle}) == 4


def test_of_equals_that_which_misses_least() -> None:
    features, labels = blobs(60, CLASSES, spread=0.05)
    learned = training(features, labels)
    choices = (1e-5, 1e-3, 1e-1, 10.0)
    oracle = [in_earnest(learned, c) for c in choices]

    assert oracle[1][0] == oracle[2][0] == oracle[3][0] == 0
    assert min(zip(oracle, choices, strict=True))[1] == ridge.choose(learned, choices).C


def test_as_ridge_cv_predicts_what_it_leaves_out() -> None:
    features, labels = blobs(300, 2, 40, spread=6)
    alphas = np.geomspace(1, 1e6, 13)
    oracle = RidgeCV(alphas, scoring="r2", store_cv_results=True).fit(features.astype(float), 2.0 * labels - 1)
    right = ((oracle.cv_results_ > 0) == (labels == 1)[:, None]).mean(0)

    for place, alpha in enumerate(alphas):
        assert ridge.choose(training(features, labels), (1 / (2 * alpha),)).validated == pytest.approx(right[place])


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0])
def test_by_features_or_by_rows(views: int, c: float) -> None:
    """On both sides of where the one gives way to the other, the answer is scikit-learn's."""
    for dimensions in (59 * views, 60 * views, 60 * views + 1):
        learned = example(60, dimensions, views, weighted=True)
        weights, intercepts = planes(learned, c)
        found = ridge.fit(learned, c)
        others = blobs(50, CLASSES, dimensions, spread=4, seed=8)[0] + 20
        np.testing.assert_allclose(
            others @ found[:-1] + found[-1], others @ weights + intercepts, atol=2e-3, err_msg=str(dimensions)
        )


def test_what_is_chosen_is_what_that_c_gives() -> None:
    learned = example(80, 10, 2, weighted=True)
    head, c, validated = choose_ridge(learned, ())
    np.testing.assert_array_equal(head.weights, fit_linear(learned, LinearConfig("squares", c)).weights)
    assert 1 / 3 < validated < 1


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for dimensions in (10, 200):
        learned = example(90, dimensions, 2, weighted=True)
        whole = ridge.choose(learned, ())
        with monkeypatch.context() as patched:
            patched.setattr(ridge, "_ROWS", 37)
            patched.setattr(ridge, "_COLUMNS", 7)
            parts = ridge.choose(learned, ())
        assert (parts.C, parts.validated) == (pytest.approx(whole.C, rel=1e-4), whole.validated)
        np.testing.assert_allclose(parts.found, whole.found, atol=1e-3 * np.abs(whole.found).max())


def test_a_mapped_file(tmp_path) -> None:
    learned = example(50, 8, 1, weighted=False)
    np.save(tmp_path / "view.npy", learned.views[0])
    mapped = Training((np.load(tmp_path / "view.npy", mmap_mode="r"),), learned.labels, CLASSES, learned.weights, 0)
    np.testing.assert_array_equal(ridge.choose(mapped, ()).found, ridge.choose(learned, ()).found)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_whatever_the_scale(scale: float) -> None:
    features, labels = blobs(200, 4, 30, spread=4)
    plain, scaled = (ridge.choose(training(features * np.float32(each), labels), ()) for each in (1, scale))
    assert (scaled.C * scale**2, scaled.validated) == (pytest.approx(plain.C, rel=1e-3), plain.validated)


class TestStrangeFeatures:
    @pytest.mark.parametrize("dimensions", [1, 5, 300])
    @pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
    def test_all_equal(self, dimensions: int, value: float) -> None:
        """Nothing is to be learned but how frequent a class is."""
        labels = np.array([0] * 20 + [1] * 50 + [2] * 30)
        flat = np.full((100, dimensions), value, np.float32)
        chosen = ridge.choose(training(flat, labels), ())
        scores = flat @ chosen.found[:-1] + chosen.found[-1]
        np.testing.assert_allclose(scores, np.tile([-0.6, 0.0, -0.4], (100, 1)), atol=1e-4)
        assert chosen.validated == 0.5

    def test_a_class_without_pictures(self) -> None:
        features, labels = blobs(60, 3, spread=0.1)
        learned = Training((features,), labels, 5, np.ones(60, np.float32), 0)
        chosen = ridge.choose(learned, ())
        assert chosen.validated == 1
        np.testing.assert_allclose(features @ chosen.found[:-1, 3:] + chosen.found[-1, 3:], -1, atol=1e-4)

    @pytest.mark.parametrize("views", [1, 2])
    def test_one_picture_a_class(self, views: int) -> None:
        """None can be left out; all are learned."""
        features, labels = blobs(6, 6)
        chosen = ridge.choose(training(features, labels, *[features] * (views - 1)), ())
        assert chosen.validated == 0
        np.testing.assert_array_equal((features @ chosen.found[:-1] + chosen.found[-1]).argmax(1), labels)

    def test_the_only_picture_of_a_class_is_not_counted(self) -> None:
        features, labels = blobs(50, 2, spread=0.1)
        features, labels = np.vstack([features, 9 + features[:1]]), np.append(labels, 2)
        assert ridge.choose(training(features, labels), ()).validated == 1

    @given(
        st.integers(1, 12),
        st.integers(1, 9),
        st.integers(2, 4),
        st.integers(1, 2),
        st.sampled_from(["noise", "equal", "twice", "rank", "huge", "tiny"]),
    )
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_any_shape(self, count: int, dimensions: int, classes: int, views: int, kind: str) -> None:
        random = np.random.default_rng(count * 100 + dimensions)
        features = random.normal(size=(views, count, dimensions))
        if kind == "equal":
            features[:] = features[0, 0]
        elif kind == "twice":
            features[:, count // 2 :] = features[:, :1]
        elif kind == "rank":
            features = features[..., :1] * np.arange(1, dimensions + 1)
        elif kind in ("huge", "tiny"):
            features *= 1e15 if kind == "huge" else 1e-25
        labels = random.integers(classes, size=count)
        weights = random.uniform(0.1, 3, count).astype(np.float32)
        learned = Training(tuple(features.astype(np.float32)), labels, classes, weights, 0)
        chosen = ridge.choose(learned, ())
        assert np.isfinite(chosen.found).all()
        assert np.isfinite(chosen.C)
        assert chosen.C > 0
        assert 0 <= chosen.validated <= 1
