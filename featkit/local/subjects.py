"""What is looked at: a picture, and where in it."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from featkit import containers, images
from featkit.containers.headers import PngHeader
from featkit.errors import ImageUnsupported, InputError, UsageError
from featkit.images import DecodeOptions, Pixels

#: x, y, width, height: whole pixels of the full-size upright picture.
Region = tuple[int, int, int, int]

#: bool H×W, True where to look.
Mask = npt.NDArray[np.bool_]

# Raise when the same mask or region would leave other pixels.
_VERSION = 1

_LEAST_WHITE = 128
# A mask is black and white. Soft edges and JPEG leave greys, and hardly a colour: pixels whose channels differ by more
# than this count as coloured, and more of them than this share mean that the file is a photo or a map of labels.
_LEAST_COLOUR = 64
_MOST_COLOURED = 0.05
_PNG_COLOUR_WITH_ALPHA = (4, 6)


@dataclass(frozen=True)
class Subject:
    """One picture of a run, and where to look in it: everywhere if neither mask nor region is given.

    mask: a picture file of the same size, white where to look, black where not. region: look only inside; with a mask,
    where both allow it. UsageError for a region that no picture can have.
    """

    path: str
    mask: str | None = None
    region: Region | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        object.__setattr__(self, "mask", None if self.mask is None else os.fspath(self.mask))
        if self.region is None:
            return
        try:
            x, y, width, height = (operator.index(value) for value in self.region)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.region!r} is no region", hint=_REGION_HINT) from error
        object.__setattr__(self, "region", (x, y, width, height))
        if width < 1 or height < 1:
            raise UsageError(f"a region of {width} × {height} pixels is empty", hint=_REGION_HINT)
        if x < 0 or y < 0:
            raise UsageError(f"a region cannot begin at {x},{y}: pixels are counted from 0,0", hint=_REGION_HINT)


_REGION_HINT = "a region is x, y, width, height, in pixels of the upright picture"


def as_subject(picture: str | os.PathLike[str] | Subject) -> Subject:
    """A path as the whole picture there; a subject as it is."""
    return picture if isinstance(picture, Subject) else Subject(os.fspath(picture))


@dataclass(frozen=True)
class Where:
    """Where to look in one picture, read but not yet decoded (`read_where`).

    digest: of the mask file's bytes and the region, hexadecimal; "" where the whole picture is looked at. The size of
    the picture, and with it whether mask and region fit, is known only to `mask`.
    """

    subject: Subject
    options: DecodeOptions
    digest: str
    mask_bytes: bytes | None = field(default=None, repr=False)

    def mask(self, size: tuple[int, int]) -> Mask | None:
        """bool H×W, True where to look in a picture of (width, height); None for everywhere.

        A pixel of the mask counts where its grey value is at least 128. A mask of 8 bits whose largest value is 1
        holds labels 0 and 1, as annotation tools write them: it counts where it is 1. Transparent is white, as
        everywhere in featkit.

        Raises InputError, naming the mask, where it is damaged, is not black and white, has another size or leaves
        nothing; UsageError where the region reaches beyond the picture.
        """
        looked_at = None if self.mask_bytes is None else self._decoded(self.mask_bytes, size)
        if self.subject.region is not None:
            inside = _inside(self.subject.region, size, self.subject.path)
            looked_at = inside if looked_at is None else looked_at & inside
            if not looked_at.any():
                raise InputError("it is black in the whole region", path=self.subject.mask, hint=_MASK_HINT)
        return looked_at

    def _decoded(self, data: bytes, size: tuple[int, int]) -> Mask:
        path = self.subject.mask
        try:
            pixels = _pixels(data, self.options, path)
        except InputError as error:
            raise _about_mask(error, self.subject) from error
        height, width = pixels.shape[:2]
        if (width, height) != size:
            hint = "make it anew from the picture as it is, pixel for pixel"
            if (height, width) == size:
                hint = "turn it: the picture is upright after its EXIF orientation, and so must its mask be"
            raise InputError(
                f"the mask has {width} × {height} pixels, and {self.subject.path} has {size[0]} × {size[1]}",
                path=path,
                hint=hint,
            )
        colour = pixels.max(axis=2) - pixels.min(axis=2)
        coloured = float((colour > _LEAST_COLOUR).mean())
        if coloured > _MOST_COLOURED:
            raise InputError(f"{coloured:.0%} of it is coloured: this is no mask", path=path, hint=_MASK_HINT)
        gray = images.to_gray(pixels)
        looked_at: Mask = gray >= (1 if gray.max() == 1 else _LEAST_WHITE)
        if not looked_at.any():
            raise InputError("the mask leaves nothing to look at: no pixel is white", path=path, hint=_MASK_HINT)
        if looked_at.all() and _has_alpha(data):
            raise InputError(
                "the mask leaves nothing out: what is transparent in it counts as white", path=path, hint=_MASK_HINT
            )
        return looked_at


_MASK_HINT = "a mask is white (255, of 16 bits 65535) where to look, and black where not"


def read_where(subject: Subject, options: DecodeOptions = images.DEFAULTS) -> Where:
    """Read the mask file of a subject, if there is one. Raises what `images.read_bytes` raises, about the mask."""
    if subject.mask is None and subject.region is None:
        return Where(subject, options, "")
    data = None
    if subject.mask is not None:
        try:
            data = images.read_bytes(subject.mask)
        except InputError as error:
            raise _about_mask(error, subject) from error
    parts = (_VERSION, None if data is None else sha256(data).hexdigest(), subject.region)
    return Where(subject, options, sha256(repr(parts).encode()).hexdigest(), data)


def _pixels(data: bytes, options: DecodeOptions, path: str | None) -> Pixels:
    """A mask of one frame serves a picture of several; of several, it is the frame with the picture's number."""
    try:
        return images.decode(data, replace(options, frame=None), path=path)
    except ImageUnsupported:
        if options.frame is None:
            raise
        return images.decode(data, options, path=path)


def _has_alpha(data: bytes) -> bool:
    """Whether a file that was decoded has room for transparency; of PNG alone, which masks are painted in."""
    header = containers.inspect(data)
    return isinstance(header, PngHeader) and header.colour in _PNG_COLOUR_WITH_ALPHA


def _about_mask(error: InputError, subject: Subject) -> InputError:
    """The same error; its hint says which picture the file is the mask of."""
    whose = f"it is the mask of {subject.path}"
    return type(error)(error.message, path=error.path, hint=whose if error.hint is None else f"{whose}; {error.hint}")


def _inside(region: Region, size: tuple[int, int], path: str) -> Mask:
    x, y, width, height = region
    within = min(width, size[0] - x), min(height, size[1] - y)
    if within != (width, height):
        hint = f"inside it lies {x},{y},{within[0]},{within[1]}" if min(within) > 0 else _REGION_HINT
        raise UsageError(
            f"the region {x},{y},{width},{height} reaches beyond the picture, which has {size[0]} × {size[1]} pixels",
            path=path,
            hint=hint,
        )
    inside = np.zeros(size[::-1], np.bool_)
    inside[y : y + height, x : x + width] = True
    return inside
