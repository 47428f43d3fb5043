"""Models as scikit-learn's objects: the same labels from the same vectors, and nothing else needed for them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, TOLERANCE
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

import featkit.classical
from featkit.errors import UsageError
from featkit.extraction.makers import Maker, make
from featkit.images import fit_to, load
from featkit.learning.export import to_sklearn
from featkit.learning.kernel import KernelConfig, fit_kernel
from featkit.learning.linear import LinearConfig, fit_linear
from featkit.learning.model import Model, load_model
from featkit.learning.neighbours import NeighboursConfig, fit_neighbours
from featkit.learning.network import Network, NetworkConfig, fit_network
from featkit.learning.newton import softmax
from featkit.learning.reduction import ReductionConfig, fit_reduction
from featkit.learning.training import Training

# As featkit orders them; scikit-learn has "10" before "2".
CLASSES = ("2", "10", "cat", "été")
SIDE = 32

HEADS = {
    "linear-svm": lambda training: fit_linear(training, LinearConfig("hinge")),
    "logreg": lambda training: fit_linear(training, LinearConfig("logistic")),
    "ridge": lambda training: fit_linear(training, LinearConfig("squares")),
    "svm": lambda training: fit_kernel(training, KernelConfig()),
    "svm of landmarks": lambda training: fit_kernel(training, KernelConfig(landmarks=30, exact_up_to=0)),
    "knn": lambda training: fit_neighbours(training, NeighboursConfig(5)),
    "mlp": lambda training: fit_network(training, NetworkConfig(hidden=(32,), epochs=1, least_steps=60, batch=40)),
    "mlp of two layers": lambda training: fit_network(
        training, NetworkConfig(hidden=(24, 16), epochs=1, least_steps=60, batch=40)
    ),
}
DECIDING = [name for name in HEADS if name not in ("knn", "mlp", "mlp of two layers")]
LINEAR = {"linear-svm": LinearSVC, "logreg": LogisticRegression, "ridge": RidgeClassifier}


@functools.cache
def maker() -> Maker:
    return make("hog", (SIDE, SIDE), lambda: np.zeros((0, SIDE, SIDE, 3), np.uint8))


@functools.cache
def vectors(seed: int = 0, count: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """float32 N×D of stripes under noise, and labels 0..3: the classes differ in the stripes' width."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % len(CLASSES))
    stripes = np.sin(np.arange(SIDE) / (1.5 + labels[:, None]) + random.uniform(0, 6, (count, 1)))
    pictures = 128 + 25 * stripes[:, None, :, None] + random.normal(0, 25, (count, SIDE, SIDE, 3))
    return maker()(pictures.clip(0, 255).astype(np.uint8)), labels


@functools.cache
def model(head: str, classes: int = 4, reduce: str = "pca:20", whiten: bool = False) -> Model:
    features, labels = vectors()
    features, labels = features[labels < classes], labels[labels < classes]
    reduction = fit_reduction([features], labels, maker().blocks, ReductionConfig.parse(reduce, whiten))
    training = Training((reduction(features),), labels, classes, np.ones(len(labels), np.float32), 0)
    return Model(
        CLASSES[:classes], maker(), reduction, HEADS[head](training), False, {"reduce": reduce, "whiten": whiten}
    )


def in_their_order(scores: np.ndarray, classes: int) -> np.ndarray:
    """Columns as scikit-learn sorts classes; of two the second less the first."""
    scores = scores[:, np.argsort(CLASSES[:classes])]
    return scores[:, 1] - scores[:, 0] if classes == 2 else scores


def assert_the_same(found: Model, pipeline: Pipeline) -> None:
    """Labels wherever float32 can tell."""
    features, _ = vectors(1, 400)
    scores = found.scores([features])
    ranked = np.sort(scores, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > TOLERANCE["float32"] * 10 * np.abs(scores).max()
    assert clear.mean() > 0.98
    expected = np.array(found.classes)[scores.argmax(1)]
    assert len(set(expected)) == len(found.classes)
    np.testing.assert_array_equal(pipeline.predict(features)[clear], expected[clear])


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("head", HEADS)
def test_the_same_labels(head: str, classes: int) -> None:
    found = model(head, classes)
    pipeline = to_sklearn(found)
    check_is_fitted(pipeline)
    assert list(pipeline.classes_) == sorted(found.classes)
    assert pipeline.n_features_in_ == sum(maker().blocks)
    assert_the_same(found, pipeline)


@pytest.mark.parametrize("head", HEADS)
def test_more_classes_than_scikit_learn_expects(head: str) -> None:
    """It warns of a regression where classes are more than half as many as more than twenty rows."""
    features, _ = vectors()
    features, labels = features[:30], np.arange(30)
    reduction = fit_reduction([features], labels, maker().blocks, ReductionConfig("pca", 20))
    training = Training((reduction(features),), labels, 30, np.ones(30, np.float32), 0)
    classes = tuple(f"person {number}" for number in range(30))
    found = Model(classes, maker(), reduction, HEADS[head](training), False, {"reduce": "pca:20"})
    expected = [classes[best] for best in found.scores([features]).argmax(1)]
    assert list(to_sklearn(found).predict(features)) == expected


def test_fewer_pictures_than_neighbours() -> None:
    found = model("knn")
    few = replace(found.head, features=found.head.features[:3], labels=np.arange(3), weights=np.ones(3, np.float32))
    features, _ = vectors(1, 400)
    found = replace(found, head=few)
    expected = [CLASSES[best] for best in found.scores([features]).argmax(1)]
    assert list(to_sklearn(found).predict(features)) == expected


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("reduce", "whiten"), [("none", False), ("none", True), ("pca:20", True), ("lda", False)])
def test_whatever_the_reduction(head: str, reduce: str, whiten: bool) -> None:
    found = model(head, 4, reduce, whiten)
    pipeline = to_sklearn(found)
    assert_the_same(found, pipeline)
    assert not any(isinstance(step, PCA) for step in pipeline)


