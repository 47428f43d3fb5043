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
Input = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="N|CxHxW", help="What goes into the network, N pixels a side; its own size if left out."
    ),
]
FromFeatures = Annotated[
    str | None,
    typer.Option("--from", metavar="FEATURES", help="What `featkit extract -o FEATURES` wrote, in place of pictures."),
]
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


# Of `classify` and `probe`.
TestData = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="DATA", help="What to test on; else DATA's own test/ or val/, else a fifth held out."
    ),
]
ModelOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the model, for `featkit predict`; - is stdout."),
]
ClassWeight = Annotated[
    str | None,
    typer.Option("--class-weight", metavar="NAME", help="none (default), or balanced: small classes weigh as much."),
]
Flip = Annotated[
    str | None,
    typer.Option("--flip", metavar="on|off", help="Learn from mirror images, too (default off); wrong for letters."),
]
HoldOut = Annotated[
    float | None,
    typer.Option("--hold-out", metavar="SHARE", help="Of each class, where DATA has no test (0.2)."),
]
Neighbours = Annotated[
    str | None, typer.Option("--neighbours", metavar="K|auto", help="Of knn: how many vote; auto: by leaving one out.")
]
Report = Annotated[
    str | None,
    typer.Option("--report", metavar="DIR", help="Write a page: confusion, worst mistakes, maps of the features."),
]

# Of networks: `extract` and `probe`.
Backbone = Annotated[
    str | None,
    typer.Option("--backbone", "-b", metavar="NAME", help="The network (lite0); `featkit backbones` lists them."),
]
Pool = Annotated[
    str | None,
    typer.Option("--pool", metavar="NAME", help="How places become a vector: avg, max, gem, cls or none."),
]
Normalize = Annotated[bool, typer.Option("--normalize", help="Vectors of unit length.")]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="The network's, .safetensors or .pth; or random.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", metavar="NAME", help="That a network computes in: auto, fp32 or bf16.")
]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help="That computes: auto, cpu, cuda or mps.")]
Runtime = Annotated[str | None, typer.Option("--runtime", metavar="NAME", help="By what: auto, torch or openvino.")]


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


def input_shape(text: str) -> tuple[int, int, int]:
    """Channels, height and width, of what --input was given; UsageError for what no network takes."""
    try:
        numbers = [int(part) for part in text.replace("×", "x").split("x")]
        channels, height, width = (3, numbers[0], numbers[0]) if len(numbers) == 1 else numbers
    except ValueError:
        raise UsageError(f"--input takes one whole number, or three, not {text!r}", hint=_INPUT_HINT) from None
    if channels != 3 or min(height, width) < 1:
        raise UsageError("--input is a picture of 3 channels, and 1 pixel a side or more", hint=_INPUT_HINT)
    return channels, height, width


def input_side(text: str) -> int:
    """Pixels a side, where pictures are brought to that; UsageError for what is no square, too."""
    _, height, width = input_shape(text)
    if height != width:
        raise UsageError(
            f"pictures are brought to squares, and --input {text} is none", hint="for example: --input 224"
        )
    return height


_INPUT_HINT = "for example: --input 224, or --input 3x224x224, which is channels, height and width"


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
