"""Pictures decoded at a part of their size, for who reduces them further: what comes of it is nearly the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_pictures import as_stored, exif, pillow, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featkit.errors import ImageDamaged, ImageTooLarge, ImageUnsupported
from featkit.images import DecodeOptions, decode, decode_reduced


def test_a_photo_of_12_megapixels(samples: Path) -> None:
    with Image.open(samples / "china.jpg") as photo:
        data = pillow(photo.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG", quality=92)

    reduced = decode_reduced(data, 512)

    assert (reduced.shape, reduced.dtype) == ((750, 1000, 3), np.uint8)
    assert not reduced.flags.writeable
    found, expected = (
        np.asarray(Image.fromarray(pixels).resize((341, 256), Image.Resampling.BICUBIC), float)
        for pixels in (reduced, decode(data))
    )
    assert np.abs(found - expected).mean() <= 0.5


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), side=st.integers(1, 450))
def test_it_is_never_smaller_than_what_is_asked_for(width: int, height: int, side: int) -> None:
    data = pillow(scene(width, height), "JPEG")
    found_height, found_width, _ = decode_reduced(data, side).shape
    assert min(found_width, found_height) >= min(side, width, height)
    scale = next(scale for scale in (8, 4, 2, 1) if scale == 1 or min(width, height) >= scale * side)
    assert (found_width, found_height) == (-(-width // scale), -(-height // scale))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_upright(orientation: int) -> None:
    upright = scene(320, 240)
    stored = np.ascontiguousarray(as_stored(upright, orientation))
    data = pillow(stored, "JPEG", quality=95, exif=exif(orientation))
    reduced = decode_reduced(data, 60)
    assert reduced.shape == (60, 80, 3)
    expected = np.asarray(Image.fromarray(upright).reduce(4), int)
    assert np.abs(reduced.astype(int) - expected).mean() < 3


def test_what_is_no_jpeg_is_decoded_whole() -> None:
    for form in ("PNG", "TIFF", "BMP", "PPM"):
        np.testing.assert_array_equal(decode_reduced(pillow(scene(320, 240), form), 20), scene(320, 240))
    turned = pillow(np.ascontiguousarray(as_stored(scene(), 6)), "PNG", exif=exif(6))
    np.testing.assert_array_equal(decode_reduced(turned, 5), scene())


def test_a_jpeg_that_is_small_is_decoded_whole() -> None:
    data = pillow(scene(100, 80), "JPEG")
    np.testing.assert_array_equal(decode_reduced(data, 41), decode(data))
    assert decode_reduced(data, 40).shape == (40, 50, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_rgb_too(mode: str) -> None:
    picture = Image.fromarray(scene(320, 240)).convert(mode)
    data = pillow(picture, "JPEG", quality=95)
    reduced = decode_reduced(data, 60)
    assert reduced.shape == (60, 80, 3)
    expected = np.asarray(Image.fromarray(np.asarray(decode(data))).reduce(4), int)
    assert np.abs(reduced.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_off(part: float, options: dict[str, bool]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    data = pillow(noise, "JPEG", **options)
    with pytest.raises(ImageDamaged) as caught:
        decode_reduced(data[: int(part * len(data))], 30, path="cut.jpg")
    assert caught.value.path == "cut.jpg"


def test_options_count_as_for_decoding() -> None:
    data = pillow(scene(), "JPEG")
    with pytest.raises(ImageTooLarge, match="limit of 100") as caught:
        decode_reduced(data, 5, DecodeOptions(max_pixels=100), path="large.jpg")
    assert caught.value.path == "large.jpg"
    with pytest.raises(ImageUnsupported, match="no frame 1"):
        decode_reduced(data, 5, DecodeOptions(frame=1))
