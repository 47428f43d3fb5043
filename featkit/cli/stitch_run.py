"""What `featkit stitch` does: name the photos, place them, draw and write every panorama, and say what was left out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from featkit.cache import open_cache, parse_size
from featkit.canvas import Canvas, check_format
from featkit.cli.console import (
    Stages,
    copy_to_stdout,
    counted,
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
    progress_wanted,
    stages,
)
from featkit.cli.interrupts import in_background
from featkit.cli.named import each_once, named_pictures
from featkit.cli.options import refuse_no_list
from featkit.configs import from_options
from featkit.errors import OutputError, UsageError
from featkit.images import DecodeOptions
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.progress import followed
from featkit.records import check_writable, error_record, printable
from featkit.stitching.config import StitchConfig
from featkit.stitching.diagrams import check_diagrams, write_diagrams
from featkit.stitching.panorama import Panorama
from featkit.stitching.pipeline import Stitched, stitch_steps
from featkit.stitching.poses import Poses, read_poses, write_poses

SOME_LEFT_OUT = 1
NOTHING_JOINED = 3

_FORMATS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
_EXAMPLE = "featkit stitch *.jpg -o pano.jpg"


@dataclass(frozen=True)
class Request:
    """What the command line asks for, apart from what the panorama looks like."""

    pictures: list[str]
    files_from: str | None
    nul: bool
    recursive: bool
    output: str | None
    format: str | None
    poses: str | None
    debug_dir: str | None
    force: bool
    json: bool
    quiet: bool
    jobs: int | None
    use_cache: bool
    decode: DecodeOptions
    max_memory: str | None

    @property
    def to_stdout(self) -> bool:
        return self.output == "-"


def run(request: Request, **options: Any) -> int:
    """Stitch and report; options are fields of `StitchConfig`, None for its default. Returns the exit status."""
    _refuse_strange_combinations(request)
    given = {name: value for name, value in options.items() if value is not None}
    if request.max_memory is not None:
        given["max_memory"] = parse_size(request.max_memory, "--max-memory")
    config = from_options(StitchConfig, {"decode": request.decode, **given})
    poses = read_poses(request.poses) if request.poses is not None and Path(request.poses).exists() else None
    if poses is not None:
        _refuse_strange_poses(config, poses, request.poses or "")
    paths = _paths(request, poses)
    photos = paths if poses is None else [*paths, *(source.path for each in poses for source in each.sources)]
    _refuse_to_overwrite([request.output or "", request.poses or ""], photos)
    jobs = threads(request.jobs)

    # Photos and tiles run side by side; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    steps = in_background(
        stitch_steps(
            paths,
            config,
            cache=open_cache(request.use_cache),
            jobs=jobs,
            poses=poses,
            compared=request.debug_dir is not None,
        )
    )
    wanted = progress_wanted(quiet=request.quiet, json=request.json)
    with stages(wanted=wanted) as show, closing(steps):
        stitched = followed(steps, show)
        if request.poses is not None and poses is None and stitched.panoramas:
            write_poses(request.poses, [panorama.poses for panorama in stitched.panoramas])
        _write_all(request, stitched, photos, jobs, show)
        _print_failures(stitched, request)
        _print_left_out(stitched, request, config.reference)
        if request.debug_dir is not None:
            _write_diagrams(request, stitched, jobs, show)
    return _status(paths, stitched)


def _status(paths: Sequence[str], stitched: Stitched) -> int:
    if not stitched.panoramas:
        unreadable = len(stitched.failures) > max(len(paths) - 2, 0)
        return stitched.failures[0].exit_status if unreadable else NOTHING_JOINED
    return SOME_LEFT_OUT if stitched.left_out else 0


# --- what does not go together


def _refuse_strange_combinations(request: Request) -> None:
    if request.output is None:
        raise UsageError("-o says where the panorama goes, and is missing", hint=_EXAMPLE)
    threads(request.jobs)
    refuse_no_list(request.pictures, request.files_from, request.nul)
    if request.to_stdout:
        _refuse_strange_stdout(request)
    elif request.format is not None:
        raise UsageError("--format is for -o -", hint="elsewhere the file's ending says the format")
    else:
        check_format(request.output)
        check_writable(request.output, force=request.force)
    if request.poses is not None and not Path(request.poses).exists():
        check_writable(request.poses)
        if request.output is not None and os.path.realpath(request.poses) == os.path.realpath(request.output):
            raise UsageError("-o and --poses name the same file", path=request.poses, hint="give each its own")
    if request.debug_dir is not None:
        check_diagrams(Path(request.debug_dir), force=request.force)


def _refuse_strange_stdout(request: Request) -> None:
    if request.json:
        raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
    if sys.stdout.isatty():
        raise UsageError("a picture does not go onto a terminal", hint="redirect it, or give -o FILE")
    if request.format is None or _suffix(request) not in _FORMATS:
        problem = "needs --format" if request.format is None else f"knows no --format {request.format}"
        raise UsageError(f"-o - {problem}", hint="one of: jpg png tif webp")


def _refuse_strange_poses(config: StitchConfig, poses: Sequence[Poses], path: str) -> None:
    anew = "name another file, or remove this one, to match anew"
    if not poses:
        raise UsageError("there is no panorama in this file of poses", path=path, hint=anew)
    for each in poses:
        if config.model not in ("auto", each.model):
            raise UsageError(f"these poses are of the {each.model} model, not {config.model}", path=path, hint=anew)


def _refuse_to_overwrite(outputs: Iterable[str], photos: Iterable[str]) -> None:
    read = {os.path.realpath(photo) for photo in photos}
    for output in outputs:
        if os.path.realpath(output) in read:
            raise UsageError("a photo that is stitched would be overwritten", path=output, hint="choose another name")


def _suffix(request: Request) -> str:
    return f".{(request.format or '').lower().lstrip('.')}"


def _paths(request: Request, poses: list[Poses] | None) -> list[str]:
    named = bool(request.pictures) or request.files_from is not None
    if poses is not None and not named:
        return []
    paths = each_once(
        named_pictures(request.pictures, request.files_from, nul=request.nul, recursive=request.recursive)
    )
    if not paths:
        raise UsageError("there are no photos to stitch", hint=_EXAMPLE)
    if len(paths) == 1:
        raise UsageError("one photo is no panorama, it takes two or more", hint=_EXAMPLE)
    return paths


# --- what comes out


def _write_all(request: Request, stitched: Stitched, photos: Sequence[str], jobs: int, show: Stages) -> None:
    output = request.output or ""
    panoramas = stitched.panoramas
    if request.to_stdout:
        if len(panoramas) > 1:
            print_warning(f"there are {len(panoramas)} panoramas, and stdout takes one: that of most photos")
        if panoramas:
            with TemporaryDirectory(prefix="featkit-") as folder:
                path = Path(folder) / f"panorama{_suffix(request)}"
                _write(panoramas[0], str(path), jobs, show, force=True)
                copy_to_stdout(path)
        return
    names = [output] if len(panoramas) == 1 else [_numbered(output, number) for number in range(1, len(panoramas) + 1)]
    _refuse_to_overwrite(names, photos)
    for panorama, name in zip(panoramas, names, strict=True):
        check_writable(name, force=request.force)
        check_format(name, panorama.size)
        panorama.plan(jobs)
    for panorama, name in zip(panoramas, names, strict=True):
        seconds = _write(panorama, name, jobs, show, force=request.force)
        placed = {"placed": len(panorama.paths), "total": _total(stitched)}
        record = {**panorama.record(name, seconds), **placed} if request.json else None
        _print_result(f"{printable(name)}  {_findings(panorama, stitched)}", record)


def _numbered(output: str, number: int) -> str:
    path = Path(output)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _write(panorama: Panorama, name: str, jobs: int, show: Stages, *, force: bool) -> dict[str, float]:
    start = time.perf_counter()
    plan = panorama.plan(jobs)
    with ExitStack() as stack:
        folder = Path(name).resolve().parent
        canvas = stack.enter_context(Canvas(panorama.layout.size, memory_bytes=plan.canvas_bytes, folder=folder))
        drawing = stack.enter_context(closing(in_background(panorama.draw(canvas, plan, folder))))
        show("drawing", 0, plan.tiles)
        for done in drawing:
            show("drawing", done, plan.tiles)
        drawn = time.perf_counter()
        show("saving", 0, 1)
        canvas.save(name, force=force, region=panorama.window, jobs=jobs)
    return {"drawing": drawn - start, "saving": time.perf_counter() - drawn}


def _write_diagrams(request: Request, stitched: Stitched, jobs: int, show: Stages) -> None:
    folder = Path(request.debug_dir or "")
    try:
        for number, _ in enumerate(write_diagrams(folder, stitched, request.decode, force=request.force, jobs=jobs), 1):
            show("drawing what happened", number, number + 1)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", path=str(folder)) from error


# --- words


def _total(stitched: Stitched) -> int:
    return sum(len(panorama.paths) for panorama in stitched.panoramas) + len(stitched.left_out)


def _findings(panorama: Panorama, stitched: Stitched) -> str:
    width, height = panorama.size
    how = "planar model" if panorama.poses.model == "planar" else f"{panorama.layout.projection.name} projection"
    parts = [
        f"{len(panorama.paths)} of {counted(_total(stitched), 'photo')}",
        f"{width} × {height}",
        how if panorama.layout.period is None else f"{how}, full circle",
    ]
    if panorama.poses.held_out_median_px is not None:
        parts.append(f"fits to {panorama.poses.held_out_median_px:.1f} px")
    return " · ".join(parts)


def _print_result(line: str, record: Mapping[str, object] | None) -> None:
    """A record, or a line if there is none. The panoramas are in files: they are still wanted if nobody reads stdout
    any more."""
    with suppress(BrokenPipeError):
        if record is not None:
            print_record(record)
        else:
            print_line(line)


def _print_failures(stitched: Stitched, request: Request) -> None:
    for failure in stitched.failures:
        print_error(failure)
        if request.json:
            _print_result("", error_record(failure))


def _print_left_out(stitched: Stitched, request: Request, reference: str | None) -> None:
    for left_out in stitched.left_out:
        line = f"{printable(left_out.path)}  left out · {printable(left_out.reason)}"
        if not request.to_stdout:
            _print_result(line, left_out.record() if request.json else None)
        elif not request.quiet:
            print_note(line)
        if reference is not None and stitched.panoramas and _same_name(left_out.path, reference):
            print_warning("the reference is left out: the panorama follows another photo")
    if not request.json and not request.quiet:
        told = {failure.path for failure in stitched.failures}
        for hint in dict.fromkeys(left_out.hint for left_out in stitched.left_out if left_out.path not in told):
            print_note(f"hint: {printable(hint)}")


def _same_name(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100
