"""Which surface the panorama is drawn on, how large, and where on it each photo lies.

The surface's coordinates u, v are in radians, or lengths on a plane one unit ahead, and 0, 0 straight ahead; the canvas
has `pixels_per_radian` of them a unit, and its pixel `origin` is that point. World axes: x right, y down, z ahead. In
the planar model the world is the plane already, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.stitching.views import Matrix, Points, View

_Map = Callable[[Points], Points]

# Rectilinear pictures look natural up to about here, degrees; a cylinder stretches beyond this elevation.
_WIDEST_PLANAR = 85.0
_HIGHEST_PLANAR = 40.0
_HIGHEST_CYLINDRICAL = 42.0
# What lies beyond is cut off: there the surface would have to be endless. Coordinates of the surface.
_LARGEST_PLANAR = 4.0
_LARGEST_LATITUDE = np.radians(80.0)
_LARGEST_STEREOGRAPHIC = 8.0
_SMALLEST_DEPTH = 1e-3
# Points along each side of a photo by which its outline is found, and of a grid inside it, for what is cut off.
_OUTLINE = 257
_INSIDE = 33
# Pixels beyond a photo: a pole so near is as good as in it, for there the outline turns faster than its points tell.
_POLE_MARGIN = 2.0
# A gap of this many radians and less in a full circle is a crack that no one would cut the circle at.
_SMALLEST_GAP = 1e-3
# How much the upright axes of the photos count against their level ones: enough to decide where the camera did not
# turn.
_UPRIGHT_SHARE = 0.002
LARGEST_CANVAS_SIDE = 1_000_000


@dataclass(frozen=True)
class Projection:
    """to_surface: rays N×3 to u, v N×2, NaN where it has no place. to_rays: back, NaN beyond the surface (not beyond a
    pole). periodic: whether u and u + 2π are the same place."""

    name: str
    to_surface: _Map
    to_rays: _Map
    periodic: bool


@dataclass(frozen=True)
class Region:
    """Of the canvas, whole pixels; x may lie beyond the canvas where that is a full circle."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def shifted(self, x: int) -> Region:
        return replace(self, x=self.x + x)

    def common(self, other: Region) -> Region:
        """What both cover; its width or height is 0 or less where they do not meet."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Region(x, y, min(self.right, other.right) - x, min(self.bottom, other.bottom) - y)

    def __bool__(self) -> bool:
        return self.width > 0 and self.height > 0


@dataclass(frozen=True)
class Layout:
    """size: (width, height) of the canvas. origin: (x, y) of u = v = 0 on it. regions: of each photo. period: the width
    where the canvas is a full circle, else None."""

    projection: Projection
    pixels_per_radian: float
    origin: tuple[float, float]
    size: tuple[int, int]
    regions: list[Region]
    period: int | None

    def rays(self, xy: Points) -> Points:
        """float64 N×2 pixels of the canvas to N×3 world points."""
        return self.projection.to_rays((xy - self.origin) / self.pixels_per_radian)

    def place(self, world: Points) -> Points:
        """float64 N×3 world points to N×2 pixels of the canvas; on a circle, of the turn around the middle."""
        return np.asarray(self.projection.to_surface(world) * self.pixels_per_radian + self.origin)

    def scaled(self, scale: float) -> Layout:
        """The same canvas with more or fewer pixels."""
        if self.period is not None:
            scale = max(round(self.period * scale), 1) / self.period
        x, y = ((value + 0.5) * scale - 0.5 for value in self.origin)
        regions = [_whole(np.array([r.x, r.y]) * scale, np.array([r.right, r.bottom]) * scale) for r in self.regions]
        size = _whole(np.zeros(2), np.array(self.size) * scale)
        return Layout(
            self.projection,
            self.pixels_per_radian * scale,
            (x, y),
            (size.width, size.height),
            regions,
            None if self.period is None else size.width,
        )


def _whole(low: Points, high: Points) -> Region:
    x, y = np.floor(low + 1e-6).astype(int)
    right, bottom = np.ceil(high - 1e-6).astype(int)
    return Region(int(x), int(y), int(max(right - x, 1)), int(max(bottom - y, 1)))


# --- surfaces


def _planar(rays: Points) -> Points:
    depth = np.where(rays[:, 2] > _SMALLEST_DEPTH * np.linalg.norm(rays, axis=1), rays[:, 2], np.nan)
    uv = rays[:, :2] / depth[:, None]
    return _within(uv, np.abs(uv).max(1) <= _LARGEST_PLANAR)


def _from_planar(uv: Points) -> Points:
    return np.column_stack([uv, np.ones(len(uv))])


def _angles(rays: Points) -> tuple[Points, Points]:
    return np.arctan2(rays[:, 0], rays[:, 2]), np.arctan2(rays[:, 1], np.hypot(rays[:, 0], rays[:, 2]))


def _from_angles(longitude: Points, latitude: Points) -> Points:
    level = np.cos(latitude)
    return np.column_stack([np.sin(longitude) * level, np.sin(latitude), np.cos(longitude) * level])


def _spherical(rays: Points) -> Points:
    return np.column_stack(_angles(rays))


def _from_spherical(uv: Points) -> Points:
    # Over the poles and down the other side: pixels at a pole are interpolated between this one and that.
    return _from_angles(uv[:, 0], uv[:, 1])


def _cylindrical(rays: Points) -> Points:
    longitude, latitude = _angles(rays)
    return _within(np.column_stack([longitude, np.tan(latitude)]), np.abs(latitude) <= _LARGEST_LATITUDE)


def _from_cylindrical(uv: Points) -> Points:
    return _from_angles(uv[:, 0], np.arctan(uv[:, 1]))


def _mercator(rays: Points) -> Points:
    longitude, latitude = _angles(rays)
    return _within(np.column_stack([longitude, np.arcsinh(np.tan(latitude))]), np.abs(latitude) <= _LARGEST_LATITUDE)


def _from_mercator(uv: Points) -> Points:
    return _from_angles(uv[:, 0], np.arctan(np.sinh(uv[:, 1])))


def _stereographic(rays: Points) -> Points:
    length = np.linalg.norm(rays, axis=1)
    depth = length + rays[:, 2]
    uv = 2 * rays[:, :2] / np.maximum(depth, 1e-9 * length)[:, None]
    return _within(uv, (depth > 1e-9 * length) & (np.abs(uv).max(1) <= _LARGEST_STEREOGRAPHIC))


def _from_stereographic(uv: Points) -> Points:
    square = (uv**2).sum(1) / 4
    return np.column_stack([uv, 1 - square])


def _fisheye(rays: Points) -> Points:
    aside = np.linalg.norm(rays[:, :2], axis=1)
    angle = np.arctan2(aside, rays[:, 2])
    return np.asarray(rays[:, :2] * (angle / np.maximum(aside, 1e-12))[:, None])


def _from_fisheye(uv: Points) -> Points:
    angle = np.linalg.norm(uv, axis=1)
    rays = np.column_stack([uv * np.sinc(angle / np.pi)[:, None], np.cos(angle)])
    return _within(rays, angle <= np.pi)


def _within(points: Points, inside: npt.NDArray[np.bool_]) -> Points:
    return np.where(inside[:, None], points, np.nan)


def _dehomogenised(points: Points) -> Points:
    depth = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    return np.asarray(points[:, :2] / depth[:, None])


_SURFACES = {
    "planar": Projection("planar", _planar, _from_planar, periodic=False),
    "cylindrical": Projection("cylindrical", _cylindrical, _from_cylindrical, periodic=True),
    "spherical": Projection("spherical", _spherical, _from_spherical, periodic=True),
    "mercator": Projection("mercator", _mercator, _from_mercator, periodic=True),
    "stereographic": Projection("stereographic", _stereographic, _from_stereographic, periodic=False),
    "fisheye": Projection("fisheye", _fisheye, _from_fisheye, periodic=False),
}
PROJECTIONS = ("auto", *_SURFACES)
# The world of the planar model is in pixels already: a "radian" of it is one.
_PLANE = Projection("planar", _dehomogenised, _from_planar, periodic=False)


# --- the canvas


def lay_out(views: Sequence[View], projection: str, scale: float) -> Layout:
    """The canvas for photos whose world axes are straight (`straightened`). scale: 1 keeps their resolution."""
    planar_model = views[0].focal_px is None
    if planar_model and projection not in ("auto", "planar"):
        raise UsageError(
            f"photos of something flat have no {projection} projection",
            hint="leave --projection out, or say --model rotation",
        )
    if planar_model:
        surface, unit = _PLANE, 1.0
    else:
        surface = _SURFACES[_suitable(views) if projection == "auto" else projection]
        unit = float(np.median([view.focal_px for view in views if view.focal_px is not None]))
    per_radian = unit * scale
    ranges = [_range(view, surface) for view in views]
    period = None
    if surface.periodic and _largest_gap([(low[0], high[0]) for low, high in ranges])[0] <= _SMALLEST_GAP:
        period = max(round(2 * np.pi * per_radian), 1)
        per_radian = period / (2 * np.pi)
    low = np.min([each[0] for each in ranges], 0)
    high = np.max([each[1] for each in ranges], 0)
    if period is not None:
        low[0], high[0] = -np.pi, np.pi
    elif surface.periodic and high[0] - low[0] > 2 * np.pi:  # no gap is left, but for a crack
        low[0], high[0] = max(low[0], -np.pi), min(high[0], np.pi)
    canvas = _whole(low * per_radian, high * per_radian)
    if period is not None:
        canvas = Region(-(period // 2), canvas.y, period, canvas.height)
    if max(canvas.width, canvas.height) > LARGEST_CANVAS_SIDE:
        raise UsageError(
            f"the panorama would have {canvas.width} × {canvas.height} pixels",
            hint="choose a smaller --scale, or another --projection",
        )
    regions = [_whole(first * per_radian, last * per_radian).shifted(-canvas.x) for first, last in ranges]
    regions = [replace(region, y=region.y - canvas.y) for region in regions]
    if period is not None:  # what goes all around, rounded to whole pixels, would be one too wide
        regions = [replace(r, x=0, width=period) if r.width > period else r for r in regions]
    return Layout(
        surface, per_radian, (-float(canvas.x), -float(canvas.y)), (canvas.width, canvas.height), regions, period
    )


def straightened(views: Sequence[View], reference: int | None) -> list[View]:
    """The same views in a world that is level and looks at the middle of what they show, or, all around, at the
    reference. Photos of something flat stay as they are: their reference is level already."""
    if views[0].focal_px is None:
        return list(views)
    down = _down(views)
    ahead = _ahead(views[reference or 0])
    level = _level_axes(down, ahead)
    turned = [_turned(view, level) for view in views]
    gap, middle = _largest_gap([(low[0], high[0]) for low, high in (_range(v, _SURFACES["spherical"]) for v in turned)])
    if gap > _SMALLEST_GAP:
        yaw = np.array([np.sin(middle), 0, np.cos(middle)])
        turned = [_turned(view, _level_axes(np.array([0.0, 1, 0]), yaw)) for view in turned]
    return turned


def _turned(view: View, axes: Matrix) -> View:
    return replace(view, to_world=axes @ view.to_world)


def _ahead(view: View) -> Points:
    return np.asarray(view.lift(view.centre[None])[0])


def _down(views: Sequence[View]) -> Points:
    """float64 3: at right angles to the rows of all photos, as far as these say (Brown & Lowe 2007), else along their
    columns."""
    rows, columns = (_axes(views, step) for step in ((1.0, 0.0), (0.0, 1.0)))
    share = _UPRIGHT_SHARE * len(views)
    return np.asarray(np.linalg.solve(rows.T @ rows + share * np.eye(3), columns.sum(0)))


def _axes(views: Sequence[View], step: tuple[float, float]) -> Points:
    """N×3 unit vectors: the direction in the world in which a step from the centre of each photo leads."""
    directions = []
    for view in views:
        here, there = view.lift(np.array([view.centre, view.centre + step]))
        here /= np.linalg.norm(here)
        there /= np.linalg.norm(there)
        directions.append((there - here) / max(float(np.linalg.norm(there - here)), 1e-12))
    return np.array(directions)


def _level_axes(down: Points, ahead: Points) -> Matrix:
    """3×3 rotation to axes x right, y down, z as far ahead as is level."""
    y = down / np.linalg.norm(down)
    z = ahead - (ahead @ y) * y
    if np.linalg.norm(z) < 1e-6 * np.linalg.norm(ahead):  # straight up or down: any direction is as level
        z = np.cross(y, np.roll(y, 1))
    z = z / np.linalg.norm(z)
    return np.array([np.cross(y, z), y, z])


def _range(view: View, surface: Projection) -> tuple[Points, Points]:
    """Lowest and highest u, v of a photo; u around its middle, so that it may lie beyond ±π."""
    uv = surface.to_surface(view.lift(_spread_over(view.size)))
    if surface.periodic:
        middle = np.arctan2(*_ahead(view)[[0, 2]])
        uv[:, 0] = middle + (uv[:, 0] - middle + np.pi) % (2 * np.pi) - np.pi
    if np.isnan(uv).all():
        raise UsageError(
            f"a photo lies where a {surface.name} panorama shows nothing",
            hint="choose --projection spherical",
        )
    low, high = np.nanmin(uv, 0), np.nanmax(uv, 0)
    if surface.periodic:
        for side, pole in ((low, -1.0), (high, 1.0)):
            if _shows(view, (0.0, pole, 0.0)):
                low[0], high[0] = -np.pi, np.pi
                if surface.name == "spherical":
                    side[1] = pole * np.pi / 2
    if surface.name == "fisheye" and _shows(view, (0.0, 0.0, -1.0)):
        low[:], high[:] = -np.pi, np.pi
    return low, high


def _spread_over(size: tuple[int, int]) -> Points:
    """N×2 pixels: along the outline of a photo, and inside."""
    inside = np.linspace(0, 1, _INSIDE)
    grid = np.stack(np.meshgrid(inside, inside), -1).reshape(-1, 2)
    along, zero = np.linspace(0, 1, _OUTLINE), np.zeros(_OUTLINE)
    sides = [np.stack(side, 1) for side in ((along, zero), (along, zero + 1), (zero, along), (zero + 1, along))]
    return np.asarray(np.concatenate([grid, *sides]) * size - 0.5)


def _shows(view: View, direction: tuple[float, float, float]) -> bool:
    """Whether a photo shows what lies there, or nearly."""
    seen = view.project(np.array([direction]))[0]
    return bool((seen >= -0.5 - _POLE_MARGIN).all() and (seen <= np.array(view.size) - 0.5 + _POLE_MARGIN).all())


def _largest_gap(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The largest gap that intervals of longitude leave in the circle, and the direction opposite to its middle."""
    if any(high - low >= 2 * np.pi - _SMALLEST_GAP for low, high in intervals):
        return 0.0, 0.0
    turns = sorted((low % (2 * np.pi), low % (2 * np.pi) + high - low) for low, high in intervals)
    reached, best = turns[0][1], (0.0, 0.0)
    for low, high in [*turns[1:], (turns[0][0] + 2 * np.pi, turns[0][1] + 2 * np.pi)]:
        if low - reached > best[0]:
            best = low - reached, (low + reached) / 2 + np.pi
        reached = max(reached, high)
    return best


def _suitable(views: Sequence[View]) -> str:
    """Rectilinear where that looks natural, else a cylinder, for high or low views a sphere."""
    ranges = [_range(view, _SURFACES["spherical"]) for view in views]
    gap, _ = _largest_gap([(low[0], high[0]) for low, high in ranges])
    across = np.degrees(2 * np.pi - gap)
    above = np.degrees(max(float(np.abs(each).max()) for each in (np.array([(a[1], b[1]) for a, b in ranges]))))
    if across <= _WIDEST_PLANAR and above <= _HIGHEST_PLANAR:
        return "planar"
    return "cylindrical" if above <= _HIGHEST_CYLINDRICAL else "spherical"
