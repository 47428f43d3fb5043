"""What the tests share: where the outside data is, an isolated cache, a way to run the CLI, and the tolerances."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
SHARED_DATA = ROOT.parent / "shared" / "data"

#: Absolute tolerances, one table for all tests: what is compared, and how close it must come.
TOLERANCE = {
    "homography_px": 0.5,  # mean corner error on an exact warp of a textured photo
    "coordinates_px": 1e-4,  # float32 keypoints of pictures up to 4096 pixels
    "float32": 1e-5,
    "float64": 1e-10,
}


@pytest.fixture(scope="session")
def samples() -> Path:
    return SAMPLES


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the measurement photos (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("FEATKIT_CACHE", str(tmp_path / "cache"))


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def featkit(tmp_path: Path) -> Run:
    """Run `featkit ARGUMENTS…` as a process of its own, in `tmp_path`; output as bytes."""

    def run(
        *arguments: str | bytes | Path, stdin: bytes | None = None, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        # -W error: a warning that reaches a user's terminal from a library is a defect, so it fails loudly here.
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "featkit", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=cwd or tmp_path,
            env={**os.environ, **environment},
            timeout=300,
        )

    return run
