"""What `featkit match` does: name the pairs, match them, write what was asked for."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from featkit.cache import open_cache
from featkit.cli.console import (
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
    printable,
    progress_wanted,
    with_progress,
)
from featkit.errors import FeatkitError, ListMalformed, OutputDamaged, UsageError
from featkit.images import DecodeOptions, check_extension, load, save
from featkit.local.interchange import FORMATS, MatchWriter, check, open_writer
from featkit.local.pipeline import Extracted, MatchConfig, MatchResult, match_config, match_pairs
from featkit.local.verdict import DOUBTFUL, NONE, RELIABLE
from featkit.opencv import cv2
from featkit.records import check_writable, error_record, record
from featkit.sources import expand, open_list, read_list, read_pairs

SOME_FAILED = 1
NO_RELIABLE_RESULT = 3


@dataclass(frozen=True)
class Request:
    """What the command line asks for, apart from how to match."""

    pictures: list[str]
    files_from: str | None
    pairs: str | None
    nul: bool
    recursive: bool
    output: str | None
    format: str | None
    draw: str | None
    draw_warp: str | None
    force: bool
    json: bool
    quiet: bool
    jobs: int | None
    use_cache: bool
    decode: DecodeOptions


def run(request: Request, **options: Any) -> int:
    """Match and report; options are fields of `MatchConfig`, None for its default. Returns the exit status."""
    given = {name: value for name, value in options.items() if value is not None}
    config = match_config(decode=request.decode, **given)
    _refuse_strange_combinations(request, config, given)
    pairs = _pairs(request)
    if len(pairs) > 1 and (request.draw is not None or request.draw_warp is not None):
        raise UsageError(
            f"--draw and --draw-warp show one pair, and these are {len(pairs)}",
            hint="name two pictures, or use -o FILE",
        )

    verdicts: Counter[str] = Counter()
    failures: list[FeatkitError] = []
    # The workers keep the processors busy; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    drawing = request.draw is not None or request.draw_warp is not None
    cache = open_cache(request.use_cache)
    outcomes = match_pairs(pairs, config, cache=cache, jobs=request.jobs, keep_pixels=drawing)
    wanted = progress_wanted(quiet=request.quiet, json=request.json)
    with _Outputs(request, pairs) as outputs, closing(outcomes):
        for outcome in with_progress(outcomes, len(pairs), "matching", wanted=wanted):
            if isinstance(outcome, FeatkitError):
                failures.append(outcome)
                print_error(outcome)
                if request.json:
                    print_record(error_record(outcome))
                continue
            verdicts[outcome.verdict] += 1
            outputs.add(outcome)
            if request.json:
                print_record(outcome.record())
            elif not outputs.to_stdout:
                print_line(_line(outcome))
    if len(pairs) > 1:
        print_note(_summary(verdicts, len(failures)), quiet=request.quiet)
    if failures:
        return SOME_FAILED if verdicts else failures[0].exit_status
    # Without a model nothing is verified: matches are all that was asked for.
    wished = DOUBTFUL if config.model == "none" else RELIABLE
    return 0 if verdicts[wished] else NO_RELIABLE_RESULT


def check_file(path: str, *, json: bool) -> int:
    """`--check`: tell whether a file of matches is whole. Returns the exit status."""
    report = check(path)
    if json:
        print_record(record("check", **asdict(report)))
    else:
        state = "not whole" if report.problems else "whole"
        print_line(
            f"{printable(path)}: {state}, {report.format}, {report.images} images, {report.pairs} pairs, "
            f"{report.matches} matches"
        )
    for problem in report.problems:
        print_error(OutputDamaged(problem, path=path))
    return OutputDamaged.exit_status if report.problems else 0


def _refuse_strange_combinations(request: Request, config: MatchConfig, given: dict[str, Any]) -> None:
    if config.model == "none" and "threshold" in given:
        raise UsageError("--threshold belongs to a model, and --model none has none", hint="leave one of them out")
    if request.draw_warp is not None and config.model in ("none", "fundamental"):
        raise UsageError(
            f"--draw-warp needs a transformation, which --model {config.model} does not give",
            hint="use --model homography or affine",
        )
    if request.jobs is not None and request.jobs < 1:
        raise UsageError("--jobs must be at least 1")
    written = [path for path in (request.output, request.draw, request.draw_warp) if path is not None]
    if len(set(written)) < len(written):
        raise UsageError("two of -o, --draw and --draw-warp name the same file")


def _pairs(request: Request) -> list[tuple[str, str]]:
    """The pairs that the user named, one way or another."""
    pictures, files_from = request.pictures, request.files_from
    if request.pairs is not None:
        if pictures or files_from is not None:
            raise UsageError("--pairs names all pictures itself", hint="leave the other names out, or --pairs")
        with open_list(request.pairs) as stream:
            named = read_pairs(stream, nul=request.nul)
        if not named:
            raise ListMalformed("the list of pairs is empty", path=request.pairs, hint="give two names a line")
        return named
    if "-" in pictures:
        if len(pictures) > 1 or files_from is not None:
            raise UsageError("- means that all names come on stdin", hint="leave the other names out")
        pictures, files_from = [], "-"
    if files_from is not None:
        with open_list(files_from) as stream:
            pictures = [*pictures, *read_list(stream, nul=request.nul)]
    paths = expand(pictures, recursive=request.recursive)
    if len(paths) < 2:
        found = "no picture" if not paths else "only one picture"
        raise UsageError(f"{found} to match, it takes two", hint="featkit match a.jpg b.jpg")
    return list(combinations(paths, 2))


class _Outputs:
    """The files that a run writes: matches of every pair, pictures of the one pair. All or none of each appears."""

    def __init__(self, request: Request, pairs: list[tuple[str, str]]) -> None:
        self._draw, self._draw_warp, self._force = request.draw, request.draw_warp, request.force
        self._output = request.output
        self.to_stdout = request.output == "-"
        self._stack = ExitStack()
        self._added: set[str] = set()
        self._names = _short_names(path for pair in pairs for path in pair)
        for path in (request.draw, request.draw_warp):
            if path is not None:
                check_extension(path)
                check_writable(path, force=request.force)
        if request.format is not None and not self.to_stdout:
            raise UsageError("--format is for -o -", hint="elsewhere the file's suffix says the format")
        if self.to_stdout:
            self._output = self._place_before_stdout(request)
        # Entered at the first result, so that a run in which nothing could be read leaves no empty file.
        self._writer = None if self._output is None else open_writer(self._output, force=request.force)
        self._writing = False

    def _place_before_stdout(self, request: Request) -> str:
        """A temporary file: most formats are not written from front to back."""
        if request.json:
            raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
        if sys.stdout.isatty():
            raise UsageError("binary output does not go onto a terminal", hint="redirect it, or give -o FILE")
        if request.format is None:
            raise UsageError("-o - needs --format", hint=f"one of: {' '.join(FORMATS)}")
        folder = self._stack.enter_context(TemporaryDirectory(prefix="featkit-"))
        return str(Path(folder) / f"matches.{request.format.lstrip('.')}")

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._writer is not None and self._writing:
            self._writer.__exit__(*failure)
            if self.to_stdout and failure[0] is None and self._output is not None:
                sys.stdout.flush()
                sys.stdout.buffer.write(Path(self._output).read_bytes())
        self._stack.close()

    def add(self, result: MatchResult) -> None:
        if self._writer is not None:
            if not self._writing:
                self._writing = True
                self._writer.__enter__()
            for extracted in (result.a, result.b):
                self._add_image(self._writer, extracted, result.config.detector)
            names = self._names[result.a.path], self._names[result.b.path]
            # Two runs write the same bytes: what tells them apart stays in the printed record.
            lasting = {key: value for key, value in result.record().items() if key not in ("cached", "seconds")}
            self._writer.add_pair(*names, result.matches, result.estimate, lasting)
        if self._draw is None and self._draw_warp is None:
            return
        from featkit.local.drawing import draw_matches, draw_warp

        a, b = (
            load(extracted.path, result.config.decode).pixels if extracted.pixels is None else extracted.pixels
            for extracted in (result.a, result.b)
        )
        if self._draw is not None:
            title = f"{self._names[result.a.path]} · {self._names[result.b.path]}: {_findings(result)}"
            save(
                self._draw, draw_matches(a, b, result.xy_a, result.xy_b, result.inliers, title=title), force=self._force
            )
        if self._draw_warp is not None and result.matrix is not None:
            save(self._draw_warp, draw_warp(a, b, result.matrix), force=self._force)
        elif self._draw_warp is not None:
            print_warning(f"{self._draw_warp} is not written: there is no transformation to show")

    def _add_image(self, writer: MatchWriter, extracted: Extracted, detector: str) -> None:
        if extracted.path not in self._added:
            self._added.add(extracted.path)
            writer.add_image(
                self._names[extracted.path],
                extracted.features,
                sha256=extracted.sha256,
                focal_px=extracted.focal_px,
                descriptors_kind=detector,
            )


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each path as it is called in files: relative to the folder that all share, with forward slashes."""
    absolute = {path: os.path.abspath(path) for path in paths}  # noqa: PTH100 - of str, bytes that are not UTF-8 included
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute.values()])  # noqa: PTH120
    return {path: PurePath(os.path.relpath(full, folder)).as_posix() for path, full in absolute.items()}


def _findings(result: MatchResult) -> str:
    parts = [result.verdict, f"{int(result.inliers.sum())} of {len(result.matches)} matches agree"]
    if result.config.model == "none":
        parts = ["not verified", f"{len(result.matches)} matches"]
    if result.matrix is not None and result.uncertainty_px is not None and result.verdict != NONE:
        parts.append(f"corners ±{result.uncertainty_px:.1f} px")
    return " · ".join(parts)


def _line(result: MatchResult) -> str:
    return f"{printable(result.a.path)}  {printable(result.b.path)}  {_findings(result)}"


def _summary(verdicts: Counter[str], failed: int) -> str:
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (RELIABLE, DOUBTFUL, NONE))
    unreadable = f"; {failed} pictures could not be read" if failed else ""
    return f"{verdicts.total()} pairs: {counts}{unreadable}"
