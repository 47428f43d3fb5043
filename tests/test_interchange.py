"""Files of matches: what goes in comes out, the same bytes every time, and damage is told."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, TOLERANCE

from featkit.errors import FileMissing, NotAFile, OutputDamaged, OutputError, OutputExists, UsageError
from featkit.local.features import Features
from featkit.local.geometry import Estimate, GeometryConfig, estimate
from featkit.local.interchange import FORMATS, check, open_writer
from featkit.local.matching import Matches, match_features

every_format = pytest.mark.parametrize("suffix", FORMATS)
#: Those that keep every picture and every pair, and whose every byte that matters is under a checksum or a count.
BINARY = (".npz", ".h5", ".db")

HOMOGRAPHY = np.array([[1.1, 0.02, 30.0], [-0.03, 0.9, -12.0], [1e-5, 2e-5, 1.0]])


def make_features(
    count: int, seed: int = 0, *, width: int = 640, height: int = 480, detector: str = "sift"
) -> Features:
    random = np.random.default_rng(seed)
    descriptors = random.integers(0, 256, (count, 32 if detector == "orb" else 128), np.uint8)
    if detector in ("aliked", "disk"):
        unit = random.normal(size=(count, 128))
        descriptors = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    return Features(
        (random.random((count, 2)) * (width, height) - 0.5).astype(np.float32),
        (random.random(count) * 20 + 2).astype(np.float32),
        (random.random(count) * 359).astype(np.float32),
        descriptors,
        (width, height),
        detector,
    )


def make_matches(count: int, rows_a: int, rows_b: int, seed: int = 0) -> Matches:
    random = np.random.default_rng(seed)
    indices = np.stack([np.sort(random.permutation(rows_a)[:count]), random.permutation(rows_b)[:count]], 1)
    return Matches(indices.astype(np.int32), random.random(count).astype(np.float32))


def make_estimate(matches: Matches, model: str = "homography", verdict: str = "reliable") -> Estimate:
    matrix = None if model == "none" or verdict == "none" else HOMOGRAPHY
    inliers = np.arange(len(matches)) % 3 > 0 if matrix is not None else np.zeros(len(matches), bool)
    return Estimate(model, matrix, inliers, verdict, 0.5 if matrix is not None else None, "")


def make_record(matches: Matches, found: Estimate, seconds: float = 0.1) -> dict[str, object]:
    return {
        "v": 1,
        "type": "match",
        "a": "/photos/a.jpg",
        "b": "/photos/b.jpg",
        "matches": len(matches),
        "inliers": int(found.inliers.sum()),
        "model": found.model,
        "matrix": found.matrix,
        "verdict": found.verdict,
        "cached": [seconds > 0.1, False],
        "seconds": {"total": seconds},
    }


NAMES = ("castle/one.jpg", "castle/two.jpg", "three.jpg")


def write(path: Path, names: tuple[str, ...] = NAMES, *, seconds: float = 0.1, model: str = "homography") -> Path:
    """Three pictures and three pairs: one with its pictures the other way round, one without a result, one empty."""
    counts = (40, 30, 50)
    with open_writer(path, force=True) as writer:
        for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
            writer.add_image(
                name,
                make_features(count, seed),
                sha256=f"{seed:064}",
                focal_px=None if seed else 700.0,
            )
        for a, b, count, verdict in ((1, 0, 20, "reliable"), (0, 2, 10, "none"), (1, 2, 0, "none")):
            matches = make_matches(count, counts[a], counts[b], seed=a)
            found = make_estimate(matches, model, verdict)
            writer.add_pair(names[a], names[b], matches, found, make_record(matches, found, seconds))
    return path


# --- every format -----------------------------------------------------------------------------------------------------


@every_format
def test_what_is_written_is_whole(tmp_path: Path, suffix: str) -> None:
    report = check(write(tmp_path / f"matches{suffix}"))
    assert report.problems == ()
    assert report.format == suffix
    assert report.matches == 30
    # A table has a line a match: it knows of no pair without one.
    assert (report.images, report.pairs) == ((3, 2) if suffix == ".csv" else (3, 3))


@every_format
def test_the_same_calls_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = write(tmp_path / f"first{suffix}", seconds=0.1).read_bytes()
    time.sleep(1.1)  # beyond the resolution of the time stamps that these formats could carry
    (tmp_path / "elsewhere").mkdir()
    assert write(tmp_path / "elsewhere" / f"second{suffix}", seconds=0.2).read_bytes() == first


@every_format
def test_no_pictures_and_no_keypoints(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    with open_writer(path):
        pass
    assert check(path).problems == ()
    nothing = make_matches(0, 0, 0)
    with open_writer(path, force=True) as writer:
        for name in ("a", "b"):
            writer.add_image(name, make_features(0), sha256="", focal_px=None)
        writer.add_pair("a", "b", nothing, make_estimate(nothing, verdict="none"), {})
    assert check(path).problems == ()
    assert check(path).matches == 0


@every_format
def test_an_exception_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"matches{suffix}"

    def fail(problem: BaseException) -> None:
        with open_writer(path) as writer:
            writer.add_image("a", make_features(5), sha256="", focal_px=None)
            raise problem

    for problem in (ValueError("the detector failed"), KeyboardInterrupt()):
        with pytest.raises(type(problem)):
            fail(problem)
        assert list(tmp_path.iterdir()) == []


@every_format
def test_an_existing_file_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"matches{suffix}"
    path.write_text("precious")
    with pytest.raises(OutputExists):
        open_writer(path)
    with pytest.raises(ValueError, match="no pictures today"), open_writer(path, force=True):
        raise ValueError("no pictures today")
    assert path.read_text() == "precious"
    with pytest.raises(OutputError, match="there is no folder"):
        open_writer(tmp_path / "missing" / f"matches{suffix}")


_WRITE_UNDER_A_LIMIT = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_interchange import make_estimate, make_features, make_matches
from featkit.errors import OutputError
from featkit.local.interchange import open_writer
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
features, matches = make_features(3_000), make_matches(2_000, 3_000, 3_000)
try:
    with open_writer(sys.argv[1]) as writer:
        for number in range(10):
            writer.add_image(str(number), features, sha256="", focal_px=None)
        for number in range(9):
            writer.add_pair(str(number), str(number + 1), matches, make_estimate(matches), {})
except OutputError as error:
    print(error.hint)
"""


