"""Seams cover everything once, run where photos agree, and leave whole what moves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featkit.stitching import graphcut
from featkit.stitching.seams import SEAMS, Piece, find_seams, window

CUTTING = [method for method in SEAMS if method != "none"]
HEIGHT, WIDTH = 160, 240


def background(width: int) -> np.ndarray:
    """uint8 HEIGHT×width×3, the sample photo and its mirror image by turns."""
    with Image.open(SAMPLES / "china.jpg") as photo:
        once = np.asarray(photo.convert("RGB").resize((HEIGHT * 3 // 2, HEIGHT)))
    turns = [once, once[:, ::-1]] * (1 + width // once.shape[1])
    return np.concatenate(turns, 1)[:, :width]


def taken(scene: np.ndarray, x: int, seed: int, figure: np.ndarray | None = None, around: bool = False) -> Piece:
    """A photo of a scene from column x on, with noise of its own; figure: bool like the scene, where someone stands."""
    now = scene.copy()
    if figure is not None:
        now[figure] = (70, 40, 90)
    columns = np.arange(x, x + WIDTH)
    seen = now[:, columns % scene.shape[1] if around else columns]
    noise = np.random.default_rng(seed % 1000).normal(0, 3, seen.shape)
    pixels = np.clip(seen + noise, 0, 255).round().astype(np.uint8)
    return Piece(pixels, np.ones(pixels.shape[:2], bool), (x, 0))


def standing(shape: tuple[int, ...], x: int, y: int = 80, around: bool = False) -> np.ndarray:
    """bool: a figure of 24 × 70 pixels, head and body, around (x, y)."""
    down, across = np.ogrid[: shape[0], : shape[1]]
    aside = np.abs(across - x)
    if around:
        aside = np.minimum(aside, shape[1] - aside)
    body = (aside / 12) ** 2 + ((down - y - 10) / 25) ** 2 < 1
    return body | (aside**2 + (down - y + 25) ** 2 < 64)


def labels(pieces: Sequence[Piece], masks: Sequence[np.ndarray], width: int | None = None) -> np.ndarray:
    """int H×W: which piece is shown, -1 for none; fails where two are."""
    left = 0 if width else min(piece.corner[0] for piece in pieces)
    top = min(piece.corner[1] for piece in pieces)
    right = width or max(piece.corner[0] + piece.mask.shape[1] for piece in pieces) - left
    bottom = max(piece.corner[1] + piece.mask.shape[0] for piece in pieces)
    result = np.full((bottom - top, right), -1)
    for number, (piece, mask) in enumerate(zip(pieces, masks, strict=True)):
        assert mask.dtype == bool
        assert mask.shape == piece.mask.shape
        y, x = np.nonzero(mask)
        at = y + piece.corner[1] - top, (x + piece.corner[0] - left) % right
        assert (result[at] == -1).all(), f"{number} is shown where another is"
        result[at] = number
    return result


def covered(pieces: Sequence[Piece], width: int | None = None) -> np.ndarray:
    """bool H×W, where any piece shows something."""
    nothing = [np.zeros_like(piece.mask) for piece in pieces]
    alone = [[*nothing[:n], piece.mask, *nothing[n + 1 :]] for n, piece in enumerate(pieces)]
    return np.any([labels(pieces, masks, width) >= 0 for masks in alone], 0)


# --- any photos


@st.composite
def scattered(draw: st.DrawFn) -> tuple[list[Piece], int | None]:
    """Pieces of all shapes, with holes, in several parts, alike or not; and the period, if there is one."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    period = draw(st.one_of(st.none(), st.integers(1, 50)))
    pieces = []
    for _ in range(draw(st.integers(1, 6))):
        height, width = draw(st.integers(0, 40)), draw(st.integers(0, min(50, period or 50)))
        mask = random.random((height, width)) < draw(st.sampled_from([0, 0.5, 0.95, 1, 1, 1]))
        mask[: draw(st.integers(0, 20))] = draw(st.booleans())
        pixels = random.integers(0, 256, (height, width, 3)) if draw(st.booleans()) else np.full((height, width, 3), 99)
        corner = draw(st.integers(-60, 60)), draw(st.integers(-20, 20))
        pieces.append(Piece(pixels.astype(np.uint8), mask, corner))
    return pieces, period


