"""What `featkit match` does: name the pairs, match them, write what was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path, PurePath
from typing import Any

from featkit.cache import open_cache
from featkit.cli.console import (
    copy_to_stdout,
    counted,
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
    printable,
    progress_wanted,
    with_progress,
)
from featkit.cli.interrupts import held_back, in_background
from featkit.errors import FeatkitError, FileUnreadable, ListMalformed, OutputDamaged, UsageError
from featkit.images import DecodeOptions, Pixels, check_extension, load, save
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

    @property
    def files(self) -> list[str]:
        """The files to be written."""
        named = (None if self.output == "-" else self.output, self.draw, self.draw_warp)
        return [path for path in named if path is not None]

    @property
    def writes_database(self) -> bool:
        return (self.format or PurePath(self.output or "").suffix).lower().lstrip(".") == "db"

    @property
    def draws(self) -> bool:
        return self.draw is not None or self.draw_warp is not None


def run(request: Request, **options: Any) -> int:
    """Match and report; options are fields of `MatchConfig`, None for its default. Returns the exit status."""
    given = {name: value for name, value in options.items() if value is not None}
    if request.writes_database:
        # COLMAP looks for the cameras in a scene with depth, of which a homography would keep one plane.
        given.setdefault("model", "fundamental")
    config = match_config(decode=request.decode, **given)
    _refuse_strange_combinations(request, config, given)
    pairs = _pairs(request)
    _refuse_strange_outputs(request, pairs)

    verdicts: Counter[str] = Counter()
    failures: list[FeatkitError] = []
    # The workers keep the processors busy; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    cache = open_cache(request.use_cache)
    outcomes = in_background(match_pairs(pairs, config, cache=cache, jobs=request.jobs, keep_pixels=request.draws))
    wanted = progress_wanted(quiet=request.quiet, json=request.json)
    with _Outputs(request, pairs) as outputs, closing(outcomes):
        for outcome in with_progress(outcomes, len(pairs), "matching", wanted=wanted):
            _print_outcome(outcome, request)
            if isinstance(outcome, FeatkitError):
                failures.append(outcome)
            else:
                verdicts[outcome.verdict] += 1
                outputs.add(outcome)
    if len(pairs) > 1 and not request.quiet and not request.json:
        print_note(_summary(verdicts, len(failures)))
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
        pairs, matches = counted(report.pairs, "pair"), counted(report.matches, "match", "matches")
        print_line(
            f"{printable(path)}: {state}, {report.format}, {counted(report.images, 'image')}, {pairs}, {matches}"
        )
    for problem in report.problems:
        print_error(OutputDamaged(problem, path=path))
    return OutputDamaged.exit_status if report.problems else 0


# --- what does not go together


def _refuse_strange_combinations(request: Request, config: MatchConfig, given: dict[str, Any]) -> None:
    if config.model == "none" and "threshold" in given:
        raise UsageError("--threshold belongs to a model, and --model none has none", hint="leave one of them out")
    if request.draw_warp is not None and config.model in ("none", "fundamental"):
        raise UsageError(
            f"--draw-warp needs a transformation, which --model {config.model} does not give",
            hint="use --model homography or affine",
        )
    if request.jobs is not None and request.jobs < 1:
        raise UsageError("--jobs must be at least 1", hint="leave it out for one worker a processor")
    if request.nul and request.pairs is None and request.files_from is None and "-" not in request.pictures:
        raise UsageError("-0 is about a list, and there is none", hint="give one by --files-from, --pairs or -")
    if request.output != "-" and request.format is not None:
        raise UsageError("--format is for -o -", hint="elsewhere the file's ending says the format")
    if request.output == "-":
        _refuse_strange_stdout(request)


def _refuse_strange_stdout(request: Request) -> None:
    if request.json:
        raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
    if sys.stdout.isatty():
        raise UsageError("binary output does not go onto a terminal", hint="redirect it, or give -o FILE")
    if request.format is None or _suffix(request.format) not in FORMATS:
        problem = "needs --format" if request.format is None else f"knows no --format {request.format}"
        raise UsageError(f"-o - {problem}", hint=f"one of: {' '.join(name.lstrip('.') for name in FORMATS)}")


def _suffix(format_: str) -> str:
    return f".{format_.lower().lstrip('.')}"


def _refuse_strange_outputs(request: Request, pairs: list[tuple[str, str]]) -> None:
    if request.draws and len(pairs) > 1:
        raise UsageError(
            f"--draw and --draw-warp show one pair, and these are {len(pairs)}",
            hint="name two pictures, or use -o FILE",
        )
    written = [os.path.realpath(path) for path in request.files]
    if len(set(written)) < len(written):
        raise UsageError("two of -o, --draw and --draw-warp name the same file", hint="give each its own")
    read = {os.path.realpath(path) for path in _pictures(pairs)} if written else set()
    for path, target in zip(request.files, written, strict=True):
        if target in read:
            raise UsageError("a picture that is matched would be overwritten", path=path, hint="choose another name")


# --- the pairs


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
    if len(paths) > 2:  # two names of one picture are a question: how well does it match itself?
        paths = _each_once(paths)
    if len(paths) < 2:
        found = "no picture" if not paths else "only one picture"
        raise UsageError(f"{found} to match, it takes two", hint="featkit match a.jpg b.jpg")
    return list(combinations(paths, 2))


def _each_once(paths: list[str]) -> list[str]:
    """Without the names of what was named before, as photos/a.jpg in `photos photos/*.jpg`."""
    once: dict[str, str] = {}
    for path in paths:
        once.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    if len(once) < len(paths):
        print_warning(f"{counted(len(paths) - len(once), 'picture')} named more than once: each is taken once")
    return list(once.values())


def _pictures(pairs: list[tuple[str, str]]) -> list[str]:
    """Each path once, in the order in which the pairs name them."""
    return list(dict.fromkeys(path for pair in pairs for path in pair))


# --- files


class _Outputs:
    """The files that a run writes: matches of all pairs, pictures of the one pair. Each appears whole or not at all."""

    def __init__(self, request: Request, pairs: list[tuple[str, str]]) -> None:
        """Refuses at once what could not be written in the end."""
        self._request = request
        self._stack = ExitStack()
        self._writer: MatchWriter | None = None
        self._images: set[str] = set()
        self._pairs: set[frozenset[str]] = set()
        self._names = _short_names(_pictures(pairs))
        for path in (request.draw, request.draw_warp):
            if path is not None:
                check_extension(path)
                check_writable(path, force=request.force)
        if request.output is not None:
            for a, b in pairs:
                if self._names[a] == self._names[b]:
                    raise UsageError("-o holds no pair of a picture with itself", path=a, hint="name two pictures")
            if request.output != "-":
                open_writer(request.output, force=request.force)

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def add(self, result: MatchResult) -> None:
        if self._request.output is not None:
            with held_back():
                # Opened at the first result, so that a run in which nothing could be read leaves no empty file.
                self._writer = self._writer or self._open(self._request.output)
                self._add_to_file(self._writer, result)
        if self._request.draws:
            self._draw(result)

    def _open(self, output: str) -> MatchWriter:
        path = Path(output)
        if output == "-":
            path = self._stack.enter_context(_file_for_stdout(_suffix(self._request.format or "")))
        writer = open_writer(path, force=self._request.force).__enter__()

        def close(*failure: Any) -> None:
            with held_back():  # HDF5 crashes if an interrupt cuts its writing in two
                writer.__exit__(*failure)

        self._stack.push(close)
        return writer

    def _add_to_file(self, writer: MatchWriter, result: MatchResult) -> None:
        names = self._names[result.a.path], self._names[result.b.path]
        if frozenset(names) in self._pairs:  # hloc's lists often name a pair in both orders, which its files do not
            return
        self._pairs.add(frozenset(names))
        for name, extracted in zip(names, (result.a, result.b), strict=True):
            if name not in self._images:
                self._images.add(name)
                writer.add_image(
                    name,
                    extracted.features,
                    sha256=extracted.sha256,
                    focal_px=extracted.focal_px,
                    descriptors_kind=result.config.detector,
                )
        # Two runs write the same bytes: what tells them apart stays in the printed record.
        lasting = {key: value for key, value in result.record().items() if key not in ("cached", "seconds")}
        writer.add_pair(*names, result.matches, result.estimate, lasting)

    def _draw(self, result: MatchResult) -> None:
        from featkit.local.drawing import draw_matches, draw_warp

        request = self._request
        a, b = (_pixels(extracted, result.config.decode) for extracted in (result.a, result.b))
        if request.draw is not None:
            title = f"{self._names[result.a.path]} · {self._names[result.b.path]}: {_findings(result)}"
            drawn = draw_matches(a, b, result.xy_a, result.xy_b, result.inliers, title=title)
            with held_back():
                save(request.draw, drawn, force=request.force)
        if request.draw_warp is not None and result.matrix is not None:
            warped = draw_warp(a, b, result.matrix)
            with held_back():
                save(request.draw_warp, warped, force=request.force)
        elif request.draw_warp is not None:
            print_warning(f"{request.draw_warp} is not written: there is no transformation to show")


@contextlib.contextmanager
def _file_for_stdout(suffix: str) -> Iterator[Path]:
    """A temporary file that goes to stdout in the end: most formats are not written from front to back."""
    from tempfile import TemporaryDirectory  # late: rarely needed, and slow to load

    with TemporaryDirectory(prefix="featkit-") as folder:
        path = Path(folder) / f"matches{suffix}"
        yield path
        copy_to_stdout(path)


def _pixels(extracted: Extracted, options: DecodeOptions) -> Pixels:
    if extracted.pixels is not None:
        return extracted.pixels
    picture = load(extracted.path, options)
    if picture.sha256 != extracted.sha256:
        raise FileUnreadable("it was changed while featkit was at work", path=extracted.path, hint="run it again")
    return picture.pixels


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each path as it is called in files: relative to the folder that all share, with forward slashes."""
    absolute = {path: os.path.abspath(path) for path in paths}  # noqa: PTH100
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute.values()])  # noqa: PTH120
    return {path: PurePath(os.path.relpath(full, folder)).as_posix() for path, full in absolute.items()}


# --- words


def _print_outcome(outcome: MatchResult | FeatkitError, request: Request) -> None:
    try:
        if isinstance(outcome, FeatkitError):
            print_error(outcome)
            if request.json:
                print_record(error_record(outcome))
        elif request.json:
            print_record(outcome.record())
        elif request.output != "-":
            print_line(f"{printable(outcome.a.path)}  {printable(outcome.b.path)}  {_findings(outcome)}")
    except BrokenPipeError:
        if not request.files:  # those are still wanted
            raise


def _findings(result: MatchResult) -> str:
    parts = [result.verdict, f"{int(result.inliers.sum())} of {len(result.matches)} matches agree"]
    if result.config.model == "none":
        parts = ["not verified", counted(len(result.matches), "match", "matches")]
    if result.matrix is not None and result.uncertainty_px is not None and result.verdict != NONE:
        parts.append(f"corners ±{result.uncertainty_px:.1f} px")
    return " · ".join(parts)


def _summary(verdicts: Counter[str], failed: int) -> str:
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (RELIABLE, DOUBTFUL, NONE))
    unreadable = f"; {counted(failed, 'picture')} could not be read" if failed else ""
    return f"{counted(verdicts.total(), 'pair')}: {counts}{unreadable}"
