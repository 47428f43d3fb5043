"""Many picture files to vectors: read, brought to one size and described by several threads, and kept in the cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from threading import Event

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from featkit import images
from featkit.arrays import pack
from featkit.cache import Cache, make_key
from featkit.errors import FeatkitError, FileUnreadable, InputError
from featkit.extraction.makers import Maker
from featkit.images import DecodeOptions, Pixels
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.torch_threads import one_thread_each

#: Raise when the same files and the same maker would give other vectors: it is part of the cache key.
VERSION = 1

Floats = npt.NDArray[np.float32]

# Begun and not yet handed out: enough to keep the threads busy while one chunk takes twice as long as others.
_CHUNKS_BEGUN_PER_WORKER = 2
# Of a chunk's files, from when they are hashed until they are decoded. Others are read again: photos from a camera, a
# megabyte and more each, of which reading is little beside decoding.
_BYTES_HELD = 16 << 20
# Of so many pictures the size is looked at, to know that of all.
_SIZES_COMPARED = 256


@dataclass(frozen=True)
class Rows:
    """The vectors of some pictures that follow one another.

    start: the index of the first path. indices: int64 N, rising, of the paths that could be read. views: float32 N×D of
    these pictures and, where they were asked for, N×D of their mirror images. failures: the errors of the other paths.
    digests: of all the paths, SHA-256 of their bytes in hexadecimal, "" where they could not be read. cached: whether
    the vectors were in the cache.
    """

    start: int
    indices: npt.NDArray[np.int64]
    views: tuple[Floats, ...]
    failures: tuple[FeatkitError, ...]
    digests: tuple[str, ...]
    cached: bool


def extract(
    paths: Sequence[str],
    maker: Maker,
    *,
    mirrored: bool,
    decode: DecodeOptions,
    cache: Cache,
    jobs: int,
    read: Callable[[str], bytes] | None = None,
) -> Generator[Rows, None, None]:
    """The vectors of picture files, some at a time, in the order of the paths whatever the number of threads (`jobs`).

    mirrored: those of the mirror images, left for right, as well. read: gives a picture's bytes; None: those of a file.
    A picture that cannot be read is a failure, and the rest goes on. To close the generator ends the threads, as soon
    as they are done with a picture, or with a view of a chunk; until then a matrix product takes one thread in the
    whole process.

    Raises UsageError for fewer than one job, and what the maker raises.
    """
    jobs = threads(jobs)
    extraction = _Extraction(paths, maker, mirrored, decode, cache, read or images.read_bytes)
    begun: deque[Future[Rows]] = deque()
    # One thread a matrix product: the chunks run side by side, and the sums do not depend on the machine's processors.
    with (
        threadpool_limits(1, user_api="blas"),
        one_thread_each(),
        ThreadPoolExecutor(jobs, thread_name_prefix="featkit") as pool,
    ):
        try:
            for start in range(0, len(paths), extraction.pictures_a_chunk):
                begun.append(pool.submit(extraction.rows, start))
                if len(begun) > _CHUNKS_BEGUN_PER_WORKER * jobs:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            extraction.stopped.set()


@dataclass(frozen=True)
class _File:
    """digest: SHA-256 of its bytes, hexadecimal; data: these, unless they are to be read again."""

    path: str
    digest: str
    data: bytes | None

    def bytes(self, read: Callable[[str], bytes]) -> bytes:
        """Raises InputError where it cannot be read any more, or was changed."""
        if self.data is not None:
            return self.data
        data = read(self.path)
        if sha256(data).hexdigest() != self.digest:
            raise FileUnreadable("it was changed while featkit was at work", path=self.path, hint="run it again")
        return data


class _Extraction:
    """What is done with each chunk; `rows` may be called from several threads."""

    def __init__(
        self,
        paths: Sequence[str],
        maker: Maker,
        mirrored: bool,
        decode: DecodeOptions,
        cache: Cache,
        read: Callable[[str], bytes],
    ) -> None:
        self.stopped = Event()
        # A chunk is what a thread does at a time, and an entry of the cache.
        self.pictures_a_chunk = maker.pictures_at_once
        self._paths, self._maker, self._mirrored, self._decode, self._cache = paths, maker, mirrored, decode, cache
        self._read = read
        (config, arrays), self._widths = maker.kept.parts, maker.kept.widths
        self._key_config = {
            "maker": config,
            # Weights of some megabytes: not where nothing is kept.
            "arrays": sha256(pack(dict(sorted(arrays.items())))).hexdigest() if cache.folder is not None else "",
            "size": maker.size,
            "mirrored": mirrored,
            "decode": asdict(decode),
        }

    def rows(self, start: int) -> Rows:
        """Of the chunk that begins there. Raises CancelledError once this is to stop."""
        places = range(start, min(start + self.pictures_a_chunk, len(self._paths)))
        files: dict[int, _File] = {}
        unread: dict[int, InputError] = {}
        room = _BYTES_HELD
        for place in places:
            self._stop_if_asked()
            try:
                data = self._read(self._paths[place])
            except InputError as error:
                unread[place] = _without_frames(error)
                continue
            held = len(data) <= room
            room -= len(data) * held
            files[place] = _File(self._paths[place], sha256(data).hexdigest(), data if held else None)
        digests = tuple(files[place].digest if place in files else "" for place in places)
        key = make_key(
            content=digests,
            operation="vectors",
            version=VERSION,
            config=self._key_config,
            libraries={"opencv": cv2.__version__},
        )
        stored = self._cache.get(key) or {}
        if stored.keys() >= self._widths.keys():
            indices = start + stored["indices"]
            others = {place: files[place] for place in files.keys() - set(indices.tolist())}
            # They could not be decoded, and why is not stored. If one can be now, memory was short at that time.
            again, _, undecoded = self._decoded(others)
            if not again:
                views = self._joined(stored)
                return Rows(start, indices, tuple(views), _in_order(unread | undecoded), digests, True)
        readable, pixels, undecoded = self._decoded(files)
        views = np.empty((1 + self._mirrored, len(pixels), sum(self._maker.blocks)), np.float32)
        for view, seen in zip(views, (pixels, pixels[:, :, ::-1]), strict=False):
            self._stop_if_asked()
            view[:] = self._maker(seen)
        indices = np.array(readable, np.int64)
        self._keep(key, indices - start, views, stored)
        return Rows(start, indices, tuple(views), _in_order(unread | undecoded), digests, False)

    def _joined(self, stored: Mapping[str, Floats]) -> Floats:
        """float32 V×N×D of what is stored under the maker's names."""
        found = [stored[name] for name in self._widths]
        return found[0] if len(found) == 1 else np.concatenate(found, 2)

    def _keep(self, key: str, indices: npt.NDArray[np.int64], views: Floats, stored: Mapping[str, Floats]) -> None:
        """Put them into the cache, beside what is stored of the same pictures under other names."""
        others = stored if np.array_equal(stored.get("indices", ()), indices) else {}
        ends = np.cumsum(list(self._widths.values()))
        parts = {
            name: views[:, :, end - width : end] for (name, width), end in zip(self._widths.items(), ends, strict=True)
        }
        self._cache.put(key, {**others, "indices": indices, **parts})

    def _decoded(self, files: Mapping[int, _File]) -> tuple[list[int], Pixels, dict[int, InputError]]:
        """Which can be decoded, these at the maker's size, and the errors of the others."""
        width, height = self._maker.size
        pixels = np.empty((len(files), height, width, 3), np.uint8)
        readable: list[int] = []
        failures: dict[int, InputError] = {}
        for place, file in files.items():
            self._stop_if_asked()
            try:
                pixels[len(readable)] = self._maker.prepared(file.bytes(self._read), self._decode, file.path)
            except InputError as error:
                failures[place] = _without_frames(error)
                continue
            readable.append(place)
        return readable, pixels[: len(readable)], failures

    def _stop_if_asked(self) -> None:
        if self.stopped.is_set():
            raise CancelledError


