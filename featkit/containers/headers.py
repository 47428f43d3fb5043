"""What is known of a picture file before it is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from featkit.errors import ImageDamaged

#: What to do with a file that cannot be read.
CONVERT = "convert it to PNG, JPEG, WebP or TIFF first"

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


def check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ImageDamaged(f"the header declares a picture of {size[0]} × {size[1]} pixels")
