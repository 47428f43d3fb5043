"""What is in a network, layer by layer: shapes, parameters, multiply-adds, strides and receptive fields.

One picture of zeros goes through it, and each operation on tensors is looked at as it is called, so that what a network
does between its modules counts, too: the sums of residual networks, the products of attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Layer:
    """name: as `nn.Module.named_modules` has it; "" is the network. kind: its class. shape: of its output without the
    batch; None where that is no tensor. parameters, multiply_adds: of it and all that is in it; additions alone,
    normalisations and activations are not counted, as in the literature. stride: pixels of the input from one place of
    the output to the next; None where that has no places. receptive_field: pixels that a place depends on, along the
    width; None: all of the input, as behind attention and behind the gate of a squeeze-and-excitation block."""

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int
    stride: int | None
    receptive_field: int | None


@dataclass(frozen=True)
class _Reach:
    """Of a tensor's places: as in Layer. stride: infinite where there are no places; field: where one depends on
    everything."""

    stride: float
    field: float


_EVERYWHERE = _Reach(math.inf, math.inf)


def layers(network: nn.Module, shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    """In the order in which they are done. shape: channels, height and width of what goes in."""
    trace = _Trace()
    names = {module: name for name, module in network.named_modules()}
    hooks = []
    for module in names:
        hooks.append(module.register_forward_pre_hook(trace.begin))
        hooks.append(module.register_forward_hook(trace.end))
    training = network.training
    parameter = next(network.parameters(), None)
    picture = torch.zeros(1, *shape) if parameter is None else parameter.new_zeros(1, *shape)
    try:
        network.eval()
        with torch.no_grad(), trace:
            trace.place(picture, _Reach(1, 1))
            network(picture)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return tuple(_layer(names[module], module, *trace.found[module]) for module in trace.order)


def _layer(name: str, module: nn.Module, output: Any, multiply_adds: int, reach: _Reach | None) -> Layer:
    shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
    return Layer(
        name,
        type(module).__name__,
        shape,
        sum(each.numel() for each in module.parameters()),
        multiply_adds,
        int(reach.stride) if reach is not None and math.isfinite(reach.stride) else None,
        int(reach.field) if reach is not None and math.isfinite(reach.field) else None,
    )


class _Trace(TorchFunctionMode):
    """Keeps of each tensor what its places depend on, and of each module what was multiplied in it."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[nn.Module] = []
        self.found: dict[nn.Module, tuple[Any, int, _Reach | None]] = {}
        self._running: list[int] = []
        # The tensor, too: as long as it lives no other one has its id.
        self._reach: dict[int, tuple[Tensor, _Reach]] = {}

    def place(self, tensor: Tensor, reach: _Reach) -> None:
        self._reach[id(tensor)] = tensor, reach

    def begin(self, module: nn.Module, _: Any) -> None:
        self._running.append(0)
        if module not in self.found:
            self.order.append(module)
            self.found[module] = None, 0, None

    def end(self, module: nn.Module, _: Any, output: Any) -> None:
        multiplied = self._running.pop()
        _, before, _ = self.found[module]
        self.found[module] = output, before + multiplied, self._of(output)
        if self._running:
            self._running[-1] += multiplied

    def _of(self, value: Any) -> _Reach | None:
        if not isinstance(value, Tensor) or id(value) not in self._reach:
            return None
        return self._reach[id(value)][1]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        given = [each for each in _tensors((args, kwargs)) if id(each) in self._reach]
        if self._running:
            self._running[-1] += _multiply_adds(name, args, kwargs, output)
        if given:
            reach = _reached(name, args, kwargs, given, [self._reach[id(each)][1] for each in given], output)
            for each in _tensors(output):
                self.place(each, reach)
        return output


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


