"""Picture files of every kind that users point at, good and bad, made on the spot; shared by several tests.

`make_all(folder)` writes the whole table and says what has to come of each file.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from featkit.errors import (
    FeatkitError,
    FileMissing,
    FileUnreadable,
    ImageDamaged,
    ImageEmpty,
    ImageTooLarge,
    ImageUnknown,
    ImageUnsupported,
    NotAFile,
)

Pixels = npt.NDArray[Any]
Expected = Literal["ok"] | type[FeatkitError]


# --- pixels


def scene(width: int = 64, height: int = 48) -> Pixels:
    """A smooth RGB picture that differs from each of its mirrored and turned versions."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    channels = [255 * x / width, 255 * y / height, 128 + 60 * np.sin(x / 20 + y / 15)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def deep(channels: int, width: int = 50, height: int = 40) -> Pixels:
    """uint16 noise that holds the extremes and the values around a rounding step of v / 257."""
    samples = np.random.default_rng(0).integers(0, 65536, (height, width, channels), dtype=np.uint16)
    samples[0, :6] = np.array([0, 128, 129, 65406, 65407, 65535])[:, None]
    return samples


# --- files


def pillow(pixels: Pixels | Image.Image, name: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def tiff(pixels: Pixels, **options: Any) -> bytes:
    """The file that tifffile writes (it comes with scikit-image)."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    rows: Sequence[bytes] | bytes, width: int, height: int, depth: int, colour: int, *extra: bytes, interlace: int = 0
) -> bytes:
    """A PNG by hand: rows without their filter byte, or the compressed stream itself; chunks `extra` before them."""
    stream = rows if isinstance(rows, bytes) else zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)),
            *extra,
            png_chunk(b"IDAT", stream),
            png_chunk(b"IEND", b""),
        ]
    )


def deep_png(samples: Pixels, *extra: bytes) -> bytes:
    """A 16-bit PNG of H×W×C samples: grey, grey with alpha, RGB, RGBA for C = 1 … 4."""
    height, width, channels = samples.shape
    rows = [row.astype(">u2").tobytes() for row in samples]
    return png(rows, width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], *extra)


def exif(orientation: int = 1, **tags: float) -> Image.Exif:
    """An EXIF block; tags: FocalLength, FocalLengthIn35mmFilm, FocalPlaneXResolution, … as Pillow names them."""
    from PIL import ExifTags

    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    block.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base[name]: value for name, value in tags.items()})
    return block


CORRUPT_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\x7f\xff\xff\xff\x7f\x69\x87\x04\0"


def as_stored(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores so that `orientation` turns it into `upright`; by the words of the EXIF standard."""
    return {
        1: lambda p: p,
        2: np.fliplr,  # row 0 is the top, column 0 the right side
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: np.swapaxes(p, 0, 1),  # row 0 is the left side, column 0 the top
        6: lambda p: np.rot90(p, 1),  # to be turned clockwise: stored counter-clockwise
        7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](upright)


@functools.cache
def bomb() -> bytes:
    """A PNG of 15,000 × 15,000 grey pixels in 219 kB."""
    compressor = zlib.compressobj(9)
    row = bytes(15_001)
    stream = b"".join([*(compressor.compress(row) for _ in range(15_000)), compressor.flush()])
    return png(stream, 15_000, 15_000, 8, 0)


def pfm(samples: Pixels) -> bytes:
    height, width = samples.shape
    return b"Pf\n%d %d\n-1.0\n" % (width, height) + samples[::-1].astype("<f4").tobytes()


def flipped(data: bytes, at: int) -> bytes:
    """The same bytes with one bit changed."""
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def good() -> dict[str, bytes]:
    """One file of every kind that has to be read without options."""
    rgb = scene()
    image = Image.fromarray(rgb)
    files = {
        "plain.jpg": pillow(rgb, "JPEG", quality=95),
        "progressive.jpg": pillow(rgb, "JPEG", quality=95, progressive=True),
        "grey.jpg": pillow(image.convert("L"), "JPEG"),
        "cmyk.jpg": pillow(image.convert("CMYK"), "JPEG"),
        "trailing bytes.jpg": pillow(rgb, "JPEG") + b"appended by some program" * 9,
        "corrupt exif.jpg": pillow(rgb, "JPEG", exif=CORRUPT_EXIF),
        "two pictures.mpo": pillow(image, "MPO", save_all=True, append_images=[image.rotate(180)]),
        "plain.png": pillow(rgb, "PNG"),
        "palette.png": pillow(image.convert("P"), "PNG"),
        "palette transparent.png": pillow(image.convert("P"), "PNG", transparency=3),
        "rgba.png": pillow(image.convert("RGBA"), "PNG"),
        "grey.png": pillow(image.convert("L"), "PNG"),
        "grey alpha.png": pillow(image.convert("LA"), "PNG"),
        "one bit.png": pillow(image.convert("1"), "PNG"),
        "grey 16.png": deep_png(deep(1)),
        "grey alpha 16.png": deep_png(deep(2)),
        "rgb 16.png": deep_png(deep(3)),
        "rgba 16.png": deep_png(deep(4)),
        "plain.webp": pillow(rgb, "WEBP", quality=95),
        "lossless alpha.webp": pillow(image.convert("RGBA"), "WEBP", lossless=True),
        "plain.bmp": pillow(rgb, "BMP"),
        "palette.bmp": pillow(image.convert("P"), "BMP"),
        "one bit.bmp": pillow(image.convert("1"), "BMP"),
        "plain.ppm": pillow(rgb, "PPM"),
        "grey.pgm": pillow(image.convert("L"), "PPM"),
        "one bit.pbm": pillow(image.convert("1"), "PPM"),
        "grey 16.pgm": b"P5\n50 40\n65535\n" + deep(1).astype(">u2").tobytes(),
        "text.ppm": b"P3 2 1 # comment\n9\n9 0 0  0 9 0\n",
        "rgb 16.tif": tiff(deep(3), photometric="rgb"),
        "grey 16.tif": tiff(deep(1)[..., 0], photometric="minisblack"),
        "big endian bigtiff.tif": tiff(rgb, photometric="rgb", bigtiff=True, byteorder=">"),
        "tiles.tif": tiff(rgb, photometric="rgb", tile=(16, 16), compression="zlib"),
        "grey.tif": pillow(image.convert("L"), "TIFF"),
        "palette.tif": pillow(image.convert("P"), "TIFF"),
        "cmyk.tif": pillow(image.convert("CMYK"), "TIFF"),
        "fax.tif": pillow(image.convert("1"), "TIFF", compression="group4"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"{compression}.tif"] = pillow(rgb, "TIFF", compression=compression)
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(as_stored(rgb, orientation))
        files[f"orientation {orientation}.jpg"] = pillow(stored, "JPEG", quality=95, exif=exif(orientation))
    return files


def bad() -> dict[str, tuple[bytes, type[FeatkitError]]]:
    """One file of every kind that has to be refused, and how."""
    rgb = scene()
    image = Image.fromarray(rgb)
    jpeg, progressive = pillow(rgb, "JPEG"), pillow(rgb, "JPEG", progressive=True)
    whole_png, webp, lzw = pillow(rgb, "PNG"), pillow(rgb, "WEBP"), pillow(rgb, "TIFF", compression="tiff_lzw")
    bmp, ppm, raw_tiff = pillow(rgb, "BMP"), pillow(rgb, "PPM"), tiff(deep(3), photometric="rgb")
    files: dict[str, tuple[bytes, type[FeatkitError]]] = {
        "empty.jpg": (b"", ImageEmpty),
        "text.jpg": (b"This is no picture.\n", ImageUnknown),
        "page.jpg": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", ImageUnknown),
        "noise.png": (bytes(range(7, 200)), ImageUnknown),
        "moving.gif": (pillow(image, "GIF"), ImageUnknown),
        "one byte wrong in the pixels.png": (flipped(whole_png, len(whole_png) // 2), ImageDamaged),
        "one byte wrong in a checksum.png": (flipped(whole_png, len(whole_png) - 14), ImageDamaged),
        "one byte wrong in the end.png": (flipped(whole_png, len(whole_png) - 1), ImageDamaged),
        "bomb.png": (bomb(), ImageTooLarge),
        "float.tif": (pillow(image.convert("F"), "TIFF"), ImageUnsupported),
        "integers.tif": (pillow(image.convert("I"), "TIFF"), ImageUnsupported),
        "float.pfm": (pfm(rgb[..., 0]), ImageUnsupported),
        "two pages.tif": (pillow(image, "TIFF", save_all=True, append_images=[image.rotate(9)]), ImageUnsupported),
        "animated.png": (pillow(image, "PNG", save_all=True, append_images=[image.rotate(9)]), ImageUnsupported),
        "animated.webp": (pillow(image, "WEBP", save_all=True, append_images=[image.rotate(9)]), ImageUnsupported),
        "lab.tif": (pillow(Image.frombytes("LAB", image.size, image.tobytes()), "TIFF"), ImageUnsupported),
    }
    cut = {"": jpeg, " progressive": progressive}
    for name, data in cut.items():
        files[f"half{name}.jpg"] = data[: len(data) // 2], ImageDamaged
        files[f"minus 2 bytes{name}.jpg"] = data[:-2], ImageDamaged
    for name, data in {"png": whole_png, "webp": webp, "tif": raw_tiff, "bmp": bmp, "ppm": ppm}.items():
        files[f"half.{name}"] = data[: len(data) // 2], ImageDamaged
        files[f"minus 2 bytes.{name}"] = data[:-2], ImageDamaged
    files["half lzw.tif"] = lzw[: len(lzw) // 2], ImageDamaged
    return files


def make_all(folder: Path) -> dict[str, tuple[Path, Expected]]:
    """Write the whole table into `folder`: name of the case -> (path, "ok" or the error that has to come).

    Besides the files of `good` and `bad`: a folder, a missing name, a FIFO, a device, an unreadable file (unless the
    user may read everything), a link that leads nowhere, and names with spaces, a newline and bytes that are not UTF-8.
    """
    table: dict[str, tuple[Path, Expected]] = {}

    def write(name: str, data: bytes, expected: Expected) -> None:
        path = folder / name
        path.write_bytes(data)
        table[name] = path, expected

    for name, data in good().items():
        write(name, data, "ok")
    for name, (data, error) in bad().items():
        write(name, data, error)
    picture = pillow(scene(), "PNG")
    for name in ("a name  with spaces .png", "a name\nof two lines.png", os.fsdecode(b"not \xff\xfe UTF-8.png")):
        try:
            write(name, picture, "ok")
        except OSError:  # a file system that takes UTF-8 alone
            continue
    table["folder"] = folder / "folder.png", NotAFile
    table["folder"][0].mkdir()
    table["missing"] = folder / "missing.png", FileMissing
    table["inside a file"] = folder / "plain.png" / "inside.png", FileMissing
    table["dangling link"] = folder / "link.png", FileMissing
    table["dangling link"][0].symlink_to(folder / "nowhere.png")
    table["fifo"] = folder / "fifo.png", NotAFile
    os.mkfifo(table["fifo"][0])
    table["device"] = Path(os.devnull), NotAFile
    unreadable = folder / "unreadable.png"
    unreadable.write_bytes(picture)
    unreadable.chmod(0)
    if not os.access(unreadable, os.R_OK):
        table["unreadable"] = unreadable, FileUnreadable
    return table
