"""Signals that end a run: they come as exceptions in the main thread, so half-written files are removed on the way out.

Such an exception may come between any two instructions. Two kinds of work do not bear that, and are kept from it: the
writing of HDF5, which crashes (`held_back`), and thread pools, where a lock may stay locked for ever (`in_background`).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Generator, Iterator
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import TypeVar

_Item = TypeVar("_Item")

# Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# A second signal so soon would cut short the clearing up after the first.
_PATIENCE_S = 1.0
# For a thread to end that has nothing left to do but to close what it was iterating over.
_CLEARING_UP_S = 5.0


class Ended(BaseException):
    """SIGTERM or SIGHUP came; `status` is the exit status that says so."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number


def raise_on_signals() -> None:
    """Let SIGINT raise KeyboardInterrupt, SIGTERM and SIGHUP `Ended`; what is ignored, as by nohup, stays ignored."""
    ended = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        if time.monotonic() < ended + _PATIENCE_S:
            return
        ended = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    for number in _ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """A signal that comes meanwhile is raised at the end."""
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def in_background(items: Generator[_Item, None, None]) -> Generator[_Item, None, None]:
    """Each next item of a generator, made in another thread when it is asked for."""
    asked: SimpleQueue[bool] = SimpleQueue()
    answers: SimpleQueue[list[_Item] | BaseException] = SimpleQueue()  # the next item, none at the end

    def answer() -> None:
        with contextlib.closing(items):
            while asked.get():
                try:
                    answers.put(list(islice(items, 1)))
                except BaseException as error:
                    answers.put(error)

    thread = Thread(target=answer, daemon=True)
    with held_back():
        thread.start()
    at_work = False
    try:
        while True:
            at_work = True
            asked.put(True)
            found = answers.get()
            at_work = False
            if isinstance(found, BaseException):
                raise found
            if not found:
                return
            yield from found
    finally:
        asked.put(False)
        # Libraries clear up after a thread that has used them; at the end of the process that may be too late. One that
        # is at work when a signal comes is not waited for.
        if not at_work:
            thread.join(_CLEARING_UP_S)
