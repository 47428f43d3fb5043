"""How far something is that takes a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What is being done, and how much of it is."""

    stage: str
    done: int
    total: int
