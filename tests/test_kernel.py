"""The RBF machines against scikit-learn's SVC."""

from __future__ import annotations

import numpy as np
import pytest
from learned_points import blobs, rings, training
from sklearn.svm import SVC

from featkit.errors import UsageError
from featkit.learning.kernel import KernelConfig, fit_kernel, rbf

NYSTROM = KernelConfig(landmarks=200, exact_up_to=0)


class TestExact:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_as_good_as_svc_and_the_same_on_what_is_clear(self, classes: int) -> None:
        features, labels = blobs(400, classes, spread=2)
        others, truth = blobs(2000, classes, spread=2, seed=1)
        gamma = 0.7 / features.astype(float).var(0).sum()
        oracle = SVC(C=5, gamma=gamma).fit(features.astype(float), labels)
        scores = fit_kernel(training(features, labels), KernelConfig()).scores(others)
        ranked = np.sort(scores, axis=1)
        clear = ranked[:, -1] - ranked[:, -2] > 1
        assert clear.mean() > 0.5
        assert (scores.argmax(1) == oracle.predict(others))[clear].mean() > 0.98
        assert (scores.argmax(1) == truth).mean() > oracle.score(others, truth) - 0.01

    def test_it_is_the_minimum(self) -> None:
        """Of the sum over all functions of the kernel's space: by the representer theorem, weights of the pictures."""
        features, labels = blobs(60, 2, spread=2)
        head = fit_kernel(training(features, labels), KernelConfig(C=1))
        order = np.argsort([int(np.flatnonzero((features == each).all(1))[0]) for each in head.landmarks])
        weights = head.weights[order].astype(float)
        kernel = rbf(features.astype(float), features.astype(float), head.gamma)
        scores = kernel @ weights + head.intercepts
        signs = np.where(labels[:, None] == np.arange(2), 1, -1)
        slope = -2 * signs * np.maximum(0, 1 - signs * scores)
        # At the minimum K (w + slope) = 0.
        assert np.linalg.norm(kernel @ (weights + slope)) < 0.02 * np.linalg.norm(kernel @ (-2 * signs))

    def test_weights_count(self) -> None:
        features, labels = blobs(200, 3, spread=3)
        weights = np.where(labels == 0, 3, 0.1).astype(np.float32)
        plain = fit_kernel(training(features, labels), KernelConfig(C=0.1))
        weighted = fit_kernel(training(features, labels, weights=weights), KernelConfig(C=0.1))
        assert (weighted.scores(features).argmax(1) == 0).sum() > (plain.scores(features).argmax(1) == 0).sum()


class TestNystrom:
    def test_rings_that_no_line_divides(self) -> None:
        features, labels = rings(800)
        others, truth = rings(400, seed=1)
        head = fit_kernel(training(features, labels), NYSTROM)
        assert (head.scores(others).argmax(1) == truth).mean() > 0.99

    def test_most_pictures_as_landmarks_do_as_well_as_all(self) -> None:
        features, labels = blobs(500, 5, spread=2.5)
        others, truth = blobs(2000, 5, spread=2.5, seed=1)
        exact = fit_kernel(training(features, labels), KernelConfig(C=1))
        found = fit_kernel(training(features, labels), KernelConfig(C=1, landmarks=300, exact_up_to=0))
        assert len(found.landmarks) == 300 < len(exact.landmarks)
        accuracy = [(head.scores(others).argmax(1) == truth).mean() for head in (exact, found)]
        assert abs(accuracy[0] - accuracy[1]) < 0.02

    def test_the_same_every_time(self) -> None:
        features, labels = blobs(300, 3)
        heads = [fit_kernel(training(features, labels), NYSTROM) for _ in range(2)]
        np.testing.assert_array_equal(heads[0].scores(features), heads[1].scores(features))

    def test_two_views_are_both_learned_from(self) -> None:
        features, labels = rings(400)
        far = features + np.float32(20)
        head = fit_kernel(training(features, labels, far), NYSTROM)
        for view in (features, far):
            assert (head.scores(view).argmax(1) == labels).mean() > 0.97

    def test_from_the_disk_as_from_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        features, labels = blobs(300, 3)
        expected = fit_kernel(training(features, labels), NYSTROM).scores(features)
        monkeypatch.setattr("featkit.learning.rows.IN_MEMORY_BYTES", 1000)
        np.testing.assert_array_equal(fit_kernel(training(features, labels), NYSTROM).scores(features), expected)

    def test_pictures_that_are_all_the_same(self) -> None:
        features = np.ones((40, 5), np.float32)
        head = fit_kernel(training(features, np.arange(40) % 2), NYSTROM)
        assert np.isfinite(head.scores(features)).all()
        np.testing.assert_allclose(head.scores(blobs(20, dimensions=5)[0]), np.tile(head.intercepts, (20, 1)))


@pytest.mark.parametrize("config", [KernelConfig(), NYSTROM], ids=["exact", "nystrom"])
def test_parts_make_it_again(config: KernelConfig) -> None:
    features, labels = blobs(120, 3)
    head = fit_kernel(training(features, labels), config)
    plain, arrays = head.parts()
    np.testing.assert_array_equal(type(head).from_parts(plain, arrays).scores(features), head.scores(features))
    for name in arrays:
        with pytest.raises(ValueError, match="fit together"):
            type(head).from_parts(plain, {**arrays, name: arrays[name][:-1]})


def test_the_kernel_is_one_for_a_point_and_itself() -> None:
    points = blobs(30)[0]
    kernel = rbf(points, points, 0.1)
    np.testing.assert_allclose(np.diag(kernel), 1, atol=1e-4)
    expected = np.exp(-0.1 * ((points[:, None] - points) ** 2).sum(2))
    np.testing.assert_allclose(kernel, expected, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"C": 0}, {"gamma": -1.0}, {"landmarks": 0}])
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(UsageError):
        KernelConfig(**wrong)
