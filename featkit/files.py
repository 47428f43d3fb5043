"""Files that are read: opened without ever waiting for one, with an error that says what is wrong with each."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from featkit.errors import FileMissing, FileUnreadable, NotAFile

_NO_SUCH_PATH = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """A file to read bytes of. what: it should be, for messages: "picture", "model".

    Raises FileMissing, NotAFile (a folder, FIFO, socket or device; never waits for one) and FileUnreadable, the last
    also for what goes wrong, or takes more memory than there is, while it is read.
    """
    name = os.fspath(path)
    try:
        try:
            mode = os.stat(name).st_mode  # noqa: PTH116 - Path("") is the current folder
        except ValueError as error:  # a NUL inside the name
            raise FileMissing("there is no such file", path=name) from error
        _refuse_what_is_no_file(mode, name, what)
        # The path may have become a FIFO since: opening does not wait for a writer, and the check is repeated.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(name, flags), "rb") as file:  # noqa: PTH123
            _refuse_what_is_no_file(os.fstat(file.fileno()).st_mode, name, what)
            yield file
    except OSError as error:
        if error.errno in _NO_SUCH_PATH:
            raise FileMissing("there is no such file", path=name) from error
        hint = "its permissions do not let you read it" if error.errno in (errno.EACCES, errno.EPERM) else None
        raise FileUnreadable(f"it cannot be read: {error.strerror}", path=name, hint=hint) from error
    except MemoryError as error:
        raise FileUnreadable("it is larger than the memory", path=name) from error


def _refuse_what_is_no_file(mode: int, name: str, what: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise NotAFile(f"this is a folder, not a {what}", path=name)
    kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise NotAFile(f"this is {kind}, not a file", path=name, hint=f"write the {what} to a file first")