@every_format
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"matches{suffix}"
    run = subprocess.run(
        [sys.executable, "-c", _WRITE_UNDER_A_LIMIT, path, ROOT / "tests"], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "free some space" in run.stdout or "ulimit" in run.stdout
    assert list(tmp_path.iterdir()) == []


AWKWARD = ("a folder/it's, 100%?#.jpg", 'quo"te\nnewline.jpg', "Schloß 城.jpg")


@every_format
def test_awkward_names(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"matches{suffix}", AWKWARD)
    assert check(path).problems == ()
    assert names_in(path) == set(AWKWARD)


@every_format
def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"matches{suffix}", (os.fsdecode(b"caf\xe9.jpg"), "b.jpg", "c.jpg"))
    assert check(path).problems == ()
    assert r"caf\xe9.jpg" in names_in(path)


def names_in(path: Path) -> set[str]:
    match path.suffix:
        case ".npz":
            with np.load(path) as arrays:
                return set(arrays["images"].tolist())
        case ".json":
            return {image["name"] for image in json.loads(path.read_bytes())["images"]}
        case ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                return {name for row in csv.DictReader(stream) for name in (row["image_a"], row["image_b"])}
        case ".h5":
            names: list[str] = []
            with h5py.File(path) as file:
                file.visititems(lambda name, item: names.append(name))
            return {name.removesuffix("/keypoints") for name in names if name.endswith("/keypoints")}
        case _:
            with sqlite3.connect(path) as connection:
                return {name for (name,) in connection.execute("SELECT name FROM images")}


@every_format
def test_pictures_and_pairs_come_once(tmp_path: Path, suffix: str) -> None:
    features, matches = make_features(5), make_matches(3, 5, 5)
    found = make_estimate(matches)

    def attempt(*steps: tuple[str, ...]) -> None:
        with open_writer(tmp_path / f"matches{suffix}") as writer:
            for step in steps:
                if len(step) == 1:
                    writer.add_image(*step, features, sha256="", focal_px=None)
                else:
                    writer.add_pair(*step, matches, found, {})

    for steps, words in (
        ([("a",), ("a",)], "two pictures are called a"),
        ([(os.fsdecode(b"\xe9"),), (r"\xe9",)], "two pictures are called"),
        ([("a",), ("b",), ("a", "b"), ("b", "a")], "paired twice"),
        ([("a",), ("a", "a")], "paired with itself"),
    ):
        with pytest.raises(UsageError, match=words):
            attempt(*steps)
    with pytest.raises(ValueError, match="'b' was not added"):
        attempt(("a",), ("a", "b"))


def test_matches_must_belong_to_the_features(tmp_path: Path) -> None:
    with open_writer(tmp_path / "matches.npz") as writer:
        for name in ("a", "b"):
            writer.add_image(name, make_features(5), sha256="", focal_px=None)
        for pairs, words in (([[0, 5]], "not there"), ([[-1, 0]], "not there"), ([[1, 0], [1, 2]], "matched twice")):
            matches = Matches(np.array(pairs, np.int32), np.ones(len(pairs), np.float32))
            with pytest.raises(ValueError, match=words):
                writer.add_pair("a", "b", matches, make_estimate(matches), {})


