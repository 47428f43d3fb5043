"""The workshop with make-believe pictures: order, memory, errors, and that it always comes to an end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featkit.cache import Cache
from featkit.errors import DependencyError, FeatkitError, FileMissing, ImageDamaged, UsageError
from featkit.local import pipeline
from featkit.local import workshop as workshop_module
from featkit.local.workshop import Workshop

KILOBYTE = 1024
PLENTY = 1 << 30


@dataclass(frozen=True)
class Description:
    name: str
    nbytes: int = KILOBYTE


@dataclass
class Studio:
    """Describes names and matches them into "ab". bad: which names fail, and with what. Counts what it does."""

    bad: dict[str, BaseException] = field(default_factory=dict)
    bad_pairs: dict[str, BaseException] = field(default_factory=dict)
    pause: Callable[[], object] = lambda: None
    described: Counter[str] = field(default_factory=Counter)
    matched: Counter[str] = field(default_factory=Counter)

    def extract(self, name: str) -> Description:
        self.described[name] += 1
        self.pause()
        if name in self.bad:
            raise self.bad[name]
        return Description(name)

    def match(self, a: Description, b: Description) -> str:
        self.matched[a.name + b.name] += 1
        self.pause()
        if a.name + b.name in self.bad_pairs:
            raise self.bad_pairs[a.name + b.name]
        return a.name + b.name

    def results(self, pairs: Any, workers: int = 2, memory_bytes: int = PLENTY) -> list[Any]:
        with Workshop(self.extract, self.match, workers, memory_bytes) as workshop:
            return list(workshop.outcomes(pairs))


def missing(*names: str) -> dict[str, BaseException]:
    return {name: FileMissing("there is no such file", path=name) for name in names}


# --- results


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_pairs(workers: int) -> None:
    calls = count()  # whose next() no other thread can cut in two
    studio = Studio(pause=lambda: time.sleep(0.001 * (next(calls) * 7 % 5)))
    pairs = list(combinations("abcdefg", 2))

    assert studio.results(pairs, workers) == [a + b for a, b in pairs]
    assert set(studio.described.values()) == {1}


def test_no_pairs() -> None:
    assert Studio().results([]) == []


def test_a_picture_with_itself_and_pairs_in_both_orders() -> None:
    studio = Studio()

    assert studio.results([("a", "a"), ("a", "b"), ("b", "a"), ("a", "a")]) == ["aa", "ab", "ba", "aa"]
    assert studio.described == {"a": 1, "b": 1}


def test_all_workers_describe_while_pairs_wait() -> None:
    """In the first row of all-with-all each pair needs one more picture: four are described at a time."""
    together = threading.Barrier(4)

    def extract(name: str) -> Description:
        together.wait(timeout=20)  # fails unless four threads meet here
        return Description(name)

    with Workshop(extract, lambda a, b: a.name + b.name, 4, PLENTY) as workshop:
        assert list(workshop.outcomes([("a", name) for name in "bcdefgh"]))[-1] == "ah"


def test_the_earliest_pair_comes_first() -> None:
    order: list[str] = []

    def match(a: Description, b: Description) -> str:
        order.append(a.name + b.name)
        return order[-1]

    def extract(name: str) -> Description:
        order.append(name)
        return Description(name)

    with Workshop(extract, match, 1, PLENTY) as workshop:
        list(workshop.outcomes([("a", "b"), ("a", "c")]))
    # "b" and "c" were queued before "ab" could be.
    assert order in (["a", "b", "ab", "c", "ac"], ["a", "b", "c", "ab", "ac"])


# --- memory


def rows(pictures: int) -> list[tuple[str, str]]:
    return list(combinations([f"{number:03}" for number in range(pictures)], 2))


def test_where_all_fits_each_picture_is_described_once() -> None:
    studio = Studio()
    studio.results(rows(40), memory_bytes=40 * KILOBYTE)
    assert set(studio.described.values()) == {1}


def test_where_memory_is_short_as_many_are_kept_as_fit() -> None:
    """Of 40 pictures 20 fit. The least recently used would always be the next one needed: 760 descriptions."""
    studio = Studio()
    pairs = rows(40)

    assert studio.results(pairs, memory_bytes=20 * KILOBYTE) == [a + b for a, b in pairs]
    assert studio.described.total() < 400


@pytest.mark.parametrize("memory_bytes", [0, 5 * KILOBYTE, 100 * KILOBYTE])
def test_no_more_is_held_than_allowed_or_in_work(memory_bytes: int) -> None:
    workers, pictures = 2, 60
    alive: weakref.WeakSet[Description] = weakref.WeakSet()
    peak = 0

    class Weak(Description):
        __hash__ = object.__hash__

    def extract(name: str) -> Weak:
        found = Weak(name)
        alive.add(found)
        return found

    with Workshop(extract, lambda a, b: a.name + b.name, workers, memory_bytes) as workshop:
        for _ in workshop.outcomes(rows(pictures)):
            gc.collect(0)
            peak = max(peak, len(alive))

    in_work = workshop_module._PAIRS_BEGUN_PER_WORKER * workers + 2 * workers
    assert peak <= max(memory_bytes // KILOBYTE, in_work + 1) + workers


def test_what_no_later_pair_needs_is_let_go() -> None:
    """Matched in sequence, pictures come and go, however much memory is allowed."""
    alive: weakref.WeakSet[Description] = weakref.WeakSet()

    class Weak(Description):
        __hash__ = object.__hash__

    def extract(name: str) -> Weak:
        found = Weak(name)
        alive.add(found)
        return found

    names = [f"{number}" for number in range(300)]
    with Workshop(extract, lambda a, b: a.name + b.name, 2, PLENTY) as workshop:
        for _ in workshop.outcomes(pairwise(names)):
            assert len(alive) < 20


def test_pairs_are_read_lazily() -> None:
    """Of two million pairs the first results come at once, and only some thousand are read."""
    read = count()
    numbers = (next(read) for _ in range(2_000_000))
    studio = Studio()
    with Workshop(studio.extract, studio.match, 2, PLENTY) as workshop:
        outcomes = workshop.outcomes((str(number), "x") for number in numbers)
        assert list(islice(outcomes, 3)) == ["0x", "1x", "2x"]
    assert next(read) <= workshop_module._PAIRS_FORESEEN + 10


def test_photos_match_the_same_whatever_the_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = list(combinations([str(photos / f"{stem}.jpg") for stem in ("a", "b", "c", "other")], 2))
    records = []
    for memory_bytes in (0, 200_000, PLENTY):
        monkeypatch.setattr(pipeline, "_FEATURES_HELD_WITHOUT_CACHE_BYTES", memory_bytes)
        results = list(pipeline.match_pairs(pairs, cache=Cache(None), jobs=2))
        assert all(isinstance(result, pipeline.MatchResult) for result in results)
        lasting = [{**result.record(), "seconds": None} for result in results]  # type: ignore[union-attr]
        records.append(lasting)

    assert records[0] == records[1] == records[2]


# --- errors


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_stands_for_the_first_pair_and_others_are_left_out(workers: int) -> None:
    studio = Studio(missing("x", "y"))

    found = studio.results(["ab", "ax", "xb", "yx", "bc", "xy"], workers)

    assert [each if isinstance(each, str) else each.path for each in found] == ["ab", "x", "y", "bc"]
    assert studio.described["x"] == studio.described["y"] == 1


def test_a_failed_picture_is_not_tried_again_after_it_was_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop_module, "_PAIRS_FORESEEN", 4)
    studio = Studio(missing("x"))
    pairs = ["ax", *["bc"] * 40, "xa"]

    assert len(studio.results(pairs)) == 41
    assert studio.described["x"] == 1
    assert studio.described["a"] == 2  # it left the foreseen pairs, and came back


def test_two_that_fail_in_one_pair_are_two_errors() -> None:
    found = Studio(missing("x", "y")).results(["xy", "yx", "xx"])
    assert [error.path for error in found] == ["x", "y"]


def test_the_same_error_of_many_is_told_once() -> None:
    lacking = UsageError("aliked needs the extra", hint="pip install 'featkit[learned]'")
    [error] = Studio(dict.fromkeys("abcd", lacking)).results(combinations("abcd", 2))
    assert error is lacking


def test_an_error_of_matching_stands_for_each_of_its_pairs() -> None:
    lacking = DependencyError("the matcher does not load")
    found = Studio(bad_pairs={"ab": lacking, "bc": lacking}).results(combinations("abc", 2))
    assert found == [lacking, "ac", lacking]


def test_an_error_of_matching_stands_for_its_pair() -> None:
    studio = Studio(bad_pairs={"ac": ImageDamaged("it was changed meanwhile", path="c")})
    found = studio.results(combinations("abc", 2))
    assert [each if isinstance(each, str) else each.path for each in found] == ["ab", "c", "bc"]


@pytest.mark.parametrize("where", ["bad", "bad_pairs"])
@pytest.mark.parametrize("defect", [ZeroDivisionError("a defect"), MemoryError()], ids=repr)
def test_a_defect_is_raised_after_the_results_before_it(where: str, defect: BaseException) -> None:
    studio = Studio(**{where: {"d": defect, "cd": defect}})  # type: ignore[arg-type]
    found = []
    with (
        pytest.raises(type(defect)),
        Workshop(studio.extract, studio.match, 2, PLENTY) as workshop,
    ):
        found.extend(workshop.outcomes(["ab", "bc", "cd", "de"]))  # type: ignore[arg-type]
    assert found == ["ab", "bc"]


def test_errors_do_not_hold_on_to_the_pictures() -> None:
    """The frames of a traceback keep all local variables alive, among them bytes and pixels."""

    class Pixels:
        pass

    pixels: list[weakref.ref[Pixels]] = []

    def extract(name: str) -> Description:
        decoded = Pixels()
        pixels.append(weakref.ref(decoded))
        try:
            raise ValueError("a wrong checksum")
        except ValueError as error:
            raise ImageDamaged("it is damaged", path=name) from error

    with Workshop(extract, lambda a, b: a.name + b.name, 2, PLENTY) as workshop:
        errors = list(workshop.outcomes(["ab", "ac"]))  # type: ignore[list-item]
    gc.collect()
    assert len(errors) == 3
    assert [reference() for reference in pixels] == [None] * 3


# --- the end


def test_whoever_stops_early_leaves_no_work_behind() -> None:
    studio = Studio(pause=lambda: time.sleep(0.005))
    with Workshop(studio.extract, studio.match, 2, PLENTY) as workshop:
        outcomes = workshop.outcomes(rows(100))
        assert next(outcomes) == "000001"
        outcomes.close()  # type: ignore[attr-defined]
    done = studio.described.total()
    assert done < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("featkit")]
    assert studio.described.total() == done


@settings(deadline=None, max_examples=150)
@given(
    pairs=st.lists(st.text("abcdefgh", min_size=2, max_size=2), max_size=60),
    bad=st.sets(st.sampled_from("abcdefgh"), max_size=3),
    bad_pairs=st.sets(st.text("abcdefgh", min_size=2, max_size=2), max_size=3),
    workers=st.integers(1, 5),
    memory_bytes=st.sampled_from([0, KILOBYTE, 3 * KILOBYTE, PLENTY]),
    foreseen=st.integers(1, 30),
)
def test_any_pairs_any_failures_any_memory(
    pairs: list[str], bad: set[str], bad_pairs: set[str], workers: int, memory_bytes: int, foreseen: int
) -> None:
    """The outcomes are those of a plain loop, and the run ends."""
    expected: list[str] = []
    for pair in pairs:
        wrong = [f"{name} fails" for name in dict.fromkeys(pair) if name in bad]
        right = f"{pair} fails" if pair in bad_pairs else pair
        expected += [each for each in wrong if each not in expected] if wrong else [right]
    studio = Studio(
        {name: FileMissing(f"{name} fails") for name in bad},
        {pair: FeatkitError(f"{pair} fails") for pair in bad_pairs},
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workshop_module, "_PAIRS_FORESEEN", foreseen)
        found = studio.results(iter(pairs), workers, memory_bytes)

    assert [each if isinstance(each, str) else each.message for each in found] == expected
    assert all(studio.described[name] <= 1 for name in bad)
    if memory_bytes == PLENTY and foreseen > len(pairs):
        assert set(studio.described.values()) <= {1}
