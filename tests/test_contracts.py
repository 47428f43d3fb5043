"""What pictures become before a network sees them: as torchvision's and timm's own transforms have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from featkit.deep.contracts import Contract, of_timm, of_torchvision
from featkit.errors import UsageError

SIZES = ((500, 375), (375, 500), (224, 224), (100, 60), (1001, 333), (256, 256), (257, 256))


def photo(width: int, height: int) -> np.ndarray:
    """Smooth, with edges."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (9 + 3 * k)) * np.cos(y / (7 + 2 * k)) * 100 + 120 for k in range(3)]
    picture = np.stack(waves, 2)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    return picture.clip(0, 255).astype(np.uint8)


def assert_alike(found: torch.Tensor, theirs: torch.Tensor, std: Sequence[float]) -> None:
    """They resize by Pillow, which rounds otherwise: by a level in one of fifty samples, by three at hard edges."""
    levels = (found - theirs).abs() * torch.tensor(std).view(3, 1, 1) * 255
    assert levels.max() < 3.01
    assert levels.mean() < 0.02


@pytest.mark.parametrize("name", ["ResNet50_Weights", "ViT_B_16_Weights", "Inception_V3_Weights", "Swin_T_Weights"])
@pytest.mark.parametrize("size", SIZES)
def test_as_torchvision_does_it(name: str, size: tuple[int, int]) -> None:
    preset = getattr(torchvision.models, name).DEFAULT.transforms()
    pixels = photo(*size)
    contract = of_torchvision(preset)
    found = contract.normalised(contract.cropped(pixels)[None])[0]
    theirs = preset(Image.fromarray(pixels))
    assert_alike(found, theirs, preset.std)


@pytest.mark.parametrize("name", ["resnet18", "xception41", "vit_small_patch14_dinov2", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", SIZES)
def test_as_timm_does_it(name: str, size: tuple[int, int]) -> None:
    config = timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict())
    contract = of_timm(config)
    pixels = photo(*size)
    found = contract.normalised(contract.cropped(pixels)[None])[0]
    theirs = timm.data.create_transform(**config)(Image.fromarray(pixels))
    assert found.shape == theirs.shape
    assert_alike(found, theirs, config["std"])


def test_grey_is_three_times_the_same() -> None:
    contract = Contract("shorter", 64, (64, 64), "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    grey = photo(90, 70)[..., 0]
    torch.testing.assert_close(contract.cropped(grey), contract.cropped(np.repeat(grey[..., None], 3, 2)))


@pytest.mark.parametrize(
    "wrong", [{"rule": "longer"}, {"interpolation": "sinc"}, {"resize": 0}, {"crop": (0, 9)}, {"std": (1.0, 0.0, 1.0)}]
)
def test_what_makes_no_sense_is_refused(wrong: dict) -> None:
    right = {
        **{"rule": "squash", "resize": 9, "crop": (9, 9), "interpolation": "bicubic"},
        **{"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    }
    Contract(**right)
    with pytest.raises(UsageError):
        Contract(**{**right, **wrong})


@pytest.mark.parametrize(
    ("contract", "side", "resize"),
    [
        (Contract("shorter", 256, (224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3), 128, 146),
        (Contract("shorter", 342, (299, 299), "bilinear", (0.5,) * 3, (0.5,) * 3), 150, 172),
        (Contract("squash", 256, (256, 256), "bicubic", (0.5,) * 3, (0.5,) * 3), 96, 96),
        (Contract("shorter", 232, (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3), 448, 464),
        (Contract("shorter", 100, (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3), 1, 1),
    ],
)
def test_of_another_side(contract: Contract, side: int, resize: int) -> None:
    """As much of a picture is cropped, to a pixel; of one that is enlarged, nothing."""
    other = contract.of_side(side)
    assert other.rule == {"shorter": "cover", "squash": "squash"}[contract.rule]
    assert (other.resize, other.crop) == (resize, (side, side))
    assert other.of_side(contract.crop[0]).crop == contract.crop
    assert contract.of_side(contract.crop[0]) == contract
    changed = dict.fromkeys(("rule", "resize", "crop"))
    assert {**other.record(), **changed} == {**contract.record(), **changed}
    for size in ((50, 40), (333, 500)):
        assert other.cropped(photo(*size)).shape == (3, side, side)


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((32, 32), (128, 128)),
        ((30, 60), (128, 256)),
        ((140, 130), (140, 130)),
        ((146, 300), (146, 300)),
        ((600, 400), (219, 146)),
    ],
)
def test_a_small_picture_is_enlarged_no_further_than_the_crop_takes(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    contract = Contract("shorter", 256, (224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3).of_side(128)
    assert contract.resized(*size) == resized
    assert contract.cropped(photo(*size)).shape == (3, 128, 128)
