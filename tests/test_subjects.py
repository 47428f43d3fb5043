"""Where to look in a picture: masks and regions, and what features and the cache make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from featkit import Cache, match, match_pairs
from featkit.errors import FeatkitError, FileMissing, ImageDamaged, InputError, UsageError
from featkit.images import DecodeOptions
from featkit.local.config import MatchConfig
from featkit.local.results import Extracted
from featkit.local.subjects import Region, Subject, as_subject, read_where

SIZE = (60, 40)
LEFT = np.arange(60) < 25


def write_mask(path: Path, levels: npt.ArrayLike, mode: str | None = None) -> str:
    """A picture of 60 × 40 whose rows are `levels`, or of those levels as they are."""
    rows = np.asarray(levels, np.uint8)
    Image.fromarray(np.tile(rows, (40, 1)) if rows.ndim == 1 else rows).convert(mode).save(path)
    return str(path)


def mask_of(path: str, region: Region | None = None) -> npt.NDArray[np.bool_] | None:
    return read_where(Subject("photo.jpg", path, region)).mask(SIZE)


# --- masks


@pytest.mark.parametrize(
    ("black", "white", "mode", "name"),
    [
        (0, 255, "L", "mask.png"),
        (0, 255, "1", "one-bit.png"),
        (0, 255, "RGB", "mask.bmp"),
        (0, 255, "RGBA", "opaque.png"),
        (0, 255, "P", "palette.png"),
        (0, 1, "L", "labels.png"),
        (127, 128, "L", "soft.png"),
        (0, 255, "L", "mask.tif"),
        (20, 230, "L", "mask.jpg"),
    ],
)
def test_a_mask_is_true_where_it_is_white(tmp_path: Path, black: int, white: int, mode: str, name: str) -> None:
    path = write_mask(tmp_path / name, np.where(LEFT, white, black), mode)

    looked_at = mask_of(path)

    assert looked_at is not None
    np.testing.assert_array_equal(looked_at, np.tile(LEFT, (40, 1)))


def test_a_16_bit_mask_is_read_too(tmp_path: Path) -> None:
    Image.fromarray(np.tile(np.where(LEFT, 65535, 0).astype(np.uint16), (40, 1))).save(tmp_path / "deep.png")

    looked_at = mask_of(str(tmp_path / "deep.png"))

    assert looked_at is not None
    np.testing.assert_array_equal(looked_at[0], LEFT)


def test_transparent_counts_as_white(tmp_path: Path) -> None:
    strokes = np.zeros((40, 60, 4), np.uint8)
    strokes[:, ~LEFT, 3] = 255  # black paint on nothing
    Image.fromarray(strokes).save(tmp_path / "strokes.png")

    looked_at = mask_of(str(tmp_path / "strokes.png"))

    assert looked_at is not None
    np.testing.assert_array_equal(looked_at[0], LEFT)


def test_a_mask_that_is_turned_by_exif_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right side of what is stored
    upright = Image.fromarray(np.tile(np.where(LEFT, 255, 0).astype(np.uint8), (40, 1)))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    looked_at = mask_of(str(tmp_path / "turned.jpg"))

    assert looked_at is not None
    np.testing.assert_array_equal(looked_at[0], LEFT)


def test_a_mask_of_one_frame_serves_a_picture_of_several(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "mask.png", np.where(LEFT, 255, 0))
    options = DecodeOptions(frame=3)

    looked_at = read_where(Subject("stack.tif", path), options).mask(SIZE)

    assert looked_at is not None
    assert looked_at.sum() == 40 * LEFT.sum()


def test_of_a_mask_of_several_frames_the_same_one_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", SIZE, level) for level in (0, 255)]
    frames[0].save(tmp_path / "masks.tif", save_all=True, append_images=frames[1:])

    second = read_where(Subject("stack.tif", str(tmp_path / "masks.tif")), DecodeOptions(frame=1)).mask(SIZE)

    assert second is not None
    assert second.all()


def complaint_about(path: str, region: Region | None = None) -> FeatkitError:
    with pytest.raises(FeatkitError) as raised:
        mask_of(path, region)
    assert raised.value.hint
    assert raised.value.exit_status == 2
    return raised.value


def test_a_missing_mask_is_named_and_so_is_its_picture(tmp_path: Path) -> None:
    error = complaint_about(str(tmp_path / "missing.png"))

    assert isinstance(error, FileMissing)
    assert error.path == str(tmp_path / "missing.png")
    assert error.hint == "it is the mask of photo.jpg"


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    whole = write_mask(tmp_path / "mask.png", np.where(LEFT, 255, 0))
    data = Path(whole).read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])

    error = complaint_about(str(tmp_path / "cut.png"))

    assert isinstance(error, ImageDamaged)
    assert error.path == str(tmp_path / "cut.png")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (30, 20), 255).save(tmp_path / "small.png")
    Image.new("L", (40, 60), 255).save(tmp_path / "turned.png")

    assert "30 × 20 pixels, and photo.jpg has 60 × 40" in str(complaint_about(str(tmp_path / "small.png")))
    assert "upright after its EXIF orientation" in str(complaint_about(str(tmp_path / "turned.png")).hint)


@pytest.mark.parametrize("labels", [(0, 0), (0, 2), (64, 127)])
def test_a_mask_without_white_leaves_nothing(tmp_path: Path, labels: tuple[int, int]) -> None:
    path = write_mask(tmp_path / "black.png", np.where(LEFT, *labels))

    assert "nothing to look at" in str(complaint_about(path))


def test_white_paint_on_transparency_is_refused_for_it_leaves_nothing_out(tmp_path: Path) -> None:
    strokes = np.full((40, 60, 4), 255, np.uint8)
    strokes[:, ~LEFT, 3] = 0
    Image.fromarray(strokes).save(tmp_path / "strokes.png")

    assert "transparent" in str(complaint_about(str(tmp_path / "strokes.png")))


def test_a_mask_that_leaves_everything_is_a_mask(tmp_path: Path) -> None:
    looked_at = mask_of(write_mask(tmp_path / "white.png", np.full(60, 255)))

    assert looked_at is not None
    assert looked_at.all()


def test_a_photo_is_no_mask(samples: Path) -> None:
    with Image.open(samples / "coffee.png") as photo, pytest.raises(InputError, match="coloured"):
        read_where(Subject("photo.jpg", str(samples / "coffee.png"))).mask(photo.size)


# --- regions


def test_a_region_is_a_box_of_pixels() -> None:
    looked_at = read_where(Subject("photo.jpg", region=(5, 7, 20, 10))).mask(SIZE)

    assert looked_at is not None
    assert looked_at.sum() == 200
    assert looked_at[7, 5]
    assert looked_at[16, 24]


def test_paths_and_numbers_may_be_of_any_kind() -> None:
    subject = Subject(Path("a.jpg"), Path("mask.png"), np.array([1, 2, 3, 4]))
    assert subject == Subject("a.jpg", "mask.png", (1, 2, 3, 4))
    assert json.dumps([subject.path, subject.mask, subject.region])


@pytest.mark.parametrize("region", [(0, 0, 20), (0.5, 0, 20, 20), "0,0,20,20", 7])
def test_what_is_no_region_is_refused(region: object) -> None:
    with pytest.raises(UsageError, match="is no region"):
        Subject("a.jpg", region=region)


def test_a_region_may_be_the_whole_picture() -> None:
    looked_at = read_where(Subject("photo.jpg", region=(0, 0, *SIZE))).mask(SIZE)

    assert looked_at is not None
    assert looked_at.all()


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (0, 0, 5, -1), (-1, 0, 5, 5), (0, -3, 5, 5)])
def test_a_region_that_no_picture_has_is_refused_at_once(region: Region) -> None:
    with pytest.raises(UsageError, match="region"):
        Subject("photo.jpg", region=region)


@pytest.mark.parametrize(
    ("region", "hint"),
    [((50, 0, 11, 5), "50,0,10,5"), ((0, 30, 5, 100), "0,30,5,10"), ((60, 0, 5, 5), "x, y, width, height")],
)
def test_a_region_beyond_the_picture_is_refused_with_what_lies_inside(region: Region, hint: str) -> None:
    with pytest.raises(UsageError, match="60 × 40") as raised:
        read_where(Subject("photo.jpg", region=region)).mask(SIZE)

    assert raised.value.path == "photo.jpg"
    assert hint in (raised.value.hint or "")


def test_mask_and_region_both_have_to_allow_it(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "mask.png", np.where(LEFT, 255, 0))

    looked_at = mask_of(path, (20, 0, 20, 40))

    assert looked_at is not None
    np.testing.assert_array_equal(np.flatnonzero(looked_at[0]), np.arange(20, 25))
    assert "black in the whole region" in str(complaint_about(path, (30, 0, 5, 5)))


# --- digests


def test_without_mask_and_region_there_is_nothing_to_know() -> None:
    where = read_where(as_subject("photo.jpg"))

    assert where.digest == ""
    assert where.mask(SIZE) is None


def test_the_digest_tells_masks_by_their_bytes_and_regions_apart(tmp_path: Path) -> None:
    first = write_mask(tmp_path / "a.png", np.where(LEFT, 255, 0))
    same = write_mask(tmp_path / "b.png", np.where(LEFT, 255, 0))
    other = write_mask(tmp_path / "c.png", np.where(LEFT, 0, 255))

    def digest(mask: str | None, region: Region | None = None) -> str:
        return read_where(Subject("photo.jpg", mask, region)).digest

    assert digest(first) == digest(same)
    assert len({digest(first), digest(other), digest(first, (0, 0, 9, 9)), digest(None, (0, 0, 9, 9)), ""}) == 5


# --- what is found


def described(subject: Subject, *, cache: Cache | None = None, **options: Any) -> Extracted:
    """What is found in one picture, where to look in it."""
    config = MatchConfig(model="none", **options)
    (found,) = match_pairs([(subject, subject)], config, cache=cache or Cache(None))
    if isinstance(found, FeatkitError):
        raise found
    return found.a


def test_all_keypoints_lie_inside(samples: Path) -> None:
    region = (100, 50, 200, 120)

    for detector in ("sift", "orb"):
        subject = Subject(str(samples / "china.jpg"), region=region)
        found = described(subject, detector=detector).features
        x, y = np.rint(found.xy).T

        assert len(found) > 50
        assert (x >= 100).all()
        assert (x < 300).all()
        assert (y >= 50).all()
        assert (y < 170).all()


def test_what_is_looked_at_is_described_as_in_the_whole_picture(samples: Path) -> None:
    path = str(samples / "china.jpg")
    whole = described(Subject(path)).features
    part = described(Subject(path, region=(100, 50, 200, 120))).features

    whole_xy = {tuple(xy) for xy in whole.xy.tolist()}
    shared = sum(tuple(xy) in whole_xy for xy in part.xy.tolist())

    assert shared == len(part)


def test_the_limit_on_keypoints_is_spent_inside(samples: Path) -> None:
    subject = Subject(str(samples / "china.jpg"), region=(400, 300, 200, 120))

    found = described(subject, max_keypoints=100).features

    assert len(found) == 100


def test_a_mask_is_part_of_the_cache_key(samples: Path, tmp_path: Path) -> None:
    cache, path = Cache(tmp_path / "store"), str(samples / "china.jpg")
    with Image.open(path) as photo:
        white, half = Image.new("L", photo.size, 255), Image.new("L", photo.size, 0)
        half.paste(255, (0, 0, photo.width // 2, photo.height))
    mask = tmp_path / "mask.png"

    def cached() -> bool:
        return described(Subject(path, str(mask)), cache=cache).cached

    assert not described(Subject(path), cache=cache).cached
    half.save(mask)
    assert not cached()
    assert cached()
    white.save(mask)
    assert not cached()
    assert not described(Subject(path, region=(0, 0, 50, 50)), cache=cache).cached
    assert described(Subject(path), cache=cache).cached


def test_matches_of_a_part_are_cached_apart(samples: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "store")
    a, b = samples / "china-left.jpg", samples / "china-right.jpg"

    whole = match(a, b, cache=cache)
    part = match(a, b, region_a=(200, 100, 150, 150), cache=cache)

    assert 0 < len(part.matches) < len(whole.matches)
    assert part.matches.indices[:, 0].max() < len(part.a.features)
    np.testing.assert_array_equal(match(a, b, cache=cache).matches.indices, whole.matches.indices)


def test_a_region_finds_what_lies_in_it_and_nothing_else(samples: Path, tmp_path: Path) -> None:
    """Two things in one picture, each under a transformation of its own: the region says which is meant."""
    with Image.open(samples / "coffee.png") as coffee, Image.open(samples / "chelsea.png") as cat:
        first, second = coffee.convert("RGB").resize((300, 200)), cat.convert("RGB").resize((300, 200))
    a, b = Image.new("RGB", (620, 300), "gray"), Image.new("RGB", (620, 300), "gray")
    a.paste(first, (0, 0))
    a.paste(second, (310, 0))
    b.paste(first, (40, 70))
    b.paste(second, (310, 10))
    a.save(tmp_path / "a.png")
    b.save(tmp_path / "b.png")

    for region, shift in (((0, 0, 300, 200), (40, 70)), ((310, 0, 300, 200), (0, 10))):
        result = match(tmp_path / "a.png", tmp_path / "b.png", region_a=region, cache=Cache(None))

        assert result.verdict == "reliable"
        assert result.matrix is not None
        np.testing.assert_allclose(result.matrix[:2, 2], shift, atol=0.5)


def test_coordinates_are_those_of_the_upright_picture(samples: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(samples / "china.jpg") as photo:
        width, height = photo.size
        photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
        photo.save(tmp_path / "upright.png")
    region = (width - 200, 0, 200, height)  # none of it is in the stored, turned picture's frame

    upright, turned = (
        described(Subject(str(tmp_path / name), region=region)).features for name in ("upright.png", "turned.png")
    )

    np.testing.assert_array_equal(turned.xy, upright.xy)
    assert len(turned) > 50


def test_a_mask_that_cannot_be_read_is_the_outcome(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    with pytest.raises(ImageDamaged) as raised:
        match(samples / "china.jpg", samples / "china.jpg", mask_b=tmp_path / "mask.png", cache=Cache(None))

    assert raised.value.path == str(tmp_path / "mask.png")
