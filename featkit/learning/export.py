"""A model as scikit-learn's own objects.

They are given what they would have learned under the names that scikit-learn documents, and none of its private ones.
What they hold beyond that differs from release to release, and is there once they were fitted: to zeros, before.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from featkit.errors import UsageError
from featkit.learning.heads import Head
from featkit.learning.kernel import KernelMachine
from featkit.learning.linear import Linear
from featkit.learning.model import Model
from featkit.learning.neighbours import Neighbours
from featkit.learning.network import Network

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.str_]
Steps = list[tuple[str, Any]]

_LINEAR = {
    "hinge": lambda: LinearSVC(random_state=0),
    # newton-cg is what featkit does, too; the default warns with some releases of SciPy.
    "logistic": lambda: LogisticRegression(solver="newton-cg"),
    "squares": RidgeClassifier,
}


def to_sklearn(model: Model) -> Pipeline:
    """A fitted pipeline that predicts the same labels: from the maker's vectors, float32 N×D, to N strings.

    Everything in it is scikit-learn's or numpy's, so it works where featkit is not installed. It is made to predict;
    fitted again it would be another model, of scikit-learn's defaults. `classes_` are sorted as scikit-learn sorts
    strings, which is another order than `model.classes` where these are numbers. To begin with pictures of
    `model.source.size`, uint8 N×H×W×3, put the maker in front:

        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer
        maker = model.source.opened(count=len(pictures), cache=featkit.Cache(None), jobs=1)
        labels = make_pipeline(FunctionTransformer(maker), featkit.classical.to_sklearn(model)).predict(pictures)

    It sees a picture as it is. A model that is `mirrored` averages the scores of a picture and of its mirror image: do
    so with `decision_function` of the vectors of both, for mlp with `predict_log_proba`, for knn with `predict_proba`.

    The steps: StandardScaler and, where there is a reduction, PCA; for "lda" and whitened components a
    FunctionTransformer, since PCA's inverse would be wrong. Then

    - linear: LinearSVC, LogisticRegression or RidgeClassifier;
    - svm: a FunctionTransformer to the kernel with each landmark, and LinearSVC. (SVC divides one class from one, not
      from the rest; Nystroem would multiply by a matrix of landmarks × landmarks, which takes most of the time.)
    - knn: Normalizer and KNeighborsClassifier, with weights="distance". `predict_proba` are shares of the votes, and a
      vector that was learned has all of them.
    - mlp: MLPClassifier, its normalisation folded into its matrices.

    Raises UsageError for what scikit-learn has no object for: neighbours whose classes have weights.
    """
    labels = np.array(model.classes)
    return Pipeline([*_reduction_steps(model), *_head_steps(model.head, labels)])


def _reduction_steps(model: Model) -> Steps:
    mean, projection = model.reduction.mean, model.reduction.projection
    if projection.ndim == 1:
        return [("scaler", _scaler(mean, np.float32(1) / projection))]
    if not str(model.config.get("reduce")).startswith("pca") or model.config.get("whiten"):
        return [("scaler", _scaler(mean, None)), ("projection", FunctionTransformer(np.dot, kw_args={"b": projection}))]
    scale = _scale_of_blocks(projection, model.source.blocks)
    components = np.asarray((projection * scale[:, None]).T, np.float32)
    pca = PCA(len(components))
    pca.components_, pca.n_components_ = components, len(components)
    pca.mean_, pca.n_features_in_ = np.zeros(len(mean), np.float32), len(mean)
    # A model does not keep them; scikit-learn 1.6 looks at their type.
    pca.explained_variance_ = np.full(len(components), np.nan, np.float32)
    return [("scaler", _scaler(mean, scale)), ("pca", pca)]


def _scaler(mean: Floats, scale: Floats | None) -> StandardScaler:
    scaler = StandardScaler(with_std=scale is not None).fit(np.zeros((1, len(mean)), np.float32))
    scaler.mean_ = mean
    if scale is not None:
        scaler.scale_, scaler.var_ = scale, scale**2
    return scaler


def _scale_of_blocks(projection: Floats, blocks: Sequence[int]) -> Floats:
    """float32 D: what each block was divided by before principal components were taken.

    Their directions are orthonormal: scale² · (part of the projection)ᵀ (part of the projection), summed over the
    blocks, is the identity, and that is linear in scale². 1 for a block that has no part in the projection.
    """
    parts = np.split(projection.astype(float), np.cumsum(blocks)[:-1])
    products = np.stack([(part.T @ part).ravel() for part in parts], 1)
    squares, *_ = np.linalg.lstsq(products, np.eye(projection.shape[1]).ravel(), rcond=None)
    return np.repeat(np.sqrt(np.where(squares > 0, squares, 1)), blocks).astype(np.float32)


def _head_steps(head: Head, labels: Labels) -> Steps:
    if isinstance(head, Linear):
        return [("classifier", _linear(_LINEAR[head.loss](), head.weights, head.intercepts, labels))]
    if isinstance(head, KernelMachine):
        kernel = FunctionTransformer(rbf_kernel, kw_args={"Y": head.landmarks, "gamma": head.gamma})
        classifier = _linear(_LINEAR["hinge"](), head.weights, head.intercepts, labels)
        return [("kernel", kernel), ("classifier", classifier)]
    if isinstance(head, Neighbours):
        return [("normalizer", Normalizer()), ("classifier", _neighbours(head, labels))]
    if isinstance(head, Network):
        return [("classifier", _network(head, labels))]
    raise UsageError(f"there is nothing in scikit-learn for {type(head).__name__}")


def _linear(classifier: Any, weights: Floats, intercepts: Floats, labels: Labels) -> Any:
    """weights: M×K, intercepts: K. Of two classes LogisticRegression has what divides the second from the first; the
    others divide each class from the rest, which is that twice here, so they have half of it."""
    classifier.fit(*_zeros(len(weights), labels))
    weights, intercepts = _as_theirs(weights, intercepts, labels)
    share = np.float32(0.5 if len(labels) == 2 and not isinstance(classifier, LogisticRegression) else 1)
    classifier.coef_, classifier.intercept_ = share * weights.T, share * intercepts
    return classifier


def _network(head: Network, labels: Labels) -> MLPClassifier:
    *layers, (matrix, offset) = head.layers
    classifier = MLPClassifier([len(each) for _, each in layers], random_state=0)
    classifier.partial_fit(*_zeros(len(head.layers[0][0]), labels), classes=labels)
    layers.append(_as_theirs(matrix, offset, labels))
    # Copies, since MLPClassifier goes on learning in place.
    classifier.coefs_, classifier.intercepts_ = ([each[part].copy() for each in layers] for part in (0, 1))
    return classifier


def _zeros(dimensions: int, labels: Labels) -> tuple[Floats, Labels]:
    """To fit a classifier to: two rows a class, since of one it warns that this looks like a regression."""
    return np.zeros((2 * len(labels), dimensions), np.float32), np.repeat(labels, 2)


def _as_theirs(weights: Floats, intercepts: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Columns in the order of scikit-learn's classes. Of two classes one column, the second less the first: softmax
    depends on no more, nor does which is larger."""
    order = np.argsort(labels)
    if len(labels) == 2:
        return np.diff(weights[:, order], axis=1), np.diff(intercepts[order])
    return weights[:, order], intercepts[order]


def _neighbours(head: Neighbours, labels: Labels) -> KNeighborsClassifier:
    if head.weights.min() < head.weights.max():
        raise UsageError(
            "scikit-learn's nearest neighbours have no weights of classes, and this model's have",
            hint="train it without balanced classes",
        )
    count = min(head.neighbours, len(head.features))
    classifier = KNeighborsClassifier(count, weights="distance", algorithm="brute")
    with warnings.catch_warnings():
        # Where classes have fewer than two pictures on average: that it looks like a regression.
        warnings.simplefilter("ignore", UserWarning)
        return classifier.fit(head.features, labels[head.labels])
