"""What follows from a sweep, in plain sentences that claim no difference which a test does not support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featkit.learning.comparison import Comparison, compare
from featkit.learning.evaluation import Evaluation, percent

#: McNemar's test tells two apart at 5 % where one alone is right on five pictures, the other alone on none; never on
#: fewer (mid-p of 4 and 0 is .0625).
_LEAST_DIFFERENCE = 5
#: Of fewer test pictures it is said which differences cannot be seen on them: those of up to 5 points and more.
_MANY = 100
#: By what a size is called that is so many times smaller, as rounded to one place.
_FRACTIONS = {"2.0": "at half the size", "4.0": "at a quarter of the size"}


@dataclass(frozen=True)
class Candidate:
    """What a sweep tried: a layer, perhaps with one of several classifiers. dimensions: numbers that a picture has
    there. depth: where the layer stands in the network, 0 first. validated: the share of the training pictures that was
    labelled right while they were held out."""

    name: str
    dimensions: int
    depth: int
    evaluation: Evaluation
    validated: float


def advise(candidates: Sequence[Candidate], saved: int) -> tuple[str, ...]:
    """Which does best on the test pictures, which smaller one is as good, why what is saved is another, and what so few
    pictures cannot show: a sentence each, where there is something to say.

    candidates: evaluated on the same pictures. saved: the index of the one that validation chose. Whatever McNemar's
    test at 5 % does not tell from the best counts as as good; of these the one with the fewest numbers is named, of
    equals the shallowest, where the pass through the network may end. Each is tested against the best alone, without a
    correction for their number: that would call more of them as good. Raises what `compare` raises.
    """
    if not candidates:
        return ()
    best = min(candidates, key=lambda each: (-each.evaluation.accuracy, each.dimensions, each.depth))
    tests = [(each, compare(best.evaluation, each.evaluation)) for each in candidates if each is not best]
    sentences = [
        _about_best(best, tests),
        _about_smaller(best, tests),
        _about_saved(best, tests, candidates[saved]),
        _about_test(best) if tests else "",
    ]
    return tuple(sentence for sentence in sentences if sentence)


_Tests = Sequence[tuple[Candidate, Comparison]]


def _about_best(best: Candidate, tests: _Tests) -> str:
    share = f"{percent(best.evaluation.accuracy)} of {_pictures(best)}, {_numbers(best)} each."
    if not tests:
        return f"{best.name}: {share}"
    if all(test.told_apart for _, test in tests):
        return f"{best.name} is best: {share}"
    if any(each.evaluation.accuracy == best.evaluation.accuracy for each, _ in tests):
        return f"None gets more right than {best.name}: {share}"
    return f"{best.name} gets the most right: {share}"


def _about_smaller(best: Candidate, tests: _Tests) -> str:
    as_good = [(each, test) for each, test in tests if not test.told_apart]
    if not as_good or len(best.evaluation.paths) < _LEAST_DIFFERENCE:
        return ""
    least, test = min(as_good, key=lambda pair: (pair[0].dimensions, pair[0].depth))
    if (least.dimensions, least.depth) >= (best.dimensions, best.depth):
        smaller = any(each.dimensions < best.dimensions for each, _ in tests)
        return "None of the smaller ones is as good." if smaller else ""
    mistakes = _counted(_wrong(least) - _wrong(best), "more mistake")
    told = f"as far as {_pictures(best)} can tell: {mistakes}, {_p(test)}."
    return f"{least.name} is as good as {best.name} {_size(least, best)}, {told}"


def _about_saved(best: Candidate, tests: _Tests, saved: Candidate) -> str:
    found = [test for each, test in tests if each is saved]
    if not found:
        return ""
    ours, theirs = percent(saved.validated), percent(best.validated)
    ahead = saved.validated > best.validated and ours != theirs
    reason = f"it gets {ours} of the training pictures right while they are held out, {best.name} "
    reason += theirs if ahead else "no more"
    if found[0].told_apart:
        return (
            f"{saved.name} is saved: {reason}. On the test pictures {best.name} is better, {_p(found[0])}, but a "
            "choice by them would leave none to judge it by."
        )
    return f"{saved.name} is saved: {reason}; the test pictures do not tell the two apart, {_p(found[0])}."


def _about_test(best: Candidate) -> str:
    count = len(best.evaluation.paths)
    if count < _LEAST_DIFFERENCE:
        return f"{_pictures(best)} cannot tell any two apart."
    if count < _MANY:
        points = f"{100 * _LEAST_DIFFERENCE / count:.1f}".removesuffix(".0")
        return f"{_pictures(best)} cannot tell apart what differs by less than {points} points."
    return ""


def _size(smaller: Candidate, larger: Candidate) -> str:
    ratio = f"{larger.dimensions / smaller.dimensions:.1f}"
    if smaller.dimensions == larger.dimensions:
        return "and is reached sooner"
    if ratio == "1.0":
        return f"with {smaller.dimensions:,} numbers instead of {larger.dimensions:,}"
    return _FRACTIONS.get(ratio, f"and {ratio.removesuffix('.0')} times smaller")


def _pictures(candidate: Candidate) -> str:
    return _counted(len(candidate.evaluation.paths), "picture")


def _numbers(candidate: Candidate) -> str:
    return _counted(candidate.dimensions, "number")


def _wrong(candidate: Candidate) -> int:
    return int((candidate.evaluation.truth != candidate.evaluation.predicted).sum())


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def _p(test: Comparison) -> str:
    """As papers have it: p = .75, p = .031, p < .001."""
    if test.p < 0.001:
        return "p < .001"
    places = 2 if test.p >= 0.1 else 3
    return f"p = {test.p:.{places}f}".replace("p = 0.", "p = .").replace("p = 1.00", "p = 1")