class TestScores:
    @pytest.mark.parametrize("classes", [2, 4])
    @pytest.mark.parametrize("head", DECIDING)
    def test_are_the_model_s(self, head: str, classes: int) -> None:
        features, _ = vectors(1, 400)
        found = model(head, classes)
        expected = in_their_order(found.scores([features]), classes)
        if classes == 2 and head != "logreg":
            expected = expected / 2
        decided = to_sklearn(found).decision_function(features)
        np.testing.assert_allclose(decided, expected, atol=1e-4 * np.abs(expected).max())

    @pytest.mark.parametrize("classes", [2, 4])
    @pytest.mark.parametrize("head", ["logreg", "mlp", "mlp of two layers"])
    def test_become_probabilities(self, head: str, classes: int) -> None:
        features, _ = vectors(1, 400)
        found = model(head, classes)
        expected = softmax(found.scores([features]))[:, np.argsort(found.classes)]
        np.testing.assert_allclose(to_sklearn(found).predict_proba(features), expected, atol=1e-4)

    @pytest.mark.parametrize("classes", [2, 4])
    def test_probabilities_of_neighbours_are_shares_of_votes(self, classes: int) -> None:
        features, _ = vectors(1, 400)
        found = model("knn", classes)
        votes = found.scores([features])[:, np.argsort(found.classes)]
        expected = votes / votes.sum(1, keepdims=True)
        np.testing.assert_allclose(to_sklearn(found).predict_proba(features), expected, atol=1e-4)

    @pytest.mark.parametrize("head", [*DECIDING, "mlp"])
    def test_of_a_mirrored_model_are_the_mean_of_both_views(self, head: str) -> None:
        views = [vectors(1, 400)[0], vectors(2, 400)[0]]
        found = replace(model(head), mirrored=True)
        pipeline = to_sklearn(found)
        scores = pipeline.predict_log_proba if head == "mlp" else pipeline.decision_function
        expected = in_their_order(found.scores(views), 4)
        np.testing.assert_allclose(sum(map(scores, views)) / 2, expected, atol=1e-4 * np.abs(expected).max())


class TestTwoClasses:
    """scikit-learn has one row for them, and featkit two; so of LogisticRegression's C it has half."""

    @pytest.mark.parametrize("head", LINEAR)
    def test_decide_as_if_scikit_learn_had_learned_them(self, head: str) -> None:
        features, labels = vectors()
        few = labels < 2
        found = model(head, 2)
        parameters = {
            "linear-svm": {"intercept_scaling": 30},
            "logreg": {"C": 2, "solver": "newton-cg"},
            "ridge": {"alpha": 0.5},
        }[head]
        theirs = LINEAR[head](**parameters).fit(found.reduction(features[few]), np.array(CLASSES)[labels[few]])
        others, _ = vectors(1, 400)
        np.testing.assert_allclose(
            to_sklearn(found).decision_function(others), theirs.decision_function(found.reduction(others)), atol=0.02
        )


class TestReduction:
    def test_principal_components_are_those_of_scaled_blocks(self) -> None:
        features, _ = vectors()
        others, _ = vectors(1, 400)
        pipeline = to_sklearn(model("logreg"))
        assert list(pipeline.named_steps) == ["scaler", "pca", "classifier"]
        scaled = pipeline["scaler"].transform(features)
        ends = np.cumsum(maker().blocks)
        for block in np.split(scaled, ends[:-1], axis=1):
            assert block.var(0).sum() == pytest.approx(1, abs=1e-3)
        theirs = PCA(20, svd_solver="full").fit(scaled)
        for found, expected in (
            (pipeline["pca"].transform, theirs.transform),
            (
                lambda rows: pipeline["pca"].inverse_transform(pipeline["pca"].transform(rows)),
                lambda rows: theirs.inverse_transform(theirs.transform(rows)),
            ),
        ):
            rows = pipeline["scaler"].transform(others)
            np.testing.assert_allclose(np.abs(found(rows)), np.abs(expected(rows)), atol=1e-3)

    def test_and_back_they_come_near_the_vectors(self) -> None:
        features, _ = vectors()
        found = model("logreg", reduce="pca:79")
        reduction = to_sklearn(found)[:-1]
        np.testing.assert_allclose(reduction.inverse_transform(reduction.transform(features)), features, atol=1e-3)

    def test_a_block_that_does_not_vary(self) -> None:
        features, labels = vectors()
        features = features.copy()
        features[:, -maker().blocks[-1] :] = 0.25
        reduction = fit_reduction([features], labels, maker().blocks, ReductionConfig("pca", 20))
        head = HEADS["logreg"](Training((reduction(features),), labels, 4, np.ones(len(labels), np.float32), 0))
        pipeline = to_sklearn(Model(CLASSES, maker(), reduction, head, False, {"reduce": "pca:20"}))
        np.testing.assert_array_equal(pipeline["scaler"].scale_[-maker().blocks[-1] :], 1)
        np.testing.assert_allclose(pipeline[:-1].transform(features), reduction(features), atol=1e-5)

    def test_one_component(self) -> None:
        found = model("logreg", reduce="pca:1")
        features, _ = vectors()
        np.testing.assert_allclose(to_sklearn(found)[:-1].transform(features), found.reduction(features), atol=1e-5)