def test_unknown_endings_are_refused(tmp_path: Path) -> None:
    for name in ("matches.txt", "matches"):
        with pytest.raises(UsageError) as caught:
            open_writer(tmp_path / name)
        assert caught.value.hint == "end its name in one of: .npz, .json, .csv, .h5, .db"
        with pytest.raises(UsageError):
            check(tmp_path / name)


@every_format
def test_memory_stays_small(tmp_path: Path, suffix: str) -> None:
    features, matches = make_features(2_000), make_matches(300, 2_000, 2_000)
    found = make_estimate(matches)
    tracemalloc.start()
    with open_writer(tmp_path / f"matches{suffix}") as writer:
        for number in range(20):
            writer.add_image(str(number), features, sha256="", focal_px=None)
        for a, b in itertools.combinations(range(20), 2):
            writer.add_pair(str(a), str(b), matches, found, {})
    assert check(tmp_path / f"matches{suffix}").matches == 57_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_500_000  # the text of all matches is 3 MB


# --- what the formats hold --------------------------------------------------------------------------------------------


def test_npz_in_a_notebook(tmp_path: Path) -> None:
    a, b, matches = make_features(40, 1), make_features(30, 2), make_matches(20, 40, 30)
    with open_writer(tmp_path / "pair.npz") as writer:
        writer.add_image("a.jpg", a, sha256="", focal_px=None)
        writer.add_image("b.jpg", b, sha256="", focal_px=None)
        writer.add_pair("a.jpg", "b.jpg", matches, make_estimate(matches), {})
    with np.load(tmp_path / "pair.npz") as f:
        points = f["keypoints_0"][f["matches_0_1"][:, 0]]
        np.testing.assert_array_equal(points, a.xy[matches.indices[:, 0]])
        np.testing.assert_array_equal(f["keypoints_1"], b.xy)
        np.testing.assert_array_equal(f["sizes_0"], a.size)
        np.testing.assert_array_equal(f["angles_0"], a.angle)
        np.testing.assert_array_equal(f["scores_0_1"], matches.score)
        np.testing.assert_array_equal(f["inliers_0_1"], make_estimate(matches).inliers)
        np.testing.assert_array_equal(f["matrix_0_1"], HOMOGRAPHY)
        assert f["images"].tolist() == ["a.jpg", "b.jpg"]
        assert f["image_sizes"].tolist() == [[640, 480]] * 2
        assert f["pairs"].tolist() == [[0, 1]]
        assert (str(f["format"]), int(f["version"])) == ("featkit-matches", 1)
        assert (f["models"].tolist(), f["verdicts"].tolist()) == (["homography"], ["reliable"])
        assert f["uncertainty_px"].tolist() == [0.5]


def test_npz_of_many_pairs(tmp_path: Path) -> None:
    with np.load(write(tmp_path / "many.npz")) as f:
        for a, b in f["pairs"].tolist():
            assert len(f[f"matches_{a}_{b}"]) == len(f[f"scores_{a}_{b}"]) == len(f[f"inliers_{a}_{b}"])
        assert f["verdicts"].tolist() == ["reliable", "none", "none"]
        assert np.isnan(f["uncertainty_px"][1])
        assert "matrix_0_2" not in f


def test_json_document(tmp_path: Path) -> None:
    document = json.loads(write(tmp_path / "matches.json").read_bytes())
    assert (document["format"], document["version"]) == ("featkit-matches", 1)
    assert document["images"][0] == {
        "name": "castle/one.jpg",
        "size": [640, 480],
        "sha256": "0" * 64,
        "focal_px": 700.0,
        "keypoints": 40,
    }
    pair = document["pairs"][0]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("castle/two.jpg", "castle/one.jpg", "reliable")
    assert "seconds" not in pair
    assert "cached" not in pair
    assert pair["inliers"] == sum(row[5] for row in pair["matches"])
    matches = make_matches(20, 30, 40, seed=1)
    expected = np.hstack([make_features(30, 1).xy[matches.indices[:, 0]], make_features(40).xy[matches.indices[:, 1]]])
    np.testing.assert_allclose([row[:4] for row in pair["matches"]], expected, atol=TOLERANCE["coordinates_px"])
    np.testing.assert_allclose([row[4] for row in pair["matches"]], matches.score, atol=TOLERANCE["float32"])


def test_csv_table(tmp_path: Path) -> None:
    with write(tmp_path / "matches.csv", AWKWARD).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 30
    assert list(rows[0]) == ["image_a", "image_b", "x_a", "y_a", "x_b", "y_b", "score", "inlier"]
    assert (rows[0]["image_a"], rows[0]["image_b"]) == (AWKWARD[1], AWKWARD[0])
    first = make_matches(20, 30, 40, seed=1).indices[0]
    assert float(rows[0]["x_a"]) == pytest.approx(make_features(30, 1).xy[first[0], 0], abs=TOLERANCE["coordinates_px"])
    assert [row["inlier"] for row in rows[:4]] == ["0", "1", "1", "0"]


