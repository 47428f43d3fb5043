"""`explain` says in one paragraph what was tried, why the verdict, and what would help: no more and no less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

import featkit
from featkit import MatchResult
from featkit.errors import DependencyError
from featkit.images import load, save
from featkit.local.explanation import explain
from featkit.local.features import DETECTORS
from featkit.local.verdict import Confirmation

WIDE = "--effort wide"
LEARNED = "pip install 'featkit[learned]'"
FUNDAMENTAL = "--model fundamental"


@pytest.fixture(autouse=True)
def _without_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not installed."""

    def missing(*_: object) -> NoReturn:
        raise DependencyError("ALIKED needs an extra", hint=LEARNED)

    monkeypatch.setattr("featkit.local.learned.require", missing)


@pytest.fixture
def flat(photos: Path) -> Path:
    save(photos / "flat.png", np.full((240, 320, 3), 90, np.uint8))
    return photos / "flat.png"


def match(photos: Path, a: str, b: str, **options: Any) -> MatchResult:
    return featkit.match(photos / a, photos / b, **options)


def tell(photos: Path, a: str, b: str, **options: Any) -> str:
    text = explain(match(photos, a, b, **options))
    assert_paragraph(text)
    return text


def assert_paragraph(text: str) -> None:
    assert text == text.strip()
    assert not set("\n\r\t") & set(text)
    assert "  " not in text
    assert ".." not in text
    assert text.endswith(".")


class TestWhatWasFound:
    def test_reliable(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "b.jpg")
        text = explain(result)

        assert_paragraph(text)
        assert text.startswith("a.jpg was compared with b.jpg. SIFT found ")
        assert f"{len(result.a.features)} and {len(result.b.features)} keypoints" in text
        assert f"{len(result.matches)} match one another and {int(result.inliers.sum())} agree" in text
        look = result.attempts[0].second_look
        assert look is not None
        assert f"{look.agreeing} of {look.matches} keypoints lie right and {look.patches} patches look the same" in text
        assert f"“reliable”: {result.estimate.reason}." in text
        assert f"{result.uncertainty_px:.2g} pixels" in text
        assert f"{result.bound_px:.2g} in 95 of 100" in text

    def test_reliable_needs_no_advice(self, photos: Path) -> None:
        for options in ({}, {"effort": "wide"}, {"detector": "orb"}, {"model": "fundamental"}):
            text = tell(photos, "a.jpg", "b.jpg", **options)
            assert "“reliable”" in text
            assert not [advice for advice in (WIDE, LEARNED, FUNDAMENTAL, "--draw", "would help") if advice in text]

    def test_one_look_says_nothing_of_a_second(self, photos: Path) -> None:
        text = tell(photos, "a.jpg", "b.jpg", effort="fast")
        assert "“reliable”" in text
        assert "warped" not in text
        assert "patches" not in text

    def test_none(self, photos: Path) -> None:
        text = tell(photos, "a.jpg", "other.jpg")
        assert "a.jpg was compared with other.jpg. " in text
        assert "“none”, and no transformation is given: " in text
        assert "no more than chance gives" in text
        assert "misplaced" not in text
        assert WIDE in text
        assert FUNDAMENTAL in text
        assert "--draw-warp" not in text

    def test_doubtful(self, photos: Path) -> None:
        """A copy so small that what agrees lies in few places."""
        with Image.open(photos / "a.jpg") as photo:
            photo.resize((60, 40), Image.Resampling.LANCZOS).save(photos / "small.png")

        text = tell(photos, "a.jpg", "small.png")

        assert "“doubtful”: " in text
        assert "misplaced by" in text
        assert "small.png shows few keypoints: a larger copy of it would help." in text
        assert "a.jpg shows few" not in text
        assert "--draw-warp" in text

    def test_only_what_can_be_drawn_is_to_be_looked_at(self, photos: Path) -> None:
        """--draw-warp refuses a fundamental matrix."""
        text = tell(photos, "a.jpg", "b.jpg", model="fundamental", max_keypoints=50)
        assert "“doubtful”" in text
        assert "--draw-warp" not in text

    def test_not_verified(self, photos: Path) -> None:
        for effort in ("normal", "wide"):
            text = tell(photos, "a.jpg", "b.jpg", model="none", effort=effort)
            assert text.startswith("a.jpg was compared with b.jpg. SIFT found ")
            assert text.endswith(" match one another. No transformation was asked for, so nothing was verified.")

    @pytest.mark.parametrize(
        ("correlation", "likeness"), [(0.95, "the same"), (0.6, "alike"), (0.1, "different"), (-0.3, "different")]
    )
    def test_how_alike_patches_are(self, photos: Path, correlation: float, likeness: str) -> None:
        result = match(photos, "a.jpg", "b.jpg")
        look = Confirmation(40, 30, 25, correlation, 0.7, 20, 0.5)
        text = explain(replace(result, attempts=(replace(result.attempts[0], second_look=look),)))
        assert f"25 patches look {likeness} (median correlation {correlation:.2f}); 70% of what both show" in text

    @pytest.mark.parametrize("detector", DETECTORS)
    def test_every_detector_has_a_name(self, photos: Path, detector: str) -> None:
        result = match(photos, "a.jpg", "b.jpg")
        told = replace(result, attempts=(replace(result.attempts[0], detector=detector),))
        name = {"affine-sift": "SIFT on views turned in space"}.get(detector, detector.upper())
        assert f"{name} " in explain(told)

    def test_figures_are_written_as_people_do(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "b.jpg", region_a=(40, 0, 12, 160))
        assert result.uncertainty_px is not None
        assert result.uncertainty_px > 100
        assert "e+" not in explain(result)

    def test_a_name_of_two_lines(self, photos: Path) -> None:
        (photos / "b.jpg").rename(photos / "two\nlines.jpg")
        tell(photos, "a.jpg", "two\nlines.jpg")


