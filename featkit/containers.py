"""What the bytes of a picture file say about themselves, read without decoding a pixel.

`inspect` recognises the format by content and returns a `Header`: size, frames, kind of samples, orientation, EXIF,
and a copy of the file stripped to what a decoder needs for its pixels. The stripped copy makes decoding predictable: no
decoder sees an EXIF block, a colour profile, a text chunk or an unknown tag, so none can turn the picture a second
time, warn about damaged metadata (pictures are decoded in threads, where `warnings.catch_warnings` is not safe), or be
made to inflate a compressed comment.

Nothing here imports numpy, Pillow or OpenCV. Errors carry no path; `featkit.images` adds it.

References: PNG 3rd edition (W3C, 2025); ITU-T T.81 (JPEG); TIFF 6.0 and the BigTIFF extension; WebP container
specification (RFC 9649); Exif 2.32; Netpbm's format pages; Microsoft's BITMAPINFOHEADER.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from featkit.errors import ImageDamaged, ImageUnknown, ImageUnsupported

Samples = Literal["8-bit", "16-bit", "float"]


@dataclass(frozen=True, kw_only=True)
class Header:
    """One picture file, or one frame of it, before decoding.

    format: "JPEG", "PNG", "WebP", "TIFF", "BMP" or "PNM".
    width, height: pixels as stored, before the orientation.
    orientation: 1..8 as in EXIF; whatever is not readable counts as 1.
    frames: how many pictures the file offers (1: a still picture).
    samples: "8-bit" (or fewer), "16-bit", or "float" for every kind without a fixed black and white.
    exif: the tags of EXIF that featkit uses, see `read_exif`.
    stripped: gives the file without metadata; checks on the way whatever checksum and length the format declares.
    """

    format: str
    width: int
    height: int
    stripped: Callable[[], bytes]
    orientation: int = 1
    frames: int = 1
    samples: Samples = "8-bit"
    exif: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PngHeader(Header):
    """depth: bits a sample; colour: the colour type of IHDR; palette, transparency: the bodies of PLTE and tRNS."""

    depth: int
    colour: int
    palette: bytes
    transparency: bytes


@dataclass(frozen=True, kw_only=True)
class TiffHeader(Header):
    """photometric: its tag; channels: samples a pixel; extra: what the one beyond the colours is, 0 where none is."""

    photometric: int
    channels: int
    extra: int


@dataclass(frozen=True, kw_only=True)
class PnmHeader(Header):
    """kind: "P1" … "P6", "Pf" or "PF"; scale: the sample that is white, or for PFM the sign of the byte order."""

    kind: str
    scale: float

    @property
    def channels(self) -> int:
        return 3 if self.kind in ("P3", "P6", "PF") else 1


# --- which format


_CONVERT = "convert it to PNG, JPEG, WebP or TIFF first"
_NOT_FOR_FEATKIT: tuple[tuple[bytes, str, str | None], ...] = (
    (rb"GIF8[79]a", "a GIF, which featkit does not read", _CONVERT),
    (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "an HEIC/HEIF picture, which featkit does not read", _CONVERT),
    (rb"....ftypavi[fs]", "an AVIF picture, which featkit does not read", _CONVERT),
    (rb"....ftypcrx |FUJIFILMCCD-RAW", "a camera's raw file", "develop it to JPEG, PNG or TIFF first"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video", "extract frames from it first, for example with ffmpeg"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture, which featkit does not read", _CONVERT),
    (rb"\0\0\0\x0cjP  |\xffO\xffQ", "a JPEG 2000 picture, which featkit does not read", _CONVERT),
    (rb"8BPS", "a Photoshop document", "export it as PNG or TIFF first"),
    (rb"v/1\x01|#\?RADIANCE|#\?RGBE", "a high-dynamic-range picture", "tone-map it to PNG or TIFF first"),
    (rb"\0\0[\x01\x02]\0", "an icon or cursor file", _CONVERT),
    (rb"P7\s", "a PAM picture, which featkit does not read", _CONVERT),
    (rb"DDS |gimp xcf", "a picture in a format that featkit does not read", _CONVERT),
    (rb"%PDF", "a PDF document", "render its page to PNG first, for example with pdftoppm -png"),
    (rb"%!PS", "a PostScript document", "render it to PNG first"),
    (rb"\s*(<[^\0]{0,2000}?)?<(!doctype html|html|head|body)\b", "a web page, not a picture",
     "the download probably saved an error page instead of the picture"),
    (rb"\s*(<[^\0]{0,2000}?)?<(!doctype svg|svg)\b", "an SVG drawing", "render it to PNG first"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the picture", "fetch the pictures with: git lfs pull"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "an archive", "unpack it first"),
    (rb"\x93NUMPY|\x89HDF", "an array file, not a picture", None),
)  # fmt: skip
HEAD_BYTES = 4096  # what `identify` wants to see
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_PNM = re.compile(rb"P([1-6Ff])(?=[\s#])[\s]*(#|[0-9])")


def identify(head: bytes) -> str:
    """The format's name, from the first `HEAD_BYTES` of a file. Raises ImageUnknown for everything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS:
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    for pattern, what, hint in _NOT_FOR_FEATKIT:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise ImageUnknown(f"this is {what}", hint=hint)
    if not re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", head):
        raise ImageUnknown(
            "this is a text file, not a picture", hint="match and predict take a list of pictures with --files-from"
        )
    raise ImageUnknown(
        "this is not a picture in a format that featkit reads", hint="it reads JPEG, PNG, WebP, TIFF, BMP and PNM"
    )


