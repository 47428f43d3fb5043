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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featkit import images
from featkit.cache import Cache, make_key
from featkit.deep import config as deep_config
from featkit.deep.config import AT_ONCE, FEWEST_TO_COMPILE_FOR, NetworkConfig
from featkit.errors import DependencyError, InputError
from featkit.extraction.makers import Parts
from featkit.files import opened
from featkit.images import DecodeOptions, Pixels

if TYPE_CHECKING:
    from featkit.deep.computing import Network
    from featkit.deep.contracts import Contract

Floats = npt.NDArray[np.float32]

#: Raise when pictures are prepared otherwise, or the description below has other fields.
VERSION = 1
# What changes the numbers, or how a network is computed.
_LIBRARIES = ("torch", "torchvision", "timm", "openvino")
# A JPEG may be decoded at a part of its size that is still so many times the contract's: on photos of 12 megapixels a
# quarter of the time, and .25 levels from the whole.
_REDUCED_TO = 2
_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Description:
    """What is known of a network without loading it.

    contract: as `Contract.record` gives it. shapes: of each layer's values for one picture. weights: where they are, a
    path or "random"; sha256: of that file. computed: as `deep.computing.Computation` has it. cosine: to float32 by
    torch, None where it is that. refused: what was not close enough, as texts.
    """

    contract: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    weights: str
    sha256: str | None
    computed: Mapping[str, str]
    cosine: float | None
    refused: tuple[str, ...]


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
        self.config, self.description = config, description
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
        config: dict[str, object] = {
            "name": "network",
            "versions": _versions(),
            "backbone": self.config.backbone,
            "weights": found.sha256 or f"random {self.config.seed}",
            "contract": dict(found.contract),
            "reduced_to": _REDUCED_TO,
            "features": {**asdict(self.config.features), "layers": list(self.layers)},
            "computed": dict(found.computed),
            "libraries": _libraries([found.computed["runtime"]]),
        }
        return config, {}

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
            _remember(description, key, cache)
            raise DependencyError(
                f"{config.backbone} is computed otherwise now than when it was last looked at", hint="run it again"
            )
        return network

    key = _key(config, count)
    remembered = _remembered(key, cache)
    if remembered is not None:
        return NetworkMaker(config, remembered, None, load_again)
    description, network = load()
    _remember(description, key, cache)
    return NetworkMaker(config, description, network, lambda: network)


def _loaded(
    config: NetworkConfig, count: int, jobs: int, progress: Callable[[int, int], None] | None
) -> tuple[Description, Network]:
    from featkit.deep import backbones, computing
    from featkit.torch_threads import limit_threads, one_thread_each

    with one_thread_each():
        limit_threads()
        backbone = backbones.load(config.backbone, config.weights, seed=config.seed, progress=progress)
        network = computing.prepare(backbone, config, count=count, jobs=jobs)
    description = Description(
        contract=backbone.contract.record(),
        shapes=network.compute.shapes,
        weights=backbone.source,
        sha256=backbone.sha256,
        computed=asdict(network.computed),
        cosine=network.cosine,
        refused=tuple(f"{each.runtime}, {each.precision}: {cosine:.6f}" for each, cosine in network.refused),
    )
    return description, network


def _key(config: NetworkConfig, count: int) -> str:
    return make_key(
        content=[],
        operation="network-description",
        version=VERSION,
        config={
            "network": config,
            "compiled": count >= FEWEST_TO_COMPILE_FOR,
            "versions": _versions(),
            "processor": _processor(),
            "cards": _cards(),
        },
        libraries=_libraries(_LIBRARIES),
    )


def _facts(description: Description | None) -> tuple[object, ...]:
    """What its features depend on."""
    assert description is not None
    return description.contract, description.shapes, description.sha256, description.computed


def _remember(description: Description, key: str, cache: Cache) -> None:
    document = json.dumps(asdict(description)).encode()
    cache.put(key, {"description": np.frombuffer(document, np.uint8)})


def _remembered(key: str, cache: Cache) -> Description | None:
    """None, too, where the weights are others now, or gone: loading says what is the matter."""
    stored = cache.get(key)
    if stored is None:
        return None
    document = json.loads(stored["description"].tobytes())
    document["shapes"] = tuple(tuple(shape) for shape in document["shapes"])
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
