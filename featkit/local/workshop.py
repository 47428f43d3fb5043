"""Threads that describe pictures and match pairs of them, in bounded memory.

A picture is described just before the first pair that needs it, and a pair is matched once both of its pictures are
described: no thread ever waits for another, so any number of them gets along. Of the work that can be done, what
belongs to the earliest pair comes first.

Descriptions are kept for later pairs. The names of the next pairs are read ahead, so it is known when each picture is
needed again: what none of them needs is let go, and where memory is short the one that is needed last (Belády 1966,
the fewest that have to be made again). An order such as all-with-all returns to a picture after a whole row of others,
of which the least recently used would always be the next one needed.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from threading import Lock
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from featkit.errors import FeatkitError

# Pairs begun before the one that is awaited is done: enough to keep the threads busy, few enough to hold in memory.
_PAIRS_BEGUN_PER_WORKER = 4
# Pairs whose names are known ahead: four rows of all-with-all of 2,000 photos, in 2 MB.
_PAIRS_FORESEEN = 8192


class Described(Protocol):
    """What is kept of a picture: anything that says how many bytes it holds."""

    @property
    def nbytes(self) -> int: ...


_Subject = TypeVar("_Subject", bound=Hashable)
_Description = TypeVar("_Description", bound=Described)
_Result = TypeVar("_Result")


@dataclass(eq=False)
class _Picture(Generic[_Subject, _Description]):
    """A picture that a pair needs. failure: what `extract` raised."""

    subject: _Subject
    description: _Description | None = None
    failure: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.description is not None or self.failure is not None


@dataclass(eq=False)
class _Pair(Generic[_Subject, _Description, _Result]):
    """A pair begun: matched as soon as both pictures are done."""

    number: int
    pictures: tuple[_Picture[_Subject, _Description], _Picture[_Subject, _Description]]
    ready: bool = False
    outcome: Future[_Result] = field(default_factory=Future)

    @property
    def failures(self) -> list[BaseException]:
        """Of its pictures, a defect before what is merely unreadable."""
        found = dict.fromkeys(picture.failure for picture in self.pictures if picture.failure is not None)
        return sorted(found, key=lambda failure: isinstance(failure, FeatkitError))

    @property
    def errors(self) -> list[FeatkitError]:
        return [failure for failure in self.failures if isinstance(failure, FeatkitError)]


class Workshop(Generic[_Subject, _Description, _Result]):
    """Use as a context manager; leaving it drops the work that no thread has begun, and waits for the rest.

    extract: describes one picture; match: ties two descriptions. Both are called from `workers` threads at once.
    memory_bytes: how much of descriptions is kept, unless the pairs in work need more.
    """

    def __init__(
        self,
        extract: Callable[[_Subject], _Description],
        match: Callable[[_Description, _Description], _Result],
        workers: int,
        memory_bytes: int,
    ) -> None:
        self._extract = extract
        self._match = match
        self._memory_bytes = memory_bytes
        self._most_begun = _PAIRS_BEGUN_PER_WORKER * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="featkit")
        self._lock = Lock()  # of everything below
        self._closed = False
        self._jobs: list[tuple[int, int, Callable[[], None]]] = []  # a heap: (number of the pair, of the job, job)
        self._job_numbers = count()
        self._begun: deque[_Pair[_Subject, _Description, _Result]] = deque()  # and not yet handed out
        self._pictures: dict[_Subject, _Picture[_Subject, _Description]] = {}
        self._held_bytes = 0
        self._needed_by: dict[_Subject, deque[int]] = {}  # numbers of the pairs foreseen or begun
        self._failures: dict[_Subject, FeatkitError] = {}

    def __enter__(self) -> Workshop[_Subject, _Description, _Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def outcomes(self, pairs: Iterable[tuple[_Subject, _Subject]]) -> Iterator[_Result | FeatkitError]:
        """What `match` returns for each of the pairs, in their order whatever the number of workers.

        Pairs are read as they are needed, some thousand ahead. Where `extract` raises a FeatkitError, the error is
        yielded in place of the picture's first pair, and its other pairs are left out; where `match` raises one, it
        stands for that pair. No picture's error is yielded twice. Anything else that either raises is raised here.
        Call this once.
        """
        upcoming = enumerate(pairs)
        foreseen: deque[tuple[int, tuple[_Subject, _Subject]]] = deque()
        reported: set[tuple[type[FeatkitError], str | None, str]] = set()
        while True:
            read = list(islice(upcoming, _PAIRS_FORESEEN - len(foreseen)))
            foreseen += read
            with self._lock:
                for number, pair in read:
                    for subject in pair:
                        self._needed_by.setdefault(subject, deque()).append(number)
                while foreseen and len(self._begun) < self._most_begun:
                    self._begin(*foreseen.popleft())
            if not self._begun:
                return
            outcomes: list[_Result | FeatkitError]
            try:
                outcomes = [self._begun[0].outcome.result()]
            except FeatkitError as error:
                outcomes = [] if self._begun[0].errors else [_without_frames(error)]
                for each in self._begun[0].errors:
                    what = type(each), each.path, each.message
                    if what not in reported:
                        reported.add(what)
                        outcomes.append(_without_frames(each))
            with self._lock:
                self._finish(self._begun.popleft())
            yield from outcomes

    # --- with the lock held

    def _begin(self, number: int, subjects: tuple[_Subject, _Subject]) -> None:
        a, b = (self._picture(number, subject) for subject in subjects)
        pair = _Pair[_Subject, _Description, _Result](number, (a, b))
        self._begun.append(pair)
        self._queue_if_ready(pair)

    def _picture(self, number: int, subject: _Subject) -> _Picture[_Subject, _Description]:
        picture = self._pictures.get(subject)
        if picture is None:
            # One that failed is not tried again, though it may be needed again long after it was let go.
            picture = _Picture(subject, failure=self._failures.get(subject))
            self._pictures[subject] = picture
            if not picture.done:
                self._queue(number, partial(self._describe, picture))
        return picture

    def _queue_if_ready(self, pair: _Pair[_Subject, _Description, _Result]) -> None:
        if pair.ready or not all(picture.done for picture in pair.pictures):
            return
        pair.ready = True
        if pair.failures:
            pair.outcome.set_exception(pair.failures[0])
        else:
            self._queue(pair.number, partial(self._tie, pair))

    def _queue(self, number: int, job: Callable[[], None]) -> None:
        if not self._closed:
            heapq.heappush(self._jobs, (number, next(self._job_numbers), job))
            self._pool.submit(self._work)

    def _finish(self, pair: _Pair[_Subject, _Description, _Result]) -> None:
        for picture in pair.pictures:
            needed_by = self._needed_by[picture.subject]
            needed_by.popleft()
            if not needed_by:
                del self._needed_by[picture.subject]
                self._let_go(picture.subject)
        self._make_room()

    def _let_go(self, subject: _Subject) -> None:
        description = self._pictures.pop(subject).description
        self._held_bytes -= 0 if description is None else description.nbytes

    def _make_room(self) -> None:
        """Let go of what is needed last until the rest is small enough, but of nothing that a pair begun needs."""
        last_begun = self._begun[-1].number if self._begun else -1
        while self._held_bytes > self._memory_bytes:
            last = max(self._pictures, key=lambda subject: self._needed_by[subject][0])
            if self._needed_by[last][0] <= last_begun:
                return
            self._let_go(last)

    # --- in the threads

    def _work(self) -> None:
        with self._lock:
            _, _, job = heapq.heappop(self._jobs)
        job()

    def _describe(self, picture: _Picture[_Subject, _Description]) -> None:
        description, failure = None, None
        try:
            description = self._extract(picture.subject)
        except BaseException as error:  # it is raised, or yielded, where the results are awaited
            failure = error
        with self._lock:
            picture.description, picture.failure = description, failure
            if description is not None:
                self._held_bytes += description.nbytes
                self._make_room()
            elif isinstance(failure, FeatkitError):
                self._failures[picture.subject] = _without_frames(failure)
            for pair in self._begun:
                self._queue_if_ready(pair)

    def _tie(self, pair: _Pair[_Subject, _Description, _Result]) -> None:
        a, b = (picture.description for picture in pair.pictures)
        assert a is not None
        assert b is not None
        try:
            pair.outcome.set_result(self._match(a, b))
        except BaseException as error:
            pair.outcome.set_exception(error)


def _without_frames(error: FeatkitError) -> FeatkitError:
    """The same error without the stack that raised it, whose variables are the bytes and pixels of a picture."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
