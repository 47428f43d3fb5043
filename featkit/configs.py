"""Configurations from keywords, as the public functions take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from featkit.errors import UsageError

_Config = TypeVar("_Config")


def from_options(kind: type[_Config], options: Mapping[str, Any]) -> _Config:
    """A configuration dataclass from keywords; UsageError names one that it does not have."""
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]  # a dataclass, and mypy cannot be told
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}", hint=f"there are: {', '.join(known)}")
    return kind(**options)


def given(config: _Config | None, kind: type[_Config], options: Mapping[str, Any]) -> _Config:
    """The configuration that a public function was given, whole or in keywords; UsageError for both at once."""
    if config is not None and options:
        raise UsageError("give either a config or single options, not both")
    return from_options(kind, options) if config is None else config
