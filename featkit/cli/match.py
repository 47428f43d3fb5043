"""`featkit match`: its options. What it does is in match_run.py, imported when it runs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from featkit.cli.options import (
    Debug,
    FilesFrom,
    FloatRange,
    Force,
    Frame,
    Jobs,
    Json,
    MaxPixels,
    NoCache,
    Nul,
    Quiet,
    Recursive,
    decode_options,
    regions,
)
from featkit.errors import UsageError

# None stands for the default of the library's configuration, which is not imported here: numpy and OpenCV take longer
# than --help. A test compares the figures in the help texts with it.


def command(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]...", help="Two pictures, or more (every pair), folders, globs, or - for a list on stdin."
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="FILE|auto[:K]|sequential:K",
            help="Match only these: two names a line, by a tab or one space; - is stdin. auto: each picture with the K "
            "(20) most like it; sequential: with the next K.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the matches: .npz .json .csv .h5 (hloc) .db (COLMAP)."
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="With -o -: npz, json, csv, h5 or db.")
    ] = None,
    draw: Annotated[
        str | None, typer.Option("--draw", metavar="FILE", help="Write a picture of the matches (one pair).")
    ] = None,
    draw_warp: Annotated[
        str | None,
        typer.Option("--draw-warp", metavar="FILE", help="Write b laid over a by the transformation (one pair)."),
    ] = None,
    mask_a: Annotated[
        str | None,
        typer.Option("--mask-a", metavar="FILE", help="A picture, white where to look in the first one (one pair)."),
    ] = None,
    mask_b: Annotated[
        str | None, typer.Option("--mask-b", metavar="FILE", help="The same for the second picture.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--region", metavar="X,Y,W,H", help="Look only there in the first picture; b:X,Y,W,H: in the second."
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            "--effort",
            metavar="NAME",
            help="fast: one look (sift, orb); normal (default): a second, closer one; wide: stronger detectors where "
            "that fails.",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            metavar="NAME",
            help="sift (default), orb, affine-sift; aliked, disk (pip: featkit[learned]).",
        ),
    ] = None,
    max_keypoints: Annotated[
        int | None,
        typer.Option(
            "--max-keypoints",
            metavar="N",
            help="Keep the N strongest: 8000 for sift, 10000 for orb, 20000 for affine-sift, 2048 for aliked, 2048 for "
            "disk.",
        ),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            "--max-side",
            metavar="PX",
            help="Look at pictures reduced to this side (3200; 0: full size); affine-sift at 1600 at most, aliked and "
            "disk at 1024.",
        ),
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", metavar="R", help="Nearest over second nearest distance, at most (0.9).")
    ] = None,
    mutual: Annotated[
        bool | None, typer.Option("--mutual/--one-way", help="Both must be each other's nearest (default), or not.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="homography (default; for a .db fundamental), affine, fundamental or none."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="PX", help="How far a match may lie off the model (1.5).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the random samples (0).")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add a paragraph: what was tried, what was found, what would help.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="FILE", help="Tell whether a file that -o wrote is whole, and stop."),
    ] = None,
    files_from: FilesFrom = None,
    nul: Nul = False,
    recursive: Recursive = False,
    max_pixels: MaxPixels = 100_000_000,
    frame: Frame = None,
    float_range: FloatRange = None,
    jobs: Jobs = None,
    no_cache: NoCache = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Find what corresponds in two pictures, and how they map onto each other.

    Prints a line a pair: how many matches agree, how exactly a's corners are placed in b, and a verdict: reliable,
    doubtful or none. Exit status: 0 if a pair is reliable, 3 if none is, 1 if pictures were unreadable.
    """
    # Set before numpy loads: matching gives each worker one thread of linear algebra, and OpenBLAS spends 60 ms of CPU
    # on starting others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from featkit.cli import match_run

    if check is not None:
        others = (
            pictures,
            files_from,
            pairs,
            output,
            draw,
            draw_warp,
            mask_a,
            mask_b,
            region,
            effort,
            detector,
            explain,
        )
        if any(others):
            raise UsageError("--check looks at a file that is there, and matches nothing", hint="give it alone")
        return match_run.check_file(check, json=json)
    return match_run.run(
        match_run.Request(
            pictures=pictures or [],
            files_from=files_from,
            pairs=pairs,
            nul=nul,
            recursive=recursive,
            output=output,
            format=format_,
            draw=draw,
            draw_warp=draw_warp,
            masks=(mask_a, mask_b),
            regions=regions(region or []),
            explain=explain,
            force=force,
            json=json,
            quiet=quiet,
            jobs=jobs,
            use_cache=not no_cache,
            decode=decode_options(max_pixels, frame, float_range),
        ),
        effort=effort,
        detector=detector,
        max_keypoints=max_keypoints,
        max_side=max_side,
        ratio=ratio,
        mutual=mutual,
        model=model,
        threshold=threshold,
        seed=seed,
    )
