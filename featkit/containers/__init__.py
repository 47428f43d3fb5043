"""What the bytes of a picture file say about themselves, read without decoding a pixel.

`inspect` recognises the format by content and returns a `Header`: size, frames, kind of samples, orientation, EXIF,
and a copy of the file stripped to what a decoder needs for its pixels. The stripped copy makes decoding predictable: no
decoder sees an EXIF block, a colour profile, a text chunk or an unknown tag, so none can turn the picture a second
time, warn about damaged metadata (pictures are decoded in threads, where `warnings.catch_warnings` is not safe), or be
made to inflate a compressed comment.

Nothing here imports numpy, Pillow or OpenCV. Errors carry no path; `featkit.images` adds it.

Each format has its own file, which names what it follows.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from featkit.containers import bmp, jpeg, png, pnm, tiff, webp
from featkit.containers.headers import CONVERT, Header
from featkit.errors import ImageUnknown

_NOT_FOR_FEATKIT: tuple[tuple[bytes, str, str | None], ...] = (
    (rb"GIF8[79]a", "a GIF, which featkit does not read", CONVERT),
    (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "an HEIC/HEIF picture, which featkit does not read", CONVERT),
    (rb"....ftypavi[fs]", "an AVIF picture, which featkit does not read", CONVERT),
    (rb"....ftypcrx |FUJIFILMCCD-RAW", "a camera's raw file", "develop it to JPEG, PNG or TIFF first"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video", "extract frames from it first, for example with ffmpeg"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture, which featkit does not read", CONVERT),
    (rb"\0\0\0\x0cjP  |\xffO\xffQ", "a JPEG 2000 picture, which featkit does not read", CONVERT),
    (rb"8BPS", "a Photoshop document", "export it as PNG or TIFF first"),
    (rb"v/1\x01|#\?RADIANCE|#\?RGBE", "a high-dynamic-range picture", "tone-map it to PNG or TIFF first"),
    (rb"\0\0[\x01\x02]\0", "an icon or cursor file", CONVERT),
    (rb"P7\s", "a PAM picture, which featkit does not read", CONVERT),
    (rb"DDS |gimp xcf", "a picture in a format that featkit does not read", CONVERT),
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


_READERS: dict[str, Callable[[bytes, int], Header]] = {
    "JPEG": jpeg.inspect,
    "PNG": png.inspect,
    "WebP": webp.inspect,
    "TIFF": tiff.inspect,
    "BMP": bmp.inspect,
    "PNM": pnm.inspect,
}
