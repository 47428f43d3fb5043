"""The exact matcher against cv2.BFMatcher, both ways, on descriptors of real photos: same matches, CPU, memory.

python -m tests.bench.matcher [--data FOLDER]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from featkit.images import load
from featkit.local.features import DetectorConfig, detect
from featkit.local.matching import MatcherConfig, nearest_binary, nearest_neighbours, root_sift, select
from tests.bench.report import cpu_seconds, data_folder, print_table

SIZES = (2_000, 8_000, 20_000)
REPETITIONS = 3
CONFIG = MatcherConfig()


def descriptors(data: Path, detector: str, count: int, which: int) -> npt.NDArray[np.uint8]:
    """`count` descriptors from the even or odd photos of the Oxford scenes."""
    found: list[npt.NDArray[np.uint8]] = []
    config = DetectorConfig(detector, max_keypoints=10_000)
    for photo in sorted((data / "oxford").glob("*/img*.png"))[which::2]:
        found.append(detect(load(photo).pixels, config).descriptors)
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def ours(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    if a.shape[1] == 32:
        return select(nearest_binary(a, b), CONFIG).indices
    return select(nearest_neighbours(root_sift(a), root_sift(b), unit_length=True), CONFIG).indices


def brute_force(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Ratio test and mutual check with OpenCV's matcher."""
    binary = a.shape[1] == 32
    left, right = (a, b) if binary else (root_sift(a), root_sift(b))
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING if binary else cv2.NORM_L2)
    forward, backward = matcher.knnMatch(left, right, k=2), matcher.match(right, left)
    back = {match.queryIdx: match.trainIdx for match in backward}
    return np.array(
        [
            (first.queryIdx, first.trainIdx)
            for first, second in forward
            if second.distance > 0
            and np.float32(first.distance) / np.float32(second.distance) <= CONFIG.ratio
            and back[first.trainIdx] == first.queryIdx
        ],
        np.int32,
    ).reshape(-1, 2)


MEMORY_PROBE = """
import sys
from pathlib import Path
from tests.bench.matcher import descriptors, ours

def kilobytes(field):
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field))

a, b = (descriptors(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), which) for which in (0, 1))
ours(a[:600], b[:600])
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
ours(a, b)
print((kilobytes("VmHWM") - before) / 1024)
"""


def extra_megabytes(data: Path, detector: str, count: int) -> float:
    """Peak memory of one matching above what the process held before, in a process of its own (Linux)."""
    command = [sys.executable, "-c", MEMORY_PROBE, str(data), detector, str(count)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout)


def main(data: Path) -> None:
    rows = []
    with threadpool_limits(1, user_api="blas"):
        for detector in ("sift", "orb"):
            for count in SIZES:
                a, b = (descriptors(data, detector, count, which) for which in (0, 1))
                same = np.array_equal(ours(a, b), brute_force(a, b))
                ratios = [
                    cpu_seconds(partial(ours, a, b)) / cpu_seconds(partial(brute_force, a, b))
                    for _ in range(REPETITIONS)
                ]
                rows.append(
                    [
                        "RootSIFT" if detector == "sift" else "ORB",
                        f"{len(a):,} × {len(b):,}",
                        f"{len(ours(a, b))}",
                        "yes" if same else "NO",
                        f"{statistics.median(ratios):.3f}",
                        f"{extra_megabytes(data, detector, count):.0f} MB",
                    ]
                )
    columns = ["descriptors", "size", "matches", "identical", "CPU, ratio to cv2.BFMatcher", "extra memory"]
    print_table("Exact matcher against cv2.BFMatcher, both ways", columns, rows)


if __name__ == "__main__":
    main(data_folder(__doc__))
