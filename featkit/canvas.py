"""A picture that is made tile by tile, in any order, and saved without ever being whole in memory.

Its pixels are uint8 RGBA and lie in memory if they are few, or else in a temporary file, read and written by rows:
pages of a mapped file would count as this program's memory. A picture file is made of blocks of rows that are
compressed independently of each other, by several threads, and written in their order; how many threads there are does
not change a byte. zlib, Pillow and tifffile do the compression and the containers. What is added here is what they do
not offer: PNG and JPEG in pieces. WebP has no pieces; such a picture is whole in memory while it is encoded, and can
have no more than 16383 pixels a side.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from types import TracebackType
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from featkit.errors import OutputError, UsageError
from featkit.records import replacing

Pixels = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]
Region = tuple[int, int, int, int]
Size = tuple[int, int]

# Bytes of samples in a block of a PNG or TIFF: each block starts with an empty dictionary, which costs 0.1 % at this
# size, and 17 rows of 20000 pixels are what readers of strips are used to.
_BLOCK_BYTES = 2**20
# Bytes of RGBA on their way through the threads. With copies and compressed blocks it comes to three times as much:
# 46 MB measured, of 20000 × 5000 pixels, with 8 threads.
_BYTES_UNDER_WAY = 16 * 2**20
# Such a piece is in memory twice.
_LONGEST_READ = 2**20
_BYTES_TO_SAVE = 64 * 2**20
# A pixel, measured on photos with transparent parts; 14 without, and twice as many for noise.
_WEBP_BYTES = 20
# Restart markers count 0 to 7, one a row of 8×8 blocks: a strip of 64 rows of pixels ends where the next one's begins.
_JPEG_STRIP_ROWS = 64
# Of uncompressed samples. A classic TIFF ends at 2**32 bytes, and what cannot be compressed becomes a little larger.
_LARGEST_CLASSIC_TIFF = 4_000_000_000

_Block = TypeVar("_Block")


class Canvas:
    """A picture of `size` (width, height), all zero at first: transparent black.

    A context manager; what it holds is gone when it ends, however it ends. `put`, `read` and `save` may be called from
    several threads as long as no two of them touch the same pixels, and raise ValueError for a window that is not
    inside the picture.
    """

    def __init__(self, size: Size, *, memory_bytes: int, folder: PathLike) -> None:
        """memory_bytes: a picture of at most so many bytes, four a pixel, lies in memory; another one in a temporary
        file without a name in `folder`, which takes space there as it is filled.

        Raises OutputError if no such file can be made.
        """
        self.size = self._width, self._height = int(size[0]), int(size[1])
        if min(self.size) < 1:
            raise ValueError(f"a picture of {self._width} × {self._height} pixels")
        self._folder = os.fspath(folder)
        self._bytes = self._width * self._height * 4
        self._pixels = self._file = None
        if self._bytes <= memory_bytes:
            self._pixels = np.zeros((self._height, self._width, 4), np.uint8)
            return
        with self._errors_name_the_folder():
            self._file = tempfile.TemporaryFile(buffering=0, prefix=".featkit-", dir=self._folder)  # noqa: SIM115
            try:
                self._file.truncate(self._bytes)
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> Canvas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the pixels go. To be called once nothing else uses them."""
        self._pixels = None
        if self._file is not None:
            self._file.close()

    def put(self, x: int, y: int, pixels: Pixels) -> None:
        """Lay uint8 H×W×4 pixels with their top-left one at (x, y), in place of what was there.

        Raises OutputError if the disk is full.
        """
        height, width = pixels.shape[:2]
        self._check_inside(x, y, width, height)
        if pixels.shape != (height, width, 4) or pixels.dtype != np.uint8:
            raise ValueError(f"RGBA pixels are uint8 H×W×4, not {pixels.dtype} {pixels.shape}")
        if self._file is None:
            self._memory()[y : y + height, x : x + width] = pixels
            return
        rows = np.ascontiguousarray(pixels)
        with self._errors_name_the_folder():
            for offset, run in self._runs(x, y, rows):
                _write_fully(self._file.fileno(), run, offset)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """A copy of a window: uint8 H×W×4."""
        self._check_inside(x, y, width, height)
        if self._file is None:
            return self._memory()[y : y + height, x : x + width].copy()
        window = np.empty((height, width, 4), np.uint8)
        with self._errors_name_the_folder():
            for offset, run in self._runs(x, y, window):
                _read_fully(self._file.fileno(), run, offset)
        return window

    def save(
        self, path: PathLike, *, quality: int = 92, force: bool = False, region: Region | None = None, jobs: int = 1
    ) -> None:
        """Write the picture, or the window `region` (x, y, width, height) of it, as the format that the path's
        extension names.

        PNG, TIFF and WebP get an alpha channel, unassociated, if some pixel of the window is not opaque; a JPEG shows
        such pixels by their colour alone. quality: 1..100, for JPEG (without subsampling) and WebP. jobs: threads that
        compress. Takes the memory of which `bytes_to_save` speaks.

        Raises what `check_format` and `records.replacing` raise.
        """
        window = _Window(self, *(region or (0, 0, self._width, self._height)), channels=3)
        self._check_inside(window.x, window.y, window.width, window.height)
        check_format(path, (window.width, window.height))
        format_ = _FORMATS[_extension(path)]
        with replacing(path, force=force) as temporary:
            if format_.alpha and not _is_opaque(window, jobs):
                window = replace(window, channels=4)
            with temporary.open("wb") as file:
                format_.write(file, window, quality, jobs)

    def _memory(self) -> Pixels:
        if self._pixels is None:
            raise ValueError("the canvas is closed")
        return self._pixels

    def _check_inside(self, x: int, y: int, width: int, height: int) -> None:
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self._width or y + height > self._height:
            raise ValueError(f"{width} × {height} pixels at ({x}, {y}) are not inside {self._width} × {self._height}")

    def _runs(self, x: int, y: int, window: Pixels) -> Iterator[tuple[int, memoryview]]:
        """(offset in the file, the bytes of the window) of each run of pixels that is one in both: a row, or all rows
        where the window is as wide as the picture. window: uint8 H×W×4, contiguous."""
        start = (y * self._width + x) * 4
        if window.shape[1] == self._width:
            yield start, window.reshape(-1).data
            return
        for number, row in enumerate(window):
            yield start + number * self._width * 4, row.reshape(-1).data

    @contextlib.contextmanager
    def _errors_name_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            needed = f"{self._bytes / 1e9:.1f} GB"
            message = f"no temporary file can be kept there: {error.strerror or error}"
            hint = "name a folder that can be written to"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = f"the disk is full: while the picture is made, it takes up to {needed} there"
                hint = "free some space, or make a smaller picture with --scale"
            elif error.errno == errno.EFBIG:
                message = f"a temporary file of {needed} would be larger than this system allows"
                hint = "raise the limit (ulimit -f unlimited), or make a smaller picture with --scale"
            raise OutputError(message, path=self._folder, hint=hint) from error


