"""The decoder: every kind of file comes out as the right pixels or as the right error, and nothing else happens."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bad_pictures
import numpy as np
import pytest
from bad_pictures import (
    CORRUPT_EXIF,
    Pixels,
    as_stored,
    deep,
    deep_png,
    exif,
    flipped,
    pfm,
    pillow,
    png,
    png_chunk,
    scene,
    tiff,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from featkit import images
from featkit.errors import (
    FeatkitError,
    FileUnreadable,
    ImageDamaged,
    ImageTooLarge,
    ImageUnknown,
    ImageUnsupported,
    NotAFile,
    OutputExists,
    UsageError,
)
from featkit.images import DecodeOptions, decode, measure

JPEG_TOLERANCE = 10  # levels, at quality 95 on the smooth scene


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bad_pictures.Expected]]:
    return bad_pictures.make_all(tmp_path_factory.mktemp("pictures"))


def on_white(pixels: Pixels) -> Pixels:
    """The oracle for alpha: H×W×4 or H×W×2 of 8 or 16 bits, in floating point, one rounding."""
    full = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:] / full
    return np.rint((pixels[..., :-1] * alpha + full * (1 - alpha)) / full * 255).astype(np.uint8)


def eight_bits(samples: Pixels) -> Pixels:
    return np.rint(samples / 257).astype(np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """H×W or H×W×1 as RGB."""
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# --- the table


@pytest.mark.parametrize("name", [*bad_pictures.good()])
def test_good_files_are_read(table: dict[str, tuple[Path, bad_pictures.Expected]], name: str) -> None:
    path, expected = table[name]
    assert expected == "ok"
    picture = images.load(path)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (*picture.size[::-1], 3)
    assert picture.pixels.flags.c_contiguous
    assert measure(path.read_bytes()) == picture.size


def test_bad_files_are_refused(
    table: dict[str, tuple[Path, bad_pictures.Expected]], capfd: pytest.CaptureFixture
) -> None:
    for name, (path, expected) in table.items():
        if expected == "ok":
            continue
        with pytest.raises(FeatkitError) as caught:
            images.load(path)
        assert type(caught.value) is expected, name
        assert caught.value.path == str(path), name
        assert str(path) not in caught.value.message, name
        assert "\n" not in caught.value.message, name
    assert capfd.readouterr() == ("", "")


def test_names_of_any_bytes_are_read(table: dict[str, tuple[Path, bad_pictures.Expected]]) -> None:
    names = [name for name in table if "spaces" in name or "\n" in name or "UTF-8" in name]
    assert len(names) >= 2
    for name in names:
        picture = images.load(table[name][0])
        assert picture.path == str(table[name][0])
        assert difference(picture.pixels, scene()) == 0


# --- the right colours


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    assert difference(decode(pillow(scene(), name)), scene()) == 0


def test_lossless_webp_keeps_every_pixel() -> None:
    assert difference(decode(pillow(scene(), "WEBP", lossless=True)), scene()) == 0


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(name: str) -> None:
    assert difference(decode(pillow(scene(), name, quality=95)), scene()) <= JPEG_TOLERANCE


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_png_of_each_depth_spans_black_to_white(depth: int) -> None:
    values = np.arange(2**depth)
    row = np.packbits((values[:, None] >> np.arange(depth - 1, -1, -1)) & 1).tobytes()
    pixels = decode(png([row], len(values), 1, depth, 0))
    assert difference(pixels, grey((values * 255 // (2**depth - 1)).astype(np.uint8)[None])) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_key_colour_of_a_grey_png_becomes_white(depth: int) -> None:
    key = png_chunk(b"tRNS", struct.pack(">H", 0))
    row = bytes(2 * depth // 8 + 1)
    assert (decode(png([row], 2, 1, depth, 0, key)) == 255).all()
    assert (decode(png([row], 2, 1, depth, 0, png_chunk(b"tRNS", struct.pack(">H", 1)))) == 0).all()


def test_the_key_colour_of_an_rgb_png_becomes_white() -> None:
    row = bytes([10, 20, 30, 10, 20, 31])
    key = png_chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30))
    assert decode(png([row], 2, 1, 8, 2, key)).tolist() == [[[255, 255, 255], [10, 20, 31]]]


def test_the_key_colour_of_16_bits_is_compared_in_16_bits() -> None:
    row = struct.pack(">6H", 1000, 2000, 3000, 1000, 2000, 3001)
    key = png_chunk(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000))
    assert decode(png([row], 2, 1, 16, 2, key)).tolist() == [[[255, 255, 255], [4, 8, 12]]]


def test_palette_png_with_transparency() -> None:
    palette = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    alpha = png_chunk(b"tRNS", bytes([255, 0, 128]))
    pixels = decode(png([bytes([0, 1, 2, 7])], 4, 1, 8, 3, palette, alpha))
    assert pixels.tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 255], [0, 0, 0]]]


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_composited_on_white_with_one_rounding(channels: int, dtype: type) -> None:
    samples = deep(channels)
    if dtype is np.uint8:
        samples = (samples >> 8).astype(np.uint8)
        data = pillow(samples, "PNG")
    else:
        data = deep_png(samples)
    expected = on_white(samples)
    assert difference(decode(data), expected if channels == 4 else grey(expected)) == 0


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_the_fourth_channel_of_a_tiff(extra: str) -> None:
    samples = (deep(4) >> 8).astype(np.uint8)
    samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])  # valid when multiplied, too
    expected = {
        "unassalpha": on_white(samples),
        "assocalpha": samples[..., :3] + (255 - samples[..., 3:]),
        "unspecified": samples[..., :3],
    }[extra]
    assert difference(decode(tiff(samples, photometric="rgb", extrasamples=[extra])), expected) <= 1


def test_lossless_webp_with_alpha() -> None:
    samples = (deep(4) >> 8).astype(np.uint8)
    assert difference(decode(pillow(samples, "WEBP", lossless=True, exact=True)), on_white(samples)) == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["png", "tiff", "deflated tiff", "big-endian tiff", "pnm"])
def test_sixteen_bits_are_rounded_to_eight(channels: int, form: str) -> None:
    samples = deep(channels)
    photometric = "rgb" if channels == 3 else "minisblack"
    squeezed = samples if channels == 3 else samples[..., 0]
    data = {
        "png": lambda: deep_png(samples),
        "tiff": lambda: tiff(squeezed, photometric=photometric),
        "deflated tiff": lambda: tiff(squeezed, photometric=photometric, compression="zlib", predictor=True),
        "big-endian tiff": lambda: tiff(squeezed, photometric=photometric, byteorder=">", bigtiff=True),
        "pnm": lambda: b"P%d\n50 40\n65535\n" % (6 if channels == 3 else 5) + samples.astype(">u2").tobytes(),
    }[form]()
    expected = eight_bits(samples)
    assert difference(decode(data), expected if channels == 3 else grey(expected)) == 0


def test_every_16_bit_value_is_rounded_right() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert difference(decode(deep_png(values)), grey(eight_bits(values))) == 0


def test_interlaced_16_bit_png() -> None:
    # Of the seven passes over 2 × 2 pixels three hold any: the first pixel, its right neighbour, the second row.
    samples = np.array([[[1000], [2000]], [[3000], [65535]]], np.uint16)
    stream = b"\0" + samples[0, 0].astype(">u2").tobytes() + b"\0" + samples[0, 1].astype(">u2").tobytes()
    stream += b"\0" + samples[1].astype(">u2").tobytes()
    pixels = decode(png(zlib.compress(stream), 2, 2, 16, 0, interlace=1))
    assert difference(pixels, grey(eight_bits(samples))) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_where_white_is_zero(dtype: type) -> None:
    samples = deep(1)[..., 0] if dtype is np.uint16 else (deep(1)[..., 0] >> 8).astype(np.uint8)
    levels = eight_bits(samples) if dtype is np.uint16 else samples
    assert difference(decode(tiff(samples, photometric="miniswhite")), grey(255 - levels)) == 0


def test_a_tiff_of_separate_planes() -> None:
    planes = np.ascontiguousarray(scene().transpose(2, 0, 1))
    assert difference(decode(tiff(planes, photometric="rgb", planarconfig="separate")), scene()) == 0
    with pytest.raises(ImageUnsupported, match="interleaved"):  # OpenCV would give wrong colours
        decode(tiff(planes.astype(np.uint16), photometric="rgb", planarconfig="separate"))


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_has_the_colours_of_its_inks(form: str) -> None:
    inks = {(255, 0, 0, 0): (0, 255, 255), (0, 255, 0, 0): (255, 0, 255), (0, 0, 255, 0): (255, 255, 0)}
    inks |= {(0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 128): (127, 127, 127)}
    for cmyk, rgb in inks.items():
        data = pillow(Image.new("CMYK", (16, 16), cmyk), form)  # for JPEG Pillow writes Adobe's inverted form
        assert difference(decode(data), np.full((16, 16, 3), rgb, np.uint8)) <= 3, cmyk


def test_cmyk_jpeg_agrees_with_pillow() -> None:
    data = pillow(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    assert difference(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0


def test_palette_files_agree_with_pillow() -> None:
    image = Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE)
    for form in ("PNG", "TIFF", "BMP"):
        assert difference(decode(pillow(image, form)), np.asarray(image.convert("RGB"))) == 0


def test_one_bit_files() -> None:
    image = Image.fromarray(scene()).convert("1")
    for form, settings_ in {"PNG": {}, "BMP": {}, "PPM": {}, "TIFF": {"compression": "group4"}}.items():
        assert difference(decode(pillow(image, form, **settings_)), np.asarray(image.convert("RGB"))) == 0


def test_bmp_whose_alpha_was_never_written() -> None:
    header = struct.pack("<IiiHHIIiiII", 56, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    body = bytes([30, 20, 10, 0, 60, 50, 40, 0])
    data = b"BM" + struct.pack("<IHHI", 70 + len(body), 0, 0, 70) + header + masks + body
    assert decode(data).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_run_length_bmp() -> None:
    palette = bytes([0, 0, 255, 0, 0, 255, 0, 0])  # red, green
    body = bytes([3, 0, 1, 1, 0, 0, 4, 1, 0, 1])
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(body), 0, 0, 2, 0)
    data = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body
    red, green = [255, 0, 0], [0, 255, 0]
    assert decode(data).tolist() == [[green] * 4, [red] * 3 + [green]]
    with pytest.raises(ImageDamaged):
        decode(data[:-3])


def test_pnm_in_text_and_of_any_maximum() -> None:
    assert decode(b"P1 3 2 # two rows\n101\n0 1 0\n")[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]
    assert decode(b"P2\n# grey\n3 1\n10\n0 5 10\n")[..., 0].tolist() == [[0, 128, 255]]
    assert decode(b"P3 2 1 9\n9 0 0  0 9 0\n").tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert decode(b"P5 2 1 1023\n" + struct.pack(">HH", 0, 1023))[..., 0].tolist() == [[0, 255]]
    with pytest.raises(ImageDamaged, match="maximum"):
        decode(b"P5 1 1 7\n\x08")


# --- the right side up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(form: str, orientation: int) -> None:
    upright = scene()
    stored = np.ascontiguousarray(as_stored(upright, orientation))
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(form, {})
    data = pillow(stored, form, exif=exif(orientation), **options)
    assert difference(decode(data), upright) <= (JPEG_TOLERANCE if form == "JPEG" else 0)
    assert measure(data) == (upright.shape[1], upright.shape[0])


def test_orientation_of_a_16_bit_tiff_is_applied_once() -> None:
    data = tiff(deep(3), photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert difference(decode(data), np.rot90(eight_bits(deep(3)), -1)) == 0


@pytest.mark.parametrize("block", [CORRUPT_EXIF, b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_corrupt_exif_is_no_exif(form: str, block: bytes) -> None:
    data = pillow(scene(), form, exif=block)
    assert decode(data).shape == scene().shape
    assert images.focal_length_px(data) is None


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_outside_1_to_8_is_ignored(value: int) -> None:
    assert difference(decode(pillow(scene(), "PNG", exif=exif(value))), scene()) == 0


# --- ambiguous files


@pytest.mark.parametrize("name", ["float.tif", "integers.tif", "float.pfm"])
def test_float_samples_name_the_option(name: str) -> None:
    for act in (decode, measure):
        with pytest.raises(ImageUnsupported) as caught:
            act(bad_pictures.bad()[name][0])
        assert "--float-range LOW,HIGH" in str(caught.value.hint)


def test_float_range_is_linear_and_clipped() -> None:
    samples = np.array([[-1.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf]], np.float32)
    expected = grey(np.array([[0, 0, 128, 255, 255, 0, 255, 0]], np.uint8))
    options = DecodeOptions(float_range=(0.0, 1.0))
    for data in (tiff(samples, photometric="minisblack"), pfm(samples), pillow(Image.fromarray(samples), "TIFF")):
        assert difference(decode(data, options), expected) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "int32", "uint32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_range_of_each_kind_of_samples(dtype: str, channels: int) -> None:
    samples = (deep(channels) // 600).astype(dtype)
    data = tiff(samples if channels == 3 else samples[..., 0], photometric="rgb" if channels == 3 else "minisblack")
    expected = np.rint(np.clip(samples.astype(float) * 255 / 100, 0, 255)).astype(np.uint8)
    pixels = decode(data, DecodeOptions(float_range=(0, 100)))
    assert difference(pixels, expected if channels == 3 else grey(expected)) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_frames_are_chosen_by_number(form: str) -> None:
    frames = [scene(), np.ascontiguousarray(scene()[::-1]), np.ascontiguousarray(scene()[:, ::-1])]
    first, *others = [Image.fromarray(frame) for frame in frames]
    options = {"lossless": True} if form == "WEBP" else {}
    data = pillow(first, form, save_all=True, append_images=others, **options)
    with pytest.raises(ImageUnsupported, match="3 frames") as caught:
        decode(data)
    assert "--frame N" in str(caught.value.hint)
    for number, frame in enumerate(frames):
        assert difference(decode(data, DecodeOptions(frame=number)), frame) == 0
    for act in (decode, measure):
        with pytest.raises(ImageUnsupported, match="no frame 3: it holds 3"):
            act(data, DecodeOptions(frame=3))


def test_frames_of_a_tiff_have_their_own_size_and_orientation() -> None:
    image = Image.fromarray(scene())
    data = pillow(image, "TIFF", save_all=True, append_images=[image.crop((0, 0, 20, 10))])
    assert measure(data, DecodeOptions(frame=0)) == (64, 48)
    assert measure(data, DecodeOptions(frame=1)) == (20, 10)
    assert difference(decode(data, DecodeOptions(frame=1)), scene()[:10, :20]) == 0


def test_previews_inside_a_tiff_are_no_frames() -> None:
    import tifffile

    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(scene(), photometric="rgb")
        writer.write(scene()[::2, ::2].copy(), photometric="rgb", subfiletype=1)
    assert difference(decode(buffer.getvalue()), scene()) == 0


def test_a_still_picture_has_frame_0_alone() -> None:
    data = pillow(scene(), "PNG")
    assert difference(decode(data, DecodeOptions(frame=0)), scene()) == 0
    with pytest.raises(ImageUnsupported, match="no frame 1"):
        decode(data, DecodeOptions(frame=1))


def test_an_mpo_is_its_first_picture() -> None:
    first = Image.fromarray(scene())
    data = pillow(first, "MPO", save_all=True, append_images=[first.rotate(180)], quality=95)
    assert difference(decode(data), scene()) <= JPEG_TOLERANCE


@pytest.mark.parametrize(
    "variant",
    [
        "CgBI",
        "unknown critical chunk",
        "16-bit animation",
        "12-bit JPEG",
        "CMYK without a marker",
        "2 deep channels",
        "inverted grey with alpha",
    ],
)
def test_variants_that_no_decoder_gets_right_are_refused(variant: str) -> None:
    plain = pillow(scene(), "PNG")
    jpeg = pillow(scene(), "JPEG")
    frame_header = jpeg.index(b"\xff\xc0")
    control = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 50, 40, 0, 0, 1, 10, 0, 0))
    data = {
        "CgBI": plain[:8] + png_chunk(b"CgBI", bytes(4)) + plain[8:],
        "unknown critical chunk": plain[:33] + png_chunk(b"ABCD", b"") + plain[33:],
        "16-bit animation": deep_png(deep(3), png_chunk(b"acTL", struct.pack(">II", 2, 0)), control),
        "12-bit JPEG": jpeg[: frame_header + 4] + b"\x0c" + jpeg[frame_header + 5 :],
        "CMYK without a marker": pillow(Image.new("CMYK", (9, 9)), "JPEG").replace(b"Adobe", b"adobe"),
        "inverted grey with alpha": tiff(
            deep(2).astype(np.uint8), photometric="miniswhite", planarconfig="contig", extrasamples=["unassalpha"]
        ),
        "2 deep channels": tiff(deep(2), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
    }[variant]
    with pytest.raises(ImageUnsupported):
        decode(data, DecodeOptions(frame=0))


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(20), "AVIF"),
        (b"\0\0\0\x18ftypisom" + bytes(20), "video"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<!doctype html><title>Forbidden</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"PK\3\4" + bytes(20), "archive"),
        (b"BMW is a car", "text"),
        (b"P3 is a product of ours", "text"),
        (b"a.jpg\nb.jpg\n", "text"),
        (bytes(30), "not a picture"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_called_by_its_name(head: bytes, word: str) -> None:
    with pytest.raises(ImageUnknown, match=word) as caught:
        decode(head)
    assert caught.value.hint


# --- damage


def test_every_wrong_byte_in_a_png_is_noticed() -> None:
    data = pillow(np.ascontiguousarray(scene()[:8, :8]), "PNG", exif=exif(3))
    for at in range(len(data)):
        with pytest.raises(FeatkitError):
            decode(flipped(data, at), DecodeOptions(max_pixels=10_000))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
def test_every_cut_is_noticed(form: str) -> None:
    data = pillow(np.ascontiguousarray(scene()[:16, :16]), form)
    for length in range(len(data)):
        with pytest.raises(FeatkitError):
            decode(data[:length])


def test_every_cut_of_a_tiff_gives_an_error_or_all_the_pixels() -> None:
    for compression in (None, "zlib"):
        data = tiff(deep(3), photometric="rgb", compression=compression)
        for length in range(len(data) // 2, len(data), 7):
            try:
                pixels = decode(data[:length])
            except FeatkitError:
                continue
            assert difference(pixels, eight_bits(deep(3))) == 0


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("wrong", ["short", "cut", "filter", "checksum", "empty"])
def test_a_png_whose_checksums_hold_and_whose_stream_is_bad(depth: int, wrong: str) -> None:
    row = b"\0" + bytes(30 * 3 * depth // 8)
    stream = zlib.compress(row * 20)
    bad = {
        "short": zlib.compress(row * 19),
        "cut": stream[:-6],
        "filter": zlib.compress(b"\x09" + row[1:] + row * 19),
        "checksum": flipped(stream, len(stream) - 1),
        "empty": b"",
    }[wrong]
    with pytest.raises(ImageDamaged):
        decode(png(bad, 30, 20, depth, 2))
    assert not decode(png(stream, 30, 20, depth, 2)).any()


DAMAGED_IN_C = """
import sys
from featkit import images
from featkit.errors import ImageDamaged
for name in sys.argv[1:]:
    try:
        images.load(name)
    except ImageDamaged:
        continue
    sys.exit(f"{name} was read")
