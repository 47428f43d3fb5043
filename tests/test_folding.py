"""Batch normalisations folded into convolutions: the same numbers for less work, or the same network."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from small_networks import seeded, small, unsettle
from torch import Tensor, nn

from featkit.deep import backbones
from featkit.deep.folding import fold_normalisations, held_apart


def noise(side: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def norms(network: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm2d) for each in network.modules())


@torch.no_grad()
def assert_alike(network: nn.Module, other: nn.Module, picture: Tensor) -> None:
    expected = other(picture)
    assert (network(picture) - expected).abs().max() <= 1e-4 * expected.abs().max()


def assert_untouched(network: nn.Module, before: nn.Module) -> None:
    assert [name for name, _ in network.named_modules()] == [name for name, _ in before.named_modules()]
    for name, value in before.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)


def test_a_residual_network() -> None:
    network = unsettle(backbones.load("resnet18", "random").network)
    before = copy.deepcopy(network)
    assert norms(network) == fold_normalisations(network, noise(64), kept=[]) == 20
    assert norms(network) == 0
    assert all(each.bias is not None for each in network.modules() if isinstance(each, nn.Conv2d))
    assert_alike(network, before, noise(64, seed=1))


def test_normalisations_that_end_with_an_activation() -> None:
    """timm's BatchNormAct2d, in EfficientNet-Lite with its own weights."""
    network = backbones.load("lite0").network
    before = copy.deepcopy(network)
    count = norms(network)
    assert fold_normalisations(network, noise(64), kept=[]) == count > 40
    assert norms(network) == 0
    assert_alike(network, before, noise(64, seed=1))


def test_nothing_needs_a_gradient_afterwards() -> None:
    network = small().requires_grad_(False)
    fold_normalisations(network, noise(32), kept=[])
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", ["conv1", "bn1"])
def test_a_kept_module_gives_what_it_gave(name: str) -> None:
    network = small()
    before = copy.deepcopy(network)
    kept = network.get_submodule(name)
    assert held_apart(network, noise(32), kept=[]) == ()
    assert held_apart(network, noise(32), kept=[kept]) == ("conv1",)
    assert fold_normalisations(network, noise(32), kept=[kept]) == 1
    assert norms(network) == 1
    assert network.get_submodule(name) is kept
    end = [each for each, _ in network.named_children()].index(name) + 1
    first, first_before = (nn.Sequential(*list(each.children())[:end]) for each in (network, before))
    assert_alike(first, first_before, noise(32, seed=1))
    assert_alike(network, before, noise(32, seed=1))


def test_a_module_that_ends_with_the_convolution_gives_what_it_gave() -> None:
    parts = OrderedDict(block=nn.Sequential(nn.Conv2d(3, 4, 3)), bn=nn.BatchNorm2d(4), more=nn.Conv2d(4, 4, 1))
    network = unsettle(seeded(nn.Sequential, parts)).eval()
    before = copy.deepcopy(network)
    assert fold_normalisations(network, noise(16), kept=[network.block]) == 0
    assert_untouched(network, before)
    assert fold_normalisations(network, noise(16), kept=[]) == 1


class Shared(nn.Module):
    """One convolution before two normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.one, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, batch: Tensor) -> Tensor:
        return self.other(self.conv(self.one(self.conv(self.stem(batch)))))


class UsedTwice(nn.Module):
    """What comes out of the convolution goes past the normalisation as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.last_norm = nn.BatchNorm2d(4)

    def forward(self, batch: Tensor) -> Tensor:
        found = self.conv(batch)
        return self.last_norm(self.last(self.norm(found) + found))


class InPlace(nn.Module):
    """An activation writes over what the convolution gave, and hands on the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.norm = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)

    def forward(self, batch: Tensor) -> Tensor:
        return self.norm(self.act(self.conv(batch)))


class Standardised(nn.Conv2d):
    """A convolution that does something with its weights."""

    def forward(self, batch: Tensor) -> Tensor:
        weight = self.weight / self.weight.std()
        return nn.functional.conv2d(batch, weight, self.bias)


@pytest.mark.parametrize(
    "make", [Shared, UsedTwice, InPlace, lambda: nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4))]
)
def test_what_cannot_be_folded_stays_as_it_is(make: type[nn.Module]) -> None:
    network = unsettle(seeded(make)).eval()
    before = copy.deepcopy(network)
    assert fold_normalisations(network, noise(16), kept=[]) == 0
    assert_untouched(network, before)
    torch.testing.assert_close(network(noise(16)), before(noise(16)), rtol=0, atol=0)


def test_no_normalisation_at_all() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    before = copy.deepcopy(network)
    assert fold_normalisations(network, noise(16), kept=[]) == 0
    assert_untouched(network, before)


def test_what_is_left_behind_in_a_network_are_no_hooks() -> None:
    network = small()
    fold_normalisations(network, noise(32), kept=[network.get_submodule("conv1")])
    assert not any(each._forward_hooks for each in network.modules())
