"""Options that mean the same in every command, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from featkit.errors import UsageError

if TYPE_CHECKING:
    from featkit.images import DecodeOptions
    from featkit.local.subjects import Region

FilesFrom = Annotated[
    str | None,
    typer.Option("--files-from", metavar="FILE", help="Read picture names from FILE, one a line; - is stdin."),
]
Nul = Annotated[bool, typer.Option("-0", "--null", help="Names in lists end with NUL, as from find -print0.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Take pictures from folders inside folders, too.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", metavar="N", help="Refuse pictures of more pixels, by their header.")
]
Frame = Annotated[
    int | None, typer.Option("--frame", metavar="N", help="Of a file with several frames take frame N, from 0.")
]
FloatRange = Annotated[
    str | None,
    typer.Option("--float-range", metavar="LOW,HIGH", help="For float samples: what is black and what is white."),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", metavar="N", help="Worker threads; one a processor if left out.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that are there already.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines, one record an item.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def decode_options(max_pixels: int, frame: int | None, float_range: str | None) -> DecodeOptions:
    """The decoder's options from the command line's; UsageError for values that cannot be."""
    from featkit.images import DecodeOptions

    if max_pixels < 1:
        raise UsageError("--max-pixels must be at least 1")
    if frame is not None and frame < 0:
        raise UsageError("--frame counts from 0")
    return DecodeOptions(max_pixels, frame, None if float_range is None else _range(float_range))


def picture_size(text: str) -> tuple[int, int]:
    """(width, height), of what --size was given; UsageError for what is no size."""
    form = re.fullmatch(r"([0-9]{1,5})(?:[x×]([0-9]{1,5}))?", text)
    if form is None:
        raise UsageError(f"--size takes width and height, not {text!r}", hint="for example: --size 128x96")
    return int(form[1]), int(form[2] or form[1])


def refuse_no_list(pictures: Sequence[str], files_from: str | None, nul: bool) -> None:
    if nul and files_from is None and "-" not in pictures:
        raise UsageError("-0 is about a list, and there is none", hint="give one by --files-from or -")


def regions(given: Sequence[str]) -> tuple[Region | None, Region | None]:
    """Of the first and of the second picture, from what --region was given; UsageError for what is no region."""
    found: dict[str, Region] = {}
    for text in given:
        picture, _, numbers = text.rpartition(":")
        picture = picture or "a"
        if picture not in ("a", "b"):
            raise UsageError(f"--region is of picture a or b, not of {picture!r}", hint=_REGION_HINT)
        if picture in found:
            raise UsageError(f"--region is given twice for picture {picture}", hint=_REGION_HINT)
        found[picture] = _region(numbers)
    return found.get("a"), found.get("b")


_REGION_HINT = "--region X,Y,WIDTH,HEIGHT is of the first picture, --region b:X,Y,WIDTH,HEIGHT of the second"


def _region(text: str) -> Region:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--region takes four whole numbers, not {text!r}", hint=_REGION_HINT) from None
    return x, y, width, height


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--float-range takes two numbers, not {text!r}", hint="for example: --float-range 0,1"
        ) from None
    if not -1e300 < low < high < 1e300:
        raise UsageError("--float-range needs LOW below HIGH", hint="for example: --float-range 0,1")
    return low, high
