"""What a stitcher makes of a few photos, and how good that is.

A stitcher is a command that prints records as `featkit stitch --json` does. Three measures, none of which asks what the
stitcher itself thinks: registration against known cameras; the distance between matches that are found here, and that
no stitcher has been given; and the picture against the panorama that the views were rendered from.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

Points = npt.NDArray[np.float64]
Image = Mapping[str, Any]


# --- a run


@dataclass(frozen=True)
class Run:
    """A whole process. panoramas: the records, largest first. seconds and cpu_seconds: wall and processor time."""

    panoramas: list[dict[str, Any]]
    left_out: list[dict[str, Any]]
    status: int
    seconds: float
    cpu_seconds: float

    @property
    def images(self) -> list[dict[str, Any]]:
        """The photos of the largest panorama."""
        return self.panoramas[0]["images"] if self.panoramas else []


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    panoramas = [record for record in records if record["type"] == "panorama"]
    return Run(
        sorted(panoramas, key=lambda record: -len(record["images"])),
        [record for record in records if record["type"] == "left_out"],
        done.returncode,
        end - start,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


# --- where a record's photos look


def _lens(image: Image) -> tuple[Points, float, Points]:
    """Centre and focal length in pixels, and the coefficients c0 … of the lens: what is r focal lengths from the centre
    without distortion is seen at r (c0 + c1 r + c2 r² + …)."""
    centre = image.get("centre", [(side - 1) / 2 for side in image["size"]])
    k1, k2 = image.get("distortion") or (0.0, 0.0)
    return np.array(centre), image.get("focal_px") or 1.0, np.array(image.get("radial", [1.0, 0.0, k1, 0.0, k2]))


def lift(image: Image, xy: Points) -> Points:
    """Pixels N×2 to N×3: viewing rays of any length, or homogeneous points of the plane."""
    centre, focal, lens = _lens(image)
    if lens[1:].any() or lens[0] != 1:
        seen = np.linalg.norm(xy - centre, axis=1) / focal
        curve = np.polynomial.Polynomial([0, *lens])
        plain = seen.copy()
        for _ in range(20):
            plain -= (curve(plain) - seen) / curve.deriv()(plain)
        xy = centre + (xy - centre) * (plain / np.maximum(seen, 1e-12))[:, None]
    world: Points = np.column_stack([xy, np.ones(len(xy))]) @ np.array(image["to_world"], float).T
    return world


def project(image: Image, world: Points) -> Points:
    """The way back: N×3 to pixels N×2."""
    centre, focal, lens = _lens(image)
    flat = world @ np.linalg.inv(np.array(image["to_world"], float)).T
    off = flat[:, :2] / flat[:, 2:] - centre
    seen: Points = centre + off * np.polynomial.Polynomial(lens)(np.linalg.norm(off, axis=1) / focal)[:, None]
    return seen


def angles(a: Points, b: Points) -> Points:
    """Radians between rays N×3 of any length; exact for small angles."""
    found: Points = np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1))
    return found


# --- against known cameras

_GRID = (24, 18)
_GRID_INSET_PX = 5
_LEAST_OVERLAP = 0.08


def registration_error(images: Sequence[Image], truth: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """(RMS over all points, the largest RMS of a pair), in pixels of the second photo of each pair.

    truth: by file name, K (3×3) and R (3×3, camera to world). A grid over each photo is carried into every other by the
    true cameras, where they share 8 % of it or more; what the record says of the two ends differs by an angle, which
    counts with the true focal length."""
    cameras = [truth[Path(image["path"]).name] for image in images]
    squares = []
    for (first, a), (second, b) in itertools.permutations(zip(images, cameras, strict=True), 2):
        width, height = first["size"]
        inset = _GRID_INSET_PX
        sides = (
            np.linspace(inset, side - 1 - inset, count) for side, count in zip((width, height), _GRID, strict=True)
        )
        xy = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
        world = np.column_stack([xy, np.ones(len(xy))]) @ (np.array(a["R"]) @ np.linalg.inv(a["K"])).T
        there = world @ np.array(b["R"]) @ np.array(b["K"]).T
        ahead = there[:, 2] > 0.05
        there = there[:, :2] / there[:, 2:]
        shared = ahead & ((there >= 0) & (there <= np.array(second["size"]) - 1)).all(1)
        if shared.mean() >= _LEAST_OVERLAP:
            apart = angles(lift(first, xy[shared]), lift(second, there[shared]))
            squares.append((apart * b["K"][0][0]) ** 2)
    if not squares:
        return float("inf"), float("inf")
    return float(np.sqrt(np.concatenate(squares).mean())), max(float(np.sqrt(each.mean())) for each in squares)


# --- against matches that nobody has seen

_MOST_KEYPOINTS = 8000
_RATIO = 0.8
_GATE_PX = 5.0


@dataclass(frozen=True)
class Tied:
    """Two photos' paths, and the matches between them: a and b, N×2 pixels."""

    paths: tuple[str, str]
    a: Points
    b: Points