"""


def test_nothing_that_c_libraries_say_reaches_the_terminal(tmp_path: Path) -> None:
    stream = zlib.compress(b"\0" + bytes(59))
    files = {"a.png": png(stream, 10, 20, 16, 2), "b.png": png(b"rubbish", 10, 1, 16, 2)}
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        data = pillow(scene(), "TIFF", compression=compression)
        files[f"{compression}.tif"] = data[:8] + bytes(40) + data[48:]
    deflated = tiff(deep(3), photometric="rgb", compression="zlib")
    middle = len(deflated) // 2
    files["deep.tif"] = deflated[:middle] + bytes(40) + deflated[middle + 40 :]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DAMAGED_IN_C, *files],
        cwd=tmp_path,
        capture_output=True,
        env=_with_featkit(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def _with_featkit() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(images.__file__).parent.parent)}


def _fuzzed() -> dict[str, bytes]:
    rgb = np.ascontiguousarray(scene()[:24, :20])
    image = Image.fromarray(rgb)
    more = {"save_all": True, "append_images": [image.rotate(90)]}
    turned = {"exif": exif(6, FocalLength=5.5, FocalPlaneXResolution=100)}
    return {
        "jpeg": pillow(rgb, "JPEG", **turned),
        "progressive": pillow(image.convert("CMYK"), "JPEG", progressive=True),
        "png": pillow(rgb, "PNG", **turned),
        "palette": pillow(image.convert("P"), "PNG", transparency=3),
        "deep png": deep_png(deep(3, 20, 24)),
        "animated png": pillow(image, "PNG", **more),
        "webp": pillow(rgb, "WEBP", **turned),
        "lossless webp": pillow(image.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": pillow(image, "WEBP", **more),
        "bmp": pillow(image.convert("P"), "BMP"),
        "ppm": pillow(rgb, "PPM"),
        "text": b"P3 3 2 9\n" + b" ".join(b"%d" % (i % 10) for i in range(18)) + b"\n",
        "pfm": pfm(rgb[..., 0]),
        "tiff": pillow(rgb, "TIFF", **turned),
        "lzw": pillow(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": pillow(rgb, "TIFF", compression="jpeg"),
        "fax": pillow(image.convert("1"), "TIFF", compression="group4"),
        "pages": pillow(image, "TIFF", **more),
        "deep tiff": tiff(deep(3, 20, 24), photometric="rgb", compression="zlib"),
        "bigtiff": tiff(deep(1, 20, 24)[..., 0], photometric="minisblack", bigtiff=True, byteorder=">"),
        "float tiff": tiff(rgb.astype(np.float32), photometric="rgb"),
    }


FUZZED = _fuzzed()
FUZZ_OPTIONS = DecodeOptions(max_pixels=100_000, frame=0, float_range=(0, 255))


@settings(
    max_examples=1500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(FUZZED)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_files_give_pixels_or_our_own_error(
    capfd: pytest.CaptureFixture, name: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(FUZZED[name])
    for where, value in changes:
        data[int(where * len(data))] = value
    del data[int(keep * len(data)) :]
    for act in (decode, measure):
        with contextlib.suppress(FeatkitError):
            act(bytes(data), FUZZ_OPTIONS)
    with contextlib.suppress(FeatkitError):
        focal = images.focal_length_px(bytes(data))
        assert focal is None or focal > 0
    assert capfd.readouterr() == ("", "")


# --- limits, and the state of others


REFUSE_BOMB = """
import re, resource, sys
from pathlib import Path
from featkit import images
from featkit.errors import ImageTooLarge
data = images.read_bytes(sys.argv[1])
for act in (images.measure, images.decode):
    try:
        act(data)
    except ImageTooLarge:
        continue
    sys.exit("not refused")
