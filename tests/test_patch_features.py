"""Features of learned patches: the codes, what is learned, and pictures that are small, blank or large."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.classical import patches
from featkit.classical.patches import PatchConfig, PatchEncoder, learn_patches
from featkit.errors import UsageError

Images = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

SMALL = PatchConfig(side=3, atoms=7, components=5, training_patches=400)


def noise(count: int, height: int, width: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def smooth(count: int, height: int, width: int, seed: int = 0) -> Images:
    """Neighbouring pixels and colours resemble each other, as in photos."""
    fine = np.random.default_rng(seed).standard_normal((count, height, width, 3))
    rough = fine.cumsum(1).cumsum(2) + 2 * fine + 3 * fine.mean(3, keepdims=True).cumsum(2)
    low, high = rough.min((1, 2, 3), keepdims=True), rough.max((1, 2, 3), keepdims=True)
    return np.asarray(255 * (rough - low) / (high - low), np.uint8)


def encoder(config: PatchConfig = SMALL, seed: int = 0) -> PatchEncoder:
    """Any whitening and atoms, without learning."""
    random = np.random.default_rng(seed)
    size = 3 * config.side**2
    root = random.standard_normal((size, size)) / size
    atoms = random.standard_normal((config.atoms, size))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = config.pool**2 * 2 * config.atoms
    projection = random.standard_normal((codes, config.components))
    arrays = (np.eye(size) / size + root @ root.T, atoms, np.full(codes, 0.1), projection)
    return PatchEncoder(config, *(array.astype(np.float32) for array in arrays))


def cells(length: int, count: int) -> list[range]:
    edges = [index * length // count for index in range(count + 1)]
    return [range(first, max(first + 1, last)) for first, last in pairwise(edges)]


def slow_codes(encoder: PatchEncoder, image: Images) -> Doubles:
    """One patch after another, with all the steps by name."""
    side, stride, pool = encoder.config.side, encoder.config.stride, encoder.config.pool
    height, width = ((length - side) // stride + 1 for length in image.shape[:2])
    found = []
    for rows in cells(height, pool):
        for columns in cells(width, pool):
            above, below = [], []
            for row in rows:
                for column in columns:
                    y, x = row * stride, column * stride
                    patch = image[y : y + side, x : x + side].reshape(-1).astype(float)
                    patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
                    patch = patch @ encoder.whitening.astype(float)
                    patch /= np.linalg.norm(patch) or 1
                    response = encoder.atoms.astype(float) @ patch
                    above.append(np.maximum(response - encoder.config.threshold, 0))
                    below.append(np.maximum(-response - encoder.config.threshold, 0))
            found += [np.mean(above, 0), np.mean(below, 0)]
    return np.concatenate(found)


class TestCodes:
    @pytest.mark.parametrize("size", [(8, 8), (9, 14), (3, 3), (3, 11), (4, 5)])
    @pytest.mark.parametrize(
        "options", [{}, {"stride": 2}, {"pool": 1}, {"pool": 3, "threshold": 0.3}, {"side": 2, "atoms": 1, "stride": 3}]
    )
    def test_are_those_of_one_patch_after_another(self, size: tuple[int, int], options: dict[str, float]) -> None:
        tried = encoder(replace(SMALL, **options))  # type: ignore[arg-type]
        for images in (noise(3, *size), smooth(3, *size)):
            expected = np.stack([slow_codes(tried, image) for image in images])
            found = tried.codes(images)
            assert found.dtype == np.float32
            assert expected.max() > 0.01
            np.testing.assert_allclose(found, expected, atol=TOLERANCE["float32"])

    @given(
        st.integers(0, 3),
        st.integers(3, 12),
        st.integers(3, 12),
        st.integers(1, 4),
        st.integers(1, 3),
        st.floats(0.05, 0.6),
        st.integers(0, 1 << 16),
    )
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_of_any_size_each_image_has_its_own(
        self, count: int, height: int, width: int, pool: int, stride: int, threshold: float, seed: int
    ) -> None:
        tried = encoder(replace(SMALL, pool=pool, stride=stride, threshold=threshold))
        images = noise(count, height, width, seed)
        found = tried.codes(images)
        assert found.shape == (count, pool * pool * 2 * SMALL.atoms)
        assert ((found >= 0) & (found <= 1)).all()
        for image, row in zip(images, found, strict=True):
            np.testing.assert_allclose(tried.codes(image[None])[0], row, atol=TOLERANCE["float32"])
        assert tried(images).shape == (count, SMALL.components)

    @pytest.mark.parametrize("responses", [1, 40, 7 * 30, 7 * 400])
    def test_are_the_same_in_blocks_of_any_size(self, responses: int, monkeypatch: pytest.MonkeyPatch) -> None:
        images = smooth(5, 13, 16)
        codes, features = encoder().codes(images), encoder()(images)
        monkeypatch.setattr(patches, "_RESPONSES_AT_ONCE", responses)
        monkeypatch.setattr(patches, "_IMAGES_AT_ONCE", 2)
        np.testing.assert_allclose(encoder().codes(images), codes, atol=TOLERANCE["float32"])
        np.testing.assert_allclose(encoder()(images), features, atol=1e-3)

    def test_of_one_colour_are_zero(self) -> None:
        for colour in (0, 1, 77, 255):
            assert not encoder().codes(np.full((2, 9, 8, 3), colour, np.uint8)).any()

    def test_below_the_threshold_are_zero_exactly(self) -> None:
        """Whatever number the threshold is, and however many patches are averaged."""
        for threshold in (0.9, 0.93, 0.97):
            assert not encoder(replace(SMALL, threshold=threshold)).codes(noise(2, 40, 40)).any()

    def test_do_not_depend_on_brightness_and_contrast(self) -> None:
        dark = smooth(3, 9, 9) // 4
        codes = encoder().codes(dark)
        np.testing.assert_allclose(encoder().codes(dark + 60), codes, atol=TOLERANCE["float32"])
        np.testing.assert_allclose(encoder().codes(dark * 3), codes, atol=TOLERANCE["float32"])

    def test_of_the_negative_swap_sides(self) -> None:
        images = smooth(3, 9, 9)
        codes = encoder().codes(images).reshape(3, 4, 2, 7)
        negative = encoder().codes(255 - images).reshape(3, 4, 2, 7)
        np.testing.assert_allclose(negative, codes[:, :, ::-1], atol=TOLERANCE["float32"])

    def test_of_a_mirrored_image_are_those_of_mirrored_atoms(self) -> None:
        """9 - 3 + 1 = 7 patches down, and 8 across, which two cells share evenly."""
        images, original = smooth(3, 9, 10), encoder()
        mirror = np.arange(27).reshape(3, 3, 3)[:, ::-1].reshape(-1)
        whitening = np.ascontiguousarray(original.whitening[mirror][:, mirror])
        mirrored = replace(original, whitening=whitening, atoms=np.ascontiguousarray(original.atoms[:, mirror]))
        expected = original.codes(images).reshape(3, 2, 2, -1)[:, :, ::-1]
        found = mirrored.codes(images[:, :, ::-1]).reshape(3, 2, 2, -1)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE["float32"])
        assert np.abs(original.codes(images[:, :, ::-1]).reshape(3, 2, 2, -1) - expected).max() > 0.01

    def test_of_a_large_image_take_little_memory(self) -> None:
        image = noise(1, 700, 900)
        tried = encoder(replace(SMALL, atoms=60))
        tracemalloc.start()
        tried.codes(image)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20  # all responses at once: 150 MB

    def test_of_a_smaller_image_than_a_patch_are_refused(self) -> None:
        for height, width in ((2, 9), (9, 2), (0, 0)):
            with pytest.raises(UsageError, match=f"3×3 pixels do not fit into images of {width}×{height}"):
                encoder().codes(np.zeros((1, height, width, 3), np.uint8))

    @pytest.mark.parametrize(
        "array", [np.zeros((9, 9, 3), np.uint8), np.zeros((1, 9, 9), np.uint8), np.zeros((1, 9, 9, 3), np.float32)]
    )
    def test_of_other_arrays_are_refused(self, array: Images) -> None:
        with pytest.raises(ValueError, match="uint8 N×H×W×3"):
            encoder().codes(array)


class TestFeatures:
    def test_are_projected_roots(self) -> None:
        tried, images = encoder(), smooth(4, 9, 9)
        expected = (np.sqrt(tried.codes(images).astype(float)) - tried.mean) @ tried.projection
        np.testing.assert_allclose(tried(images), expected, atol=1e-3)

    @pytest.mark.parametrize(("count", "atoms"), [(90, 4), (14, 7)], ids=["more images", "more codes"])
    def test_are_principal_components_of_standardised_roots(self, count: int, atoms: int) -> None:
        images = smooth(count, 8, 10)
        tried = learn_patches(images, replace(SMALL, atoms=atoms))
        roots = np.sqrt(tried.codes(images).astype(float))
        spread = roots.std(0)
        standardised = (roots - roots.mean(0)) / np.where(spread > 0, spread, 1)
        left, singular, _ = np.linalg.svd(standardised, full_matrices=False)
        expected = (left * singular)[:, : SMALL.components]
        expected /= np.sqrt(expected.var(0).mean())
        found = tried(images)
        found *= np.sign((found * expected).sum(0))
        np.testing.assert_allclose(found, expected, atol=0.01)

    @pytest.mark.parametrize(("count", "atoms"), [(200, 20), (100, 60)], ids=["more images", "more codes"])
    def test_are_nearly_those_where_only_the_leading_ones_are_computed(
        self, count: int, atoms: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = smooth(count, 8, 8)
        config = replace(SMALL, atoms=atoms, components=6)
        exact = learn_patches(images, config)
        monkeypatch.setattr(patches, "_SPARE_DIRECTIONS", 14)
        quick = learn_patches(images, config)
        np.testing.assert_array_equal(quick.mean, exact.mean)
        assert not np.array_equal(quick.projection, exact.projection)
        # Both have the same total variance: how much lies in each is what must agree.
        np.testing.assert_allclose(quick(images).var(0), exact(images).var(0), rtol=0.03)
        assert quick(images).var(0).mean() == pytest.approx(1, abs=1e-3)

    @given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 80), st.integers(0, 1 << 16))
    @settings(max_examples=25, deadline=None, derandomize=True)
    def test_have_unit_variance_on_the_training_images(
        self, count: int, atoms: int, components: int, seed: int
    ) -> None:
        """On average over the components, which are uncorrelated and sorted by variance."""
        images = smooth(count, 7, 7, seed)
        config = PatchConfig(side=4, atoms=atoms, components=components, training_patches=200, seed=seed)
        features = learn_patches(images, config)(images).astype(float)
        assert 1 <= features.shape[1] <= min(components, count - 1, 8 * atoms)
        covariance = features.T @ features / count
        variances = np.diag(covariance)
        assert np.abs(features.mean(0)).max() < 0.01
        assert variances.mean() == pytest.approx(1, abs=0.01)
        assert np.abs(covariance - np.diag(variances)).max() < 0.01 * variances.max()
        assert (np.diff(variances) < 0.01 * variances.max()).all()

    def test_tell_textures_apart(self) -> None:
        """Stripes across and stripes down, wherever they start, however strong, under noise."""
        random = np.random.default_rng(0)
        waves = 128 + random.uniform(30, 90, (80, 1, 1)) * np.sin(
            0.9 * np.arange(16) + random.uniform(0, 6, (80, 1, 1))
        )
        down = np.arange(80) % 2 == 1
        stripes = np.broadcast_to(waves, (80, 16, 16)).copy()
        stripes[down] = stripes[down].swapaxes(1, 2)
        images = np.clip(stripes[..., None] + random.normal(0, 15, (80, 16, 16, 3)), 0, 255).astype(np.uint8)
        features = learn_patches(images[:40], PatchConfig(side=4, atoms=20, components=8))(images)
        centres = [features[:40][down[:40] == side].mean(0) for side in (False, True)]
        distances = [np.linalg.norm(features[40:] - centre, axis=1) for centre in centres]
        np.testing.assert_array_equal(distances[1] < distances[0], down[40:])


class TestLearning:
    def test_whitening_is_white(self) -> None:
        """Every patch is used: along each direction remains λ / (λ + regulariser · mean λ) of its variance λ."""
        images = smooth(6, 9, 9)
        tried = learn_patches(images, replace(SMALL, regulariser=0.01))
        windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
        rows = windows.reshape(-1, 27).astype(float)
        assert len(rows) <= SMALL.training_patches
        rows -= rows.mean(1, keepdims=True)
        rows /= np.sqrt(rows.var(1, keepdims=True) + 10)
        before = np.linalg.eigvalsh(rows.T @ rows / len(rows))
        white = rows @ tried.whitening
        after = np.linalg.eigvalsh(white.T @ white / len(rows))
        np.testing.assert_allclose(after, np.sort(before / (before + 0.01 * before.mean())), atol=1e-3)
        assert before[-1] > 50 * before[1]
        assert after[-1] < 1.001
        np.testing.assert_allclose(tried.whitening, tried.whitening.T, atol=1e-4)

    def test_atoms_have_unit_length(self) -> None:
        for images in (noise(5, 8, 8), smooth(5, 8, 8)):
            atoms = learn_patches(images, SMALL).atoms
            assert atoms.shape == (7, 27)
            np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, atol=TOLERANCE["float32"])

    def test_atoms_are_what_the_patches_resemble_whatever_the_sign(self) -> None:
        """Two patterns and their negatives make two atoms, even if both begin as one pattern."""
        patterns = noise(2, 3, 3)
        images = np.concatenate([patterns, 255 - patterns] * 5)
        for seed in range(5):
            tried = learn_patches(images, replace(SMALL, atoms=2, seed=seed))
            codes = tried.codes(patterns).reshape(2, 4, 2, 2)[:, 0].max(1)
            # Cosine 1 with its own atom: .75 above the threshold.
            assert sorted(codes.argmax(1)) == [0, 1]
            np.testing.assert_allclose(codes.max(1), 0.75, atol=1e-4)

    def test_gives_the_same_bytes_again(self) -> None:
        images = smooth(12, 9, 9)
        config = replace(SMALL, training_patches=100)
        first, second, other = (learn_patches(images, replace(config, seed=seed)) for seed in (3, 3, 4))
        for one, same in zip(astuple(first)[1:], astuple(second)[1:], strict=True):
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, same)
        assert not np.array_equal(first.atoms, other.atoms)

    def test_components_are_of_a_share_of_many_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images = smooth(60, 8, 8)
        whole = learn_patches(images, SMALL)
        monkeypatch.setattr(patches, "_COMPONENT_IMAGES", 40)
        monkeypatch.setattr(patches, "_IMAGES_AT_ONCE", 16)
        share = learn_patches(images, SMALL)
        np.testing.assert_array_equal(share.atoms, whole.atoms)
        assert not np.array_equal(share.mean, whole.mean)
        np.testing.assert_allclose(share.mean, whole.mean, atol=0.05)
        assert share(images).var(0).mean() == pytest.approx(1, abs=0.3)

    def test_default_is_the_default_config(self) -> None:
        tried = learn_patches(smooth(2, 8, 8))
        assert tried.config == PatchConfig()
        assert tried.atoms.shape == (2 * 3 * 3, 108)  # no more patches than these


class TestTooLittleToLearnFrom:
    @pytest.mark.parametrize(
        ("images", "atoms", "components"),
        [
            (noise(1, 3, 3), 1, 1),
            (noise(3, 3, 3), 3, 2),
            (noise(3, 4, 5), 7, 2),
            (np.repeat(noise(1, 5, 5), 4, axis=0), 7, 1),
            (np.repeat(noise(2, 5, 5), 4, axis=0), 7, 1),
            (np.full((4, 6, 6, 3), 90, np.uint8), 1, 1),
            (np.concatenate([noise(1, 4, 4), np.zeros((6, 4, 4, 3), np.uint8)]), 4, 1),
        ],
        ids=["one patch", "three patches", "three images", "one image, again", "two images, again", "blank", "nearly"],
    )
    def test_lowers_atoms_and_components(self, images: Images, atoms: int, components: int) -> None:
        tried = learn_patches(images, SMALL)
        assert tried.atoms.shape == (atoms, 27)
        assert tried.projection.shape == (8 * atoms, components)
        np.testing.assert_allclose(np.linalg.norm(tried.atoms, axis=1), 1, atol=TOLERANCE["float32"])
        for others in (images, noise(2, 6, 7, seed=9), np.zeros((1, 9, 9, 3), np.uint8)):
            features = tried(others)
            assert features.shape == (len(others), components)
            assert np.isfinite(features).all()

    def test_one_image_over_and_over_says_nothing(self) -> None:
        """Whatever its mean over 7 or 11 copies is rounded to."""
        for copies in (7, 11):
            images = np.repeat(noise(1, 8, 8), copies, axis=0)
            assert not learn_patches(images, SMALL)(noise(3, 8, 8, seed=9)).any()

    def test_no_images_are_refused(self) -> None:
        with pytest.raises(UsageError, match="there is none"):
            learn_patches(noise(0, 8, 8), SMALL)

    def test_smaller_images_than_a_patch_are_refused(self) -> None:
        with pytest.raises(UsageError, match="6×6 pixels do not fit into images of 9×5"):
            learn_patches(noise(4, 5, 9))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", 1),
        ("atoms", 0),
        ("stride", 0),
        ("threshold", 0.0),
        ("threshold", 1.0),
        ("threshold", float("nan")),
        ("pool", 0),
        ("components", 0),
        ("regulariser", 0.0),
        ("regulariser", float("inf")),
        ("training_patches", 0),
        ("seed", -1),
    ],
)
def test_configurations_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"patches .*{'a side' if name == 'side' else name}.*{value}"):
        PatchConfig(**{name: value})  # type: ignore[arg-type]
