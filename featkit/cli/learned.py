"""What `classify`, `probe` and `evaluate` share: a model goes into its file, its evaluation onto stdout, and
into a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from featkit import images
from featkit.cli.console import (
    Stages,
    copy_to_stdout,
    counted,
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
)
from featkit.datasets import Dataset
from featkit.errors import UsageError
from featkit.images import DecodeOptions
from featkit.learning.evaluation import Evaluation, percent
from featkit.learning.model import Model
from featkit.learning.report import Table, check_report, write_report
from featkit.learning.testing import Classified
from featkit.processors import threads
from featkit.records import check_writable, error_record, printable

SOME_FAILED = 1

STDOUT = "-"
# Lines for people; the records have all of them.
_CLASSES_SHOWN = 30


@dataclass(frozen=True)
class Request:
    """What the command line asks for, apart from what is learned, and how."""

    test: str | None
    output: str | None
    report: str | None
    force: bool
    json: bool
    quiet: bool
    jobs: int | None
    use_cache: bool
    decode: DecodeOptions

    @property
    def to_stdout(self) -> bool:
        return self.output == STDOUT

    @property
    def silent(self) -> bool:
        """No summary: stdout is the model's, and stderr is to be quiet."""
        return self.to_stdout and self.quiet


# --- options


def learning_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a LearningConfig from those of the command line, of which None was not given. Raises UsageError for
    what cannot be read."""
    given = {name: value for name, value in options.items() if value is not None}
    if "c" in given:
        given["c"] = _number("--C", given["c"], float, "--C 5")
    if "neighbours" in given:
        given["neighbours"] = _number("--neighbours", given["neighbours"], int, "--neighbours 10")
    if "flip" in given:
        given["flip"] = _one_of("--flip", given["flip"], ("off", "on")) == "on"
    if "class_weight" in given:
        weight = _one_of("--class-weight", given.pop("class_weight"), ("none", "balanced"))
        given["balanced"] = weight == "balanced"
    return given


def _one_of(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise UsageError(f"{option} knows no {text!r}", hint=f"choose one of: {', '.join(choices)}")
    return text


def _number(option: str, text: str, kind: Callable[[str], Any], example: str) -> Any:
    if text == "auto":
        return text
    try:
        return kind(text)
    except ValueError:
        what = "a positive number" if kind is float else "a whole number"
        raise UsageError(f"{option} is {what} or auto, not {text!r}", hint=f"for example: {example}") from None


# --- what does not go together


def refuse_strange_outputs(request: Request) -> None:
    threads(request.jobs)
    if request.to_stdout:
        if request.json:
            raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
        if sys.stdout.isatty():
            raise UsageError("a model does not go onto a terminal", hint="redirect it, or give -o FILE")
    elif request.output is not None:
        check_writable(request.output, force=request.force)
    if request.report is not None:
        check_report(Path(request.report), force=request.force)


def refuse_to_hold_out(hold_out: float | None, dataset: Dataset, test: Dataset | None) -> None:
    if hold_out is not None and (test or dataset.test or dataset.validation):
        raise UsageError(
            "--hold-out is for data of which no part is named to test on",
            hint="leave it out: those pictures are tested on",
        )


def refuse_report_among_pictures(report: str | None, names: Iterable[str | None]) -> None:
    """names: of what is learned from or tested on."""
    folders = [os.path.realpath(name) for name in names if name is not None and Path(name).is_dir()]
    if report is not None and any(Path(os.path.realpath(report)).is_relative_to(folder) for folder in folders):
        raise UsageError(
            "a report among the pictures would be taken for pictures itself, the next time",
            path=report,
            hint="name a folder that is not inside that of the data",
        )


def refuse_to_overwrite(
    outputs: Iterable[str | None], datasets: Iterable[Dataset | None], names: Iterable[str | Path | None]
) -> None:
    """outputs: files to be written. datasets, names: what is read."""
    there = [path for path in outputs if path is not None and Path(path).exists()]
    if not there:
        return
    splits = [split for each in datasets if each for split in (each.train, each.validation, each.test)]
    read = {os.path.realpath(path) for split in splits if split for path in split.paths}
    read |= {os.path.realpath(name) for name in names if name is not None}
    for path in there:
        if os.path.realpath(path) in read:
            raise UsageError("a file that is read would be overwritten", path=path, hint="choose another name")


# --- files


def save(request: Request, model: Model) -> None:
    if request.to_stdout:
        with TemporaryDirectory(prefix="featkit-") as folder:
            path = Path(folder) / "model.fk"
            model.save(path)
            copy_to_stdout(path)
    elif request.output is not None:
        model.save(request.output, force=request.force)


def report(
    request: Request,
    found: Classified,
    data: str,
    *,
    show: Stages,
    remarks: Sequence[str] = (),
    tables: Sequence[Table] = (),
    figures: Mapping[str, bytes] | None = None,
    extra: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Write the page of an evaluation. data: what the pictures were named by. The rest: see `write_report`."""
    assert request.report is not None
    assert found.evaluation is not None
    steps = write_report(
        Path(request.report),
        found.evaluation,
        title=f"{Path(data).resolve().name}: {found.model.title}",
        summary={name: _words(value) for name, value in found.model.config.items() if value is not None},
        features=found.features,
        load=lambda path: images.load(path, request.decode).pixels,
        extra=extra,
        remarks=remarks,
        tables=tables,
        figures=figures,
        force=request.force,
        seed=int(found.model.config["seed"]),
    )
    for number, _ in enumerate(steps, 1):
        show("drawing the report", number, number + 1)


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- words


