"""Histograms of oriented gradients: scikit-image's to the last digits, and the better ones pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import feature

from featkit import images
from featkit.classical import hog as module
from featkit.classical.hog import HogConfig, SkimageHogConfig, histograms, hog, hog_as_skimage
from featkit.errors import UsageError

Images = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

# What is promised of the numbers of scikit-image, which are float64 here and float32 there.
PARITY = 1e-6


def noise(shape: tuple[int, ...], seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(shape: tuple[int, ...], seed: int = 0) -> Images:
    """Neighbours resemble each other, as in photos, and many of their gradients are equal or none."""
    rough = np.random.default_rng(seed).standard_normal(shape).cumsum(1).cumsum(2)
    return np.asarray(np.clip(4 * rough + 128, 0, 255), np.uint8)


def coarse(shape: tuple[int, ...], seed: int = 0) -> Images:
    """Of three levels alone: channels are often equal, and gradients lie on the edges between bins."""
    return np.asarray(noise(shape, seed) % 3 * 127, np.uint8)


def by_skimage(pictures: Images, config: SkimageHogConfig) -> Doubles:
    return np.stack(
        [
            feature.hog(
                picture,
                orientations=config.orientations,
                pixels_per_cell=(config.cell, config.cell),
                cells_per_block=(config.block, config.block),
                channel_axis=None if picture.ndim == 2 else -1,
            )
            for picture in pictures
        ]
    )


class TestLikeSkimage:
    @pytest.mark.parametrize("size", [(32, 32), (40, 56), (45, 61), (24, 24)])
    @pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
    @pytest.mark.parametrize(
        "config",
        [SkimageHogConfig(), SkimageHogConfig(18, 6, 2), SkimageHogConfig(4, 5, 1), SkimageHogConfig(7, 4, 4)],
        ids=str,
    )
    def test_is_the_same(self, size: tuple[int, int], channels: tuple[int, ...], config: SkimageHogConfig) -> None:
        for make in (noise, smooth, coarse):
            pictures = make((3, *size, *channels))
            found = hog_as_skimage(pictures, config)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, by_skimage(pictures, config), rtol=0, atol=PARITY)

    @given(
        st.sampled_from([noise, smooth, coarse]),
        st.integers(0, 12),
        st.integers(0, 12),
        st.sampled_from([(), (1,), (3,)]),
        st.integers(1, 20),
        st.integers(1, 6),
        st.integers(1, 3),
        st.integers(0, 1 << 16),
    )
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_of_any_size(
        self,
        make: Any,
        more_rows: int,
        more_columns: int,
        channels: tuple[int, ...],
        orientations: int,
        cell: int,
        block: int,
        seed: int,
    ) -> None:
        config = SkimageHogConfig(orientations, cell, block)
        pictures = make((2, cell * block + more_rows, cell * block + more_columns, *channels), seed)
        found = hog_as_skimage(pictures, config)
        np.testing.assert_allclose(found, by_skimage(pictures, config), rtol=0, atol=PARITY)

    def test_of_channels_that_differ_by_rounding_alone(self) -> None:
        """7² + 24² = 15² + 20², but not all such lengths come out equal, and scikit-image takes the larger."""
        pictures = []
        by_square: dict[int, tuple[int, int]] = {}
        for across in range(1, 256):
            for down in range(1, 256):
                other = by_square.setdefault(across**2 + down**2, (across, down))
                if np.hypot(*other) != np.hypot(across, down):
                    picture = np.zeros((3, 3, 3), np.uint8)
                    picture[1, 2], picture[2, 1] = (across, other[0], 0), (down, other[1], 0)
                    pictures += [picture, picture[..., [1, 0, 2]]]
        assert len(pictures) > 100
        config = SkimageHogConfig(cell=1, block=1)
        found = hog_as_skimage(np.stack(pictures), config)
        np.testing.assert_allclose(found, by_skimage(np.stack(pictures), config), rtol=0, atol=PARITY)

    @pytest.mark.parametrize("name", ["chelsea.png", "china.jpg"])
    def test_of_photos(self, name: str, samples: Any) -> None:
        photo = images.resize(images.load(samples / name).pixels, 0.5)
        for picture in (photo, images.to_gray(photo)):
            expected = by_skimage(picture[None], SkimageHogConfig())
            np.testing.assert_allclose(hog_as_skimage(picture[None]), expected, rtol=0, atol=PARITY)


def slow_histograms(picture: Images, config: HogConfig) -> Doubles:
    """One pixel after another, with all the steps by name."""
    height, width = picture.shape[:2]
    channels = picture.reshape(height, width, -1).astype(float)
    cells, bins = config.cells, config.orientations
    found = np.zeros((cells, cells, bins))
    for y in range(height):
        for x in range(width):
            zero = np.zeros(channels.shape[2])
            down = channels[y + 1, x] - channels[y - 1, x] if 0 < y < height - 1 else zero
            across = channels[y, x + 1] - channels[y, x - 1] if 0 < x < width - 1 else zero
            strongest = np.argmax(down**2 + across**2)
            magnitude = np.hypot(down[strongest], across[strongest])
            turns = np.arctan2(down[strongest], across[strongest]) / (2 * np.pi)
            # Of the bin, and of the cell in both directions, whose centres are at whole numbers and a half.
            places = turns * bins, (y + 0.5) * cells / height, (x + 0.5) * cells / width
            for row, row_share in nearest_two(places[1]):
                for column, column_share in nearest_two(places[2]):
                    for bin_, bin_share in nearest_two(places[0]):
                        if 0 <= row < cells and 0 <= column < cells:
                            found[row, column, bin_ % bins] += magnitude * row_share * column_share * bin_share
    return found * cells**2 / (height * width)


def nearest_two(place: float) -> list[tuple[int, float]]:
    """The bins whose centres are the last before and the first after a place, and their shares of it."""
    before = int(np.floor(place - 0.5))
    return [(before, before + 1.5 - place), (before + 1, place - 0.5 - before)]


def slow_blocks(counts: Doubles, config: HogConfig) -> Doubles:
    """The normalised blocks of cells×cells×bins."""
    found = []
    for row in range(config.cells - 1):
        for column in range(config.cells - 1):
            block = counts[row : row + 2, column : column + 2].reshape(-1)
            block = block / np.sqrt((block**2).sum() + 0.1**2)
            block = np.minimum(block, config.clip)
            found.append(np.sqrt(block / np.sqrt((block**2).sum() + 0.1**2)))
    return np.concatenate(found)


class TestSoft:
    @pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (16, 16, 3), (13, 10, 3), (10, 15), (5, 4, 3)])
    @pytest.mark.parametrize(
        "config", [HogConfig(), HogConfig(2, 8), HogConfig(3, 9, 0.2), HogConfig(4, 5, 1)], ids=str
    )
    def test_is_that_of_one_pixel_after_another(self, shape: tuple[int, ...], config: HogConfig) -> None:
        for make in (noise, smooth):
            pictures = make((2, *shape))
            counts = histograms(pictures, config)
            expected = np.stack([slow_histograms(picture, config) for picture in pictures])
            # The table's directions are a 16,000th of the circle apart: a share is right to half of one.
            steps = 2**14 // config.orientations
            np.testing.assert_allclose(counts, expected, rtol=0, atol=expected.sum(-1).max() / steps / 2)
            blocks = np.stack([slow_blocks(count.astype(float), config) for count in counts])
            np.testing.assert_allclose(hog(pictures, config), blocks, rtol=0, atol=TOLERANCE["float32"])

    def test_bins_are_of_signed_directions(self) -> None:
        """Light to the right is bin 0 and 17, to the left 8 and 9, down is 4, up is 13."""
        ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8), (16, 16))
        turned = {(0, 17): ramp, (8, 9): ramp[:, ::-1], (4,): ramp.T, (13,): ramp.T[::-1]}
        for bins, picture in turned.items():
            counts = histograms(picture[None], HogConfig()).sum((0, 1, 2))
            np.testing.assert_allclose(counts[list(bins)], counts.sum() / len(bins), rtol=1e-5)

    def test_mean_magnitude_of_a_ramp(self) -> None:
        """Neighbours two apart differ by 20, but at the edge, where there is one; cells inside have all of it."""
        ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8), (24, 24))
        inner = histograms(ramp[None], HogConfig(4)).sum(-1)[0, 1:-1, 1:-1]
        np.testing.assert_allclose(inner, 20, rtol=1e-5)

    @given(
        st.integers(0, 4),
        st.integers(3, 24),
        st.integers(3, 24),
        st.sampled_from([(), (3,)]),
        st.integers(2, 6),
        st.integers(2, 40),
        st.floats(0.05, 1),
        st.integers(0, 1 << 16),
    )
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_of_any_size_each_picture_has_its_own(
        self,
        count: int,
        height: int,
        width: int,
        channels: tuple[int, ...],
        cells: int,
        orientations: int,
        clip: float,
        seed: int,
    ) -> None:
        config = HogConfig(cells, orientations, clip)
        pictures = smooth((count, height, width, *channels), seed)
        if min(height, width) < cells:
            with pytest.raises(UsageError, match="too small"):
                hog(pictures, config)
            return
        found = hog(pictures, config)
        assert found.shape == (count, (cells - 1) ** 2 * 4 * orientations)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1 + PARITY)).all()
        for picture, row in zip(pictures, found, strict=True):
            np.testing.assert_array_equal(hog(picture[None], config)[0], row)

    @pytest.mark.parametrize("orientations", [18, 8, 2])
    @pytest.mark.parametrize("shape", [(32, 32, 3), (13, 10, 3), (13, 9)])
    def test_of_a_mirrored_picture_is_permuted(self, orientations: int, shape: tuple[int, ...]) -> None:
        """Blocks and cells change places left for right, and bin k of n becomes n / 2 - 1 - k, modulo n."""
        config = HogConfig(4, orientations)
        pictures = noise((5, *shape))
        blocks = hog(pictures, config).reshape(5, 3, 3, 2, 2, orientations)
        bins = (orientations // 2 - 1 - np.arange(orientations)) % orientations
        expected = blocks[:, :, ::-1, :, ::-1][..., bins].reshape(5, -1)
        np.testing.assert_allclose(hog(pictures[:, :, ::-1], config), expected, rtol=0, atol=TOLERANCE["float32"])

    def test_does_not_depend_on_brightness_and_little_on_contrast(self) -> None:
        dark = smooth((3, 32, 32, 3)) // 4
        np.testing.assert_array_equal(hog(dark + 60), hog(dark))
        np.testing.assert_allclose(hog(dark * 3), hog(dark), rtol=0, atol=0.02)

    def test_blocks_have_unit_length_before_roots(self) -> None:
        blocks = hog(noise((5, 32, 32, 3))).reshape(5 * 9, 72)
        np.testing.assert_allclose((blocks.astype(float) ** 4).sum(1), 1, rtol=0.02)


@pytest.mark.parametrize("describe", [hog, hog_as_skimage])
class TestBoth:
    @pytest.mark.parametrize("shape", [(2, 24, 32), (2, 24, 32, 3)])
    def test_of_one_colour_is_zero(self, describe: Any, shape: tuple[int, ...]) -> None:
        for level in (0, 1, 128, 255):
            assert not describe(np.full(shape, level, np.uint8)).any()

    def test_of_grey_is_that_of_equal_channels(self, describe: Any) -> None:
        grey = noise((3, 24, 32))
        np.testing.assert_array_equal(describe(np.repeat(grey[..., None], 3, 3)), describe(grey))

    @pytest.mark.parametrize("pixels", [1, 2 * 24 * 32, 4 * 24 * 32 + 5, 1 << 20])
    def test_is_the_same_in_blocks_of_any_size(
        self, describe: Any, pixels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pictures = noise((7, 24, 32, 3))
        expected = describe(pictures)
        monkeypatch.setattr(module, "_PIXELS_A_BLOCK", pixels)
        np.testing.assert_array_equal(describe(pictures), expected)
        np.testing.assert_array_equal(np.concatenate([describe(pictures[i : i + 1]) for i in range(7)]), expected)

    def test_of_views_is_that_of_copies(self, describe: Any) -> None:
        pictures = noise((6, 32, 48, 3))
        pictures.setflags(write=False)
        for view in (pictures[:, :, ::-1], pictures[::2, ::-1], pictures.transpose(0, 2, 1, 3), pictures[:, 3:, 5:]):
            np.testing.assert_array_equal(describe(view), describe(view.copy()))

    def test_of_no_picture_is_no_row(self, describe: Any) -> None:
        for shape in ((0, 32, 32), (0, 32, 32, 3)):
            assert describe(np.zeros(shape, np.uint8)).shape == (0, describe(np.zeros((1, 32, 32), np.uint8)).shape[1])


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (HogConfig, {"cells": 1}, "cells"),
        (HogConfig, {"orientations": 1}, "orientations"),
        (HogConfig, {"orientations": 361}, "orientations"),
        (HogConfig, {"clip": 0}, "clips"),
        (HogConfig, {"clip": 1.01}, "clips"),
        (HogConfig, {"clip": float("nan")}, "clips"),
        (SkimageHogConfig, {"cell": 0}, "1 or more"),
        (SkimageHogConfig, {"block": 0}, "1 or more"),
        (SkimageHogConfig, {"orientations": 0}, "1 or more"),
        (SkimageHogConfig, {"orientations": 361}, "orientations"),
    ],
)
def test_what_makes_no_sense_is_refused(config: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**options)


def test_pictures_that_are_too_small_are_refused() -> None:
    assert hog(noise((1, 4, 4, 3))).shape == (1, 648)
    for shape in ((1, 3, 9, 3), (1, 9, 3)):
        with pytest.raises(UsageError, match="too small for 4 cells"):
            hog(noise(shape))
        with pytest.raises(UsageError, match="too small for 4 cells"):
            histograms(noise(shape), HogConfig())
    with pytest.raises(UsageError, match="2 × 9 pixels are too small"):
        hog(noise((1, 9, 2)), HogConfig(2))
    assert hog_as_skimage(noise((1, 24, 24))).shape == (1, 81)
    with pytest.raises(UsageError, match="23 × 24 pixels are smaller than a block"):
        hog_as_skimage(noise((1, 24, 23)))
