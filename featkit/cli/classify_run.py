"""What `featkit classify` and `featkit evaluate` do: learn, test, and show how well it works."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from featkit import images
from featkit.cache import Cache, open_cache
from featkit.classical.hog_drawing import draw_hog
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
from featkit.cli.options import picture_size
from featkit.configs import from_options
from featkit.datasets import Dataset, read_dataset
from featkit.errors import FeatkitError, UsageError
from featkit.extraction.makers import ClassicalMaker
from featkit.images import DecodeOptions
from featkit.learning.ablation import Trial, ablate_steps
from featkit.learning.config import ClassifyConfig
from featkit.learning.evaluation import Evaluation, percent
from featkit.learning.model import Model, load_model
from featkit.learning.pipeline import classify_steps, evaluate_steps, to_test_on
from featkit.learning.report import Table, check_report, write_report
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.progress import Progress, followed
from featkit.records import check_writable, error_record, printable

SOME_FAILED = 1

_Result = TypeVar("_Result")

# Lines for people; the records have all of them.
_CLASSES_SHOWN = 30


@dataclass(frozen=True)
class Request:
    """What the command line asks for, apart from how it is learned."""

    data: str
    test: str | None
    output: str | None
    report: str | None
    ablate: bool
    visualize_hog: str | None
    force: bool
    json: bool
    quiet: bool
    jobs: int | None
    use_cache: bool
    decode: DecodeOptions

    @property
    def to_stdout(self) -> bool:
        return self.output == "-"

    @property
    def silent(self) -> bool:
        """No summary: stdout is the model's, and stderr is to be quiet."""
        return self.to_stdout and self.quiet


def run(request: Request, **options: Any) -> int:
    """Learn, test and report; options: as on the command line, None for the default. Returns the exit status."""
    config = _config(request, options)
    _refuse_strange_combinations(request, config)
    dataset = read_dataset(request.data)
    test = None if request.test is None else read_dataset(request.test)
    _refuse_strange_data(request, options, dataset, test)
    # Pictures are read side by side; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    cache = open_cache(request.use_cache)
    steps = in_background(classify_steps(dataset, config, test=test, cache=cache, jobs=request.jobs))
    with stages(wanted=progress_wanted(quiet=request.quiet, json=request.json)) as show, closing(steps):
        found = followed(steps, show)
        for note in found.notes:
            print_warning(note)
        _print_failures(found.failures, json=request.json)
        _save(request, found.model)
        if found.evaluation is not None:
            more = {"train": found.trained, "config": found.model.config, "seconds": found.seconds}
            if not request.silent:
                record = {**more, "model": request.output}
                _print(found.evaluation, request.json, record, to_stdout=not request.to_stdout)
            drawn = _draw_hog(request, found.model, found.evaluation.paths[0])
            tables = [_ablate(request, dataset, test, config, found.model, cache, show)] if request.ablate else []
            if request.report is not None:
                _report(
                    Path(request.report),
                    found.evaluation,
                    found.model,
                    request.data,
                    decode=request.decode,
                    force=request.force,
                    show=show,
                    features=found.features,
                    tables=tables,
                    extra=drawn,
                )
    undone = [] if found.evaluation is not None else _about_a_test(request)
    if undone:
        print_warning(f"not done, as there is nothing to test on: {', '.join(undone)}")
    return SOME_FAILED if found.failures or undone else 0


def _about_a_test(request: Request) -> list[str]:
    asked = {
        "--report": request.report is not None,
        "--ablate": request.ablate,
        "--visualize-hog": request.visualize_hog is not None,
    }
    return [option for option, is_asked in asked.items() if is_asked]