def show(request: Request, found: Classified, file: str | None) -> None:
    """Warnings, failures, and the evaluation. file: the model's."""
    show_problems(request, found)
    if found.evaluation is None or request.silent:
        return
    if request.json:
        more = {"train": found.trained, "config": found.model.config, "seconds": found.seconds, "model": file}
        show_record(found.evaluation.record(**more))
    else:
        show_lines(_lines(found.evaluation), to_stdout=not request.to_stdout)


def status(request: Request, found: Classified, asked: Mapping[str, bool]) -> int:
    """The exit status. asked: options that are about a test, and whether they were given; where there was none, that is
    said."""
    undone = []
    if found.evaluation is None:
        wanted = {"--report": request.report is not None, **asked}
        undone = [option for option, was_asked in wanted.items() if was_asked]
    if undone:
        print_warning(f"not done, as there is nothing to test on: {', '.join(undone)}")
    return SOME_FAILED if found.failures or undone else 0


def show_problems(request: Request, found: Classified) -> None:
    """Warnings, and what of the data cannot be used."""
    for note in found.notes:
        print_warning(note)
    for failure in found.failures:
        print_error(failure)
        if request.json:
            show_record(error_record(failure))


def show_record(record: Mapping[str, object]) -> None:
    """What is in files is still wanted if nobody reads stdout any more."""
    with suppress(BrokenPipeError):
        print_record(record)


def show_lines(lines: Iterable[str], *, to_stdout: bool = True) -> None:
    with suppress(BrokenPipeError):
        for line in lines:
            (print_line if to_stdout else print_note)(line)


def _lines(evaluation: Evaluation) -> Iterator[str]:
    low, high = evaluation.interval
    yield (
        f"{percent(evaluation.accuracy)} of {counted(len(evaluation.paths), 'picture')} right · 95 % interval "
        f"{percent(low)} to {percent(high)} · {counted(len(evaluation.classes), 'class', 'classes')}"
    )
    results = evaluation.hardest_first
    width = max(len(printable(each.label)) for each in results[:_CLASSES_SHOWN])
    for each in results[:_CLASSES_SHOWN]:
        found = "not tested" if each.recall is None else f"{percent(each.recall):>7} of {each.count}"
        yield f"  {printable(each.label):{width}}  {found}"
    if len(results) > _CLASSES_SHOWN:
        yield f"  and {counted(len(results) - _CLASSES_SHOWN, 'class', 'classes')} more, which --json has"


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> Iterator[str]:
    """texts: so many of the columns are flush left, from the first; numbers are flush right."""
    cells = [tuple(columns), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        placed = (
            f"{cell:{'<' if place < texts else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(placed).rstrip()
