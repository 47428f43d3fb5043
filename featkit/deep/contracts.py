"""How a network wants its pictures: what they are resized and cropped to, and what their samples become.

It is part of a feature as its weights are: the same network with the wrong one gives numbers that look right and are
worth less (of 1,000 ImageNet photos, 88.8 % right become 82.7 when they are squashed, and 77.6 with another mean).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from featkit.errors import UsageError
from featkit.images import Pixels

_INTERPOLATIONS = {
    "nearest": functional.InterpolationMode.NEAREST,
    "bilinear": functional.InterpolationMode.BILINEAR,
    "bicubic": functional.InterpolationMode.BICUBIC,
}
_RULES = ("shorter", "cover", "squash")


@dataclass(frozen=True)
class Contract:
    """rule: "shorter": the shorter side becomes `resize` pixels, the other in proportion, rounded down; "cover": the
    same, but a picture is enlarged no further than the crop takes; "squash": both sides become `resize`. crop: (width,
    height), from the centre. interpolation: "nearest", "bilinear" or "bicubic", the last two averaging where they
    reduce. mean, std: of samples 0..1, a channel each. Raises UsageError for what makes no sense.
    """

    rule: str
    resize: int
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise UsageError(f"there is no rule {self.rule!r} to resize by", hint=f"there are: {', '.join(_RULES)}")
        if self.interpolation not in _INTERPOLATIONS:
            raise UsageError(
                f"there is no interpolation {self.interpolation!r}", hint=f"there are: {', '.join(_INTERPOLATIONS)}"
            )
        if min(self.resize, *self.crop) < 1 or not all(each > 0 for each in self.std):
            raise UsageError("pictures are brought to 1 pixel a side or more, and divided by what is positive")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a picture of that size before it is cropped."""
        if self.rule == "squash":
            return self.resize, self.resize
        side = self.resize
        if self.rule == "cover":
            side = max(min(side, width, height), *self.crop)
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def cropped(self, pixels: Pixels) -> Tensor:
        """uint8 3×H×W of uint8 H×W×3, or H×W; where a side is shorter than the crop, black on both sides of it, as
        torchvision does it."""
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, 2)
        # A copy of what is read-only, as decoded pictures are: torch has no such tensors.
        picture = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
        height, width = pixels.shape[:2]
        wide, high = self.resized(width, height)
        if (wide, high) != (width, height):
            picture = functional.resize(
                picture, [high, wide], interpolation=_INTERPOLATIONS[self.interpolation], antialias=True
            )
        cropped: Tensor = functional.center_crop(picture, [self.crop[1], self.crop[0]])
        return cropped

    def normalised(self, pictures: Tensor) -> Tensor:
        """float32 N×3×H×W of uint8 N×3×H×W, channels last in memory."""
        # A row of all samples at a time: three channels at a time took six times as long.
        count, channels, height, width = pictures.shape
        rows = pictures.permute(0, 2, 3, 1).reshape(count, height, width * channels).to(torch.float32)
        mean, std = (255 * torch.tensor(each, device=rows.device).repeat(width) for each in (self.mean, self.std))
        return rows.sub_(mean).div_(std).view(count, height, width, channels).permute(0, 3, 1, 2)

    def of_side(self, side: int) -> Contract:
        """The same for pictures of so many pixels a side, as much of which is cropped in proportion; but where they are
        another number, nothing is cut from a picture that had to be enlarged for it. Of 5,000 pictures of CIFAR-10 at
        128 a ridge on lite0's head labels half a point more of 5,000 others right than with a margin cut off."""
        if (side, side) == self.crop:
            return self
        rule = "squash" if self.rule == "squash" else "cover"
        return replace(self, rule=rule, resize=max(1, round(self.resize * side / self.crop[0])), crop=(side, side))

    def record(self) -> dict[str, object]:
        """Plain values, for records and fingerprints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def of_record(record: Mapping[str, Any]) -> Contract:
        """The inverse of `record`. Raises TypeError for what is no such record, and UsageError."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return Contract(**values)


def of_torchvision(preset: Any) -> Contract:
    """Of the transforms of a torchvision weights enum (`ImageClassification`). Raises ValueError for others."""
    try:
        [resize], [crop] = preset.resize_size, preset.crop_size
    except (AttributeError, ValueError) as error:
        raise ValueError(f"this is not how pictures are classified: {preset!r}") from error
    size, interpolation = (int(crop), int(crop)), preset.interpolation.value
    return Contract("shorter", int(resize), size, interpolation, _three(preset.mean), _three(preset.std))


def of_timm(config: Mapping[str, Any]) -> Contract:
    """Of what `timm.data.resolve_model_data_config` gives. Raises UsageError for a way to crop that is not known."""
    _, height, width = config["input_size"]
    rule = {"center": "shorter", "squash": "squash"}.get(config["crop_mode"])
    if rule is None or height != width:
        raise UsageError(f"its pictures are brought to {width} × {height} in a way that is not known here")
    resize, interpolation = math.floor(height / config["crop_pct"]), config["interpolation"]
    return Contract(rule, resize, (width, height), interpolation, _three(config["mean"]), _three(config["std"]))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
