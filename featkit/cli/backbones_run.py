"""What `featkit backbones` does: a line a network, or a line a layer of one."""

from __future__ import annotations

from collections.abc import Sequence

from featkit.cli.console import counted, print_line, print_note, print_record
from featkit.cli.options import input_shape
from featkit.deep import backbones
from featkit.deep.layers import Layer, layers
from featkit.deep.stages import stages
from featkit.errors import UsageError
from featkit.records import record

#: As torchinfo's: blocks of ResNets are shown whole, those of deeper trees as one line.
_DEPTH = 3
_PATTERN = frozenset("*?[")
_NETWORK_WIDTHS = (10, 11, 5, 7)
_LAYER_TITLES = ("name", "kind", "output", "parameters", "multiply-adds", "field", "stride", "extract")
# Texts are flush left, numbers right.
_TEXTS = 2


def run(name: str | None, *, input_: str | None, depth: int | None, json: bool, quiet: bool) -> int:
    """Print them; returns the exit status."""
    if name is not None and _PATTERN.isdisjoint(name):
        _print_layers(name, input_, depth, json=json, quiet=quiet)
        return 0
    if input_ is not None or depth is not None:
        raise UsageError("--input and --depth are about the layers of one network", hint="name one")
    found = backbones.names() if name is None else backbones.named(name)
    if not found:
        raise UsageError(f"no backbone fits {name!r}", hint=f"those of timm begin with {backbones.TIMM}")
    _print_networks(found, json=json)
    if name is None and not (json or quiet):
        print_note(f"and timm's, as {backbones.TIMM}NAME: see featkit backbones '{backbones.TIMM}*dino*'")
    return 0


def _print_networks(names: Sequence[str], *, json: bool) -> None:
    """Each as soon as it is known: of all of timm's that takes minutes."""
    widths = (max(map(len, names)), *_NETWORK_WIDTHS)
    if not json:
        print_line(_row(("name", "parameters", "input", "dims", "weights"), widths, 1))
    for name in names:
        known = backbones.summary(name)
        if json:
            print_record(_network_record(known))
        else:
            dims, here = "-" if known.dimensions is None else str(known.dimensions), "here" if known.is_here else "-"
            print_line(_row((name, _short(known.parameters), _shape(known.shape), dims, here), widths, 1))


def _print_layers(name: str, input_: str | None, depth: int | None, *, json: bool, quiet: bool) -> None:
    if depth is not None and depth < 1:
        raise UsageError("--depth must be at least 1")
    known = backbones.summary(name)
    shape = known.shape if input_ is None else input_shape(input_)
    with backbones.taking(name, shape, known.shape):
        network = backbones.outline(name)
        whole, *inside = layers(network, shape)
        places = stages(network, shape)
    deepest = max((_depth_of(layer) for layer in inside), default=1)
    limit = depth or (deepest if json else _DEPTH)
    shown = [layer for layer in inside if _depth_of(layer) <= limit]
    if json:
        for layer in shown:
            print_record(_layer_record(layer))
        more = {"input": shape, "multiply_adds": whole.multiply_adds, "head": known.head, "stages": places}
        print_record(_network_record(known) | more)
        return
    rows = [_LAYER_TITLES, *map(_layer_cells, shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_line(_row(row, widths, _TEXTS))
    print_line(f"{name}, {_shape(shape)}: {whole.parameters:,} parameters, {_short(whole.multiply_adds)} multiply-adds")
    if known.head is not None:
        print_line(f"head, which is extracted by default: what goes into {known.head}, {known.dimensions} dimensions")
    if places:
        print_line(f"--layers all, in order of depth: {', '.join(places)}")
    if len(shown) < len(inside) and not quiet:
        deeper = counted(len(inside) - len(shown), "layer lies", "layers lie")
        print_note(f"{deeper} deeper: --depth {deepest} shows all")


def _depth_of(layer: Layer) -> int:
    return layer.name.count(".") + 1


def _network_record(known: backbones.Summary) -> dict[str, object]:
    return record(
        "backbone",
        name=known.name,
        parameters=known.parameters,
        input=known.shape,
        dims=known.dimensions,
        weights_here=known.is_here,
    )


def _layer_record(layer: Layer) -> dict[str, object]:
    return record(
        "layer",
        name=layer.name,
        kind=layer.kind,
        output=layer.shape,
        parameters=layer.parameters,
        multiply_adds=layer.multiply_adds,
        receptive_field=layer.receptive_field,
        stride=layer.stride,
        extractable=layer.shape is not None,
    )


def _layer_cells(layer: Layer) -> tuple[str, ...]:
    field, stride = ("-" if each is None else str(each) for each in (layer.receptive_field, layer.stride))
    shape, extract = ("-", "no") if layer.shape is None else (_shape(layer.shape), "yes")
    sizes = (f"{layer.parameters:,}", _short(layer.multiply_adds))
    return layer.name, layer.kind, shape, *sizes, field, stride, extract


def _row(cells: Sequence[str], widths: Sequence[int], texts: int) -> str:
    """texts: how many of the cells, from the first, are flush left."""
    placed = [
        f"{cell:<{width}}" if place < texts else f"{cell:>{width}}"
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _short(count: float) -> str:
    """Three digits or more: 1234 is 1.23k."""
    for unit in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
