"""`featkit predict`: its options. What it does is in predict_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    Debug,
    FilesFrom,
    FloatRange,
    Frame,
    FromFeatures,
    Jobs,
    Json,
    MaxPixels,
    NoCache,
    Nul,
    Quiet,
    Recursive,
    Weights,
    decode_options,
)


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `featkit classify -o` or `probe -o` writes it.")],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PICTURE]...", help="Pictures, folders, globs, or - for a list on stdin."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="text (default), jsonl or csv.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="K", help="The K likeliest labels of each picture (jsonl: 5, text and csv: 1)."),
    ] = None,
    from_: FromFeatures = None,
    weights: Weights = None,
    files_from: FilesFrom = None,
    nul: Nul = False,
    recursive: Recursive = False,
    max_pixels: MaxPixels = 100_000_000,
    frame: Frame = None,
    float_range: FloatRange = None,
    jobs: Jobs = None,
    no_cache: NoCache = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Label pictures with a model, a line each, in the order given, as they are done.

    With --from, those whose features are in a file or folder.

    Exit status: 0; 1 if some pictures could not be read, 2 if none could.
    """
    from featkit.cli import predict_run

    return predict_run.run(
        model,
        pictures or [],
        features=from_,
        weights=weights,
        files_from=files_from,
        nul=nul,
        recursive=recursive,
        format_=format_,
        top=top,
        decode=decode_options(max_pixels, frame, float_range),
        jobs=jobs,
        use_cache=not no_cache,
        json=json,
        quiet=quiet,
    )
