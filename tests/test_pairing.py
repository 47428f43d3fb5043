"""Which pictures are matched with which: in sequence, and by what looks alike."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import ROOT, SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from featkit.cache import Cache
from featkit.errors import ImageDamaged, ImageTooLarge, UsageError
from featkit.images import DecodeOptions, decode, encode, resize, thumbnail
from featkit.local import pairing
from featkit.local.pairing import auto, count_sequential, nearest_pairs, sequential, vlad


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three views of each of two samples, turn by turn, and two pictures of other things."""
    folder = tmp_path_factory.mktemp("views")
    for stem in ("china", "coffee"):
        pixels = decode(next(SAMPLES.glob(f"{stem}.*g")).read_bytes())
        height, width = pixels.shape[:2]
        crops = [pixels[:, : width * 3 // 4], pixels[height // 4 :, width // 5 :], np.rot90(resize(pixels, 0.6))]
        for number, crop in enumerate(crops):
            (folder / f"{number}-{stem}.png").write_bytes(encode(np.ascontiguousarray(crop), ".png"))
    for stem in ("camera", "chelsea"):
        shutil.copy(SAMPLES / f"{stem}.png", folder / f"3-{stem}.png")
    return sorted(map(str, folder.iterdir()))


def stems(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(Path(a).stem, Path(b).stem) for a, b in pairs]


# --- sequential


def test_each_with_the_next_two() -> None:
    assert ["".join(pair) for pair in sequential("abcde", 2)] == ["ab", "ac", "bc", "bd", "cd", "ce", "de"]


@given(st.integers(0, 30), st.integers(1, 40))
def test_sequential_pairs_are_counted_without_making_them(pictures: int, following: int) -> None:
    paths = [str(number) for number in range(pictures)]
    pairs = list(sequential(paths, following))

    assert len(pairs) == len(set(pairs)) == count_sequential(pictures, following)
    assert pairs == [pair for pair in combinations(paths, 2) if int(pair[1]) - int(pair[0]) <= following]


# --- auto


def test_views_of_one_thing_are_paired(views: list[str]) -> None:
    pairs = stems(auto(views, 2))

    for stem in ("china", "coffee"):
        for a, b in combinations(range(3), 2):
            assert (f"{a}-{stem}", f"{b}-{stem}") in pairs
    assert len(pairs) < 16 < len(list(combinations(views, 2)))


def test_the_order_is_that_of_all_with_all(views: list[str]) -> None:
    pairs = auto(views, 2)
    assert pairs == [pair for pair in combinations(views, 2) if pair in set(pairs)]


@pytest.mark.parametrize("partners", [7, 8, 100])
def test_few_pictures_are_matched_all_with_all_and_not_even_read(partners: int) -> None:
    names = [f"nowhere{number}.jpg" for number in range(8)]
    assert auto(names, partners) == list(combinations(names, 2))


def test_a_picture_that_cannot_be_read_is_in_a_pair_so_that_its_error_is_met(views: list[str], tmp_path: Path) -> None:
    half = tmp_path / "half.png"
    half.write_bytes(Path(views[0]).read_bytes()[:3000])
    paths = [str(half), *views, "nowhere1.jpg", "nowhere2.jpg"]

    pairs = auto(paths, 2)

    assert pairs[0] == (str(half), views[0])
    assert pairs[-1] == ("nowhere1.jpg", "nowhere2.jpg")
    assert pairs[1:-1] == auto(views, 2)


def test_only_unreadable_ones() -> None:
    assert auto(["x", "y", "z"], 1) == [("x", "y"), ("y", "z")]


def test_neither_workers_nor_the_cache_change_the_pairs(views: list[str], tmp_path: Path) -> None:
    expected = auto(views, 2, cache=Cache(None))
    cache = Cache(tmp_path / "kept")

    assert auto(views, 2, cache=cache, jobs=3) == expected
    assert cache.info().entries == len(views)
    assert auto(views, 2, cache=cache) == expected


def test_descriptors_come_from_the_cache(views: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "kept")
    expected = auto(views, 2, cache=cache)

    def broken(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pairing, "thumbnail", broken)
    assert auto(views, 2, cache=cache) == expected
    with pytest.raises(AssertionError, match="decoded again"):
        auto(views, 2, cache=cache, decode=DecodeOptions(max_pixels=10_000_000))


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_partner(count: int) -> None:
    with pytest.raises(UsageError, match="pairs nothing"):
        auto(["a", "b"], count)
    with pytest.raises(UsageError, match="pairs nothing"):
        list(sequential(["a", "b"], count))


def test_the_reliable_pairs_of_many_scenes_are_found(shared_data: Path) -> None:
    """Exact warps, mild to extreme, of 10 photos among each other: hardly one is missed."""
    photos = sorted(str(path) for path in (shared_data / "warped").glob("s0*/img*.jpg"))
    pairs = set(auto(photos, 5, jobs=2))

    scenes = [pair for pair in combinations(photos, 2) if Path(pair[0]).parent == Path(pair[1]).parent]
    assert len(scenes) == 60
    assert len(pairs.intersection(scenes)) >= 57
    assert len(pairs) < 200


# --- descriptors


def random_descriptors(count: int, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 128), np.uint8)


def test_the_global_descriptor_does_not_depend_on_the_order() -> None:
    descriptors = random_descriptors(200, 0)
    described = vlad(descriptors)

    assert described.shape == (8192,)
    assert described.dtype == np.int8
    assert np.linalg.norm(described.astype(float)) == pytest.approx(2000, rel=0.02)
    assert np.abs(vlad(descriptors[::-1]).astype(int) - described).max() <= 1  # sums of float32


def test_the_global_descriptor_against_a_plain_loop() -> None:
    """VLAD as Jégou et al. write it, one descriptor at a time, in float64."""
    descriptors = random_descriptors(50, 1)
    words = np.load(pairing.VOCABULARY).astype(float) / 255
    sums = np.zeros((64, 128))
    for descriptor in descriptors:
        root = np.sqrt(descriptor / descriptor.sum(dtype=float))
        nearest = np.linalg.norm(words - root, axis=1).argmin()
        sums[nearest] += root - words[nearest]
    for total in sums:
        total /= np.linalg.norm(total) or 1
    expected = np.sign(sums) * np.sqrt(np.abs(sums))
    expected *= 2000 / np.linalg.norm(expected)

    assert np.abs(vlad(descriptors) - np.clip(expected.ravel(), -127, 127)).max() <= 0.51


def test_a_picture_without_texture_has_a_descriptor_too() -> None:
    assert not vlad(np.zeros((0, 128), np.uint8)).any()


def test_nearest_pairs_against_exact_integers() -> None:
    table = np.random.default_rng(0).integers(-127, 128, (300, 8192)).astype(np.int8) // 6
    similarity = table.astype(np.int64) @ table.astype(np.int64).T
    np.fill_diagonal(similarity, similarity.min() - 1)
    expected = set()
    for row, near in enumerate(np.argsort(-similarity, axis=1, kind="stable")[:, :4]):
        expected |= {(min(row, int(other)), max(row, int(other))) for other in near}

    assert nearest_pairs(list(table), 4) == sorted(expected)


def test_equally_near_ones_go_in_order() -> None:
    same = np.ones(8192, np.int8)
    assert nearest_pairs([same] * 4, 1) == [(0, 1), (0, 2), (0, 3)]
    assert nearest_pairs([], 1) == []


def test_the_words_are_those_of_the_script(tmp_path: Path) -> None:
    """Of visual words made anew nearly all are there; another OpenCV may move a few."""
    made_anew = tmp_path / "vocabulary.npy"
    subprocess.run([sys.executable, "-m", "tests.bench.vocabulary", made_anew], cwd=ROOT, check=True)

    kept, made = (np.load(path).astype(float) for path in (pairing.VOCABULARY, made_anew))
    assert kept.shape == (64, 128)
    assert np.linalg.norm(kept / 255, axis=1).max() < 1
    nearest = np.linalg.norm(kept[:, None] - made, axis=2).min(1)
    assert (nearest < 10).mean() > 0.9


# --- thumbnails


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("side", [1, 50, 160, 320, 5000])
def test_a_thumbnail_is_the_picture_reduced(extension: str, side: int) -> None:
    data = encode(decode((SAMPLES / "china.jpg").read_bytes()), extension)
    pixels = decode(data)
    found = thumbnail(data, side)

    expected = resize(pixels, min(1, side / max(pixels.shape)))
    assert np.abs(np.subtract(found.shape, expected.shape)).max() <= 1
    if found.shape == expected.shape and side >= 50:
        assert np.abs(found.astype(float) - expected).mean() < 4


def test_a_thumbnail_is_upright() -> None:
    pixels = decode((SAMPLES / "china.jpg").read_bytes())
    plain = encode(pixels, ".jpg")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]

    assert decode(turned).shape[:2] == pixels.shape[1::-1]
    assert thumbnail(turned, 160).shape[:2] == thumbnail(plain, 160).shape[1::-1]


def test_thumbnails_refuse_what_the_decoder_refuses() -> None:
    data = (SAMPLES / "china.jpg").read_bytes()
    with pytest.raises(ImageDamaged) as error:
        thumbnail(data[: len(data) // 2], 160, path="half.jpg")
    assert error.value.path == "half.jpg"
    with pytest.raises(ImageTooLarge):
        thumbnail(data, 160, DecodeOptions(max_pixels=1000))
