"""Files in, results out: the samples come right, each picture is described once, and the cache changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, TOLERANCE

import featkit
from featkit import DecodeOptions, MatchConfig, MatchResult
from featkit.cache import Cache
from featkit.errors import FeatkitError, FileMissing, ImageDamaged, InputError, UsageError
from featkit.images import load, save
from featkit.local import describing, features, geometry, matching, pipeline
from featkit.local.geometry import corners_of, transform
from featkit.records import to_json

#: The parts of a record that may differ between two runs.
OF_THE_RUN = {"seconds", "cached"}


def names(photos: Path) -> list[str]:
    return [str(photos / f"{stem}.jpg") for stem in ("a", "b", "c", "other")]


def results(*arguments: Any, **options: Any) -> list[MatchResult]:
    """The outcomes of `match_pairs`, none of them an error."""
    outcomes = list(featkit.match_pairs(*arguments, **options))
    assert all(isinstance(outcome, MatchResult) for outcome in outcomes), outcomes
    return outcomes


def assert_same(first: MatchResult, second: MatchResult) -> None:
    """Two results hold the same arrays and, but for the run, the same record."""
    for a, b in ((first.a, second.a), (first.b, second.b)):
        for name, array in a.features.to_arrays().items():
            np.testing.assert_array_equal(array, b.features.to_arrays()[name], err_msg=name)
    np.testing.assert_array_equal(first.matches.indices, second.matches.indices)
    np.testing.assert_array_equal(first.matches.score, second.matches.score)
    np.testing.assert_array_equal(first.inliers, second.inliers)
    records = [{k: v for k, v in each.record().items() if k not in OF_THE_RUN} for each in (first, second)]
    assert records[0] == records[1]


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each picture, by its first row, went through `detect`."""
    calls: Counter[bytes] = Counter()

    def counting(
        pixels: np.ndarray, config: features.DetectorConfig, mask: np.ndarray | None = None
    ) -> features.Features:
        calls[pixels[0].tobytes()] += 1
        return features.detect(pixels, config, mask)

    monkeypatch.setattr(describing, "detect", counting)
    return calls


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often `match_features` ran, under the key "match"."""
    calls: Counter[str] = Counter()

    def counting(*arguments: Any) -> matching.Matches:
        calls["match"] += 1
        return matching.match_features(*arguments)

    monkeypatch.setattr(pipeline, "match_features", counting)
    return calls


class TestMatch:
    @pytest.mark.parametrize("detector", ["sift", "orb"])
    @pytest.mark.parametrize(
        "truth", ["china-left_to_china-right", "china_to_china-oblique", "coffee_to_coffee-upright"]
    )
    def test_the_sample_photos(self, truth: str, detector: str) -> None:
        a, b = (next(SAMPLES.glob(f"{stem}.*g")) for stem in truth.split("_to_"))
        result = featkit.match(a, b, detector=detector)
        assert result.verdict == "reliable"
        assert result.matrix is not None
        corners = corners_of(result.a.features.image_size)
        error = transform(result.matrix, corners) - transform(np.loadtxt(SAMPLES / f"{truth}.txt"), corners)
        assert np.linalg.norm(error, axis=1).mean() < TOLERANCE["homography_px"]

    def test_matched_points_are_where_the_matrix_says(self, photos: Path) -> None:
        result = featkit.match(*names(photos)[:2])
        assert result.matrix is not None
        assert result.xy_a.shape == result.xy_b.shape == (len(result.matches), 2)
        away = np.linalg.norm(transform(result.matrix, result.xy_a.astype(float)) - result.xy_b, axis=1)
        assert away[result.inliers].max() <= 1.5
        assert result.inliers.sum() > 50

    def test_what_does_not_match_is_a_result_too(self, photos: Path) -> None:
        result = featkit.match(photos / "a.jpg", photos / "other.jpg")
        assert (result.verdict, result.matrix, result.uncertainty_px) == ("none", None, None)
        assert result.record()["matrix"] is None

    def test_a_config_and_its_fields_as_keywords_are_the_same(self, photos: Path) -> None:
        a, b, *_ = names(photos)
        config = MatchConfig(detector="orb", max_keypoints=500, ratio=0.8)
        assert_same(featkit.match(a, b, config), featkit.match(a, b, detector="orb", max_keypoints=500, ratio=0.8))

    def test_a_picture_and_itself(self, photos: Path, described: Counter[bytes]) -> None:
        result = featkit.match(photos / "a.jpg", photos / "a.jpg")
        assert result.verdict == "reliable"
        assert described.total() == 1

    def test_a_missing_file(self, photos: Path) -> None:
        with pytest.raises(FileMissing) as error:
            featkit.match(photos / "a.jpg", photos / "nowhere.jpg")
        assert error.value.path == str(photos / "nowhere.jpg")

    def test_max_side_gives_the_same_geometry_from_less(self, photos: Path) -> None:
        shutil.copy(SAMPLES / "china-left.jpg", photos)
        shutil.copy(SAMPLES / "china-right.jpg", photos)
        result = featkit.match(photos / "china-left.jpg", photos / "china-right.jpg", max_side=300)
        assert result.record()["size_a"] == [480, 400]
        assert result.verdict == "reliable"
        assert result.matrix is not None
        truth = np.loadtxt(SAMPLES / "china-left_to_china-right.txt")
        corners = corners_of((480, 400))
        error = np.linalg.norm(transform(result.matrix, corners) - transform(truth, corners), axis=1).mean()
        assert error < 480 / 300 * TOLERANCE["homography_px"]

    def test_of_three_views_each_pair_agrees_with_the_others(self, photos: Path) -> None:
        """a → b → c is a → c."""
        a, b, c, _ = names(photos)
        ab, bc, ac = results([(a, b), (b, c), (a, c)])
        assert ab.matrix is not None
        assert bc.matrix is not None
        assert ac.matrix is not None
        middle = np.array([[120.0, 80], [100, 60], [140, 100]])
        round_about = transform(bc.matrix @ ab.matrix, middle)
        assert np.linalg.norm(round_about - transform(ac.matrix, middle), axis=1).max() < TOLERANCE["homography_px"]


class TestOptions:
    def test_an_unknown_option(self, photos: Path) -> None:
        with pytest.raises(UsageError, match="'treshold'") as error:
            featkit.match(photos / "a.jpg", photos / "b.jpg", treshold=3)
        assert error.value.hint is not None
        assert "threshold" in error.value.hint

    def test_a_config_and_options(self, photos: Path) -> None:
        with pytest.raises(UsageError, match="not both"):
            featkit.match(photos / "a.jpg", photos / "b.jpg", MatchConfig(), ratio=0.8)

    @pytest.mark.parametrize(
        "options",
        [
            {"detector": "surf"},
            {"max_keypoints": 0},
            {"max_keypoints": 3},
            {"max_keypoints": 6, "model": "fundamental"},
            {"max_side": 3},
            {"ratio": 0},
            {"ratio": 1, "mutual": False},
            {"model": "similarity"},
            {"threshold": -1},
            {"seed": -1},
        ],
        ids=str,
    )
    def test_options_that_make_no_sense(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError) as error:
            MatchConfig(**options)
        assert error.value.exit_status == 2

    def test_the_defaults_live_in_the_parts(self) -> None:
        config = MatchConfig()
        assert config.detection == features.DetectorConfig()
        assert config.matching == matching.MatcherConfig()
        assert config.geometry == geometry.GeometryConfig()
        assert config.decode == DecodeOptions()

    def test_fewest_keypoints_that_fix_a_model(self) -> None:
        for model, fewest in {"homography": 4, "affine": 3, "fundamental": 7, "none": 1}.items():
            assert MatchConfig(model=model, max_keypoints=fewest).detection.keypoint_limit == fewest

    @pytest.mark.parametrize("jobs", [0, -2])
    def test_no_workers(self, photos: Path, jobs: int) -> None:
        with pytest.raises(UsageError, match="--jobs"):
            next(featkit.match_pairs([(str(photos / "a.jpg"), str(photos / "b.jpg"))], jobs=jobs))


class TestManyPairs:
    @pytest.mark.parametrize("jobs", [1, 4])
    def test_each_picture_is_described_once_and_the_order_is_kept(
        self, photos: Path, described: Counter[bytes], jobs: int
    ) -> None:
        pairs = list(combinations(names(photos), 2))
        pairs += [(b, a) for a, b in reversed(pairs)]
        found = results(pairs, jobs=jobs, cache=Cache(None))
        assert [(each.a.path, each.b.path) for each in found] == pairs
        assert set(described.values()) == {1}
        assert len(described) == 4
        assert {each.verdict for each in found if "other" in each.a.path + each.b.path} == {"none"}
        assert {each.verdict for each in found if "other" not in each.a.path + each.b.path} == {"reliable"}

    def test_the_number_of_workers_changes_nothing(self, photos: Path) -> None:
        pairs = list(combinations(names(photos), 2))
        runs = [results(pairs, jobs=jobs, cache=Cache(None)) for jobs in (1, 2, 5)]
        for one, two, five in zip(*runs, strict=True):
            assert_same(one, two)
            assert_same(one, five)

    def test_more_pairs_than_are_kept_ahead(self, photos: Path, described: Counter[bytes]) -> None:
        """One worker holds four pairs ahead: a picture that comes back later is still described once."""
        a, b, c, other = names(photos)
        pairs = [(a, b), *[(b, c)] * 9, (c, other), (a, other)]
        found = results(pairs, MatchConfig(max_keypoints=200), jobs=1, cache=Cache(None))
        assert [(each.a.path, each.b.path) for each in found] == pairs
        assert set(described.values()) == {1}

    def test_no_pairs(self) -> None:
        assert results([]) == []

    @pytest.mark.parametrize("jobs", [1, 4])
    def test_an_unreadable_picture_is_reported_once(self, photos: Path, jobs: int) -> None:
        a, b, c, _ = names(photos)
        half = photos / "half.jpg"
        half.write_bytes(Path(a).read_bytes()[:2000])
        pairs = [(a, b), (a, str(half)), (str(half), b), ("nowhere.jpg", str(half)), (b, c), (str(half), "nowhere.jpg")]
        outcomes = list(featkit.match_pairs(pairs, jobs=jobs))
        first, damaged, missing, last = outcomes
        assert isinstance(first, MatchResult)
        assert isinstance(last, MatchResult)
        assert isinstance(damaged, ImageDamaged)
        assert isinstance(missing, FileMissing)
        assert (damaged.path, missing.path) == (str(half), "nowhere.jpg")
        assert (first.b.path, last.b.path) == (b, c)

    def test_two_unreadable_pictures_in_one_pair_are_two_errors(self, tmp_path: Path) -> None:
        outcomes = list(featkit.match_pairs([("x.jpg", "y.jpg"), ("y.jpg", "x.jpg"), ("x.jpg", "x.jpg")]))
        assert [isinstance(each, InputError) and each.path for each in outcomes] == ["x.jpg", "y.jpg"]

    def test_a_defect_is_not_taken_for_a_bad_picture(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(describing, "detect", broken)
        with pytest.raises(ZeroDivisionError):
            list(featkit.match_pairs([(str(photos / "a.jpg"), str(photos / "b.jpg"))]))

    def test_whoever_stops_early_leaves_no_work_behind(self, photos: Path) -> None:
        outcomes = featkit.match_pairs(list(combinations(names(photos), 2)), jobs=2)
        next(outcomes)
        outcomes.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("featkit")]

    def test_pixels_are_kept_where_they_are_asked_for(self, photos: Path) -> None:
        pair = [(str(photos / "a.jpg"), str(photos / "b.jpg"))]
        assert results(pair, cache=Cache(None))[0].a.pixels is None
        pixels = results(pair, cache=Cache(None), keep_pixels=True)[0].a.pixels
        assert pixels is not None
        np.testing.assert_array_equal(pixels, load(photos / "a.jpg").pixels)


class TestCache:
    def test_the_second_run_reads_what_the_first_one_kept(
        self, photos: Path, described: Counter[bytes], matched: Counter[str]
    ) -> None:
        pairs = list(combinations(names(photos), 2))
        first = results(pairs)
        assert (described.total(), matched.total()) == (4, 6)
        second = results(pairs)
        assert (described.total(), matched.total()) == (4, 6)
        for cold, warm in zip(first, second, strict=True):
            assert (cold.a.cached, cold.b.cached) == (False, False)
            assert (warm.a.cached, warm.b.cached) == (True, True)
            assert warm.record()["cached"] == [True, True]
            assert_same(cold, warm)

    def test_names_and_dates_do_not_matter_bytes_do(self, photos: Path) -> None:
        a, b, c, _ = names(photos)
        featkit.match(a, b)
        shutil.copy(a, photos / "copy of a.jpg")
        assert featkit.match(photos / "copy of a.jpg", b).record()["cached"] == [True, True]
        shutil.copy(c, a)
        assert featkit.match(a, b).record()["cached"] == [False, True]

    @pytest.mark.parametrize(
        "change",
        [
            {"detector": "orb"},
            {"max_keypoints": 300},
            {"max_side": 100},
            {"decode": DecodeOptions(max_pixels=200_000)},
        ],
        ids=str,
    )
    def test_another_description_is_computed(self, photos: Path, change: dict[str, Any]) -> None:
        a, b, *_ = names(photos)
        plain = featkit.match(a, b)
        changed = featkit.match(a, b, **change)
        assert changed.record()["cached"] == [False, False]
        assert_same(featkit.match(a, b, **change), changed)
        assert_same(featkit.match(a, b), plain)

    def test_the_default_limit_written_out_is_the_same_description(self, photos: Path) -> None:
        a, b, *_ = names(photos)
        featkit.match(a, b)
        assert featkit.match(a, b, max_keypoints=8000).record()["cached"] == [True, True]

    @pytest.mark.parametrize("change", [{"ratio": 0.7}, {"mutual": False}], ids=str)
    def test_another_matcher_matches_again_what_was_described(
        self, photos: Path, matched: Counter[str], change: dict[str, Any]
    ) -> None:
        a, b, *_ = names(photos)
        plain = featkit.match(a, b)
        changed = featkit.match(a, b, **change)
        assert changed.record()["cached"] == [True, True]
        assert matched["match"] == 2
        assert len(changed.matches) != len(plain.matches)

    def test_another_geometry_needs_neither(
        self, photos: Path, described: Counter[bytes], matched: Counter[str]
    ) -> None:
        a, b, *_ = names(photos)
        for change in ({}, {"model": "affine"}, {"threshold": 3.0}, {"seed": 1}):
            featkit.match(a, b, **change)
        assert (described.total(), matched.total()) == (2, 1)

    def test_a_new_version_of_the_code_does_not_use_the_old_entries(
        self, photos: Path, described: Counter[bytes], matched: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b, *_ = names(photos)
        featkit.match(a, b)
        monkeypatch.setattr(matching, "VERSION", matching.VERSION + 1)
        featkit.match(a, b)
        assert (described.total(), matched.total()) == (2, 2)
        monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
        featkit.match(a, b)
        assert (described.total(), matched.total()) == (4, 3)

    def test_off(self, photos: Path, described: Counter[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        a, b, *_ = names(photos)
        first, second = (featkit.match(a, b, cache=Cache(None)) for _ in range(2))
        assert_same(first, second)
        assert second.record()["cached"] == [False, False]
        monkeypatch.setenv("FEATKIT_CACHE", "off")
        assert featkit.match(a, b).record()["cached"] == [False, False]
        assert described.total() == 6

    @pytest.mark.parametrize("damage", ["flipped byte", "truncated", "empty"])
    def test_damaged_entries_are_computed_anew(self, photos: Path, tmp_path: Path, damage: str) -> None:
        a, b, *_ = names(photos)
        cold = featkit.match(a, b)
        entries = sorted((tmp_path / "cache").rglob("*.fk"))
        assert len(entries) == 4  # features of each, matches, second look
        for entry in entries:
            data = bytearray(entry.read_bytes())
            data[len(data) // 2] ^= 1
            entry.write_bytes({"flipped byte": data, "truncated": data[: len(data) // 2], "empty": b""}[damage])
        again = featkit.match(a, b)
        assert again.record()["cached"] == [False, False]
        assert_same(cold, again)
        assert featkit.match(a, b).record()["cached"] == [True, True]

    def test_pictures_without_features_are_kept_too(self, tmp_path: Path) -> None:
        save(tmp_path / "flat.png", np.full((40, 50, 3), 90, np.uint8))
        for cached in (False, True):
            result = featkit.match(tmp_path / "flat.png", tmp_path / "flat.png", cache=Cache(tmp_path / "kept"))
            assert result.verdict == "none"
            assert result.record()["keypoints"] == [0, 0]
            assert result.a.cached == cached

    def test_pixels_are_there_when_the_features_come_from_the_cache(self, photos: Path) -> None:
        """Or else None: whoever draws decodes again."""
        pair = [(str(photos / "a.jpg"), str(photos / "b.jpg"))]
        results(pair)
        warm = results(pair, keep_pixels=True)[0]
        assert warm.a.cached
        assert warm.a.pixels is None


class TestRecord:
    def test_its_fields(self, photos: Path) -> None:
        a, b, *_ = names(photos)
        result = featkit.match(a, b)
        record = json.loads(to_json(result.record()))
        assert {
            "v": 1,
            "type": "match",
            "a": a,
            "b": b,
            "size_a": [240, 160],
            "size_b": [240, 200],
            "detector": "sift",
            "keypoints": [len(result.a.features), len(result.b.features)],
            "matches": len(result.matches),
            "inliers": int(result.inliers.sum()),
            "model": "homography",
            "verdict": "reliable",
            "cached": [False, False],
            "reason": result.estimate.reason,
            "effort": "normal",
        }.items() <= record.items()
        np.testing.assert_array_equal(record["matrix"], result.matrix)
        assert record["uncertainty_px"] == pytest.approx(result.uncertainty_px, abs=1e-3)
        assert record["bound_px"] == pytest.approx(result.bound_px, abs=1e-3)
        assert [attempt["detector"] for attempt in record["attempts"]] == ["sift"]
        assert set(record["seconds"]) == {"extract", "match", "estimate", "second_look"}
        assert all(value >= 0 for value in record["seconds"].values())

    @pytest.mark.parametrize("model", ["affine", "fundamental", "none"])
    def test_of_every_model(self, photos: Path, model: str) -> None:
        a, b, *_ = names(photos)
        record = json.loads(to_json(featkit.match(a, b, model=model).record()))
        assert record["model"] == model
        assert (record["matrix"] is None) == (model == "none")
        if model != "affine":
            assert record["uncertainty_px"] is None

    def test_of_nothing(self, photos: Path) -> None:
        record = json.loads(to_json(featkit.match(photos / "a.jpg", photos / "other.jpg").record()))
        assert (record["verdict"], record["matrix"], record["uncertainty_px"]) == ("none", None, None)


class TestPublicNames:
    @pytest.mark.parametrize("name", featkit.__all__)
    def test_each_is_there(self, name: str) -> None:
        assert getattr(featkit, name) is not None
        assert name in dir(featkit)

    def test_none_other(self) -> None:
        with pytest.raises(AttributeError, match="matsch"):
            featkit.matsch  # noqa: B018

    def test_every_error_is_one_of_ours(self) -> None:
        assert issubclass(UsageError, featkit.FeatkitError)
        assert featkit.FeatkitError is FeatkitError
