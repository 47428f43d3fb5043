"""`featkit stitch` as a user meets it: what is placed and what is named, what is printed and written, what is refused,
how it ends."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from bad_pictures import as_stored, deep_png, exif, pillow
from conftest import FEATKIT, Refusal, Run, complaint_of, on_terminal, records_of, tried
from PIL import Image
from rendered_views import COPY, CUT, FLAT, SIZE, STRANGER, TURNED, make_album
from scipy.ndimage import label

from featkit.cli.stitch_run import NOTHING_JOINED, SOME_LEFT_OUT
from featkit.images import load
from featkit.stitching.compositing import BLENDS
from featkit.stitching.config import CROPS, EXPOSURES, StitchConfig
from featkit.stitching.placing import MODELS
from featkit.stitching.projection import PROJECTIONS
from featkit.stitching.seams import SEAMS
from featkit.stitching.views import View

PAIR = TURNED[:2]


@dataclass(frozen=True)
class Stitching:
    """One run on all photos of an album. truth: see `make_album`. folder: the album's, with poses.json and out/ beside
    the photos: pano-1.jpg, pano-2.jpg and debug/. cache: warm from now on. records: what it printed."""

    folder: Path
    cache: Path
    truth: dict[str, np.ndarray]
    status: int
    errors: str
    records: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == kind]


@pytest.fixture(scope="session")
def stitched(tmp_path_factory: pytest.TempPathFactory) -> Stitching:
    folder, cache = tmp_path_factory.mktemp("album"), tmp_path_factory.mktemp("cache")
    truth = make_album(folder)
    (folder / "out").mkdir()
    files = ["-o", "out/pano.jpg", "--poses", "poses.json", "--debug-dir", "out/debug"]
    run = subprocess.run(
        [*FEATKIT, "stitch", ".", *files, "--json", "--jobs", "2"],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "FEATKIT_CACHE": str(cache)},
        timeout=300,
    )
    records = [json.loads(line, parse_constant=_no_number) for line in run.stdout.splitlines()]
    return Stitching(folder, cache, truth, run.returncode, run.stderr.decode(), records)


def _no_number(name: str) -> NoReturn:
    raise AssertionError(f"{name} in a record")


@pytest.fixture
def album(stitched: Stitching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`, where `featkit` runs, with the photos of the album and its poses.json, and a warm cache."""
    for path in stitched.folder.glob("*.jpg"):
        (tmp_path / path.name).symlink_to(path)
    shutil.copy(stitched.folder / "poses.json", tmp_path)
    monkeypatch.setenv("FEATKIT_CACHE", str(stitched.cache))
    return tmp_path


def names_of(record: dict[str, Any]) -> list[str]:
    return [Path(image["path"]).name for image in record["images"]]


