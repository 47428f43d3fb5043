"""Does memory stay flat at thousands of photos? Peak memory and CPU time of whole runs on 200, 1,000 and 2,000 of them.

python -m tests.bench.memory [PHOTOS ...]

The photos are made here: 320×240 views of the sample pictures, each a little beside, turned and nearer or farther than
the one before, so that neighbours overlap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from tests.bench.commands import FEATKIT
from tests.bench.report import ROOT, children_cpu_seconds, print_table

COUNTS = (200, 1000, 2000)
# The second look costs five times the rest of a pair on such small photos, and holds 128 MB of pictures at most.
SCHEMES = (("sequential:2", "fast"), ("sequential:2", "normal"), ("auto:5", "fast"))
SIZE = (320, 240)
VIEWS_A_WALK = 25
LINES_OF_ALL_WITH_ALL = 5
_POLL_S = 0.1


def make_photos(folder: Path, count: int) -> list[str]:
    """Walks over the samples: every 25 photos another place, seeded."""
    random = np.random.default_rng(0)
    pictures = [
        cv2.imread(str(path)) for path in sorted((ROOT / "samples").iterdir()) if path.suffix in (".jpg", ".png")
    ]
    names = []
    for number in range(count):
        if number % VIEWS_A_WALK == 0:
            picture = pictures[random.integers(len(pictures))]
            centre = np.array(picture.shape[1::-1]) * random.uniform(0.3, 0.7, 2)
            angle, scale = random.uniform(0, 360), random.uniform(0.7, 1.4)
        centre = centre + random.normal(0, 12, 2)
        angle, scale = angle + random.normal(0, 4), scale * np.exp(random.normal(0, 0.03))
        view = cv2.getRotationMatrix2D(tuple(centre), angle, scale)
        view[:, 2] += np.array(SIZE) / 2 - centre
        pixels = cv2.warpAffine(picture, view, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        noisy = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        names.append(str(folder / f"{number:04}.jpg"))
        cv2.imwrite(names[-1], noisy)
    return names


@contextmanager
def running(names: list[str], scratch: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """featkit match over a list of photos, with a cache of its own."""
    listing = Path(scratch) / "photos.txt"
    listing.write_text("\n".join(names))
    with (
        tempfile.TemporaryDirectory(dir=scratch) as cache,
        subprocess.Popen(
            [FEATKIT, "match", "--files-from", str(listing), "--quiet", *options],
            stdout=subprocess.PIPE,
            env={**os.environ, "FEATKIT_CACHE": cache},
        ) as process,
    ):
        yield process


def peak_megabytes(process: subprocess.Popen[bytes]) -> float:
    """The most memory that a running process has had; 0 when it has ended."""
    # The kernel's figure for children that have ended includes what this process had when it started them.
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def whole_run(names: list[str], scheme: str, effort: str, scratch: str) -> list[str]:
    before = children_cpu_seconds()
    start = time.perf_counter()
    lines, peak, polled = 0, 0.0, 0.0
    with running(names, scratch, "--pairs", scheme, "--effort", effort) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            lines += 1
            if time.perf_counter() > polled + _POLL_S:
                peak, polled = max(peak, peak_megabytes(process)), time.perf_counter()
    seconds = time.perf_counter() - start
    cpu = children_cpu_seconds() - before
    return [
        f"`--pairs {scheme}`",
        effort,
        f"{len(names):,}",
        f"{lines:,}",
        f"{peak:.0f} MB",
        f"{1000 * cpu / lines:.0f} ms",
        f"{cpu / seconds:.2f}",
    ]


def start_of_all_with_all(names: list[str], scratch: str) -> list[str]:
    start = time.perf_counter()
    with running(names, scratch) as process:
        assert process.stdout is not None
        for _ in range(LINES_OF_ALL_WITH_ALL):
            process.stdout.readline()
        seconds, peak = time.perf_counter() - start, peak_megabytes(process)
        process.stdout.close()  # as `head -5` does
        process.wait()
    return [f"{len(names):,}", f"{len(names) * (len(names) - 1) // 2:,}", f"{seconds:.1f} s", f"{peak:.0f} MB"]


def main(counts: tuple[int, ...] = COUNTS) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        photos = make_photos(Path(scratch), max(counts))
        rows = [whole_run(photos[:count], *scheme, scratch) for scheme in SCHEMES for count in counts]
        columns = ["pairs of", "effort", "photos", "pairs", "peak memory", "CPU a pair", "processors busy"]
        print_table(f"`featkit match` of many photos, {SIZE[0]} × {SIZE[1]}", columns, rows)
        columns = ["photos", "possible pairs", f"time to {LINES_OF_ALL_WITH_ALL} lines", "peak memory by then"]
        starts = [start_of_all_with_all(photos[:count], scratch) for count in counts]
        print_table("All with all, `| head -5`", columns, starts)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or COUNTS)
