"""One panorama: placed photos, their colours and seams, ready to be drawn; and what can be said of it."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featkit.cache import Cache
from featkit.canvas import Canvas, check_format
from featkit.images import Pixels
from featkit.records import record
from featkit.stitching import budget
from featkit.stitching.compositing import Sheet, compose, fine_octaves
from featkit.stitching.config import StitchConfig
from featkit.stitching.finishing import Finish, finish, reduced_layout
from featkit.stitching.photos import Photos
from featkit.stitching.poses import Pair, Poses
from featkit.stitching.projection import Layout, lay_out, straightened
from featkit.stitching.views import View


@dataclass(frozen=True)
class Panorama:
    """Photos in one world, and how they are drawn.

    poses: as matching left them. views: of each photo, in a world that is level. layout: the canvas; reduced: the one
    that colours and seams, `finish`, were found on. seconds: what each step took.
    """

    poses: Poses
    views: tuple[View, ...]
    layout: Layout
    reduced: Layout
    finish: Finish
    config: StitchConfig
    seconds: dict[str, float]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.finish.crop.width, self.finish.crop.height

    @property
    def paths(self) -> list[str]:
        return [source.path for source in self.poses.sources]

    def plan(self, jobs: int) -> budget.Plan:
        """How it is drawn within `config.max_memory`. Raises UsageError where that cannot be."""
        sizes = [source.size for source in self.poses.sources]
        octaves = fine_octaves(self.layout, self.reduced)
        return budget.plan(self.layout, sizes, self.config.blend, octaves, self.config.max_memory, jobs)

    def draw(
        self, canvas: Canvas, plan: budget.Plan, folder: str | os.PathLike[str] = os.curdir
    ) -> Generator[int, None, None]:
        """Draw on a canvas of the layout's size; yields the number of tiles that are done, of `plan.tiles`. folder: for
        temporary files."""
        with Photos(
            self.poses.sources,
            self.config.decode,
            scale=self.config.scale,
            in_memory=plan.photos_in_memory,
            folder=folder,
        ) as photos:
            if not plan.photos_in_memory:
                for number in range(len(self.views)):
                    photos.get(number)
            sheet = Sheet(
                views=self.views,
                layout=self.layout,
                photo=photos.get,
                exposure=self.finish.exposure,
                masks=self.finish.masks,
                mask_layout=self.reduced,
                blend=self.config.blend,
                octaves=fine_octaves(self.layout, self.reduced),
                corrections=self.finish.corrections,
            )
            yield from compose(sheet, canvas, plan.tile_side, plan.workers)

    def save(self, path: str | os.PathLike[str], *, force: bool = False, jobs: int = 1) -> None:
        """Draw and write, as the format that the path's extension names. Raises OutputError, and UsageError where the
        format cannot hold it."""
        check_format(path, self.size)
        plan = self.plan(jobs)
        folder = Path(path).resolve().parent
        with Canvas(self.layout.size, memory_bytes=plan.canvas_bytes, folder=folder) as canvas:
            for _ in self.draw(canvas, plan, folder):
                pass
            canvas.save(path, force=force, region=self.window, jobs=plan.workers)

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x, y, width, height of what is kept of the canvas."""
        return self.finish.crop.x, self.finish.crop.y, self.finish.crop.width, self.finish.crop.height

    @property
    def pixels(self) -> Pixels:
        """uint8 H×W×4 RGBA, drawn anew whenever it is asked for."""
        plan = self.plan(jobs=1)
        with Canvas(self.layout.size, memory_bytes=1 << 62, folder=".") as canvas:
            for _ in self.draw(canvas, plan):
                pass
            return canvas.read(*self.window)

    def record(self, output: str | None, seconds: dict[str, float]) -> dict[str, Any]:
        """The `panorama` record."""
        poses, paths = self.poses, self.paths
        x, y = self.layout.origin
        return record(
            "panorama",
            output=output,
            size=list(self.size),
            projection=self.layout.projection.name,
            model=poses.model,
            images=[self._image(number) for number in range(len(paths))],
            held_out_px={
                "median": _rounded(poses.held_out_median_px),
                "p95": _rounded(poses.held_out_p95_px),
                "worst_pair": None if self.worst_pair is None else _rounded(self.worst_pair.held_out_px),
            },
            worst_pair=None if self.worst_pair is None else self._pair(self.worst_pair),
            overlap_psnr_db=_rounded(self.finish.overlap_psnr_db),
            pairs=[self._pair(pair) for pair in poses.pairs],
            full_circle=self.layout.period is not None,
            pixels_per_radian=self.layout.pixels_per_radian if poses.model == "rotation" else None,
            origin=[x - self.finish.crop.x, y - self.finish.crop.y],
            seconds={name: round(value, 3) for name, value in {**self.seconds, **seconds}.items()},
        )

    @property
    def worst_pair(self) -> Pair | None:
        """The one whose held-out matches fit worst."""
        known = [pair for pair in self.poses.pairs if pair.held_out_px is not None]
        return max(known, key=lambda pair: pair.held_out_px or 0.0, default=None)

    def _pair(self, pair: Pair) -> dict[str, Any]:
        a, b = self.paths[pair.a], self.paths[pair.b]
        return {"a": a, "b": b, "matches": pair.matches, "held_out_px": _rounded(pair.held_out_px)}

    def _image(self, number: int) -> dict[str, Any]:
        source, view = self.poses.sources[number], self.views[number]
        return {
            "path": source.path,
            "size": list(source.size),
            "to_world": view.to_world.tolist(),
            "focal_px": view.focal_px,
            "distortion": list(view.distortion),
            "gain": [1.0, 1.0, 1.0]
            if self.finish.exposure is None
            else [round(float(gain), 4) for gain in self.finish.exposure.gains[number]],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 3)


def prepare(poses: Poses, config: StitchConfig, cache: Cache, jobs: int) -> Panorama:
    """Lay placed photos out, match their colours, and find their seams."""
    start = time.perf_counter()
    reference = next((n for n, source in enumerate(poses.sources) if source.path == config.reference), None)
    views = straightened(poses.views, reference)
    layout = lay_out(views, config.projection, config.scale)
    reduced = reduced_layout(layout)
    found = finish(poses, views, layout, reduced, config, cache, jobs)
    seconds = {"colours_and_seams": time.perf_counter() - start}
    return Panorama(poses, tuple(views), layout, reduced, found, config, seconds)