@settings(max_examples=60, deadline=None)
@given(scattered(), st.sampled_from(CUTTING))
def test_what_is_covered_is_shown_once(scene: tuple[list[Piece], int | None], method: str) -> None:
    pieces, period = scene

    masks = find_seams(pieces, period, method)

    for piece, mask in zip(pieces, masks, strict=True):
        assert not (mask & ~piece.mask).any()
    np.testing.assert_array_equal(labels(pieces, masks, period) >= 0, covered(pieces, period))


@settings(max_examples=20, deadline=None)
@given(scattered(), st.sampled_from(CUTTING))
def test_the_same_photos_give_the_same_seams(scene: tuple[list[Piece], int | None], method: str) -> None:
    pieces, period = scene
    before = [piece.pixels.copy() for piece in pieces]

    first, second = (find_seams(pieces, period, method) for _ in range(2))

    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    for piece, pixels in zip(pieces, before, strict=True):
        np.testing.assert_array_equal(piece.pixels, pixels)


def test_without_seams_everything_is_shown() -> None:
    scene = background(400)
    pieces = [taken(scene, x, x) for x in (0, 100, 160)]

    masks = find_seams(pieces, None, "none")

    for piece, mask in zip(pieces, masks, strict=True):
        np.testing.assert_array_equal(mask, piece.mask)
        assert mask is not piece.mask


@pytest.mark.parametrize("method", SEAMS)
def test_no_photo_one_photo_and_photos_of_nothing(method: str) -> None:
    piece = taken(background(300), 20, 0)
    nothing = replace(piece, mask=np.zeros_like(piece.mask))
    empty = Piece(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), bool), (5, -3))

    assert find_seams([], None, method) == []
    assert find_seams([piece], None, method)[0].all()
    assert not any(mask.any() for mask in find_seams([nothing, empty, nothing], None, method))
    among = find_seams([nothing, piece, empty], None, method)
    assert [mask.sum() for mask in among] == [0, piece.mask.sum(), 0]


@pytest.mark.parametrize("method", CUTTING)
def test_photos_that_do_not_overlap_stay_as_they_are(method: str) -> None:
    scene = background(800)
    beside = [taken(scene, x, x) for x in (0, WIDTH, 2 * WIDTH + 30)]

    assert all(mask.all() for mask in find_seams(beside, None, method))


@pytest.mark.parametrize("method", CUTTING)
def test_of_a_photo_taken_twice_one_is_shown(method: str) -> None:
    piece = taken(background(300), 0, 0)

    masks = find_seams([piece, piece, piece], None, method)

    assert sorted(mask.mean() for mask in masks) == [0, 0, 1]


@pytest.mark.parametrize("method", CUTTING)
def test_a_photo_inside_another(method: str) -> None:
    scene = background(300)
    outer = taken(scene, 0, 0)
    inner = replace(taken(scene, 0, 1), corner=(60, 40))
    inner = replace(inner, pixels=outer.pixels[40:120, 60:180], mask=np.ones((80, 120), bool))

    shown = labels([outer, inner], find_seams([outer, inner], None, method))

    assert (shown >= 0).all()
    assert (shown[:40] == 0).all()
    assert (shown[:, :60] == 0).all()


def test_a_piece_wider_than_the_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="240 pixels wide"):
        find_seams([taken(background(300), 0, 0)], 200, "graphcut")


# --- where seams run


def test_photos_that_are_alike_are_cut_in_the_middle() -> None:
    flat = np.full((HEIGHT, 400, 3), 120, np.uint8)
    pieces = [taken(flat, x, x) for x in (0, 160)]

    for method in ("graphcut", "voronoi"):
        shown = labels(pieces, find_seams(pieces, None, method))
        seam = (shown == 0).sum(1)  # the overlap is from 160 to 240
        assert np.abs(seam - 200).max() < 15, method