assert "cv2" not in sys.modules, "OpenCV was imported for nothing"
assert "PIL" not in sys.modules, "Pillow was imported for nothing"
status = Path("/proc/self/status")
if status.exists():  # getrusage counts the memory of the process that this one was forked from
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_a_picture_of_225_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bad_pictures.bomb())
    assert path.stat().st_size < 230_000
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REFUSE_BOMB, path], capture_output=True, env=_with_featkit(), check=True
    )
    assert int(done.stdout) < 100e6


def test_a_directory_made_to_exhaust_a_reader_is_refused() -> None:
    """60,000 tags of a TIFF that each claim the whole file: 43 GB, were they copied."""
    entries = b"".join(struct.pack("<HHII", tag, 1, 720_014, 0) for tag in range(60_000))
    data = b"II*\0" + struct.pack("<IH", 8, 60_000) + entries + bytes(4)
    before = time.process_time()
    with pytest.raises(FeatkitError):
        measure(data)
    assert time.process_time() - before < 10


def test_the_limit_on_pixels_is_an_option_and_the_hint_says_so() -> None:
    data = pillow(scene(), "PNG")
    assert decode(data, DecodeOptions(max_pixels=64 * 48)).shape == (48, 64, 3)
    for act in (decode, measure):
        with pytest.raises(ImageTooLarge, match="64 × 48") as caught:
            act(data, DecodeOptions(max_pixels=64 * 48 - 1))
        assert "--max-pixels 3072" in str(caught.value.hint)


