"""Picture files to vectors: in order, at one size, each error once, and from the cache what was made before."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from featkit import images
from featkit.cache import Cache, open_cache
from featkit.classical.hog import HogConfig
from featkit.classical.patches import PatchConfig
from featkit.errors import (
    FileMissing,
    FileUnreadable,
    ImageDamaged,
    ImageTooLarge,
    ImageUnknown,
    ImageUnsupported,
    NotAFile,
    UsageError,
)
from featkit.extraction import engine
from featkit.extraction.engine import Rows, common_size, extract, sample_pictures
from featkit.extraction.makers import ClassicalMaker, Kept, Maker, make
from featkit.images import DecodeOptions

Images = npt.NDArray[np.uint8]

NO_CACHE = Cache(None)
SIZE = (10, 8)


@dataclass
class Recorder:
    """Pixels as vectors; remembers how many pictures it was asked for at a time. before: is called first."""

    size: tuple[int, int] = SIZE
    blocks: tuple[int, ...] = (3 * SIZE[0] * SIZE[1],)
    variances: tuple[float, ...] = (1.0,)
    name: str = "pixels"
    factor: float = 1
    asked: list[int] = field(default_factory=list)
    before: Any = lambda: None

    @property
    def pictures_at_once(self) -> int:
        return 256

    def prepared(self, data: bytes, decode: DecodeOptions, path: str) -> Images:
        return images.fit_to(images.decode(data, decode, path=path), self.size)

    def __call__(self, pictures: Images) -> npt.NDArray[np.float32]:
        self.before()
        self.asked.append(len(pictures))
        return pictures.reshape(len(pictures), self.blocks[0]) * np.float32(self.factor)

    def parts(self) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
        return {"name": self.name}, {"factor": np.array(self.factor)}

    @property
    def kept(self) -> Kept:
        return Kept(self.parts(), {"views": sum(self.blocks)})


def noise(height: int, width: int, seed: int) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(folder: Path, count: int, sizes: Sequence[tuple[int, int]] = (SIZE,)) -> list[str]:
    """PNGs of noise; their sizes (width, height) take turns."""
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for number, path in enumerate(paths):
        width, height = sizes[number % len(sizes)]
        images.save(path, noise(height, width, number))
    return paths


def rows_of(
    paths: Sequence[str],
    maker: Maker | None = None,
    *,
    mirrored: bool = False,
    decode: DecodeOptions = images.DEFAULTS,
    cache: Cache = NO_CACHE,
    jobs: int = 1,
) -> list[Rows]:
    return list(extract(paths, maker or Recorder(), mirrored=mirrored, decode=decode, cache=cache, jobs=jobs))


def joined(found: Sequence[Rows], view: int = 0) -> npt.NDArray[np.float32]:
    return np.concatenate([rows.views[view] for rows in found])


def failures_of(found: Sequence[Rows]) -> list[tuple[type[Exception], str | None, str, str | None]]:
    return [(type(each), each.path, each.message, each.hint) for rows in found for each in rows.failures]


def assert_same(found: Sequence[Rows], expected: Sequence[Rows]) -> None:
    """In all but `cached`, to the last bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.start == other.start
        assert one.indices.tolist() == other.indices.tolist()
        assert len(one.views) == len(other.views)
        for view, other_view in zip(one.views, other.views, strict=True):
            assert view.dtype == other_view.dtype == np.float32
            np.testing.assert_array_equal(view, other_view)
    assert failures_of(found) == failures_of(expected)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("featkit")]


@pytest.fixture
def chunks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Recorder, ClassicalMaker):
        monkeypatch.setattr(kind, "pictures_at_once", 4)


class TestExtract:
    def test_gives_each_picture_its_vector(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 5)
        maker = make("hog", SIZE, lambda: noise(0, 0, 0))
        (rows,) = rows_of(paths, maker)
        assert (rows.start, rows.cached, rows.failures) == (0, False, ())
        assert rows.indices.tolist() == [0, 1, 2, 3, 4]
        (vectors,) = rows.views
        np.testing.assert_array_equal(vectors, maker(np.stack([images.load(path).pixels for path in paths])))

    @pytest.mark.parametrize("jobs", [1, 2, 4, 16])
    @pytest.mark.usefixtures("chunks_of_four")
    def test_keeps_the_order_whatever_the_number_of_threads(self, jobs: int, tmp_path: Path) -> None:
        paths = write(tmp_path, 41)
        found = rows_of(paths, jobs=jobs)
        assert [rows.start for rows in found] == list(range(0, 41, 4))
        assert np.concatenate([rows.indices for rows in found]).tolist() == list(range(41))
        expected = np.stack([images.load(path).pixels.ravel() for path in paths])
        np.testing.assert_array_equal(joined(found), expected)

    @pytest.mark.parametrize("name", ["hog", "hog-skimage", "hog+patches", "pixels"])
    @pytest.mark.usefixtures("chunks_of_four")
    def test_gives_the_same_with_one_thread_and_with_four(self, name: str, tmp_path: Path) -> None:
        paths = write(tmp_path, 22, [(30, 25), (24, 60), (100, 3)])
        maker = make(name, (24, 28), lambda: sample_pictures(paths, (24, 28), 20, 0, images.DEFAULTS))
        assert_same(rows_of(paths, maker, mirrored=True, jobs=4), rows_of(paths, maker, mirrored=True, jobs=1))

    def test_of_no_paths_is_nothing(self) -> None:
        assert rows_of([]) == []

    def test_the_same_path_may_come_twice(self, tmp_path: Path) -> None:
        (path,) = write(tmp_path, 1)
        (rows,) = rows_of([path, path])
        assert rows.indices.tolist() == [0, 1]
        np.testing.assert_array_equal(rows.views[0][0], rows.views[0][1])

    def test_mirrored_views_are_those_of_mirrored_pictures(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 3)
        maker = make("hog", SIZE, lambda: noise(0, 0, 0))
        pictures = np.stack([images.load(path).pixels for path in paths])
        (rows,) = rows_of(paths, maker, mirrored=True)
        np.testing.assert_array_equal(rows.views[0], maker(pictures))
        np.testing.assert_array_equal(rows.views[1], maker(pictures[:, :, ::-1]))

    def test_pictures_of_all_sizes_are_stretched_to_one(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4, [SIZE, (40, 32), (5, 40), (1, 1)])
        (rows,) = rows_of(paths)
        for path, vector in zip(paths, rows.views[0], strict=True):
            np.testing.assert_array_equal(vector, images.fit_to(images.load(path).pixels, SIZE).ravel())

    def test_pictures_are_upright(self, tmp_path: Path) -> None:
        """6: the camera was held upright, and the file lies on its side."""
        picture = noise(SIZE[1], SIZE[0], 0)
        images.save(tmp_path / "upright.png", picture)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(picture)).save(tmp_path / "turned.png", exif=exif)
        (rows,) = rows_of([str(tmp_path / "upright.png"), str(tmp_path / "turned.png")])
        np.testing.assert_array_equal(rows.views[0][0], picture.ravel())
        np.testing.assert_array_equal(rows.views[0][1], picture.ravel())

    def test_is_decoded_as_asked(self, tmp_path: Path) -> None:
        pages = [Image.fromarray(noise(SIZE[1], SIZE[0], number)) for number in range(2)]
        path = str(tmp_path / "pages.tif")
        pages[0].save(path, save_all=True, append_images=pages[1:])
        (rows,) = rows_of([path])
        assert [type(failure) for failure in rows.failures] == [ImageUnsupported]
        (rows,) = rows_of([path], decode=DecodeOptions(frame=1))
        np.testing.assert_array_equal(rows.views[0][0], np.asarray(pages[1]).ravel())

    def test_takes_one_job_or_more(self) -> None:
        with pytest.raises(UsageError, match="--jobs"):
            rows_of([], jobs=0)


@pytest.fixture
def flawed(tmp_path: Path) -> list[str]:
    """Nine paths, of which 1, 2, 4, 7 and 8 are no pictures."""
    paths = write(tmp_path, 9)
    Path(paths[1]).write_bytes(Path(paths[3]).read_bytes()[:-20])
    Path(paths[2]).unlink()
    Path(paths[4]).write_text("no picture\n")
    for number in (7, 8):
        Path(paths[number]).unlink()
    Path(paths[7]).mkdir()
    images.save(Path(paths[8]), noise(100, 100, 8))
    return paths


SMALL_ONLY = DecodeOptions(max_pixels=9999)


class TestFailures:
    @pytest.mark.parametrize("jobs", [1, 4])
    @pytest.mark.usefixtures("chunks_of_four")
    def test_are_named_in_order_and_the_rest_goes_on(self, jobs: int, flawed: list[str]) -> None:
        found = rows_of(flawed, decode=SMALL_ONLY, jobs=jobs)
        assert [rows.indices.tolist() for rows in found] == [[0, 3], [5, 6], []]
        kinds = [[type(failure) for failure in rows.failures] for rows in found]
        assert kinds == [[ImageDamaged, FileMissing], [ImageUnknown, NotAFile], [ImageTooLarge]]
        assert [each[1] for each in failures_of(found)] == [flawed[number] for number in (1, 2, 4, 7, 8)]
        expected = np.stack([images.load(flawed[number]).pixels.ravel() for number in (0, 3, 5, 6)])
        np.testing.assert_array_equal(joined(found), expected)

    @pytest.mark.usefixtures("chunks_of_four")
    def test_are_the_same_where_the_rest_is_cached(self, flawed: list[str]) -> None:
        fresh = rows_of(flawed, decode=SMALL_ONLY, cache=open_cache())
        maker = Recorder()
        again = rows_of(flawed, maker, decode=SMALL_ONLY, cache=open_cache())
        assert all(rows.cached for rows in again)
        assert maker.asked == []
        assert_same(again, fresh)

    def test_where_nothing_can_be_read_there_are_no_rows(self, tmp_path: Path) -> None:
        for _ in range(2):
            (rows,) = rows_of([str(tmp_path / "a.png"), str(tmp_path / "b.png")], mirrored=True, cache=open_cache())
            assert [view.shape for view in rows.views] == [(0, 240), (0, 240)]
            assert len(rows.failures) == 2

    def test_of_a_moment_are_not_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory is short while the third picture is decoded, and not any more an hour later."""
        paths = write(tmp_path, 4)
        expected = rows_of(paths)
        decode, short = images.decode, Path(paths[2]).read_bytes()

        def in_little_memory(data: bytes, *arguments: Any, **options: Any) -> Images:
            if data == short:
                raise ImageTooLarge("there is not enough memory to decode it", path=options["path"])
            return decode(data, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(images, "decode", in_little_memory)
            (rows,) = rows_of(paths, cache=open_cache())
            assert (rows.indices.tolist(), len(rows.failures)) == ([0, 1, 3], 1)
        assert_same(rows_of(paths, cache=open_cache()), expected)
        (rows,) = rows_of(paths, cache=open_cache())
        assert rows.cached
        assert_same([rows], expected)

    def test_hold_no_pixels(self, flawed: list[str]) -> None:
        """Their frames would."""
        for rows in rows_of(flawed, decode=SMALL_ONLY):
            for failure in rows.failures:
                assert (failure.__traceback__, failure.__cause__, failure.__context__) == (None, None, None)

    def test_what_is_no_pictures_fault_ends_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
            rows_of(write(tmp_path, 3))


class TestLargeFiles:
    """Files of which only some are held in memory until they are decoded; two here, and the others are read again."""

    @pytest.fixture
    def paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        paths = write(tmp_path, 5)
        monkeypatch.setattr(engine, "_BYTES_HELD", sum(Path(path).stat().st_size for path in paths[:2]))
        return paths

    def test_come_out_like_others(self, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        found = rows_of(paths)
        read: Counter[str] = Counter()
        read_bytes = images.read_bytes

        def counted(path: str) -> bytes:
            read[path] += 1
            return read_bytes(path)

        monkeypatch.setattr(images, "read_bytes", counted)
        again = rows_of(paths, cache=open_cache())
        assert [read[path] for path in paths] == [1, 1, 2, 2, 2]
        monkeypatch.setattr(engine, "_BYTES_HELD", 1 << 20)
        assert_same(found, rows_of(paths))
        assert_same(again, rows_of(paths, cache=open_cache()))
        assert [read[path] for path in paths] == [3, 3, 4, 4, 4]

    def test_that_change_meanwhile_are_failures_of_this_run(
        self, paths: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, decode = Path(paths[3]).read_bytes(), images.decode

        def writing(data: bytes, options: DecodeOptions, *, path: str) -> Images:
            images.save(paths[3], noise(SIZE[1], SIZE[0], 99), force=True)
            return decode(data, options, path=path)

        with monkeypatch.context() as patch:
            patch.setattr(images, "decode", writing)
            (rows,) = rows_of(paths, cache=open_cache())
        assert rows.indices.tolist() == [0, 1, 2, 4]
        (failure,) = rows.failures
        assert (type(failure), failure.path) == (FileUnreadable, paths[3])
        assert "changed" in failure.message
        Path(paths[3]).write_bytes(original)
        (rows,) = rows_of(paths, cache=open_cache())
        assert rows.indices.tolist() == [0, 1, 2, 3, 4]


class Several(Recorder):
    """A maker of some of three colours, each kept for itself."""

    def __init__(self, *colours: int) -> None:
        super().__init__(blocks=(SIZE[0] * SIZE[1],) * len(colours))
        self.colours = colours

    def __call__(self, pictures: Images) -> npt.NDArray[np.float32]:
        self.asked.append(len(pictures))
        planes = [pictures[..., colour].reshape(len(pictures), -1) for colour in self.colours]
        return np.concatenate(planes, 1).astype(np.float32)

    @property
    def kept(self) -> Kept:
        widths = {f"colour/{colour}": width for colour, width in zip(self.colours, self.blocks, strict=True)}
        return Kept(({"name": "colours"}, {}), widths)


class TestKeptApart:
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_what_any_run_has_made_is_not_made_again(self, tmp_path: Path, mirrored: bool) -> None:
        paths = write(tmp_path, 5)
        for colours, made in (((2, 0), True), ((0,), False), ((0, 2), False), ((1, 2), True), ((0, 1, 2), False)):
            maker = Several(*colours)
            (rows,) = rows_of(paths, maker, mirrored=mirrored, cache=open_cache())
            assert (rows.cached, maker.asked) == (not made, [5] * (1 + mirrored) * made)
            assert_same([rows], rows_of(paths, Several(*colours), mirrored=mirrored))
        assert open_cache().info().entries == 1

    def test_what_is_of_fewer_pictures_is_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory was short for one of them: what was made then does not stand beside what is made now."""
        paths = write(tmp_path, 4)
        prepared, short = Several.prepared, Path(paths[2]).read_bytes()

        def in_little_memory(maker: Several, data: bytes, decode: DecodeOptions, path: str) -> Images:
            if data == short:
                raise ImageTooLarge("there is not enough memory to decode it", path=path)
            return prepared(maker, data, decode, path)

        with monkeypatch.context() as patch:
            patch.setattr(Several, "prepared", in_little_memory)
            (rows,) = rows_of(paths, Several(0), cache=open_cache())
            assert rows.indices.tolist() == [0, 1, 3]
        for colours, cached in (((1,), False), ((0, 1), False), ((0, 1), True)):
            (rows,) = rows_of(paths, Several(*colours), cache=open_cache())
            assert (rows.indices.tolist(), rows.cached) == ([0, 1, 2, 3], cached)
            assert_same([rows], rows_of(paths, Several(*colours)))


@pytest.mark.usefixtures("chunks_of_four")
class TestCached:
    @pytest.mark.parametrize("name", ["hog", "hog+patches"])
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_is_the_same_as_fresh(self, name: str, mirrored: bool, tmp_path: Path) -> None:
        paths = write(tmp_path, 10, [(30, 25), (24, 60)])
        maker = make(name, (24, 28), lambda: sample_pictures(paths, (24, 28), 20, 0, images.DEFAULTS))
        expected = rows_of(paths, maker, mirrored=mirrored)
        first = rows_of(paths, maker, mirrored=mirrored, cache=open_cache(), jobs=2)
        again = rows_of(paths, maker, mirrored=mirrored, cache=open_cache(), jobs=2)
        assert [rows.cached for rows in first + again] == [False] * 3 + [True] * 3
        assert_same(first, expected)
        assert_same(again, expected)

    def test_only_a_chunk_with_another_picture_is_made_anew(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 12)
        rows_of(paths, cache=open_cache())
        images.save(paths[6], noise(SIZE[1], SIZE[0], 99), force=True)
        maker = Recorder()
        found = rows_of(paths, maker, cache=open_cache())
        assert [rows.cached for rows in found] == [True, False, True]
        assert maker.asked == [4]
        np.testing.assert_array_equal(found[1].views[0][2], noise(SIZE[1], SIZE[0], 99).ravel())

    def test_names_do_not_count(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4)
        rows_of(paths, cache=open_cache())
        renamed = [str(Path(path).rename(f"{path}.other")) for path in paths]
        assert [rows.cached for rows in rows_of(renamed, cache=open_cache())] == [True]

    def test_the_order_counts(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4)
        rows_of(paths, cache=open_cache())
        (rows,) = rows_of(paths[::-1], cache=open_cache())
        assert not rows.cached
        np.testing.assert_array_equal(rows.views[0][0], images.load(paths[3]).pixels.ravel())

    def test_where_a_picture_is_missing_counts(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 3)
        for cached in (False, True):
            for place in range(4):
                with_gap = [*paths[:place], str(tmp_path / "missing.png"), *paths[place:]]
                (rows,) = rows_of(with_gap, cache=open_cache())
                assert rows.cached == cached
                assert rows.indices.tolist() == [number for number in range(4) if number != place]

    def test_whatever_else_decides_counts(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4, [(30, 30)])
        hog = functools.partial(ClassicalMaker, "hog", (24, 28))
        encoders = [
            make("patches", (24, 28), lambda: np.stack([noise(28, 24, 0)] * 3), PatchConfig(seed=seed))
            for seed in (0, 1)
        ]
        ways: list[tuple[Maker, bool, DecodeOptions]] = [
            (hog(HogConfig()), False, images.DEFAULTS),
            (hog(HogConfig(cells=3)), False, images.DEFAULTS),
            (ClassicalMaker("hog", (28, 24), HogConfig()), False, images.DEFAULTS),
            (hog(HogConfig()), True, images.DEFAULTS),
            (hog(HogConfig()), False, DecodeOptions(max_pixels=5000)),
            (make("hog-skimage", (24, 28), lambda: noise(0, 0, 0)), False, images.DEFAULTS),
            *((encoder, False, images.DEFAULTS) for encoder in encoders),
        ]
        for cached in (False, True):
            for maker, mirrored, decode in ways:
                (rows,) = rows_of(paths, maker, mirrored=mirrored, decode=decode, cache=open_cache())
                assert rows.cached == cached

    def test_arrays_count(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4)
        rows_of(paths, Recorder(factor=1), cache=open_cache())
        (rows,) = rows_of(paths, Recorder(factor=2), cache=open_cache())
        assert not rows.cached

    def test_a_damaged_entry_is_made_anew(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 4)
        expected = rows_of(paths, cache=open_cache())
        (entry,) = (tmp_path / "cache").rglob("*.fk")
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes(data)
        found = rows_of(paths, cache=open_cache())
        assert not found[0].cached
        assert_same(found, expected)


@pytest.mark.usefixtures("chunks_of_four")
class TestThreads:
    @pytest.mark.parametrize("jobs", [1, 3])
    def test_begin_only_some_chunks_ahead(self, jobs: int, tmp_path: Path) -> None:
        (path,) = write(tmp_path, 1)
        maker = Recorder()
        for taken, _ in enumerate(
            extract([path] * 200, maker, mirrored=False, decode=images.DEFAULTS, cache=NO_CACHE, jobs=jobs)
        ):
            assert len(maker.asked) <= taken + 2 * jobs + 1

    def test_several_are_at_work_at_once(self, tmp_path: Path) -> None:
        """Each waits until all three are there."""
        (path,) = write(tmp_path, 1)
        together = threading.Barrier(3, timeout=60)
        found = rows_of([path] * 12, Recorder(before=together.wait), jobs=3)
        assert len(found) == 3

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_are_gone_once_it_is_closed(self, jobs: int, tmp_path: Path) -> None:
        (path,) = write(tmp_path, 1)
        found = extract([path] * 400, Recorder(), mirrored=False, decode=images.DEFAULTS, cache=NO_CACHE, jobs=jobs)
        next(found)
        assert threads()
        found.close()
        assert not threads()

    def test_do_no_more_than_the_view_at_hand_once_it_is_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The third view, the first of the second chunk, waits until then."""
        paths = write(tmp_path, 12)
        begun, closed = threading.Event(), threading.Event()
        monkeypatch.setattr(engine, "Event", lambda: closed)
        maker = Recorder()

        def wait() -> None:
            if len(maker.asked) == 2:
                begun.set()
                assert closed.wait(60)

        maker.before = wait
        found = extract(paths, maker, mirrored=True, decode=images.DEFAULTS, cache=open_cache(), jobs=1)
        next(found)
        assert begun.wait(60)
        found.close()
        assert maker.asked == [4, 4, 4]
        assert open_cache().info().entries == 1

    def test_are_gone_after_an_interrupt(self, tmp_path: Path) -> None:
        (path,) = write(tmp_path, 1)
        found = extract([path] * 400, Recorder(), mirrored=False, decode=images.DEFAULTS, cache=NO_CACHE, jobs=2)
        next(found)
        with pytest.raises(KeyboardInterrupt):
            found.throw(KeyboardInterrupt)
        assert not threads()

    def test_are_gone_after_a_defect(self, tmp_path: Path) -> None:
        (path,) = write(tmp_path, 1)

        def fail() -> None:
            raise RuntimeError("a defect")

        with pytest.raises(RuntimeError, match="a defect"):
            rows_of([path] * 400, Recorder(before=fail), jobs=2)
        assert not threads()

    def test_stop_between_two_pictures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = write(tmp_path, 4)
        work = engine._Extraction(paths, Recorder(), False, images.DEFAULTS, NO_CACHE, images.read_bytes)
        decode, decoded = images.decode, Counter[str]()

        def stopping(data: bytes, options: DecodeOptions, *, path: str) -> Images:
            decoded[path] += 1
            work.stopped.set()
            return decode(data, options, path=path)

        monkeypatch.setattr(images, "decode", stopping)
        with pytest.raises(CancelledError):
            work.rows(0)
        assert decoded == {paths[0]: 1}


class TestFitTo:
    def test_of_its_own_size_it_stays_as_it_is(self) -> None:
        picture = noise(8, 10, 0)
        assert images.fit_to(picture, SIZE) is picture

    def test_smaller_is_the_mean_over_areas(self) -> None:
        picture = noise(24, 40, 0)
        expected = picture.reshape(8, 3, 10, 4, 3).mean((1, 3))
        np.testing.assert_allclose(images.fit_to(picture, SIZE), expected, rtol=0, atol=0.51)

    def test_larger_goes_through_what_is_there(self) -> None:
        """Three times as large, every third pixel lies on one of the old; between two it is no line (bicubic)."""
        picture = noise(8, 10, 0)
        found = images.fit_to(picture, (30, 24))
        np.testing.assert_allclose(found[1::3, 1::3].astype(int), picture, rtol=0, atol=1)
        ramp = np.repeat(np.arange(0, 200, 20, dtype=np.uint8)[None, :, None], 3, 2)
        inner = images.fit_to(np.ascontiguousarray(ramp), (100, 1))[0, 20:80, 0].astype(float)
        np.testing.assert_allclose(inner, (np.arange(20, 80) + 0.5) * 2 - 10, rtol=0, atol=1)

    def test_each_side_has_its_own_scale(self) -> None:
        """Stripes of one pixel across, which a smaller width averages however much taller the picture becomes."""
        stripes = np.zeros((5, 64, 3), np.uint8)
        stripes[:, ::2] = 200
        found = images.fit_to(stripes, (8, 50))
        assert found.shape == (50, 8, 3)
        np.testing.assert_allclose(found, 100, rtol=0, atol=1)

    @given(*(st.integers(1, 40) for _ in range(4)), st.integers(0, 255), st.integers(0, 1 << 16))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_of_any_size(self, height: int, width: int, new_height: int, new_width: int, level: int, seed: int) -> None:
        found = images.fit_to(noise(height, width, seed), (new_width, new_height))
        assert (found.shape, found.dtype) == ((new_height, new_width, 3), np.uint8)
        flat = images.fit_to(np.full((height, width, 3), level, np.uint8), (new_width, new_height))
        assert np.ptp(flat) == 0
        assert flat[0, 0, 0] == level

    def test_of_a_very_long_picture(self) -> None:
        picture = np.broadcast_to(np.uint8(77), (2, 70_000, 3))
        assert (images.fit_to(np.ascontiguousarray(picture), (16, 16)) == 77).all()


class TestSamplePictures:
    def test_are_different_pictures_of_one_size(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 20, [SIZE, (20, 16)])
        found = sample_pictures(paths, SIZE, 15, 0, images.DEFAULTS)
        assert (found.shape, found.dtype) == ((15, 8, 10, 3), np.uint8)
        all_of_them = {images.fit_to(images.load(path).pixels, SIZE).tobytes() for path in paths}
        sample = {picture.tobytes() for picture in found}
        assert len(sample) == 15
        assert sample < all_of_them

    def test_the_seed_decides(self, tmp_path: Path) -> None:
        paths = write(tmp_path, 20)
        first, same, other = (sample_pictures(paths, SIZE, 5, seed, images.DEFAULTS) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()

    def test_for_one_that_cannot_be_read_comes_another(self, flawed: list[str]) -> None:
        found = sample_pictures(flawed, SIZE, 4, 0, SMALL_ONLY)
        expected = {images.load(flawed[number]).pixels.tobytes() for number in (0, 3, 5, 6)}
        assert {picture.tobytes() for picture in found} == expected

    @pytest.mark.parametrize("count", [5, 100, 10**15])
    def test_are_fewer_where_there_are_no_more(self, count: int, flawed: list[str]) -> None:
        assert len(sample_pictures(flawed, SIZE, count, 0, SMALL_ONLY)) == 4
        assert sample_pictures([], SIZE, count, 0, SMALL_ONLY).shape == (0, 8, 10, 3)


class TestCommonSize:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[str]:
        return write(tmp_path, 9)

    def test_is_that_of_all(self, paths: list[str]) -> None:
        assert common_size(paths, images.DEFAULTS, 0) == SIZE

    def test_is_none_where_one_differs(self, paths: list[str]) -> None:
        images.save(paths[4], noise(8, 11, 0), force=True)
        for seed in range(5):
            assert common_size(paths, images.DEFAULTS, seed) is None

    def test_is_that_of_the_upright_pictures(self, paths: list[str]) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(noise(10, 8, 0)).save(paths[4], exif=exif)
        assert common_size(paths, images.DEFAULTS, 0) == SIZE

    def test_is_that_of_those_that_can_be_read(self, flawed: list[str]) -> None:
        assert common_size(flawed, SMALL_ONLY, 0) == SIZE
        assert common_size([flawed[2], flawed[4]], images.DEFAULTS, 0) is None
        assert common_size([], images.DEFAULTS, 0) is None

    def test_of_many_only_some_are_looked_at(self, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        read_bytes = images.read_bytes
        monkeypatch.setattr(images, "read_bytes", lambda path: read.append(path) or read_bytes(path))
        monkeypatch.setattr(engine, "_SIZES_COMPARED", 5)
        assert common_size(paths, images.DEFAULTS, 3) == SIZE
        assert len(set(read)) == 5
        assert read != paths[:5]