def keypoints(pixels: npt.NDArray[np.uint8], most: int = _MOST_KEYPOINTS) -> tuple[Points, npt.NDArray[np.float32]]:
    """The strongest SIFT keypoints of a picture at full size: N×2 pixels, and N×128 RootSIFT descriptors."""
    found, described = cv2.SIFT.create(most).detectAndCompute(pixels, None)
    if described is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    rooted = np.sqrt(described / np.maximum(described.sum(1, keepdims=True), 1e-9))
    return np.array([keypoint.pt for keypoint in found], float), rooted


def mutual(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of unit vectors a and b that are each other's nearest, nearer than .8 of the way to the second."""
    if min(len(a), len(b)) < 2:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    likeness = a @ b.T
    nearest = likeness.argmax(1)
    two = -np.partition(-likeness, 1, axis=1)[:, :2]
    first, second = np.sqrt(np.maximum(2 - 2 * two, 0)).T
    kept = np.flatnonzero((likeness.argmax(0)[nearest] == np.arange(len(a))) & (first < _RATIO * second))
    return kept, nearest[kept]


def independent_matches(photos: Sequence[str]) -> list[Tied]:
    """Of every two photos that belong together: what follows one homography within 5 pixels, if that is more than
    8 + .3 of the matches (Brown and Lowe 2007). Loose, so that neither parallax nor a lens is hidden; medians stay the
    same within a twentieth for gates from 5 to 15 pixels, the RMS does not."""
    described = [keypoints(cv2.imread(photo, cv2.IMREAD_GRAYSCALE)) for photo in photos]
    pairs = []
    for (first, (xy_a, a)), (second, (xy_b, b)) in itertools.combinations(zip(photos, described, strict=True), 2):
        left, right = mutual(a, b)
        if len(left) < 8:
            continue
        cv2.setRNGSeed(0)
        _, inside = cv2.findHomography(xy_a[left], xy_b[right], cv2.RANSAC, _GATE_PX, maxIters=5000)
        if inside is not None and inside.sum() > 8 + 0.3 * len(left):
            kept = inside.ravel() > 0
            pairs.append(Tied((first, second), xy_a[left][kept], xy_b[right][kept]))
    return pairs


def match_errors(images: Sequence[Image], pairs: Sequence[Tied]) -> Points:
    """Pixels of the second photo between each match's ends, of the pairs of which both photos were placed."""
    of = {image["path"]: image for image in images}
    errors = [
        np.linalg.norm(project(of[pair.paths[1]], lift(of[pair.paths[0]], pair.a)) - pair.b, axis=1)
        for pair in pairs
        if all(path in of for path in pair.paths)
    ]
    return np.concatenate(errors) if errors else np.array([np.inf])


# --- against the panorama that the views were rendered from

_ROUNDS = 3
_NEAR_PX = 5.0
_MARGIN_PX = 3


@dataclass(frozen=True)
class Sphere:
    """A spherical panorama: pixel (x, y) shows longitude (x - origin x) / scale, and y down latitude."""

    scale: float
    origin: tuple[float, float]

    def rays(self, xy: Points) -> Points:
        longitude, latitude = ((xy - self.origin) / self.scale).T
        return np.stack(
            [np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)], axis=1
        )

    def pixels(self, rays: Points) -> Points:
        longitude = np.arctan2(rays[:, 0], rays[:, 2])
        latitude = np.arctan2(rays[:, 1], np.hypot(rays[:, 0], rays[:, 2]))
        return np.stack([longitude, latitude], axis=1) * self.scale + self.origin


