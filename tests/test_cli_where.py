"""`featkit match` with --mask-a, --mask-b and --region, as a user would type it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, complaint_of, records_of
from PIL import Image

from featkit.cli.options import regions
from featkit.errors import UsageError


def halves(photo: Path, target: Path, *, white: str) -> Path:
    """A mask for the photo: its left or right half."""
    with Image.open(photo) as image:
        mask = np.zeros((image.height, image.width), np.uint8)
    middle = mask.shape[1] // 2
    mask[:, :middle] = 255 * (white == "left")
    mask[:, middle:] = 255 * (white == "right")
    Image.fromarray(mask).save(target)
    return target


def test_a_region_is_of_the_first_picture_unless_it_says_b() -> None:
    assert regions([]) == (None, None)
    assert regions(["1,2,30,40"]) == regions(["a:1,2,30,40"]) == ((1, 2, 30, 40), None)
    assert regions(["b:5, 6, 7, 8", "1,2,3,4"]) == ((1, 2, 3, 4), (5, 6, 7, 8))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["1,2,3"], "four whole numbers, not '1,2,3'"),
        (["1,2,3,4.5"], "four whole numbers"),
        ([""], "four whole numbers"),
        (["c:1,2,3,4"], "picture a or b, not of 'c'"),
        (["1,2,30,40", "a:1,2,3,4"], "twice for picture a"),
    ],
)
def test_what_is_no_region(given: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as raised:
        regions(given)
    assert "X,Y,WIDTH,HEIGHT" in (raised.value.hint or "")


def test_a_region_of_the_first_picture(featkit: Run, photos: Path) -> None:
    whole = records_of(featkit("match", "a.jpg", "b.jpg", "--json"))[0]

    done = featkit("match", "a.jpg", "b.jpg", "--region", "100,40,100,80", "--json")
    part = records_of(done)[0]

    assert done.returncode in (0, 3)
    assert part["region_a"] == [100, 40, 100, 80]
    assert 0 < part["keypoints"][0] < whole["keypoints"][0]
    assert part["keypoints"][1] == whole["keypoints"][1]
    assert {"mask_a", "mask_b", "region_b"}.isdisjoint(part)
    assert "region_a" not in whole


def test_regions_of_both(featkit: Run, photos: Path) -> None:
    done = featkit("match", "a.jpg", "b.jpg", "--region", "b:10,10,150,100", "--region", "a:100,40,100,80", "--json")

    part = records_of(done)[0]

    assert (part["region_a"], part["region_b"]) == ([100, 40, 100, 80], [10, 10, 150, 100])


def test_masks_of_both(featkit: Run, photos: Path) -> None:
    halves(photos / "a.jpg", photos / "left.png", white="left")
    halves(photos / "b.jpg", photos / "right.png", white="right")

    done = featkit("match", "a.jpg", "b.jpg", "--mask-a", "left.png", "--mask-b", "right.png", "--json", "-o", "m.json")
    part = records_of(done)[0]

    assert (part["mask_a"], part["mask_b"]) == ("left.png", "right.png")
    width_a, width_b = part["size_a"][0], part["size_b"][0]
    written = json.loads((photos / "m.json").read_text())
    x_a, _, x_b, *_ = zip(*written["pairs"][0]["matches"], strict=True)
    assert max(x_a) < width_a // 2
    assert min(x_b) > width_b // 2 - 1


def test_a_mask_that_changes_is_seen_in_spite_of_the_cache(featkit: Run, photos: Path) -> None:
    arguments = ("match", "a.jpg", "b.jpg", "--mask-a", "mask.png", "--json")
    halves(photos / "a.jpg", photos / "mask.png", white="left")
    first = records_of(featkit(*arguments))[0]
    again = records_of(featkit(*arguments))[0]
    halves(photos / "a.jpg", photos / "mask.png", white="right")
    other = records_of(featkit(*arguments))[0]

    assert (first["cached"], again["cached"], other["cached"]) == ([False, False], [True, True], [False, True])
    assert again["keypoints"] == first["keypoints"] != other["keypoints"]


def test_draw_pales_what_was_not_looked_at(featkit: Run, photos: Path) -> None:
    featkit("match", "a.jpg", "b.jpg", "--draw", "whole.png")
    done = featkit("match", "a.jpg", "b.jpg", "--region", "100,40,100,80", "--draw", "part.png")

    assert done.returncode in (0, 3)
    with Image.open(photos / "whole.png") as whole, Image.open(photos / "part.png") as part:
        assert part.size == whole.size
        assert np.asarray(part).mean() > np.asarray(whole).mean() + 20


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("a.jpg", "b.jpg", "c.jpg", "--region", "0,0,9,9"), "about one pair, and these are 3"),
        (("a.jpg", "b.jpg", "c.jpg", "--mask-a", "a.jpg"), "about one pair, and these are 3"),
        (("a.jpg", "b.jpg", "--region", "1,2,0,40"), "0 × 40 pixels is empty"),
        (("a.jpg", "b.jpg", "--region", "b:200,100,100,10"), "b.jpg: the region 200,100,100,10 reaches beyond"),
        (("a.jpg", "b.jpg", "--mask-a", "missing.png"), "missing.png: there is no such file"),
        (("a.jpg", "b.jpg", "--mask-b", "black.png"), "black.png: the mask leaves nothing to look at"),
        (("a.jpg", "b.jpg", "--mask-b", "small.png"), "small.png: the mask has 30 × 20 pixels"),
        (("a.jpg", "b.jpg", "--mask-a", "other.jpg"), "other.jpg: 80% of it is coloured"),
        (("a.jpg", "b.jpg", "--mask-a", "black.png", "--draw", "black.png", "--force"), "would be overwritten"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(
    featkit: Run, photos: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    with Image.open(photos / "b.jpg") as photo:
        Image.new("L", photo.size).save(photos / "black.png")
    Image.new("L", (30, 20), 255).save(photos / "small.png")

    done = featkit("match", *arguments)

    assert done.returncode == 2
    assert complaint in complaint_of(done)
    assert "hint: " in done.stderr.decode()


def test_a_mask_that_cannot_be_used_is_a_record(featkit: Run, photos: Path) -> None:
    done = featkit("match", "a.jpg", "b.jpg", "--mask-a", "missing.png", "--json")

    (record,) = records_of(done)

    assert (record["type"], record["path"], record["code"]) == ("error", "missing.png", "missing")
    assert "mask of a.jpg" in record["hint"]
