"""`featkit stitch` beside other stitchers: registration, pictures, real photos, time.

python -m tests.bench.stitching [--data FOLDER] [--only TABLE …] [--peers NAME …] [--stitching-python PYTHON]

The peers are cv2.Stitcher, the package `stitching` and Hugin's command line; one that is not installed is left out, and
that is said. Times in the first two tables are of single runs, with a cache of their own.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import stitching_memory
from tests.bench.commands import FEATKIT
from tests.bench.report import arguments, option_parser, print_table
from tests.bench.stitched import Run, Tied, independent_matches, match_errors, picture_psnr, registration_error, run
from tests.bench.stitching_peers import NOT_INSTALLED

REPETITIONS = 3
RENDERED = ("syn_row8x", "syn_grid10x")
REAL = ("apartment", "weir", "myself", "budapest", "exposure")
FLAT = ("budapest",)
MIXED = ("weir", "budapest")
# Of imagenet-sample, for the mixed folder.
STRANGERS = (0, 33, 66)
PEERS = ("cv2", "stitching", "hugin")
TABLES = ("rendered", "real", "time", "memory")


def photos_of(data: Path, scene: str) -> list[str]:
    return sorted(str(path) for path in (data / "panoramas" / scene).glob("*.jpg"))


def is_stranger(path: str) -> bool:
    return "noise" in Path(path).stem or Path(path).suffix == ".JPEG"


def mixed_folder(data: Path) -> list[str]:
    """Two panoramas and strangers to both, in an order that says nothing."""
    strangers = sorted(str(path) for path in (data / "imagenet-sample").glob("*.JPEG"))
    photos = [photo for scene in MIXED for photo in photos_of(data, scene)] + [strangers[which] for which in STRANGERS]
    return [photos[which] for which in np.random.default_rng(0).permutation(len(photos))]


def featkit_command(photos: Sequence[str], output: str, *options: str) -> list[str]:
    return [FEATKIT, "stitch", *photos, "-o", output, "--json", "--force", *options]


def peer_command(peer: str, photos: Sequence[str], output: str, python: str, flat: bool = False) -> list[str]:
    variant = {"cv2": "cv2-scans", "stitching": "stitching-affine"}.get(peer, peer) if flat else peer
    interpreter = python if peer == "stitching" else sys.executable
    return [interpreter, str(Path(__file__).with_name("stitching_peers.py")), variant, output, *photos]


def each_stitcher(
    photos: Sequence[str], peers: Sequence[str], python: str, flat: bool = False, options: Sequence[str] = ()
) -> Iterator[tuple[str, Run, str]]:
    """(name, run, output) of featkit with a cold cache, and of every peer that is there."""
    with tempfile.TemporaryDirectory() as scratch:
        output = f"{scratch}/featkit.png"
        yield "featkit", run(featkit_command(photos, output, *options), {"FEATKIT_CACHE": f"{scratch}/cache"}), output
        for peer in peers:
            output = f"{scratch}/{peer}.png"
            done = run(peer_command(peer, photos, output, python, flat))
            if done.status == NOT_INSTALLED:
                print(f"{peer} is not installed, and left out", file=sys.stderr)
            else:
                yield peer, done, output


def pixels(error: float, decimals: int = 2) -> str:
    return f"{error:.{decimals}f} px" if np.isfinite(error) else "–"


def time_columns(done: Run) -> list[str]:
    return [f"{done.seconds:.1f} s", f"{done.cpu_seconds:.1f} s"]


# --- views whose cameras and picture are known


def rendered_rows(data: Path, scene: str, peers: Sequence[str], python: str) -> Iterator[list[str]]:
    photos = photos_of(data, scene)
    cameras: list[Mapping[str, Any]] = json.loads((data / "panoramas" / scene / "truth.json").read_text())
    truth = dict(zip((Path(photo).name for photo in photos), cameras, strict=True))
    for name, done, output in each_stitcher(photos, peers, python, options=("--projection", "spherical")):
        rms, worst = registration_error(done.images, truth)
        psnr = picture_psnr(output, str(data / "panoramas" / "syn_truth.jpg")) if done.images else float("nan")
        placed = f"{len(done.images)} of {len(photos)}"
        yield [scene, name, placed, pixels(rms, 3), pixels(worst, 3), f"{psnr:.1f} dB", *time_columns(done)]


# --- real photos


def real_row(scene: str, name: str, done: Run, photos: Sequence[str], pairs: Sequence[Tied]) -> list[str]:
    groups = [[image["path"] for image in panorama["images"]] for panorama in done.panoramas]
    placed = [path for group in groups for path in group]
    strangers = {photo for photo in photos if is_stranger(photo)}
    named = {record["path"] for record in done.left_out}
    errors = [match_errors(panorama["images"], pairs) for panorama in done.panoramas]
    error = np.concatenate(errors) if errors else np.array([np.inf])
    largest = done.panoramas[0] if done.panoramas else {}
    held_out = largest.get("held_out_px", {}).get("median")
    overlap = largest.get("overlap_psnr_db")
    return [
        scene,
        name,
        " + ".join(str(len(set(group) - strangers)) for group in groups) or "none",
        str(len(set(photos) - strangers)),
        f"{len(strangers & named)} / {len(strangers & set(placed))} of {len(strangers)}" if strangers else "–",
        pixels(float(np.median(error))),
        pixels(float(np.sqrt((error**2).mean()))),
        f"{np.isfinite(error).sum():,}",
        "–" if held_out is None else pixels(held_out),
        "–" if overlap is None else f"{overlap:.1f} dB",
        str(done.status),
        *time_columns(done),
    ]


def real_rows(data: Path, scene: str, peers: Sequence[str], python: str) -> Iterator[list[str]]:
    photos = mixed_folder(data) if scene == "mixed" else photos_of(data, scene)
    pairs = independent_matches(photos)
    for name, done, _ in each_stitcher(photos, peers, python, flat=scene in FLAT):
        yield real_row(scene, name, done, photos, pairs)


# --- time


def time_row(data: Path, scene: str) -> list[str]:
    """Medians, over repetitions in turn, of cv2.Stitcher's seconds, and of what featkit takes relative to it."""
    photos, walls, cpus = photos_of(data, scene), [], []
    with tempfile.TemporaryDirectory() as scratch:
        ours = featkit_command(photos, f"{scratch}/featkit.jpg")
        for repetition in range(REPETITIONS):
            cache = {"FEATKIT_CACHE": f"{scratch}/cache-{repetition}"}
            peer = run(peer_command("cv2", photos, f"{scratch}/cv2.jpg", sys.executable, flat=scene in FLAT))
            runs = [peer, run(ours, cache), run(ours, cache)]
            walls.append([each.seconds for each in runs])
            cpus.append([each.cpu_seconds for each in runs])
    columns = []
    for seconds in (walls, cpus):
        columns.append(f"{statistics.median(peer for peer, *_ in seconds):.2f} s")
        for which in (1, 2):
            columns.append(f"{statistics.median(each[which] / each[0] for each in seconds):.2f}")
    return [scene, *columns]


