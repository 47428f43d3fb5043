"""The pixels of the photos of a panorama: decoded once each, kept in memory where they fit, else on the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Protocol

import numpy as np

from featkit import images
from featkit.canvas import Canvas
from featkit.errors import FileUnreadable, PosesMalformed
from featkit.images import DecodeOptions, Pixels

# Reducing a photo by less than this before it is warped gains nothing over the bicubic kernel.
_LEAST_REDUCTION = 0.75
_ROWS_A_WRITE = 512


@dataclass(frozen=True)
class Source:
    """A photo file as it was when it was matched. size: (width, height), upright."""

    path: str
    sha256: str
    size: tuple[int, int]


class Raster(Protocol):
    """A picture of which parts are read."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """uint8 height×width×3 RGB."""


@dataclass(frozen=True)
class InMemory:
    """pixels: uint8 H×W×3 RGB."""

    pixels: Pixels

    @property
    def size(self) -> tuple[int, int]:
        return images.size_of(self.pixels)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        return self.pixels[y : y + height, x : x + width]


@dataclass(frozen=True)
class _OnDisk:
    canvas: Canvas

    @property
    def size(self) -> tuple[int, int]:
        return self.canvas.size

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        return np.ascontiguousarray(self.canvas.read(x, y, width, height)[:, :, :3])


class Photos:
    """A context manager. Safe between threads: two that need the same photo decode it once."""

    def __init__(
        self,
        sources: Sequence[Source],
        decode: DecodeOptions,
        *,
        scale: float = 1.0,
        in_memory: bool = True,
        folder: str | os.PathLike[str] = os.curdir,
    ) -> None:
        """scale: of the canvas; photos that it shows much smaller are reduced. folder: for temporary files, where the
        photos are not to be kept in memory."""
        self._sources = sources
        self._decode = decode
        self._scale = scale if scale < _LEAST_REDUCTION else 1.0
        self._folder = None if in_memory else folder
        self._rasters: dict[int, Raster] = {}
        self._locks = [threading.Lock() for _ in sources]
        self._decoding = threading.Semaphore(len(sources) if in_memory else 1)
        self._stack = ExitStack()

    def __enter__(self) -> Photos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._rasters.clear()
        self._stack.close()

    def get(self, number: int) -> Raster:
        """Raises InputError where the file cannot be read any more, or was changed, OutputError for a full disk."""
        with self._locks[number]:
            if number not in self._rasters:
                with self._decoding:
                    self._rasters[number] = self._made(number)
            return self._rasters[number]

    def _made(self, number: int) -> Raster:
        source = self._sources[number]
        pixels = images.decode(read_unchanged(source), self._decode, path=source.path)
        if images.size_of(pixels) != source.size:
            width, height = source.size
            raise PosesMalformed(f"it has not {width} × {height} pixels, as the poses say", path=source.path)
        if self._scale < 1:
            pixels = images.resize(pixels, self._scale)
        if self._folder is None:
            return InMemory(pixels)
        size = images.size_of(pixels)
        canvas = self._stack.enter_context(Canvas(size, memory_bytes=0, folder=self._folder))
        for top in range(0, size[1], _ROWS_A_WRITE):
            rows = pixels[top : top + _ROWS_A_WRITE]
            canvas.put(0, top, np.dstack([rows, np.full(rows.shape[:2], 255, np.uint8)]))
        return _OnDisk(canvas)


def read_unchanged(source: Source) -> bytes:
    """The bytes of a photo file. Raises InputError where it cannot be read any more, or was changed."""
    data = images.read_bytes(source.path)
    if sha256(data).hexdigest() != source.sha256:
        raise FileUnreadable("it was changed while featkit was at work", path=source.path, hint="run it again")
    return data
