"""A bounded memory of what was made last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any


class Recent:
    """Values by key, the least recently used dropped where they exceed a number of bytes. Safe between threads; two
    that miss the same key both make the value, which is the same."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value; one larger than the limit is not kept."""
        with self._lock:
            if key in self._values:
                self._bytes -= self._values.pop(key)[1]
            if nbytes > self._limit_bytes:
                return
            self._values[key] = value, nbytes
            self._bytes += nbytes
            while self._bytes > self._limit_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]
