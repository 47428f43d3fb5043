"""What the HDF5 library does not bear, kept from it."""

from __future__ import annotations

import io
from typing import Any


class CarefulFile(io.FileIO):
    """A file that remembers its first error and drops what is written from then on.

    The HDF5 library does not survive a full disk: it keeps what it could not write, and closing the file, or the
    program's end, crashes.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0