def inspect(data: bytes, *, frame: int = 0) -> Header:
    """Read the header of a picture file, of its frame `frame` where it has several (of the first where it has fewer).

    Raises ImageUnknown, ImageDamaged (structure cut short or inconsistent) or ImageUnsupported (a variant of the format
    whose colours featkit cannot vouch for).
    """
    return _READERS[identify(data[:HEAD_BYTES])](data, frame)


# --- JPEG


_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_READABLE = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended, progressive; Huffman and arithmetic
_JPEG_KEPT_APPS = {0xE0, 0xEE}  # JFIF and Adobe: both decide about the colours


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
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
        if marker == 0 or marker in _JPEG_WITHOUT_LENGTH:
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


def _inspect_jpeg(data: bytes, frame: int) -> Header:
    size: tuple[int, int] | None = None
    exif: dict[int, float] = {}
    view = memoryview(data)
    kept = [view[:2]]
    components = scan = 0
    adobe = False
    for marker, start, end in _jpeg_segments(data):
        body = data[start + 4 : end]
        if marker in _JPEG_FRAMES:
            if len(body) < 6:
                raise ImageDamaged("the JPEG has a frame header that is too short")
            precision, height, width, components = struct.unpack_from(">BHHB", body)
            if marker not in _JPEG_READABLE or precision != 8:
                raise ImageUnsupported("this is a lossless, hierarchical or 12-bit JPEG", hint=_CONVERT)
            if components not in (1, 3, 4):
                raise ImageUnsupported(f"a JPEG of {components} components has no defined colours", hint=_CONVERT)
            if size is not None:
                raise ImageDamaged("the JPEG has two frame headers")
            size = width, height
        elif marker == 0xEE and body[:5] == b"Adobe":
            adobe = True
        elif marker == 0xE1 and body[:6] == b"Exif\0\0" and not exif:
            exif = read_exif(body[6:])
        if marker == 0xDA:
            scan = start
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in _JPEG_KEPT_APPS:
            kept.append(view[start:end])
    if size is None:
        raise ImageDamaged("the JPEG has no frame header")
    _check_size(size)
    if components == 4 and not adobe:  # Pillow takes its inks for inverted, Skia and ImageMagick do not
        raise ImageUnsupported("this JPEG has four colours and does not say which", hint="convert it to RGB first")
    return Header(
        format="JPEG",
        width=size[0],
        height=size[1],
        stripped=lambda: b"".join([*kept, view[scan:]]),
        orientation=_orientation(exif),
        exif=exif,
    )