class TestPipeline:
    def test_is_where_the_documentation_says(self) -> None:
        assert featkit.classical.to_sklearn is to_sklearn
        with pytest.raises(AttributeError, match=r"featkit\.classical.*to_torch"):
            _ = featkit.classical.to_torch

    @pytest.mark.parametrize("head", HEADS)
    def test_nothing_in_it_is_featkit_s(self, head: str) -> None:
        for _, step in to_sklearn(model(head)).steps:
            made_by = [type(step), *(value for value in vars(step).values() if callable(value))]
            assert {each.__module__.split(".")[0] for each in made_by} <= {"sklearn", "numpy"}

    @pytest.mark.parametrize("head", HEADS)
    def test_its_clone_has_its_settings_and_is_to_be_fitted(self, head: str) -> None:
        pipeline = to_sklearn(model(head))
        again = clone(pipeline)
        assert str(again) == str(pipeline)
        with pytest.raises(NotFittedError):
            check_is_fitted(again)

    @pytest.mark.parametrize("head", HEADS)
    def test_it_takes_doubles_and_lists_and_one_row(self, head: str) -> None:
        features, _ = vectors(1, 400)
        pipeline = to_sklearn(model(head))
        expected = pipeline.predict(features[:1])
        assert expected.shape == (1,)
        for same in (features[:1].astype(float), features[:1].tolist()):
            np.testing.assert_array_equal(pipeline.predict(same), expected)

    def test_vectors_of_another_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="features"):
            to_sklearn(model("svm")).predict(vectors()[0][:, 1:])

    @pytest.mark.parametrize("head", HEADS)
    def test_of_a_model_file(self, head: str, tmp_path: Path) -> None:
        model(head).save(tmp_path / "model.fk")
        assert_the_same(model(head), to_sklearn(load_model(tmp_path / "model.fk")))

    def test_pictures_in_front(self) -> None:
        found = model("svm")
        pixels = [load(path).pixels for path in sorted(SAMPLES.glob("co*.*g")) + sorted(SAMPLES.glob("ch*.*g"))]
        pictures = np.stack([fit_to(each, maker().size) for each in pixels])
        labels = make_pipeline(FunctionTransformer(found.source), to_sklearn(found)).predict(pictures)
        scores = found.scores([found.source(pictures)])
        assert list(labels) == [found.classes[best] for best in scores.argmax(1)]

    def test_numpy_s_own_generator_is_left_alone(self) -> None:
        _, keys, *place = np.random.get_state()
        for head in HEADS:
            to_sklearn(model(head))
        _, keys_after, *place_after = np.random.get_state()
        np.testing.assert_array_equal(keys_after, keys)
        assert place_after == place

    def test_a_network_that_goes_on_learning_leaves_the_model_as_it_was(self) -> None:
        features, labels = vectors()
        found = model("mlp")
        before = found.scores([features])
        pipeline = to_sklearn(found)
        pipeline["classifier"].partial_fit(pipeline[:-1].transform(features), np.array(CLASSES)[labels])
        assert np.abs(pipeline.predict_log_proba(features) - in_their_order(before, 4)).max() > 1e-3
        np.testing.assert_array_equal(found.scores([features]), before)


def test_a_network_without_hidden_layers() -> None:
    head = model("logreg").head
    found = replace(model("logreg"), head=Network(((head.weights, head.intercepts),)))
    assert_the_same(found, to_sklearn(found))


class TestRefusals:
    def test_heads_that_it_does_not_know(self) -> None:
        class Oracle:
            pass

        with pytest.raises(UsageError, match="Oracle"):
            to_sklearn(replace(model("svm"), head=Oracle()))

    def test_neighbours_whose_classes_have_weights(self) -> None:
        found = model("knn")
        weights = np.where(found.head.labels == 0, 2, 1).astype(np.float32)
        with pytest.raises(UsageError, match="weights"):
            to_sklearn(replace(found, head=replace(found.head, weights=weights)))
        equal = np.full(len(weights), 0.5, np.float32)
        assert_the_same(found, to_sklearn(replace(found, head=replace(found.head, weights=equal))))
