"""The features of one picture: from the cache, or detected."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from featkit import images
from featkit.cache import Cache, make_key
from featkit.images import DecodeOptions, Pixels
from featkit.local import features as local_features
from featkit.local.features import DetectorConfig, Features, detect
from featkit.local.subjects import Where
from featkit.opencv import cv2


def describe(
    data: bytes,
    content: str,
    detection: DetectorConfig,
    decode: DecodeOptions,
    cache: Cache,
    *,
    path: str,
    where: Where | None = None,
) -> tuple[Features, Pixels | None]:
    """The features of a picture file's bytes, and the pixels, None where the features were in the cache.

    content: a digest of the bytes and of `where`. Raises what `images.decode` and `detect` raise.
    """
    key = make_key(
        content=[content],
        operation="local-features",
        version=local_features.VERSION,
        config=detection_key(detection, decode),
        libraries={"opencv": cv2.__version__},
    )
    stored = cache.get(key)
    if stored is not None:
        return Features.from_arrays(stored), None
    pixels = images.decode(data, decode, path=path)
    mask = None if where is None else where.mask(images.size_of(pixels))
    found = detect(pixels, detection, mask)
    cache.put(key, found.to_arrays())
    return found, pixels


def detection_key(detection: DetectorConfig, decode: DecodeOptions) -> dict[str, Any]:
    """What features depend on beside the picture."""
    return {
        "detector": detection.detector,
        "weights": local_features.weights_digest(detection.detector),
        "keypoint_limit": detection.keypoint_limit,
        "max_side": detection.max_side,
        "decode": asdict(decode),
    }
