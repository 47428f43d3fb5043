"""What `featkit extract` does."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from featkit.archives import PictureFiles
from featkit.cache import Cache, open_cache
from featkit.cli.console import (
    Stages,
    copy_to_stdout,
    counted,
    print_error,
    print_line,
    print_record,
    progress_wanted,
    stages,
)
from featkit.cli.interrupts import held_back, in_background
from featkit.cli.named import named_pictures
from featkit.cli.networks import NetworkRequest, refuse, say_how, with_defaults
from featkit.cli.options import picture_size, refuse_no_list
from featkit.deep.config import RANDOM
from featkit.errors import UsageError
from featkit.extraction import formats, merging, shards
from featkit.extraction.config import ExtractConfig
from featkit.extraction.describers import Described, Describer, Vectors, describer
from featkit.extraction.pipeline import Job, Output, begin, check_place, finish, make
from featkit.extraction.tables import Field, Table, error_of
from featkit.images import DecodeOptions
from featkit.local.features import DETECTORS
from featkit.processors import threads
from featkit.records import error_record, printable, record

SOME_FAILED = 1
ALL_FAILED = 2

STDOUT = "-"
_TIMES_TO_REMOVE = 100
# Of a vector, on a line for people.
_NUMBERS_SHOWN = 4


@dataclass(frozen=True)
class Request(NetworkRequest):
    """The command line; None for what it does not say."""

    pictures: list[str]
    output: str | None
    seed: int | None
    features: str | None
    size: str | None
    max_keypoints: int | None
    max_side: int | None
    dtype: str | None
    format: str | None
    shard: str | None
    shard_size: int | None
    merge: bool
    files_from: str | None
    nul: bool
    recursive: bool
    decode: DecodeOptions
    jobs: int | None
    use_cache: bool
    force: bool
    json: bool
    quiet: bool

    @property
    def of_networks(self) -> dict[str, object]:
        return {**self.given, "--seed": self.seed}


def run(request: Request) -> int:
    """Extract, print, save; returns the exit status."""
    if request.merge:
        return _merge(request)
    config = _config(request)
    jobs = threads(request.jobs)
    refuse_no_list(request.pictures, request.files_from, request.nul)
    output = _output(request)
    named = named_pictures(request.pictures, request.files_from, nul=request.nul, recursive=request.recursive)
    files = PictureFiles(named)
    if not files.paths:
        raise UsageError("there are no pictures", hint="featkit extract photos/ -o features.npz")
    if output is not None and output.path != STDOUT:
        check_place(output)
        _refuse_to_overwrite(output, [*named, *filter(None, (request.weights, request.files_from))])
    cache = open_cache(request.use_cache)
    with stages(wanted=progress_wanted(quiet=request.quiet, json=request.json)) as show:
        made = describer(
            config,
            count=len(files.paths),
            cache=cache,
            jobs=jobs,
            progress=lambda done, total: show("downloading weights (bytes)", done, total),
        )
        if isinstance(made, Vectors) and not request.quiet:
            say_how(made.maker)
        if output is None:
            return _print_all(request, made, files, cache, jobs, show)
        if output.path != STDOUT:
            return _save_all(request, output, made, files, cache, jobs, show)
        with _temporary_folder() as folder:
            path = folder / f"features.{output.format}"
            status = _save_all(request, Output(str(path), output.format), made, files, cache, jobs, show)
            copy_to_stdout(path)
        return status


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(mkdtemp(prefix="featkit-"))
    try:
        yield folder
    finally:
        # After a signal, the thread in the background may be about to put a file into it.
        for _ in range(_TIMES_TO_REMOVE):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break


# --- what is asked for


def _of_vectors(request: Request) -> dict[str, object]:
    return {"--size": request.size, "--dtype": request.dtype}


def _of_folders(request: Request) -> dict[str, object]:
    return {"--shard": request.shard, "--shard-size": request.shard_size}


def _config(request: Request) -> ExtractConfig:
    if request.features is not None:
        refuse(
            request.of_networks,
            f"networks, and --features {request.features} is without one",
            "leave one of them out",
        )
        if request.features in DETECTORS:
            refuse(_of_vectors(request), f"vectors, and --features {request.features} has keypoints", "leave it out")
    elif request.size is not None:
        raise UsageError("--size is for --features hog and the like", hint="--input is that of a network")
    if request.seed is not None and request.weights != RANDOM:
        raise UsageError("--seed is of --weights random", hint="other weights have no need of one")
    chosen: ExtractConfig = with_defaults(
        ExtractConfig,
        features=request.features,
        network=request.config(request.seed),
        size=None if request.size is None else picture_size(request.size),
        max_keypoints=request.max_keypoints,
        max_side=request.max_side,
        dtype=request.dtype,
        decode=request.decode,
    )
    return chosen


def _output(request: Request) -> Output | None:
    if request.output is None:
        refuse({"--format": request.format, **_of_folders(request)}, "a file or folder", "name one with -o")
        return None
    job = Job() if request.shard is None else _job(request.shard)
    if request.output == STDOUT:
        _refuse_strange_stdout(request)
        return Output(STDOUT, request.format)
    return Output(request.output, request.format, request.shard_size, job, request.force)


def _job(text: str) -> Job:
    form = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if form is None or not 1 <= int(form[1]) <= int(form[2]):
        raise UsageError(f"--shard takes K/N, K from 1 to N, not {text!r}", hint="for example: --shard 3/8")
    return Job(int(form[1]), int(form[2]))


def _refuse_strange_stdout(request: Request) -> None:
    if request.json:
        raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
    if request.shard is not None or request.shard_size is not None:
        raise UsageError("stdout has no shards", hint="name a folder with -o")
    known = [name for name in formats.FORMATS if name not in (formats.FOLDER, "npy")]
    if request.format not in known:
        problem = "needs --format" if request.format is None else f"knows no --format {request.format}"
        raise UsageError(f"-o - {problem}", hint=f"one of: {', '.join(known)}")
    if sys.stdout.isatty():
        raise UsageError("features do not go onto a terminal", hint="redirect it, or give -o FILE")


def _refuse_to_overwrite(output: Output, read: Iterable[str]) -> None:
    if Path(output.path).is_file() and os.path.realpath(output.path) in map(os.path.realpath, read):
        raise UsageError("a file that is read would be overwritten", path=output.path, hint="choose another name")


# --- doing it


@dataclass
class _Tally:
    pictures: int = 0
    failed: int = 0

    @property
    def status(self) -> int:
        return 0 if not self.failed else ALL_FAILED if self.failed == self.pictures else SOME_FAILED


def _print_all(request: Request, made: Describer, files: PictureFiles, cache: Cache, jobs: int, show: Stages) -> int:
    tally = _Tally()
    described = in_background(made(files.paths, files.read, cache=cache, jobs=jobs))
    with closing(described):
        for each in described:
            start = tally.pictures
            for row, path in enumerate(each.table.paths):
                if _failed(path, each.table.errors[row], tally, json=request.json):
                    continue
                for field in made.fields:
                    values = _values(each.table, field, row)
                    if request.json:
                        print_record(_record(each, field, row, start, values=values))
                    else:
                        print_line(f"{printable(path)}  {_summary(field, values)}")
            show("extracting", tally.pictures, len(files.paths))
    return tally.status


def _save_all(
    request: Request,
    output: Output,
    made: Describer,
    files: PictureFiles,
    cache: Cache,
    jobs: int,
    show: Stages,
) -> int:
    tally, kept = _Tally(), 0
    plan = begin(output, files, made)
    count = sum(len(plan.places(index)) for index in shards.mine(plan.shards, output.job.number, output.job.jobs))
    finished = in_background(make(output, plan, files, made, cache=cache, jobs=jobs))
    with closing(finished):
        for each in finished:
            table = each.described.table
            kept += len(table) * each.kept
            for row, path in enumerate(table.paths):
                if _failed(path, table.errors[row], tally, json=request.json):
                    continue
                if request.json:
                    for field in made.fields:
                        print_record(_record(each.described, field, row, each.start, output=output.path))
            show("extracting", tally.pictures, count)
    finish(output, plan, unbroken=held_back)
    if not request.json and request.output != STDOUT:
        print_line(_told(output, made, tally, kept, len(files.paths)))
    return tally.status


def _failed(path: str, error: str, tally: _Tally, *, json: bool) -> bool:
    """Count a picture; where there is an error, say it."""
    tally.pictures += 1
    if not error:
        return False
    tally.failed += 1
    failure = error_of(error, path)
    print_error(failure)
    if json:
        print_record(error_record(failure))
    return True


def _values(table: Table, field: Field, row: int) -> Any:
    part = table.part(row, row + 1)
    return part.values[field.name] if field.ragged else part.values[field.name][0]


def _record(
    each: Described, field: Field, row: int, start: int, *, output: str | None = None, values: Any = None
) -> dict[str, object]:
    """start: of the table among all pictures. layer: also what keypoints have, as sift.xy; dim: of each of them
    then."""
    found = record(
        "features",
        path=each.table.paths[row],
        sha256=each.table.digests[row],
        layer=field.name,
        dim=field.width,
        output=output,
        row=start + row,
        seconds=each.seconds,
        cached=each.cached,
    )
    return found if values is None else {**found, "values": values}


def _summary(field: Field, values: Any) -> str:
    if field.ragged:
        return f"{field.name}  {len(values)}"
    flat = np.asarray(values, np.float64).ravel()
    first = " ".join(f"{value:.4g}" for value in flat[:_NUMBERS_SHOWN])
    shape = "×".join(map(str, field.shape))
    more = " …" if len(flat) > _NUMBERS_SHOWN else ""
    return f"{field.name} {shape} · length {np.linalg.norm(flat):.4g} · {first}{more}"


def _told(output: Output, made: Describer, tally: _Tally, kept: int, count: int) -> str:
    kinds = ", ".join(
        f"{field.name} {'×'.join([*['N'] * field.ragged, *map(str, field.shape)])}" for field in made.fields
    )
    parts = [f"{printable(output.path)}: {counted(tally.pictures, 'picture')}, {kinds}"]
    if tally.pictures < count:
        parts.append(f"of {count}: job {output.job.number} of {output.job.jobs}")
    if tally.failed:
        parts.append(f"{tally.failed} could not be read")
    if kept:
        parts.append(f"{kept} were there already")
    return " · ".join(parts)


def _merge(request: Request) -> int:
    making = {
        "--features": request.features,
        **request.of_networks,
        **_of_vectors(request),
        "--max-keypoints": request.max_keypoints,
        "--max-side": request.max_side,
        **_of_folders(request),
        "--files-from": request.files_from,
    }
    refuse(making, "pictures, and --merge joins what was made of them", "leave one of them out")
    if request.output is None or request.output == STDOUT:
        raise UsageError("--merge needs -o", hint="name a folder or a file for what is joined")
    merged = merging.merge(
        request.pictures, request.output, force=request.force, format=request.format, unbroken=held_back
    )
    if request.json:
        print_record(
            record(
                "merged",
                output=request.output,
                shards=merged.shards,
                pictures=merged.pictures,
                failed=merged.failed,
            )
        )
    else:
        print_line(
            f"{printable(request.output)}: {counted(merged.pictures, 'picture')} of {counted(merged.shards, 'shard')}"
            + (f" · {merged.failed} could not be read" if merged.failed else "")
        )
    return _Tally(merged.pictures, merged.failed).status
