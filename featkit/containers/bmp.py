"""BMP: Microsoft's BITMAPINFOHEADER and its like."""

from __future__ import annotations

import struct

from featkit.containers.headers import CONVERT, Header, check_size
from featkit.errors import ImageDamaged, ImageUnsupported


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    if len(data) < 26:
        raise ImageDamaged("the BMP is cut short in its header")
    pixels, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = size = 0
    else:
        if len(data) < 14 + header:
            raise ImageDamaged("the BMP is cut short in its header")
        width, height, _, depth, compression, size = struct.unpack_from("<iiHHII", data, 18)
    height = abs(height)
    check_size((width, height))
    if depth not in (1, 4, 8, 16, 24, 32) or compression not in (0, 1, 2, 3):
        raise ImageUnsupported("this is a rare kind of BMP", hint=CONVERT)
    needed = size if compression in (1, 2) else (width * depth + 31) // 32 * 4 * height
    if pixels < 14 + header:
        raise ImageDamaged("the BMP's header makes no sense")

    def stripped() -> bytes:
        if pixels + needed > len(data):
            raise ImageDamaged("the BMP is cut short")
        return data

    return Header(format="BMP", width=width, height=height, stripped=stripped)