# --- hloc -------------------------------------------------------------------------------------------------------------
# What hloc's reading functions expect of a file, written anew: hloc itself is on no package index.


def hloc_keypoints(path: Path, name: str) -> tuple[np.ndarray, float]:
    with h5py.File(path, "r", libver="latest") as file:
        dataset = file[name]["keypoints"]
        return dataset.__array__(), dataset.attrs.get("uncertainty")


def hloc_pair(file: h5py.File, name0: str, name1: str) -> tuple[str, bool]:
    for first, second, reverse in ((name0, name1, False), (name1, name0, True)):
        pair = first.replace("/", "-") + "/" + second.replace("/", "-")
        if pair in file:
            return pair, reverse
    raise ValueError("not matched")


def hloc_matches(path: Path, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path, "r", libver="latest") as file:
        pair, reverse = hloc_pair(file, name0, name1)
        matches = file[pair]["matches0"].__array__()
        scores = file[pair]["matching_scores0"].__array__()
    rows = np.where(matches != -1)[0]
    both = np.stack([rows, matches[rows]], -1)
    return (np.flip(both, -1) if reverse else both), scores[rows]


def test_hloc_reads_features_and_matches(tmp_path: Path) -> None:
    path = write(tmp_path / "matches.h5")
    keypoints, uncertainty = hloc_keypoints(path, "castle/one.jpg")
    np.testing.assert_array_equal(keypoints, make_features(40).xy)
    keypoints += 0.5  # what hloc does on its way to COLMAP: needs floats of its own
    assert uncertainty == 1.0

    expected = make_matches(20, 30, 40, seed=1)
    matches, scores = hloc_matches(path, "castle/two.jpg", "castle/one.jpg")
    np.testing.assert_array_equal(matches, expected.indices)
    np.testing.assert_allclose(scores, expected.score, atol=1e-3)
    turned, _ = hloc_matches(path, "castle/one.jpg", "castle/two.jpg")
    np.testing.assert_array_equal(turned, expected.indices[:, ::-1])
    # Before verification, whatever the verdict.
    assert len(hloc_matches(path, "castle/one.jpg", "three.jpg")[0]) == 10
    assert len(hloc_matches(path, "three.jpg", "castle/two.jpg")[0]) == 0
    with h5py.File(path) as file:
        pair = file["castle-two.jpg/castle-one.jpg"]
        assert pair["inliers0"][()].sum() == make_estimate(expected).inliers.sum()
        assert pair.attrs["verdict"] == b"reliable"
        assert file["castle/one.jpg"]["image_size"][()].tolist() == [640, 480]


@pytest.mark.parametrize(("detector", "dimension"), [("sift", 128), ("orb", 256), ("aliked", 128), ("disk", 128)])
def test_hloc_takes_products_of_descriptors_for_cosines(tmp_path: Path, detector: str, dimension: int) -> None:
    features = make_features(50, detector=detector)
    with open_writer(tmp_path / "features.h5") as writer:
        writer.add_image("a", features, sha256="", focal_px=None)
    with h5py.File(tmp_path / "features.h5") as file:
        descriptors = file["a"]["descriptors"][()].astype(np.float32)
    assert descriptors.shape == (dimension, 50)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=0), 1, atol=1e-3)
    if detector in ("aliked", "disk"):
        np.testing.assert_array_equal(descriptors.T, features.descriptors)
    if detector == "orb":
        hamming = np.unpackbits(features.descriptors[0] ^ features.descriptors[1]).sum()
        assert descriptors[:, 0] @ descriptors[:, 1] == pytest.approx(1 - 2 * hamming / 256)


def test_hloc_cannot_tell_some_names_apart(tmp_path: Path) -> None:
    def attempt(names: tuple[str, ...]) -> None:
        with open_writer(tmp_path / "matches.h5") as writer:
            for name in names:
                writer.add_image(name, make_features(3), sha256="", focal_px=None)

    for names in (("a/b.jpg", "a-b.jpg"), ("a//b.jpg",), ("keypoints",), ("matches0/a.jpg",)):
        with pytest.raises(UsageError, match="hloc's layout cannot hold"):
            attempt(names)


def test_hloc_pair_inside_a_picture_of_the_same_name(tmp_path: Path) -> None:
    names = ("a", "b", "a/b")
    assert check(write(tmp_path / "matches.h5", names)).problems == ()
    assert len(hloc_keypoints(tmp_path / "matches.h5", "a/b")[0]) == 50


# --- COLMAP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def colmap() -> Callable[[Path], object]:
    """Opens a database."""
    return pytest.importorskip("pycolmap", minversion="3.13").Database.open


