"""What `featkit evaluate` does: test a model elsewhere, and show how well it works."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from featkit.cache import open_cache
from featkit.cli import learned
from featkit.cli.console import progress_wanted, stages
from featkit.cli.interrupts import in_background
from featkit.datasets import read_dataset
from featkit.errors import UsageError
from featkit.extraction.formats import read as read_features
from featkit.learning import stored
from featkit.learning.model import load_model
from featkit.learning.testing import evaluate_steps
from featkit.opencv import cv2
from featkit.progress import followed


@dataclass(frozen=True)
class Request(learned.Request):
    """What the command line asks for."""

    model: str
    data: str | None
    from_features: str | None
    weights: str | None


def run(request: Request) -> int:
    """Test, and report; returns the exit status."""
    learned.refuse_strange_outputs(request)
    learned.refuse_report_among_pictures(request.report, (request.data,))
    named = request.data if request.data is not None else request.from_features
    if named is None:
        raise UsageError("there is nothing to test on", hint="name labelled pictures, or features: --from FEATURES")
    model = load_model(request.model, request.weights)
    dataset = None if request.data is None else read_dataset(request.data)
    if request.from_features is not None:
        steps = stored.evaluate_steps(model, read_features(request.from_features), dataset)
    else:
        assert dataset is not None
        cv2.setNumThreads(1)
        cache = open_cache(request.use_cache)
        steps = evaluate_steps(model, dataset, decode=request.decode, cache=cache, jobs=request.jobs)
    with (
        stages(wanted=progress_wanted(quiet=request.quiet, json=request.json)) as show,
        closing(in_background(steps)) as background,
    ):
        found = followed(background, show)
        learned.show(request, found, request.model)
        if request.report is not None:
            learned.report(request, found, named, show=show)
    return learned.status(request, found, {})