def test_the_limit_on_pixels_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # 3072 pixels would warn, and warnings are errors here
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        assert decode(pillow(scene(), form)).shape == (48, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 2000


def test_a_program_that_lets_pillow_read_cut_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        decode(pillow(scene(), "JPEG"))


def test_threads_share_the_decoder() -> None:
    files = [*bad_pictures.good().values()] * 3
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(a, b) for a, b in zip(pool.map(decode, files), expected, strict=True))


@pytest.mark.parametrize(
    "options",
    [{"max_pixels": 0}, {"frame": -1}, {"float_range": (1.0, 1.0)}, {"float_range": (0.0, float("nan"))}],
)
def test_options_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DecodeOptions(**options)


# --- files


def test_a_picture_knows_its_hash_and_its_size(tmp_path: Path) -> None:
    path = tmp_path / "abc.ppm"
    data = b"P5 2 1 255\n\x00\xff"
    path.write_bytes(data)
    picture = images.load(path)
    assert picture.size == (2, 1)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()
    assert not picture.pixels.flags.writeable


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            images.read_bytes(fifo)
        except FeatkitError as error:
            outcome.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(outcome[0], NotAFile)


def test_a_file_that_fails_to_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(pillow(scene(), "PNG"))

    def refuse(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileUnreadable, match="Permission denied") as caught:
        images.read_bytes(path)
    assert "permissions" in str(caught.value.hint)