def test_colmap_reads_features(tmp_path: Path, colmap: Callable[[Path], object]) -> None:
    database = colmap(write(tmp_path / "matches.db"))
    assert database.num_images() == 3
    image = database.read_image_with_name("castle/one.jpg")
    features = make_features(40)
    keypoints = database.read_keypoints(image.image_id)
    np.testing.assert_allclose(keypoints[:, :2], features.xy + 0.5, atol=TOLERANCE["coordinates_px"])
    # COLMAP's scale and orientation, as its own SIFT finds them on the same photo: half the diameter, the same turn.
    np.testing.assert_allclose(keypoints[:, 2], features.size / 2, rtol=TOLERANCE["float32"])
    np.testing.assert_allclose(keypoints[:, 3], np.radians(features.angle), atol=TOLERANCE["float32"])
    camera = database.read_camera(image.camera_id)
    assert camera.model.name == "SIMPLE_RADIAL"
    assert camera.params.tolist() == [700, 320, 240, 0]
    assert camera.has_prior_focal_length
    without = database.read_camera(database.read_image_with_name("three.jpg").camera_id)
    assert without.params.tolist() == [1.2 * 640, 320, 240, 0]
    assert not without.has_prior_focal_length
    descriptors = database.read_descriptors(image.image_id)
    values = np.asarray(descriptors.data if hasattr(descriptors, "data") else descriptors)
    assert values.shape == (40, 128)
    np.testing.assert_allclose(np.linalg.norm(values.astype(float), axis=1), 512, rtol=0.01)
    database.close()
    # COLMAP adds its newer tables when it opens the file: it is no less whole.
    assert check(tmp_path / "matches.db").problems == ()


@pytest.mark.parametrize("model", ["homography", "affine", "fundamental", "none"])
def test_colmap_reads_geometries(tmp_path: Path, colmap: Callable[[Path], object], model: str) -> None:
    database = colmap(write(tmp_path / "matches.db", model=model))
    one, two, three = (database.read_image_with_name(name).image_id for name in NAMES)
    matches = make_matches(20, 30, 40, seed=1)
    # Given as (two, one), and COLMAP keeps it as (one, two).
    np.testing.assert_array_equal(database.read_matches(two, one), matches.indices)
    np.testing.assert_array_equal(database.read_matches(one, two), matches.indices[:, ::-1])
    assert len(database.read_matches(one, three)) == 10
    if model == "none":
        assert database.num_verified_image_pairs() == 0
        return
    found = database.read_two_view_geometry(two, one)
    np.testing.assert_array_equal(found.inlier_matches, matches.indices[make_estimate(matches).inliers])
    nothing = database.read_two_view_geometry(one, three)
    assert (nothing.config.name if hasattr(nothing.config, "name") else nothing.config) in ("DEGENERATE", 1)
    assert len(nothing.inlier_matches) == 0
    for first, second in ((two, one), (one, two)):
        stored = database.read_two_view_geometry(first, second)
        points = np.array([[10.0, 20, 1], [300, 100, 1], [50, 400, 1]])
        corners = points + np.array([0.5, 0.5, 0])
        if model == "fundamental":
            assert stored.config == 3  # UNCALIBRATED
            turned = HOMOGRAPHY if first == two else HOMOGRAPHY.T
            ours = points @ turned @ points.T  # xᵀ F x' of all points with all, whatever F is
            np.testing.assert_allclose(corners @ stored.F @ corners.T, ours, rtol=1e-9)
        else:
            assert stored.config == 6  # PLANAR_OR_PANORAMIC
            ours = points @ (HOMOGRAPHY if first == two else np.linalg.inv(HOMOGRAPHY)).T
            theirs = corners @ stored.H.T
            np.testing.assert_allclose(
                theirs[:, :2] / theirs[:, 2:], ours[:, :2] / ours[:, 2:] + 0.5, atol=TOLERANCE["coordinates_px"]
            )


