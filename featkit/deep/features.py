"""A picture to vectors: what comes out of some of a network's layers in one pass, pooled.

    extractor = Extractor(backbones.load("lite0"), FeatureConfig(("blocks.5", "head")))
    vectors = extractor(pictures)  # uint8 N×224×224×3 -> float32 N×320, N×1280

"head" is what goes into the classifier. Batch normalisations are folded into the convolutions before them, pictures
are laid out channels last, and a pass ends with the last layer that is asked for.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from featkit.deep.backbones import Backbone, classifier
from featkit.deep.config import HEAD, FeatureConfig
from featkit.deep.folding import fold_normalisations, held_apart
from featkit.errors import UsageError
from featkit.images import Pixels

Floats = npt.NDArray[np.float32]

# Of generalised means (Radenović et al. 2018): the power, and what samples are raised to at least.
_GEM_POWER, _GEM_LEAST = 3.0, 1e-6
_CHOOSE = "choose another that featkit backbones NAME lists"


class Extractor:
    """uint8 N×H×W×3 of the contract's crop to float32 N×D, a layer each; without pooling N×C×H×W, N×H×W×C or
    N×places×C, as the network has it. A result depends on its picture alone.

    layers: their names. shapes: of each one's for one picture. depends_on: empty where each layer's numbers are the
    same to the last bit, whichever others are asked for; else what makes the difference, as names.

    Raises UsageError for a layer that there is not, that is not reached, or gives nothing that can be pooled so.
    """

    def __init__(
        self, backbone: Backbone, config: FeatureConfig, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """device: "cpu", "cuda" or "mps". dtype: that the network computes in. The backbone's network is changed."""
        self.device, self._dtype = torch.device(device), dtype
        self._contract = backbone.contract
        self.layers = config.layers
        self._network = backbone.network.to(self.device)
        self._taps = [_Tap(self._network, layer, config) for layer in config.layers]
        width, height = backbone.contract.crop
        noise = _noise(width, height)
        self._network.eval()
        with torch.no_grad():
            _look(self._taps, lambda side: self._network(self._input(_noise(side, side))), width)
            kept = [tap.module for tap in self._taps]
            self.depends_on = held_apart(self._network, self._input(noise), kept)
            fold_normalisations(self._network, self._input(noise), kept)
        self._pass = _Pass()
        for tap in self._taps:
            tap.attach(self._pass)
        self._network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = self(noise)
        for tap, values in zip(self._taps, found, strict=True):
            if len(values) != len(noise):
                raise UsageError(f"what comes out of the layer {tap.layer!r} is not one a picture", hint=_CHOOSE)
        self.shapes: tuple[tuple[int, ...], ...] = tuple(values.shape[1:] for values in found)

    def __call__(self, pictures: Pixels) -> list[Floats]:
        with torch.inference_mode():
            found = self.tensors(self._input(pictures).to(self._dtype))
            return [np.asarray(each.cpu().numpy(), np.float32) for each in found]

    def graph(self) -> nn.Module:
        """The same as a module without early end, for who compiles it: uint8 N×H×W×3 to a tuple of tensors."""
        return _Graph(self)

    def tensors(self, batch: Tensor, *, to_the_end: bool = False) -> list[Tensor]:
        """float32, a layer each, of pictures as the network takes them. to_the_end: do what comes after, too."""
        self._pass.begin(to_the_end)
        with contextlib.suppress(_Reached):
            self._network(batch)
        return [self._pass.found[tap] for tap in self._taps]

    def _input(self, pictures: Pixels) -> Tensor:
        """float32 N×3×H×W, channels last, of the device."""
        # A view, but of what is read-only or turned, which torch does not take: N×H×W×3 in memory is what it calls
        # channels last.
        batch = torch.from_numpy(np.require(pictures, requirements=["C", "W"])).to(self.device).permute(0, 3, 1, 2)
        return self._contract.normalised(batch)


def _noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)


class _Graph(nn.Module):
    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self._network = extractor._network  # for its parameters to be this module's, too
        self._extractor = extractor

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        batch = self._extractor._contract.normalised(pictures.permute(0, 3, 1, 2))
        return tuple(self._extractor.tensors(batch, to_the_end=True))


class _Pass(threading.local):
    """What each thread's pass has found so far, and how often each layer was run."""

    def begin(self, to_the_end: bool) -> None:
        self.to_the_end = to_the_end
        self.found: dict[_Tap, Tensor] = {}
        self.calls: Counter[_Tap] = Counter()


class _Reached(Exception):
    """The last layer that is asked for is done."""


