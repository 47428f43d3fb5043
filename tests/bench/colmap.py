"""Does COLMAP's incremental mapper register every photo of a castle from the database that featkit writes?

python -m tests.bench.colmap [--data FOLDER]
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pycolmap

from tests.bench.commands import FEATKIT
from tests.bench.report import data_folder, print_table


@contextlib.contextmanager
def without_log() -> Iterator[None]:
    """COLMAP reports each step on stderr from C++."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def main(data: Path) -> None:
    photos = sorted(str(path) for path in (data / "sceaux").glob("*.JPG"))
    rows = []
    for options in ([], ["--max-side", "1600"]):
        with tempfile.TemporaryDirectory() as scratch:
            database = f"{scratch}/castle.db"
            subprocess.run([FEATKIT, "match", *photos, "-o", database, *options], capture_output=True, check=True)
            checked = subprocess.run([FEATKIT, "match", "--check", database], capture_output=True).returncode == 0
            Path(f"{scratch}/models").mkdir()
            with without_log():
                models = pycolmap.incremental_mapping(database, data / "sceaux", f"{scratch}/models")
        largest = max(models.values(), key=lambda model: model.num_reg_images())
        rows.append(
            [
                f"`featkit match *.JPG -o castle.db {' '.join(options)}".rstrip() + "`",
                "yes" if checked else "NO",
                f"{largest.num_reg_images()} of {len(photos)}",
                f"{largest.num_points3D():,}",
                f"{largest.compute_mean_reprojection_error():.2f} px",
                f"{next(iter(largest.cameras.values())).params[0]:.0f} px",
            ]
        )
    columns = ["command", "`--check`", "registered", "points", "reprojection error", "focal length (truth: 2906)"]
    print_table("COLMAP's incremental mapper on 11 photos of a castle", columns, rows)


if __name__ == "__main__":
    main(data_folder(__doc__))