def test_colmap_shares_a_camera_where_exif_agrees(tmp_path: Path) -> None:
    path = tmp_path / "matches.db"
    with open_writer(path) as writer:
        for number, (width, focal_px) in enumerate(
            [(640, 700.0), (640, 700.0), (640, 800.0), (800, 700.0), (640, None)]
        ):
            features = make_features(3, width=width)
            writer.add_image(str(number), features, sha256="", focal_px=focal_px)
        writer.add_image("last", make_features(3), sha256="", focal_px=None)
    with sqlite3.connect(path) as connection:
        cameras = [camera for (camera,) in connection.execute("SELECT camera_id FROM images ORDER BY image_id")]
    assert cameras == [1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("detector", ["orb", "aliked", "disk"])
def test_colmap_gets_no_descriptors_that_it_does_not_know(tmp_path: Path, detector: str) -> None:
    path = tmp_path / "matches.db"
    with open_writer(path) as writer:
        writer.add_image("a", make_features(5, detector=detector), sha256="", focal_px=None)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM descriptors").fetchone() == (0,)
        assert connection.execute("SELECT rows, cols FROM keypoints").fetchone() == (5, 4)
    assert check(path).problems == ()


def test_one_way_matches_may_share_a_keypoint_of_b(tmp_path: Path) -> None:
    matches = Matches(np.array([[0, 3], [1, 3], [2, 4]], np.int32), np.ones(3, np.float32))
    for suffix in FORMATS:
        with open_writer(tmp_path / f"matches{suffix}") as writer:
            for name in ("a", "b"):
                writer.add_image(name, make_features(5), sha256="", focal_px=None)
            writer.add_pair("b", "a", matches, make_estimate(matches), {})
        assert check(tmp_path / f"matches{suffix}").problems == ()


SIDE = 1000  # pixels; what a reader would take for a first look, and 10 s instead of a minute


def test_colmap_places_all_photos_of_the_castle(tmp_path: Path, shared_data: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    cv2 = pytest.importorskip("cv2")
    photos = sorted((shared_data / "sceaux").glob("*.JPG"))
    assert len(photos) == 11
    names = [photo.name for photo in photos]
    features = [small_sift(cv2, cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)) for photo in photos]
    with open_writer(tmp_path / "castle.db") as writer:
        for name, found in zip(names, features, strict=True):
            # EXIF: 35 mm on a full frame.
            writer.add_image(name, found, sha256="", focal_px=35 / 36 * 2832)
        for a, b in itertools.combinations(range(11), 2):
            if b - a <= 3:
                matches = match_features(features[a], features[b])
                geometry = estimate(features[a], features[b], matches, GeometryConfig(model="fundamental"))
                writer.add_pair(names[a], names[b], matches, geometry, {})
    assert check(tmp_path / "castle.db").problems == ()
    (tmp_path / "models").mkdir()
    models = pycolmap.incremental_mapping(tmp_path / "castle.db", shared_data / "sceaux", tmp_path / "models")
    assert [model.num_reg_images() for model in models.values()] == [11]
    (camera,) = models[0].cameras.values()
    assert camera.params[0] == pytest.approx(2905.88, rel=0.05)  # K.txt beside the photos
    assert models[0].compute_mean_reprojection_error() < 1


def small_sift(cv2: object, gray: np.ndarray) -> Features:
    height, width = gray.shape
    scale = SIDE / width
    small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    keypoints, descriptors = cv2.SIFT_create(4000, 3, 0.02, 10.0, 1.6, cv2.CV_8U).detectAndCompute(small, None)
    return Features(
        ((np.array([k.pt for k in keypoints]) + 0.25) / scale - 0.5).astype(np.float32),
        np.array([k.size / scale for k in keypoints], np.float32),
        np.array([k.angle for k in keypoints], np.float32),
        descriptors,
        (width, height),
        "sift",
    )


# --- damage -----------------------------------------------------------------------------------------------------------


def verdict_on(path: Path) -> str:
    """ "whole", or what `check` says against it."""
    try:
        return "; ".join(check(path).problems) or "whole"
    except OutputDamaged as error:
        return str(error)


@every_format
def test_a_file_cut_short_is_told(tmp_path: Path, suffix: str) -> None:
    data = write(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    cuts = {1, 10, len(data) // 2, len(data) - 1, *random.Random(0).sample(range(1, len(data)), 40)}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        if suffix == ".csv" and data[cut - 1 : cut] == b"\n":
            continue  # its docstring owns up to that
        assert verdict_on(path) != "whole", cut
    path.write_bytes(b"")
    with pytest.raises(OutputDamaged, match="is empty"):
        check(path)


@pytest.mark.parametrize("suffix", BINARY)
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path: Path, suffix: str) -> None:
    data = write(tmp_path / f"whole{suffix}").read_bytes()
    whole = content(tmp_path / f"whole{suffix}")
    path = tmp_path / f"flipped{suffix}"
    dice = random.Random(0)
    told = 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        if verdict_on(path) == "whole":
            assert content(path) == whole
        else:
            told += 1
    assert told > 30


def content(path: Path) -> object:
    """All that a reader of the file gets to see; of a database, what is under a checksum."""
    match path.suffix:
        case ".npz":
            with np.load(path) as arrays:
                return {key: (array.dtype.str, array.shape, array.tobytes()) for key, array in arrays.items()}
        case ".h5":
            seen: dict[str, object] = {}

            def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
                data = item[()].tobytes() if isinstance(item, h5py.Dataset) else b""
                seen[name] = (data, sorted((key, repr(value)) for key, value in item.attrs.items()))

            with h5py.File(path) as file:
                file.visititems(visit)
            return seen
        case _:
            with sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True) as connection:
                tables = ("keypoints", "descriptors", "matches")
                return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_flipped_bit_in_text_is_never_a_crash(tmp_path: Path, suffix: str) -> None:
    data = write(tmp_path / f"whole{suffix}", AWKWARD).read_bytes()
    path = tmp_path / f"flipped{suffix}"
    dice = random.Random(0)
    verdicts = []
    for _ in range(300):
        flipped = bytearray(data)
        flipped[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        verdicts.append(verdict_on(path))
    # A digit that became another digit cannot be told from what was written.
    assert verdicts.count("whole") < len(verdicts) // 2


def test_foreign_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", keypoints=np.zeros((3, 2)))
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "not an array")
    (tmp_path / "foreign.json").write_text('{"pairs": []}\n')
    (tmp_path / "foreign.csv").write_text("x,y\n1,2\n")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["keypoints"] = np.zeros((3, 2))
    with sqlite3.connect(tmp_path / "foreign.db") as connection:
        connection.execute("CREATE TABLE images (image_id INTEGER PRIMARY KEY)")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(OutputDamaged, match=r"not written by featkit|does not begin with the header"):
            check(path)
    for suffix in FORMATS:
        text = tmp_path / f"letter{suffix}"
        text.write_text("Dear reader,\n" * 100)
        with pytest.raises(OutputDamaged):
            check(text)


def test_check_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        check(tmp_path / "missing.npz")
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    for name in ("folder.npz", "pipe.h5"):
        with pytest.raises(NotAFile):
            check(tmp_path / name)


def rewrite_npz(path: Path, **changes: np.ndarray | None) -> None:
    """Replace arrays of an archive, or with None leave them out."""
    with np.load(path) as arrays:
        kept = {key: changes.get(key, array) for key, array in arrays.items()}
    np.savez(path, **{key: array for key, array in {**kept, **changes}.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matches_1_0": np.full((20, 2), 40, np.int32)}, "a match names a keypoint that is not there"),
        ({"matches_1_0": np.zeros((20, 2), np.int32)}, "matched twice"),
        ({"matches_1_0": np.zeros((19, 2), np.int32)}, "scores_1_0 is float32 (20,)"),
        ({"matches_1_0": np.zeros((20, 2), np.float32)}, "matches_1_0 is float32 (20, 2)"),
        ({"matches_1_0": None}, "matches_1_0 is missing"),
        ({"scores_1_0": np.full(20, 1.5, np.float32)}, "a score is not between 0 and 1"),
        ({"scores_1_0": np.full(20, np.nan, np.float32)}, "a score is not between 0 and 1"),
        ({"matrix_1_0": np.full((3, 3), np.inf)}, "the matrix has an entry that is not a finite number"),
        ({"keypoints_0": np.full((40, 2), np.nan, np.float32)}, "a keypoint is not a finite number"),
        ({"keypoints_0": np.full((40, 2), 5000, np.float32)}, "a keypoint lies outside the picture"),
        ({"keypoints_0": np.zeros((0, 2), np.float32)}, "a match names a keypoint that is not there"),
        ({"pairs": np.array([[1, 0], [0, 2], [1, 9]])}, "names a picture that is not there"),
        ({"pairs": np.array([[1, 0], [0, 2], [1, 0]])}, "a pair is listed twice"),
        ({"images": np.array(["a", "b", "a"])}, "two pictures have the same name"),
        ({"verdicts": np.array(["none"])}, "verdicts is <U4 (1,)"),
        ({"extra": np.zeros(1)}, "extra belongs to no picture and no pair"),
        ({"version": np.array(2)}, "has version 2; this featkit reads 1"),
    ],
)
def test_faults_edited_into_an_archive(tmp_path: Path, changes: dict[str, np.ndarray | None], words: str) -> None:
    path = write(tmp_path / "matches.npz")
    rewrite_npz(path, **changes)
    assert words in verdict_on(path)


def test_an_archive_is_never_unpickled(tmp_path: Path) -> None:
    path = write(tmp_path / "matches.npz")

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("unpickled",))

    with zipfile.ZipFile(path, "a") as archive, archive.open("matrix_0_2.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array([Trap()]), allow_pickle=True)
    assert "holds Python objects" in verdict_on(path)


def test_a_declared_size_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "matches.npz")
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("matrix_0_2.npy", header + len(text).to_bytes(2, "little") + text)
    assert "the declared shape does not fit the data" in verdict_on(path)
    write(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("matrix_0_2.npy", b"\0" * 10_000_000)
    assert "is compressed" in verdict_on(path)
    h5 = write(tmp_path / "matches.h5")
    with h5py.File(h5, "a") as file:
        del file["castle/one.jpg/keypoints"]
        file["castle/one.jpg"].create_dataset("keypoints", (10**9, 2), np.float32, chunks=(1000, 2))
    assert "should not be" in verdict_on(h5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"version": 1, "pairs"', '"version": 2, "pairs"', "was not written by featkit match"),
        ('"inliers": 13', '"inliers": 12', "counts 12 inliers and marks 13"),
        ('"a": "castle/two.jpg"', '"a": "castle/none.jpg"', "names a picture that is not there"),
        ('"b": "castle/one.jpg"', '"b": "castle/two.jpg"', "does not name two pictures"),
        ('"size": [640, 480]', '"size": [320, 240]', "a keypoint lies outside the picture"),
        ('"size": [640, 480]', '"size": [640]', "has no size"),
        ('"name": "three.jpg"', '"name": "castle/one.jpg"', "has no name of its own"),
        ('"matches": [[', '"matches": [["1", ', "a match is not 6 numbers"),
        ('"matches": [[', '"matches": [[NaN, ', "is no JSON"),
        ('"matrix": [[', '"matrix": [[1, ', "is not 3×3 numbers"),
        ('},\n{"v"', '}\n{"v"', "no comma"),
        ("]}\n", "]}\nmore", "goes on after its end"),
    ],
)
def test_faults_edited_into_a_document(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write(tmp_path / "matches.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old != "]}\n" else text + "more")
    assert words in verdict_on(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a,b,1,2,3,4,0.5", "has 7 fields instead of 8"),
        ("a,b,1,2,3,4,0.5,2", "inlier is neither 0 nor 1"),
        ("a,b,1,2,3,4,1.5,0", "a score is not between 0 and 1"),
        ("a,b,1,2,3,inf,0.5,0", "not a finite number"),
        ("a,b,1,2,3,x,0.5,0", "no number"),
        ("a,a,1,2,3,4,0.5,0", "pairs a picture with itself"),
        ("castle/one.jpg,castle/two.jpg,1,2,3,4,0.5,0", "takes up a pair again"),
        ('"a,b,1,2,3,4,0.5,0', "cannot be read"),
    ],
)
def test_faults_edited_into_a_table(tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path / "matches.csv")
    path.write_text(path.read_text() + line + "\n")
    assert words in verdict_on(path)


