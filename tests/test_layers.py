"""The layer table of a network: multiply-adds of the papers, receptive fields by experiment."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from featkit.deep.backbones import contract_of, outline
from featkit.deep.layers import Layer, layers


def table(name: str) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers(outline(name), (3, *contract_of(name).crop))}


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "vgg16", "squeezenet1_0", "googlenet", "inception_v3", "resnet50", "resnext50_32x4d"),
        *("wide_resnet50_2", "densenet121", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0"),
        *("regnet_x_400mf", "regnet_y_400mf", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"),
        *("vit_b_16", "vit_h_14", "swin_t", "swin_v2_t", "maxvit_t"),
    ],
)
def test_multiply_adds_are_those_that_torchvision_publishes(name: str) -> None:
    """To its three decimals of 10⁹; of networks with attention, too, whose products are between their modules."""
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    assert table(name)[""].multiply_adds / 1e9 == pytest.approx(published, abs=0.0006)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)],
)
def test_multiply_adds_of_resnets_are_those_of_the_paper(name: str, billions: float) -> None:
    """He et al. 2016, table 1. Their bottlenecks have the stride in the first convolution; torchvision's in the second,
    which makes ResNet-50's 4.1."""
    network = outline(name)
    for block in network.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    found = layers(network, (3, 224, 224))[0].multiply_adds / 1e9
    assert found == pytest.approx(billions, abs=0.07)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # The tables of timm's results, in 10⁹ multiply-adds.
        ("timm:vit_small_patch16_224", 4.61),
        ("timm:convnext_tiny", 4.47),
        ("timm:legacy_seresnet50", 3.88),
        ("timm:xception41", 9.28),
        ("timm:swin_tiny_patch4_window7_224", 4.51),
        ("timm:vit_small_patch14_dinov2", 46.76),
    ],
)
def test_multiply_adds_of_timms(name: str, billions: float) -> None:
    assert table(name)[""].multiply_adds / 1e9 == pytest.approx(billions, rel=0.03)


def test_shapes_strides_and_fields() -> None:
    found = table("resnet18")
    assert (found["conv1"].shape, found["conv1"].stride, found["conv1"].receptive_field) == ((64, 112, 112), 2, 7)
    assert (found["layer4"].shape, found["layer4"].stride, found["layer4"].receptive_field) == ((512, 7, 7), 32, 435)
    assert (found["avgpool"].stride, found["avgpool"].receptive_field) == (None, None)
    assert found["layer1.0.conv1"].multiply_adds == 64 * 56 * 56 * 64 * 9
    assert table("resnet50")["layer4"].receptive_field == 427
    assert table("vgg16")["features"].receptive_field == 212
    assert table("vit_b_16")["encoder"].receptive_field is None


def test_behind_a_gate_a_place_depends_on_everything_and_is_still_a_place() -> None:
    found = table("mobilenet_v3_small")
    assert (found["features.0"].receptive_field, found["features.0"].stride) == (3, 2)
    gate = found["features.1.block.1"]
    assert (gate.receptive_field, gate.stride, gate.shape) == (None, 4, (16, 56, 56))
    assert (found["features"].receptive_field, found["features"].stride) == (None, 32)
    assert found["avgpool"].stride is None


@pytest.mark.parametrize("side", [32, 35, 64])
@pytest.mark.parametrize(
    ("kernel", "step", "padding", "spread"), [(3, 1, 1, 1), (5, 2, 0, 1), (3, 2, 2, 2), (7, 3, 1, 1)]
)
def test_the_size_of_what_a_convolution_gives(side: int, kernel: int, step: int, padding: int, spread: int) -> None:
    convolution = nn.Conv2d(3, 4, kernel, step, padding, spread)
    [layer] = layers(convolution, (3, side, side))
    expected = (side - (spread * (kernel - 1) + 1) + 2 * padding) // step + 1
    assert layer.shape == (4, expected, expected)
    assert layer.multiply_adds == 4 * expected**2 * 3 * kernel**2


def reached_by_experiment(network: nn.Module, side: int) -> tuple[int, int]:
    """Of the output's places: how many pixels a side one of them depends on, and how far the next one is shifted."""
    picture = torch.rand(1, 3, side, side, requires_grad=True)
    output = network(picture).sum(1)[0]
    middle = output.shape[-1] // 2
    spans = []
    for place in (middle, middle + 1):
        [gradient] = torch.autograd.grad(output[middle, place], picture, retain_graph=True)
        columns = torch.nonzero(gradient.abs().sum((0, 1, 2))).ravel()
        spans.append((int(columns[0]), int(columns[-1])))
    return spans[0][1] - spans[0][0] + 1, spans[1][0] - spans[0][0]


@pytest.mark.parametrize("seed", range(6))
def test_fields_and_strides_are_what_gradients_say(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)

    def draw(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=random))

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values + self.long(values)

    network = nn.Sequential(
        nn.Conv2d(3, 4, 2 * draw(0, 3) + 1, draw(1, 2)),
        Residual(),
        nn.AvgPool2d(draw(2, 3), draw(1, 2)),
        nn.Conv2d(4, 4, 3, draw(1, 2), dilation=draw(1, 2)),
    )
    whole = next(layer for layer in layers(network, (3, 160, 160)) if layer.name == "")
    assert (whole.receptive_field, whole.stride) == reached_by_experiment(network, 160)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 5)], 30),
        ("bid, bjd -> bij", [(2, 3, 4), (2, 5, 4)], 120),
        ("...id,...jd->...ij", [(7, 2, 3, 4), (7, 2, 5, 4)], 840),
        ("ij,jk", [(2, 3), (3, 5)], 30),
        ("ij->ji", [(2, 3)], 0),
    ],
)
def test_sums_over_indices_are_counted(equation: str, shapes: list[tuple[int, ...]], expected: int) -> None:
    class Product(nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.einsum(equation, *(torch.ones(shape) for shape in shapes))

    assert layers(Product(), (3, 8, 8))[0].multiply_adds == expected


def test_a_network_is_left_as_it_was() -> None:
    network = torchvision.models.resnet18(weights=None).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layers(network, (3, 64, 64))
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert not any(module._forward_hooks for module in network.modules())