def _without_frames(error: InputError) -> InputError:
    """The same error without the stack that raised it, whose variables are the bytes and pixels of a picture."""
    return type(error)(error.message, path=error.path, hint=error.hint)


def _in_order(failures: Mapping[int, InputError]) -> tuple[InputError, ...]:
    return tuple(failures[place] for place in sorted(failures))


# --- sizes and samples


def sample_pictures(
    paths: Sequence[str], size: tuple[int, int], count: int, seed: int, decode: DecodeOptions
) -> Pixels:
    """uint8 N×H×W×3: `count` of the pictures, chosen at random, at this size, (width, height); fewer where there are no
    more that can be read. The same seed and number of paths give the same choice."""
    width, height = size
    found = np.empty((min(count, len(paths)), height, width, 3), np.uint8)
    readable = 0
    for path in _drawn(paths, seed):
        if readable == len(found):
            break
        try:
            found[readable] = images.fit_to(images.load(path, decode).pixels, size)
        except InputError:
            continue
        readable += 1
    return found[:readable]


def common_size(paths: Sequence[str], decode: DecodeOptions, seed: int) -> tuple[int, int] | None:
    """(width, height) of all the pictures, as far as 256 of them show that, chosen at random; None where they differ.

    Those that cannot be read do not count; None, too, where none can.
    """
    sizes: set[tuple[int, int]] = set()
    for path in islice(_drawn(paths, seed), _SIZES_COMPARED):
        try:
            sizes.add(images.measure(images.read_bytes(path), decode, path=path))
        except InputError:
            continue
        if len(sizes) > 1:
            return None
    return sizes.pop() if sizes else None


def _drawn(paths: Sequence[str], seed: int) -> Iterator[str]:
    """All of them, in random order."""
    for index in np.random.default_rng(seed).permutation(len(paths)):
        yield paths[index]
