"""What a match result means, in a paragraph for a person."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np

from featkit.local.results import Attempt, MatchResult
from featkit.local.verdict import DOUBTFUL, NONE, RELIABLE
from featkit.records import printable

# Below, a picture has little that any detector could find.
_FEW_KEYPOINTS = 100
_SMALL_SIDE = 200
# So many matches any transformation can be drawn through.
_FEWEST_WORTH_TELLING = 5
_NAMES = {
    "sift": "SIFT",
    "orb": "ORB",
    "affine-sift": "SIFT on views turned in space",
    "aliked": "ALIKED with LightGlue",
    "disk": "DISK with LightGlue",
}


def explain(result: MatchResult) -> str:
    """What was tried, what it found, why the verdict, and what would help: one paragraph, no line breaks."""
    return printable(" ".join([_what_was_tried(result), _why(result), *_what_would_help(result)]))


def _what_was_tried(result: MatchResult) -> str:
    a, b = _names(result)
    sentences = [f"{_attempt(attempt)}." for attempt in result.attempts]
    parts = [name for name, picture in ((a, result.a), (b, result.b)) if picture.subject.mask or picture.subject.region]
    where = f" (only part of {' and '.join(parts)} was looked at)" if parts and result.a.path != result.b.path else ""
    return f"{a} was compared with {b}{where}. " + " Then ".join(sentences)


def _names(result: MatchResult) -> tuple[str, str]:
    """Without their folders, unless that is all that tells them apart."""
    a, b = PurePath(result.a.path), PurePath(result.b.path)
    if a == b and result.a.subject != result.b.subject:
        return f"one part of {a.name}", f"another part of {a.name}"
    return (a.name, b.name) if a.name != b.name or a == b else (str(a), str(b))


def _attempt(attempt: Attempt) -> str:
    if attempt.error is not None:
        return f"{_NAMES[attempt.detector]} could not be used: {attempt.error}"
    found = f"{attempt.keypoints[0]} and {attempt.keypoints[1]} keypoints"
    said = f"{_NAMES[attempt.detector]} found {found}, of which {attempt.matches} match one another"
    if attempt.inliers >= _FEWEST_WORTH_TELLING:
        said += f" and {attempt.inliers} agree on one transformation"
    look = attempt.second_look
    if look is None or not look.matches:
        return said
    said += f"; with the first picture warped onto the second, {look.agreeing} of {look.matches} keypoints lie right"
    if look.patches:
        said += f" and {look.patches} patches look {_likeness(look.correlation)}"
        said += f" (median correlation {look.correlation:.2f})"
    if look.blocks:
        said += f"; {look.alike:.0%} of what both show looks alike"
    return said


def _likeness(correlation: float) -> str:
    if correlation > 0.9:
        return "the same"
    return "alike" if correlation > 0.4 else "different"


def _why(result: MatchResult) -> str:
    if result.config.model == "none":
        return "No transformation was asked for, so nothing was verified."
    if result.verdict == NONE:
        return f"The verdict is “none”, and no transformation is given: {result.estimate.reason}."
    said = f"The verdict is “{result.verdict}”: {result.estimate.reason}."
    if result.uncertainty_px is not None:
        said += (
            f" The corners of the first picture are expected to be misplaced by {_pixels(result.uncertainty_px)} pixels"
            f" of the second, and by less than {_pixels(result.bound_px)} in 95 of 100 such cases."
        )
    return said


def _pixels(value: float | None) -> str:
    """Two digits, and no exponent."""
    return np.format_float_positional(value or 0, precision=2, fractional=False, trim="-")


def _what_would_help(result: MatchResult) -> list[str]:
    if result.verdict == RELIABLE or result.config.model == "none":
        return []
    config = result.config
    advice = []
    pictures = dict(zip(_names(result), (result.a, result.b), strict=True))
    for name, picture in pictures.items():
        if len(picture.features) < _FEW_KEYPOINTS:
            small = min(picture.features.image_size) < _SMALL_SIDE
            remedy = "a larger copy of it" if small else "a sharper photo, or one with more texture,"
            restricted = picture.subject.mask or picture.subject.region
            remedy = "a wider mask or region" if restricted else remedy
            advice.append(f"{name} shows few keypoints: {remedy} would help.")
    if config.effort != "wide":
        advice.append("--effort wide tries stronger detectors.")
    elif "aliked" not in {attempt.detector for attempt in result.attempts}:
        advice.append("Learned features go further: pip install 'featkit[learned]'.")
    if config.model == "homography":
        advice.append("A scene with depth, seen from two places, has no such transformation: try --model fundamental.")
    if result.verdict == DOUBTFUL and config.model != "fundamental":
        advice.append("Look at it with --draw-warp: what is grey there fits.")
    return advice
