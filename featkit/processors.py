"""How many processors this process may use, and how many threads it is to have."""

from __future__ import annotations

import os

from featkit.errors import UsageError


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(jobs: int | None) -> int:
    """jobs: as asked for; None: one a processor. Raises UsageError for fewer than one."""
    if jobs is None:
        return usable_processors()
    if jobs < 1:
        raise UsageError("--jobs must be at least 1", hint="leave it out for one worker a processor")
    return jobs
