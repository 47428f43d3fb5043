"""What `featkit match` does: name the pairs, match them, write what was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from featkit.cache import Cache, open_cache
from featkit.cli.console import (
    copy_to_stdout,
    counted,
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
    progress_wanted,
    with_progress,
)
from featkit.cli.interrupts import held_back, in_background
from featkit.cli.match_selection import Selection, is_scheme, select
from featkit.configs import from_options
from featkit.errors import FeatkitError, FileUnreadable, OutputDamaged, UsageError
from featkit.images import DecodeOptions, Pixels, check_extension, load, save
from featkit.local.config import MatchConfig
from featkit.local.explanation import explain
from featkit.local.interchange import FORMATS, MatchWriter, check, open_writer
from featkit.local.learned import DETECTORS as LEARNED_DETECTORS
from featkit.local.pairing import global_descriptors, nearest_pairs
from featkit.local.pipeline import match_pairs
from featkit.local.results import Extracted, MatchResult
from featkit.local.subjects import Mask, Region, Subject, read_where
from featkit.local.verdict import DOUBTFUL, NONE, RELIABLE
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.records import check_writable, error_record, printable, record

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
    masks: tuple[str | None, str | None]
    regions: tuple[Region | None, Region | None]
    explain: bool
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

    @property
    def looks_at_parts(self) -> bool:
        return any(each is not None for each in (*self.masks, *self.regions))


def run(request: Request, **options: Any) -> int:
    """Match and report; options are fields of `MatchConfig`, None for its default. Returns the exit status."""
    given = {name: value for name, value in options.items() if value is not None}
    if request.writes_database:
        # COLMAP looks for the cameras in a scene with depth, of which a homography would keep one plane.
        given.setdefault("model", "fundamental")
    config = from_options(MatchConfig, {"decode": request.decode, **given})
    _refuse_strange_combinations(request, config, given)
    selection = select(
        request.pictures, request.files_from, request.pairs, nul=request.nul, recursive=request.recursive
    )
    _refuse_strange_outputs(request, config, selection)
    parts = _parts(request, selection) if request.looks_at_parts else None

    verdicts: Counter[str] = Counter()
    failures: list[FeatkitError] = []
    # The workers keep the processors busy; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    cache = open_cache(request.use_cache)
    wanted = progress_wanted(quiet=request.quiet, json=request.json)
    with _Outputs(request, selection) as outputs, ExitStack() as stack:
        if selection.partners is not None:
            selection = _likely(selection, selection.partners, request, cache)
        outcomes = in_background(
            match_pairs(parts or selection, config, cache=cache, jobs=request.jobs, keep_pixels=request.draws)
        )
        stack.enter_context(closing(outcomes))
        for outcome in with_progress(outcomes, selection.count or 0, "matching", wanted=wanted):
            _print_outcome(outcome, request)
            if isinstance(outcome, FeatkitError):
                failures.append(outcome)
            else:
                verdicts[outcome.verdict] += 1
                outputs.add(outcome)
    if selection.count != 1 and not request.quiet and not request.json:
        print_note(_summary(verdicts, len(failures), selection))
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
    if config.detector in LEARNED_DETECTORS and given.keys() & {"ratio", "mutual"}:
        raise UsageError(
            "--ratio and --mutual are about nearest neighbours, and LightGlue does not look for those",
            hint="leave them out, or choose --detector sift",
        )
    if config.model == "none" and "threshold" in given:
        raise UsageError("--threshold belongs to a model, and --model none has none", hint="leave one of them out")
    if request.draw_warp is not None and config.model in ("none", "fundamental"):
        raise UsageError(
            f"--draw-warp needs a transformation, which --model {config.model} does not give",
            hint="use --model homography or affine",
        )
    threads(request.jobs)
    names_pairs = request.pairs is not None and not is_scheme(request.pairs)
    if request.nul and not names_pairs and request.files_from is None and "-" not in request.pictures:
        raise UsageError("-0 is about a list, and there is none", hint="give one by --files-from, --pairs or -")
    if request.output != "-" and request.format is not None:
        raise UsageError("--format is for -o -", hint="elsewhere the file's ending says the format")
    if request.output == "-":
        _refuse_strange_stdout(request)
    if request.explain and request.output == "-":
        raise UsageError("-o - and --explain both want stdout", hint="give -o FILE")


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


def _refuse_strange_outputs(request: Request, config: MatchConfig, selection: Selection) -> None:
    if request.output is not None and config.effort == "wide" and selection.count != 1:
        raise UsageError(
            "--effort wide chooses a detector for each pair, and -o holds one set of keypoints a picture",
            hint="name two pictures, or one detector for all: --effort normal --detector affine-sift, or aliked",
        )
    if request.draws and selection.count != 1:
        raise UsageError(
            f"--draw and --draw-warp show one pair, and these are {selection.count or 'more'}",
            hint="name two pictures, or use -o FILE",
        )
    written = [os.path.realpath(path) for path in request.files]
    if len(set(written)) < len(written):
        raise UsageError("two of -o, --draw and --draw-warp name the same file", hint="give each its own")
    masks = [mask for mask in request.masks if mask is not None]
    read = {os.path.realpath(path) for path in (*selection.pictures, *masks)} if written else set()
    for path, target in zip(request.files, written, strict=True):
        if target in read:
            raise UsageError("a picture that is matched would be overwritten", path=path, hint="choose another name")


# --- the pairs


def _parts(request: Request, selection: Selection) -> list[tuple[Subject, Subject]]:
    """The one pair, of which masks and regions leave a part."""
    if selection.count != 1:
        raise UsageError(
            f"--mask-a, --mask-b and --region are about one pair, and these are {selection.count or 'more'}",
            hint="name two pictures",
        )
    a, b = map(Subject, next(iter(selection)), request.masks, request.regions)
    return [(a, b)]


def _likely(selection: Selection, partners: int, request: Request, cache: Cache) -> Selection:
    """Of all pairs those of pictures that look alike; with a bar of its own, as each picture has to be looked at."""
    jobs = threads(request.jobs)
    described = in_background(global_descriptors(selection.pictures, request.decode, cache, jobs))
    wanted = progress_wanted(quiet=request.quiet, json=request.json)
    with closing(described):
        found = list(with_progress(described, len(selection.pictures), "looking", wanted=wanted))
    return selection.chosen(nearest_pairs(found, partners))


# --- files


class _Outputs:
    """The files that a run writes: matches of all pairs, pictures of the one pair. Each appears whole or not at all."""

    def __init__(self, request: Request, selection: Selection) -> None:
        """Refuses at once what could not be written in the end."""
        self._request = request
        self._stack = ExitStack()
        self._writer: MatchWriter | None = None
        self._images: set[str] = set()
        self._written: set[frozenset[str]] | None = None if selection.distinct else set()
        self._names = _short_names(selection.pictures)
        for path in (request.draw, request.draw_warp):
            if path is not None:
                check_extension(path)
                check_writable(path, force=request.force)
        if request.output is not None:
            for a, b in () if selection.distinct else selection:
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
        if self._written is not None:
            if frozenset(names) in self._written:  # hloc's lists often name a pair in both orders, its files do not
                return
            self._written.add(frozenset(names))
        for name, extracted in zip(names, (result.a, result.b), strict=True):
            if name not in self._images:
                self._images.add(name)
                writer.add_image(
                    name,
                    extracted.features,
                    sha256=extracted.sha256,
                    focal_px=extracted.focal_px,
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
            looked_at_a, looked_at_b = (_looked_at(extracted, request.decode) for extracted in (result.a, result.b))
            drawn = draw_matches(
                a,
                b,
                result.xy_a,
                result.xy_b,
                result.inliers,
                title=title,
                looked_at_a=looked_at_a,
                looked_at_b=looked_at_b,
            )
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


def _looked_at(extracted: Extracted, options: DecodeOptions) -> Mask | None:
    return read_where(extracted.subject, options).mask(extracted.features.image_size)


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
            explanation = {"explanation": explain(outcome)} if request.explain else {}
            print_record({**outcome.record(), **explanation})
        elif request.output != "-":
            print_line(f"{printable(outcome.a.path)}  {printable(outcome.b.path)}  {_findings(outcome)}")
            if request.explain:
                print_line(printable(explain(outcome)))
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


def _summary(verdicts: Counter[str], failed: int, selection: Selection) -> str:
    matched = counted(verdicts.total(), "pair")
    if selection.scheme is not None:
        matched = f"{verdicts.total()} of {counted(selection.possible, 'possible pair')}"
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (RELIABLE, DOUBTFUL, NONE))
    unreadable = f"; {counted(failed, 'picture')} could not be read" if failed else ""
    return f"{matched}: {counts}{unreadable}"