def evaluate(
    model: str,
    data: str,
    *,
    report: str | None,
    decode: DecodeOptions,
    jobs: int | None,
    use_cache: bool,
    force: bool,
    json: bool,
    quiet: bool,
) -> int:
    """Test a model and report; returns the exit status."""
    threads(jobs)
    if report is not None:
        check_report(Path(report), force=force)
    loaded = load_model(model)
    dataset = read_dataset(data)
    cv2.setNumThreads(1)
    start = time.perf_counter()
    steps = in_background(
        evaluate_steps(loaded, to_test_on(dataset), decode=decode, cache=open_cache(use_cache), jobs=jobs)
    )
    with stages(wanted=progress_wanted(quiet=quiet, json=json)) as show, closing(steps):
        evaluation, failed = followed(steps, show)
        failures = (*dataset.failures, *failed)
        _print_failures(failures, json=json)
        seconds = {"test": time.perf_counter() - start}
        _print(evaluation, json, {"train": None, "config": loaded.config, "seconds": seconds, "model": model})
        if report is not None:
            _report(Path(report), evaluation, loaded, data, decode=decode, force=force, show=show)
    return SOME_FAILED if failures else 0


# --- options


def _config(request: Request, options: Mapping[str, Any]) -> ClassifyConfig:
    given = {name: value for name, value in options.items() if value is not None}
    if "size" in given:
        given["size"] = picture_size(given["size"])
    if "c" in given and given["c"] != "auto":
        given["c"] = _number(given["c"])
    if "flip" in given:
        given["flip"] = _one_of("--flip", given["flip"], ("off", "on")) == "on"
    if "class_weight" in given:
        weight = _one_of("--class-weight", given.pop("class_weight"), ("none", "balanced"))
        given["balanced"] = weight == "balanced"
    return from_options(ClassifyConfig, {"decode": request.decode, **given})


