"""How much memory drawing a panorama takes, before it is drawn, and how to keep within a limit."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featkit.errors import UsageError
from featkit.stitching.compositing import reach, tiles
from featkit.stitching.projection import Layout

LEAST_MEMORY = 200 << 20

# Bytes a pixel of a tile with its halo while it is made: the pyramids of what is summed, of its weights and of one
# photo, what is warped and where from. Measured on tiles of 0.8 to 6 megapixels, rounded up.
_BYTES_A_TILE_PIXEL = {"multiband": 110, "feather": 90, "none": 60}
# Larger tiles are slower: their arrays are too large to be used again by the allocator. Measured: 2048 takes twice as
# long as 1024, 512 as long.
_TILE_SIDES = (1024, 512, 256)
# Pixels of a photo; while it is decoded the decoder's own copy, and another on the way out of it. Measured: 1.0 GB for
# 100 megapixels.
_BYTES_A_PHOTO_PIXEL = 3
_BYTES_A_DECODED_PIXEL = 11
# SIFT of a reduced photo, and patches.
_FINDING_BYTES = 150 << 20
# Saving (canvas.py), and what allocators do not give back at once.
_OVERHEAD_BYTES = 40 << 20
# Of the limit: what is in memory only to save time may take this much, so that the prediction has room to be wrong.
_COMFORT = 0.6
_SHARE_OF_MACHINE = 4


@dataclass(frozen=True)
class Plan:
    """tile_side: pixels; tiles: how many there are. workers: tiles at a time. photos_in_memory: or on the disk.
    canvas_bytes: a canvas up to this size lies in memory, a larger one on the disk. predicted: bytes that the whole
    process will hold at most."""

    tile_side: int
    tiles: int
    workers: int
    photos_in_memory: bool
    canvas_bytes: int
    predicted: int


def default_memory() -> int:
    """Bytes: a quarter of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SHARE_OF_MACHINE


def used_memory() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def affordable_jobs(pixels: int, max_memory: int, jobs: int) -> int:
    """Threads that match within max_memory bytes though each reads the largest photo, of so many pixels. Raises
    UsageError, with what would do, where not even one does."""
    decoding = _BYTES_A_DECODED_PIXEL * pixels
    free = max_memory - used_memory()
    if free < decoding:
        needed = decoding + used_memory()
        raise UsageError(
            f"to read photos of {pixels / 1e6:.0f} megapixels takes more than {max_memory >> 20}M of memory",
            hint=f"it takes --max-memory {-(-needed >> 20)}M, or smaller photos",
        )
    a_thread = max(_FINDING_BYTES + _BYTES_A_PHOTO_PIXEL * pixels, decoding)
    return max(1, min(jobs, (int(max_memory * _COMFORT) - used_memory()) // a_thread))


def give_back() -> None:
    """Let the C library return to the system what matching has freed; only glibc keeps that, and has this call."""
    import ctypes  # late: only here

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def plan(
    layout: Layout, sizes: Sequence[tuple[int, int]], blend: str, octaves: int, max_memory: int | None, jobs: int
) -> Plan:
    """The fastest way that keeps within max_memory bytes, None for a quarter of the machine's. sizes: of the photos.
    blend, octaves: as composition has them. Raises UsageError, with what would do, where there is none."""
    give_back()
    limit = default_memory() if max_memory is None else max_memory
    base = used_memory() + _OVERHEAD_BYTES
    pixels = [width * height for width, height in sizes]
    canvas = 4 * layout.size[0] * layout.size[1]
    halo = reach(blend, octaves)
    comfortable, least = int(limit * _COMFORT), 0
    # More workers are worth more than larger tiles.
    for workers, side in itertools.product(range(jobs, 0, -1), _TILE_SIDES):
        count = len(tiles(layout, side))
        if count < workers:
            continue
        width, height = (min(side, length) + 2 * halo for length in layout.size)
        working = workers * width * height * _BYTES_A_TILE_PIXEL[blend]
        decoding = _BYTES_A_DECODED_PIXEL * max(pixels)
        in_memory = working + _BYTES_A_PHOTO_PIXEL * sum(pixels) + workers * decoding
        # Photos that go to the disk are decoded one by one, before the first tile.
        for photos, needed in ((True, in_memory + canvas), (True, in_memory), (False, max(working, decoding))):
            least = base + needed
            if least <= comfortable:
                kept = canvas if needed == in_memory + canvas else 0
                return Plan(side, count, workers, photos, kept, least)
    # The last that was tried takes least.
    if least <= limit:
        return Plan(side, count, 1, False, 0, least)
    raise UsageError(
        f"this panorama cannot be drawn within {limit >> 20}M of memory",
        hint=f"it takes --max-memory {-(-least >> 20) + 1}M, or a smaller --scale",
    )