def distances_px(record: dict[str, Any], truth: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of each two photos that overlap by 8 % or more: how far from the truth the pixels of one lie in the other."""
    views = {
        Path(image["path"]).name: View(
            tuple(image["size"]), np.array(image["to_world"]), image["focal_px"], tuple(image["distortion"])
        )
        for image in record["images"]
    }
    found = []
    for (a, first), (b, second) in itertools.permutations(views.items(), 2):
        last = np.array(first.size) - 1
        x, y = (axis.ravel() for axis in np.meshgrid(*(np.linspace(5, end - 5, 18) for end in last)))
        *there, depth = np.linalg.inv(truth[b]) @ truth[a] @ [x, y, np.ones_like(x)]
        place = np.stack(there, 1) / depth[:, None]
        shared = ((place >= 0) & (place <= last)).all(1) & (depth > 0)
        if shared.mean() >= 0.08:
            lifted = first.lift(np.stack([x, y], 1)[shared])
            found.append(np.linalg.norm(second.project(lifted) - place[shared], axis=1))
    return found


def rms(distances: list[np.ndarray]) -> float:
    return float(np.sqrt((np.concatenate(distances) ** 2).mean()))


def worst_pair_px(record: dict[str, Any], truth: dict[str, np.ndarray]) -> float:
    return max(rms([pair]) for pair in distances_px(record, truth))


def files_in(folder: Path) -> list[str]:
    """Names of all files, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what is placed


class TestAlbum:
    """Two panoramas, and three photos that belong to none, in one folder."""

    def test_every_panorama_is_made(self, stitched: Stitching) -> None:
        assert stitched.status == SOME_LEFT_OUT
        found = {record["output"]: sorted(names_of(record)) for record in stitched.of("panorama")}
        assert sorted(found) == ["out/pano-1.jpg", "out/pano-2.jpg"]
        assert sorted(found.values()) == [FLAT, TURNED]
        for record in stitched.of("panorama"):
            assert load(stitched.folder / record["output"]).size == tuple(record["size"])
            assert (record["placed"], record["total"]) == (4, 11)

    def test_every_photo_is_where_it_belongs(self, stitched: Stitching) -> None:
        for record in stitched.of("panorama"):
            assert worst_pair_px(record, stitched.truth) < 0.5

    def test_the_record_of_a_panorama(self, stitched: Stitching) -> None:
        for record in stitched.of("panorama"):
            assert (record["v"], record["model"] in MODELS, record["projection"]) == (1, True, "planar")
            assert 0 < record["held_out_px"]["median"] <= record["held_out_px"]["p95"] < 2
            assert record["worst_pair"]["held_out_px"] == record["held_out_px"]["worst_pair"]
            assert {record["worst_pair"][side] for side in "ab"} <= {image["path"] for image in record["images"]}
            assert record["overlap_psnr_db"] > 25
            assert {"matching", "adjusting", "drawing", "saving"} <= set(record["seconds"])
            for image in record["images"]:
                assert image["size"] == list(SIZE)
                assert np.shape(image["to_world"]) == (3, 3)
                assert (image["focal_px"] is None) == (record["model"] == "planar")
                assert np.shape(image["distortion"]) == (2,)
                assert np.shape(image["gain"]) == (3,)

    def test_exposure_is_evened_out(self, stitched: Stitching) -> None:
        """Photos are a little brighter from one to the next: the gains undo that."""
        for record in stitched.of("panorama"):
            gain = {
                name: np.mean(image["gain"]) for name, image in zip(names_of(record), record["images"], strict=True)
            }
            first, *_, last = sorted(gain)
            exposures = [0.9 + 0.03 * list(stitched.truth).index(name) for name in (first, last)]
            assert gain[first] / gain[last] == pytest.approx(exposures[1] / exposures[0], rel=0.02)

    def test_every_photo_left_out_is_named(self, stitched: Stitching) -> None:
        left_out = {Path(record["path"]).name: record for record in stitched.of("left_out")}
        assert sorted(left_out) == sorted([STRANGER, COPY, CUT])
        assert all(
            set(each) == {"v", "type", "path", "reason", "matches", "nearest", "hint"} for each in left_out.values()
        )
        assert "shares nothing with any other photo" in left_out[STRANGER]["reason"]
        assert left_out[STRANGER]["matches"] < 10
        assert "should overlap by a third" in left_out[STRANGER]["hint"]
        assert left_out[COPY]["reason"] == f"it is the same picture as {left_out[COPY]['nearest']}"
        assert Path(left_out[COPY]["nearest"]).name == TURNED[0]
        assert "could not be read: it is damaged" in left_out[CUT]["reason"]

    def test_what_cannot_be_read_is_an_error_too(self, stitched: Stitching) -> None:
        [error] = stitched.of("error")
        assert (Path(error["path"]).name, error["code"]) == (CUT, "damaged")
        assert re.fullmatch(rf"featkit: error: \./{CUT}: it is damaged: [^\n]*\n", stitched.errors)

    def test_what_happened_is_drawn(self, stitched: Stitching) -> None:
        drawn = {path.name: load(path).size for path in (stitched.folder / "out" / "debug").iterdir()}
        assert {"graph.png", "matches-turned-1-turned-2.jpg", "matches-flat-1-flat-2.jpg"} <= set(drawn)
        for number in (1, 2):
            assert {f"seams-{number}.jpg", f"exposure-before-{number}.jpg", f"exposure-after-{number}.jpg"} <= set(
                drawn
            )
        assert min(min(size) for size in drawn.values()) > 100

    def test_nothing_else_is_left(self, stitched: Stitching) -> None:
        files = [*stitched.truth, STRANGER, COPY, CUT, "out", "poses.json"]
        assert sorted(path.name for path in stitched.folder.iterdir()) == sorted(files)
        assert not [name for name in files_in(stitched.folder / "out") if Path(name).name.startswith(".")]

    def test_lines_for_people(self, featkit: Run, album: Path) -> None:
        run = featkit("stitch", ".", "-o", "pano.jpg")

        lines = run.stdout.decode().splitlines()
        assert run.returncode == SOME_LEFT_OUT
        what = r"4 of 11 photos · \d{3} × \d{3} · planar (model|projection) · fits to 0\.\d px"
        assert all(re.fullmatch(rf"pano-{number}\.jpg  {what}", lines[number - 1]) for number in (1, 2)), lines
        assert sorted(line.split("  left out · ")[0] for line in lines[2:]) == sorted(
            f"./{name}" for name in (STRANGER, COPY, CUT)
        )
        hints = [line for line in run.stderr.decode().splitlines() if line.startswith("hint: ")]
        assert len(hints) == 2  # what cannot be read has its own, above


class TestAlwaysTheSame:
    @pytest.mark.parametrize("arguments", [["--jobs", "1"], ["--jobs", "3", "--no-cache"], ["--max-memory", "250M"]])
    def test_bytes(self, featkit: Run, stitched: Stitching, album: Path, arguments: list[str]) -> None:
        """Cold and warm, with one worker and with several, with much memory and with little."""
        featkit("stitch", ".", "-o", "pano.jpg", *arguments)
        for name in ("pano-1.jpg", "pano-2.jpg"):
            assert (album / name).read_bytes() == (stitched.folder / "out" / name).read_bytes()

    def test_the_order_of_the_photos_does_not_decide_what_is_placed(
        self, featkit: Run, stitched: Stitching, album: Path
    ) -> None:
        names = [FLAT[2], TURNED[3], TURNED[0], STRANGER, FLAT[3], FLAT[0], TURNED[2], FLAT[1], TURNED[1]]

        found = records_of(featkit("stitch", "-", "-o", "pano.jpg", "--json", stdin="\n".join(names).encode()))

        panoramas = [record for record in found if record["type"] == "panorama"]
        assert sorted(sorted(names_of(record)) for record in panoramas) == [FLAT, TURNED]
        assert all(worst_pair_px(record, stitched.truth) < 0.5 for record in panoramas)
        assert [record["path"] for record in found if record["type"] == "left_out"] == [STRANGER]


def test_photos_of_every_kind(featkit: Run, album: Path, stitched: Stitching) -> None:
    """Turned by EXIF, grey, 16 bits, transparent; among them what shows nothing: blank, tiny, a strip."""
    pixels = [load(album / name).pixels for name in TURNED]
    (album / "exif.jpg").write_bytes(
        pillow(np.ascontiguousarray(as_stored(pixels[0], 6)), "JPEG", quality=95, exif=exif(6))
    )
    (album / "grey.png").write_bytes(pillow(Image.fromarray(pixels[1]).convert("L"), "PNG"))
    (album / "deep.png").write_bytes(deep_png(pixels[2].astype(np.uint16) * 257))
    hole = np.full(pixels[3].shape[:2], 255, np.uint8)
    hole[100:120, 100:120] = 0
    (album / "alpha.png").write_bytes(pillow(np.dstack([pixels[3], hole]), "PNG"))
    strip = np.random.default_rng(0).integers(0, 255, (1, 5000, 3), dtype=np.uint8)
    nothing = {"blank.png": np.full((240, 320, 3), 90, np.uint8), "dots.png": strip[:, :2], "strip.png": strip}
    for name, photo in nothing.items():
        Image.fromarray(photo).save(album / name)
    names = ["exif.jpg", "grey.png", "deep.png", "alpha.png"]

    run = featkit("stitch", *names, *nothing, "-o", "pano.png", "--json")

    [panorama, *left_out] = records_of(run)
    assert run.returncode == SOME_LEFT_OUT
    assert names_of(panorama) == names
    truth = {name: stitched.truth[turned] for name, turned in zip(names, TURNED, strict=True)}
    assert worst_pair_px(panorama, truth) < 1
    assert {record["path"]: record["reason"] for record in left_out} == dict.fromkeys(
        nothing, "there is nothing in it to match: it is blank, or too small"
    )


@pytest.mark.parametrize(
    ("names", "status", "reasons"),
    [
        ([TURNED[0], STRANGER], NOTHING_JOINED, ["shares nothing with any other photo"] * 2),
        ([TURNED[0], COPY], NOTHING_JOINED, ["nothing but the same picture again", "the same picture as"]),
        ([TURNED[0], CUT], 2, ["no photo that it could belong to can be read", "could not be read"]),
        (["missing.jpg", CUT], 2, ["could not be read: there is no such file", "could not be read"]),
    ],
    ids=["strangers", "twins", "one readable", "none readable"],
)
def test_no_panorama(featkit: Run, album: Path, names: list[str], status: int, reasons: list[str]) -> None:
    before = files_in(album)

    run = featkit("stitch", *names, "-o", "pano.jpg", "--json", "--poses", "new.json", "--debug-dir", "debug")

    left_out = [record for record in records_of(run) if record["type"] == "left_out"]
    assert run.returncode == status
    assert [record["path"] for record in left_out] == names
    assert all(reason in record["reason"] for reason, record in zip(reasons, left_out, strict=True))
    assert all(record["hint"] for record in left_out)
    assert [name for name in files_in(album) if name not in before and not name.startswith("debug")] == []


# --- how it is drawn


def test_every_option_of_the_picture(featkit: Run, album: Path) -> None:
    """From the poses: nothing is matched. What the photos do not cover is transparent, unless it is cropped away."""
    drawn = {}
    for name, options in {
        "plain.png": [],
        "round.png": ["--projection", "spherical", "--blend", "feather", "--seams", "voronoi", "--exposure", "gain"],
        "cut.webp": ["--crop", "auto", "--scale", "0.5", "--blend", "none", "--seams", "dp", "--exposure", "none"],
        "large.tif": ["--scale", "1.5", "--reference", f"./{TURNED[3]}", "--seams", "none"],
    }.items():
        run = featkit("stitch", *TURNED, "--poses", "poses.json", "-o", name, "--json", *options)
        assert run.returncode == 0, run.stderr
        [record] = records_of(run)
        assert "matching" not in record["seconds"]
        with Image.open(album / name) as image:
            assert list(image.size) == record["size"]
            drawn[name] = (record["projection"], image.mode, np.asarray(image), record["images"])

    assert {name: (projection, mode) for name, (projection, mode, _, _) in drawn.items()} == {
        "plain.png": ("planar", "RGBA"),
        "round.png": ("spherical", "RGBA"),
        "cut.webp": ("planar", "RGB"),
        "large.tif": ("planar", "RGBA"),
    }
    for name in ("plain.png", "round.png", "large.tif"):
        empty, count = label(drawn[name][2][:, :, 3] == 0)
        assert 0 < (empty > 0).mean() < 0.5
        edges = np.concatenate([empty[0], empty[-1], empty[:, 0], empty[:, -1]])
        assert set(range(1, count + 1)) <= set(edges)  # all around, and no hole within
    assert drawn["cut.webp"][2].shape[1] < drawn["plain.png"][2].shape[1] / 2
    assert drawn["large.tif"][2].shape[1] == pytest.approx(1.5 * drawn["plain.png"][2].shape[1], abs=8)
    assert drawn["large.tif"][3][3]["gain"] == pytest.approx([1, 1, 1], abs=0.02)
    assert drawn["cut.webp"][3][3]["gain"] == [1, 1, 1]


@pytest.mark.parametrize("model", ["rotation", "planar"])
def test_a_model_that_is_asked_for(featkit: Run, album: Path, model: str, stitched: Stitching) -> None:
    [record] = records_of(featkit("stitch", *FLAT, "--model", model, "-o", "pano.jpg", "--json"))

    assert record["model"] == model
    assert sorted(names_of(record)) == FLAT
    if model == "planar":
        assert worst_pair_px(record, stitched.truth) < 0.5


def test_stdout_gets_the_bytes_of_a_file(featkit: Run, album: Path) -> None:
    featkit("stitch", *PAIR, "-o", "pano.png")

    run = featkit("stitch", *PAIR, STRANGER, "-o", "-", "--format", "PNG")

    assert run.returncode == SOME_LEFT_OUT
    assert run.stdout == (album / "pano.png").read_bytes()
    assert run.stderr.decode().startswith(f"{STRANGER}  left out · ")


def test_of_several_panoramas_stdout_gets_one(featkit: Run, album: Path) -> None:
    run = featkit("stitch", "--poses", "poses.json", "-o", "-", "--format", "jpg", "--quiet")

    assert run.returncode == 0
    assert run.stdout.startswith(b"\xff\xd8")
    assert run.stderr == b"featkit: warning: there are 2 panoramas, and stdout takes one: that of most photos\n"


# --- poses


class TestPoses:
    def test_they_draw_the_same_again(self, featkit: Run, stitched: Stitching, album: Path) -> None:
        """Without naming a photo, and without a cache."""
        run = featkit("stitch", "--poses", stitched.folder / "poses.json", "-o", "pano.jpg", "--no-cache")

        assert run.returncode == 0
        for name in ("pano-1.jpg", "pano-2.jpg"):
            assert (album / name).read_bytes() == (stitched.folder / "out" / name).read_bytes()

    def test_some_of_the_photos_under_other_names(self, featkit: Run, album: Path) -> None:
        """Of one panorama two photos, of the other one, which is left out, as are a stranger and what has changed."""
        (album / TURNED[1]).rename(album / "new name.jpg")
        (album / TURNED[2]).unlink()
        shutil.copy(album / TURNED[3], album / TURNED[2])
        with (album / TURNED[2]).open("ab") as file:
            file.write(b"changed")
        names = [TURNED[0], "new name.jpg", FLAT[0], STRANGER, TURNED[2]]

        run = featkit("stitch", *names, "--poses", "poses.json", "-o", "pano.jpg", "--json")

        [panorama, *left_out] = records_of(run)
        assert run.returncode == SOME_LEFT_OUT
        assert sorted(names_of(panorama)) == sorted(names[:2])
        assert {record["path"]: record["reason"].split(":")[0] for record in left_out} == {
            FLAT[0]: "no other photo of its panorama is named",
            STRANGER: "it is not in the file of poses",
            TURNED[2]: "it is not in the file of poses",
        }


def test_a_reference_that_is_left_out(featkit: Run, album: Path) -> None:
    run = featkit("stitch", *PAIR, STRANGER, "-o", "pano.jpg", "--reference", f"./{STRANGER}", "--quiet")

    assert run.returncode == SOME_LEFT_OUT
    assert run.stderr == b"featkit: warning: the reference is left out: the panorama follows another photo\n"


def test_names_of_every_kind(featkit: Run, album: Path) -> None:
    """Spaces, letters of other scripts, a line end, bytes that are not UTF-8, the same name in two folders."""
    (album / "one").mkdir()
    (album / "two").mkdir()
    names = ["one/a photo.jpg", "two/a photo.jpg", "two/фото 写真.jpg", os.fsdecode(b"two/a\nb\xff.jpg")]
    for name, photo in zip(names, TURNED, strict=True):
        try:
            (album / name).symlink_to(album / photo)
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")

    files = ["-o", os.fsdecode(b"p\xff.jpg"), "--debug-dir", "debug", "--poses", "new.json"]
    run = featkit("stitch", "one", "two", *files, "--json")
    again = featkit("stitch", "--poses", "new.json", "-o", "again.jpg")

    [record] = records_of(run)
    assert (run.returncode, again.returncode) == (0, 0)
    assert sorted(image["path"] for image in record["images"]) == sorted(names)
    assert (album / record["output"]).read_bytes() == (album / "again.jpg").read_bytes()
    drawn = {path.name for path in (album / "debug").glob("matches-*")}
    assert {"matches-a photo-a photo(2).jpg", "matches-a photo-a_b_.jpg"} <= drawn


# --- what is refused

PHOTOS = " ".join(PAIR)
STRANGE = {
    PHOTOS: "-o says where the panorama goes",
    f"{PHOTOS} -o": "option '-o' requires an argument",
    f"{PHOTOS} --output x.jpg --modle planar": "no such option: --modle (Possible options: --model",
    f"{PHOTOS} -o x.gif": "x.gif: panoramas cannot be written as '.gif'",
    f"{PHOTOS} -o x": "x: the panorama's name has no extension",
    f"{PHOTOS} -o nowhere/x.jpg": "nowhere/x.jpg: there is no folder nowhere",
    f"{PHOTOS} -o empty": "empty: the panorama's name has no extension",
    f"{PHOTOS} -o old.jpg": "old.jpg: exists already",
    f"{PHOTOS} -o ./{PAIR[0]} --force": f"./{PAIR[0]}: a photo that is stitched would be overwritten",
    f"--poses poses.json -o {PAIR[0]} --force": f"{PAIR[0]}: a photo that is stitched would be overwritten",
    f"{PHOTOS} -o -": "-o - needs --format",
    f"{PHOTOS} -o - --format gif": "-o - knows no --format gif",
    f"{PHOTOS} -o - --format png --json": "-o - and --json both want stdout",
    f"{PHOTOS} -o x.jpg --format png": "--format is for -o -",
    f"{PHOTOS} -o x.jpg --model sphere": "--model knows no 'sphere'",
    f"{PHOTOS} -o x.jpg --projection sphere": "--projection knows no 'sphere'",
    f"{PHOTOS} -o x.jpg --seams cut": "--seams knows no 'cut'",
    f"{PHOTOS} -o x.jpg --scale 0": "--scale must lie between 0.001 and 4",
    f"{PHOTOS} -o x.jpg --scale nan": "--scale must lie between 0.001 and 4",
    f"{PHOTOS} -o x.jpg --scale 1000": "--scale must lie between 0.001 and 4",
    f"{PHOTOS} -o x.jpg --scale half": "'half' is not a valid float",
    f"{PHOTOS} -o x.jpg --max-memory 1M": "--max-memory must be at least",
    f"{PHOTOS} -o x.jpg --max-memory much": "--max-memory is not a size: 'much'",
    f"{PHOTOS} -o x.jpg --reference missing.jpg": "the reference missing.jpg is not among the photos",
    f"{PHOTOS} -o x.jpg --jobs 0": "--jobs must be at least 1",
    f"{PHOTOS} -o x.jpg -0": "-0 is about a list, and there is none",
    f"{PHOTOS} -o x.jpg --poses x.jpg": "-o and --poses name the same file",
    f"{PHOTOS} -o x.jpg --poses old.jpg": "old.jpg: these are no poses: it is no JSON",
    f"{PHOTOS} -o x.jpg --poses newer.json": "it is of version 2, and this featkit reads version 1",
    f"{PHOTOS} -o x.jpg --poses none.json": "none.json: there is no panorama in this file of poses",
    f"{PHOTOS} -o x.jpg --poses poses.json --model planar": "these poses are of the rotation model, not planar",
    f"{TURNED[0]} {FLAT[0]} -o x.jpg --poses poses.json": "no two of these photos are in the same panorama",
    f"{PHOTOS} -o x.jpg --debug-dir old.jpg": "old.jpg: is a file, not a folder",
    f"{PHOTOS} -o x.jpg --debug-dir old.jpg/in": "is not a folder",
    f"{PHOTOS} -o x.jpg --debug-dir drawn": "drawn/seams-1.jpg: exists already",
    f"{' '.join(FLAT)} -o x.jpg --model planar --projection spherical": "no spherical projection",
    f"{PAIR[0]} -o x.jpg": "one photo is no panorama",
    f"{PAIR[0]} ./{PAIR[0]} -o x.jpg": "one photo is no panorama",
    "-o x.jpg": "there are no photos to stitch",
    "-o x.jpg --poses missing.json": "there are no photos to stitch",
    "empty -o x.jpg": "empty: there is no picture in this folder",
}


@pytest.fixture(scope="session")
def refusals(stitched: Stitching, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Of every strange command line, tried one after the other by one process: exit status, stderr, files made."""
    folder = tmp_path_factory.mktemp("strange")
    for path in stitched.folder.glob("*.jpg"):
        (folder / path.name).symlink_to(path)
    poses = stitched.folder / "poses.json"
    shutil.copy(poses, folder)
    (folder / "newer.json").write_text(poses.read_text().replace('"v": 1', '"v": 2'))
    (folder / "none.json").write_text('{"v": 1, "type": "poses", "panoramas": []}')
    (folder / "old.jpg").write_bytes(b"\xff\xd8precious")
    (folder / "empty").mkdir()
    (folder / "drawn").mkdir()
    (folder / "drawn" / "seams-1.jpg").touch()
    found = tried([f"stitch {line}" for line in STRANGE], folder, stitched.cache)
    assert (folder / "old.jpg").read_bytes() == b"\xff\xd8precious"
    return {line.removeprefix("stitch "): refusal for line, refusal in found.items()}


@pytest.mark.parametrize("arguments", STRANGE)
def test_what_makes_no_sense_is_refused_with_a_hint(refusals: dict[str, Refusal], arguments: str) -> None:
    status, errors, made = refusals[arguments]

    assert status == 2
    *warnings, message, hint = errors.splitlines()
    assert all(line.startswith("featkit: warning: ") for line in warnings)
    assert message.startswith("featkit: error: ")
    assert STRANGE[arguments] in message
    assert hint.startswith("hint: ")
    assert made == []


def test_what_is_allowed_is_listed(refusals: dict[str, Refusal]) -> None:
    for option, known in {"--model sphere": MODELS, "--projection sphere": PROJECTIONS, "--seams cut": SEAMS}.items():
        assert refusals[f"{PHOTOS} -o x.jpg {option}"][1].endswith(f"hint: choose one of: {', '.join(known)}\n")


def test_the_help_tells_the_choices_and_the_defaults(featkit: Run) -> None:
    text = " ".join(featkit("stitch", "--help", COLUMNS="200").stdout.decode().split())
    lines = {part.split()[0]: part for part in re.split(r" (?:-\w, )?(?=--\w)", text)}
    choices = {
        "model": MODELS,
        "projection": PROJECTIONS,
        "crop": CROPS,
        "blend": BLENDS,
        "seams": SEAMS,
        "exposure": EXPOSURES,
    }
    for name, known in choices.items():
        assert all(choice in lines[f"--{name}"] for choice in known), name
        assert f"{getattr(StitchConfig(), name)} (default" in lines[f"--{name}"]


# --- terminals, pipes, signals


def test_progress_by_stage_on_a_terminal(album: Path) -> None:
    """It is gone at the end, and results are whole lines."""
    status, shown = on_terminal(album, "stitch", *PAIR, STRANGER, "-o", "pano.png", "--no-cache")

    assert status == SOME_LEFT_OUT
    assert "matching" in shown
    assert re.search(r"pano\.png  2 of 3 photos · [^\r\n]*px\r\n", shown)
    assert re.search(rf"{STRANGER}  left out · [^\r\n]*chance\r\n", shown)
    assert shown[shown.rindex("\x1b[2K") :] == "\x1b[2K"


def test_plain_terminals(album: Path) -> None:
    arguments = ("stitch", *PAIR, "--force", "-o", "pano.png")
    _, without_colour = on_terminal(album, *arguments, stdout="found.txt", NO_COLOR="1")
    _, plain = on_terminal(album, *arguments, stdout="found.txt", TERM="dumb")
    _, quiet = on_terminal(album, *arguments, "--quiet", stdout="found.txt")

    assert "colours and seams" in without_colour
    assert not re.search(r"\x1b\[[\d;]*m", without_colour)
    assert plain == quiet == ""


def test_a_picture_does_not_go_onto_a_terminal(album: Path) -> None:
    status, shown = on_terminal(album, "stitch", *PAIR, "-o", "-", "--format", "png")

    assert status == 2
    assert shown.startswith("featkit: error: a picture does not go onto a terminal\r\nhint: ")


def piped(album: Path, reader: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run featkit into a reader; the status is featkit's."""
    command = ["bash", "-c", f'"$@" | {reader}; exit "${{PIPESTATUS[0]}}"', "bash", *FEATKIT, "stitch", *arguments]
    return subprocess.run(command, capture_output=True, cwd=album, timeout=60)


def test_a_closed_pipe_costs_no_file(album: Path) -> None:
    run = piped(album, "true", "--poses", "poses.json", "-o", "pano.jpg", "--json")

    assert (run.returncode, run.stderr) == (0, b"")
    assert [load(album / f"pano-{number}.jpg").size[0] > 300 for number in (1, 2)] == [True, True]


def test_a_reader_that_has_enough(album: Path) -> None:
    run = piped(album, "head -c 8", *PAIR, "-o", "-", "--format", "png", "--scale", "2")

    assert (run.returncode, run.stdout, run.stderr) == (0, b"\x89PNG\r\n\x1a\n", b"")


@pytest.mark.parametrize("stage", ["matching", "drawing"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_being_ended_leaves_nothing_behind(album: Path, tmp_path: Path, stage: str, name: str) -> None:
    """Once the bar says that this stage has begun; drawing takes so long as it is to be four times as large."""
    (album / "temporary").mkdir()
    before = files_in(album)
    number = getattr(signal, name)
    # All photos are matched anew; what is drawn comes from the cache.
    cold = ["--no-cache"] if stage == "matching" else ["--scale", "4"]
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*FEATKIT, "stitch", *TURNED, *FLAT, "-o", "pano.png", *cold],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        cwd=album,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "TMPDIR": str(album / "temporary")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    shown = b""
    for piece in _pieces(reader):
        if stage.encode() in shown + piece and stage.encode() not in shown:
            process.send_signal(number)
        shown += piece
    os.close(reader)

    assert process.wait() == 128 + number
    assert b"Traceback" not in shown
    assert (b"featkit: interrupted" in shown) == (name == "SIGINT")
    assert files_in(album) == before


def _pieces(reader: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # so Linux says that the other end is closed
            return
        if not piece:
            return
        yield piece


# --- disks, permissions, files that change


@pytest.mark.parametrize("options", [["-o", "x.png"], ["-o", "x.tif", "--max-memory", "200M"]], ids=["png", "tif"])
def test_a_full_disk(featkit: Run, album: Path, options: list[str]) -> None:
    before = files_in(album)

    run = featkit("stitch", *PAIR, *options, largest_file=20_000, FEATKIT_CACHE="off")

    assert run.returncode == 2
    message, hint = complaint_of(run).splitlines()
    assert "larger than this system allows" in message
    assert hint.startswith("hint: raise the limit")
    assert files_in(album) == before


@pytest.mark.parametrize(
    "options",
    [["-o", "closed/p.jpg"], ["-o", "p.jpg", "--poses", "closed/p.json"], ["-o", "p.jpg", "--debug-dir", "closed/new"]],
    ids=["output", "poses", "debug"],
)
def test_a_folder_that_cannot_be_written(featkit: Run, album: Path, plain_user: list[str], options: list[str]) -> None:
    (album / "closed").mkdir(mode=0o555)
    before = files_in(album)

    run = featkit("stitch", *PAIR, *options, prefix=plain_user)

    assert run.returncode == 2
    assert "closed cannot be written to" in complaint_of(run)
    assert files_in(album) == before


@pytest.mark.parametrize("what", ["deleted", "changed"])
def test_a_photo_that_goes_away_after_matching(album: Path, stitched: Stitching, what: str) -> None:
    for name in PAIR:
        (album / name).unlink()
        shutil.copy(stitched.folder / name, album)
    spoil = {"deleted": "path.unlink()", "changed": "path.write_bytes(path.read_bytes() + b'!')"}[what]
    program = f"""if True:
        import pathlib, sys
        from featkit.cli import app, stitch_run
        write = stitch_run._write_all
        def spoilt(*arguments):
            path = pathlib.Path({PAIR[1]!r})
            {spoil}
            return write(*arguments)
        stitch_run._write_all = spoilt
        sys.exit(app.run(["stitch", *{PAIR!r}, "-o", "pano.jpg"]))
    """

    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, cwd=album, timeout=60)

    reason = {"deleted": "there is no such file", "changed": "it was changed while featkit was at work"}[what]
    assert run.returncode == 2
    assert f"{PAIR[1]}: {reason}" in complaint_of(run)
    assert not [name for name in files_in(album) if "pano" in name or Path(name).name.startswith(".")]


def test_earlier_panoramas_are_kept(featkit: Run, album: Path) -> None:
    """What the numbered names of several panoramas would overwrite is known only once the photos are matched."""
    (album / "pano-2.jpg").write_bytes(b"precious")

    refused = featkit("stitch", "--poses", "poses.json", "-o", "pano.jpg")
    forced = featkit("stitch", "--poses", "poses.json", "-o", "pano.jpg", "--force")

    assert refused.returncode == 2
    assert "pano-2.jpg: exists already\nhint: --force" in complaint_of(refused)
    assert forced.returncode == 0
    assert load(album / "pano-2.jpg").size[0] > 300


# --- measurement photos


def test_a_weir_and_a_stranger(featkit: Run, shared_data: Path) -> None:
    photos = sorted((shared_data / "panoramas" / "weir").glob("*.jpg"))

    run = featkit("stitch", *photos, "-o", "weir.jpg", "--json")

    [panorama, left_out] = records_of(run)
    assert run.returncode == SOME_LEFT_OUT
    assert sorted(names_of(panorama)) == ["weir_1.jpg", "weir_2.jpg", "weir_3.jpg"]
    assert Path(left_out["path"]).name == "weir_noise.jpg"
    assert panorama["held_out_px"]["median"] < 1.7


def test_a_row_of_known_cameras(featkit: Run, shared_data: Path) -> None:
    folder = shared_data / "panoramas" / "syn_row8x"
    photos = sorted(folder.glob("*.jpg"))
    cameras = json.loads((folder / "truth.json").read_text())
    truth = {
        photo.name: np.array(camera["R"]) @ np.linalg.inv(camera["K"])
        for photo, camera in zip(photos, cameras, strict=True)
    }

    run = featkit("stitch", folder, "-o", "row.jpg", "--json", "--scale", "0.25")

    [panorama] = records_of(run)
    assert run.returncode == 0
    assert names_of(panorama) == list(truth)
    found = distances_px(panorama, truth)
    assert rms(found) < 0.05
    assert max(rms([pair]) for pair in found) < 0.13
