"""Kill two processes that write to one cache, many times over, and look at what they leave (run by test_cache.py).

`racing_writers.py ROUNDS` prints one JSON object. The writers are forked from a process that has numpy loaded, so that
a pair of them costs milliseconds instead of a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featkit.cache import Cache, make_key

FOLDER = Path("cache")
NAMES = [f"{owner} {number}" for owner in ("shared", "first", "second") for number in range(3)]


def key(name: str) -> str:
    return make_key(content=[name], operation="race", version=1, config=None)


def value(name: str) -> npt.NDArray[np.int32]:
    return np.full(200_000, sum(name.encode()), np.int32)


def write_for_ever(own: str, started: int) -> None:
    """Write keys of its own and keys that the other process writes too; say so on the file descriptor `started`."""
    cache = Cache(FOLDER)
    names = [name for name in NAMES if name.startswith(("shared", own))]
    os.write(started, b".")
    while True:
        random.shuffle(names)
        for name in names:
            cache.put(key(name), {"value": value(name)})


def start_writer(own: str) -> int:
    reader, started = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(own, started)
        finally:
            os._exit(1)
    os.read(reader, 1)
    os.close(reader)
    os.close(started)
    return child


def main(rounds: int) -> None:
    random.seed(0)
    kills = abandoned = hits = wrong = 0
    for _ in range(rounds):
        writers = [start_writer(own) for own in ("first", "second")]
        time.sleep(random.uniform(0.002, 0.03))
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
        for writer in writers:
            kills += os.WTERMSIG(os.waitpid(writer, 0)[1]) == signal.SIGKILL
        cache = Cache(FOLDER)
        abandoned += cache.info().abandoned
        for name in NAMES:
            found = cache.get(key(name))
            hits += found is not None
            wrong += found is not None and not np.array_equal(found["value"], value(name))
    pruned = Cache(FOLDER).prune()
    left = sorted({path.suffix for path in FOLDER.rglob("*") if path.is_file()})
    counts = {"kills": kills, "abandoned": abandoned, "hits": hits, "wrong": wrong, "damaged": pruned.damaged}
    print(json.dumps({**counts, "left": left}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
