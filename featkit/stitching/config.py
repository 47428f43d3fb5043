"""Everything that decides what a panorama looks like."""

from __future__ import annotations

from dataclasses import dataclass, field

from featkit.errors import UsageError
from featkit.images import DecodeOptions
from featkit.stitching import budget
from featkit.stitching.compositing import BLENDS
from featkit.stitching.placing import MODELS
from featkit.stitching.projection import PROJECTIONS
from featkit.stitching.seams import SEAMS

EXPOSURES = ("full", "gain", "none")
CROPS = ("none", "auto")


@dataclass(frozen=True)
class StitchConfig:
    """Everything that decides what a panorama looks like.

    model: of the cameras, "auto" takes what fits matches better that the adjustment has not seen. projection: "auto"
    by the angle of view. scale: of the photos' own resolution. blend, seams, exposure, crop: see the files of these
    names. reference: the path of the photo that keeps its colours, and that a full circle, or the plane, is centred on.
    seed: of the random samples. Raises UsageError for values that make no sense.
    """

    model: str = "auto"
    projection: str = "auto"
    scale: float = 1.0
    crop: str = "none"
    blend: str = "multiband"
    seams: str = "graphcut"
    exposure: str = "full"
    reference: str | None = None
    max_memory: int | None = None
    seed: int = 0
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    @property
    def cameras(self) -> str:
        """The model to place photos by: a surface that only turning cameras have decides it."""
        return self.model if self.model != "auto" or self.projection in ("auto", "planar") else "rotation"

    def __post_init__(self) -> None:
        choices = {
            "model": MODELS,
            "projection": PROJECTIONS,
            "crop": CROPS,
            "blend": BLENDS,
            "seams": SEAMS,
            "exposure": EXPOSURES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"--{name} knows no {getattr(self, name)!r}", hint=f"choose one of: {', '.join(known)}"
                )
        if not 0.001 <= self.scale <= 4:
            raise UsageError("--scale must lie between 0.001 and 4", hint="1 keeps the resolution of the photos")
        if self.max_memory is not None and self.max_memory < budget.LEAST_MEMORY:
            raise UsageError(
                f"--max-memory must be at least {budget.LEAST_MEMORY >> 20}M", hint="a run needs that much for itself"
            )
        if not 0 <= self.seed < 2**31:
            raise UsageError("--seed must lie between 0 and 2147483647")