# --- PNG


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_INTERLACE = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_LAST_FILTER = 4
_PNG_MOST_FRAMES = 2**31


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, length and CRC included, up to and with IEND."""
    at = len(_PNG_SIGNATURE)
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


def _inspect_png(data: bytes, frame: int) -> Header:
    if data[:8] != _PNG_SIGNATURE:
        raise ImageDamaged("the PNG's signature is damaged", hint="it may have been transferred as text")
    if data[12:16] == b"CgBI":
        raise ImageUnsupported("this is Apple's variant of PNG out of an app", hint=_CONVERT)
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise ImageDamaged("the PNG does not begin with its header")
    width, height, depth, colour, compression, filters, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filters or interlace > 1:
        raise ImageDamaged("the PNG's header makes no sense")
    _check_size((width, height))

    def chunk(start: int, end: int) -> bytes:
        return data[start + 8 : end - 4]

    chunks = []
    first: dict[bytes, tuple[int, int]] = {}
    cut: ImageDamaged | None = None
    try:
        for kind, start, end in _png_chunks(data):
            chunks.append((kind, start, end))
            first.setdefault(kind, (start, end))
    except ImageDamaged as error:
        cut = error  # the size has to be known first: a limit on pixels is the better answer

    frames = 1
    if b"acTL" in first and b"fcTL" in first and b"IDAT" in first and first[b"acTL"] < first[b"IDAT"]:
        animation = chunk(*first[b"acTL"])
        declared = struct.unpack_from(">I", animation)[0] if len(animation) >= 8 else 0
        if 0 < declared <= _PNG_MOST_FRAMES:
            frames = declared + (first[b"fcTL"] > first[b"IDAT"])

    def stripped() -> bytes:
        if cut is not None:
            raise cut
        compressed: list[bytes | memoryview] = []
        wanted = {b"IHDR"} | ({b"PLTE"} if colour == 3 else set())
        if frames > 1:
            wanted |= {b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT"}
        view = memoryview(data)
        kept: list[bytes | memoryview] = [view[: len(_PNG_SIGNATURE)]]
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
        rows = _png_rows(width, height, depth * _PNG_CHANNELS[colour], interlace)
        return b"".join(
            [*kept, _png_chunk(b"IDAT", _checked_idat(b"".join(compressed), rows)), _png_chunk(b"IEND", b"")]
        )

    exif = read_exif(chunk(*first[b"eXIf"]).removeprefix(b"Exif\0\0")) if b"eXIf" in first else {}
    return PngHeader(
        format="PNG",
        width=width,
        height=height,
        stripped=stripped,
        orientation=_orientation(exif),
        frames=frames,
        samples="16-bit" if depth == 16 else "8-bit",
        exif=exif,
        depth=depth,
        colour=colour,
        palette=chunk(*first[b"PLTE"]) if b"PLTE" in first else b"",
        transparency=chunk(*first[b"tRNS"]) if b"tRNS" in first else b"",
    )


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))])


def _png_rows(width: int, height: int, pixel_bits: int, interlace: int) -> list[tuple[int, int]]:
    """(rows, bytes a row with its filter) of each pass over the picture."""
    passes = _PNG_INTERLACE if interlace else ((0, 0, 1, 1),)
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
        if max(raw[at : at + count * length : length]) > _PNG_LAST_FILTER:
            raise ImageDamaged("the PNG's pixels are damaged")
        at += count * length
    return zlib.compress(raw, 0)


# --- WebP


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk's body."""
    at, stop = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= stop:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + (length & 1)


def _inspect_webp(data: bytes, frame: int) -> Header:
    size = None
    frames = 0
    exif: dict[int, float] = {}
    pixels: list[tuple[bytes, int, int]] = []
    extended = False
    for kind, start, end in _webp_chunks(data):
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
    _check_size(size)

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
        orientation=_orientation(exif),
        frames=max(1, frames) if extended else 1,
        exif=exif,
    )


# --- TIFF, and EXIF, which is a TIFF inside another file


_FIELD_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FIELD_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}


# Against files made to exhaust a reader: 4 million strips or tiles are ten times what 100 megapixels can need, and a
# stack of 50,000 pages has 1 million directory entries.
_MOST_VALUES = 2**22
_MOST_ENTRIES = 2**21


