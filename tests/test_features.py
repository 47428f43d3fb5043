"""Keypoints lie where the picture's structure is, to a twentieth of a pixel, whatever the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TOLERANCE

from featkit.errors import UsageError
from featkit.images import load, resize
from featkit.local import features as local_features
from featkit.local.features import DEFAULT_KEYPOINTS, DETECTORS, DetectorConfig, Features, detect
from featkit.local.geometry import transform
from featkit.local.matching import match_features
from featkit.opencv import cv2

Pixels = np.ndarray
#: The learned detectors have tests of their own.
WIDTH = {"sift": 128, "orb": 32}


@pytest.fixture(scope="module")
def camera(samples: Path) -> Pixels:
    return load(samples / "camera.png").pixels


@pytest.fixture(scope="module")
def china(samples: Path) -> Pixels:
    return load(samples / "china.jpg").pixels


@pytest.fixture(params=WIDTH)
def detector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_valid(features: Features, detector: str, width: int, height: int) -> None:
    """What the docstring of `Features` promises."""
    count = len(features)
    assert (features.xy.shape, features.xy.dtype) == ((count, 2), np.float32)
    assert (features.size.shape, features.size.dtype) == ((count,), np.float32)
    assert (features.angle.shape, features.angle.dtype) == ((count,), np.float32)
    assert (features.descriptors.shape, features.descriptors.dtype) == ((count, WIDTH[detector]), np.uint8)
    assert features.image_size == (width, height)
    assert features.detector == detector
    assert (features.xy >= -0.5).all()
    assert (features.xy <= np.array([width, height]) - 0.5).all()
    assert (features.size > 0).all()
    assert ((features.angle >= 0) & (features.angle < 360)).all()


def assert_same(a: Features, b: Features) -> None:
    for name, array in a.to_arrays().items():
        np.testing.assert_array_equal(array, b.to_arrays()[name], err_msg=name)


class TestPlaces:
    """A constant displacement is invisible in one picture; it shows when the picture is turned or resized."""

    @staticmethod
    def displacement(a: Features, b: Features, truth: np.ndarray) -> np.ndarray:
        """Mean, in x and y, of matched keypoints of b from where a homography puts those of a."""
        matches = match_features(a, b)
        difference = b.xy[matches.indices[:, 1]] - transform(truth, a.xy[matches.indices[:, 0]].astype(float))
        right = np.linalg.norm(difference, axis=1) < 2
        assert right.sum() > 150
        return np.asarray(difference[right].mean(0))

    @staticmethod
    def upside_down(picture: Pixels) -> tuple[Pixels, np.ndarray]:
        """A half turn, which needs no interpolation; the true homography."""
        height, width = picture.shape[:2]
        return np.ascontiguousarray(picture[::-1, ::-1]), np.array(
            [[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1.0]]
        )

    def test_a_turned_picture(self, camera: Pixels, china: Pixels, detector: str) -> None:
        config = DetectorConfig(detector)
        for picture in (camera, china):
            turned, truth = self.upside_down(picture)
            displacement = self.displacement(detect(picture, config), detect(turned, config), truth)
            assert np.abs(displacement).max() < TOLERANCE["keypoint_bias_px"]

    def test_the_quarter_pixel_of_opencvs_sift(self, camera: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the half turn shows where it is not taken out."""
        monkeypatch.setattr(local_features, "_SIFT_SHIFT", 0.0)
        turned, truth = self.upside_down(camera)
        assert self.displacement(detect(camera), detect(turned), truth) == pytest.approx([0.5, 0.5], abs=0.02)

    def test_the_half_pixels_of_opencvs_orb(self, china: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
        def without_half_pixel(xy: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
            return xy * scale if np.ndim(scale) else (xy + 0.5) * scale - 0.5

        monkeypatch.setattr(local_features, "rescale_points", without_half_pixel)
        config = DetectorConfig("orb")
        turned, truth = self.upside_down(china)
        displacement = self.displacement(detect(china, config), detect(turned, config), truth)
        assert np.abs(displacement).min() > 2 * TOLERANCE["keypoint_bias_px"]

    @pytest.mark.parametrize("width", [153, 200, 207, 333])
    def test_orbs_levels_have_rounded_sizes(self, camera: Pixels, width: int) -> None:
        """Each keypoint of a picture upside down is the other's, exactly; 153 and 207 round a half to even."""
        picture = np.ascontiguousarray(camera[60:300, 100 : 100 + width])
        config = DetectorConfig("orb")
        features, turned = detect(picture, config), detect(self.upside_down(picture)[0], config)
        places = {(round(x, 2), round(y, 2)) for x, y in features.xy.astype(float)}
        mirrored = {(round(width - 1 - x, 2), round(239 - y, 2)) for x, y in turned.xy.astype(float)}
        assert len(places & mirrored) > 0.97 * len(places)

    def test_half_the_size(self, camera: Pixels, detector: str) -> None:
        config = DetectorConfig(detector)
        truth = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
        displacement = self.displacement(detect(camera, config), detect(resize(camera, 0.5), config), truth)
        assert np.abs(displacement).max() < TOLERANCE["keypoint_bias_px"]

    @pytest.mark.parametrize("truth", ["china_to_china-left", "china_to_china-oblique", "coffee_to_coffee-upright"])
    def test_views_with_known_homographies(self, samples: Path, truth: str, detector: str) -> None:
        config = DetectorConfig(detector)
        stems = truth.split("_to_")
        a, b = (load(next(p for p in samples.glob(f"{stem}.*g"))).pixels for stem in stems)
        displacement = self.displacement(detect(a, config), detect(b, config), np.loadtxt(samples / f"{truth}.txt"))
        assert np.abs(displacement).max() < TOLERANCE["keypoint_bias_px"]

    def test_max_side_still_gives_pixels_of_the_full_size(self, camera: Pixels, detector: str) -> None:
        """Keypoints of the picture at 230 of its 512 pixels lie on those of the full picture."""
        full, small = detect(camera, DetectorConfig(detector)), detect(camera, DetectorConfig(detector, max_side=230))
        assert_valid(small, detector, 512, 512)
        assert len(small) < len(full)
        assert small.size.min() > 2 * full.size.min()
        displacement = self.displacement(small, full, np.eye(3))
        # Of 2.2 pixels each: in the shrunken picture's pixels it is the same tolerance.
        assert np.abs(displacement).max() < 512 / 230 * TOLERANCE["keypoint_bias_px"]

    def test_max_side_above_the_size_changes_nothing(self, china: Pixels, detector: str) -> None:
        assert_same(detect(china, DetectorConfig(detector)), detect(china, DetectorConfig(detector, max_side=5000)))

    def test_the_default_looks_at_large_photos_reduced(self, camera: Pixels) -> None:
        wide = np.tile(camera[200:260], (1, 8, 1))
        reduced, full = detect(wide), detect(wide, DetectorConfig(max_side=0))
        assert_same(reduced, detect(wide, DetectorConfig(max_side=3200)))
        assert reduced.size.min() > 1.2 * full.size.min()
        assert full.image_size == reduced.image_size == (4096, 60)


class TestAnyPicture:
    @pytest.mark.parametrize("max_side", [0, 16])
    @pytest.mark.parametrize(
        "shape", [(1, 1), (1, 2), (2, 3), (3, 2), (3, 3), (8, 8), (31, 31), (33, 700), (1, 900), (900, 2), (5, 400)]
    )
    def test_sizes_down_to_one_pixel(self, shape: tuple[int, int], max_side: int, detector: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        config = DetectorConfig(detector, max_side=max_side)
        assert_valid(detect(noise, config), detector, shape[1], shape[0])

    @pytest.mark.parametrize("value", [0, 127, 255])
    def test_a_picture_without_texture_has_no_features(self, value: int, detector: str) -> None:
        features = detect(np.full((120, 160, 3), value, np.uint8), DetectorConfig(detector))
        assert len(features) == 0
        assert_valid(features, detector, 160, 120)

    def test_a_photo(self, china: Pixels, detector: str) -> None:
        features = detect(china, DetectorConfig(detector))
        assert len(features) > 1000
        assert_valid(features, detector, 640, 427)

    def test_grey_levels_of_a_photo_and_of_its_grey_copy_agree(self, china: Pixels, detector: str) -> None:
        grey = np.repeat(cv2.cvtColor(china, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        assert_same(detect(china, DetectorConfig(detector)), detect(grey, DetectorConfig(detector)))

    def test_the_picture_stays_as_it_is(self, china: Pixels, detector: str) -> None:
        before = china.copy()
        detect(china, DetectorConfig(detector, max_side=100))
        np.testing.assert_array_equal(china, before)


class TestLimit:
    def test_the_strongest_are_kept_first(self, camera: Pixels) -> None:
        every, few = detect(camera), detect(camera, DetectorConfig(max_keypoints=100))
        assert len(few) == 100
        np.testing.assert_array_equal(few.xy, every.xy[:100])
        np.testing.assert_array_equal(few.descriptors, every.descriptors[:100])

    def test_orb_keeps_the_strongest_of_each_size(self, camera: Pixels) -> None:
        every = detect(camera, DetectorConfig("orb"))
        few = detect(camera, DetectorConfig("orb", max_keypoints=200))
        assert 150 < len(few) <= 200
        assert len(np.unique(few.size)) == len(np.unique(every.size)) == 8
        for size in np.unique(few.size):
            strongest = {tuple(xy) for xy in every.xy[every.size == size][:80]}
            assert {tuple(xy) for xy in few.xy[few.size == size]} <= strongest

    @pytest.mark.parametrize("limit", [1, 7])
    def test_a_handful(self, camera: Pixels, limit: int, detector: str) -> None:
        assert len(detect(camera, DetectorConfig(detector, max_keypoints=limit))) <= limit

    def test_the_default_limit_is_the_detectors_own(self, detector: str) -> None:
        assert DetectorConfig(detector).keypoint_limit == DEFAULT_KEYPOINTS[detector]
        assert DetectorConfig(detector, max_keypoints=5).keypoint_limit == 5

    def test_large_pictures_are_described_in_the_same_way(
        self, camera: Pixels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ranking by strength × size decides which keypoints stay, and changes nothing in those that do."""
        every = detect(camera)
        monkeypatch.setattr(local_features, "_LARGE_PICTURE_PIXELS", 0)
        assert_same(detect(camera), every)
        few = detect(camera, DetectorConfig(max_keypoints=100))
        assert len(few) == 100
        assert np.median(few.size) > 1.5 * np.median(every.size[:100])


class TestMask:
    """Where not to look there are no keypoints; elsewhere all is as without the mask."""

    @staticmethod
    def places(features: Features) -> set[tuple[float, ...]]:
        columns = (features.xy, features.size[:, None], features.angle[:, None], features.descriptors)
        return {tuple(row) for row in np.column_stack(columns).astype(float).tolist()}

    @pytest.fixture
    def mask(self, china: Pixels) -> Pixels:
        """A disc and a thin diagonal line."""
        mask = np.zeros(china.shape[:2], np.uint8)
        cv2.circle(mask, (200, 150), 90, 1, -1)
        cv2.line(mask, (300, 20), (600, 400), 1, 3)
        return mask.astype(bool)

    @pytest.mark.parametrize("max_side", [0, 400])
    def test_the_keypoints_on_the_mask_are_those_found_without_it(
        self, china: Pixels, mask: Pixels, detector: str, max_side: int
    ) -> None:
        config = DetectorConfig(detector, max_keypoints=1_000_000, max_side=max_side)
        every, masked = detect(china, config), detect(china, config, mask)
        column, row = np.floor(every.xy + np.float32(0.5)).astype(int).T
        on_mask = mask[row.clip(0, 426), column.clip(0, 639)]
        expected = Features(
            every.xy[on_mask],
            every.size[on_mask],
            every.angle[on_mask],
            every.descriptors[on_mask],
            every.image_size,
            detector,
        )
        assert 100 < len(masked) < len(every)
        assert self.places(masked) == self.places(expected)

    def test_the_limit_is_for_what_the_mask_leaves(self, china: Pixels, mask: Pixels, detector: str) -> None:
        """The strongest 200 of the whole picture leave few in the disc."""
        config = DetectorConfig(detector, max_keypoints=200)
        masked = detect(china, config, mask)
        assert 150 < len(masked) <= 200
        if detector == "sift":
            every = detect(china, DetectorConfig(max_keypoints=1_000_000), mask)
            np.testing.assert_array_equal(masked.xy, every.xy[:200])

    def test_of_a_large_picture_the_same(self, china: Pixels, mask: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local_features, "_LARGE_PICTURE_PIXELS", 0)
        self.test_the_keypoints_on_the_mask_are_those_found_without_it(china, mask, "sift", 0)

    def test_everywhere_is_as_no_mask(self, china: Pixels, detector: str) -> None:
        everywhere = np.ones(china.shape[:2], bool)
        config = DetectorConfig(detector, max_keypoints=1_000_000)
        assert_same(detect(china, config, everywhere), detect(china, config))

    def test_nowhere(self, china: Pixels, detector: str) -> None:
        nothing = detect(china, DetectorConfig(detector), np.zeros(china.shape[:2], bool))
        assert len(nothing) == 0
        assert_valid(nothing, detector, 640, 427)


class TestDeterminism:
    @pytest.fixture(autouse=True)
    def _threads(self) -> Iterator[None]:
        threads = cv2.getNumThreads()
        yield
        cv2.setNumThreads(threads)

    def test_threads_change_nothing(self, china: Pixels, detector: str) -> None:
        found = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found.append(detect(china, DetectorConfig(detector)))
        assert_same(*found)


class TestArrays:
    def test_round_trip(self, china: Pixels, detector: str) -> None:
        features = detect(china, DetectorConfig(detector))
        assert_same(Features.from_arrays(features.to_arrays()), features)
        assert Features.from_arrays(features.to_arrays()).image_size == (640, 427)

    def test_round_trip_of_nothing(self, detector: str) -> None:
        nothing = detect(np.zeros((9, 9, 3), np.uint8), DetectorConfig(detector))
        assert_valid(Features.from_arrays(nothing.to_arrays()), detector, 9, 9)

    def test_a_missing_array_is_noticed(self, china: Pixels) -> None:
        arrays = detect(china, DetectorConfig(max_keypoints=5)).to_arrays()
        del arrays["angle"]
        with pytest.raises(KeyError, match="angle"):
            Features.from_arrays(arrays)


class TestConfig:
    def test_an_unknown_detector(self) -> None:
        with pytest.raises(UsageError, match="'akaze'") as error:
            DetectorConfig("akaze")
        assert error.value.hint is not None
        assert all(detector in error.value.hint for detector in DETECTORS)

    @pytest.mark.parametrize(
        "options", [{"max_keypoints": 0}, {"max_keypoints": -1}, {"max_side": 15}, {"max_side": -1}]
    )
    def test_sizes_that_make_no_sense(self, options: dict[str, int]) -> None:
        with pytest.raises(UsageError, match=r"--max-(keypoints|side) must be at least"):
            DetectorConfig(**options)
