"""JPEG: ITU-T T.81."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from featkit.containers.exif import orientation_of, read_exif
from featkit.containers.headers import CONVERT, Header, check_size
from featkit.errors import ImageDamaged, ImageUnsupported

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_READABLE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; Huffman and arithmetic
_KEPT_APPS = {0xE0, 0xEE}  # JFIF and Adobe: both decide about the colours


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to and with the start of scan."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if not 0 <= at < len(data):
            raise ImageDamaged("the JPEG is cut short in its header")
        marker = data[at]
        start, at = at - 1, at + 1
        if marker == 0 or marker in _WITHOUT_LENGTH:
            continue
        if marker == 0xD9:
            raise ImageDamaged("the JPEG ends before its picture")
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end < at + 2 or end > len(data):
            raise ImageDamaged("the JPEG is cut short in its header")
        yield marker, start, end
        if marker == 0xDA:
            return
        at = end


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    size: tuple[int, int] | None = None
    exif: dict[int, float] = {}
    view = memoryview(data)
    kept = [view[:2]]
    components = scan = 0
    adobe = False
    for marker, start, end in _segments(data):
        body = data[start + 4 : end]
        if marker in _FRAMES:
            if len(body) < 6:
                raise ImageDamaged("the JPEG has a frame header that is too short")
            precision, height, width, components = struct.unpack_from(">BHHB", body)
            if marker not in _READABLE or precision != 8:
                raise ImageUnsupported("this is a lossless, hierarchical or 12-bit JPEG", hint=CONVERT)
            if components not in (1, 3, 4):
                raise ImageUnsupported(f"a JPEG of {components} components has no defined colours", hint=CONVERT)
            if size is not None:
                raise ImageDamaged("the JPEG has two frame headers")
            size = width, height
        elif marker == 0xEE and body[:5] == b"Adobe":
            adobe = True
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and not exif:
            exif = read_exif(body[6:])
        if marker == 0xDA:
            scan = start
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in _KEPT_APPS:
            kept.append(view[start:end])
    if size is None:
        raise ImageDamaged("the JPEG has no frame header")
    check_size(size)
    if components == 4 and not adobe:  # Pillow takes its inks for inverted, Skia and ImageMagick do not
        raise ImageUnsupported("this JPEG has four colours and does not say which", hint="convert it to RGB first")
    return Header(
        format="JPEG",
        width=size[0],
        height=size[1],
        stripped=lambda: b"".join([*kept, view[scan:]]),
        orientation=orientation_of(exif),
        exif=exif,
    )