def edit_matches0(file: h5py.File, row: int, value: int) -> None:
    file["castle-two.jpg/castle-one.jpg/matches0"][row] = value


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda file: edit_matches0(file, 0, 40), "a match names a keypoint that is not there"),
        (lambda file: edit_matches0(file, 0, -2), "marks a keypoint in a way that is none"),
        (lambda file: file.__delitem__("castle/one.jpg"), "names a picture that is not there"),
        (lambda file: file.__delitem__("castle/one.jpg/descriptors"), "descriptors is missing"),
        (lambda file: file.__delitem__("castle-two.jpg/castle-one.jpg/matches0"), "matches0 is missing"),
        (lambda file: file.move("castle-two.jpg", "other"), "is the pair of other pictures than it says"),
        (lambda file: file["castle/one.jpg"].create_dataset("more", data=1), "belongs to no picture and no pair"),
        (lambda file: file["castle/one.jpg/keypoints"].__setitem__(0, np.nan), "a keypoint is not a finite number"),
        (lambda file: file.attrs.__setitem__("version", 2), "has version 2; this featkit reads 1"),
    ],
)
def test_faults_edited_into_hlocs_layout(tmp_path: Path, edit: Callable[[h5py.File], None], words: str) -> None:
    path = write(tmp_path / "matches.h5")
    with h5py.File(path, "a") as file:
        edit(file)
    assert words in verdict_on(path)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE matches SET data = zeroblob(160) WHERE rows = 20", "its checksum is wrong"),
        ("UPDATE matches SET rows = 21 WHERE rows = 20", "has 160 bytes, not 21 × 2 values"),
        ("UPDATE matches SET pair_id = pair_id + 9 WHERE rows = 20", "names a picture that is not there"),
        ("UPDATE two_view_geometries SET data = zeroblob(104) WHERE rows = 13", "matched twice"),
        ("UPDATE two_view_geometries SET H = zeroblob(70) WHERE rows = 13", "numbers of another length"),
        ("UPDATE two_view_geometries SET pair_id = 7 WHERE rows = 13", "has no matches"),
        ("UPDATE images SET camera_id = 9 WHERE image_id = 1", "has no camera"),
        ("UPDATE cameras SET width = 0", "has no size"),
        ("DELETE FROM keypoints WHERE image_id = 1", "keypoints 1 is missing"),
        ("DELETE FROM descriptors WHERE image_id = 1", "descriptors 1 is missing"),
        ("DELETE FROM matches WHERE rows = 20", "is missing"),
        ("UPDATE keypoints SET data = 'text' WHERE image_id = 1", "keypoints 1 is missing"),
        ("UPDATE featkit SET value = 2 WHERE key = 'version'", "has version 2; this featkit reads 1"),
        ("DROP TABLE images", "cannot be read to its end"),
    ],
)
def test_faults_edited_into_a_database(tmp_path: Path, statement: str, words: str) -> None:
    path = write(tmp_path / "matches.db")
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    assert words in verdict_on(path)


def test_a_thousand_faults_are_not_a_thousand_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "matches.csv")
    path.write_text(path.read_text() + "a,b,1,2,3,4,0.5,2\n" * 1000)
    problems = check(path).problems
    assert len(problems) == 21
    assert problems[-1] == "and 980 more"
