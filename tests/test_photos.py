"""Photos are decoded once, whoever asks; on the disk they are the same as in memory; a changed file is noticed."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from featkit import images
from featkit.errors import FileMissing, FileUnreadable, ImageUnknown
from featkit.images import DecodeOptions
from featkit.stitching.photos import InMemory, Photos, Source, read_unchanged


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    found = []
    for name in ("coffee.png", "china.jpg", "chelsea.png"):
        data = (SAMPLES / name).read_bytes()
        (tmp_path / name).write_bytes(data)
        with Image.open(tmp_path / name) as picture:
            found.append(Source(str(tmp_path / name), sha256(data).hexdigest(), picture.size))
    return found


def pixels(path: str) -> np.ndarray:
    return images.load(path).pixels


def test_a_photo_is_what_the_file_shows(sources: list[Source]) -> None:
    with Photos(sources, DecodeOptions()) as photos:
        for number, source in enumerate(sources):
            raster = photos.get(number)
            assert raster.size == source.size
            np.testing.assert_array_equal(raster.read(0, 0, *source.size), pixels(source.path))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_part_of_it(sources: list[Source], in_memory: bool, tmp_path: Path) -> None:
    with Photos(sources, DecodeOptions(), in_memory=in_memory, folder=tmp_path) as photos:
        part = photos.get(0).read(17, 31, 40, 25)
        assert (part.dtype, part.shape) == (np.uint8, (25, 40, 3))
        np.testing.assert_array_equal(part, pixels(sources[0].path)[31:56, 17:57])


@pytest.mark.parametrize("in_memory", [True, False])
def test_several_that_need_the_same_decode_it_once(
    sources: list[Source], in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()
    decode = images.decode

    def counting(data: bytes, options: DecodeOptions, *, path: str | None = None) -> np.ndarray:
        decoded[str(path)] += 1
        return decode(data, options, path=path)

    monkeypatch.setattr(images, "decode", counting)
    with (
        Photos(sources, DecodeOptions(), in_memory=in_memory, folder=tmp_path) as photos,
        ThreadPoolExecutor(8) as pool,
    ):
        sizes = list(pool.map(lambda number: photos.get(number % 3).size, range(48)))
    assert sizes == [source.size for source in sources] * 16
    assert decoded == {source.path: 1 for source in sources}


def test_the_disk_is_left_as_it_was(sources: list[Source], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with Photos(sources, DecodeOptions(), in_memory=False, folder=tmp_path) as photos:
        photos.get(1).read(0, 0, 5, 5)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_small_canvas_takes_reduced_photos(sources: list[Source], in_memory: bool, tmp_path: Path) -> None:
    with Photos(sources, DecodeOptions(), scale=0.5, in_memory=in_memory, folder=tmp_path) as photos:
        assert photos.get(0).size == (300, 200)
    with Photos(sources, DecodeOptions(), scale=0.9) as photos:
        assert photos.get(0).size == (600, 400)


def test_a_photo_that_was_changed(sources: list[Source]) -> None:
    Image.new("RGB", (600, 400)).save(sources[0].path)
    with Photos(sources, DecodeOptions()) as photos, pytest.raises(FileUnreadable, match="changed") as caught:
        photos.get(0)
    assert caught.value.path == sources[0].path
    with pytest.raises(FileUnreadable, match="changed"):
        read_unchanged(sources[0])


def test_a_photo_that_is_gone_or_none_any_more(sources: list[Source]) -> None:
    Path(sources[0].path).unlink()
    Path(sources[1].path).write_text("my notes")
    with Photos(sources, DecodeOptions()) as photos:
        with pytest.raises(FileMissing):
            photos.get(0)
        with pytest.raises(ImageUnknown):
            photos.get(1)
        assert photos.get(2).size == sources[2].size


def test_a_picture_in_memory() -> None:
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    raster = InMemory(picture)
    assert raster.size == (7, 5)
    np.testing.assert_array_equal(raster.read(2, 1, 4, 3), picture[1:4, 2:6])
