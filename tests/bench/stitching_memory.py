"""Is `--max-memory` kept? A panorama of 100 megapixels, stitched in 600 MB and without that limit, beside cv2.Stitcher.

python -m tests.bench.stitching_memory

Eight views, 229° in all, are made here out of a cylinder painted with spots of every size, seeded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.bench.commands import FEATKIT
from tests.bench.memory import peak_megabytes
from tests.bench.report import print_table

VIEWS = 8
SIZE = (3526, 5000)
FOCAL_PX = 5000.0
# Of a view's width at its middle row.
OVERLAP = 0.3
LIMIT = "600M"
PEERS_SCRIPT = str(Path(__file__).with_name("stitching_peers.py"))
# Sizes of the spots, pixels, and the contrast of each.
_PAINT = ((3, 0.25), (8, 0.25), (24, 0.3), (80, 0.35), (300, 0.4))
_STRIP = 250
_POLL_S = 0.02

# What a stitcher has in memory before it looks at a photo.
_IMPORTS = {"featkit": "import numpy, cv2, featkit; featkit.stitch", "cv2": "import numpy, cv2"}
_PRINT_PEAK = """
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def make_views(folder: Path) -> list[str]:
    width, height = SIZE
    half = np.arctan(width / 2 / FOCAL_PX)
    step = 2 * half * (1 - OVERLAP)
    random = np.random.default_rng(0)
    long = int(FOCAL_PX * (step * (VIEWS - 1) + 2 * half)) + 100
    # Noise: enlarged and added up, it is the paint.
    paint = [random.integers(0, 256, ((height + 200) // spot + 2, long // spot + 2, 3), np.uint8) for spot, _ in _PAINT]
    names = []
    for view in range(VIEWS):
        pixels = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, _STRIP):
            x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(top, top + _STRIP) - (height - 1) / 2)
            along = FOCAL_PX * (np.arctan(x / FOCAL_PX) + half + view * step) + 20
            down = FOCAL_PX * y / np.hypot(x, FOCAL_PX) + height / 2 + 50
            total = np.full((*x.shape, 3), 127.5, np.float32)
            for layer, (spot, contrast) in zip(paint, _PAINT, strict=True):
                at = (along / spot).astype(np.float32), (down / spot).astype(np.float32)
                total += contrast * (cv2.remap(layer, *at, cv2.INTER_LINEAR) - np.float32(127.5))
            pixels[top : top + _STRIP] = np.clip(total, 0, 255)
        names.append(str(folder / f"view{view}.jpg"))
        cv2.imwrite(names[-1], pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return names


def base_megabytes(stitcher: str) -> float:
    program = _IMPORTS[stitcher] + _PRINT_PEAK
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def peak_of(command: Sequence[str], cache: Path) -> tuple[float, float]:
    """Megabytes and seconds of a whole run."""
    start, peak = time.perf_counter(), 0.0
    environment = {**os.environ, "FEATKIT_CACHE": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, peak_megabytes(process))
            time.sleep(_POLL_S)
    if process.returncode != 0:
        raise RuntimeError(f"exit status {process.returncode}: {' '.join(command)}")
    return peak, time.perf_counter() - start


def likeness(a: Path, b: Path) -> str:
    left, right = cv2.imread(str(a)), cv2.imread(str(b))
    if left.shape != right.shape:
        return "another size"
    return "the same pixels" if np.array_equal(left, right) else f"{cv2.PSNR(left, right):.1f} dB"


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = make_views(folder)
        free, kept, peer = folder / "free.png", folder / "kept.png", folder / "cv2.png"
        ours = [FEATKIT, "stitch", *names, "--projection", "cylindrical", "--quiet", "-o"]
        runs = (
            ("featkit", "featkit, no limit given", free, [*ours, str(free)]),
            ("featkit", f"featkit, `--max-memory {LIMIT}`", kept, [*ours, str(kept), "--max-memory", LIMIT]),
            ("cv2", "cv2.Stitcher", peer, [sys.executable, PEERS_SCRIPT, "cv2", str(peer), *names]),
        )
        for which, title, output, command in runs:
            # Each with a cache of its own: a cold run is what a limit must hold for.
            peak, seconds = peak_of(command, folder / f"cache-{output.stem}")
            width, height = cv2.imread(str(output)).shape[1::-1]
            same = likeness(free, kept) if output == kept else "–"
            over = f"{peak - base_megabytes(which):.0f} MB"
            rows.append([title, f"{width} × {height}", f"{peak:.0f} MB", over, f"{seconds:.0f} s", same])
    columns = ["run", "panorama", "peak memory", "over its imports", "wall", "against the picture without limit"]
    print_table(f"{VIEWS} views of {SIZE[0]} × {SIZE[1]}", columns, rows)


if __name__ == "__main__":
    main()
