"""`featkit classify`: its options. What it does is in classify_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    Debug,
    FloatRange,
    Force,
    Frame,
    Jobs,
    Json,
    MaxPixels,
    NoCache,
    Quiet,
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
    test: Annotated[
        str | None,
        typer.Option(
            "--test", metavar="DATA", help="What to test on; else DATA's own test/ or val/, else a fifth held out."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the model, for `featkit predict`; - is stdout."),
    ] = None,
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
    class_weight: Annotated[
        str | None,
        typer.Option(
            "--class-weight", metavar="NAME", help="none (default), or balanced: small classes weigh as much."
        ),
    ] = None,
    flip: Annotated[
        str | None,
        typer.Option(
            "--flip", metavar="on|off", help="Learn from mirror images, too (default off); wrong for letters."
        ),
    ] = None,
    hold_out: Annotated[
        float | None, typer.Option("--hold-out", metavar="SHARE", help="Of each class, where DATA has no test (0.2).")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="DIR", help="Write a page: confusion, worst mistakes, maps of the features."),
    ] = None,
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
        class_weight=class_weight,
        flip=flip,
        hold_out=hold_out,
        seed=seed,
    )
