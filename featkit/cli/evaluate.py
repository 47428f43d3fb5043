"""`featkit evaluate`: its options. What it does is in evaluate_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    Debug,
    FloatRange,
    Force,
    Frame,
    FromFeatures,
    Jobs,
    Json,
    MaxPixels,
    NoCache,
    Quiet,
    Weights,
    decode_options,
)


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `featkit classify -o` or `probe -o` writes it.")],
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Labelled pictures: its test/, else its val/, else all of it."),
    ] = None,
    from_: FromFeatures = None,
    weights: Weights = None,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="DIR", help="Write a page: confusion, worst mistakes."),
    ] = None,
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
    """Test a model on labelled pictures.

    With --from, the labels are those of DATA, or without it the names of the folders that the pictures were in.

    Exit status: 0; 1 if some pictures could not be used.
    """
    from featkit.cli import evaluate_run

    request = evaluate_run.Request(
        model=model,
        data=data,
        test=None,
        output=None,
        from_features=from_,
        weights=weights,
        report=report,
        decode=decode_options(max_pixels, frame, float_range),
        jobs=jobs,
        use_cache=not no_cache,
        force=force,
        json=json,
        quiet=quiet,
    )
    return evaluate_run.run(request)