def test_a_name_that_no_file_can_have() -> None:
    for name in ("", "a\0b", "x" * 5000):
        with pytest.raises(FeatkitError) as caught:
            images.read_bytes(name)
        assert caught.value.code == "missing"


# --- camera


def test_focal_length_from_the_equivalent() -> None:
    data = pillow(np.zeros((2400, 3600, 3), np.uint8), "JPEG", exif=exif(FocalLengthIn35mmFilm=36))
    assert images.focal_length_px(data) == pytest.approx(3600)  # 3:2 like the film, so 36 mm span the width


def test_focal_length_from_the_focal_plane() -> None:
    tags = {"FocalLength": 10.0, "FocalPlaneXResolution": 254.0, "FocalPlaneResolutionUnit": 2, "ExifImageWidth": 200}
    for form in ("JPEG", "PNG", "WEBP"):
        full = pillow(np.zeros((100, 200, 3), np.uint8), form, exif=exif(**tags))
        assert images.focal_length_px(full) == pytest.approx(100)  # 10 pixels a millimetre
        half = pillow(np.zeros((50, 100, 3), np.uint8), form, exif=exif(**tags))
        assert images.focal_length_px(half) == pytest.approx(50)


@pytest.mark.parametrize("tags", [{}, {"FocalLength": 10.0}, {"FocalLengthIn35mmFilm": 0}])
def test_without_a_focal_length_there_is_none(tags: dict[str, float]) -> None:
    assert images.focal_length_px(pillow(scene(), "JPEG", exif=exif(**tags))) is None


