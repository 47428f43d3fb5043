"""Batch normalisations folded into the convolutions before them: the same numbers for less work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# The outputs of a network before and after, relative to the largest: float32 that is summed in another order.
_ALIKE = 1e-4


def fold_normalisations(network: nn.Module, picture: Tensor, kept: Sequence[nn.Module]) -> int:
    """Make one convolution of each that a batch normalisation comes after; returns of how many. picture: what the
    network takes. kept: modules whose output stays what it is.

    Which follow one another is seen in a pass. What else a network does with the output of a convolution is not: the
    results are compared, and where they differ all is undone.
    """
    pairs = _pairs(network, picture, kept)
    with torch.no_grad():
        expected = network(picture)
    parents = {norm: _place(network, norm) for _, norm in pairs}
    before = [(convolution, convolution.weight, convolution.bias) for convolution, _ in pairs]
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.requires_grad_(False).weight, fused.bias
        parent, name = parents[norm]
        setattr(parent, name, _without_normalisation(norm))
    with torch.no_grad():
        difference = (network(picture) - expected).abs().max()
    if difference <= _ALIKE * expected.abs().max():
        return len(pairs)
    for convolution, weight, bias in before:
        convolution.weight, convolution.bias = weight, bias
    for norm, (parent, name) in parents.items():
        setattr(parent, name, norm)
    return 0


def held_apart(network: nn.Module, picture: Tensor, kept: Sequence[nn.Module]) -> tuple[str, ...]:
    """Names of the convolutions that `fold_normalisations` would change, and does not because of what is kept."""
    free, folded = ([convolution for convolution, _ in _pairs(network, picture, each)] for each in ((), kept))
    return tuple(name for name, module in network.named_modules() if module in free and module not in folded)


def _pairs(network: nn.Module, picture: Tensor, kept: Sequence[nn.Module]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions, and the normalisations that take what comes out of them, and out of none that is kept."""
    # The tensors, too: as long as they live no other one has their id.
    outputs: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if module in kept:  # or one that ends with a convolution, whose output then is that one's
            outputs.pop(id(output), None)
        elif isinstance(module, nn.Conv2d):
            outputs[id(output)] = output, module
        elif isinstance(module, nn.BatchNorm2d) and id(given[0]) in outputs:
            found.append((outputs[id(given[0])][1], module))

    wanted = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.BatchNorm2d)) or each in kept]
    hooks = [each.register_forward_hook(after) for each in wanted]
    try:
        with torch.no_grad():
            network(picture)
    finally:
        for hook in hooks:
            hook.remove()
    # Not those that are run more than once in a pass, with other modules each time.
    return [pair for pair in found if all(sum(one in other for other in found) == 1 for one in pair)]


def _place(network: nn.Module, module: nn.Module) -> tuple[nn.Module, str]:
    """What holds a module, and under which name."""
    path = next(name for name, each in network.named_modules() if each is module)
    parent, _, name = path.rpartition(".")
    return network.get_submodule(parent), name


def _without_normalisation(norm: nn.BatchNorm2d) -> nn.Module:
    """What else it does: timm has some that end with an activation."""
    others = [each for name in ("drop", "act") if isinstance(each := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*others) if others else nn.Identity()