def main(
    data: Path,
    tables: Sequence[str] = TABLES,
    peers: Sequence[str] = PEERS,
    python: str = sys.executable,
) -> None:
    if "rendered" in tables:
        rendered = (row for scene in RENDERED for row in rendered_rows(data, scene, peers, python))
        print_table(
            "Views rendered out of a panorama: against their cameras, and against the panorama",
            ["photos", "stitcher", "placed", "RMS", "worst pair, RMS", "PSNR", "wall", "CPU"],
            rendered,
        )
    if "real" in tables:
        real = (row for scene in (*REAL, "mixed") for row in real_rows(data, scene, peers, python))
        columns = [
            "photos",
            "stitcher",
            "placed",
            "of",
            "strangers named / pasted in",
            "independent matches, median",
            "RMS",
            "matches",
            "held out, median",
            "overlaps, PSNR",
            "exit",
            "wall",
            "CPU",
        ]
        print_table("Real photos", columns, real)
    if "time" in tables:
        columns = ["photos", "cv2, wall", "cold", "warm", "cv2, CPU", "cold", "warm"]
        times = (time_row(data, scene) for scene in (*RENDERED, *REAL))
        print_table("`featkit stitch`: seconds relative to cv2.Stitcher", columns, times)
    if "memory" in tables:
        stitching_memory.main()


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=" ".join(TABLES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, metavar="NAME", help=" ".join(PEERS))
    parser.add_argument("--stitching-python", default=sys.executable, help="one that has the package `stitching`")
    given = arguments(parser)
    main(given.data, given.only, given.peers, given.stitching_python)