def full_circle(pixels: npt.NDArray[np.uint8]) -> Sphere:
    """Of a picture of 360°: the middle of its sides, counted from their edge, is straight ahead."""
    height, width = pixels.shape[:2]
    return Sphere(width / (2 * np.pi), (width / 2, height / 2))


def fitted_sphere(xy: Points, rays: Points, scale: float) -> tuple[Sphere, Rotation]:
    """The scale, the origin's height and the rotation with which a spherical panorama's pixels xy show rays N×3.

    scale, of the picture that the rays are of, makes pixels out of angles. The start: most of the panorama is the
    other one shifted and scaled."""
    other = Sphere(scale, (0.0, 0.0)).pixels(rays)
    similar, inside = cv2.estimateAffinePartial2D(xy, other, method=cv2.RANSAC, ransacReprojThreshold=30)
    ratio = np.hypot(similar[0, 0], similar[1, 0])
    ahead = float(np.median(xy[:, 0]))
    turn = (similar[0] @ [ahead, -similar[1, 2] / ratio, 1]) / scale
    parameters = np.array([0.0, turn, 0.0, 0.0, -similar[1, 2] / ratio])
    kept = inside.ravel() > 0

    def unpacked(values: Points) -> tuple[Sphere, Rotation]:
        return Sphere(scale / ratio * float(np.exp(values[3])), (ahead, values[4])), Rotation.from_rotvec(values[:3])

    def residuals(values: Points, chosen: npt.NDArray[np.bool_]) -> Points:
        sphere, rotation = unpacked(values)
        return (scale * (rotation.apply(sphere.rays(xy[chosen])) - rays[chosen])).ravel()

    for _ in range(_ROUNDS):
        fit = least_squares(residuals, parameters, args=(kept,), loss="soft_l1", x_scale=[1e-3, 1e-3, 1e-3, 1e-3, 1.0])
        parameters = fit.x
        distance = np.linalg.norm(residuals(parameters, np.ones(len(xy), bool)).reshape(-1, 3), axis=1)
        kept = distance < _NEAR_PX
    return unpacked(parameters)


def _without_border(panorama: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """1 where the panorama shows a photo, 3 pixels inside its edge: by its alpha, or by what is not black."""
    if panorama.shape[2] == 4:
        shown = (panorama[..., 3] == 255).astype(np.uint8)
    else:
        shown = cv2.morphologyEx((panorama > 0).any(2).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    framed = cv2.copyMakeBorder(shown, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=_MARGIN_PX)[1:-1, 1:-1]


def picture_psnr(panorama_path: str, truth_path: str) -> float:
    """Decibels between a spherical panorama and the true one, on the true one's pixels.

    The panorama is turned and scaled as matches between the two say (least squares), resampled (Lanczos), and its
    colours are sent through one affine map, 3×4, the best for this picture."""
    panorama, truth = cv2.imread(panorama_path, cv2.IMREAD_UNCHANGED), cv2.imread(truth_path)
    shown, colours = _without_border(panorama), np.ascontiguousarray(panorama[..., :3])
    (xy, described), (true_xy, true_described) = (
        keypoints(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)) for picture in (colours, truth)
    )
    left, right = mutual(described, true_described)
    world = full_circle(truth)
    sphere, rotation = fitted_sphere(xy[left], world.rays(true_xy[right]), world.scale)
    warped, inside = np.empty_like(truth), np.empty(truth.shape[:2], bool)
    for row in range(len(truth)):
        line = np.column_stack([np.arange(truth.shape[1]), np.full(truth.shape[1], row)]).astype(float)
        at = sphere.pixels(rotation.inv().apply(world.rays(line))).astype(np.float32)
        warped[row] = cv2.remap(colours, at[None], None, cv2.INTER_LANCZOS4)[0]
        inside[row] = cv2.remap(shown, at[None], None, cv2.INTER_NEAREST)[0] > 0
    return mapped_psnr(warped[inside], truth[inside])


def mapped_psnr(colours: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> float:
    """PSNR in decibels of N×3 colours after the affine map that is best for them."""
    extended = np.column_stack([colours, np.ones(len(colours))])
    square = extended.T @ extended
    mapping = np.linalg.solve(square, extended.T @ wanted.astype(float))
    error = np.clip(extended @ mapping, 0, 255) - wanted
    return float(10 * np.log10(255**2 / (error**2).mean()))
