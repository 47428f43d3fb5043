"""Networks on the command line of `extract` and `probe`: which, of which layers, and how they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from featkit.cli.console import print_note
from featkit.cli.options import input_side
from featkit.deep.config import FeatureConfig, NetworkConfig
from featkit.errors import UsageError
from featkit.extraction.networks import NetworkMaker


@dataclass(frozen=True)
class NetworkRequest:
    """Options about networks; None for what the command line does not say."""

    backbone: str | None
    layers: str | None
    pool: str | None
    normalize: bool
    input: str | None
    weights: str | None
    precision: str | None
    device: str | None
    runtime: str | None

    @property
    def given(self) -> dict[str, object]:
        """By their names on the command line; None for what was not given."""
        return {f"--{each.name}": getattr(self, each.name) or None for each in fields(NetworkRequest)}

    def config(self, seed: int | None) -> NetworkConfig:
        """seed: of random weights. Raises UsageError."""
        features = with_defaults(
            FeatureConfig,
            layers=None if self.layers is None else names_of(self.layers),
            pool=self.pool,
            normalize=self.normalize,
        )
        found: NetworkConfig = with_defaults(
            NetworkConfig,
            backbone=self.backbone,
            weights=self.weights,
            seed=seed,
            features=features,
            input=None if self.input is None else input_side(self.input),
            device=self.device,
            precision=self.precision,
            runtime=self.runtime,
        )
        return found


def names_of(text: str) -> tuple[str, ...]:
    """Names with commas between them. Raises UsageError where there is none before, after or between them."""
    found = tuple(name.strip() for name in text.split(","))
    if "" in found:
        raise UsageError(f"a name is missing in {text!r}", hint="names stand with commas between them: one,other")
    return found


def with_defaults(kind: type[Any], **options: Any) -> Any:
    """A configuration; its own defaults where None is given."""
    return kind(**{name: value for name, value in options.items() if value is not None})


def refuse(options: Mapping[str, object], why: str, hint: str) -> None:
    """Raises UsageError where one of them was given."""
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} is about {why}", hint=hint)


def say_how(maker: object) -> None:
    """How a network is computed, on stderr, where that is not float32 by torch on the processor."""
    if not isinstance(maker, NetworkMaker):
        return
    found = maker.description
    for refused in found.refused:
        print_note(f"featkit: not computed by {refused} is its cosine to float32")
    if found.cosine is not None:
        how = f"{found.computed['runtime']} in {found.computed['precision']} on {found.computed['device']}"
        print_note(f"featkit: computed by {how}: cosine to float32 {found.cosine:.6f}")
    elif found.computed["device"] != "cpu":
        print_note(f"featkit: computed on {found.computed['device']}")
