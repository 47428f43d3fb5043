"""What makes vectors: each by its name, a grid of colours among them, and from its stored parts again."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import feature

from featkit.arrays import pack, unpack
from featkit.cache import Cache
from featkit.classical.colour import colour_grid
from featkit.classical.hog import HogConfig, hog
from featkit.classical.patches import PatchConfig, learn_patches
from featkit.errors import UsageError
from featkit.extraction import makers
from featkit.extraction.makers import LARGEST_SIDE, MAKERS, ClassicalMaker, Maker, from_parts, make, recorded, source_of

Images = npt.NDArray[np.uint8]


def noise(count: int, height: int, width: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@functools.cache
def made(name: str, size: tuple[int, int] = (24, 28), seed: int = 0) -> Maker:
    return make(name, size, lambda: noise(30, size[1], size[0], 1), PatchConfig(seed=seed))


def slow_colour_grid(picture: Images, cells: int) -> npt.NDArray[np.float64]:
    height, width = picture.shape[:2]
    found = []
    for top, bottom in pairwise(side * height // cells for side in range(cells + 1)):
        for left, right in pairwise(side * width // cells for side in range(cells + 1)):
            cell = picture[top:bottom, left:right].reshape(-1, 3) / 255
            found += [cell.mean(0), cell.std(0)]
    return np.concatenate(found)


class TestColourGrid:
    @given(
        st.integers(0, 4), st.integers(1, 6), st.integers(0, 20), st.integers(0, 20), st.integers(0, 8), st.integers(0)
    )
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_is_what_numpy_says(
        self, count: int, cells: int, more_rows: int, more_columns: int, darkness: int, seed: int
    ) -> None:
        pictures = noise(count, cells + more_rows, cells + more_columns, seed) >> darkness
        found = colour_grid(pictures, cells)
        assert found.shape == (count, cells**2 * 6)
        assert found.dtype == np.float32
        for picture, row in zip(pictures, found, strict=True):
            np.testing.assert_allclose(row, slow_colour_grid(picture, cells), rtol=0, atol=1e-7)

    def test_of_one_colour_has_no_spread_at_all(self) -> None:
        for level in range(256):
            means, spreads = np.split(
                colour_grid(np.full((1, 13, 17, 3), level, np.uint8)).reshape(-1, 2, 3), 2, axis=1
            )
            np.testing.assert_allclose(means, level / 255, rtol=1e-6)
            assert not spreads.any()

    def test_of_a_large_picture_does_not_cancel_out(self) -> None:
        """One pixel of 160,000 differs by one level from the others."""
        picture = np.full((1, 400, 400, 3), 254, np.uint8)
        picture[0, 7, 9] = 255
        np.testing.assert_allclose(colour_grid(picture, 1)[0, 3:] * 255, np.sqrt(159_999) / 160_000, rtol=1e-6)

    def test_is_the_same_in_blocks_of_any_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pictures = noise(9, 13, 18)
        expected = colour_grid(pictures)
        for pixels in (1, 3 * 13 * 18, 1 << 20):
            monkeypatch.setattr("featkit.classical.colour._PIXELS_AT_ONCE", pixels)
            np.testing.assert_array_equal(colour_grid(pictures), expected)

    def test_of_a_mirrored_picture_has_its_columns_mirrored(self) -> None:
        """Where the cells have the same width."""
        pictures = noise(5, 13, 20)
        expected = colour_grid(pictures).reshape(5, 4, 4, 6)[:, :, ::-1].reshape(5, -1)
        np.testing.assert_array_equal(colour_grid(pictures[:, :, ::-1]), expected)

    def test_needs_a_pixel_a_cell(self) -> None:
        assert colour_grid(noise(1, 4, 4)).shape == (1, 96)
        with pytest.raises(UsageError, match="9 × 3 pixels are too small for 4 cells"):
            colour_grid(noise(1, 3, 9))
        with pytest.raises(UsageError, match="1 cell a side or more"):
            colour_grid(noise(1, 9, 9), 0)


class TestMake:
    @pytest.mark.parametrize(
        ("name", "size", "blocks"),
        [
            ("hog", (32, 32), (648, 96)),
            ("hog", (63, 200), (648, 96)),
            ("hog", (64, 64), (3528, 96)),
            ("hog", (200, 128), (3528, 96)),
            ("hog-skimage", (32, 32), (324,)),
            ("hog-skimage", (40, 56), (3 * 5 * 81,)),
            ("patches", (12, 12), (29,)),
            ("hog+patches", (12, 12), (648, 96, 29)),
            ("pixels", (12, 7), (252,)),
            ("pixels", (1, 1), (3,)),
        ],
    )
    def test_blocks(self, name: str, size: tuple[int, int], blocks: tuple[int, ...]) -> None:
        """Patches of 30 pictures vary in 29 directions."""
        maker = made(name, size)
        assert (maker.name, maker.size, maker.blocks) == (name, size, blocks)
        assert len(maker.variances) == len(blocks)
        for count in (0, 3):
            vectors = maker(noise(count, size[1], size[0]))
            assert vectors.shape == (count, sum(blocks))
            assert vectors.dtype == np.float32

    def test_hog_is_hog_and_colours(self) -> None:
        pictures = noise(3, 70, 64)
        vectors = made("hog", (64, 70))(pictures)
        np.testing.assert_array_equal(vectors[:, :-96], hog(pictures, HogConfig(8)))
        np.testing.assert_array_equal(vectors[:, -96:], colour_grid(pictures))

    def test_hog_of_skimage_is_its_own_with_colours_as_channels(self) -> None:
        pictures = noise(3, 28, 24)
        expected = np.stack([feature.hog(picture, channel_axis=-1) for picture in pictures])
        np.testing.assert_allclose(made("hog-skimage")(pictures), expected, rtol=0, atol=1e-6)

    def test_pixels_are_row_by_row(self) -> None:
        pictures = noise(3, 28, 24)
        np.testing.assert_array_equal(made("pixels")(pictures)[1], pictures[1].ravel() / np.float32(255))

    def test_patches_are_learned_from_the_sample(self) -> None:
        pictures, sample = noise(3, 28, 24), noise(30, 28, 24, 1)
        expected = learn_patches(sample, PatchConfig(seed=5))(pictures)
        vectors = make("patches", (24, 28), lambda: sample, PatchConfig(seed=5))(pictures)
        np.testing.assert_array_equal(vectors, expected)
        both = make("hog+patches", (24, 28), lambda: sample, PatchConfig(seed=5))(pictures)
        np.testing.assert_array_equal(both, np.hstack([made("hog")(pictures), expected]))

    def test_a_sample_is_only_taken_to_learn_from(self) -> None:
        def sample() -> Images:
            raise AssertionError("there is nothing to learn")

        for name in ("hog", "hog-skimage", "pixels"):
            make(name, (24, 28), sample)

    def test_the_seed_decides(self) -> None:
        pictures = noise(3, 28, 24)
        np.testing.assert_array_equal(made("patches", seed=1)(pictures), made("patches", seed=1)(pictures))
        assert not np.allclose(made("patches", seed=1)(pictures), made("patches", seed=2)(pictures), atol=1e-3)

    def test_an_unknown_name_says_which_there_are(self) -> None:
        with pytest.raises(UsageError, match="no features 'hogs'") as caught:
            made("hogs")
        assert caught.value.hint == "choose one of: hog, hog-skimage, patches, hog+patches, pixels"

    @pytest.mark.parametrize(
        ("name", "size"),
        [
            ("hog", (3, 20)),
            ("hog", (20, 3)),
            ("hog-skimage", (23, 40)),
            ("patches", (5, 20)),
            ("hog+patches", (20, 5)),
            ("pixels", (0, 20)),
            ("pixels", (20, -1)),
            ("pixels", (20, LARGEST_SIDE + 1)),
        ],
    )
    def test_a_size_that_does_not_do_is_refused_at_once(self, name: str, size: tuple[int, int]) -> None:
        with pytest.raises(UsageError):
            make(name, size, lambda: noise(9, 20, 20)[:, : size[1], : size[0]])

    @pytest.mark.parametrize("name", MAKERS)
    def test_pictures_of_another_size_are_refused(self, name: str) -> None:
        maker = made(name)
        for pictures in (noise(1, 24, 28), noise(1, 28, 24)[..., 0], noise(1, 28, 25)):
            with pytest.raises(ValueError, match="takes N×28×24×3"):
                maker(pictures)

    @pytest.mark.parametrize("name", MAKERS)
    def test_a_vector_depends_on_its_picture_alone(self, name: str) -> None:
        maker, pictures = made(name), noise(5, 28, 24)
        one_by_one = np.concatenate([maker(pictures[i : i + 1]) for i in range(5)])
        np.testing.assert_allclose(one_by_one, maker(pictures), rtol=0, atol=1e-3 if "patches" in name else 0)

    def test_of_mirrored_pictures_hog_and_colours_are_permuted(self) -> None:
        pictures = noise(5, 28, 24)
        straight, mirrored = (made("hog")(each) for each in (pictures, pictures[:, :, ::-1]))
        blocks = straight[:, :648].reshape(5, 3, 3, 2, 2, 18)[:, :, ::-1, :, ::-1, (8 - np.arange(18)) % 18]
        colours = straight[:, 648:].reshape(5, 4, 4, 6)[:, :, ::-1]
        expected = np.hstack([blocks.reshape(5, -1), colours.reshape(5, -1)])
        np.testing.assert_allclose(mirrored, expected, rtol=0, atol=TOLERANCE["float32"])

    def test_what_does_not_fit_the_name_is_refused(self) -> None:
        for name, config in (("hog", None), ("pixels", HogConfig()), ("hog+patches", HogConfig())):
            with pytest.raises(ValueError, match="does not fit"):
                ClassicalMaker(name, (24, 28), config)


def stored(maker: Maker) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    config, arrays = maker.parts()
    return json.loads(json.dumps(config)), unpack(bytes(pack(arrays)))


class TestSource:
    @pytest.mark.parametrize("name", MAKERS)
    def test_it_is_its_own(self, name: str) -> None:
        """There is nothing to load, and nothing that may be another elsewhere."""
        maker = made(name)
        assert maker.source is maker
        assert maker.source.opened(count=3, cache=Cache(None), jobs=1) is maker

    @pytest.mark.parametrize("name", ["hog", "hog-skimage", "pixels"])
    def test_of_what_a_file_of_features_says(self, name: str) -> None:
        maker, pictures = made(name), noise(5, 28, 24)
        record = json.loads(json.dumps(recorded(maker)))
        assert record == maker.parts()[0]
        again = source_of(record, name).opened(count=5, cache=Cache(None), jobs=1)
        np.testing.assert_array_equal(again(pictures), maker(pictures))
        for other in ("head", "hog+patches"):
            with pytest.raises(ValueError, match=f"by {name}, and not by {re.escape(other)}"):
                source_of(record, other)


class TestParts:
    @pytest.mark.parametrize("name", MAKERS)
    def test_from_its_parts_it_is_the_same(self, name: str) -> None:
        maker, pictures = made(name), noise(5, 28, 24)
        again = from_parts(*stored(maker))
        assert (again.name, again.size, again.blocks) == (maker.name, maker.size, maker.blocks)
        np.testing.assert_array_equal(again(pictures), maker(pictures))
        assert again.parts()[0] == maker.parts()[0]

    def test_other_cells_are_kept(self) -> None:
        maker = ClassicalMaker("hog", (24, 28), HogConfig(5, 9, 0.2))
        again = from_parts(*stored(maker))
        assert again.blocks == maker.blocks == (4 * 4 * 4 * 9, 96)

    @pytest.mark.parametrize("name", MAKERS)
    def test_of_another_version_they_are_refused(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        config, arrays = stored(made(name))
        for block in MAKERS[name]:
            with monkeypatch.context() as patch:
                patch.setitem(makers._VERSIONS, block, 99)
                with pytest.raises(ValueError, match="versions"):
                    from_parts(config, arrays)
        from_parts(config, arrays)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "hogs"},
            {"name": "pixels"},
            {"name": ["hog"]},
            {"size": [24, 28, 3]},
            {"size": [24.0, 28.0]},
            {"size": [24, 10**9]},
            {"size": [24, 3]},
            {"size": None},
            {"hog": {"cells": 4, "orientations": 18}},
            {"hog": {"cells": 4, "orientations": 18, "clip": 0.35, "more": 1}},
            {"hog": {"cells": 4.0, "orientations": 18, "clip": 0.35}},
            {"hog": {"cells": 4, "orientations": 10**9, "clip": 0.35}},
            {"hog": {"cells": 4, "orientations": 18, "clip": "0.35"}},
            {"hog": None},
            {"patches": {"side": 6}},
            {"patches": 7},
            {"versions": {}},
            {"more": 1},
        ],
        ids=str,
    )
    def test_a_config_that_no_maker_has_is_refused(self, change: dict[str, Any]) -> None:
        config, arrays = stored(made("hog+patches"))
        from_parts(config, arrays)
        with pytest.raises(ValueError, match="no parts of a maker"):
            from_parts({**config, **change}, arrays)

    @pytest.mark.parametrize("missing", ["name", "size", "versions", "hog", "patches"])
    def test_so_is_one_that_is_not_whole(self, missing: str) -> None:
        config, arrays = stored(made("hog+patches"))
        del config[missing]
        with pytest.raises(ValueError, match="no parts of a maker"):
            from_parts(config, arrays)

    @pytest.mark.parametrize("name", ["whitening", "atoms", "mean", "projection"])
    @pytest.mark.parametrize(
        "spoilt",
        [lambda array: array[:-1], lambda array: array.astype(float), lambda array: array[..., None], None],
        ids=["shorter", "float64", "another axis", "missing"],
    )
    def test_arrays_that_do_not_fit_together_are_refused(self, name: str, spoilt: Callable[[Any], Any] | None) -> None:
        config, arrays = stored(made("patches"))
        if spoilt is None:
            del arrays[name]
        else:
            arrays[name] = spoilt(arrays[name])
        with pytest.raises(ValueError, match="no parts of a maker"):
            from_parts(config, arrays)


@pytest.mark.parametrize(("size", "pictures"), [((32, 32), 256), ((8, 8), 256), ((128, 128), 16), ((500, 400), 8)])
def test_larger_pictures_are_taken_fewer_at_a_time(size: tuple[int, int], pictures: int) -> None:
    assert ClassicalMaker("pixels", size).pictures_at_once == pictures