def _multiply_adds(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> int:
    if name in ("conv1d", "conv2d", "conv3d"):
        weight = _argument(args, kwargs, 1, "weight")
        return int(output.numel() * weight[0].numel())
    if name == "linear":
        return int(output.numel() * _argument(args, kwargs, 1, "weight").shape[1])
    if name in ("matmul", "__matmul__", "bmm"):
        return int(output.numel() * args[0].shape[-1])
    if name == "einsum":
        return _multiply_adds_of_sum(str(args[0]), _tensors(args[1:]), output)
    if name in ("addmm", "baddbmm"):
        return int(output.numel() * args[1].shape[-1])
    if name == "multi_head_attention_forward":  # nothing inside of it is seen
        query, key = args[0], args[1]
        places, others, size = query.shape[0] * query.shape[1], key.shape[0], query.shape[2]
        return int(places * size * (2 * size + 2 * others) + 2 * key.shape[0] * key.shape[1] * size * size)
    if name == "scaled_dot_product_attention":
        query, key, value = (_argument(args, kwargs, n, each) for n, each in enumerate(("query", "key", "value")))
        pairs = math.prod(query.shape[:-1]) * key.shape[-2]
        return int(pairs * (query.shape[-1] + value.shape[-1]))
    return 0


def _multiply_adds_of_sum(equation: str, operands: Sequence[Tensor], output: Tensor) -> int:
    """Of torch.einsum: each value of the output is a sum over the indices that it lacks."""
    terms, arrow, kept = equation.replace(" ", "").partition("->")
    if not arrow:
        kept = "".join(index for index in terms if terms.count(index) == 1)
    sizes = {
        index: size
        for term, operand in zip(terms.split(","), operands, strict=True)
        for index, size in zip(reversed(term), reversed(operand.shape), strict=False)  # those before are "..."
        if index.isalpha()
    }
    if len(operands) < 2:
        return 0
    return int(output.numel() * math.prod(size for index, size in sizes.items() if index not in kept))


_MIXING = frozenset(
    (
        "einsum",
        "matmul",
        "__matmul__",
        "bmm",
        "addmm",
        "baddbmm",
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
    )
)


def _reached(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    given: Sequence[Tensor],
    reaches: list[_Reach],
    output: Any,
) -> _Reach:
    first = next(iter(_tensors(output)), None)
    # What a map is multiplied by, or has added to it, may have one place for all of its places.
    alike = [
        reach for each, reach in zip(given, reaches, strict=True) if first is not None and _same_places(each, first)
    ]
    widest = _Reach(max(each.stride for each in alike or reaches), max(each.field for each in reaches))
    if name == "conv2d":
        kernel = _argument(args, kwargs, 1, "weight").shape[-1]
        step, spread = (_last(_argument(args, kwargs, n, each, 1)) for n, each in ((3, "stride"), (5, "dilation")))
        return _through(widest, kernel, step, spread)
    if name in ("max_pool2d", "avg_pool2d", "max_pool2d_with_indices", "lp_pool2d", "boolean_dispatch"):
        kernel = _last(_argument(args, kwargs, 1, "kernel_size"))
        step = _last(_argument(args, kwargs, 2, "stride", None) or kernel)
        spread = _last(_argument(args, kwargs, 4, "dilation", 1)) if name.startswith("max") else 1
        return _through(widest, kernel, step, spread)
    # A tensor without the two last sides of a picture, or a mean over them, has no places any more.
    if first is None or name in _MIXING or first.dim() < 3:
        return _EVERYWHERE
    return _EVERYWHERE if _sides(first) != _sides(given[0]) and _gathers(name, first) else widest


def _gathers(name: str, output: Tensor) -> bool:
    return "adaptive" in name or name in ("mean", "sum", "amax", "max") or output.shape[-2:] == (1, 1)


def _sides(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[-2:])


def _same_places(one: Tensor, other: Tensor) -> bool:
    return one.dim() == other.dim() and _sides(one) == _sides(other)


def _through(reach: _Reach, kernel: int, step: int, spread: int) -> _Reach:
    field = reach.field if kernel == 1 else reach.field + (kernel - 1) * spread * reach.stride
    return _Reach(reach.stride * step, field)


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _last(value: Any) -> int:
    return int(value[-1] if isinstance(value, (tuple, list)) else value)
