"""`featkit backbones`: its options. What it does is in backbones_run.py, imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from featkit.cli.options import Debug, Input, Json, Quiet


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A network, for its layers; or a pattern, as 'resnet*' or 'timm:*dino*', for those it fits.",
        ),
    ] = None,
    input_: Input = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", help="How deep to look into modules (text: 3, with --json: all the way)."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """List the networks, or the layers of one.

    Of a network: its parameters, the pictures it takes, the dimensions of what it makes of one (head), and whether its
    weights are here. Of a layer: its output, parameters and multiply-adds, and of a place of its output the receptive
    field and the stride, in pixels.
    """
    from featkit.cli import backbones_run

    return backbones_run.run(name, input_=input_, depth=depth, json=json, quiet=quiet)
