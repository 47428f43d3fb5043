"""Large arrays of one row a picture: in memory, or on the disk where all together would take too much of it."""

from __future__ import annotations

import errno
import math
import os
import tempfile
import weakref

import numpy as np
import numpy.typing as npt

from featkit.errors import OutputError

Floats = npt.NDArray[np.float32]

# Of all arrays at a time. 50,000 pictures of CIFAR-10 and 3,000 landmarks take 600 MB, which is read some fifty times.
IN_MEMORY_BYTES = 900 << 20

_in_memory: dict[int, int] = {}


def allocate(shape: tuple[int, int]) -> Floats:
    """float32 of this shape, not initialised. What would make the arrays that are in use larger than IN_MEMORY_BYTES is
    memory-mapped, in a temporary file without a name, which goes with the array, or with the process however that ends.

    Raises OutputError where the disk has no room for it.
    """
    size = 4 * math.prod(shape)
    if sum(_in_memory.values()) + size <= IN_MEMORY_BYTES:
        return _counted(np.empty(shape, np.float32))
    with tempfile.TemporaryFile(prefix="featkit-") as file:
        _reserve(file.fileno(), size)
        return np.memmap(file, np.float32, "w+", shape=shape)


def _counted(array: Floats) -> Floats:
    """In use is what is referred to: views of it do."""
    _in_memory[id(array)] = array.nbytes
    weakref.finalize(array, _in_memory.pop, id(array))
    return array


def _reserve(descriptor: int, size: int) -> None:
    """A mapped page that the disk has no room for would end the process without a word."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, max(size, 1))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return  # a file system that cannot promise it
        raise OutputError(
            f"the disk has no room for {size / 1e6:,.0f} MB of features",
            path=tempfile.gettempdir(),
            hint="free some space there, or name another folder: TMPDIR=/large featkit …",
        ) from error
