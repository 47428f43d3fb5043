"""What `extract` makes of each picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from featkit.deep.config import NetworkConfig
from featkit.errors import UsageError
from featkit.extraction.makers import LARGEST_SIDE, MAKERS
from featkit.images import DecodeOptions
from featkit.local.features import DETECTORS

DTYPES = ("float32", "float16")
#: Vectors without a network; those with patches are learned from pictures, by `classify`.
CLASSICAL = tuple(name for name, blocks in MAKERS.items() if "patches" not in blocks)
_DEFAULT_SIZE = (128, 128)


@dataclass(frozen=True)
class ExtractConfig:
    """features: None for those of a network; a name of CLASSICAL for vectors without one; one of
    `local.features.DETECTORS` for keypoints with descriptors, any number a picture.

    network: which network, which of its layers, and how it is computed. size: (width, height) that pictures are brought
    to for the classical ones. max_keypoints, max_side: as of `match`. dtype: of the vectors in files, "float32" or
    "float16". Raises UsageError for values that make no sense.
    """

    features: str | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    size: tuple[int, int] = _DEFAULT_SIZE
    max_keypoints: int | None = None
    max_side: int | None = None
    dtype: str = "float32"
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        known = (*DETECTORS, *CLASSICAL)
        if self.features is not None and self.features not in known:
            raise UsageError(f"there are no features {self.features!r}", hint=f"choose one of: {', '.join(known)}")
        if self.features not in DETECTORS and (self.max_keypoints, self.max_side) != (None, None):
            raise UsageError("--max-keypoints and --max-side are about keypoints", hint="for example: --features sift")
        if not all(1 <= side <= LARGEST_SIDE for side in self.size):
            raise UsageError(f"pictures are brought to 1 to {LARGEST_SIDE} pixels a side")
        if self.dtype not in DTYPES:
            raise UsageError(f"there is no dtype {self.dtype!r}", hint=f"choose one of: {', '.join(DTYPES)}")