def _write_fully(descriptor: int, run: memoryview, offset: int) -> None:
    # A disk that fills up, and a signal, cut a write short without an error.
    while run:
        written = os.pwrite(descriptor, run, offset)
        run, offset = run[written:], offset + written


def _read_fully(descriptor: int, run: memoryview, offset: int) -> None:
    while run:
        data = os.pread(descriptor, min(len(run), _LONGEST_READ), offset)
        if not data:
            raise OSError(errno.EIO, "the temporary file was cut short")
        run[: len(data)] = data
        run, offset = run[len(data) :], offset + len(data)


# --- what is saved, block by block


@dataclass(frozen=True)
class _Window:
    """A part of a canvas, as RGB (3 channels) or RGBA (4)."""

    canvas: Canvas
    x: int
    y: int
    width: int
    height: int
    channels: int

    def rows(self, top: int, count: int) -> Pixels:
        """uint8 H×W×C, contiguous: at most `count` rows from `top` on, counted in the window."""
        pixels = self.canvas.read(self.x, self.y + top, self.width, min(count, self.height - top))
        if self.channels == 4:
            return pixels
        from featkit.opencv import cv2  # a ninth of the time that numpy takes to drop a channel

        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)

    @property
    def rows_a_block(self) -> int:
        """Of a PNG or TIFF."""
        return max(1, _BLOCK_BYTES // (self.width * self.channels))


@contextlib.contextmanager
def _encoded(window: _Window, rows: int, encode: Callable[[Pixels], _Block], jobs: int) -> Iterator[Iterator[_Block]]:
    """`encode` of each block of `rows` rows, top to bottom, by `jobs` threads while the caller writes.

    The threads have ended when the context ends, and blocks that are not needed any more are not encoded.
    """
    at_once = max(1, min(jobs, _BYTES_UNDER_WAY // (rows * window.width * 4)))
    waiting: deque[Future[_Block]] = deque()

    def block(top: int) -> _Block:
        return encode(window.rows(top, rows))

    def blocks() -> Iterator[_Block]:
        for top in range(0, window.height, rows):
            waiting.append(pool.submit(block, top))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ThreadPoolExecutor(at_once, thread_name_prefix="featkit") as pool:
        try:
            yield blocks()
        finally:
            for future in waiting:
                future.cancel()


def _is_opaque(window: _Window, jobs: int) -> bool:
    rgba = replace(window, channels=4)
    with _encoded(rgba, rgba.rows_a_block, lambda pixels: bool((pixels[..., 3] == 255).all()), jobs) as opaque:
        return all(opaque)


# --- formats


def _write_png(file: BinaryIO, window: _Window, quality: int, jobs: int) -> None:
    colour_type = 6 if window.channels == 4 else 2
    file.write(b"\x89PNG\r\n\x1a\n")
    file.write(_png_chunk(b"IHDR", struct.pack(">IIBBBBB", window.width, window.height, 8, colour_type, 0, 0, 0)))
    file.write(_png_chunk(b"IDAT", b"\x78\x01"))  # the head of a zlib stream: a window of 32 KiB, the fastest level
    checksum = zlib.adler32(b"")
    with _encoded(window, window.rows_a_block, _png_block, jobs) as blocks:
        for chunk, block_checksum, length in blocks:
            file.write(chunk)
            checksum = _adler32_of_both(checksum, block_checksum, length)
    # Its end: an empty block that is marked as the last one, and the checksum.
    file.write(_png_chunk(b"IDAT", b"\x03\x00" + checksum.to_bytes(4, "big")))
    file.write(_png_chunk(b"IEND", b""))


def _png_block(pixels: Pixels) -> tuple[bytes, int, int]:
    """(IDAT chunk, Adler-32 and number of the bytes in it before compression) of rows of pixels, uint8 H×W×C."""
    height, width, channels = pixels.shape
    filtered = np.empty((height, 1 + width * channels), np.uint8)
    filtered[:, 0] = 1  # the filter "Sub"
    _subtract_left(pixels, filtered[:, 1:])
    # Level 1 without RLE: on 11 megapixels of photos, 16 % smaller than by `images.encode`, in 1.15 times its CPU time.
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    # A sync flush ends at a whole byte and refers to nothing before the block: such blocks can be joined.
    data = compressor.compress(filtered.data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _png_chunk(b"IDAT", data), zlib.adler32(filtered.data), filtered.size


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((len(data).to_bytes(4, "big"), kind, data, zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")))


def _adler32_of_both(first: int, second: int, second_length: int) -> int:
    """Adler-32 of two pieces of data after each other, from those of each (RFC 1950: its low half is 1 + the sum of the
    bytes, its high half the sum of what the low half was after each byte)."""
    low, high = first & 0xFFFF, first >> 16
    low_both = (low + (second & 0xFFFF) - 1) % 65521
    high_both = (high + (second >> 16) + second_length * (low - 1)) % 65521
    return high_both << 16 | low_both


def _write_tiff(file: BinaryIO, window: _Window, quality: int, jobs: int) -> None:
    import tifffile  # late: 30 ms

    rows = window.rows_a_block
    with _encoded(window, rows, _tiff_strip, jobs) as strips:
        tifffile.imwrite(
            file,
            strips,
            shape=(window.height, window.width, window.channels),
            dtype=np.uint8,
            bigtiff=window.height * window.width * window.channels > _LARGEST_CLASSIC_TIFF,
            byteorder="<",
            photometric="rgb",
            extrasamples=("unassalpha",) if window.channels == 4 else (),
            compression="adobe_deflate",
            predictor=2,  # each sample less the one to the left
            rowsperstrip=rows,
            metadata=None,
            software=False,
        )


def _tiff_strip(pixels: Pixels) -> bytes:
    height, width, channels = pixels.shape
    predicted = np.empty((height, width * channels), np.uint8)
    _subtract_left(pixels, predicted)
    return zlib.compress(predicted.data, 1)


def _subtract_left(pixels: Pixels, out: Pixels) -> None:
    """Each sample less that of the pixel to the left, modulo 256, into `out`: H×(W·C). The first pixels stay."""
    height, width, channels = pixels.shape
    samples = pixels.reshape(height, width * channels)
    out[:, :channels] = samples[:, :channels]
    np.subtract(samples[:, channels:], samples[:, :-channels], out=out[:, channels:])


def _write_jpeg(file: BinaryIO, window: _Window, quality: int, jobs: int) -> None:
    """Strips that Pillow encodes as JPEG files of their own, joined to one at restart markers: nothing in a strip
    refers to what is before such a marker, and all strips have the same tables."""
    rgba = replace(window, channels=4)
    with _encoded(rgba, _JPEG_STRIP_ROWS, partial(_jpeg_strip, quality=quality), jobs) as strips:
        for number, strip in enumerate(strips):
            height_at, scan_at = _jpeg_offsets(strip)
            if number == 0:
                file.write(strip[:height_at] + window.height.to_bytes(2, "big") + strip[height_at + 2 : scan_at])
            else:
                file.write(b"\xff\xd7")  # the last of the markers 0 to 7, between the strips
            file.write(strip[scan_at:-2])
    file.write(b"\xff\xd9")


def _jpeg_strip(pixels: Pixels, quality: int) -> bytes:
    from PIL import Image

    # RGBX is RGB as Pillow keeps it: it takes these bytes as they are, and leaves the fourth of each pixel alone.
    image = Image.frombuffer("RGBX", (pixels.shape[1], pixels.shape[0]), pixels, "raw", "RGBX", 0, 1)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, restart_marker_rows=1)
    return buffer.getvalue()


def _jpeg_offsets(data: bytes) -> tuple[int, int]:
    """Where the height (two bytes) and the compressed scan of a baseline JPEG begin."""
    height_at, position = 0, 2
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFFC0:
            height_at = position + 5
        position += 2 + length
        if marker == 0xFFDA:
            return height_at, position


def _write_webp(file: BinaryIO, window: _Window, quality: int, jobs: int) -> None:
    from PIL import Image

    Image.fromarray(window.rows(0, window.height)).save(file, "WEBP", quality=quality)


@dataclass(frozen=True)
class _Format:
    """How to write a window; whether with transparency; the longest side that the format can hold, pixels."""

    write: Callable[[BinaryIO, _Window, int, int], None]
    alpha: bool
    longest_side: int | None = None


_JPEG = _Format(_write_jpeg, alpha=False, longest_side=65500)
_TIFF = _Format(_write_tiff, alpha=True)
_FORMATS = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": _Format(_write_png, alpha=True),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _Format(_write_webp, alpha=True, longest_side=16383),
}


def check_format(path: PathLike, size: Size | None = None) -> None:
    """UsageError where `Canvas.save` would refuse the path's extension, or a picture of `size` (width, height)."""
    extension = _extension(path)
    format_ = _FORMATS.get(extension)
    if format_ is None:
        raise UsageError(
            f"panoramas cannot be written as {extension!r}" if extension else "the panorama's name has no extension",
            path=os.fspath(path),
            hint=f"use one of {' '.join(_FORMATS)}",
        )
    if size is not None and format_.longest_side is not None and max(size) > format_.longest_side:
        raise UsageError(
            f"a {extension} picture cannot have {size[0]} × {size[1]} pixels: at most {format_.longest_side} a side",
            path=os.fspath(path),
            hint="use .tif or .png, or make a smaller picture with --scale",
        )


def bytes_to_save(path: PathLike, size: Size) -> int:
    """About how much memory `Canvas.save` takes for `size` (width, height), besides the canvas: the same for a picture
    of any size, except for WebP. Raises UsageError as `check_format` does."""
    check_format(path, size)
    return _BYTES_TO_SAVE + (_WEBP_BYTES * size[0] * size[1] if _extension(path) == ".webp" else 0)


def _extension(path: PathLike) -> str:
    return PurePath(path).suffix.lower()
