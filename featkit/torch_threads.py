"""torch beside threads of our own: each has one of torch's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Threads:
    """How many contexts of `one_thread_each` are open, and torch's setting from before the first that it changed."""

    lock = threading.Lock()
    open_contexts = 0
    before: int | None = None


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Within, torch gives each of our threads one of its own: they work side by side, and no sum depends on how many
    processors share it. Imports no torch where nothing else does; what it changed is as before in the end.

    threadpoolctl does not do this: it sees neither the linear algebra inside torch nor other threads' OpenMP.
    """
    with _Threads.lock:
        _Threads.open_contexts += 1
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.open_contexts -= 1
            if not _Threads.open_contexts and _Threads.before is not None:
                import torch

                torch.set_num_threads(_Threads.before)
                _Threads.before = None


def limit_threads() -> None:
    """In a thread that is about to use torch within `one_thread_each`: torch's setting is partly each thread's own."""
    import torch

    with _Threads.lock:
        if _Threads.open_contexts and (found := torch.get_num_threads()) > 1:
            if _Threads.before is None:
                _Threads.before = found
            torch.set_num_threads(1)
