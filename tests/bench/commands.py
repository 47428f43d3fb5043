"""CPU time of whole processes: `featkit match --draw`, cold and warm, against the tutorial's script; and the start.

python -m tests.bench.commands [--data FOLDER]
"""

from __future__ import annotations

import statistics
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.bench.report import child_cpu_seconds, data_folder, print_table

REPETITIONS = 5
FEATKIT = str(Path(sysconfig.get_path("scripts")) / "featkit")
TUTORIAL = str(Path(__file__).with_name("tutorial.py"))


def match_ratios(data: Path, scene: str) -> tuple[float, float, float]:
    """Median CPU seconds of the tutorial script, and the medians of cold and warm runs relative to it, run in turn."""
    photos = [str(data / "oxford" / scene / f"img{number}.png") for number in (1, 2)]
    tutorial, cold, warm = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for repetition in range(REPETITIONS):
            ours = [FEATKIT, "match", *photos, "--draw", f"{scratch}/featkit.png", "--force"]
            cache = {"FEATKIT_CACHE": f"{scratch}/cache-{repetition}"}
            reference = child_cpu_seconds([sys.executable, TUTORIAL, *photos, f"{scratch}/tutorial.png"])
            tutorial.append(reference)
            cold.append(child_cpu_seconds(ours, cache) / reference)
            warm.append(child_cpu_seconds(ours, cache) / reference)
    return statistics.median(tutorial), statistics.median(cold), statistics.median(warm)


def start_ratio(option: str) -> float:
    """CPU of `featkit OPTION` relative to `python -c pass`."""
    ratios = [
        child_cpu_seconds([FEATKIT, option]) / child_cpu_seconds([sys.executable, "-c", "pass"])
        for _ in range(4 * REPETITIONS)
    ]
    return statistics.median(ratios)


def main(data: Path) -> None:
    rows = []
    for scene in ("wall", "graf"):
        tutorial, cold, warm = match_ratios(data, scene)
        rows.append([f"{scene} 1–2", f"{tutorial:.2f} s", f"{cold:.2f}", f"{warm:.2f}"])
    columns = ["photos", "tutorial script, CPU", "featkit cold, ratio", "featkit warm, ratio"]
    print_table("`featkit match --draw` against the tutorial's script", columns, rows)
    start = [[f"`featkit {option}`", f"{start_ratio(option):.1f}"] for option in ("--help", "--version")]
    print_table("Start, CPU relative to `python -c pass`", ["command", "ratio"], start)


if __name__ == "__main__":
    main(data_folder(__doc__))
