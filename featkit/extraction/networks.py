"""The maker of vectors by a network, which is not loaded before there is something to compute.

What is known of a network once it was loaded is kept in the cache: its contract, the shapes of its layers, the hash of
its weights, and how it is computed on this machine. With that, a run that finds all vectors made needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featkit import images
from featkit.cache import Cache, make_key
from featkit.configs import from_options
from featkit.deep import config as deep_config
from featkit.deep.config import ALL, AT_ONCE, FEWEST_TO_COMPILE_FOR, RANDOM, FeatureConfig, NetworkConfig
from featkit.errors import DependencyError, InputError, ModelMismatch
from featkit.extraction.makers import NETWORK, Kept, Parts
from featkit.files import opened
from featkit.images import DecodeOptions, Pixels

if TYPE_CHECKING:
    from featkit.deep.computing import Network
    from featkit.deep.contracts import Contract

Floats = npt.NDArray[np.float32]

#: Raise when pictures are prepared otherwise.
VERSION = 1
# What changes the numbers, or how a network is computed.
_LIBRARIES = ("torch", "torchvision", "timm", "openvino")
# A JPEG may be decoded at a part of its size that is still so many times the contract's: on photos of 12 megapixels a
# quarter of the time, and .25 levels from the whole.
_REDUCED_TO = 2
_BYTES_AT_ONCE = 1 << 20
# Of a hash, in messages.
_DIGITS = 8
_RANDOM = re.compile(rf"{RANDOM} ([0-9]{{1,10}})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Description:
    """What is known of a network without loading it.

    contract: as `Contract.record` gives it. layers: by their names, also where "all" were asked for. shapes: of each
    one's values for one picture. depends_on: see `deep.features.Extractor`. weights: where they are, a path or
    "random"; sha256: of that file. computed: as `deep.computing.Computation` has it. cosine: to float32 by torch, None
    where it is that. refused: what was not close enough, as texts.
    """

    contract: Mapping[str, Any]
    layers: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    depends_on: tuple[str, ...]
    weights: str
    sha256: str | None
    computed: Mapping[str, str]
    cosine: float | None
    refused: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class NetworkSource:
    """A Source: a network's features, whatever computes them. config: which, its layers by their names. contract: as
    `Contract.record` gives it. shapes: of each layer's values for one picture. sha256: of the file of weights, None for
    random ones."""

    config: NetworkConfig
    contract: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    sha256: str | None

    @property
    def name(self) -> str:
        return self.config.backbone

    @property
    def size(self) -> tuple[int, int]:
        """See Maker: that of the contract's crop."""
        width, height = self.contract["crop"]
        return width, height

    @property
    def layers(self) -> tuple[str, ...]:
        return self.config.features.layers

    @property
    def blocks(self) -> tuple[int, ...]:
        """See Maker: one a layer."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def variances(self) -> tuple[float, ...]:
        """See Maker."""
        return (1.0,) * len(self.shapes)

    @property
    def weights(self) -> str:
        """The SHA-256 of their file, or the seed of random ones, as text."""
        return self.sha256 or f"{RANDOM} {self.config.seed}"

    def parts(self) -> Parts:
        """No library and no precision: features of other ones are as good, which is looked at where they are made."""
        own = self.config.weights
        more = {
            "weights_file": None if own == RANDOM else own,
            "input": self.config.input,
            "shapes": [list(shape) for shape in self.shapes],
        }
        return {**self.identity(), **more}, {}

    def identity(self) -> dict[str, object]:
        """What its features are, in whichever file the weights lie."""
        return {
            "name": NETWORK,
            "versions": _versions(),
            "backbone": self.config.backbone,
            "weights": self.weights,
            "contract": dict(self.contract),
            "reduced_to": _REDUCED_TO,
            "features": {**asdict(self.config.features), "layers": list(self.layers)},
        }

    def opened(self, *, count: int, cache: Cache, jobs: int) -> NetworkMaker:
        """See Source: the network is loaded as it was then, and has to be the same."""
        maker = network_maker(self.config, count=count, jobs=jobs, cache=cache)
        self._refuse_another(maker.source)
        return maker

    def of_layer(self, layer: str) -> NetworkSource:
        """The same network, and one of its layers. ValueError for one that is not among them."""
        _refuse_others(layer, self.layers)
        shape = self.shapes[self.layers.index(layer)]
        return replace(self, config=_with_layers(self.config, (layer,)), shapes=(shape,))

    def with_weights(self, weights: str) -> NetworkSource:
        """The same, its weights looked for in that file: they have to be the same, too."""
        return replace(self, config=replace(self.config, weights=weights))

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> NetworkSource:
        """Of `parts`, or of more that is beside them. Raises ValueError, TypeError or KeyError, and UsageError, for
        what is none, or of another version."""
        if record["versions"] != _versions() or record["reduced_to"] != _REDUCED_TO:
            raise ValueError(f"their versions are {record['versions']}, and this featkit has {_versions()}")
        weights, file, features, side = (record[name] for name in ("weights", "weights_file", "features", "input"))
        random = _RANDOM.fullmatch(weights)
        if not random and not _SHA256.fullmatch(weights):
            raise ValueError(f"there are no weights {weights!r}")
        layers = tuple(features["layers"])
        shapes = tuple(tuple(shape) for shape in record["shapes"])
        sides = [side for shape in shapes for side in shape]
        if not all(shapes) or len(shapes) != len(layers) or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError("there is one shape a layer, of whole numbers")
        if side is not None and type(side) is not int:
            raise TypeError("pixels a side are a whole number")
        texts = [record["backbone"], *layers, *([] if file is None else [file])]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("names are texts")
        config = NetworkConfig(
            record["backbone"],
            RANDOM if random else file,
            int(random[1]) if random else 0,
            from_options(FeatureConfig, {**features, "layers": layers}),
            side,
        )
        return NetworkSource(config, dict(record["contract"]), shapes, None if random else weights)

    def _refuse_another(self, found: NetworkSource) -> None:
        if found.weights != self.weights:
            theirs, ours = (
                each if each.startswith(RANDOM) else each[:_DIGITS] for each in (self.weights, found.weights)
            )
            raise ModelMismatch(
                f"the model was trained with the weights {theirs} of {self.name}, and these are {ours}",
                hint="--weights FILE names those that it was trained with",
            )
        # As JSON has it, where tuples are lists.
        contract = dict(self.contract)
        differing = [name for name, value in found.contract.items() if contract.get(name) != value]
        if differing or contract.keys() != found.contract.keys():
            told = "".join(
                f": {name} is {found.contract[name]}, and was {contract.get(name)}" for name in differing[:1]
            )
            raise ModelMismatch(
                f"{self.name} wants its pictures otherwise here than where the model was trained{told}", hint=_OTHERWISE
            )
        for layer, shape, was in zip(self.layers, found.shapes, self.shapes, strict=True):
            if shape != was:
                raise ModelMismatch(
                    f"the layer {layer} of {self.name} gives {_shape(shape)} values a picture here, and gave "
                    f"{_shape(was)} where the model was trained",
                    hint=_OTHERWISE,
                )


_OTHERWISE = "use the releases of featkit, torchvision and timm that it was trained with, or train it again"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class NetworkMaker:
    """A Maker. `description` says what it is; the network is loaded with the first picture that is to be made."""

    def __init__(
        self,
        config: NetworkConfig,
        description: Description,
        loaded: Network | None,
        load: Callable[[], Network],
    ) -> None:
        """loaded: if it is. load: gives it, if it is not."""
        self.config, self.description = _with_layers(config, description.layers), description
        self._loaded, self._load, self._lock = loaded, load, Lock()
        self._contract: Contract | None = None

    @property
    def name(self) -> str:
        return self.config.backbone

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.description.contract["crop"]
        return width, height

    @property
    def layers(self) -> tuple[str, ...]:
        return self.config.features.layers

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.description.shapes)

    @property
    def variances(self) -> tuple[float, ...]:
        return (1.0,) * len(self.blocks)

    @property
    def pictures_at_once(self) -> int:
        return AT_ONCE[self.description.computed["device"]]

    def prepared(self, data: bytes, decode: DecodeOptions, path: str) -> Pixels:
        from featkit.torch_threads import limit_threads

        limit_threads()
        contract = self._how()
        pixels = images.decode_reduced(data, _REDUCED_TO * contract.resize, decode, path=path)
        cropped: Pixels = contract.cropped(pixels).permute(1, 2, 0).numpy()
        return cropped

    def __call__(self, pictures: Pixels) -> Floats:
        from featkit.torch_threads import limit_threads

        limit_threads()
        if not len(pictures):
            return np.zeros((0, sum(self.blocks)), np.float32)
        found = self._network().compute(pictures)
        return np.concatenate([each.reshape(len(pictures), -1) for each in found], 1)

    def parts(self) -> Parts:
        found = self.description
        how = {"computed": dict(found.computed), "libraries": _libraries([found.computed["runtime"]])}
        return {**self.source.identity(), **how}, {}

    @property
    def kept(self) -> Kept:
        """See Maker: each layer for itself."""
        config, arrays = self.parts()
        # What is made of any layer, and what the others have to do with it.
        features = {name: value for name, value in asdict(self.config.features).items() if name != "layers"}
        shared = {**config, "features": features, "depends_on": list(self.description.depends_on)}
        widths = {f"layer/{name}": width for name, width in zip(self.layers, self.blocks, strict=True)}
        return Kept((shared, arrays), widths)

    @property
    def source(self) -> NetworkSource:
        """See Maker."""
        found = self.description
        return NetworkSource(self.config, found.contract, found.shapes, found.sha256)

    def of_layer(self, layer: str) -> NetworkMaker:
        """The same network as it is loaded here, and one of its layers, to the same bits. ValueError for one that is
        not among them."""
        _refuse_others(layer, self.layers)
        description, place = _of_one(self.description, layer), self.layers.index(layer)
        return NetworkMaker(self.config, description, None, lambda: _of_layer(self._network(), place))

    def _how(self) -> Contract:
        if self._contract is None:
            from featkit.deep.contracts import Contract

            self._contract = Contract.of_record(self.description.contract)
        return self._contract

    def _network(self) -> Network:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded


def network_maker(
    config: NetworkConfig,
    *,
    count: int,
    jobs: int,
    cache: Cache,
    progress: Callable[[int, int], None] | None = None,
) -> NetworkMaker:
    """The maker of a network's features. count: of the pictures that are to be made. jobs: threads. progress: told the
    bytes of weights that were downloaded, and of how many.

    Raises what `backbones.load`, `computing.prepare` and `Extractor` raise. Where the machine has changed since it was
    looked at, the maker raises DependencyError with the first picture, and is another one the next time.
    """

    def load() -> tuple[Description, Network]:
        return _loaded(config, count, jobs, progress)

    def load_again() -> Network:
        description, network = load()
        if _facts(description) != _facts(remembered):
            _remember(description, config, count, cache)
            raise DependencyError(
                f"{config.backbone} is computed otherwise now than when it was last looked at", hint="run it again"
            )
        return network

    remembered = _remembered(_key(config, count), cache)
    if remembered is not None:
        return NetworkMaker(config, remembered, None, load_again)
    description, network = load()
    _remember(description, config, count, cache)
    return NetworkMaker(config, description, network, lambda: network)


def _loaded(
    config: NetworkConfig, count: int, jobs: int, progress: Callable[[int, int], None] | None
) -> tuple[Description, Network]:
    from featkit.deep import backbones, computing
    from featkit.deep.stages import stages
    from featkit.torch_threads import limit_threads, one_thread_each

    with one_thread_each():
        limit_threads()
        backbone = backbones.load(config.backbone, config.weights, seed=config.seed, progress=progress)
        if config.input is not None:
            backbone = backbones.of_input(backbone, config.input)
        if config.features.layers == (ALL,):
            width, height = backbone.contract.crop
            config = _with_layers(config, stages(backbone.network, (3, height, width)))
        network = computing.prepare(backbone, config, count=count, jobs=jobs)
    description = Description(
        contract=backbone.contract.record(),
        layers=config.features.layers,
        shapes=network.compute.shapes,
        depends_on=network.compute.depends_on,
        weights=backbone.source,
        sha256=backbone.sha256,
        computed=asdict(network.computed),
        cosine=network.cosine,
        refused=tuple(f"{each.runtime}, {each.precision}: {cosine:.6f}" for each, cosine in network.refused),
    )
    return description, network


def _refuse_others(layer: str, layers: tuple[str, ...]) -> None:
    if layer not in layers:
        raise ValueError(f"there are vectors of {', '.join(layers)}, and not of {layer}")


def _of_layer(network: Network, place: int) -> Network:
    """The same network, and of its layers the one of that place."""
    from featkit.deep.computing import OneLayer

    return replace(network, compute=OneLayer(network.compute, place))


def _with_layers(config: NetworkConfig, layers: tuple[str, ...]) -> NetworkConfig:
    return replace(config, features=replace(config.features, layers=layers))


def _key(config: NetworkConfig, count: int) -> str:
    return make_key(
        content=[],
        operation="network-description",
        version=VERSION,
        config={
            "network": config,
            "compiled": count >= FEWEST_TO_COMPILE_FOR,
            "versions": _versions(),
            "fields": [each.name for each in fields(Description)],
            "processor": _processor(),
            "cards": _cards(),
        },
        libraries=_libraries(_LIBRARIES),
    )


def _facts(description: Description | None) -> tuple[object, ...]:
    """What its features depend on."""
    assert description is not None
    return (
        description.contract,
        description.layers,
        description.shapes,
        description.depends_on,
        description.sha256,
        description.computed,
    )


def _remember(description: Description, config: NetworkConfig, count: int, cache: Cache) -> None:
    found = {_key(config, count): description}
    # What was good enough for all layers is so for each, and is told to who asks for one: a model of a layer's vectors.
    if not description.depends_on and not description.refused:
        for layer in description.layers:
            key = _key(_with_layers(config, (layer,)), count)
            found.setdefault(key, _of_one(description, layer))
    for key, each in found.items():
        document = json.dumps(asdict(each)).encode()
        cache.put(key, {"description": np.frombuffer(document, np.uint8)})


def _of_one(description: Description, layer: str) -> Description:
    shape = description.shapes[description.layers.index(layer)]
    return replace(description, layers=(layer,), shapes=(shape,))


def _remembered(key: str, cache: Cache) -> Description | None:
    """None, too, where the weights are others now, or gone: loading says what is the matter."""
    stored = cache.get(key)
    if stored is None:
        return None
    document = json.loads(stored["description"].tobytes())
    document["layers"] = tuple(document["layers"])
    document["shapes"] = tuple(tuple(shape) for shape in document["shapes"])
    document["depends_on"] = tuple(document["depends_on"])
    document["refused"] = tuple(document["refused"])
    found = Description(**document)
    if found.sha256 is None:
        return found
    try:
        with opened(found.weights, "file of weights") as file:
            digest = sha256()
            while data := file.read(_BYTES_AT_ONCE):
                digest.update(data)
    except InputError:
        return None
    return found if digest.hexdigest() == found.sha256 else None


def _versions() -> dict[str, int]:
    return {"features": deep_config.VERSION, "maker": VERSION}


def _libraries(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cards() -> list[str]:
    """What decides which there are, as far as that can be seen without torch."""
    return [os.environ.get("CUDA_VISIBLE_DEVICES", "all"), *sorted(map(str, Path("/dev").glob("nvidia[0-9]*")))]


def _processor() -> str:
    """What decides which instructions there are."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return platform.processor() or platform.machine()
