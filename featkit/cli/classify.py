"""`featkit classify`: its options. What it does is in classify_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    ClassWeight,
    Debug,
    Flip,
    FloatRange,
    Force,
    Frame,
    HoldOut,
    Jobs,
    Json,
    MaxPixels,
    ModelOutput,
    Neighbours,
    NoCache,
    Quiet,
    Report,
    TestData,
    decode_options,
)

# None stands for the default of the library's configuration, as in match.py.


def command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A folder a class, or train/ and test/ of such, or a CSV of path,label[,split]."
        ),
    ],
    test: TestData = None,
    output: ModelOutput = None,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="NAME", help="hog (default), hog-skimage, patches, hog+patches or pixels."),
    ] = None,
    dictionary: Annotated[
        int | None, typer.Option("--dictionary", metavar="N", help="Of patches: how many are compared with (1000).")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option("--stride", metavar="N", help="Of patches: pixels from one to the next (1); 2 is faster."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH",
            help="Bring pictures to this size, stretched (their own if all are of one, up to 64 pixels, tiny ones "
            "enlarged; else 128x128).",
        ),
    ] = None,
    reduce: Annotated[
        str | None,
        typer.Option("--reduce", metavar="NAME", help="pca:N, lda or none; by the classifier if left out."),
    ] = None,
    whiten: Annotated[bool, typer.Option("--whiten", help="Each component to unit variance.")] = False,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", metavar="NAME", help="svm (default: RBF), linear-svm, logreg, ridge, knn or mlp."),
    ] = None,
    c: Annotated[
        str | None,
        typer.Option("--C", metavar="X|auto", help="Weight of mistakes in training; auto: by cross-validation."),
    ] = None,
    neighbours: Neighbours = None,
    class_weight: ClassWeight = None,
    flip: Flip = None,
    hold_out: HoldOut = None,
    report: Report = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also swap or leave out each stage in turn, and print a table.")
    ] = False,
    visualize_hog: Annotated[
        str | None, typer.Option("--visualize-hog", metavar="FILE", help="Draw the HOG of the first tested picture.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of all that is random (0).")] = None,
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
    """Learn to label pictures, and say how well it works on pictures that were not learned from.

    Exit status: 0; 1 if some pictures could not be used.
    """
    from featkit.cli import classify_run

    return classify_run.run(
        classify_run.Request(
            data=data,
            test=test,
            output=output,
            report=report,
            ablate=ablate,
            visualize_hog=visualize_hog,
            force=force,
            json=json,
            quiet=quiet,
            jobs=jobs,
            use_cache=not no_cache,
            decode=decode_options(max_pixels, frame, float_range),
        ),
        features=features,
        dictionary=dictionary,
        stride=stride,
        size=size,
        reduce=reduce,
        whiten=whiten or None,
        classifier=classifier,
        c=c,
        neighbours=neighbours,
        class_weight=class_weight,
        flip=flip,
        hold_out=hold_out,
        seed=seed,
    )
