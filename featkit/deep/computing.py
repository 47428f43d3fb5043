"""A network as it is computed here: on which device, by which runtime, in which precision, and how close that comes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from featkit.deep import bfloat16, openvino
from featkit.deep.backbones import Backbone
from featkit.deep.config import AT_ONCE, FEWEST_TO_COMPILE_FOR, FeatureConfig, NetworkConfig
from featkit.deep.features import Extractor
from featkit.errors import UsageError
from featkit.images import Pixels

Floats = npt.NDArray[np.float32]

#: The smallest cosine between features as they are computed and those of float32 by torch.
LEAST_COSINE = 0.999
# Of the check: pictures with the spectrum of photographs, whose amplitude falls as 1/f (Field 1987).
_CHECKED_PICTURES = 4


class Computes(Protocol):
    """As an Extractor: uint8 N×H×W×3 to float32 N×…, a layer each."""

    shapes: tuple[tuple[int, ...], ...]
    depends_on: tuple[str, ...]

    def __call__(self, pictures: Pixels, /) -> list[Floats]: ...


@dataclass(frozen=True)
class Computation:
    """device: "cpu", "cuda" or "mps". runtime: "torch" or "openvino". precision: "fp32" or "bf16"."""

    device: str
    runtime: str
    precision: str

    @property
    def is_plain(self) -> bool:
        """Whether others are compared with it."""
        return self.runtime == "torch" and self.precision == "fp32"


@dataclass(frozen=True)
class Network:
    """computed: how. cosine: the smallest to float32 by torch, of any layer and picture of the check; None where it is
    that. refused: what was not close enough, with its cosine."""

    compute: Computes
    computed: Computation
    cosine: float | None
    refused: tuple[tuple[Computation, float], ...]


def prepare(backbone: Backbone, config: NetworkConfig, *, count: int, jobs: int) -> Network:
    """count: of all pictures. jobs: threads that ask at once. The backbone's network is changed.

    Raises UsageError for a device or precision that is not there, DependencyError for a runtime that is not.
    """
    choices = _choices(config, count)
    refused: list[tuple[Computation, float]] = []
    for computed in choices:
        if computed.is_plain and not refused:
            return Network(_made(backbone, config.features, computed, jobs), computed, None, ())
        own = replace(backbone, network=copy.deepcopy(backbone.network))
        compute = _made(own, config.features, computed, jobs)
        if computed.is_plain:
            return Network(compute, computed, None, tuple(refused))
        plain = Extractor(
            replace(backbone, network=copy.deepcopy(backbone.network)), config.features, device=computed.device
        )
        cosine = _smallest_cosine(compute, plain, backbone.contract.crop)
        if cosine >= LEAST_COSINE:
            return Network(compute, computed, cosine, tuple(refused))
        refused.append((computed, cosine))
    raise AssertionError("the last choice is the plain one")


def _choices(config: NetworkConfig, count: int) -> list[Computation]:
    """From the fastest on; the last is plain."""
    device = "cpu" if config.runtime == "openvino" else _device(config.device)
    runtime = config.runtime
    if runtime == "auto":
        compiled = device == "cpu" and openvino.is_installed() and count >= FEWEST_TO_COMPILE_FOR
        runtime = "openvino" if compiled else "torch"
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if bfloat16.is_fast(device) else "fp32"
    elif precision == "bf16" and not bfloat16.works(device):
        raise UsageError(
            f"bf16 does not work on this {device}", hint="--precision auto takes it where it is there, and is faster"
        )
    found = [Computation(device, runtime, precision), Computation(device, runtime, "fp32")]
    return list(dict.fromkeys([*found, Computation(device, "torch", "fp32")]))


def _device(name: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(each for each, found in there.items() if found)
    if not there[name]:
        raise UsageError(f"there is no device {name} here", hint="leave out --device to take the best that is there")
    return name


def _made(backbone: Backbone, features: FeatureConfig, computed: Computation, jobs: int) -> Computes:
    dtype = torch.bfloat16 if computed.precision == "bf16" else torch.float32
    if computed.runtime == "openvino":
        return openvino.Compiled(Extractor(backbone, features), dtype, backbone.contract.crop, AT_ONCE["cpu"], jobs)
    extractor = Extractor(backbone, features, device=computed.device, dtype=dtype)
    return extractor if computed.device == "cpu" else _OneAtATime(extractor)


class _OneAtATime:
    """On a card: one batch after the other, halved where its memory is too small."""

    def __init__(self, extractor: Extractor) -> None:
        self.shapes, self.depends_on = extractor.shapes, extractor.depends_on
        self._extractor = extractor
        self._lock = threading.Lock()

    def __call__(self, pictures: Pixels) -> list[Floats]:
        with self._lock:
            return halving(self._extractor, pictures)


class OneLayer:
    """Of what computes several."""

    def __init__(self, compute: Computes, place: int) -> None:
        self.shapes: tuple[tuple[int, ...], ...] = (compute.shapes[place],)
        self.depends_on = compute.depends_on
        self._compute, self._place = compute, place

    def __call__(self, pictures: Pixels, /) -> list[Floats]:
        return [self._compute(pictures)[self._place]]


def halving(compute: Callable[[Pixels], list[Floats]], pictures: Pixels) -> list[Floats]:
    """The results for all pictures, in as few parts as the memory lets them be computed in."""
    try:
        return compute(pictures)
    except torch.OutOfMemoryError:
        if len(pictures) < 2:
            raise
    middle = len(pictures) // 2
    halves = [halving(compute, part) for part in (pictures[:middle], pictures[middle:])]
    return [np.concatenate(layer) for layer in zip(*halves, strict=True)]


def _smallest_cosine(compute: Computes, plain: Computes, size: tuple[int, int]) -> float:
    pictures = like_photographs(_CHECKED_PICTURES, size)
    cosines = []
    for found, expected in zip(compute(pictures), plain(pictures), strict=True):
        one, other = (each.reshape(len(pictures), -1).astype(np.float64) for each in (found, expected))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        # What is 0 is to be 0; what is not finite is not close.
        with np.errstate(invalid="ignore"):
            products = np.where(
                lengths > 0, (one * other).sum(1) / np.where(lengths > 0, lengths, 1), (one == other).all(1)
            )
        cosines.append(float(np.nan_to_num(products, nan=-1, posinf=-1, neginf=-1).min()))
    return min(cosines)


def like_photographs(count: int, size: tuple[int, int]) -> Pixels:
    """uint8 N×H×W×3, always the same: noise whose amplitude falls as 1/f, its colours alike as those of photographs."""
    width, height = size
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((count, 4, height, width))) / frequency
    shared, own = np.split(np.fft.irfft2(spectrum, (height, width)), [1], axis=1)
    samples = shared + own / 4
    samples *= 50 / samples.std((1, 2, 3), keepdims=True)
    return np.clip(np.rint(samples + 115), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()
