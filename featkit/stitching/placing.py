"""From pairs of photos to one world: which model fits, and which pairs it cannot believe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featkit.stitching.adjustment import Adjusted, Edge, Vector, held_out_errors
from featkit.stitching.graph import components, middle
from featkit.stitching.planar import FAMILIES, adjust_planar
from featkit.stitching.rotation import RUNAWAY, Photo, adjust_rotation
from featkit.stitching.views import View

MODELS = ("auto", "rotation", "planar")

# A pair whose matches lie this share of the diagonal off, in the median, and this many times as far as is common, is
# another place that looks alike.
_LARGEST_MISFIT = 0.02
_LARGEST_MISFIT_RATIO = 6.0
# By so much a larger family of the planar model, and the planar model, must be better to be preferred.
_WORTHWHILE = 0.95
# Radians, between any two photos: no plane is seen from so far aside.
_WIDEST_PLANE = np.radians(100)


@dataclass(frozen=True)
class Placement:
    """Photos in one world. members: their numbers, ascending; views: of each. edges: what they hang together by, in
    positions among the members. held_out: of each edge, pixels between where matches are and where the views put them.
    """

    members: list[int]
    model: str
    views: list[View]
    edges: list[Edge]
    held_out: list[Vector]

    @property
    def error(self) -> float:
        """Median of the held-out matches, pixels; inf where there are none."""
        every = np.concatenate([*self.held_out, np.zeros(0)])
        return float(np.median(every)) if len(every) else np.inf


def place(photos: Sequence[Photo], edges: Sequence[Edge], model: str, reference: int | None) -> list[Placement]:
    """Place photos, by the pairs of them; one placement for each group of two or more that hang together. Pairs that do
    not fit with the others are dropped, which may part a group, or leave a photo alone."""
    found = []
    for members in components(len(photos), [(edge.a, edge.b) for edge in edges]):
        if len(members) < 2:
            continue
        own = [_renumbered(edge, members) for edge in edges if edge.a in members]
        origin = members.index(reference) if reference in members else middle(len(members), own)
        placement = _place_group([photos[number] for number in members], own, model, origin)
        wrong = _misfits(placement)
        if wrong:
            kept = [edge for number, edge in enumerate(own) if number not in wrong]
            found += [
                _within(members, part) for part in place([photos[number] for number in members], kept, model, origin)
            ]
        else:
            found.append(_within(members, placement))
    return sorted(found, key=lambda placement: (-len(placement.members), placement.members[0]))


def _renumbered(edge: Edge, members: list[int]) -> Edge:
    return Edge(members.index(edge.a), members.index(edge.b), edge.used, edge.held_out)


def _within(members: list[int], placement: Placement) -> Placement:
    """With the members' own numbers."""
    numbers = [members[position] for position in placement.members]
    return Placement(numbers, placement.model, placement.views, placement.edges, placement.held_out)


def _place_group(photos: Sequence[Photo], edges: list[Edge], model: str, reference: int) -> Placement:
    """The model with the smaller held-out error."""
    rotation = planar = None
    if model != "planar":
        adjusted = adjust_rotation(photos, edges)
        rotation = _placement(adjusted, edges, "rotation", len(photos))
        if model == "rotation":
            return rotation
        longer = np.array([photo.longer for photo in photos])
        if (adjusted.model.focals_px > RUNAWAY * longer).any():
            rotation = None
        elif angle_across(rotation.views) > _WIDEST_PLANE:
            return rotation
    for sheets in adjust_planar([photo.size for photo in photos], edges, reference):
        larger = _placement(sheets, edges, "planar", len(photos))
        if planar is None or larger.error < _WORTHWHILE * planar.error:
            planar = larger
    assert planar is not None, FAMILIES
    return planar if rotation is None or planar.error < _WORTHWHILE * rotation.error else rotation


def _placement(adjusted: Adjusted[Any], edges: list[Edge], model: str, count: int) -> Placement:
    views = [adjusted.model.view(number) for number in range(count)]
    return Placement(list(range(count)), model, views, edges, [held_out_errors(views, edge) for edge in edges])


def angle_across(views: Sequence[View]) -> float:
    """Radians between those two of the photos' centres that are farthest apart."""
    ahead = np.concatenate([view.lift(view.centre[None]) for view in views])
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    return float(np.arccos(np.clip(ahead @ ahead.T, -1, 1)).max())


def _misfits(placement: Placement) -> list[int]:
    """Which edges do not fit with the others, the worst of those that share a photo."""
    if len(placement.edges) < len(placement.members):  # a tree fits always
        return []
    medians = []
    for edge in placement.edges:
        places = placement.views[edge.b].project(placement.views[edge.a].lift(edge.used.xy_a))
        distance = np.linalg.norm(places - edge.used.xy_b, axis=1)
        medians.append(float(np.median(np.nan_to_num(distance, nan=np.inf, posinf=np.inf))))
    common = float(np.median(medians))
    diagonals = [float(np.hypot(*placement.views[edge.b].size)) for edge in placement.edges]
    wrong = [
        number
        for number, (misfit, diagonal) in enumerate(zip(medians, diagonals, strict=True))
        if misfit > max(_LARGEST_MISFIT * diagonal, _LARGEST_MISFIT_RATIO * common)
    ]
    # Wrong ones bend what is near them: only the worst goes, then all is placed anew.
    return [max(wrong, key=lambda number: medians[number])] if wrong else []
