"""`featkit stitch`: its options. What it does is in stitch_run.py, imported when it runs."""

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
)

# None stands for the default of the library's configuration, as in match.py.


def command(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PICTURE]...", help="Photos in any order, folders, globs, or - for a list on stdin."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The panorama: .jpg .png .tif .webp. Several become FILE-1, FILE-2 …; -: to stdout.",
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="With -o -: jpg, png, tif or webp.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="auto (default): what fits better; rotation: the camera turned; planar: it moved over something flat.",
        ),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            "--projection",
            metavar="NAME",
            help="auto (default: by the angle of view), planar, cylindrical, spherical, mercator, stereographic, "
            "fisheye.",
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", metavar="S", help="Of the photos' own resolution (1).")
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option("--crop", metavar="NAME", help="none (default), or auto: the largest rectangle without gaps."),
    ] = None,
    blend: Annotated[
        str | None, typer.Option("--blend", metavar="NAME", help="multiband (default), feather or none.")
    ] = None,
    seams: Annotated[
        str | None, typer.Option("--seams", metavar="NAME", help="graphcut (default), dp, voronoi or none.")
    ] = None,
    exposure: Annotated[
        str | None,
        typer.Option(
            "--exposure",
            metavar="NAME",
            help="full (default): brightness, white balance and vignetting; gain: brightness; none.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="PICTURE", help="The photo whose colours and place the others follow."),
    ] = None,
    poses: Annotated[
        str | None,
        typer.Option(
            "--poses",
            metavar="FILE",
            help="Where each photo looks: read if the file is there, and nothing is matched; written if not.",
        ),
    ] = None,
    debug_dir: Annotated[
        str | None,
        typer.Option("--debug-dir", metavar="DIR", help="Draw what happened: overlaps, matches, seams, exposure."),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="SIZE", help="As 600M or 2G; a quarter of the machine's if left out."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the random samples (0).")] = None,
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
    """Make one picture of many that overlap: panoramas, full circles, scans.

    Every panorama that the photos make is written, and every photo that is in none is named, with the reason. Exit
    status: 0 if all photos are placed, 1 if some are left out, 3 if no two belong together.
    """
    # As in match.py: each worker has one thread of linear algebra.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from featkit.cli import stitch_run

    return stitch_run.run(
        stitch_run.Request(
            pictures=pictures or [],
            files_from=files_from,
            nul=nul,
            recursive=recursive,
            output=output,
            format=format_,
            poses=poses,
            debug_dir=debug_dir,
            force=force,
            json=json,
            quiet=quiet,
            jobs=jobs,
            use_cache=not no_cache,
            decode=decode_options(max_pixels, frame, float_range),
            max_memory=max_memory,
        ),
        model=model,
        projection=projection,
        scale=scale,
        crop=crop,
        blend=blend,
        seams=seams,
        exposure=exposure,
        reference=reference,
        seed=seed,
    )
