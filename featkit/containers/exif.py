"""EXIF 2.32: the tags that featkit uses."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from featkit.containers.directories import Field, Tiff

_ORIENTATION = 0x0112
_DIRECTORY = 0x8769
_FOCAL_LENGTH = 0x920A
_FOCAL_LENGTH_35MM = 0xA405
_WIDTH = 0xA002
_FOCAL_PLANE_X_RESOLUTION = 0xA20E
_FOCAL_PLANE_RESOLUTION_UNIT = 0xA210
_TAGS = (
    _ORIENTATION,
    _FOCAL_LENGTH,
    _FOCAL_LENGTH_35MM,
    _WIDTH,
    _FOCAL_PLANE_X_RESOLUTION,
    _FOCAL_PLANE_RESOLUTION_UNIT,
)
_FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm; mm, µm by extension


def read_exif(block: bytes) -> dict[int, float]:
    """The tags named above from an EXIF block (a TIFF header and its directories). Damaged EXIF is no EXIF."""
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    try:
        tiff = Tiff.open(block)
        fields, _ = tiff.directory(tiff.first)
    except struct.error:
        return {}
    return exif_of(tiff, fields)


def exif_of(tiff: Tiff, fields: Mapping[int, Field]) -> dict[int, float]:
    """The same from one directory of a TIFF, and from the directory of EXIF that it names."""
    inner: Mapping[int, Field] = {}
    pointer = tiff.integers(fields.get(_DIRECTORY))
    if pointer and 0 < pointer[0] < len(tiff.data):
        try:
            inner, _ = tiff.directory(pointer[0])
        except struct.error:
            inner = {}
    values = {tag: tiff.values(fields.get(tag) or inner.get(tag)) for tag in _TAGS}
    return {tag: float(found[0]) for tag, found in values.items() if found and math.isfinite(found[0])}


def orientation_of(exif: Mapping[int, float]) -> int:
    """1..8; whatever is not readable counts as 1."""
    value = exif.get(_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


def focal_length_px(exif: Mapping[int, float], width: int, height: int) -> float | None:
    """In pixels of the full-size picture; None where the tags do not say.

    FocalLengthIn35mmFilm compares diagonals (CIPA DCG-001); FocalLength with FocalPlaneXResolution needs no comparison,
    but counts the camera's own pixels, so a picture that was resized since is allowed for by its PixelXDimension.
    """
    equivalent = exif.get(_FOCAL_LENGTH_35MM, 0)
    if equivalent > 0:
        return equivalent * math.hypot(width, height) / _FULL_FRAME_DIAGONAL_MM
    focal, resolution = exif.get(_FOCAL_LENGTH, 0), exif.get(_FOCAL_PLANE_X_RESOLUTION, 0)
    unit = _UNIT_MM.get(int(exif.get(_FOCAL_PLANE_RESOLUTION_UNIT, 2)), 0)
    if focal > 0 and resolution > 0 and unit > 0:
        return focal / unit * resolution * width / (exif.get(_WIDTH, 0) or width)
    return None