@dataclass(frozen=True)
class _Field:
    """One entry of a TIFF directory: type, count, and a view of its values (shorter where the file ends too early)."""

    kind: int
    count: int
    raw: memoryview

    @property
    def whole(self) -> bool:
        return 0 < len(self.raw) == _FIELD_SIZES.get(self.kind, 0) * self.count


@dataclass(frozen=True)
class _Tiff:
    """The head of a TIFF: byte order ("<" or ">"), BigTIFF or not, where the first directory is."""

    data: bytes
    order: str
    big: bool
    first: int

    @classmethod
    def open(cls, data: bytes) -> _Tiff:
        order = "<" if data[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        return cls(data, order, big, struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0])

    def directory(self, at: int) -> tuple[dict[int, _Field], int]:
        """The tags of the directory at `at`, and where the next directory is (0: nowhere)."""
        count_code, entry_code, offset_code = ("Q", "HHQ8s", "Q") if self.big else ("H", "HHI4s", "I")
        entry = struct.Struct(self.order + entry_code)
        (count,) = struct.unpack_from(self.order + count_code, self.data, at)
        at += struct.calcsize(count_code)
        if count * entry.size > len(self.data) - at:
            raise struct.error("directory outside the file")
        fields = {}
        view = memoryview(self.data)
        for tag, kind, number, value in entry.iter_unpack(view[at : at + count * entry.size]):
            length = _FIELD_SIZES.get(kind, 0) * number
            raw = memoryview(value)[:length]
            if length > len(value):
                (offset,) = struct.unpack(self.order + offset_code, value)
                raw = view[offset : offset + length]
            fields[tag] = _Field(kind, number, raw)
        at += count * entry.size
        rest = self.data[at : at + struct.calcsize(offset_code)]
        return fields, int.from_bytes(rest, "little" if self.order == "<" else "big")

    def values(self, entry: _Field | None) -> tuple[float, ...]:
        """The numbers of a field; rationals are divided, with 0 for a zero denominator; () where it has none."""
        if entry is None or not entry.whole or entry.count > _MOST_VALUES:
            return ()
        if entry.kind in (5, 10):
            numbers = struct.unpack(f"{self.order}{2 * entry.count}{'I' if entry.kind == 5 else 'i'}", entry.raw)
            return tuple(top / bottom if bottom else 0.0 for top, bottom in zip(*[iter(numbers)] * 2, strict=True))
        if entry.kind not in _FIELD_CODES:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_FIELD_CODES[entry.kind]}", entry.raw)

    def integers(self, entry: _Field | None) -> tuple[int, ...]:
        return tuple(int(value) for value in self.values(entry) if math.isfinite(value))


ORIENTATION = 0x0112
EXIF_DIRECTORY = 0x8769
FOCAL_LENGTH = 0x920A
FOCAL_LENGTH_35MM = 0xA405
EXIF_WIDTH = 0xA002
FOCAL_PLANE_X_RESOLUTION = 0xA20E
FOCAL_PLANE_RESOLUTION_UNIT = 0xA210
_EXIF_TAGS = (
    ORIENTATION,
    FOCAL_LENGTH,
    FOCAL_LENGTH_35MM,
    EXIF_WIDTH,
    FOCAL_PLANE_X_RESOLUTION,
    FOCAL_PLANE_RESOLUTION_UNIT,
)


def read_exif(block: bytes) -> dict[int, float]:
    """The tags named above from an EXIF block (a TIFF header and its directories). Damaged EXIF is no EXIF."""
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    try:
        tiff = _Tiff.open(block)
        fields, _ = tiff.directory(tiff.first)
    except struct.error:
        return {}
    return _exif_of(tiff, fields)


def _exif_of(tiff: _Tiff, fields: Mapping[int, _Field]) -> dict[int, float]:
    inner: Mapping[int, _Field] = {}
    pointer = tiff.integers(fields.get(EXIF_DIRECTORY))
    if pointer and 0 < pointer[0] < len(tiff.data):
        try:
            inner, _ = tiff.directory(pointer[0])
        except struct.error:
            inner = {}
    values = {tag: tiff.values(fields.get(tag) or inner.get(tag)) for tag in _EXIF_TAGS}
    return {tag: float(found[0]) for tag, found in values.items() if found and math.isfinite(found[0])}


