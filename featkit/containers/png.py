"""PNG, and animated PNG: 3rd edition (W3C, 2025)."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence

from featkit.containers.exif import orientation_of, read_exif
from featkit.containers.headers import CONVERT, Header, PngHeader, check_size
from featkit.errors import ImageDamaged, ImageUnsupported

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INTERLACE = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_LAST_FILTER = 4
_MOST_FRAMES = 2**31


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, length and CRC included, up to and with IEND."""
    at = len(_SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise ImageDamaged("the PNG is cut short")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageDamaged("the PNG is cut short")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    if data[:8] != _SIGNATURE:
        raise ImageDamaged("the PNG's signature is damaged", hint="it may have been transferred as text")
    if data[12:16] == b"CgBI":
        raise ImageUnsupported("this is Apple's variant of PNG out of an app", hint=CONVERT)
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise ImageDamaged("the PNG does not begin with its header")
    width, height, depth, colour, compression, filters, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise ImageDamaged("the PNG's header makes no sense")
    check_size((width, height))

    def chunk(start: int, end: int) -> bytes:
        return data[start + 8 : end - 4]

    chunks = []
    first: dict[bytes, tuple[int, int]] = {}
    cut: ImageDamaged | None = None
    try:
        for kind, start, end in _chunks(data):
            chunks.append((kind, start, end))
            first.setdefault(kind, (start, end))
    except ImageDamaged as error:
        cut = error  # the size has to be known first: a limit on pixels is the better answer

    frames = 1
    if b"acTL" in first and b"fcTL" in first and b"IDAT" in first and first[b"acTL"] < first[b"IDAT"]:
        animation = chunk(*first[b"acTL"])
        declared = struct.unpack_from(">I", animation)[0] if len(animation) >= 8 else 0
        if 0 < declared <= _MOST_FRAMES:
            frames = declared + (first[b"fcTL"] > first[b"IDAT"])

    def stripped() -> bytes:
        if cut is not None:
            raise cut
        compressed: list[bytes | memoryview] = []
        wanted = {b"IHDR"} | ({b"PLTE"} if colour == 3 else set())
        if frames > 1:
            wanted |= {b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT"}
        view = memoryview(data)
        kept: list[bytes | memoryview] = [view[: len(_SIGNATURE)]]
        for kind, start, end in chunks:
            if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ImageDamaged(f"a checksum of the PNG is wrong (chunk {kind.decode('latin-1')!r})")
            if kind in wanted:
                kept.append(view[start:end])
            elif kind == b"IDAT":
                compressed.append(view[start + 8 : end - 4])
            elif kind not in (b"PLTE", b"IEND") and not kind[0] & 0x20:
                raise ImageUnsupported(f"the PNG needs an unknown extension ({kind.decode('latin-1')!r})")
        if b"IDAT" not in first or (colour == 3 and b"PLTE" not in first):
            raise ImageDamaged("the PNG has no pixels or no palette")
        if frames > 1:
            return b"".join(kept)
        rows = _rows(width, height, depth * _CHANNELS[colour], interlace)
        return b"".join([*kept, _chunk(b"IDAT", _checked_idat(b"".join(compressed), rows)), _chunk(b"IEND", b"")])

    exif = read_exif(chunk(*first[b"eXIf"]).removeprefix(b"Exif\0\0")) if b"eXIf" in first else {}
    return PngHeader(
        format="PNG",
        width=width,
        height=height,
        stripped=stripped,
        orientation=orientation_of(exif),
        frames=frames,
        samples="16-bit" if depth == 16 else "8-bit",
        exif=exif,
        depth=depth,
        colour=colour,
        palette=chunk(*first[b"PLTE"]) if b"PLTE" in first else b"",
        transparency=chunk(*first[b"tRNS"]) if b"tRNS" in first else b"",
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))])


def _rows(width: int, height: int, pixel_bits: int, interlace: int) -> list[tuple[int, int]]:
    """(rows, bytes a row with its filter) of each pass over the picture."""
    passes = _INTERLACE if interlace else ((0, 0, 1, 1),)
    sizes = [(math.ceil((width - left) / right), math.ceil((height - top) / down)) for left, top, right, down in passes]
    return [(rows, 1 + (columns * pixel_bits + 7) // 8) for columns, rows in sizes if rows > 0 and columns > 0]


def _checked_idat(compressed: bytes, rows: Sequence[tuple[int, int]]) -> bytes:
    """The pixel stream, inflated, checked, without what may follow it, and stored as it is.

    Pillow fills the rows that a stream lacks with black; libpng, inside OpenCV, complains on stderr from C. The decoder
    then has a memory copy to do in place of inflating.
    """
    stream = zlib.decompressobj()
    expected = sum(count * length for count, length in rows)
    raw = stream.decompress(compressed, expected)
    surplus = stream.decompress(stream.unconsumed_tail, 1)  # reaches the checksum, which zlib verifies
    if len(raw) < expected or not (stream.eof or surplus):
        raise ImageDamaged("the PNG's pixels are cut short")
    at = 0
    for count, length in rows:
        if max(raw[at : at + count * length : length]) > _LAST_FILTER:
            raise ImageDamaged("the PNG's pixels are damaged")
        at += count * length
    return zlib.compress(raw, 0)
