"""Networks of a few layers with random weights, as backbones; shared by several tests."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from featkit.deep.backbones import Backbone
from featkit.deep.contracts import Contract

SIDE = 32
CONTRACT = Contract("shorter", 36, (SIDE, SIDE), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def backbone(network: nn.Module, contract: Contract = CONTRACT) -> Backbone:
    return Backbone("small", network.eval().requires_grad_(False), contract, "random", None)


def seeded(make: type[nn.Module], *arguments: object, seed: int = 0, **options: object) -> nn.Module:
    """With the same random weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*arguments, **options)


def unsettle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give its batch normalisations what they would have after learning: neither 0 and 1 nor alike."""
    generator = torch.Generator().manual_seed(seed)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 1.5),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.3, 0.3),
            ):
                assert values is not None
                values.data.uniform_(low, high, generator=generator)
    return network


class Small(nn.Sequential):
    """Two convolutions with normalisations and activations in place, a pooling, and a classifier of 5 classes."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, 8, 3, 2, 1, bias=False),
                bn1=nn.BatchNorm2d(8),
                act1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(8, 12, 3, 2, 1),
                bn2=nn.BatchNorm2d(12),
                act2=nn.ReLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                fc=nn.Linear(12, 5),
            )
        )


def small(seed: int = 0) -> nn.Module:
    return unsettle(seeded(Small, seed=seed), seed).eval()


def pictures(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """uint8 N×H×W×3 of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)
