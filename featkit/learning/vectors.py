"""Pictures as vectors, in arrays that heads learn from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache
from featkit.errors import FeatkitError
from featkit.extraction.engine import extract
from featkit.extraction.makers import Maker
from featkit.learning.config import LearningConfig
from featkit.learning.rows import allocate
from featkit.progress import Progress

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vectors:
    """Of the pictures that could be read: which of the paths they are, and float32 N×D of each view. failures: of the
    others. cached: whether all of them were in the cache."""

    indices: Labels
    views: tuple[Floats, ...]
    failures: tuple[FeatkitError, ...]
    cached: bool


def vectors_of(
    stage: str,
    paths: Sequence[str],
    maker: Maker,
    config: LearningConfig,
    *,
    cache: Cache,
    jobs: int,
) -> Generator[Progress, None, Vectors]:
    """Those of all pictures, and of their mirror images where these are learned from."""
    count, cached = 0, True
    arrays = [allocate((len(paths), sum(maker.blocks))) for _ in range(1 + config.flip)]
    indices = np.empty(len(paths), np.int64)
    failures: list[FeatkitError] = []
    yield Progress(stage, 0, len(paths))
    for rows in extract(paths, maker, mirrored=config.flip, decode=config.decode, cache=cache, jobs=jobs):
        place = slice(count, count + len(rows.indices))
        indices[place] = rows.indices
        for array, view in zip(arrays, rows.views, strict=True):
            array[place] = view
        count = place.stop
        failures += rows.failures
        cached &= rows.cached
        yield Progress(stage, count + len(failures), len(paths))
    return Vectors(indices[:count], tuple(array[:count] for array in arrays), tuple(failures), cached)
