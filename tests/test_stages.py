"""What `--layers all` means: of known networks what their authors call stages or blocks, of others the rule."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from small_networks import SIDE, Small, backbone, pictures, seeded, small
from torch import Tensor, nn

from featkit.deep import backbones
from featkit.deep.backbones import Backbone
from featkit.deep.config import FeatureConfig
from featkit.deep.features import Extractor
from featkit.deep.layers import layers
from featkit.deep.stages import MOST, stages

SHAPE = (3, SIDE, SIDE)


def counted(pattern: str, numbers: range) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in numbers)


def of(name: str) -> tuple[str, ...]:
    width, height = backbones.contract_of(name).crop
    return stages(backbones.outline(name), (3, height, width))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lite0", counted("blocks.{}", range(7))),
        ("resnet18", counted("layer{}", range(1, 5))),
        ("resnet152", counted("layer{}", range(1, 5))),  # of which the third does more than half of the work
        ("vit_b_32", counted("encoder.layers.encoder_layer_{}", range(12))),
        ("alexnet", tuple(f"features.{number}" for number in (2, 5, 7, 9, 12))),
        ("vgg11_bn", tuple(f"features.{number}" for number in (3, 7, 10, 14, 17, 21, 24, 28))),
        ("squeezenet1_1", tuple(f"features.{number}" for number in (3, 4, 6, 7, 9, 10, 11, 12))),
        (
            "densenet121",
            (
                *(f"features.{kind}{n}" for n in range(1, 4) for kind in ("denseblock", "transition")),
                "features.denseblock4",
            ),
        ),
        ("swin_t", counted("features.{}", range(8))),
        ("convnext_tiny", counted("features.{}", range(8))),
        ("mobilenet_v3_small", counted("features.{}", range(13))),
        ("regnet_y_400mf", counted("trunk_output.block{}", range(1, 5))),
        (
            "googlenet",
            (
                "conv1",
                "conv2",
                "conv3",
                *(f"inception{n}{k}" for n, ks in ((3, "ab"), (4, "abcde"), (5, "ab")) for k in ks),
            ),
        ),
        ("maxvit_t", ("stem", *counted("blocks.{}", range(4)))),
        ("timm:vit_tiny_patch16_224", counted("blocks.{}", range(12))),
        ("timm:convnext_atto", counted("stages.{}", range(4))),
        ("timm:swin_tiny_patch4_window7_224", counted("layers.{}", range(4))),
        ("timm:vgg11", tuple(f"features.{number}" for number in (2, 5, 7, 10, 12, 15, 17, 20))),
    ],
)
def test_of_known_networks(name: str, expected: tuple[str, ...]) -> None:
    assert of(name) == (*expected, "head")


def test_a_network_without_a_head() -> None:
    assert of("timm:gemma4_vit_167m_enc")[-1] == "blocks.15"


@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5", "lite0", "squeezenet1_1", "timm:test_vit", "timm:hrnet_w18_small"]
)
def test_they_can_be_extracted_in_order_of_depth(name: str) -> None:
    """As vectors, of several pictures."""
    loaded = backbones.load(name, "random")
    width, height = loaded.contract.crop
    found = stages(loaded.network, (3, height, width))
    assert found == of(name) == stages(loaded.network, (3, height, width))
    assert not loaded.network.training
    order = [layer.name for layer in layers(loaded.network, (3, height, width))]
    assert sorted(found[:-1], key=order.index) == list(found[:-1])
    vectors = Extractor(loaded, FeatureConfig(found))(pictures(2, width))
    assert all(each.shape[0] == 2 and each.ndim == 2 and np.isfinite(each).all() for each in vectors)


def test_of_single_layers_it_is_what_comes_before_the_next_with_weights() -> None:
    """Activations and poolings belong to the layer before them; a normalisation, too."""
    assert stages(small(), SHAPE) == ("act1", "act2", "head")
    assert stages(nn.Sequential(OrderedDict(inner=small())).eval(), SHAPE) == ("inner.act1", "inner.act2", "head")


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, batch: Tensor) -> Tensor:
        found: Tensor = batch + self.conv2(self.conv1(batch).relu())
        return found


def deep(blocks: int) -> nn.Module:
    parts = [("stem", nn.Conv2d(3, 4, 3, 2)), *((f"block{number}", Block(4)) for number in range(blocks))]
    ends = [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("fc", nn.Linear(4, 5))]
    return nn.Sequential(OrderedDict([*parts, *ends])).eval()


@pytest.mark.parametrize("blocks", [3, MOST, MOST + 1, 60])
def test_of_many_there_are_some_evenly_apart(blocks: int) -> None:
    *found, head = stages(deep(blocks), SHAPE)
    assert (len(found), head) == (min(blocks, MOST), "head")
    places = [int(name.removeprefix("block")) for name in found]
    assert places[-1] == blocks - 1
    steps = np.diff([-1, *places])
    assert steps.min() >= blocks // MOST
    assert steps.max() <= max(1, -(-blocks // MOST))


def test_what_cannot_be_extracted_is_left_out() -> None:
    """No tensor; whole numbers; not one a picture."""

    class Pair(Block):
        def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(batch), batch

    class Halves(Block):
        def forward(self, batch: Tensor) -> Tensor:
            return torch.cat(super().forward(batch).chunk(2, 1))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 5)
            self.plain, self.pair, self.halves, self.last = Block(4), Pair(4), Halves(4), Block(4)

        def forward(self, batch: Tensor) -> Tensor:
            first, _ = self.pair(self.plain(self.stem(batch)))
            joined = torch.cat(self.halves(first).chunk(2), 1)
            found: Tensor = self.fc(self.last(joined).mean((2, 3)))
            return found

    network = seeded(Whole).eval()
    assert stages(network, SHAPE) == ("plain", "last", "head")
    extractor = Extractor(backbone(network), FeatureConfig(stages(network, SHAPE)))
    assert extractor.shapes == ((4,), (4,), (4,))


def test_what_comes_after_the_head_is_left_out() -> None:
    """Of a perceptron with hidden layers what goes into the last one is the head, and the layers before are places."""
    parts = [("flat", nn.Flatten()), ("fc1", nn.Linear(3 * SIDE * SIDE, 7)), ("act1", nn.ReLU())]
    parts += [("fc2", nn.Linear(7, 6)), ("act2", nn.ReLU()), ("fc3", nn.Linear(6, 5)), ("end", nn.Softmax(1))]
    assert stages(nn.Sequential(OrderedDict(parts)).eval(), SHAPE) == ("act1", "head")  # act2 is the head


def test_a_network_that_is_learning_goes_on_with_it() -> None:
    network = seeded(Small).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stages(network, SHAPE)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert isinstance(backbone(network), Backbone)
