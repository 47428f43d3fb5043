"""How a classifier is made: of which vectors, and what learns from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from featkit.deep.config import NetworkConfig
from featkit.errors import UsageError
from featkit.extraction.makers import LARGEST_SIDE
from featkit.images import DecodeOptions

#: In place of a name: each of those that there are for it.
ALL = "all"
#: In place of a number: the best of several, on the training pictures.
AUTO = "auto"

_SMALLEST_SIDE = 4
_LARGEST_DICTIONARY = 20_000
_MOST_NEIGHBOURS = 10_000
# What scikit-learn, which draws the maps of a report, takes as a seed.
_SEEDS = 1 << 32


@dataclass(frozen=True)
class LearningConfig:
    """What learns from vectors, and what it is tested on.

    classifier: a name of `heads.CLASSIFIERS`. reduce: "pca", "pca:N", "lda", "none", or None for the classifier's own.
    whiten: its components to unit variance. c: weight of the losses; None: the classifier's own; "auto": chosen on the
    training pictures, as `heads.Classifier.tune` does it. neighbours: of knn, how many vote; likewise. balanced:
    classes weigh the same however many pictures they have.

    flip: mirror images are learned from, and averaged at prediction; wrong for letters and other things with a
    handedness. hold_out: share of each class that is tested on, where the data name nothing to test on.

    Raises UsageError for values that make no sense.
    """

    classifier: str = "svm"
    reduce: str | None = None
    whiten: bool = False
    c: float | str | None = None
    neighbours: int | str | None = None
    balanced: bool = False
    flip: bool = False
    hold_out: float = 0.2
    seed: int = 0
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        if self.c not in (None, AUTO) and (isinstance(self.c, str) or not 0 < self.c < float("inf")):
            raise UsageError(f"C is a positive number or auto, not {self.c}", hint="a larger C fits more closely")
        if self.neighbours not in (None, AUTO) and (
            isinstance(self.neighbours, str) or not 1 <= self.neighbours <= _MOST_NEIGHBOURS
        ):
            raise UsageError(
                f"1 to {_MOST_NEIGHBOURS} neighbours vote, or auto, not {self.neighbours}",
                hint="the more, the smoother",
            )
        if not 0 < self.hold_out < 1:
            raise UsageError(f"the share to hold out is {self.hold_out:g}", hint="it lies between 0 and 1, as 0.2 does")
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"the seed is {self.seed}", hint=f"it is a whole number from 0 to {_SEEDS - 1}")

    def record(self) -> dict[str, Any]:
        """Plain values, for records and model files: as it was asked for."""
        return {name: value for name, value in asdict(self).items() if name != "decode"}


@dataclass(frozen=True)
class ClassifyConfig(LearningConfig):
    """features: what a picture becomes a vector by, a name of `extraction.makers.MAKERS`. size: (width, height) that
    all pictures are brought to; None: their own where all are of one size of 16 to 64 pixels in the longer side,
    smaller ones enlarged by a whole number to 32 or more; else 128 × 128.

    dictionary, stride: of features with patches, how many are compared with, and the pixels from one patch of a picture
    to the next; None: 1,000 and 1. Half as many, or a stride of 2, take half the time or a quarter of it, and cost 1 or
    3 points.

    The rest, and the errors: see LearningConfig.
    """

    features: str = "hog"
    size: tuple[int, int] | None = None
    dictionary: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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


#: Of `probe`, in the order in which they are compared.
PROBES = ("ridge", "logreg", "svm", "knn")


@dataclass(frozen=True)
class ProbeConfig(LearningConfig):
    """network: of which network, and which of its layers, vectors are made; a head is learned for each of the layers.
    classifier: one of PROBES, or "all" of them. The rest, and the errors: see LearningConfig; what a head has to choose
    is chosen on the training pictures unless it is given, and nothing is reduced."""

    classifier: str = "ridge"
    reduce: str | None = "none"
    c: float | str | None = AUTO
    neighbours: int | str | None = AUTO
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier not in (*PROBES, ALL):
            raise UsageError(
                f"there is no classifier {self.classifier!r} of probes", hint=f"there are: {', '.join((*PROBES, ALL))}"
            )

    def record(self) -> dict[str, Any]:
        """See LearningConfig; which network it was is said by what the vectors come from."""
        return {name: value for name, value in super().record().items() if name != "network"}

    @property
    def classifiers(self) -> tuple[str, ...]:
        return PROBES if self.classifier == ALL else (self.classifier,)
