"""Keypoints and descriptors of one picture: SIFT and ORB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import rescale_points, resize, scale_to_fit, to_gray
from featkit.opencv import cv2

#: Raise when the same picture and configuration would give other features: it is part of the cache key.
VERSION = 2

DETECTORS = ("sift", "orb")
DEFAULT_KEYPOINTS = {"sift": 8_000, "orb": 10_000}

# Half of OpenCV's default: a third more keypoints on oxford/graf.
_SIFT_CONTRAST = 0.02
# OpenCV's SIFT doubles the picture with aligned corners but halves the coordinates without the half pixel: every
# keypoint lies a quarter of a pixel too far right and down. Its own `enable_precise_upscale` mends that with another
# interpolation, which finds worse keypoints. Measured on exact warps: AUC@1 67 as it is, 73 precise, 76 shifted.
_SIFT_SHIFT = -0.25
_SIFT_SMALLEST_SIDE = 3
# Above this size the strongest keypoints of a photo are all fine ones, which another distance does not show again.
# Ranking by strength × size instead found 1.5 to 10 times the inliers on 6-megapixel photos; below it changes nothing.
_LARGE_PICTURE_PIXELS = 1_000_000

# ORB places keypoints on whole pixels; looking at twice the size halves that error.
_ORB_UPSAMPLING = 2.0
# Half of OpenCV's default: on soft pictures 20 finds too little. Measured on exact warps: AUC@1 60 -> 73.
_ORB_FAST_THRESHOLD = 10
_ORB_SCALE_FACTOR = 1.2
_ORB_LEVELS = 8


@dataclass(frozen=True)
class DetectorConfig:
    """What to look for. `max_keypoints` None is the detector's own default. `max_side`: pictures are looked at reduced
    to this longest side, 0 for the full size. The default, COLMAP's own, keeps SIFT of any photo below 2 GB of memory;
    24 megapixels at full size take 6 GB."""

    detector: str = "sift"
    max_keypoints: int | None = None
    max_side: int = 3200

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise UsageError(f"there is no detector {self.detector!r}", hint=f"choose one of: {', '.join(DETECTORS)}")
        if self.max_keypoints is not None and self.max_keypoints < 1:
            raise UsageError("--max-keypoints must be at least 1")
        if self.max_side != 0 and self.max_side < 16:
            raise UsageError("--max-side must be at least 16 pixels", hint="or 0 for the full size")

    @property
    def keypoint_limit(self) -> int:
        return self.max_keypoints or DEFAULT_KEYPOINTS[self.detector]


@dataclass(frozen=True)
class Features:
    """Local features of one picture, strongest first.

    xy: float32 N×2, pixels of the full-size upright picture, centre of the top-left pixel = (0, 0).
    size: float32 N, diameter of the described neighbourhood in the same pixels.
    angle: float32 N, degrees in [0, 360).
    descriptors: uint8 N×128 (SIFT, 0..255) or uint8 N×32 (ORB, 256 packed bits).
    image_size: (width, height) of the full-size upright picture.
    """

    xy: npt.NDArray[np.float32]
    size: npt.NDArray[np.float32]
    angle: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.xy)

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same as named arrays, for the cache."""
        return {
            "xy": self.xy,
            "size": self.size,
            "angle": self.angle,
            "descriptors": self.descriptors,
            "image_size": np.array(self.image_size, np.int64),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Features:
        """The inverse of `to_arrays`; KeyError where an array is missing."""
        width, height = (int(v) for v in arrays["image_size"])
        return Features(
            arrays["xy"].astype(np.float32, copy=False),
            arrays["size"].astype(np.float32, copy=False),
            arrays["angle"].astype(np.float32, copy=False),
            arrays["descriptors"].astype(np.uint8, copy=False),
            (width, height),
        )


def detect(pixels: npt.NDArray[np.uint8], config: DetectorConfig | None = None) -> Features:
    """Find and describe keypoints.

    pixels: uint8 H×W×3 RGB, upright. Returns at most `config.keypoint_limit` features, none for a picture without
    texture. SIFT: Lowe 2004; ORB: Rublee et al. 2011; both OpenCV's, with its coordinate offsets taken out.
    """
    config = config or DetectorConfig()
    height, width = pixels.shape[:2]
    scale = scale_to_fit((width, height), config.max_side or None)
    gray = to_gray(pixels if scale == 1 else resize(pixels, scale))
    maker = _detect_sift if config.detector == "sift" else _detect_orb
    xy, size, angle, response, descriptors = maker(gray, config.keypoint_limit)
    # The strongest first; equal responses in reading order, so that the result does not depend on OpenCV's threads.
    order = np.lexsort((angle, size, xy[:, 0], xy[:, 1], -response))[: config.keypoint_limit]
    return Features(
        rescale_points(xy[order], 1 / scale).astype(np.float32),
        (size[order] / scale).astype(np.float32),
        angle[order].astype(np.float32),
        descriptors[order],
        (width, height),
    )


_Raw = tuple[
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.uint8],
]


def _detect_sift(gray: npt.NDArray[np.uint8], limit: int) -> _Raw:
    if min(gray.shape) < _SIFT_SMALLEST_SIDE:
        return _unpack([], None, width=128)
    if gray.size <= _LARGE_PICTURE_PIXELS:
        keypoints, described = _sift(limit).detectAndCompute(gray, None)
    else:
        found = _sift(0).detect(gray, None)
        found = sorted(found, key=lambda k: (-k.response * k.size, k.pt, k.angle))[:limit]
        keypoints, described = _sift(0).compute(gray, found)
    xy, size, angle, response, descriptors = _unpack(keypoints, described, width=128)
    return xy + _SIFT_SHIFT, size, angle, response, descriptors


def _sift(limit: int) -> cv2.SIFT:
    return cv2.SIFT.create(limit, 3, _SIFT_CONTRAST, 10.0, 1.6, cv2.CV_8U)


def _detect_orb(gray: npt.NDArray[np.uint8], limit: int) -> _Raw:
    large = cv2.resize(gray, None, fx=_ORB_UPSAMPLING, fy=_ORB_UPSAMPLING, interpolation=cv2.INTER_CUBIC)
    orb = cv2.ORB.create(limit, _ORB_SCALE_FACTOR, _ORB_LEVELS, fastThreshold=_ORB_FAST_THRESHOLD)
    keypoints, descriptors = orb.detectAndCompute(large, None)
    xy, size, angle, response, described = _unpack(keypoints, descriptors, width=32)
    # ORB rounds the size of each level, in float32, but scales its keypoints back by the nominal factor and without the
    # half pixel: up to 1.5 pixels beside the place at the top.
    factor = float(np.float32(_ORB_SCALE_FACTOR))
    nominal = (factor ** np.arange(_ORB_LEVELS)).astype(np.float32)[:, None]
    full_size = np.array(large.shape[::-1], np.float32)
    actual = full_size / np.rint(full_size * (1 / nominal))
    level = [keypoint.octave for keypoint in keypoints]
    xy = rescale_points(xy / nominal[level], actual[level])
    return rescale_points(xy, 1 / _ORB_UPSAMPLING), size / _ORB_UPSAMPLING, angle, response, described


def _unpack(keypoints: Sequence[cv2.KeyPoint], descriptors: npt.NDArray[Any] | None, *, width: int) -> _Raw:
    table = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], float).reshape(-1, 5)
    described = np.zeros((0, width), np.uint8) if descriptors is None else descriptors.astype(np.uint8, copy=False)
    return table[:, :2], table[:, 2], table[:, 3], table[:, 4], described
