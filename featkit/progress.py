"""How far something is that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Progress:
    """What is being done, and how much of it is."""

    stage: str
    done: int
    total: int


def followed(steps: Iterable[Progress | _Result], show: Callable[[str, int, int], None] | None = None) -> _Result:
    """The result of some steps: the first that is no progress. show: told the stage, what is done, and of how much."""
    for step in steps:
        if not isinstance(step, Progress):
            return step
        if show is not None:
            show(step.stage, step.done, step.total)
    raise AssertionError("the last step is the result")