def _one_of(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise UsageError(f"{option} knows no {text!r}", hint=f"choose one of: {', '.join(choices)}")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--C is a positive number or auto, not {text!r}", hint="for example: --C 5") from None


# --- what does not go together


def _refuse_strange_combinations(request: Request, config: ClassifyConfig) -> None:
    threads(request.jobs)
    if request.to_stdout:
        if request.json:
            raise UsageError("-o - and --json both want stdout", hint="give -o FILE")
        if sys.stdout.isatty():
            raise UsageError("a model does not go onto a terminal", hint="redirect it, or give -o FILE")
    elif request.output is not None:
        check_writable(request.output, force=request.force)
    if request.visualize_hog is not None:
        if "hog" not in config.features.split("+"):
            raise UsageError(
                f"--visualize-hog draws what hog sees, and --features is {config.features}",
                hint="use --features hog or hog+patches",
            )
        images.check_extension(request.visualize_hog)
        check_writable(request.visualize_hog, force=request.force)
        if request.output is not None and os.path.realpath(request.visualize_hog) == os.path.realpath(request.output):
            raise UsageError("-o and --visualize-hog name the same file", path=request.output, hint="give each its own")
    if request.report is not None:
        check_report(Path(request.report), force=request.force)


def _refuse_strange_data(request: Request, options: Mapping[str, Any], dataset: Dataset, test: Dataset | None) -> None:
    if options["hold_out"] is not None and (test or dataset.test or dataset.validation):
        raise UsageError(
            "--hold-out is for data of which no part is named to test on",
            hint="leave it out: those pictures are tested on",
        )
    outputs = [path for path in (request.output, request.visualize_hog) if path is not None and Path(path).exists()]
    if outputs:
        splits = [split for each in (dataset, test) if each for split in (each.train, each.validation, each.test)]
        read = {os.path.realpath(path) for split in splits if split for path in split.paths}
        read |= {os.path.realpath(name) for name in (request.data, request.test) if name is not None}
        for path in outputs:
            if os.path.realpath(path) in read:
                raise UsageError("a file that is read would be overwritten", path=path, hint="choose another name")


# --- files


def _save(request: Request, model: Model) -> None:
    if request.to_stdout:
        with TemporaryDirectory(prefix="featkit-") as folder:
            path = Path(folder) / "model.fk"
            model.save(path)
            copy_to_stdout(path)
    elif request.output is not None:
        model.save(request.output, force=request.force)


def _draw_hog(request: Request, model: Model, path: str) -> list[tuple[str, bytes]]:
    """Writes what was asked for; returns it as a picture for the report."""
    if request.visualize_hog is None:
        return []
    maker = model.maker
    assert isinstance(maker, ClassicalMaker)
    assert maker.hog is not None
    drawn = draw_hog(images.fit_to(images.load(path, request.decode).pixels, maker.size), maker.hog)
    images.save(request.visualize_hog, drawn, force=request.force)
    return [(f"HOG of {path}", images.encode(drawn, ".png"))]


def _report(
    folder: Path,
    evaluation: Evaluation,
    model: Model,
    data: str,
    *,
    decode: DecodeOptions,
    force: bool,
    show: Stages,
    features: Any = None,
    tables: Sequence[Table] = (),
    extra: Sequence[tuple[str, bytes]] = (),
) -> None:
    steps = write_report(
        folder,
        evaluation,
        title=f"{Path(data).resolve().name}: {model.config['features']}, {model.config['classifier']}",
        summary={name: _words(value) for name, value in model.config.items() if value is not None},
        features=features,
        load=lambda path: images.load(path, decode).pixels,
        extra=extra,
        tables=tables,
        force=force,
        seed=int(model.config["seed"]),
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


def _print_failures(failures: Sequence[FeatkitError], *, json: bool) -> None:
    for failure in failures:
        print_error(failure)
        if json:
            _print_record(error_record(failure))


def _print_record(record: Mapping[str, object]) -> None:
    """What is in files is still wanted if nobody reads stdout any more."""
    with suppress(BrokenPipeError):
        print_record(record)


def _print_lines(lines: Iterable[str], *, to_stdout: bool = True) -> None:
    with suppress(BrokenPipeError):
        for line in lines:
            (print_line if to_stdout else print_note)(line)


def _print(evaluation: Evaluation, json: bool, more: Mapping[str, Any], *, to_stdout: bool = True) -> None:
    if json:
        _print_record(evaluation.record(**more))
    else:
        _print_lines(_lines(evaluation), to_stdout=to_stdout)


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


# --- ablation

_COLUMNS = ("stage", "change", "accuracy", "± 95 %", "difference", "features, CPU s", "fit, CPU s", "test, CPU s")
_WIDTHS = (10, 22, 8, 8, 10, 15, 10, 11)


def _ablate(
    request: Request,
    dataset: Dataset,
    test: Dataset | None,
    config: ClassifyConfig,
    model: Model,
    cache: Cache,
    show: Stages,
) -> Table:
    """Prints each trial as it comes."""
    rows = []
    steps = in_background(ablate_steps(dataset, config, test=test, maker=model.maker, cache=cache, jobs=request.jobs))
    if not request.json and not request.silent:
        _print_lines(["", _row(_COLUMNS)], to_stdout=not request.to_stdout)
    with closing(steps):
        for step in steps:
            if isinstance(step, Progress):
                show(f"ablation: {step.stage}", step.done, step.total)
            elif isinstance(step, FeatkitError):
                print_warning(f"this cannot be tried: {step.message}")
            else:
                rows.append(_cells(step))
                if request.json:
                    _print_record(step.record())
                elif not request.silent:
                    _print_lines([_row(rows[-1])], to_stdout=not request.to_stdout)
    return Table("Ablation", _COLUMNS, tuple(rows))


def _cells(trial: Trial) -> tuple[str, ...]:
    low, high = trial.interval
    seconds = ("–" if each is None else f"{each:.2f}" for each in trial.cpu_seconds.values())
    difference = f"{100 * trial.difference:+.1f}" if trial.change else "–"
    spread = f"± {50 * (high - low):.1f}"
    return trial.stage, trial.change, percent(trial.accuracy), spread, difference, *seconds


def _row(cells: Sequence[str]) -> str:
    """The first two to the left, numbers to the right."""
    padded = (
        f"{cell:{'<' if place < 2 else '>'}{width}}"
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return "  ".join(padded).rstrip()
