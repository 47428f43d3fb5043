"""How a classifier is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from featkit.errors import UsageError
from featkit.extraction.makers import LARGEST_SIDE
from featkit.images import DecodeOptions

_SMALLEST_SIDE = 4
_LARGEST_DICTIONARY = 20_000
# What scikit-learn, which draws the maps of a report, takes as a seed.
_SEEDS = 1 << 32


@dataclass(frozen=True)
class ClassifyConfig:
    """features: what a picture becomes a vector by, a name of `extraction.makers.MAKERS`. size: (width, height) that
    all pictures are brought to; None: their own where all are of one size of 16 to 64 pixels in the longer side,
    smaller ones enlarged by a whole number to 32 or more; else 128 × 128.

    dictionary, stride: of features with patches, how many are compared with, and the pixels from one patch of a picture
    to the next; None: 1,000 and 1. Half as many, or a stride of 2, take half the time or a quarter of it, and cost 1 or
    3 points.

    reduce: "pca", "pca:N", "lda", "none", or None for the classifier's own. whiten: its components to unit variance.
    classifier: a name of `heads.CLASSIFIERS`. c: weight of the losses; None: the classifier's own; "auto": chosen by
    cross-validation on the training pictures. balanced: classes weigh the same however many pictures they have.

    flip: mirror images are learned from, and averaged at prediction; wrong for letters and other things with a
    handedness. hold_out: share of each class that is tested on, where the data name nothing to test on.

    Raises UsageError for values that make no sense.
    """

    features: str = "hog"
    size: tuple[int, int] | None = None
    dictionary: int | None = None
    stride: int | None = None
    reduce: str | None = None
    whiten: bool = False
    classifier: str = "svm"
    c: float | str | None = None
    balanced: bool = False
    flip: bool = False
    hold_out: float = 0.2
    seed: int = 0
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        if self.c is not None and self.c != "auto" and (isinstance(self.c, str) or not 0 < self.c < float("inf")):
            raise UsageError(f"C is a positive number or auto, not {self.c}", hint="a larger C fits more closely")
        if not 0 < self.hold_out < 1:
            raise UsageError(f"the share to hold out is {self.hold_out:g}", hint="it lies between 0 and 1, as 0.2 does")
        if self.size is not None and not all(_SMALLEST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            width, height = self.size
            raise UsageError(
                f"pictures cannot be brought to {width} × {height} pixels",
                hint=f"a side is {_SMALLEST_SIDE} to {LARGEST_SIDE} pixels",
            )
        for name in ("dictionary", "stride"):
            value = getattr(self, name)
            if value is None:
                continue
            if "patches" not in self.features.split("+"):
                raise UsageError(
                    f"{name} is about patches, and the features are {self.features}",
                    hint="choose patches or hog+patches",
                )
            if not 1 <= value <= _LARGEST_DICTIONARY:
                raise UsageError(
                    f"{name} is 1 to {_LARGEST_DICTIONARY}, not {value}", hint="leave it out for what is usual"
                )
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"the seed is {self.seed}", hint=f"it is a whole number from 0 to {_SEEDS - 1}")
