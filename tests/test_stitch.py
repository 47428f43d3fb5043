"""`featkit.stitch` and `featkit.stitch_all`: pictures in, panoramas out, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_views import COPY, CUT, FLAT, STRANGER, TURNED, make_album

import featkit
from featkit import Cache, DecodeOptions, Panorama, StitchConfig
from featkit.errors import FileMissing, ImageDamaged, NothingJoined, OutputExists, UsageError
from featkit.images import load


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    make_album(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def panorama(album: Path, cache: Cache) -> Panorama:
    return featkit.stitch([album / name for name in TURNED], cache=cache)


class TestStitch:
    def test_a_panorama(self, panorama: Panorama, album: Path) -> None:
        width, height = panorama.size
        assert panorama.paths == [str(album / name) for name in TURNED]
        assert (panorama.pixels.dtype, panorama.pixels.shape) == (np.uint8, (height, width, 4))
        assert panorama.config == StitchConfig()
        assert {"matching", "adjusting"} <= set(panorama.seconds)

    @pytest.mark.parametrize("name", ["p.png", "p.tif"])
    def test_it_is_saved_as_it_is(self, panorama: Panorama, tmp_path: Path, name: str) -> None:
        panorama.save(tmp_path / name, jobs=2)
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(np.asarray(image), panorama.pixels)

    def test_an_older_file_is_kept(self, panorama: Panorama, tmp_path: Path) -> None:
        (tmp_path / "p.jpg").write_bytes(b"precious")
        with pytest.raises(OutputExists):
            panorama.save(tmp_path / "p.jpg")
        assert (tmp_path / "p.jpg").read_bytes() == b"precious"
        panorama.save(tmp_path / "p.jpg", force=True)
        assert load(tmp_path / "p.jpg").size == panorama.size

    def test_options_and_a_config_say_the_same(self, album: Path, cache: Cache) -> None:
        """The reference may be named in another way, and need not be a string."""
        paths = [album / name for name in TURNED[:2]]
        reference = album / ".." / album.name / TURNED[1]
        config = StitchConfig(projection="cylindrical", scale=0.5, reference=str(reference))
        one = featkit.stitch(paths, config, cache=cache)
        other = featkit.stitch(paths, cache=cache, projection="cylindrical", scale=0.5, reference=reference)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_allclose(one.record(None, {})["images"][1]["gain"], 1, atol=0.02)

    def test_nothing_joined(self, album: Path, cache: Cache) -> None:
        with pytest.raises(NothingJoined, match="no two photos belong together") as caught:
            featkit.stitch([album / TURNED[0], album / STRANGER], cache=cache)
        assert caught.value.exit_status == 3
        assert "shares nothing with any other photo" in str(caught.value.hint)

    def test_too_few_can_be_read(self, album: Path, cache: Cache) -> None:
        with pytest.raises(ImageDamaged):
            featkit.stitch([album / TURNED[0], album / CUT], cache=cache)
        with pytest.raises(FileMissing):
            featkit.stitch([album / "missing.jpg", album / CUT], cache=cache)

    @pytest.mark.parametrize("names", [[], TURNED[:1], [TURNED[0], f"./{TURNED[0]}"]], ids=str)
    def test_too_few(self, album: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(album)
        with pytest.raises(UsageError, match="takes two photos"):
            featkit.stitch(names)


class TestStitchAll:
    def test_everything_is_somewhere(self, album: Path, cache: Cache) -> None:
        paths = sorted(str(path) for path in album.iterdir())

        found = featkit.stitch_all(paths, cache=cache, jobs=2)

        members = [[Path(path).name for path in panorama.paths] for panorama in found.panoramas]
        assert sorted(sorted(each) for each in members) == [FLAT, TURNED]
        assert [Path(left_out.path).name for left_out in found.left_out] == sorted([CUT, STRANGER, COPY])
        assert [Path(str(failure.path)).name for failure in found.failures] == [CUT]
        assert found.matched is not None
        assert {comparison.a for comparison in found.matched.tied} <= set(paths)

    def test_no_panorama_is_no_error(self, album: Path, cache: Cache) -> None:
        found = featkit.stitch_all([album / TURNED[0], album / STRANGER], cache=cache)
        assert found.panoramas == ()
        assert len(found.left_out) == 2

    def test_the_cache_gives_the_same(self, album: Path, panorama: Panorama, cache: Cache) -> None:
        [warm] = featkit.stitch_all([album / name for name in TURNED], cache=cache).panoramas
        assert "adjusting" not in warm.seconds
        np.testing.assert_array_equal(warm.pixels, panorama.pixels)


class TestConfig:
    @pytest.mark.parametrize(
        ("option", "value", "reason"),
        [
            ("model", "sphere", "--model knows no 'sphere'"),
            ("projection", "flat", "--projection knows no 'flat'"),
            ("crop", True, "--crop knows no True"),
            ("blend", "", "--blend knows no ''"),
            ("seams", "GRAPHCUT", "--seams knows no 'GRAPHCUT'"),
            ("exposure", None, "--exposure knows no None"),
            ("scale", 0, "--scale must lie between"),
            ("scale", float("nan"), "--scale must lie between"),
            ("max_memory", 1000, "--max-memory must be at least"),
            ("seed", -1, "--seed must lie between"),
            ("size", 3, "there is no option 'size'"),
        ],
    )
    def test_values_that_make_no_sense(self, option: str, value: object, reason: str) -> None:
        with pytest.raises(UsageError, match=reason) as caught:
            featkit.stitch(["a.jpg", "b.jpg"], **{option: value})
        assert caught.value.hint or option == "seed"

    def test_what_does_not_go_together(self, album: Path) -> None:
        paths = [album / name for name in TURNED[:2]]
        with pytest.raises(UsageError, match="either a config or single options"):
            featkit.stitch(paths, StitchConfig(), scale=0.5)
        with pytest.raises(UsageError, match="is not among the photos"):
            featkit.stitch(paths, reference=str(album / STRANGER))
        with pytest.raises(UsageError, match="--jobs must be at least 1"):
            featkit.stitch(paths, jobs=0)

    def test_pictures_are_decoded_as_it_says(self, album: Path, cache: Cache) -> None:
        small = StitchConfig(decode=DecodeOptions(max_pixels=1000))
        found = featkit.stitch_all([album / name for name in TURNED[:2]], small, cache=cache)
        assert [failure.code for failure in found.failures] == ["too-large"] * 2
