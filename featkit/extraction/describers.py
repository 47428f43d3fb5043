"""What describes pictures for `extract`: vectors by any maker, or keypoints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from featkit.cache import Cache
from featkit.errors import InputError, UsageError
from featkit.extraction import engine
from featkit.extraction.config import ExtractConfig
from featkit.extraction.makers import Maker, make, recorded
from featkit.extraction.networks import network_maker
from featkit.extraction.tables import Field, Table, error_text
from featkit.images import DecodeOptions
from featkit.local import features as local_features
from featkit.local.describing import describe, detection_key
from featkit.local.features import DETECTORS, DetectorConfig
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.torch_threads import one_thread_each

#: Gives a picture's bytes, by its name.
Read = Callable[[str], bytes]

_PICTURES_BEGUN_PER_WORKER = 4
_KEYPOINTS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Described:
    """Some pictures that follow one another, and what became of them. seconds: a picture. cached: whether all of it was
    there before."""

    table: Table
    seconds: float
    cached: bool


class Describer(Protocol):
    """`fields`: what it makes of a picture. `config`: as JSON holds it, whatever is another when that is. `at_once`:
    pictures that are made together: a result is the same where these are."""

    @property
    def fields(self) -> tuple[Field, ...]: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def at_once(self) -> int: ...

    def __call__(
        self, paths: Sequence[str], read: Read, *, cache: Cache, jobs: int
    ) -> Generator[Described, None, None]:
        """In the order of the paths, whatever the number of threads."""


def describer(
    config: ExtractConfig,
    *,
    count: int,
    cache: Cache,
    jobs: int,
    progress: Callable[[int, int], None] | None = None,
) -> Describer:
    """count: of the pictures. progress: told the bytes of weights that were downloaded, and of how many. Raises
    UsageError and DependencyError for what cannot be made here, InputError for weights that are of no use."""
    if config.features in DETECTORS:
        detection = DetectorConfig(
            config.features or "",
            config.max_keypoints,
            DetectorConfig.max_side if config.max_side is None else config.max_side,
        )
        return Keypoints(detection, config.decode)
    if config.features is not None:
        maker = make(config.features, config.size, _no_sample)
        return Vectors(maker, (config.features,), ((sum(maker.blocks),),), config.dtype, config.decode)
    network = network_maker(config.network, count=count, jobs=jobs, cache=cache, progress=progress)
    return Vectors(network, network.layers, network.description.shapes, config.dtype, config.decode)


def _no_sample() -> Any:
    raise AssertionError("nothing is learned for these")


# --- vectors


@dataclass(frozen=True, eq=False)
class Vectors:
    """A Describer by a maker. names, shapes: of what its vectors consist of, one after the other."""

    maker: Maker
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    decode: DecodeOptions

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(name, self.dtype, shape) for name, shape in zip(self.names, self.shapes, strict=True))

    @property
    def config(self) -> Mapping[str, Any]:
        return {
            "maker": recorded(self.maker),
            "decode": asdict(self.decode),
            "engine": engine.VERSION,
            "opencv": cv2.__version__,
        }

    @property
    def at_once(self) -> int:
        return self.maker.pictures_at_once

    def __call__(
        self, paths: Sequence[str], read: Read, *, cache: Cache, jobs: int
    ) -> Generator[Described, None, None]:
        start = time.perf_counter()
        for rows in engine.extract(
            paths, self.maker, mirrored=False, decode=self.decode, cache=cache, jobs=jobs, read=read
        ):
            table = self._table(paths, rows)
            now = time.perf_counter()
            yield Described(table, (now - start) / len(table), rows.cached)
            start = time.perf_counter()

    def _table(self, paths: Sequence[str], rows: engine.Rows) -> Table:
        count = len(rows.digests)
        found = np.full((count, rows.views[0].shape[1]), np.nan, np.float32)
        found[rows.indices - rows.start] = rows.views[0]
        ends = np.cumsum([field.width for field in self.fields])[:-1]
        values = {
            field.name: _as_dtype(field, block.reshape(count, *field.shape))
            for field, block in zip(self.fields, np.split(found, ends, axis=1), strict=True)
        }
        named = tuple(paths[rows.start : rows.start + count])
        errors = dict(
            zip(sorted(set(range(count)) - set((rows.indices - rows.start).tolist())), rows.failures, strict=True)
        )
        return Table(named, rows.digests, tuple(error_text(errors.get(place)) for place in range(count)), values, {})


def _as_dtype(field: Field, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Raises UsageError for values beyond those of float16."""
    with np.errstate(over="ignore"):
        found = values.astype(field.dtype)
    if (np.isinf(found) & np.isfinite(values)).any():
        raise UsageError(f"{field.name} has values too large for {field.dtype}", hint="leave out --dtype")
    return found


# --- keypoints


@dataclass(frozen=True)
class Keypoints:
    """A Describer by a detector: for each picture its keypoints, strongest first, as `local.features.Features` has
    them."""

    detection: DetectorConfig
    decode: DecodeOptions

    at_once = _KEYPOINTS_AT_ONCE

    @property
    def fields(self) -> tuple[Field, ...]:
        name = self.detection.detector
        width, dtype = local_features.DESCRIPTORS[name]
        return (
            Field(f"{name}.xy", "float32", (2,), ragged=True),
            Field(f"{name}.size", "float32", (), ragged=True),
            Field(f"{name}.angle", "float32", (), ragged=True),
            Field(f"{name}.descriptors", dtype, (width,), ragged=True),
        )

    @property
    def config(self) -> Mapping[str, Any]:
        return {
            "detection": detection_key(self.detection, self.decode),
            "version": local_features.VERSION,
            "opencv": cv2.__version__,
        }

    def __call__(
        self, paths: Sequence[str], read: Read, *, cache: Cache, jobs: int
    ) -> Generator[Described, None, None]:
        jobs = threads(jobs)
        begun: deque[Future[Described]] = deque()
        waiting = iter(paths)
        with (
            threadpool_limits(1, user_api="blas"),
            one_thread_each(),
            ThreadPoolExecutor(jobs, thread_name_prefix="featkit") as pool,
        ):
            try:
                for path in waiting:
                    begun.append(pool.submit(self._described, path, read, cache))
                    if len(begun) > _PICTURES_BEGUN_PER_WORKER * jobs:
                        yield begun.popleft().result()
                while begun:
                    yield begun.popleft().result()
            finally:
                for each in begun:
                    each.cancel()

    def _described(self, path: str, read: Read, cache: Cache) -> Described:
        start = time.perf_counter()
        digest, error, cached = "", "", False
        found: dict[str, npt.NDArray[Any]] = {}
        try:
            data = read(path)
            digest = sha256(data).hexdigest()
            features, pixels = describe(data, digest, self.detection, self.decode, cache, path=path)
            cached = pixels is None
            found = features.to_arrays()
        except InputError as failure:
            error = error_text(failure)
        values = {
            field.name: found.get(field.name.rpartition(".")[2], np.zeros((0, *field.shape))).astype(field.dtype)
            for field in self.fields
        }
        counts = {name: np.array([len(array)], np.int64) for name, array in values.items()}
        table = Table((path,), (digest,), (error,), values, counts)
        return Described(table, time.perf_counter() - start, cached)