def test_focal_length_of_a_calibrated_camera(shared_data: Path) -> None:
    calibrated = float((shared_data / "sceaux" / "K.txt").read_text().split()[0])
    for path in sorted((shared_data / "sceaux").glob("*.JPG")):
        assert images.focal_length_px(path.read_bytes()) == pytest.approx(calibrated, rel=0.02)


# --- sizes and colours


@pytest.mark.parametrize("scale", [0.25, 0.37, 0.5, 0.731, 1.3, 2.0])
def test_a_point_moves_as_rescale_points_says(scale: float) -> None:
    y, x = np.mgrid[0:200, 0:301]
    centre = np.array([[150.3, 97.6]])
    blob = 255 * np.exp(-((x - centre[0, 0]) ** 2 + (y - centre[0, 1]) ** 2) / (2 * 12**2))
    small = images.resize(np.rint(blob).astype(np.uint8), scale).astype(float)
    assert small.shape == (round(200 * scale), round(301 * scale))
    y, x = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
    found = np.array([[(x * small).sum(), (y * small).sum()]]) / small.sum()
    assert np.abs(found - images.rescale_points(centre, scale)).max() < 0.02


def test_rescaling_keeps_the_outer_edges() -> None:
    assert images.rescale_points(np.array([[-0.5, 99.5]]), 0.5).tolist() == [[-0.5, 49.5]]


