"""Reductions against scikit-learn's, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from featkit.errors import UsageError
from featkit.learning.reduction import Reduction, ReductionConfig, fit_reduction, moments, spread

RANDOM = np.random.default_rng(0)
MIXING = RANDOM.normal(size=(30, 30)) * np.geomspace(10, 0.1, 30)[:, None]
FEATURES = (RANDOM.normal(size=(500, 30)) @ MIXING + 5).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 500)
FEATURES[:, :4] += 6 * np.eye(4, dtype=np.float32)[LABELS]


def fitted(text: str, *, whiten: bool = False, blocks: tuple[int, ...] = (30,)) -> Reduction:
    return fit_reduction((FEATURES,), LABELS, blocks, ReductionConfig.parse(text, whiten))


class TestMoments:
    @given(st.integers(2, 60), st.integers(1, 7), st.floats(-1e3, 1e3))
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_as_numpy_has_them_however_far_from_zero(self, count: int, dimensions: int, offset: float) -> None:
        rows = (np.random.default_rng(count).normal(size=(count, dimensions)) + offset).astype(np.float32)
        mean, covariance = moments((rows[: count // 2], rows[count // 2 :]) if count > 3 else (rows,))
        np.testing.assert_allclose(mean, rows.astype(float).mean(0), atol=1e-4)
        expected = np.cov(rows.astype(float).T, bias=True).reshape(dimensions, dimensions)
        np.testing.assert_allclose(covariance, expected, atol=1e-3)
        assert spread((rows,)) == pytest.approx(max(np.trace(expected), 1e-30), rel=1e-3, abs=1e-3)

    def test_more_rows_than_a_block(self) -> None:
        rows = RANDOM.normal(size=(9001, 5)).astype(np.float32)
        mean, covariance = moments((rows,))
        np.testing.assert_allclose(mean, rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), atol=1e-5)


class TestPrincipalComponents:
    def test_as_scikit_learn_s_but_for_the_scale(self) -> None:
        reduction, oracle = fitted("pca:8"), PCA(8).fit(FEATURES)
        scale = np.sqrt(FEATURES.astype(float).var(0).sum())
        expected = oracle.transform(FEATURES)
        found = reduction(FEATURES) * scale
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-2)
        assert reduction.kept == pytest.approx(oracle.explained_variance_ratio_.sum(), abs=1e-5)

    def test_whitened_components_have_unit_variance_and_nothing_in_common(self) -> None:
        np.testing.assert_allclose(np.cov(fitted("pca:8", whiten=True)(FEATURES).T, bias=True), np.eye(8), atol=1e-3)

    def test_more_components_than_pictures_are_not_to_be_had(self) -> None:
        few = fit_reduction((FEATURES[:6],), LABELS[:6], (30,), ReductionConfig("pca", 20))
        assert few.dimensions == 5
        assert few.kept == pytest.approx(1, abs=1e-5)

    def test_fewer_pictures_than_numbers_give_the_same(self) -> None:
        """By the products of the pictures instead of those of the numbers."""
        few = FEATURES[:25]
        found = fit_reduction((few,), LABELS[:25], (30,), ReductionConfig("pca", 6))
        oracle = PCA(6).fit(few)
        scale = np.sqrt(few.astype(float).var(0).sum())
        np.testing.assert_allclose(np.abs(found(few)) * scale, np.abs(oracle.transform(few)), atol=2e-2)
        assert found.kept == pytest.approx(oracle.explained_variance_ratio_.sum(), abs=1e-5)

    def test_beyond_what_a_covariance_may_take_some_pictures_stand_for_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = fitted("pca:3")
        monkeypatch.setattr("featkit.learning.reduction.LARGEST_COVARIANCE", 29)
        part = fitted("pca:3")
        assert part.kept == pytest.approx(whole.kept, abs=0.1)
        cosines = (part.projection * whole.projection).sum(0)
        cosines /= np.linalg.norm(part.projection, axis=0) * np.linalg.norm(whole.projection, axis=0)
        assert abs(cosines[0]) > 0.8
        with pytest.raises(UsageError, match="discriminants"):
            fitted("lda")

    def test_mirror_images_count(self) -> None:
        both = fit_reduction((FEATURES, -FEATURES), LABELS, (30,), ReductionConfig("pca", 3))
        np.testing.assert_allclose(both.mean, 0, atol=1e-4)

    def test_the_sign_is_the_same_every_time(self) -> None:
        np.testing.assert_array_equal(fitted("pca:8").projection, fitted("pca:8").projection)


class TestBlocks:
    def test_each_has_unit_variance_as_a_whole(self) -> None:
        reduced = fitted("none", blocks=(10, 20))(FEATURES)
        assert reduced[:, :10].var(0).sum() == pytest.approx(1, abs=1e-4)
        assert reduced[:, 10:].var(0).sum() == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize("method", ["none", "pca:30"])
    def test_or_the_variance_that_is_wanted(self, method: str) -> None:
        parts = FEATURES[:, :10], FEATURES[:, 10:]
        reduction = fit_reduction((FEATURES,), LABELS, (10, 20), ReductionConfig.parse(method), (3, 0.5))
        assert reduction(FEATURES).var(0).sum() == pytest.approx(3.5, abs=1e-3)
        for part, wanted in zip(parts, (3, 0.5), strict=True):
            alone = np.hstack([each if each is part else np.tile(each.mean(0), (len(each), 1)) for each in parts])
            assert reduction(alone).var(0).sum() == pytest.approx(wanted, abs=1e-3)

    def test_one_that_does_not_vary_stays(self) -> None:
        features = np.hstack([FEATURES, np.full((len(FEATURES), 2), 7, np.float32)])
        reduction = fit_reduction((features,), LABELS, (30, 2), ReductionConfig("none"))
        np.testing.assert_allclose(reduction(features)[:, 30:], 0, atol=1e-5)

    def test_without_projection_each_dimension_can_be_whitened(self) -> None:
        np.testing.assert_allclose(fitted("none", whiten=True)(FEATURES).std(0), 1, atol=1e-3)


class TestDiscriminants:
    FEATURES = (RANDOM.normal(size=(500, 12)) @ RANDOM.normal(size=(12, 12))).astype(np.float32)
    FEATURES[:, :4] += 4 * np.eye(4, dtype=np.float32)[LABELS]

    def fitted(self) -> np.ndarray:
        reduction = fit_reduction((self.FEATURES,), LABELS, (12,), ReductionConfig("lda"))
        return reduction(self.FEATURES)

    def test_as_many_as_classes_less_one(self) -> None:
        assert self.fitted().shape == (500, 3)

    def test_they_span_what_scikit_learn_s_do(self) -> None:
        found = np.c_[self.fitted(), np.ones(500)]
        expected = LinearDiscriminantAnalysis(solver="eigen").fit(self.FEATURES, LABELS).transform(self.FEATURES)
        # Each of theirs is a combination of ours.
        weights, *_ = np.linalg.lstsq(found, expected, rcond=None)
        assert ((expected - found @ weights).var(0) < 0.01 * expected.var(0)).all()

    def test_within_a_class_they_have_unit_variance(self) -> None:
        found = self.fitted()
        within = sum(found[k == LABELS].var(0) * (k == LABELS).sum() for k in range(4)) / len(LABELS)
        np.testing.assert_allclose(within, 1, atol=0.1)


class TestConfig:
    @pytest.mark.parametrize("text", ["pca:0", "pca:x", "lda:3", "none:1", "tsne", "", "pca:"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(UsageError):
            ReductionConfig.parse(text)

    def test_parse(self) -> None:
        assert ReductionConfig.parse("pca:20", whiten=True) == ReductionConfig("pca", 20, True)
        assert ReductionConfig.parse("pca") == ReductionConfig("pca", None)
        assert ReductionConfig.parse("lda") == ReductionConfig("lda")


def test_its_parts_make_it_again() -> None:
    for text in ("pca:4", "none", "lda"):
        reduction = fitted(text)
        again = Reduction.from_parts(*reduction.parts())
        np.testing.assert_array_equal(again(FEATURES), reduction(FEATURES))
    config, arrays = fitted("pca:4").parts()
    with pytest.raises(ValueError, match="fit together"):
        Reduction.from_parts(config, {**arrays, "mean": arrays["mean"][:-1]})


def test_flat_features_have_no_direction() -> None:
    flat = np.full((20, 6), 3, np.float32)
    reduced = fit_reduction((flat,), np.arange(20) % 2, (6,), ReductionConfig("pca", 3))(flat)
    np.testing.assert_allclose(reduced, 0, atol=TOLERANCE["float32"])
