"""Where along a network a probe is worth while: what `--layers all` means.

Networks are built of stages or blocks that are done one after the other; what comes out of each is a place to look at.
Which modules these are is seen in a pass: no network is known here by its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featkit.deep.backbones import classifier, dimensions
from featkit.deep.config import HEAD
from featkit.deep.layers import Layer, layers
from featkit.errors import UsageError

#: Besides the head. Large vision transformers have as many blocks; more of them tell nothing new.
MOST = 24
# So many modules of one kind beside one another are stages, and none of them is what the others belong to.
_STAGES = 3


def stages(network: nn.Module, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Names of modules, in the order in which they are done, "head" last, if the network has one. shape: channels,
    height and width of what goes in.

    From the whole on, where one module does more than half of the multiply-adds, and is not one of several stages, it
    is looked at what that consists of. Of its parts, those that are composed themselves are the places, where they do
    most of the work. Else, as in VGG, it is what comes out before each part that has weights. Nothing from the head on;
    nothing that is no vector or map a picture.
    """
    whole, *rest = layers(network, shape)
    inside = _Inside(network, rest)
    try:
        head = classifier(network)
    except UsageError:
        head = None
    trunk = _trunk(inside, whole.multiply_adds, head)
    known = _shapes(network, shape)
    composed = [name for name in trunk if inside.is_composed(name)]
    if 2 * inside.work(composed) > inside.work(trunk):
        places = composed
    else:
        places = _ends(inside, trunk, known)
        if places and head is not None and known.get(places[-1]) == (dimensions(network),):
            places.pop()  # it is what goes into the head
    places = [name for name in places if name in known]
    return (*_spread(places), *([] if head is None else [HEAD]))


class _Inside:
    """The modules that are run, and which are in which."""

    def __init__(self, network: nn.Module, found: Sequence[Layer]) -> None:
        self._modules = {layer.name: network.get_submodule(layer.name) for layer in found}
        self._found = {layer.name: layer for layer in found}
        self._parts: dict[str, list[str]] = {}
        for name in self._found:
            self._parts.setdefault(self._holder(name), []).append(name)

    def parts(self, name: str) -> list[str]:
        """Of a module, "" for the whole: what is run in it, but not what is run in that."""
        return self._parts.get(name, [])

    def work(self, names: Sequence[str]) -> int:
        return sum(self._found[name].multiply_adds for name in names)

    def kind(self, name: str) -> str:
        return self._found[name].kind

    def is_composed(self, name: str) -> bool:
        return bool(self.parts(name)) and self._found[name].parameters > 0

    def has_weights(self, name: str) -> bool:
        """Matrices or kernels; normalisations have none."""
        return any(each.dim() > 1 for each in self._modules[name].parameters())

    def _holder(self, name: str) -> str:
        while name:
            name = name.rpartition(".")[0]
            if name in self._found:
                break
        return name


def _trunk(inside: _Inside, all_work: int, head: str | None) -> list[str]:
    """What is done one after the other, as far as the head."""
    parts = inside.parts("")
    while True:
        largest = max(parts, key=lambda name: inside.work([name]), default=None)
        if largest is None or 2 * inside.work([largest]) <= all_work or len(inside.parts(largest)) < 2:
            break
        alike = [name for name in parts if inside.kind(name) == inside.kind(largest) and inside.is_composed(name)]
        if len(alike) >= _STAGES:
            break
        parts = inside.parts(largest)
    end = next((place for place, name in enumerate(parts) if head is not None and _holds(name, head)), len(parts))
    return parts[:end]


def _holds(name: str, other: str) -> bool:
    return f"{other}.".startswith(f"{name}.")


def _ends(inside: _Inside, trunk: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Of what has weights, with what follows until the next that has: the last that is as much a map as that is, and
    not gathered or laid out in a row for a classifier."""
    found: list[str] = []
    for name in trunk:
        if inside.has_weights(name):
            found.append(name)
        elif found and _is_map(shapes.get(name, ())) == _is_map(shapes.get(found[-1], ())):
            found[-1] = name
    return found


def _is_map(shape: tuple[int, ...]) -> bool:
    return math.prod(shape[1:]) > 1


def _shapes(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Of what modules give for one picture; of those alone that give a vector or a map each for several."""
    found: dict[str, tuple[int, ...]] = {}
    count = 2

    def see(name: str, output: Any) -> None:
        found.pop(name, None)
        if isinstance(output, Tensor) and output.is_floating_point():
            pictures, *values = output.shape
            if pictures == count and 1 <= len(values) <= 3:
                found[name] = tuple(values)

    hooks = [
        module.register_forward_hook(lambda _, given, output, name=name: see(name, output))
        for name, module in network.named_modules()
    ]
    parameter, training = next(network.parameters()), network.training
    try:
        network.eval()
        with torch.no_grad():
            network(parameter.new_zeros(count, *shape))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return found


def _spread(places: Sequence[str]) -> list[str]:
    """At most MOST of them, evenly, with the last."""
    count = min(len(places), MOST)
    return [places[(number + 1) * len(places) // count - 1] for number in range(count)]
