"""Keypoints and descriptors of one picture: SIFT, ORB, and the learned ones where that extra is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.images import rescale_points, resize, scale_to_fit, to_gray
from featkit.local import learned
from featkit.opencv import cv2

#: Raise when the same picture and configuration would give other features: it is part of the cache key.
VERSION = 3

DETECTORS = ("sift", "orb", "affine-sift", *learned.DETECTORS)
#: Detector -> width and dtype of its descriptors.
DESCRIPTORS = {
    "sift": (128, "uint8"),
    "orb": (32, "uint8"),
    "affine-sift": (128, "uint8"),
    **dict.fromkeys(learned.DETECTORS, (learned.DESCRIPTOR_WIDTH, "float16")),
}
DEFAULT_KEYPOINTS = {"sift": 8_000, "orb": 10_000, "affine-sift": 20_000, "aliked": 2_048, "disk": 2_048}

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

# Views that affine SIFT (Morel & Yu 2009) adds: compressed by these tilts, along directions this many degrees apart
# (over the tilt). Twice as many tilts, √2 apart up to 4√2, solved no more of 27 photos compressed by 4.5 to 9, and took
# twice as long.
_AFFINE_TILTS = (2, 4)
_AFFINE_DEGREES = 72
_AFFINE_KEYPOINTS_PER_VIEW = 3_000
# Sixteen views take thirteen times as long as one.
_AFFINE_LONGEST_SIDE = 1600

# ORB places keypoints on whole pixels; looking at twice the size halves that error.
_ORB_UPSAMPLING = 2.0
# Half of OpenCV's default: on soft pictures 20 finds too little. Measured on exact warps: AUC@1 60 -> 73.
_ORB_FAST_THRESHOLD = 10
_ORB_SCALE_FACTOR = 1.2
_ORB_LEVELS = 8
# OpenCV's masks of smaller levels lose up to a pixel of each level at their edges: 1 + 1.2 + … + 1.2⁷ in all.
_ORB_MASK_MARGIN = 24
# So many that OpenCV keeps all keypoints of a masked picture.
_ORB_NO_LIMIT = 10**8


@dataclass(frozen=True)
class DetectorConfig:
    """What to look for. `max_keypoints` None is the detector's own default. `max_side`: pictures are looked at reduced
    to this longest side, 0 for the full size. The default, COLMAP's own, keeps SIFT of any photo below 2 GB of memory;
    24 megapixels at full size take 6 GB. ALIKED and DISK, an extra, never look at more than the 1024 pixels that they
    were trained for. Raises UsageError for values that make no sense, DependencyError where the extra is missing."""

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
        if self.detector in learned.DETECTORS:
            learned.require(self.detector)

    @property
    def keypoint_limit(self) -> int:
        return self.max_keypoints or DEFAULT_KEYPOINTS[self.detector]


@dataclass(frozen=True)
class Features:
    """Local features of one picture, strongest first.

    xy: float32 N×2, pixels of the full-size upright picture, centre of the top-left pixel = (0, 0).
    size: float32 N, diameter of the described neighbourhood in the same pixels.
    angle: float32 N, degrees in [0, 360); 0 for ALIKED and DISK, which have none.
    descriptors: uint8 N×128 (SIFT and affine SIFT, 0..255), uint8 N×32 (ORB, 256 packed bits) or float16 N×128 of unit
    length (ALIKED, DISK).
    image_size: (width, height) of the full-size upright picture.
    detector: what found them, one of DETECTORS.
    """

    xy: npt.NDArray[np.float32]
    size: npt.NDArray[np.float32]
    angle: npt.NDArray[np.float32]
    descriptors: npt.NDArray[Any]
    image_size: tuple[int, int]
    detector: str

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def has_sift_descriptors(self) -> bool:
        """Whether they are gradient histograms, to be compared as RootSIFT."""
        return self.detector in ("sift", "affine-sift")

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same as named arrays, for the cache."""
        return {
            "xy": self.xy,
            "size": self.size,
            "angle": self.angle,
            "descriptors": self.descriptors,
            "image_size": np.array(self.image_size, np.int64),
            "detector": np.array(self.detector),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Features:
        """The inverse of `to_arrays`; KeyError where an array is missing."""
        width, height = (int(v) for v in arrays["image_size"])
        return Features(
            arrays["xy"].astype(np.float32, copy=False),
            arrays["size"].astype(np.float32, copy=False),
            arrays["angle"].astype(np.float32, copy=False),
            arrays["descriptors"],
            (width, height),
            str(arrays["detector"]),
        )


def detect(
    pixels: npt.NDArray[np.uint8], config: DetectorConfig | None = None, mask: npt.NDArray[np.bool_] | None = None
) -> Features:
    """Find and describe keypoints.

    pixels: uint8 H×W×3 RGB, upright. mask: bool H×W, True where to look: a keypoint counts if its nearest pixel does.
    Returns at most `config.keypoint_limit` features, none for a picture without texture. SIFT: Lowe 2004; ORB: Rublee
    et al. 2011; both OpenCV's, with its coordinate offsets taken out. ALIKED, DISK: see learned.py.
    """
    config = config or DetectorConfig()
    height, width = pixels.shape[:2]
    scale = _looked_at_scale((width, height), config)
    looked_at = pixels if scale == 1 else resize(pixels, scale)
    wanted = _Wanted(mask, scale)
    if config.detector in learned.DETECTORS:
        xy, size, angle, response, descriptors = _detect_learned(looked_at, config, wanted)
    else:
        maker = {"sift": _detect_sift, "affine-sift": _detect_affine_sift, "orb": _detect_orb}[config.detector]
        xy, size, angle, response, descriptors = maker(to_gray(looked_at), config.keypoint_limit, wanted)
    kept = np.flatnonzero(wanted.includes(xy))
    # The strongest first; equal responses in reading order, so that the result does not depend on OpenCV's threads.
    order = np.lexsort((angle[kept], size[kept], xy[kept, 0], xy[kept, 1], -response[kept]))[: config.keypoint_limit]
    kept = kept[order]
    return Features(
        rescale_points(xy[kept], 1 / scale).astype(np.float32),
        (size[kept] / scale).astype(np.float32),
        angle[kept].astype(np.float32),
        descriptors[kept],
        (width, height),
        config.detector,
    )


def weights_digest(detector: str) -> str:
    """What a cached result of `detect` depends on besides VERSION, OpenCV and the configuration; SIFT and ORB: ""."""
    return learned.weights_digest(detector) if detector in learned.DETECTORS else ""


def _looked_at_scale(size: tuple[int, int], config: DetectorConfig) -> float:
    if config.detector == "affine-sift":
        return scale_to_fit(size, min(config.max_side or _AFFINE_LONGEST_SIDE, _AFFINE_LONGEST_SIDE))
    if config.detector not in learned.DETECTORS:
        return scale_to_fit(size, config.max_side or None)
    longest_side = min(config.max_side or learned.LONGEST_SIDE, learned.LONGEST_SIDE)
    return min(longest_side / max(size), learned.LARGEST_SCALE)


@dataclass(frozen=True)
class _Wanted:
    """Which keypoints count, by their places in the looked-at picture: `scale` times the size of the mask."""

    mask: npt.NDArray[np.bool_] | None
    scale: float

    def includes(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """bool N from N×2 pixels of the looked-at picture."""
        if self.mask is None:
            return np.ones(len(xy), bool)
        # As the features will have them, in float32.
        nearest = np.floor(rescale_points(xy, 1 / self.scale).astype(np.float32) + np.float32(0.5)).astype(np.int64)
        height, width = self.mask.shape
        column, row = np.clip(nearest, 0, (width - 1, height - 1)).T
        return np.asarray(self.mask[row, column])

    def surroundings(self, shape: tuple[int, int], margin: int) -> npt.NDArray[np.uint8] | None:
        """uint8 H×W of that shape: 255 wherever a wanted pixel is at most `margin` pixels away."""
        if self.mask is None:
            return None
        enlarged = cv2.resize(self.mask.astype(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_AREA)
        around = cv2.dilate(enlarged, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
        return np.where(around, np.uint8(255), np.uint8(0))


_Raw = tuple[
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[Any],
]


def _detect_sift(gray: npt.NDArray[np.uint8], limit: int, wanted: _Wanted) -> _Raw:
    if min(gray.shape) < _SIFT_SMALLEST_SIDE:
        return _unpack([], None, width=128)
    large = gray.size > _LARGE_PICTURE_PIXELS
    if not large and wanted.mask is None:
        keypoints, described = _sift(limit).detectAndCompute(gray, None)
    else:
        # Not by OpenCV's own mask, which it applies to the strongest of the whole picture.
        found = _sift(0).detect(gray, None)
        included = wanted.includes(np.array([k.pt for k in found], float).reshape(-1, 2) + _SIFT_SHIFT)
        found = [keypoint for keypoint, counts in zip(found, included, strict=True) if counts]
        found = sorted(found, key=lambda k: (-k.response * (k.size if large else 1), k.pt, k.angle))[:limit]
        keypoints, described = _sift(0).compute(gray, found)
    xy, size, angle, response, descriptors = _unpack(keypoints, described, width=128)
    return xy + _SIFT_SHIFT, size, angle, response, descriptors


def _detect_affine_sift(gray: npt.NDArray[np.uint8], limit: int, wanted: _Wanted) -> _Raw:
    if min(gray.shape) < _SIFT_SMALLEST_SIDE:
        return _unpack([], None, width=128)
    tilts, directions = [1.0], [0.0]
    for tilt in _AFFINE_TILTS:
        along = np.arange(0, 180, _AFFINE_DEGREES / tilt).tolist()
        tilts += [float(tilt)] * len(along)
        directions += along
    views = cv2.AffineFeature.create(_sift(_AFFINE_KEYPOINTS_PER_VIEW))
    views.setViewParams(tilts, directions)
    xy, size, angle, response, descriptors = _unpack(*views.detectAndCompute(gray, None), width=128)
    xy += _SIFT_SHIFT
    # A keypoint at the edge of a turned view may lie a few pixels beside the picture.
    inside = ((xy >= -0.5) & (xy <= np.array(gray.shape[::-1]) - 0.5)).all(1)
    return xy[inside], size[inside], angle[inside], response[inside], descriptors[inside]


def _sift(limit: int) -> cv2.SIFT:
    return cv2.SIFT.create(limit, 3, _SIFT_CONTRAST, 10.0, 1.6, cv2.CV_8U)


def _detect_learned(pixels: npt.NDArray[np.uint8], config: DetectorConfig, wanted: _Wanted) -> _Raw:
    xy, score, descriptors = learned.detect(pixels, config.detector, config.keypoint_limit, wanted.includes)
    return xy, np.full(len(xy), learned.WINDOW, np.float64), np.zeros(len(xy)), score, descriptors


def _detect_orb(gray: npt.NDArray[np.uint8], limit: int, wanted: _Wanted) -> _Raw:
    large = cv2.resize(gray, None, fx=_ORB_UPSAMPLING, fy=_ORB_UPSAMPLING, interpolation=cv2.INTER_CUBIC)
    kept = limit if wanted.mask is None else _ORB_NO_LIMIT
    orb = cv2.ORB.create(kept, _ORB_SCALE_FACTOR, _ORB_LEVELS, fastThreshold=_ORB_FAST_THRESHOLD)
    keypoints, descriptors = orb.detectAndCompute(large, wanted.surroundings(large.shape, _ORB_MASK_MARGIN))
    xy, size, angle, response, described = _unpack(keypoints, descriptors, width=32)
    # ORB rounds the size of each level, in float32, but scales its keypoints back by the nominal factor and without the
    # half pixel: up to 1.5 pixels beside the place at the top.
    factor = float(np.float32(_ORB_SCALE_FACTOR))
    nominal = (factor ** np.arange(_ORB_LEVELS)).astype(np.float32)[:, None]
    full_size = np.array(large.shape[::-1], np.float32)
    actual = full_size / np.rint(full_size * (1 / nominal))
    level = np.array([keypoint.octave for keypoint in keypoints], int)
    xy = rescale_points(rescale_points(xy / nominal[level], actual[level]), 1 / _ORB_UPSAMPLING)
    size = size / _ORB_UPSAMPLING
    if wanted.mask is None:
        return xy, size, angle, response, described
    chosen = np.flatnonzero(wanted.includes(xy))
    chosen = chosen[_strongest_of_each_level(level[chosen], response[chosen], limit)]
    return xy[chosen], size[chosen], angle[chosen], response[chosen], described[chosen]


def _strongest_of_each_level(
    level: npt.NDArray[np.int64], response: npt.NDArray[np.float64], limit: int
) -> npt.NDArray[np.int64]:
    """Rows of `limit` keypoints, as many of each level as OpenCV allots it: by its width."""
    shares = _ORB_SCALE_FACTOR ** -np.arange(_ORB_LEVELS, dtype=float)
    allotted = np.rint(limit * shares / shares.sum()).astype(int)
    allotted[-1] = max(limit - allotted[:-1].sum(), 0)
    order = np.argsort(-response, kind="stable")
    return np.concatenate([order[level[order] == each][: allotted[each]] for each in range(_ORB_LEVELS)])


def _unpack(keypoints: Sequence[cv2.KeyPoint], descriptors: npt.NDArray[Any] | None, *, width: int) -> _Raw:
    table = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], float).reshape(-1, 5)
    described = np.zeros((0, width), np.uint8) if descriptors is None else descriptors.astype(np.uint8, copy=False)
    return table[:, :2], table[:, 2], table[:, 3], table[:, 4], described
