"""Rows in memory, and on the disk where there are many."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from featkit.errors import OutputError
from featkit.learning.rows import allocate

LIMIT = 1000


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featkit.learning.rows.IN_MEMORY_BYTES", LIMIT)


def test_the_limit_is_of_all_together() -> None:
    first, second, third = (allocate((10, 10)) for _ in range(3))
    assert [isinstance(each, np.memmap) for each in (first, second, third)] == [False, False, True]
    part = first[:1]
    del first
    assert isinstance(allocate((10, 10)), np.memmap)  # a part of it is still in use
    del part
    assert not isinstance(allocate((10, 10)), np.memmap)


def test_what_is_on_the_disk_is_an_array_like_any_other() -> None:
    rows = allocate((100, 10))
    rows[:] = np.arange(1000, dtype=np.float32).reshape(100, 10)
    assert rows[99, 9] == 999
    assert rows.sum() == 499500


def test_no_row() -> None:
    assert allocate((0, 10**6)).shape == (0, 10**6)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written: a mapped page without a place ends the process."""

    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="no room for 4 MB") as caught:
        allocate((1000, 1000))
    assert caught.value.hint is not None
    assert "TMPDIR" in caught.value.hint
