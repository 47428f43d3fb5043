"""What makes vectors of pictures, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featkit import images
from featkit.cache import Cache
from featkit.classical import colour, hog, patches
from featkit.classical.hog import HogConfig
from featkit.classical.patches import PatchConfig, PatchEncoder
from featkit.configs import from_options
from featkit.errors import UsageError
from featkit.images import DecodeOptions, Pixels, fit_to

Floats = npt.NDArray[np.float32]
Parts = tuple[dict[str, object], dict[str, npt.NDArray[Any]]]

#: Name -> the blocks that its vectors consist of, in their order.
MAKERS: Mapping[str, tuple[str, ...]] = {
    "hog": ("hog", "colour"),
    "hog-skimage": ("hog-skimage",),
    "patches": ("patches",),
    "hog+patches": ("hog", "colour", "patches"),
    "pixels": ("pixels",),
}
#: What is recorded as the name of a maker of a network's vectors, none of MAKERS.
NETWORK = "network"
#: Pixels a side of the pictures that vectors are made of: eight of them are 400 MB.
LARGEST_SIDE = 4096

# The variance that each block is to have beside the others. Measured with 42,000 pictures of CIFAR-10 and in five folds
# of 450 photos of 15 classes: colours of half the variance of gradients are .6 points better than of the same, patches
# of twice theirs .3; the networks do not care.
_VARIANCES = {"hog": 1.0, "colour": 0.5, "hog-skimage": 1.0, "patches": 2.0, "pixels": 1.0}
# Of the code behind each block: what was learned from the numbers of another version cannot be used with these.
_VERSIONS = {
    "hog": hog.VERSION,
    "colour": colour.VERSION,
    "hog-skimage": hog.VERSION,
    "patches": patches.VERSION,
    "pixels": 1,
}
# 8 × 8 cells of HOG where a cell then is 8 pixels or more, as in the literature, and 4 × 4 in smaller pictures.
_SIDE_OF_MORE_CELLS = 64
_CELLS, _MORE_CELLS = 4, 8
# What a thread does at a time is an entry of the cache, too: so large that 50,000 pictures are not as many files; so
# small that threads share some hundred photos evenly, and that little is made anew where one picture has changed.
_PIXELS_AT_ONCE = 1 << 18
_MOST_AT_ONCE = 256
_FEWEST_AT_ONCE = 8
_PATCH_ARRAYS = ("whitening", "atoms", "mean", "projection")


@dataclass(frozen=True)
class Kept:
    """How a maker's vectors are kept. widths: of what stands beside one another in them, by name; together D. parts:
    what all of these depend on: another maker with the same parts gives the same numbers, to the last bit, under the
    names that both have."""

    parts: Parts
    widths: Mapping[str, int]


class Source(Protocol):
    """What a model file keeps of a Maker: enough to have the same vectors of other pictures, wherever it is read."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """See Maker."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """See Maker."""

    @property
    def variances(self) -> tuple[float, ...]:
        """See Maker."""

    def parts(self) -> Parts:
        """What `from_parts` takes: a configuration that JSON holds, and named arrays."""

    def opened(self, *, count: int, cache: Cache, jobs: int) -> Maker:
        """The maker, on this machine. count: of the pictures that it is for. jobs: threads that call it at once. Raises
        ModelMismatch where only one of other vectors can be had here, and what `networks.network_maker` raises."""


class Maker(Protocol):
    """Pictures of one size to vectors. Several threads may call it at once."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures that it takes."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the blocks that a vector consists of; they differ in kind, and are to be scaled apart."""

    @property
    def variances(self) -> tuple[float, ...]:
        """The total variance that each block is to be scaled to."""

    @property
    def pictures_at_once(self) -> int:
        """How many it is best given at a time."""

    def prepared(self, data: bytes, decode: DecodeOptions, path: str, /) -> Pixels:
        """uint8 H×W×3 of its size, of a picture file's bytes. Raises what `images.decode` raises."""

    def __call__(self, pictures: Pixels, /) -> Floats:
        """float32 N×D of uint8 N×H×W×3, D the sum of `blocks`; a vector depends on its picture alone."""

    def parts(self) -> Parts:
        """What its vectors depend on, to the last bit: a configuration that JSON holds, and named arrays."""

    @property
    def kept(self) -> Kept:
        """How its vectors are kept, so that they need not be made again."""

    @property
    def source(self) -> Source:
        """What is kept of it in a model file."""


