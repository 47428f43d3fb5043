"""What of which network a picture becomes, and how that is computed; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from featkit.errors import UsageError

#: Raise when the same network and pictures would give other vectors: it is part of fingerprints and cache keys.
VERSION = 1
HEAD = "head"
#: In place of layers: those that `deep.stages` names.
ALL = "all"
#: In place of a file of weights: those that a network is made with.
RANDOM = "random"
POOLS = ("avg", "max", "gem", "cls", "none")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
RUNTIMES = ("auto", "torch", "openvino")

#: Device -> the pictures of a batch. As many as keep a processor's second cache busy, and few enough to share among
#: threads: of ResNet-18 and EfficientNet 8 were as fast as 4 and 16. A card takes more.
AT_ONCE = {"cpu": 8, "cuda": 128, "mps": 32}
#: Compiling takes OpenVINO 2 to 9 seconds; with so many pictures that is made up for.
FEWEST_TO_COMPILE_FOR = 256
#: Pixels a side of what goes into a network.
LARGEST_INPUT = 4096
_SEEDS = 1 << 32


@dataclass(frozen=True)
class FeatureConfig:
    """layers: names of modules, as `featkit backbones NAME` lists them, or "head", what goes into the classifier; or
    "all" alone: the stages of the network, in order of depth, and the head. pool: how the places of a layer's output
    become one vector: "avg", "max", "gem" (generalised mean, power 3), "cls" (the class token of a transformer), or
    "none": they stay. normalize: vectors of unit length. Raises UsageError."""

    layers: tuple[str, ...] = (HEAD,)
    pool: str = "avg"
    normalize: bool = False

    def __post_init__(self) -> None:
        _refuse_unknown("pooling", self.pool, POOLS)
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise UsageError("layers are named once each", hint="for example: --layers blocks.5,head")
        if ALL in self.layers and len(self.layers) > 1:
            raise UsageError("--layers all names them all", hint="leave out the others, or all")
        if self.normalize and self.pool == "none":
            raise UsageError("--normalize is of vectors, and --pool none gives maps", hint="leave one of them out")


@dataclass(frozen=True)
class NetworkConfig:
    """backbone: its name, as `featkit backbones` lists it. weights: a file, "random", or None for its own. seed: of
    random ones. features: what is taken of it. input: pixels a side of the pictures that go into it; None: its own.

    device: "cpu", "cuda", "mps"; "auto": the first of cuda, mps and cpu that is there. precision: "fp32", "bf16";
    "auto": bf16 where the device multiplies it faster. runtime: "torch", or "openvino" where that extra is installed;
    "auto": that one on the processor, if it is. Where what these give differs from float32 of torch, by a cosine below
    .999, that is computed instead. Raises UsageError."""

    backbone: str = "lite0"
    weights: str | None = None
    seed: int = 0
    features: FeatureConfig = field(default_factory=FeatureConfig)
    input: int | None = None
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"the seed is {self.seed}", hint=f"it is a whole number from 0 to {_SEEDS - 1}")
        if self.input is not None and not 1 <= self.input <= LARGEST_INPUT:
            raise UsageError(f"pictures of 1 to {LARGEST_INPUT} pixels a side go into a network, not of {self.input}")
        _refuse_unknown("device", self.device, DEVICES)
        _refuse_unknown("precision", self.precision, PRECISIONS)
        _refuse_unknown("runtime", self.runtime, RUNTIMES)
        if self.runtime == "openvino" and self.device not in ("auto", "cpu"):
            raise UsageError("OpenVINO computes on the processor here", hint="leave out --device or --runtime")


def _refuse_unknown(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(f"there is no {what} {name!r}", hint=f"choose one of: {', '.join(known)}")
