"""WebP: RFC 9649."""

from __future__ import annotations

from collections.abc import Iterator

from featkit.containers.exif import orientation_of, read_exif
from featkit.containers.headers import Header, check_size
from featkit.errors import ImageDamaged


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk's body."""
    at, stop = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= stop:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + (length & 1)


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    size = None
    frames = 0
    exif: dict[int, float] = {}
    pixels: list[tuple[bytes, int, int]] = []
    extended = False
    for kind, start, end in _chunks(data):
        body = data[start : min(end, start + 16)]
        if kind == b"VP8X" and len(body) >= 10:
            extended = True
            size = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F and size is None:
            bits = int.from_bytes(body[1:5], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a" and size is None:
            size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        elif kind == b"EXIF":
            exif = read_exif(data[start:end].removeprefix(b"Exif\0\0"))
        frames += kind == b"ANMF"
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            pixels.append((kind, start, end))
    if size is None:
        raise ImageDamaged("the WebP has no readable header")
    check_size(size)

    def stripped() -> bytes:
        if len(data) < 8 + int.from_bytes(data[4:8], "little") or any(end > len(data) for _, _, end in pixels):
            raise ImageDamaged("the WebP is cut short")
        parts = []
        for kind, start, end in pixels:
            body = data[start:end]
            if kind == b"VP8X":  # keep the flags "alpha" (0x10) and "animation" (0x02), drop ICC, EXIF and XMP
                body = bytes([body[0] & 0x12]) + body[1:]
            parts += [kind, (end - start).to_bytes(4, "little"), body, b"\0" * (len(body) & 1)]
        content = b"".join([b"WEBP", *parts])
        return b"".join([b"RIFF", len(content).to_bytes(4, "little"), content])

    return Header(
        format="WebP",
        width=size[0],
        height=size[1],
        stripped=stripped,
        orientation=orientation_of(exif),
        frames=max(1, frames) if extended else 1,
        exif=exif,
    )
