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


def match_ratios(data: Path, scene: str) -> list[float]:
    """Median CPU seconds of the tutorial script, and medians relative to it, run in turn: of cold runs with effort fast
    and normal, and of a warm run with effort normal. Last, normal over fast."""
    photos = [str(data / "oxford" / scene / f"img{number}.png") for number in (1, 2)]
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        ours = [FEATKIT, "match", *photos, "--draw", f"{scratch}/featkit.png", "--force", "--effort"]
        for repetition in range(REPETITIONS):
            cold, warm = ({"FEATKIT_CACHE": f"{scratch}/{name}-{repetition}"} for name in ("fast", "normal"))
            seconds.append(
                [
                    child_cpu_seconds([sys.executable, TUTORIAL, *photos, f"{scratch}/tutorial.png"]),
                    child_cpu_seconds([*ours, "fast"], cold),
                    child_cpu_seconds([*ours, "normal"], warm),
                    child_cpu_seconds([*ours, "normal"], warm),
                ]
            )
    ratios = [
        [fast / tutorial, normal / tutorial, warm / tutorial, normal / fast] for tutorial, fast, normal, warm in seconds
    ]
    return [statistics.median(tutorial for tutorial, *_ in seconds), *map(statistics.median, zip(*ratios, strict=True))]


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
        tutorial, *ratios = match_ratios(data, scene)
        rows.append([f"{scene} 1–2", f"{tutorial:.2f} s", *(f"{ratio:.2f}" for ratio in ratios)])
    columns = ["photos", "tutorial script, CPU", "fast, cold", "normal, cold", "normal, warm", "normal over fast"]
    print_table("`featkit match --draw`: CPU relative to the tutorial's script", columns, rows)
    start = [[f"`featkit {option}`", f"{start_ratio(option):.1f}"] for option in ("--help", "--version")]
    print_table("Start, CPU relative to `python -c pass`", ["command", "ratio"], start)


if __name__ == "__main__":
    main(data_folder(__doc__))