class TestWhatWouldHelp:
    def test_after_wide_it_is_not_advised(self, photos: Path) -> None:
        text = tell(photos, "a.jpg", "other.jpg", effort="wide")
        assert "SIFT found" in text
        assert "Then SIFT on views turned in space found" in text
        assert text.index("SIFT found") < text.index("Then SIFT on views")
        assert WIDE not in text
        assert LEARNED in text

    def test_after_learned_features_they_are_not_advised(self, photos: Path) -> None:
        result = match(photos, "a.jpg", "other.jpg", effort="wide")
        learned = replace(result, attempts=(*result.attempts, replace(result.attempts[0], detector="aliked")))
        assert "Then ALIKED with LightGlue found" in explain(learned)
        assert LEARNED not in explain(learned)

    @pytest.mark.parametrize("model", ["affine", "fundamental"])
    def test_another_model_is_advised_in_place_of_a_homography_alone(self, photos: Path, model: str) -> None:
        text = tell(photos, "a.jpg", "other.jpg", model=model)
        assert "“none”" in text
        assert FUNDAMENTAL not in text

    def test_a_flat_picture(self, photos: Path, flat: Path) -> None:
        text = tell(photos, "a.jpg", flat.name)
        assert "flat.png shows few keypoints: a sharper photo, or one with more texture, would help." in text
        assert "a.jpg shows few" not in text

    def test_two_flat_pictures(self, photos: Path, flat: Path) -> None:
        save(photos / "flatter.png", load(flat).pixels)
        text = tell(photos, "flat.png", "flatter.png")
        assert text.count("shows few keypoints") == 2

    def test_a_flat_picture_and_itself_is_told_once(self, photos: Path, flat: Path) -> None:
        assert tell(photos, flat.name, flat.name).count("shows few keypoints") == 1

    def test_a_small_region(self, photos: Path) -> None:
        text = tell(photos, "a.jpg", "other.jpg", region_a=(100, 40, 40, 40))
        assert "a.jpg was compared with other.jpg (only part of a.jpg was looked at)." in text
        assert "a.jpg shows few keypoints: a wider mask or region would help." in text
        assert "larger copy" not in text

    def test_a_small_mask_of_the_second_picture(self, photos: Path) -> None:
        mask = np.zeros_like(load(photos / "b.jpg").pixels)
        mask[40:80, 100:140] = 255
        save(photos / "mask.png", mask)

        text = tell(photos, "a.jpg", "b.jpg", mask_b=photos / "mask.png")

        assert "(only part of b.jpg was looked at)" in text
        assert "b.jpg shows few keypoints: a wider mask or region would help." in text

    def test_parts_of_both(self, photos: Path) -> None:
        regions = {"region_a": (20, 20, 200, 120), "region_b": (20, 20, 200, 120)}
        assert "(only part of a.jpg and b.jpg was looked at)" in tell(photos, "a.jpg", "b.jpg", **regions)