class _Tap:
    """What is taken from one layer. calls: how many times its module is run in a pass; what it gives last is taken.
    last: whether no other layer comes after it. channels_last: its maps are N×H×W×C, as those of Swin and its like."""

    def __init__(self, network: nn.Module, layer: str, config: FeatureConfig) -> None:
        self.layer, self.config = layer, config
        self.calls, self.last, self.channels_last = 0, False, False
        modules = dict(network.named_modules())
        name = classifier(network) if layer == HEAD else layer
        if not layer or name not in modules:
            near = difflib.get_close_matches(layer, [HEAD, *filter(None, modules)], 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "featkit backbones NAME lists its layers"
            raise UsageError(f"there is no layer {layer!r}", hint=hint)
        self.module = modules[name]
        # Places before the first patch of a transformer: timm says how many, and whether the first is a class token;
        # torchvision's has that alone.
        self.prefix_tokens = int(getattr(network, "num_prefix_tokens", hasattr(network, "class_token")))
        self.has_class_token = self.prefix_tokens > 0 and bool(getattr(network, "has_class_token", True))

    def attach(self, state: _Pass) -> None:
        def take(value: Any) -> None:
            state.calls[self] += 1
            if state.calls[self] < self.calls:
                return
            # At once: what comes next may be computed in the same memory.
            state.found[self] = self._pooled(value)
            if self.last and not state.to_the_end:
                raise _Reached

        self.hook(take)

    def hook(self, take: Callable[[Any], None]) -> RemovableHandle:
        """Let `take` have what the layer gives, each time."""
        handle: RemovableHandle = (
            self.module.register_forward_pre_hook(lambda _, given: take(given[0]))
            if self.layer == HEAD
            else self.module.register_forward_hook(lambda _, given, output: take(output))
        )
        return handle

    def _pooled(self, value: Any) -> Tensor:
        pool = self.config.pool
        if not isinstance(value, Tensor) or value.dim() not in (2, 3, 4) or not value.is_floating_point():
            raise UsageError(f"what comes out of the layer {self.layer!r} is no vector and no map", hint=_CHOOSE)
        value = value.float()
        if value.dim() == 2:
            pooled = value.clone()
        elif pool == "none":
            pooled = value.contiguous().clone()
        elif pool == "cls":
            if value.dim() == 4 or not self.has_class_token:
                raise UsageError(
                    f"the layer {self.layer!r} has no class token", hint="--pool cls is for vision transformers"
                )
            pooled = value[:, 0].clone()
        else:
            pooled = _POOLED[pool](self._places(value))
        return nn.functional.normalize(pooled) if self.config.normalize else pooled

    def _places(self, value: Tensor) -> Tensor:
        """N×C×places."""
        if value.dim() == 3:
            return value[:, self.prefix_tokens :].transpose(1, 2)
        return value.flatten(1, 2).transpose(1, 2) if self.channels_last else value.flatten(2)


_POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda places: places.mean(2),
    "max": lambda places: places.amax(2),
    "gem": lambda places: places.clamp(min=_GEM_LEAST).pow(_GEM_POWER).mean(2).pow(1 / _GEM_POWER),
}


def _look(taps: Sequence[_Tap], run: Callable[[int], Any], side: int) -> None:
    """Find out how often each is run, which is done last, and how their maps lie. run: a pass, of a picture of so many
    pixels a side. side: of those that come."""
    seen = _seen(taps, lambda: run(side))
    for tap in taps:
        shapes = [shape for each, shape in seen if each is tap]
        if not shapes:
            raise UsageError(f"nothing goes through the layer {tap.layer!r}", hint=_CHOOSE)
        tap.calls = len(shapes)
        if len(shapes[-1]) == 4:
            _, *sides = shapes[-1]
            tap.channels_last = sides[0] == sides[1] != sides[2]  # pictures are square here
            if sides[0] == sides[1] == sides[2]:
                tap.channels_last = _keeps_its_last_side(tap, shapes[-1], lambda: run(2 * side))
    seen[-1][0].last = True


def _keeps_its_last_side(tap: _Tap, shape: tuple[int, ...], run: Callable[[], Any]) -> bool:
    """Whether the last side of what a layer gives stays where the picture is another; False where the network does not
    take it."""
    try:
        *_, (_, other) = _seen([tap], run)
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return False
    return other[-1] == shape[-1]


def _seen(taps: Sequence[_Tap], run: Callable[[], Any]) -> list[tuple[_Tap, tuple[int, ...]]]:
    """Which of them a pass goes through, in order, and the shape of what each gives; () where that is no tensor."""
    seen: list[tuple[_Tap, tuple[int, ...]]] = []

    def see(tap: _Tap) -> Callable[[Any], None]:
        return lambda value: seen.append((tap, tuple(value.shape) if isinstance(value, Tensor) else ()))

    hooks = [tap.hook(see(tap)) for tap in taps]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen
