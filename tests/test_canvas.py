"""A canvas takes tiles in any order, saves what Pillow would save of the whole picture, and needs little memory."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from featkit import canvas, images
from featkit.canvas import Canvas, bytes_to_save, check_format
from featkit.errors import OutputError, OutputExists, UsageError

Pixels = npt.NDArray[np.uint8]

EXTENSIONS = [".jpg", ".png", ".tif", ".webp"]
IN_MEMORY, IN_A_FILE = 2**30, 0


def picture(width: int, height: int, *, hole: bool = False) -> Pixels:
    """A smooth and noisy one, uint8 H×W×4; with a hole, transparent black in its right half."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 3, y * 2, x + y], 2) % 200
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., :3] = smooth + random.integers(0, 40, smooth.shape)
    if hole:
        pixels[:, width // 2 :] = 0
    return pixels


def canvas_of(pixels: Pixels, folder: Path, memory_bytes: int = IN_A_FILE) -> Canvas:
    filled = Canvas((pixels.shape[1], pixels.shape[0]), memory_bytes=memory_bytes, folder=folder)
    filled.put(0, 0, pixels)
    return filled


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def read_back(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small pictures have many."""
    monkeypatch.setattr(canvas, "_BLOCK_BYTES", 5000)


# --- tiles and windows


def tiles(width: int, height: int, side: int) -> Iterator[tuple[int, int, slice, slice]]:
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield x, y, slice(y, y + side), slice(x, x + side)


@pytest.mark.parametrize("memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_tiles_in_any_order_from_several_threads_make_the_picture(tmp_path: Path, memory_bytes: int) -> None:
    whole = picture(301, 203, hole=True)
    places = list(tiles(301, 203, 37))
    np.random.default_rng(1).shuffle(places)  # type: ignore[arg-type]

    with Canvas((301, 203), memory_bytes=memory_bytes, folder=tmp_path) as made:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda place: made.put(place[0], place[1], whole[place[2:]]), places))

        np.testing.assert_array_equal(made.read(0, 0, 301, 203), whole)
        np.testing.assert_array_equal(made.read(40, 7, 100, 11), whole[7:18, 40:140])
        np.testing.assert_array_equal(made.read(0, 100, 301, 5), whole[100:105])


@pytest.mark.parametrize("memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_what_nothing_was_put_on_is_transparent_black(tmp_path: Path, memory_bytes: int) -> None:
    with Canvas((50, 40), memory_bytes=memory_bytes, folder=tmp_path) as made:
        made.put(10, 10, picture(5, 5))

        np.testing.assert_array_equal(made.read(10, 10, 5, 5), picture(5, 5))
        assert not made.read(15, 0, 35, 40).any()


def test_a_window_is_a_copy(tmp_path: Path) -> None:
    with canvas_of(picture(8, 8), tmp_path, IN_MEMORY) as made:
        made.read(0, 0, 8, 8)[:] = 0

        np.testing.assert_array_equal(made.read(0, 0, 8, 8), picture(8, 8))


@pytest.mark.parametrize("memory_bytes", [IN_MEMORY, IN_A_FILE])
@pytest.mark.parametrize(
    "window", [(-1, 0, 2, 2), (0, -1, 2, 2), (7, 0, 2, 2), (0, 7, 2, 2), (0, 0, 0, 2), (9, 9, 1, 1)]
)
def test_a_window_lies_inside(tmp_path: Path, memory_bytes: int, window: tuple[int, int, int, int]) -> None:
    x, y, width, height = window
    with canvas_of(picture(8, 8), tmp_path, memory_bytes) as made:
        with pytest.raises(ValueError, match="not inside 8 × 8"):
            made.read(*window)
        with pytest.raises(ValueError, match="not inside 8 × 8"):
            made.put(x, y, np.zeros((height, width, 4), np.uint8))
        with pytest.raises(ValueError, match="not inside 8 × 8"):
            made.save(tmp_path / "a.png", region=window)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4))])
def test_only_rgba_is_put(tmp_path: Path, pixels: Pixels) -> None:
    with canvas_of(picture(8, 8), tmp_path, IN_MEMORY) as made, pytest.raises(ValueError, match="uint8 H×W×4"):
        made.put(0, 0, pixels)


def test_a_canvas_has_pixels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 × 5"):
        Canvas((0, 5), memory_bytes=0, folder=tmp_path)


@pytest.mark.parametrize("memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_a_closed_canvas_is_of_no_use(tmp_path: Path, memory_bytes: int) -> None:
    made = canvas_of(picture(8, 8), tmp_path, memory_bytes)
    made.close()
    made.close()

    with pytest.raises(ValueError, match="closed"):
        made.read(0, 0, 8, 8)
    with pytest.raises(ValueError, match="closed"):
        made.put(0, 0, picture(8, 8))


def test_the_temporary_file_is_sparse_and_cannot_be_left_behind(tmp_path: Path) -> None:
    before = os.statvfs(tmp_path)
    with Canvas((100_000, 100_000), memory_bytes=2**20, folder=tmp_path) as made:  # 40 GB
        made.put(99_000, 99_000, picture(100, 100))

        np.testing.assert_array_equal(made.read(99_000, 99_000, 100, 100), picture(100, 100))
        assert names(tmp_path) == []
        assert (before.f_bfree - os.statvfs(tmp_path).f_bfree) * before.f_frsize < 10e9


# --- formats


SIZES = [(1, 1), (7, 64), (200, 65), (8, 127), (333, 128), (150, 201)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("extension", [".png", ".tif", ".TIFF"])
def test_png_and_tiff_are_exact(tmp_path: Path, size: tuple[int, int], extension: str) -> None:
    pixels = picture(*size)
    path = tmp_path / f"made{extension}"

    with canvas_of(pixels, tmp_path) as made:
        made.save(path, jobs=3)

    assert names(tmp_path) == [path.name]
    np.testing.assert_array_equal(images.load(path).pixels, pixels[..., :3])
    np.testing.assert_array_equal(read_back(path), pixels[..., :3])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("extension", [".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("quality", [20, 92, 100])
def test_jpeg_and_webp_are_what_pillow_makes_of_the_whole(
    tmp_path: Path, size: tuple[int, int], extension: str, quality: int
) -> None:
    pixels = picture(*size)
    path = tmp_path / f"made{extension}"

    with canvas_of(pixels, tmp_path) as made:
        made.save(path, jobs=2, quality=quality)

    whole = images.decode(images.encode(np.ascontiguousarray(pixels[..., :3]), extension, quality=quality))
    np.testing.assert_array_equal(images.load(path).pixels, whole)
    np.testing.assert_array_equal(read_back(path), whole)


def test_a_jpeg_is_one_baseline_scan_at_full_colour_resolution(tmp_path: Path) -> None:
    with canvas_of(picture(100, 200), tmp_path) as made:
        made.save(tmp_path / "a.jpg")

    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info.get("progressive") is None
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # type: ignore[attr-defined]
    data = (tmp_path / "a.jpg").read_bytes()
    assert [data.count(marker) for marker in (b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xd9")] == [1, 1, 1, 1]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_alpha_where_the_format_has_it_and_a_pixel_is_transparent(tmp_path: Path, extension: str) -> None:
    pixels = picture(90, 130, hole=True)
    path = tmp_path / f"made{extension}"

    with canvas_of(pixels, tmp_path) as made:
        made.save(path)
        made.save(tmp_path / f"opaque{extension}", region=(0, 0, 45, 130))

    assert read_back(tmp_path / f"opaque{extension}").shape == (130, 45, 3)
    saved = read_back(path)
    if extension == ".jpg":
        assert saved.shape == (130, 90, 3)
        assert saved[:, 60:].max() < 10
        return
    np.testing.assert_array_equal(saved[..., 3], pixels[..., 3])
    assert (images.load(path).pixels[:, 60:] == 255).all()  # composited on white
    if extension != ".webp":
        np.testing.assert_array_equal(saved, pixels)


def test_one_transparent_pixel_is_enough(tmp_path: Path) -> None:
    pixels = picture(300, 300)
    pixels[299, 299, 3] = 254

    with canvas_of(pixels, tmp_path) as made:
        made.save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_back(tmp_path / "a.png"), pixels)


def test_tags_of_a_tiff(tmp_path: Path) -> None:
    with canvas_of(picture(40, 30, hole=True), tmp_path) as made:
        made.save(tmp_path / "a.tif")
        made.save(tmp_path / "b.tif", region=(0, 0, 10, 10))

    with Image.open(tmp_path / "a.tif") as image:
        tags = dict(image.tag_v2)  # type: ignore[attr-defined]
    assert tags[338] == (2,)  # ExtraSamples: unassociated alpha
    assert (tags[262], tags[277], tags[258]) == (2, 4, (8, 8, 8, 8))  # RGB, and one more sample
    assert (tags[259], tags[317]) == (8, 2)  # deflate after horizontal differencing
    assert {270, 305, 306}.isdisjoint(tags)  # no description, software or date
    with Image.open(tmp_path / "b.tif") as image:
        assert 338 not in image.tag_v2  # type: ignore[attr-defined]


def test_a_tiff_that_could_exceed_4_gb_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = picture(100, 100)
    monkeypatch.setattr(canvas, "_LARGEST_CLASSIC_TIFF", 100 * 100 * 3 - 1)

    with canvas_of(pixels, tmp_path) as made:
        made.save(tmp_path / "big.tif")
        made.save(tmp_path / "classic.tif", region=(0, 0, 99, 100))

    assert (tmp_path / "big.tif").read_bytes()[:4] == b"II\x2b\x00"
    assert (tmp_path / "classic.tif").read_bytes()[:4] == b"II\x2a\x00"
    np.testing.assert_array_equal(read_back(tmp_path / "big.tif"), pixels[..., :3])
    np.testing.assert_array_equal(images.load(tmp_path / "big.tif").pixels, pixels[..., :3])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_same_pixels_give_the_same_bytes(tmp_path: Path, extension: str) -> None:
    for number, (memory_bytes, jobs) in enumerate([(IN_MEMORY, 1), (IN_A_FILE, 1), (IN_A_FILE, 5), (IN_MEMORY, 5)]):
        with canvas_of(picture(150, 300, hole=True), tmp_path, memory_bytes) as made:
            made.save(tmp_path / f"{number}{extension}", jobs=jobs)
            made.save(tmp_path / f"again{extension}", jobs=jobs, force=True)

    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_a_region_is_saved_as_if_it_were_the_picture(tmp_path: Path, extension: str, memory_bytes: int) -> None:
    pixels = picture(200, 180, hole=True)

    with canvas_of(pixels, tmp_path, memory_bytes) as made:
        made.save(tmp_path / f"region{extension}", region=(33, 11, 120, 150))
    with canvas_of(pixels[11:161, 33:153], tmp_path) as made:
        made.save(tmp_path / f"alone{extension}")

    assert (tmp_path / f"region{extension}").read_bytes() == (tmp_path / f"alone{extension}").read_bytes()


@pytest.mark.parametrize("name", ["a[1].png", "[Q=1].jpg", "-x.tif", "Zür ich\n.webp", "a.b.PNG", "latin-\udcfc.png"])
def test_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with canvas_of(picture(20, 20), Path(), IN_A_FILE) as made:
        made.save(name)

    assert names(tmp_path) == [name]
    assert images.load(name).size == (20, 20)


# --- what cannot be


@pytest.mark.parametrize("name", ["a.bmp", "a.png.gif", "a", ".png"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as early:
        check_format(name)
    with canvas_of(picture(2, 2), tmp_path) as made, pytest.raises(UsageError) as late:
        made.save(tmp_path / name)

    assert early.value.path == name
    assert early.value.message == late.value.message
    assert early.value.hint == "use one of .jpg .jpeg .png .tif .tiff .webp"
    assert names(tmp_path) == []


@pytest.mark.parametrize(("extension", "most"), [(".jpg", 65500), (".JPEG", 65500), (".webp", 16383)])
def test_a_size_that_the_format_cannot_hold_is_refused(tmp_path: Path, extension: str, most: int) -> None:
    check_format(f"a{extension}", (most, most))
    for size in [(most + 1, 1), (1, most + 1)]:
        with pytest.raises(UsageError, match=f"at most {most} a side") as early:
            check_format(f"a{extension}", size)
        with Canvas(size, memory_bytes=0, folder=tmp_path) as made:
            with pytest.raises(UsageError, match="at most"):
                made.save(tmp_path / f"a{extension}")
            made.save(tmp_path / f"part{extension}", region=(0, 0, 1, 1), force=True)

    assert early.value.hint is not None
    assert ".tif or .png" in early.value.hint


def test_widest_jpeg(tmp_path: Path) -> None:
    with Canvas((65500, 66), memory_bytes=0, folder=tmp_path) as made:
        made.put(65000, 60, picture(500, 6))
        made.save(tmp_path / "a.jpg")

    assert read_back(tmp_path / "a.jpg").shape == (66, 65500, 3)


def test_png_and_tiff_hold_any_size(tmp_path: Path) -> None:
    with Canvas((1_100_000, 2), memory_bytes=0, folder=tmp_path) as made:
        for extension in (".png", ".tif"):
            made.save(tmp_path / f"a{extension}")
            assert images.load(tmp_path / f"a{extension}").size == (1_100_000, 2)


def test_only_webp_needs_more_memory_for_more_pixels() -> None:
    assert bytes_to_save("a.jpg", (20000, 5000)) == bytes_to_save("a.TIF", (200_000, 50_000)) < 2**27
    assert bytes_to_save("a.webp", (16000, 5000)) > 1e9
    with pytest.raises(UsageError):
        bytes_to_save("a.webp", (20000, 5000))


def test_an_existing_file_is_overwritten_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"precious")

    with canvas_of(picture(2, 2), tmp_path) as made:
        with pytest.raises(OutputExists):
            made.save(tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes() == b"precious"
        made.save(tmp_path / "a.png", force=True)

    assert images.load(tmp_path / "a.png").size == (2, 2)


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no temporary file can be kept there") as caught:
        Canvas((10, 10), memory_bytes=0, folder=tmp_path / "missing")
    assert caught.value.path == str(tmp_path / "missing")
    Canvas((10, 10), memory_bytes=400, folder=tmp_path / "missing").close()  # not needed

    with canvas_of(picture(2, 2), tmp_path) as made, pytest.raises(OutputError, match="there is no folder"):
        made.save(tmp_path / "missing" / "a.png")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_under_the_canvas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with Canvas((30_000, 10_000), memory_bytes=0, folder=tmp_path) as made:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError) as caught:
            made.put(0, 0, picture(10, 10))

    assert caught.value.path == str(tmp_path)
    assert caught.value.message == "the disk is full: while the picture is made, it takes up to 1.2 GB there"
    assert caught.value.hint == "free some space, or make a smaller picture with --scale"
    assert names(tmp_path) == []


def test_writes_and_reads_that_are_cut_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:7], offset))
    monkeypatch.setattr(os, "pread", lambda file, count, offset: read(file, min(count, 5), offset))

    with canvas_of(picture(20, 10), tmp_path) as made:
        np.testing.assert_array_equal(made.read(0, 0, 20, 10), picture(20, 10))


def run_python(source: str, folder: Path) -> str:
    """The output of a Python program that runs in `folder`; the test fails if it fails or writes to stderr."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LIMITED = """
import json, resource
import numpy as np
from featkit.canvas import Canvas
from featkit.errors import OutputError
pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 4), np.uint8)
errors = []
with Canvas((200, 200), memory_bytes=2**30, folder=".") as made:
    made.put(0, 0, pixels)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    for path in ("a.jpg", "a.png", "a.tif", "a.webp"):
        try:
            made.save(path, force=True)
        except OutputError as error:
            errors.append([error.path, error.message])
try:
    Canvas((200, 200), memory_bytes=0, folder=".")
except OutputError as error:
    errors.append([error.path, error.message])
print(json.dumps(errors))
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As on a full disk: the error says it, and nothing is left, and an older file stays."""
    (tmp_path / "a.tif").write_bytes(b"precious")

    *saved, made = json.loads(run_python(LIMITED, tmp_path))

    message = "the file would be larger than this system allows"
    assert saved == [[f"a{extension}", message] for extension in EXTENSIONS]
    assert made == [".", "a temporary file of 0.0 GB would be larger than this system allows"]
    assert names(tmp_path) == ["a.tif"]
    assert (tmp_path / "a.tif").read_bytes() == b"precious"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, error: type[BaseException]
) -> None:
    read, calls = Canvas.read, []

    def failing(made: Canvas, x: int, y: int, width: int, height: int) -> Pixels:
        calls.append(y)
        if y + height == 300:
            raise error
        return read(made, x, y, width, height)

    monkeypatch.setattr(Canvas, "read", failing)
    with pytest.raises(error), canvas_of(picture(100, 300), tmp_path) as made:
        made.save(tmp_path / f"a{extension}", jobs=2)

    assert calls
    assert names(tmp_path) == []


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Whoever started the tests may have had SIGINT ignored, as a shell does for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_a_long_save_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = Canvas.read, []

    def interrupting(made: Canvas, x: int, y: int, width: int, height: int) -> Pixels:
        calls.append(y)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        if len(calls) >= 3:
            time.sleep(0.02)  # the main thread, which has to notice, may have to wait for a processor
        return read(made, x, y, width, height)

    monkeypatch.setattr(Canvas, "read", interrupting)
    with pytest.raises(KeyboardInterrupt), Canvas((1000, 200_000), memory_bytes=0, folder=tmp_path) as made:
        made.save(tmp_path / "a.tif", jobs=2)

    assert len(calls) < 500  # of some 760, which would take eight seconds
    assert names(tmp_path) == []


MEASURED = """
import json, sys
import numpy as np
import tifffile
from PIL import Image
from featkit.canvas import Canvas
from featkit.opencv import cv2

def most_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

tile = np.random.default_rng(0).integers(90, 110, (500, 500, 4), np.uint8)
tile[..., 3] = 255
base = most_memory()
with Canvas((8000, 6000), memory_bytes=2**20, folder=".") as made:
    for y in range(0, 6000, 500):
        for x in range(0, 8000, 500):
            made.put(x, y, tile)
    for path in ("a.jpg", "a.png", "a.tif"):
        made.save(path, jobs=4)
print(json.dumps([base, most_memory()]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory")
def test_a_large_picture_takes_little_memory(tmp_path: Path) -> None:
    base, most = json.loads(run_python(MEASURED, tmp_path))

    assert most - base < 100  # MB; the canvas has 192, and the base with its libraries about 60
    assert names(tmp_path) == ["a.jpg", "a.png", "a.tif"]
