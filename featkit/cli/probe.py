"""`featkit probe`: its options. What it does is in probe_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    Backbone,
    ClassWeight,
    Debug,
    Device,
    Flip,
    FloatRange,
    Force,
    Frame,
    FromFeatures,
    HoldOut,
    Input,
    Jobs,
    Json,
    MaxPixels,
    ModelOutput,
    Neighbours,
    NoCache,
    Normalize,
    Pool,
    Precision,
    Quiet,
    Report,
    Runtime,
    TestData,
    Weights,
    decode_options,
)

# None stands for the default of the library's configuration, as in match.py.


def command(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="A folder a class, or train/ and test/ of such, or a CSV of path,label[,split]. With --from it labels "
            "those pictures; left out, their folders do.",
        ),
    ] = None,
    test: TestData = None,
    output: ModelOutput = None,
    backbone: Backbone = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="NAMES|all",
            help="A head for each of these layers, with commas (head: what goes into the classifier); all: along the "
            "network.",
        ),
    ] = None,
    pool: Pool = None,
    normalize: Normalize = False,
    input_: Input = None,
    weights: Weights = None,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", metavar="NAME", help="ridge (default), logreg, svm (RBF), knn, or all of them."),
    ] = None,
    c: Annotated[
        str | None,
        typer.Option("--C", metavar="X|auto", help="Weight of mistakes in training; auto (default): by validation."),
    ] = None,
    neighbours: Neighbours = None,
    class_weight: ClassWeight = None,
    flip: Flip = None,
    hold_out: HoldOut = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="NAMES",
            help="The same pictures under several backbones, with commas; hog and patches are classify's.",
        ),
    ] = None,
    learning_curve: Annotated[
        bool,
        typer.Option("--learning-curve", help="Also learn from 1, 2, 5, 10 … pictures a class, and print a table."),
    ] = False,
    from_: FromFeatures = None,
    report: Report = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of all that is random, also of --weights random (0).")
    ] = None,
    precision: Precision = None,
    device: Device = None,
    runtime: Runtime = None,
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
    """Learn to label pictures from what a network sees in them, and say how well each of its layers serves.

    Of several layers or classifiers, the one that is best on the training pictures, each held out in its turn, is
    reported and saved.

    Exit status: 0; 1 if some pictures could not be used, or a backbone to compare could not be had.
    """
    from featkit.cli import probe_run

    request = probe_run.Request(
        data=data,
        test=test,
        output=output,
        backbone=backbone,
        layers=layers,
        pool=pool,
        normalize=normalize,
        input=input_,
        weights=weights,
        classifier=classifier,
        c=c,
        neighbours=neighbours,
        class_weight=class_weight,
        flip=flip,
        hold_out=hold_out,
        compare=compare,
        learning_curve=learning_curve,
        from_features=from_,
        report=report,
        seed=seed,
        precision=precision,
        device=device,
        runtime=runtime,
        decode=decode_options(max_pixels, frame, float_range),
        jobs=jobs,
        use_cache=not no_cache,
        force=force,
        json=json,
        quiet=quiet,
    )
    return probe_run.run(request)