def _orientation(exif: Mapping[int, float]) -> int:
    value = exif.get(ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 320, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _SUBFILE = 338, 339, 254
_FILL_ORDER, _T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _JPEG_TABLES = 266, 292, 293, 317, 347
_YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING, _REFERENCE_BLACK_WHITE = 529, 530, 532
_TIFF_SCALARS = {
    _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _PLANAR,
    _T4_OPTIONS, _T6_OPTIONS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT,
}  # fmt: skip
_TIFF_LISTS = {
    _BITS, _STRIP_OFFSETS, _STRIP_BYTES, _COLOUR_MAP, _TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT,
    _JPEG_TABLES, _YCBCR_COEFFICIENTS, _YCBCR_SUBSAMPLING, _REFERENCE_BLACK_WHITE,
}  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_TIFF_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
PREMULTIPLIED_ALPHA, STRAIGHT_ALPHA = 1, 2  # ExtraSamples; 0 is a sample without a meaning
_CAMERA_RAW = (32803, 34892)  # photometric CFA and LinearRaw
# none, CCITT (3 kinds), LZW, JPEG, deflate (2 codes), PackBits, LZMA, Zstandard
_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32946, 32773, 34925, 50000)
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat
_LARGEST_TILE = 64_000_000  # pixels; Pillow warns on its own account at 89 million
_LARGEST_CLASSIC_TIFF = 2**32 - 1


def _tiff_directories(tiff: _Tiff) -> list[dict[int, _Field]]:
    """The directories of full pictures; previews and transparency masks (NewSubfileType 1 and 4) are left out."""
    pictures: list[dict[int, _Field]] = []
    seen: set[int] = set()
    at, entries = tiff.first, 0
    while at and at not in seen:
        seen.add(at)
        try:
            fields, at = tiff.directory(at)
        except struct.error:
            raise ImageDamaged("the TIFF is cut short") from None
        entries += len(fields)
        if entries > _MOST_ENTRIES:
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


def _inspect_tiff(data: bytes, frame: int) -> Header:
    if len(data) < 16:
        raise ImageDamaged("the TIFF is cut short")
    tiff = _Tiff.open(data)
    pictures = _tiff_directories(tiff)
    fields = pictures[frame if frame < len(pictures) else 0]
    exif = _exif_of(tiff, fields)
    fields = {tag: entry for tag, entry in fields.items() if tag in _TIFF_SCALARS | _TIFF_LISTS}
    if not all(entry.whole for entry in fields.values()):
        raise ImageDamaged("the TIFF is cut short in its header, or it is damaged")
    numbers = {tag: tiff.integers(entry) for tag, entry in fields.items()}

    def number(tag: int, default: int) -> int:
        return (numbers.get(tag) or (default,))[0]

    width, height = number(_WIDTH, 0), number(_HEIGHT, 0)
    _check_size((width, height))
    photometric, channels = number(_PHOTOMETRIC, -1), number(_SAMPLES_PER_PIXEL, 1)
    planar = number(_PLANAR, 1) == 2 and channels > 1
    samples = _tiff_samples(numbers, photometric=photometric, channels=channels, planar=planar)

    def stripped() -> bytes:
        _check_tiff_layout(numbers, width=width, height=height, planes=channels if planar else 1, length=len(data))
        return _rewrite_tiff(tiff, fields, numbers)

    return TiffHeader(
        format="TIFF",
        width=width,
        height=height,
        stripped=stripped,
        orientation=_orientation(exif),
        frames=len(pictures),
        samples=samples,
        exif=exif,
        photometric=photometric,
        channels=channels,
        extra=number(_EXTRA_SAMPLES, 0),
    )


