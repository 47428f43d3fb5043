"""The sample pictures: all accounted for, small, reproducible, and their truth true."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featkit.opencv import cv2

ROOT = Path(__file__).resolve().parent.parent
TRUTHS = sorted(path.name for path in (ROOT / "samples").glob("*_to_*.txt"))
#: What explains and makes the samples is no sample.
NO_SAMPLES = {"README.md", "make_samples.py", "make_gallery.py", "gallery"}


@pytest.fixture(scope="module")
def listed(samples: Path) -> dict[str, str]:
    """File name → its row in samples/README.md."""
    rows = re.findall(r"^\| `([^`]+)` (\|.*)\|$", (samples / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


@pytest.fixture(scope="module")
def remade(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remade")
    subprocess.run([sys.executable, str(samples / "make_samples.py"), str(folder)], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def make_samples(samples: Path) -> dict[str, Any]:
    return runpy.run_path(str(samples / "make_samples.py"), run_name="make_samples")


def pictures_of(truth: str, samples: Path) -> tuple[Path, Path]:
    a, b = truth.removesuffix(".txt").split("_to_")
    path_a, path_b = (next(path for path in samples.glob(f"{stem}.*") if path.suffix != ".txt") for stem in (a, b))
    return path_a, path_b


def test_the_readme_lists_every_sample_and_nothing_else(samples: Path, listed: dict[str, str]) -> None:
    there = {path.name for path in samples.iterdir() if path.is_file()} - NO_SAMPLES
    assert set(listed) == there


def test_every_picture_has_its_licence_or_the_original_that_has_it(samples: Path, listed: dict[str, str]) -> None:
    originals = {name: row for name, row in listed.items() if "CC BY 2.0" in row or "CC0" in row}
    assert set(originals) == {"china.jpg", "coffee.png", "chelsea.png", "camera.png"}
    for name, row in listed.items():
        if not name.endswith(".txt"):
            assert name in originals or any(f"`{original}`" in row for original in originals)


def test_the_readme_states_the_true_sizes(samples: Path, listed: dict[str, str]) -> None:
    for name, row in listed.items():
        if not name.endswith(".txt"):
            with Image.open(samples / name) as image:
                assert f"{image.width}×{image.height}" in row, name


def test_the_samples_are_small(samples: Path) -> None:
    assert sum(path.stat().st_size for path in samples.iterdir() if path.is_file()) < 3_000_000


def test_make_samples_makes_these_samples(samples: Path, listed: dict[str, str], remade: Path) -> None:
    assert {path.name for path in remade.iterdir() if path.is_file()} == set(listed)
    for name in listed:
        if name.endswith(".txt"):
            np.testing.assert_allclose(np.loadtxt(remade / name), np.loadtxt(samples / name), rtol=1e-9)
            continue
        with Image.open(remade / name) as new, Image.open(samples / name) as kept:
            difference = np.abs(np.asarray(new, np.int16) - np.asarray(kept, np.int16))
        # Another JPEG encoder may round otherwise.
        assert difference.mean() < 0.5, name


def test_thirty_of_each_digit_and_they_are_made_again(samples: Path, remade: Path) -> None:
    kept, new = (sorted((folder / "digits").rglob("*.*")) for folder in (samples, remade))
    assert [path.relative_to(samples) for path in kept] == [path.relative_to(remade) for path in new]
    assert [path.parent.name for path in kept] == [digit for digit in "0123456789" for _ in range(30)]
    for one, other in zip(kept, new, strict=True):
        with Image.open(one) as a, Image.open(other) as b:
            assert (a.size, a.mode) == ((8, 8), "L")
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_making_a_view_again_gives_the_same_bytes(make_samples: dict[str, Any], remade: Path) -> None:
    view = make_samples["VIEWS"][0]
    assert make_samples["photograph"](view, remade) == (remade / view.name).read_bytes()


def test_rendering_puts_every_point_where_the_homography_says(make_samples: dict[str, Any]) -> None:
    """Against a picture that is a formula: its view is the formula at the mapped places."""

    def formula(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.5 + 0.2 * np.sin(x / 7 + y / 19) * np.cos(y / 9 - x / 31) + 0.1 * np.sin((x + y) / 5)

    homography = make_samples["framing"]([(20, 12), (130, 30), (118, 95), (24, 100)], (120, 90))
    picture = formula(*np.meshgrid(np.arange(150.0), np.arange(120.0)))
    view = make_samples["render"](picture[:, :, None], homography, (120, 90))[:, :, 0]

    offsets = (np.arange(9) + 0.5) / 9 - 0.5
    x, y = np.meshgrid(np.add.outer(np.arange(120), offsets), np.add.outer(np.arange(90), offsets))
    sources = np.linalg.inv(homography) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    light = make_samples["linear"](formula(*(sources[:2] / sources[2]))).reshape(90, 9, 120, 9).mean(axis=(1, 3))
    down, right = np.gradient(light)
    gradients = np.stack([right.ravel(), down.ravel()], axis=1)
    shift, *_ = np.linalg.lstsq(gradients, (light - view).ravel(), rcond=None)
    assert np.abs(shift).max() < 1e-4
    assert np.abs(light - view).max() < 1e-3


def test_a_view_past_the_edge_of_its_original_is_refused(make_samples: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="past the edge"):
        make_samples["render"](np.zeros((10, 10, 3)), np.eye(3), (11, 10))


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_truth_agrees_with_an_independent_measurement(truth: str, samples: Path) -> None:
    """Direct alignment (ECC) of the files themselves, noise and JPEG included, leaves the truth where it is."""
    matrix = np.loadtxt(samples / truth)
    a, b = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in pictures_of(truth, samples))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-6)
    start = np.linalg.inv(matrix).astype(np.float32)
    _, measured = cv2.findTransformECC(b, a, start, cv2.MOTION_HOMOGRAPHY, stop, None, 1)

    x, y = np.meshgrid(np.arange(0, b.shape[1], 8), np.arange(0, b.shape[0], 8))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)[:, None]
    in_a = cv2.perspectiveTransform(points, np.linalg.inv(matrix))
    both = ((in_a >= 0) & (in_a <= np.array([a.shape[1] - 1, a.shape[0] - 1]))).all(axis=(1, 2))
    back = cv2.perspectiveTransform(cv2.perspectiveTransform(points, measured.astype(float)), matrix)
    error = np.linalg.norm(back - points, axis=2)[both]
    assert error.mean() < 0.03
    assert error.max() < 0.1


def test_the_left_and_right_view_are_one_camera_turning(samples: Path) -> None:
    calibration = np.array([[700, 0, 239.5], [0, 700, 199.5], [0, 0, 1]])
    turn = np.linalg.inv(calibration) @ np.loadtxt(samples / "china-left_to_china-right.txt") @ calibration
    turn /= np.cbrt(np.linalg.det(turn))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(15.4, abs=0.1)