@dataclass(frozen=True, eq=False)
class ClassicalMaker:
    """A Maker without networks, and its own Source. name: one of MAKERS. hog, encoder: for the block of HOG and for
    that of patches, None where there is none. Raises UsageError for sizes that make no sense, ValueError for what does
    not fit the name."""

    name: str
    size: tuple[int, int]
    hog: HogConfig | None = None
    encoder: PatchEncoder | None = None

    def __post_init__(self) -> None:
        if not all(1 <= side <= LARGEST_SIDE for side in self.size):
            raise UsageError(f"pictures are brought to 1 to {LARGEST_SIDE} pixels a side")
        for block, described in (("hog", self.hog), ("patches", self.encoder)):
            if (block in MAKERS[self.name]) != (described is not None):
                raise ValueError(f"what is given for {block} does not fit {self.name}")

    @property
    def pictures_at_once(self) -> int:
        """See Maker: 256 of 32 × 32 pixels, 16 of 128 × 128: HOG meets four of its own blocks at once."""
        width, height = self.size
        return max(_FEWEST_AT_ONCE, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // (width * height)))

    def prepared(self, data: bytes, decode: DecodeOptions, path: str) -> Pixels:
        """See Maker. Pictures are brought to the size as `fit_to` does it."""
        return fit_to(images.decode(data, decode, path=path), self.size)

    def __call__(self, pictures: Pixels) -> Floats:
        width, height = self.size
        if pictures.shape[1:] != (height, width, 3):
            raise ValueError(f"this maker takes N×{height}×{width}×3, and not {pictures.shape}")
        return np.concatenate([self._block(kind, pictures) for kind in MAKERS[self.name]], 1)

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """See Maker. Raises UsageError where pictures of this size are too small."""
        width, height = self.size
        none = np.zeros((0, height, width, 3), np.uint8)
        return tuple(self._block(kind, none).shape[1] for kind in MAKERS[self.name])

    @property
    def variances(self) -> tuple[float, ...]:
        """See Maker."""
        return tuple(_VARIANCES[block] for block in MAKERS[self.name])

    def _block(self, kind: str, pictures: Pixels) -> Floats:
        if kind == "hog":
            return hog.hog(pictures, self.hog)
        if kind == "colour":
            return colour.colour_grid(pictures)
        if kind == "hog-skimage":
            return hog.hog_as_skimage(pictures)
        if kind == "patches":
            assert self.encoder is not None
            return self.encoder(pictures)
        return np.divide(pictures.reshape(len(pictures), math.prod(pictures.shape[1:])), 255, dtype=np.float32)

    def parts(self) -> Parts:
        config: dict[str, object] = {
            "name": self.name,
            "size": list(self.size),
            "versions": {block: _VERSIONS[block] for block in MAKERS[self.name]},
        }
        if self.hog is not None:
            config["hog"] = asdict(self.hog)
        if self.encoder is None:
            return config, {}
        config["patches"] = asdict(self.encoder.config)
        return config, {name: getattr(self.encoder, name) for name in _PATCH_ARRAYS}

    @property
    def kept(self) -> Kept:
        """See Maker: as a whole."""
        return Kept(self.parts(), {"views": sum(self.blocks)})

    @property
    def source(self) -> ClassicalMaker:
        """See Maker."""
        return self

    def opened(self, *, count: int, cache: Cache, jobs: int) -> ClassicalMaker:
        """See Source."""
        return self


def make(name: str, size: tuple[int, int], sample: Callable[[], Pixels], learned: PatchConfig | None = None) -> Maker:
    """The maker of a name, for pictures of a size, (width, height).

    hog: HOG, with 4 × 4 cells where the shorter side is below 64 pixels and 8 × 8 from there on, and a grid of colours.
    hog-skimage: `skimage.feature.hog` with its defaults and channel_axis=-1. patches: by a dictionary that is learned.
    hog+patches: those of both. pixels: the samples themselves, 0..1.

    sample: gives pictures to learn from, uint8 N×H×W×3 of that size; called only where there is something to learn.
    learned: how patches are. Raises UsageError for a name that is none, and for a size that is too small.
    """
    if name not in MAKERS:
        raise UsageError(f"there are no features {name!r}", hint=f"choose one of: {', '.join(MAKERS)}")
    config = HogConfig(_CELLS if min(size) < _SIDE_OF_MORE_CELLS else _MORE_CELLS) if "hog" in MAKERS[name] else None
    encoder = patches.learn_patches(sample(), learned or PatchConfig()) if "patches" in MAKERS[name] else None
    made = ClassicalMaker(name, size, config, encoder)
    _ = made.blocks  # raises here what would be raised with the first picture
    return made


def from_parts(config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Source:
    """What has these parts. Raises ValueError where they do not fit together, or are of another version."""
    try:
        made = _from_parts(config, arrays)
        _ = made.blocks, made.size
        if made.parts()[0] != config:
            raise ValueError("there is more or less in them than belongs to it")
    except Exception as error:  # Whoever wrote these parts by hand may make anything fail.
        raise ValueError(f"these are no parts of a maker: {error}") from error
    return made


def recorded(maker: Maker) -> dict[str, object]:
    """What a file of features says of the maker of its vectors: all that they depend on, and what `source_of` takes."""
    return {**maker.source.parts()[0], **maker.parts()[0]}


def source_of(record: Mapping[str, Any], layer: str) -> Source:
    """What makes the vectors of one name in a file of features. record: as `recorded` gives it. layer: that name, of a
    network's layer or the maker's own. Raises ValueError where there is none of that name, or of this version."""
    if record.get("name") != NETWORK:
        if record.get("name") != layer:
            raise ValueError(f"these are vectors by {record.get('name')}, and not by {layer}")
        return from_parts(record, {})
    from featkit.extraction.networks import NetworkSource

    try:
        return NetworkSource.from_record(record).of_layer(layer)
    except Exception as error:  # as in from_parts
        raise ValueError(f"these are no parts of a maker: {error}") from error


def _from_parts(config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Source:
    name = config["name"]
    if name == NETWORK:
        from featkit.extraction.networks import NetworkSource  # which stands on this module

        return NetworkSource.from_record(config)
    versions = {block: _VERSIONS[block] for block in MAKERS[name]}
    if config["versions"] != versions:
        raise ValueError(f"their versions are {config['versions']}, and this featkit has {versions}")
    width, height = config["size"]
    gradients = from_options(HogConfig, config["hog"]) if "hog" in versions else None
    encoder = _encoder(from_options(PatchConfig, config["patches"]), arrays) if "patches" in versions else None
    return ClassicalMaker(name, (width, height), gradients, encoder)


def _encoder(config: PatchConfig, arrays: Mapping[str, npt.NDArray[Any]]) -> PatchEncoder:
    found = PatchEncoder(config, **{name: arrays[name] for name in _PATCH_ARRAYS})
    pixels, atoms = config.side**2 * 3, len(found.atoms)
    codes = config.pool**2 * 2 * atoms
    shapes = {"whitening": (pixels, pixels), "atoms": (atoms, pixels), "mean": (codes,)}
    shapes["projection"] = (codes, *found.projection.shape[1:2])
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, and not float32 {shape}")
    return found