def _tiff_samples(numbers: Mapping[int, Sequence[int]], *, photometric: int, channels: int, planar: bool) -> Samples:
    """The kind of samples; raises ImageUnsupported for the variants of TIFF that no decoder at hand gets right."""
    if photometric in _CAMERA_RAW:
        raise ImageUnsupported("this is a camera's raw file", hint="develop it to JPEG, PNG or TIFF first")
    if photometric not in _TIFF_COLOURS:
        raise ImageUnsupported(
            f"its colours are not RGB, grey, palette, CMYK or YCbCr (photometric interpretation {photometric})",
            hint="convert it to RGB first",
        )
    if channels - _TIFF_COLOURS[photometric] not in (0, 1):
        raise ImageUnsupported(f"{channels} samples a pixel are no defined colour", hint="convert it to RGB first")
    compression = (*numbers.get(_COMPRESSION, ()), 1)[0]
    if compression not in _TIFF_COMPRESSIONS:
        raise ImageUnsupported(
            f"its TIFF compression (number {compression}) is not one that featkit reads", hint=_CONVERT
        )
    depths, formats = set(numbers.get(_BITS, (1,))), set(numbers.get(_SAMPLE_FORMAT, (1,)))
    if len(depths) != 1 or len(formats) != 1:
        raise ImageUnsupported("it mixes kinds of samples", hint=_CONVERT)
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


def _check_tiff_layout(
    numbers: Mapping[int, Sequence[int]], *, width: int, height: int, planes: int, length: int
) -> None:
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


def _rewrite_tiff(tiff: _Tiff, fields: Mapping[int, _Field], numbers: Mapping[int, Sequence[int]]) -> bytes:
    """The same file with one directory, at its end, that holds `fields` alone; always a classic TIFF, as Pillow cannot
    read a big-endian BigTIFF."""
    order, start = tiff.order, len(tiff.data) + len(tiff.data) % 2
    after = start + 2 + 12 * len(fields) + 4
    if after > _LARGEST_CLASSIC_TIFF:
        raise ImageUnsupported("a TIFF of more than 4 GB is not one that featkit reads", hint=_CONVERT)
    entries, payload = [], b""
    for tag, entry in sorted(fields.items()):
        kind, count, value = entry.kind, entry.count, bytes(entry.raw)
        if tag in _TIFF_SCALARS:
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


# --- BMP


def _inspect_bmp(data: bytes, frame: int) -> Header:
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
    _check_size((width, height))
    if depth not in (1, 4, 8, 16, 24, 32) or compression not in (0, 1, 2, 3):
        raise ImageUnsupported("this is a rare kind of BMP", hint=_CONVERT)
    needed = size if compression in (1, 2) else (width * depth + 31) // 32 * 4 * height
    if pixels < 14 + header:
        raise ImageDamaged("the BMP's header makes no sense")

    def stripped() -> bytes:
        if pixels + needed > len(data):
            raise ImageDamaged("the BMP is cut short")
        return data

    return Header(format="BMP", width=width, height=height, stripped=stripped)


# --- PNM


_PNM_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")


def _inspect_pnm(data: bytes, frame: int) -> Header:
    kind = data[:2]
    at = 2
    tokens = []
    for _ in range(2 if kind in (b"P1", b"P4") else 3):
        found = _PNM_TOKEN.match(data, at, at + 4096)
        if found is None or found.end() >= len(data):
            raise ImageDamaged("the PNM is cut short in its header")
        tokens.append(found[1])
        at = found.end()
    try:
        width, height = int(tokens[0]), int(tokens[1])
        scale = float(tokens[2]) if len(tokens) > 2 else 1.0
    except ValueError:
        raise ImageDamaged("the PNM's header makes no sense") from None
    _check_size((width, height))
    floating = kind in (b"Pf", b"PF")
    if not math.isfinite(scale) or scale == 0 or (not floating and not (1 <= scale <= 65535 and scale == int(scale))):
        raise ImageDamaged("the PNM's header makes no sense")
    return PnmHeader(
        format="PNM",
        width=width,
        height=height,
        stripped=lambda: data[at + 1 :],
        samples="float" if floating else "16-bit" if scale > 255 else "8-bit",
        kind=kind.decode(),
        scale=scale,
    )


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ImageDamaged(f"the header declares a picture of {size[0]} × {size[1]} pixels")


_READERS: dict[str, Callable[[bytes, int], Header]] = {
    "JPEG": _inspect_jpeg,
    "PNG": _inspect_png,
    "WebP": _inspect_webp,
    "TIFF": _inspect_tiff,
    "BMP": _inspect_bmp,
    "PNM": _inspect_pnm,
}
