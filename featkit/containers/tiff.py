"""TIFF 6.0 and BigTIFF."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from featkit.containers.directories import MOST_ENTRIES, Field, Tiff
from featkit.containers.exif import exif_of, orientation_of
from featkit.containers.headers import CONVERT, Header, Samples, TiffHeader, check_size
from featkit.errors import ImageDamaged, ImageUnsupported

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 320, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBFILE = 338, 339, 254
_FILL_ORDER, _T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _JPEG_TABLES = 266, 292, 293, 317, 347
_YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING, _REFERENCE_BLACK_WHITE = 529, 530, 532
_SCALARS = {
    _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _PLANAR,
    _T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT,
}  # fmt: skip
_LISTS = {
    _BITS, _STRIP_OFFSETS, _STRIP_BYTES, _COLOUR_MAP, _TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT,
    _JPEG_TABLES, _YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING, _REFERENCE_BLACK_WHITE,
}  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
PREMULTIPLIED_ALPHA, STRAIGHT_ALPHA = 1, 2  # ExtraSamples; 0 is a sample without a meaning
_CAMERA_RAW = (32803, 34892)  # photometric CFA and LinearRaw
# none, CCITT (3 kinds), LZW, JPEG, deflate (2 codes), PackBits, LZMA, Zstandard
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32946, 32773, 34925, 50000)
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat
_LARGEST_TILE = 64_000_000  # pixels; Pillow warns on its own account at 89 million
_LARGEST_CLASSIC_TIFF = 2**32 - 1


def _directories(tiff: Tiff) -> list[dict[int, Field]]:
    """The directories of full pictures; previews and transparency masks (NewSubfileType 1 and 4) are left out."""
    pictures: list[dict[int, Field]] = []
    seen: set[int] = set()
    at, entries = tiff.first, 0
    while at and at not in seen:
        seen.add(at)
        try:
            fields, at = tiff.directory(at)
        except struct.error:
            raise ImageDamaged("the TIFF is cut short") from None
        entries += len(fields)
        if entries > MOST_ENTRIES:
            raise ImageDamaged("the TIFF's directories make no sense")
        if not (tiff.integers(fields.get(_SUBFILE)) or (0,))[0] & 5:
            pictures.append(fields)
    if not pictures:
        if seen:
            raise ImageUnsupported(
                "this TIFF holds previews alone", hint="a camera's raw file has to be developed to JPEG or TIFF first"
            )
        raise ImageDamaged("the TIFF holds no picture")
    return pictures


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    if len(data) < 16:
        raise ImageDamaged("the TIFF is cut short")
    tiff = Tiff.open(data)
    pictures = _directories(tiff)
    fields = pictures[frame if frame < len(pictures) else 0]
    exif = exif_of(tiff, fields)
    fields = {tag: entry for tag, entry in fields.items() if tag in _SCALARS | _LISTS}
    if not all(entry.whole for entry in fields.values()):
        raise ImageDamaged("the TIFF is cut short in its header, or it is damaged")
    numbers = {tag: tiff.integers(entry) for tag, entry in fields.items()}

    def number(tag: int, default: int) -> int:
        return (numbers.get(tag) or (default,))[0]

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    check_size((width, height))
    photometric, channels = number(_PHOTOMETRIC, -1), number(_SAMPLES_PER_PIXEL, 1)
    planar = number(_PLANAR, 1) == 2 and channels > 1
    samples = _samples(numbers, photometric=photometric, channels=channels, planar=planar)

    def stripped() -> bytes:
        _check_layout(numbers, width=width, height=height, planes=channels if planar else 1, length=len(data))
        return _rewrite_tiff(tiff, fields, numbers)

    return TiffHeader(
        format="TIFF",
        width=width,
        height=height,
        stripped=stripped,
        orientation=orientation_of(exif),
        frames=len(pictures),
        samples=samples,
        exif=exif,
        photometric=photometric,
        channels=channels,
        extra=number(_EXTRA_SAMPLES, 0),
    )


def _samples(numbers: Mapping[int, Sequence[int]], *, photometric: int, channels: int, planar: bool) -> Samples:
    """The kind of samples; raises ImageUnsupported for the variants of TIFF that no decoder at hand gets right."""
    if photometric in _CAMERA_RAW:
        raise ImageUnsupported("this is a camera's raw file", hint="develop it to JPEG, PNG or TIFF first")
    if photometric not in _COLOURS:
        raise ImageUnsupported(
            f"its colours are not RGB, grey, palette, CMYK or YCbCr (photometric interpretation {photometric})",
            hint="convert it to RGB first",
        )
    if channels - _COLOURS[photometric] not in (0, 1):
        raise ImageUnsupported(f"{channels} samples a pixel are no defined colour", hint="convert it to RGB first")
    compression = (*numbers.get(_COMPRESSION, ()), 1)[0]
    if compression not in _COMPRESSIONS:
        raise ImageUnsupported(
            f"its TIFF compression (number {compression}) is not one that featkit reads", hint=CONVERT
        )
    depths, formats = set(numbers.get(_BITS, (1,))), set(numbers.get(_SAMPLE_FORMAT, (1,)))
    if len(depths) != 1 or len(formats) != 1:
        raise ImageUnsupported("it mixes kinds of samples", hint=CONVERT)
    (depth,), (kind,) = depths, formats
    if kind in (_UNSIGNED, _UNDEFINED) and depth in (1, 2, 4, 8):
        return "8-bit"
    # From here on by OpenCV, which gets separate planes wrong, and knows no inverted floats nor grey with alpha.
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or planar or channels == 2:
        raise ImageUnsupported(
            f"samples of {depth} bits are read as grey or as interleaved RGB alone",
            hint="convert it to 8-bit RGB first",
        )
    if kind in (_UNSIGNED, _UNDEFINED) and depth == 16:
        return "16-bit"
    known = (32, 64) if kind == _FLOAT else (8, 16, 32, 64) if kind in (_UNSIGNED, _SIGNED) else ()
    if depth not in known or photometric == WHITE_IS_ZERO:
        raise ImageUnsupported(f"its kind of samples ({depth} bits, format {kind}) is not one that featkit reads")
    return "float"


def _check_layout(numbers: Mapping[int, Sequence[int]], *, width: int, height: int, planes: int, length: int) -> None:
    """Every strip or tile that the size asks for is listed and lies inside the file."""
    if _TILE_OFFSETS in numbers:
        tile_width, tile_height = (*numbers.get(_TILE_WIDTH, ()), 0)[0], (*numbers.get(_TILE_HEIGHT, ()), 0)[0]
        if tile_width <= 0 or tile_height <= 0 or tile_width * tile_height > _LARGEST_TILE:
            raise ImageDamaged("the TIFF's tiles make no sense")
        needed = math.ceil(width / tile_width) * math.ceil(height / tile_height)
        offsets, sizes = numbers[_TILE_OFFSETS], numbers.get(_TILE_BYTES, ())
    else:
        rows = (*numbers.get(_ROWS_PER_STRIP, ()), height)[0] or height
        needed = math.ceil(height / rows)
        offsets, sizes = numbers.get(_STRIP_OFFSETS, ()), numbers.get(_STRIP_BYTES, ())
    if len(offsets) < needed * planes or len(sizes) < needed * planes:
        raise ImageDamaged("the TIFF lists fewer strips or tiles than its size needs")
    if any(offset + size > length for offset, size in zip(offsets, sizes, strict=False)):
        raise ImageDamaged("the TIFF is cut short")


def _rewrite_tiff(tiff: Tiff, fields: Mapping[int, Field], numbers: Mapping[int, Sequence[int]]) -> bytes:
    """The same file with one directory, at its end, that holds `fields` alone; always a classic TIFF, as Pillow cannot
    read a big-endian BigTIFF."""
    order, start = tiff.order, len(tiff.data) + len(tiff.data) % 2
    after = start + 2 + 12 * len(fields) + 4
    if after > _LARGEST_CLASSIC_TIFF:
        raise ImageUnsupported("a TIFF of more than 4 GB is not one that featkit reads", hint=CONVERT)
    entries, payload = [], b""
    for tag, entry in sorted(fields.items()):
        kind, count, value = entry.kind, entry.count, bytes(entry.raw)
        if tag in _SCALARS:
            kind, count, value = 4, 1, struct.pack(order + "I", numbers[tag][0])
        elif kind == 16:
            kind, value = 4, struct.pack(f"{order}{count}I", *numbers[tag])
        if len(value) > 4:
            payload += value + b"\0" * (len(value) % 2)
            value = struct.pack(order + "I", after + len(payload) - len(value) - len(value) % 2)
        entries.append(struct.pack(order + "HHI4s", tag, kind, count, value))
    return b"".join(
        [
            tiff.data[:2],
            struct.pack(order + "HI", 42, start),
            memoryview(tiff.data)[8:],
            b"\0" * (start - len(tiff.data)),
            struct.pack(order + "H", len(entries)),
            *entries,
            struct.pack(order + "I", 0),
            payload,
        ]
    )