def test_voronoi_does_not_look_at_photos() -> None:
    scene = background(500)
    pieces = [taken(scene, x, x) for x in (0, 90, 210)]
    inverted = [replace(piece, pixels=255 - piece.pixels) for piece in pieces[:1]] + pieces[1:]

    for one, other in zip(find_seams(pieces, None, "voronoi"), find_seams(inverted, None, "voronoi"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seams_keep_away_from_the_rims_of_photos() -> None:
    """There is room to blend, even where it makes no other difference."""
    scene = background(400)
    random = np.random.default_rng(0)
    pieces = [taken(scene, x, x) for x in (0, 120)]
    pieces[1] = replace(pieces[1], pixels=random.integers(0, 256, pieces[1].pixels.shape).astype(np.uint8))

    shown = labels(pieces, find_seams(pieces, None, "graphcut"))

    seam = (shown == 0).sum(1)  # the overlap is from 120 to 240
    assert (seam > 130).all()
    assert (seam < 230).all()


def test_exposure_that_is_off_everywhere_moves_no_seam() -> None:
    scene = np.clip(background(400), 30, 200)
    pieces = [taken(scene, x, x) for x in (0, 140)]
    brighter = [pieces[0], replace(pieces[1], pixels=pieces[1].pixels + np.uint8(20))]

    for one, other in zip(find_seams(pieces, None), find_seams(brighter, None), strict=True):
        np.testing.assert_array_equal(one, other)


# --- what moves


@pytest.mark.parametrize(
    ("first", "second"), [(75, 200), (90, 130), (110, 190), (130, 104), (150, 165), (185, 120), (120, 300)]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_someone_who_walks_is_shown_whole_or_not_at_all(first: int, second: int, reverse: bool) -> None:
    """Both photos show what lies between 90 and 240; figures are 24 wide."""
    scene = background(400)
    figures = [standing(scene.shape[:2], x) for x in (first, second)]
    pieces = [taken(scene, 0, 0, figures[0]), taken(scene, 90, 1, figures[1])]
    order = [1, 0] if reverse else [0, 1]

    shown = labels([pieces[n] for n in order], find_seams([pieces[n] for n in order], None))

    for position, number in enumerate(order):
        share = (shown == position)[figures[number][:, : shown.shape[1]]].mean()
        assert share < 0.02 or share > 0.98, (number, share)


def test_someone_is_not_cut_where_the_background_has_the_same_colour() -> None:
    """A belt of five pixels would be the cheapest way through the overlap, from 90 to 240."""
    plain = np.full((HEIGHT, 400, 3), 150, np.uint8)
    figure = np.zeros(plain.shape[:2], bool)
    figure[10:150, 130:190] = True
    figure[90:95] = False
    pieces = [taken(plain, 0, 0, figure), taken(plain, 90, 1)]

    shown = labels(pieces, find_seams(pieces, None))

    assert (shown == 0)[figure[:, : shown.shape[1]]].mean() in (0, 1)


def test_someone_who_fills_most_of_the_overlap_is_not_taken_for_the_background() -> None:
    scene = background(400)
    occupied = scene.copy()
    occupied[15:155, 105:215] = 255 - scene[15:155, 105:215] // 2
    pieces = [taken(occupied, 0, 0), taken(scene, 90, 1)]

    shown = labels(pieces, find_seams(pieces, None))

    assert (shown[15:155, 105:215] == 0).mean() in (0, 1)


def test_someone_half_in_a_photo_is_taken_from_another() -> None:
    """The first photo ends in the figure's middle; whole, the second shows it."""
    scene = background(400)
    figure = standing(scene.shape[:2], WIDTH)
    pieces = [taken(scene, 0, 0, figure), taken(scene, 100, 1, figure)]
    moved = [pieces[0], taken(scene, 100, 1, standing(scene.shape[:2], 300))]

    still, gone = (labels(each, find_seams(each, None)) for each in (pieces, moved))

    assert (still[figure[:, : still.shape[1]]] >= 0).all()
    assert (gone[figure[:, : gone.shape[1]]] == 1).all()


def test_many_photos_of_every_place() -> None:
    """Each place is on three or four photos, and someone walks through them."""
    scene = background(560)
    steps = range(0, 321, 64)
    figures = [standing(scene.shape[:2], 100 + 55 * n) for n in range(len(steps))]
    pieces = [taken(scene, x, x, figure) for x, figure in zip(steps, figures, strict=True)]

    shown = labels(pieces, find_seams(pieces, None))

    for number, (x, figure) in enumerate(zip(steps, figures, strict=True)):
        columns = np.arange(scene.shape[1])
        seen = figure & (columns >= x) & (columns < x + WIDTH)
        if seen.sum() < figure.sum():
            continue  # the photo's edge cuts it, and so might the panorama
        share = (shown == number)[figure[:, : shown.shape[1]]].mean()
        assert share < 0.02 or share > 0.98, (number, share)


@pytest.mark.parametrize("method", CUTTING)
def test_a_circle_closes(method: str) -> None:
    scene = background(600)
    pieces = [taken(scene, x, x, around=True) for x in range(-70, 500, 120)]

    shown = labels(pieces, find_seams(pieces, 600, method), 600)

    assert (shown >= 0).all()
    assert [int(np.median(shown[:, x])) for x in (50, 170, 290, 410, 530)] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(shown[:, 0], shown[:, -1])


@pytest.mark.parametrize("turn", [0, 600, -600])
def test_someone_at_the_joint_of_a_circle_stays_whole(turn: int) -> None:
    """One photo reaches beyond the canvas, another begins before it; it is the same place whichever way."""
    scene = background(600)
    figures = [standing(scene.shape[:2], x, around=True) for x in (2, 590)]
    pieces = [
        taken(scene, -120, 0, figures[0], around=True),
        taken(scene, 480, 1, figures[1], around=True),
        *(taken(scene, x, x, around=True) for x in (60, 180, 300, 400)),
    ]
    pieces[1] = replace(pieces[1], corner=(480 + turn, 0))

    shown = labels(pieces, find_seams(pieces, 600), 600)

    for number, figure in enumerate(figures):
        share = (shown == number)[figure].mean()
        assert share < 0.02 or share > 0.98, (number, share)


def test_where_a_circle_is_opened_makes_no_difference_to_who_is_whole() -> None:
    scene = background(600)
    figure = standing(scene.shape[:2], 300)
    for opened in (0, 295, 305):
        pieces = [
            replace(piece, corner=((piece.corner[0] - opened) % 600, 0))
            for piece in (taken(scene, x, x, figure if x == 240 else None, around=True) for x in range(0, 600, 120))
        ]

        shown = labels(pieces, find_seams(pieces, 600), 600)

        share = (np.roll(shown, opened, 1) == 2)[figure].mean()
        assert share < 0.02 or share > 0.98, (opened, share)


# --- the minimum cut


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_the_minimum_cut_costs_least_of_all(nodes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    keep, take = random.normal(0, 2, (2, nodes))
    pairs = np.array(list(itertools.permutations(range(nodes), 2)), int).reshape(-1, 2)
    pairs = pairs[random.random(len(pairs)) < 0.5]
    weights = random.random(len(pairs))

    def cost(takes: np.ndarray) -> float:
        parted = ~takes[pairs[:, 0]] & takes[pairs[:, 1]]
        return float(np.where(takes, take, keep).sum() + weights[parted].sum())

    found = graphcut._minimum_cut(keep, take, pairs[:, 0], pairs[:, 1], weights)

    least = min(cost(np.array(takes)) for takes in itertools.product([False, True], repeat=nodes))
    assert cost(found) <= least + 0.01 * (nodes + len(pairs))  # costs are rounded to hundredths


# --- masks enlarged


def test_a_window_of_a_whole_multiple_repeats_pixels() -> None:
    mask = np.random.default_rng(0).random((7, 9)) < 0.5

    np.testing.assert_array_equal(window(mask, 3, 0, 0, 27, 21), np.kron(mask, np.ones((3, 3), bool)))
    np.testing.assert_array_equal(window(mask, 3, 4, 5, 10, 8), np.kron(mask, np.ones((3, 3), bool))[5:13, 4:14])
    assert not window(mask, 3, 27, 0, 5, 21).any()
    assert not window(mask, 3, 0, -5, 27, 5).any()
    assert window(np.ones((2, 2), bool), 3, -2, -2, 10, 10).sum() == 36


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 12))
def test_enlarged_masks_still_cover_all_once(seed: int, scale: float) -> None:
    """A tile of a panorama, from masks whose corners fall between its pixels."""
    random = np.random.default_rng(seed)
    owner = random.integers(-1, 3, (12, 16))
    owner[:5, :5] = random.integers(-1, 1)
    x, y, width, height = random.integers(0, 40, 4)

    shown = np.zeros((height, width), int)
    for number in range(3):
        rows, columns = np.nonzero(owner == number)
        top, left = (int(each.min(initial=15)) for each in (rows, columns))
        mask = (owner == number)[top:, left:]
        shown += window(mask, scale, x - left * scale, y - top * scale, width, height)

    whole = window(owner >= 0, scale, x, y, width, height)
    np.testing.assert_array_equal(shown, whole)
