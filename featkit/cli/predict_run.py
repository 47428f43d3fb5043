"""What `featkit predict` does: a line a picture, as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import closing

from featkit.cache import open_cache
from featkit.cli.console import print_error, print_line, print_record, progress_wanted, with_progress
from featkit.cli.interrupts import in_background
from featkit.cli.named import named_pictures
from featkit.cli.options import refuse_no_list
from featkit.errors import FeatkitError, UsageError
from featkit.extraction.formats import read as read_features
from featkit.images import DecodeOptions
from featkit.learning.model import Prediction, load_model
from featkit.learning.stored import rows_for
from featkit.opencv import cv2
from featkit.processors import threads
from featkit.records import error_record, printable

SOME_FAILED = 1
ALL_FAILED = 2

_FORMATS = ("text", "jsonl", "csv")
# Of the labels in a record where --top does not say; a line and a row have one.
_TOP = 5


def run(
    model: str,
    pictures: list[str],
    *,
    features: str | None,
    weights: str | None,
    files_from: str | None,
    nul: bool,
    recursive: bool,
    format_: str | None,
    top: int | None,
    decode: DecodeOptions,
    jobs: int | None,
    use_cache: bool,
    json: bool,
    quiet: bool,
) -> int:
    """Label pictures and print them; returns the exit status."""
    form = format_ or ("jsonl" if json else "text")
    if form not in _FORMATS:
        raise UsageError(f"--format knows no {form!r}", hint=f"choose one of: {', '.join(_FORMATS)}")
    if json and form != "jsonl":
        raise UsageError(f"--json and --format {form} are two formats", hint="leave one of them out")
    if top is not None and top < 1:
        raise UsageError("--top must be at least 1", hint="for example: --top 3")
    threads(jobs)
    refuse_no_list(pictures, files_from, nul)
    if features is not None:
        _refuse_pictures(pictures, files_from, recursive)
    loaded = load_model(model, weights)
    top = min(top or (_TOP if form == "jsonl" else 1), len(loaded.classes))
    if features is None:
        paths = named_pictures(pictures, files_from, nul=nul, recursive=recursive)
        count = len(paths)
        # Pictures are read side by side; OpenCV's own threads would only get in their way.
        cv2.setNumThreads(1)
        labelled = loaded.predict(paths, top=top, decode=decode, cache=open_cache(use_cache), jobs=jobs)
    else:
        found = read_features(features)
        count = found.count
        labelled = loaded.predict_rows(rows_for(loaded, found), top=top)
    if not count:
        raise UsageError("there are no pictures to label", path=features, hint="featkit predict model.fk photos/")
    if form == "csv":
        _print_row(
            ["path", "label", "score", "margin", *(f"{what}_{k}" for k in range(2, top + 1) for what in _NEXT_ONES)]
        )
    write = _WRITERS[form]
    predictions = in_background(labelled)
    done = 0
    wanted = progress_wanted(quiet=quiet, json=form == "jsonl")
    with closing(predictions):
        for each in with_progress(predictions, count, "labelling", wanted=wanted):
            if isinstance(each, Prediction):
                write(each)
                done += 1
            else:
                _print_failure(each, json=form == "jsonl")
    return 0 if done == count else SOME_FAILED if done else ALL_FAILED


def _refuse_pictures(pictures: Sequence[str], files_from: str | None, recursive: bool) -> None:
    asked = {"pictures": bool(pictures), "--files-from": files_from is not None, "--recursive": recursive}
    for name, is_asked in asked.items():
        if is_asked:
            raise UsageError(
                "--from labels the pictures whose features it names, and no others", hint=f"leave out --from or {name}"
            )


_NEXT_ONES = ("label", "score")


def _print_row(values: Sequence[str]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    print_line(line.getvalue())


def _write_row(each: Prediction) -> None:
    others = (text for label, score in each.top[1:] for text in (label, f"{score:.6g}"))
    _print_row([each.path, each.label, f"{each.score:.6g}", f"{each.margin:.6g}", *others])


def _write_line(each: Prediction) -> None:
    others = "".join(f" · {printable(label)} {score:.2f}" for label, score in each.top[1:])
    print_line(f"{printable(each.path)}  {printable(each.label)} {each.score:.2f}{others} · ahead by {each.margin:.2f}")


_WRITERS: dict[str, Callable[[Prediction], None]] = {
    "text": _write_line,
    "csv": _write_row,
    "jsonl": lambda each: print_record(each.record()),
}


def _print_failure(failure: FeatkitError, *, json: bool) -> None:
    print_error(failure)
    if json:
        print_record(error_record(failure))