def test_resize_never_vanishes() -> None:
    assert images.resize(np.zeros((3, 100, 3), np.uint8), 0.01).shape == (1, 1, 3)


def test_scale_to_fit() -> None:
    assert images.scale_to_fit((400, 300), 200) == 0.5
    assert images.scale_to_fit((300, 400), 200) == 0.5
    assert images.scale_to_fit((40, 30), 200) == 1
    assert images.scale_to_fit((400, 300), None) == 1


def test_gray_has_the_weights_of_bt_601() -> None:
    gray = images.to_gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8))
    assert gray.tolist() == [[76, 150, 29, 255]]


# --- encoding


@pytest.mark.parametrize("extension", [".png", ".tif", ".tiff", ".bmp", ".ppm", ".PNG"])
def test_lossless_encoding_comes_back(extension: str) -> None:
    assert difference(decode(images.encode(scene(), extension)), scene()) == 0
    gray = np.ascontiguousarray(scene()[..., 2])
    assert difference(decode(images.encode(gray, extension)), grey(gray)) == 0


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp"])
def test_lossy_encoding_obeys_quality(extension: str) -> None:
    assert difference(decode(images.encode(scene(), extension, quality=97)), scene()) <= JPEG_TOLERANCE
    assert len(images.encode(scene(), extension, quality=30)) < len(images.encode(scene(), extension, quality=97))


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm"])
def test_encoding_is_deterministic(extension: str) -> None:
    assert images.encode(scene(), extension) == images.encode(scene().copy(), extension)


@pytest.mark.parametrize("extension", ["", ".gif", ".txt", "png"])
def test_an_unknown_extension_names_the_known_ones(extension: str) -> None:
    with pytest.raises(UsageError) as caught:
        images.encode(scene(), extension)
    assert ".png" in str(caught.value.hint)


def test_a_picture_too_wide_for_its_format() -> None:
    with pytest.raises(UsageError, match="16383"):
        images.encode(np.zeros((1, 16384, 3), np.uint8), ".webp")


def test_save_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.save(path, scene())
    assert difference(images.load(path).pixels, scene()) == 0
    with pytest.raises(OutputExists):
        images.save(path, scene())
    images.save(path, scene()[::-1], force=True)
    assert difference(images.load(path).pixels, scene()[::-1]) == 0
