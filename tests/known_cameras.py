"""Cameras that are known, and what they see of the same places: numbers, no pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featkit.stitching.adjustment import Edge
from featkit.stitching.ties import Correspondences
from featkit.stitching.views import View

SIZE = (640, 480)


def turned(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """3×3, camera to world (x right, y down, z ahead), degrees: to the right, upwards, and clockwise about the axis."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in np.radians([yaw, pitch, roll]))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def camera(
    rotation: np.ndarray,
    focal_px: float = 600.0,
    size: tuple[int, int] = SIZE,
    distortion: tuple[float, float] = (0.0, 0.0),
    axis: tuple[float, float] = (0.0, 0.0),
) -> View:
    """axis: where the optical axis meets the picture, from its centre, pixels."""
    x, y = (np.array(size) - 1) / 2 + axis
    inverse = np.linalg.inv([[focal_px, 0, x], [0, focal_px, y], [0, 0, 1]])
    return View(size, rotation @ inverse, focal_px, distortion)


def sheet(family: str, random: np.random.Generator, x: float, y: float, size: tuple[int, int] = SIZE) -> View:
    """A photo of a plane, its centre at x, y: turned by up to 17°, up to 10 % nearer or farther, and stretched, sheared
    and seen aside as far as the family ("similarity", "affine" or "homography") goes."""
    turn, scale = random.uniform(-0.3, 0.3), random.uniform(0.9, 1.1)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1 / scale]])
    if family != "similarity":
        matrix = matrix @ [[1, random.uniform(-0.05, 0.05), 0], [0, random.uniform(0.95, 1.05), 0], [0, 0, 1]]
    if family == "homography":
        matrix = matrix @ [[1, 0, 0], [0, 1, 0], [*random.uniform(-5e-5, 5e-5, 2), 1]]
    centre = (np.array(size) - 1) / 2
    about_centre = [[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]]
    return View(size, np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ matrix @ about_centre)


def colours(world: np.ndarray) -> np.ndarray:
    """uint8 N×3: what lies in these directions, in a world that is smooth and of another colour everywhere."""
    rays = world / np.linalg.norm(world, axis=1, keepdims=True)
    waves = np.array([[11.0, 5, -3], [-4, 13, 6], [7, -5, 12]])
    return np.rint(128 + 80 * np.sin(rays @ waves.T + [0, 1, 2])).astype(np.uint8)


def picture(view: View) -> np.ndarray:
    """uint8 H×W×3: what a camera sees of that world."""
    width, height = view.size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    seen = colours(view.lift(np.stack([x.ravel(), y.ravel()], 1).astype(float)))
    return seen.reshape(height, width, 3)


def inside(xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool N: which points lie in a picture."""
    return np.asarray(((xy >= 0) & (xy <= np.array(size) - 1)).all(1))


def pixels(size: tuple[int, int], count: int, random: np.random.Generator) -> np.ndarray:
    return random.uniform((0, 0), np.array(size) - 1.0, (count, 2))


def seen_by_both(
    a: View, b: View, random: np.random.Generator, *, count: int = 120, noise: float = 0.0, wrong: float = 0.0
) -> Correspondences:
    """count: of matches, fewer where the overlap is small. noise: standard deviation in b, pixels an axis. wrong: share
    of the matches that lie anywhere in b."""
    xy_a = pixels(a.size, 20 * count, random)
    xy_b = b.project(a.lift(xy_a))
    shared = np.flatnonzero(inside(xy_b, b.size))[:count]
    xy_a, xy_b = xy_a[shared], xy_b[shared] + random.normal(0, noise, (len(shared), 2))
    bad = random.random(len(xy_b)) < wrong
    xy_b[bad] = pixels(b.size, int(bad.sum()), random)
    variance = max(noise, 0.01) ** 2
    return Correspondences(xy_a, xy_b, np.tile(variance * np.eye(2), (len(xy_b), 1, 1)))


def edges_between(
    views: Sequence[View],
    pairs: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    count: int = 120,
    noise: float = 0.0,
    wrong: float = 0.0,
) -> list[Edge]:
    """What ties those pairs of photos together; the matches held out have as much noise, and none is wrong."""
    random = np.random.default_rng(seed)
    return [
        Edge(
            a,
            b,
            seen_by_both(views[a], views[b], random, count=count, noise=noise, wrong=wrong),
            seen_by_both(views[a], views[b], random, count=count // 4, noise=noise),
        )
        for a, b in pairs
    ]


def overlapping(views: Sequence[View], least: float = 0.1) -> list[tuple[int, int]]:
    """Pairs of which the second shows at least this share of the first."""
    random = np.random.default_rng(0)
    found = []
    for a, first in enumerate(views):
        for b in range(a + 1, len(views)):
            share = inside(views[b].project(first.lift(pixels(first.size, 400, random))), views[b].size).mean()
            if share >= least:
                found.append((a, b))
    return found
