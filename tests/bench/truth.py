"""Photos with known homographies, how far an estimate is off, and the script that every tutorial shows.

A folder of scenes: each scene has img1.* … imgN.* and H1to2p … H1toNp (3×3, pixels of img1 -> pixels of imgN), as the
Oxford affine covariant regions set has them. The error of a pair is the mean distance, pixels of imgN, between img1's
corners under the estimated and the true homography; no estimate counts as infinitely wrong. AUC@t: area under the
recall curve of that error up to t pixels, in percent (as in SuperGlue, Sarlin et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

THRESHOLDS = (1, 3, 5, 10)


@dataclass(frozen=True)
class Pair:
    scene: str
    a: str
    b: str
    truth: npt.NDArray[np.float64]


def scene_pairs(root: Path) -> Iterator[Pair]:
    for scene in sorted(path for path in root.iterdir() if path.is_dir()):
        photos = {int(path.stem[3:]): path for path in scene.glob("img*.*")}
        for number in sorted(photos)[1:]:
            truth = np.loadtxt(scene / f"H1to{number}p")
            yield Pair(scene.name, str(photos[1]), str(photos[number]), truth)


def corner_error(estimate: npt.ArrayLike | None, truth: npt.NDArray[np.float64], size: tuple[int, int]) -> float:
    if estimate is None:
        return float("inf")
    width, height = size
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float)
    ends = [corners @ np.asarray(matrix, float).T for matrix in (estimate, truth)]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(ends[0][:, :2] / ends[0][:, 2:] - ends[1][:, :2] / ends[1][:, 2:], axis=1).mean()
    return float(error) if np.isfinite(error) else float("inf")


def auc(errors: Sequence[float], threshold: float) -> float:
    found = np.sort(np.asarray(errors, float))
    recall = np.arange(1, len(found) + 1) / len(found)
    inside = found <= threshold
    last = recall[inside][-1] if inside.any() else 0.0
    return float(np.trapezoid([0, *recall[inside], last], [0, *found[inside], threshold]) / threshold * 100)


def tutorial_homography(a: str, b: str, detector: str) -> npt.NDArray[np.float64] | None:
    """SIFT at full size, brute force, ratio 0.75, RANSAC at 5 pixels; ORB: its 500 keypoints, cross-checked."""
    gray = [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in (a, b)]
    maker = cv2.SIFT.create() if detector == "sift" else cv2.ORB.create()
    (keypoints_a, described_a), (keypoints_b, described_b) = (maker.detectAndCompute(each, None) for each in gray)
    if detector == "sift":
        nearest = cv2.BFMatcher().knnMatch(described_a, described_b, k=2)
        good = [first for first, second in nearest if first.distance < 0.75 * second.distance]
    else:
        good = list(cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(described_a, described_b))
    if len(good) < 4:
        return None
    source = np.array([keypoints_a[match.queryIdx].pt for match in good], np.float32)
    target = np.array([keypoints_b[match.trainIdx].pt for match in good], np.float32)
    return cv2.findHomography(source, target, cv2.RANSAC, 5.0)[0]
