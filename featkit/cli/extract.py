"""`featkit extract`: its options. What it does is in extract_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import (
    Backbone,
    Debug,
    Device,
    FilesFrom,
    FloatRange,
    Force,
    Frame,
    Input,
    Jobs,
    Json,
    MaxPixels,
    NoCache,
    Normalize,
    Nul,
    Pool,
    Precision,
    Quiet,
    Recursive,
    Runtime,
    Weights,
    decode_options,
)


def command(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]...", help="Pictures, folders, globs, tar archives, or - for a list on stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file: .npz, .npy, .parquet or .h5; a folder of shards; - for stdout. Without it, a line a picture.",
        ),
    ] = None,
    backbone: Backbone = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="NAMES", help="Of which layers, with commas; head goes into the classifier; all."
        ),
    ] = None,
    pool: Pool = None,
    normalize: Normalize = False,
    weights: Weights = None,
    input_: Input = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of --weights random (0).")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="NAME",
            help="Without a network: hog, hog-skimage, pixels; keypoints by sift, orb, affine-sift, aliked or disk.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="For hog and pixels: what pictures are brought to.")
    ] = None,
    max_keypoints: Annotated[
        int | None, typer.Option("--max-keypoints", metavar="N", help="Of keypoints: the strongest N.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option("--max-side", metavar="PIXELS", help="Of keypoints: look at pictures reduced to this side."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="Of vectors: float32 or float16.")
    ] = None,
    precision: Precision = None,
    device: Device = None,
    runtime: Runtime = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="npz, npy, parquet, h5 or folder, whatever PATH ends with."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="K/N", help="Of a folder, make every N-th shard from the K-th on.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option("--shard-size", metavar="N", help="Pictures a shard, rounded up to whole batches.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Join folders of shards, given in place of pictures, to one or to a file.")
    ] = False,
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
    """Make vectors of pictures, by a network or without one, in the order given.

    A run that was killed goes on where it was when the same command is given again. Pictures that cannot be read are
    rows with an error.

    Exit status: 0; 1 if some pictures could not be read, 2 if none could.
    """
    from featkit.cli import extract_run

    request = extract_run.Request(
        pictures=pictures or [],
        output=output,
        backbone=backbone,
        layers=layers,
        pool=pool,
        normalize=normalize,
        weights=weights,
        input=input_,
        seed=seed,
        features=features,
        size=size,
        max_keypoints=max_keypoints,
        max_side=max_side,
        dtype=dtype,
        precision=precision,
        device=device,
        runtime=runtime,
        format=format_,
        shard=shard,
        shard_size=shard_size,
        merge=merge,
        files_from=files_from,
        nul=nul,
        recursive=recursive,
        decode=decode_options(max_pixels, frame, float_range),
        jobs=jobs,
        use_cache=not no_cache,
        force=force,
        json=json,
        quiet=quiet,
    )
    return extract_run.run(request)
