"""What `featkit probe` does: heads on features, tested side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from featkit.cache import open_cache
from featkit.cli import learned
from featkit.cli.console import Stages, print_error, progress_wanted, stages
from featkit.cli.interrupts import in_background
from featkit.cli.learned import SOME_FAILED, show_lines, show_record, table_lines
from featkit.cli.networks import NetworkRequest, names_of, refuse, say_how
from featkit.configs import from_options
from featkit.datasets import Dataset, read_dataset
from featkit.deep.config import RANDOM
from featkit.errors import DatasetMalformed, FeatkitError, UsageError
from featkit.extraction.formats import Features
from featkit.extraction.formats import read as read_features
from featkit.learning import curves, stored
from featkit.learning.config import ALL, ProbeConfig
from featkit.learning.curves import Point
from featkit.learning.evaluation import Evaluation, percent
from featkit.learning.learning_curve import CurvePoint
from featkit.learning.probing import Compared, Probe, Probed, compare_steps, probe_features_steps, probe_steps
from featkit.learning.report import Table
from featkit.opencv import cv2
from featkit.progress import Progress, followed
from featkit.records import error_record, record

# Of numbers so many columns to the right of the texts.
_COLUMNS = ("layer", "classifier", "dims", "setting", "accuracy", "± 95 %", "validated", "fit, s")
_CURVE_COLUMNS = ("pictures a class", "in all", "draws", "accuracy", "± 95 %")
_COMPARED_COLUMNS = (
    "features",
    "layer",
    "classifier",
    "dims",
    "accuracy",
    "± 95 %",
    "difference",
    "95 % of it",
    "p",
    "s",
)
_LETTERS = {"C": "C", "neighbours": "k"}


@dataclass(frozen=True)
class Request(learned.Request, NetworkRequest):
    """The command line; None for what it does not say."""

    data: str | None
    classifier: str | None
    c: str | None
    neighbours: str | None
    class_weight: str | None
    flip: str | None
    hold_out: float | None
    compare: str | None
    learning_curve: bool
    from_features: str | None
    seed: int | None

    @property
    def named(self) -> str:
        """What the pictures are called by."""
        return self.data or self.from_features or ""


def run(request: Request) -> int:
    """Learn, test and report; returns the exit status."""
    _refuse_strange_combinations(request)
    config = _config(request)
    learned.refuse_strange_outputs(request)
    learned.refuse_report_among_pictures(request.report, (request.data, request.test))
    features = None if request.from_features is None else read_features(request.from_features)
    dataset, test = (None if name is None else _dataset(name) for name in (request.data, request.test))
    if request.hold_out is not None:
        learned.refuse_to_hold_out(request.hold_out, _labelled(dataset, features), test)
    read = (request.data, request.test, request.weights, *(features.files if features is not None else ()))
    learned.refuse_to_overwrite((request.output,), (dataset, test), read)
    # Pictures are read side by side; OpenCV's own threads would only get in their way.
    cv2.setNumThreads(1)
    with stages(wanted=progress_wanted(quiet=request.quiet, json=request.json)) as show:
        if request.compare is not None:
            assert dataset is not None
            return _compare(request, names_of(request.compare), dataset, test, config, show)
        return _probe(request, dataset, features, test, config, show)


def _dataset(name: str) -> Dataset:
    """Raises UsageError for features in place of pictures."""
    try:
        return read_dataset(name)
    except DatasetMalformed as error:
        try:
            found = read_features(name)
        except FeatkitError:
            raise error from None
        hint = "features come by --from FEATURES; --test names pictures that there are features of"
        raise UsageError("these are features, and not labelled pictures", path=found.path, hint=hint) from None


def _labelled(dataset: Dataset | None, features: Features | None) -> Dataset:
    """What names the parts of the data."""
    if dataset is not None:
        return dataset
    assert features is not None
    return stored.labelled(features, None)


def _probe(
    request: Request,
    dataset: Dataset | None,
    features: Features | None,
    test: Dataset | None,
    config: ProbeConfig,
    show: Stages,
) -> int:
    if features is not None:
        steps = probe_features_steps(
            features,
            dataset,
            config,
            layers=None if request.layers in (None, ALL) else names_of(request.layers or ""),
            test=test,
            learning_curve=request.learning_curve,
        )
    else:
        assert dataset is not None
        steps = probe_steps(
            dataset,
            config,
            test=test,
            learning_curve=request.learning_curve,
            cache=open_cache(request.use_cache),
            jobs=request.jobs,
            downloading=_downloading(show),
            opened=None if request.quiet else say_how,
        )
    with closing(in_background(steps)) as background:
        found = followed(background, show)
    if not request.silent:
        _show(request, found)
    learned.show(request, found.result, request.output)
    learned.save(request, found.result.model)
    if request.report is not None and found.result.evaluation is not None:
        tables, figures = list[Table](), dict[str, bytes]()
        if len(found.probes) > 1:
            tables.append(Table("Layers", _COLUMNS, tuple(map(_cells, found.probes))))
            figures["layers.png"] = curves.sweep_chart([_point(each, each is found.chosen) for each in found.probes])
        if found.curve:
            tables.append(Table("Learning curve", _CURVE_COLUMNS, tuple(map(_curve_cells, found.curve))))
            figures["learning-curve.png"] = curves.learning_curve_chart(found.curve)
        learned.report(
            request, found.result, request.named, show=show, tables=tables, figures=figures, remarks=found.advice
        )
    return learned.status(request, found.result, {"--learning-curve": request.learning_curve})


def _compare(
    request: Request, names: Sequence[str], dataset: Dataset, test: Dataset | None, config: ProbeConfig, show: Stages
) -> int:
    """Each backbone is printed once all are done, as a record when it is."""
    steps = compare_steps(
        dataset,
        names,
        config,
        test=test,
        cache=open_cache(request.use_cache),
        jobs=request.jobs,
        downloading=_downloading(show),
        opened=None if request.quiet else say_how,
    )
    found: list[Compared] = []
    failed = 0
    with closing(in_background(steps)) as background:
        for step in background:
            if isinstance(step, Progress):
                show(step.stage, step.done, step.total)
            elif isinstance(step, FeatkitError):
                failed += 1
                print_error(step)
                if request.json:
                    show_record(error_record(step))
            else:
                if not found:
                    learned.show_problems(request, step.probed.result)
                found.append(step)
                if request.json:
                    show_record(step.record())
    if not request.json:
        show_lines(table_lines(_COMPARED_COLUMNS, list(map(_compared_cells, found)), 3))
    result = found[0].probed.result
    if request.report is not None and result.evaluation is not None:
        table = Table("Comparison", _COMPARED_COLUMNS, tuple(map(_compared_cells, found)))
        chart = curves.comparison_chart(
            [_point(each.probed.chosen, False, each.probed.chosen.features) for each in found]
        )
        learned.report(request, result, request.named, show=show, tables=[table], figures={"comparison.png": chart})
    status = learned.status(request, result, {"--compare": True})
    return SOME_FAILED if failed else status


def _downloading(show: Stages) -> Callable[[int, int], None]:
    return lambda done, total: show("downloading weights (bytes)", done, total)


# --- options


def _config(request: Request) -> ProbeConfig:
    options = learned.learning_options(
        {
            "classifier": request.classifier,
            "c": request.c,
            "neighbours": request.neighbours,
            "class_weight": request.class_weight,
            "flip": request.flip,
            "hold_out": request.hold_out,
            "seed": request.seed,
        }
    )
    network = request.config(request.seed if request.weights == RANDOM else None)
    return from_options(ProbeConfig, {"decode": request.decode, "network": network, **options})


def _refuse_strange_combinations(request: Request) -> None:
    if request.from_features is not None:
        own = {name: value for name, value in request.given.items() if name != "--layers"}
        refuse(own, "networks, and --from brings what one has made", "leave one of them out")
        refuse({"--flip": request.flip}, "pictures, and --from brings what was made of them", "leave it out")
        refuse({"--compare": request.compare}, "pictures, and --from has none", "leave one of them out")
    elif request.data is None:
        raise UsageError("there is nothing to learn from", hint="featkit probe photos/, or --from features.npz")
    if request.compare is None:
        return
    for option, value in (
        ("-o", request.output),
        ("--backbone", request.backbone),
        ("--learning-curve", request.learning_curve or None),
        ("--weights", None if request.weights == RANDOM else request.weights),
    ):
        if value is not None:
            raise UsageError(
                f"{option} is about one backbone, and --compare about several",
                hint="compare first; what was computed is in the cache for the next run",
            )


# --- words


def _show(request: Request, found: Probed) -> None:
    """A sweep, its advice, and the learning curve."""
    if request.json:
        for each in found.probes:
            show_record(each.record(chosen=each is found.chosen))
        for sentence in found.advice:
            show_record(record("advice", message=sentence))
        for point in found.curve:
            show_record(_curve_record(point))
        return
    lines: list[str] = []
    if len(found.probes) > 1:
        lines += [*table_lines(_COLUMNS, list(map(_cells, found.probes)), 2), *found.advice, ""]
    if found.curve:
        lines += [*table_lines(_CURVE_COLUMNS, list(map(_curve_cells, found.curve)), 0), ""]
    show_lines(lines, to_stdout=not request.to_stdout)


def _cells(probe: Probe) -> tuple[str, ...]:
    setting = ", ".join(f"{_LETTERS[name]} {value:.3g}" for name, value in probe.setting.items()) or "–"
    validated = "–" if probe.validated is None else percent(probe.validated)
    seconds = f"{sum(probe.seconds.values()):.2f}"
    return (
        probe.layer,
        probe.classifier,
        str(probe.dimensions),
        setting,
        *_accuracy(probe.evaluation),
        validated,
        seconds,
    )


def _accuracy(evaluation: Evaluation | None) -> tuple[str, str]:
    if evaluation is None:
        return "–", "–"
    return percent(evaluation.accuracy), _spread(evaluation.interval)


def _spread(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"± {50 * (high - low):.1f}"


def _curve_cells(point: CurvePoint) -> tuple[str, ...]:
    return (
        str(point.size),
        str(point.pictures),
        str(len(point.accuracies)),
        percent(point.mean),
        _spread(point.interval),
    )


def _curve_record(point: CurvePoint) -> dict[str, object]:
    return record(
        "learning_curve",
        per_class=point.size,
        pictures=point.pictures,
        accuracy=point.mean,
        interval=list(point.interval),
        accuracies=list(point.accuracies),
        test=point.tested,
    )


def _compared_cells(each: Compared) -> tuple[str, ...]:
    chosen, found = each.probed.chosen, each.comparison
    told = ("–", "–", "–")
    if found is not None:
        low, high = found.interval
        told = f"{100 * found.difference:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}", f"{found.p:.2g}"
    return (
        chosen.features,
        "–" if chosen.layer == chosen.features else chosen.layer,
        chosen.classifier,
        str(chosen.dimensions),
        *_accuracy(chosen.evaluation),
        *told,
        f"{sum(each.probed.result.seconds.values()):.1f}",
    )


def _point(probe: Probe, saved: bool, name: str | None = None) -> Point:
    assert probe.evaluation is not None
    return Point(
        probe.classifier,
        name or probe.layer,
        probe.dimensions,
        probe.evaluation.accuracy,
        probe.evaluation.interval,
        probe.validated,
        saved,
    )
