"""What `featkit classify` does: learn, test, and show how well it works."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from featkit import images
from featkit.cache import Cache, open_cache
from featkit.classical.hog_drawing import draw_hog
from featkit.cli import learned
from featkit.cli.console import Stages, print_warning, progress_wanted, stages
from featkit.cli.interrupts import in_background
from featkit.cli.options import picture_size
from featkit.configs import from_options
from featkit.datasets import Dataset, read_dataset
from featkit.errors import FeatkitError, UsageError
from featkit.extraction.makers import ClassicalMaker
from featkit.learning.ablation import Trial, ablate_steps
from featkit.learning.config import ClassifyConfig
from featkit.learning.evaluation import percent
from featkit.learning.model import Model
from featkit.learning.pipeline import classify_steps
from featkit.learning.report import Table
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.progress import Progress, followed
from featkit.records import check_writable


@dataclass(frozen=True)
class Request(learned.Request):
    """What the command line asks for, apart from how it is learned."""

    data: str
    ablate: bool
    visualize_hog: str | None


def run(request: Request, **options: Any) -> int:
    """Learn, test and report; options: as on the command line, None for the default. Returns the exit status."""
    config = _config(request, options)
    _refuse_strange_combinations(request, config)
    dataset = read_dataset(request.data)
    test = None if request.test is None else read_dataset(request.test)
    learned.refuse_to_hold_out(options["hold_out"], dataset, test)
    outputs = (request.output, request.visualize_hog)
    learned.refuse_to_overwrite(outputs, (dataset, test), (request.data, request.test))
    # Pictures are read side by side; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    cache = open_cache(request.use_cache)
    steps = in_background(classify_steps(dataset, config, test=test, cache=cache, jobs=request.jobs))
    with stages(wanted=progress_wanted(quiet=request.quiet, json=request.json)) as show, closing(steps):
        found = followed(steps, show)
        learned.show(request, found, request.output)
        learned.save(request, found.model)
        if found.evaluation is not None:
            drawn = _draw_hog(request, found.model, found.evaluation.paths[0])
            tables = [_ablate(request, dataset, test, config, found.model, cache, show)] if request.ablate else []
            if request.report is not None:
                learned.report(request, found, request.data, show=show, tables=tables, extra=drawn)
    asked = {"--ablate": request.ablate, "--visualize-hog": request.visualize_hog is not None}
    return learned.status(request, found, asked)


# --- options


def _config(request: Request, options: Mapping[str, Any]) -> ClassifyConfig:
    given = learned.learning_options(options)
    if "size" in given:
        given["size"] = picture_size(given["size"])
    return from_options(ClassifyConfig, {"decode": request.decode, **given})


def _refuse_strange_combinations(request: Request, config: ClassifyConfig) -> None:
    learned.refuse_strange_outputs(request)
    learned.refuse_report_among_pictures(request.report, (request.data, request.test))
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


def _draw_hog(request: Request, model: Model, path: str) -> list[tuple[str, bytes]]:
    """Writes what was asked for; returns it as a picture for the report."""
    if request.visualize_hog is None:
        return []
    maker = model.source
    assert isinstance(maker, ClassicalMaker)
    assert maker.hog is not None
    drawn = draw_hog(images.fit_to(images.load(path, request.decode).pixels, maker.size), maker.hog)
    images.save(request.visualize_hog, drawn, force=request.force)
    return [(f"HOG of {path}", images.encode(drawn, ".png"))]


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
    maker = model.source.opened(count=len(dataset.train.paths), cache=cache, jobs=threads(request.jobs))
    steps = in_background(ablate_steps(dataset, config, test=test, maker=maker, cache=cache, jobs=request.jobs))
    if not request.json and not request.silent:
        learned.show_lines(["", _row(_COLUMNS)], to_stdout=not request.to_stdout)
    with closing(steps):
        for step in steps:
            if isinstance(step, Progress):
                show(f"ablation: {step.stage}", step.done, step.total)
            elif isinstance(step, FeatkitError):
                print_warning(f"this cannot be tried: {step.message}")
            else:
                rows.append(_cells(step))
                if request.json:
                    learned.show_record(step.record())
                elif not request.silent:
                    learned.show_lines([_row(rows[-1])], to_stdout=not request.to_stdout)
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
