"""What the user pointed at: files, folders, globs, and lists of pictures or pairs.

Names are bytes to the system and `str` here, by `os.fsdecode`: a name that is not UTF-8 survives as surrogates.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from featkit.errors import FileMissing, FileUnreadable, InputError, ListMalformed, NotAFile

PICTURE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)


# --- names


def expand(names: Sequence[str], *, recursive: bool = False) -> list[str]:
    """The pictures behind `names`, in the order given.

    A folder stands for the files in it that have a picture's extension (`PICTURE_EXTENSIONS`), in natural order
    (img2 before img10), without hidden ones; with `recursive` also for those of its sub-folders, after its own. A name
    with *, ? or [ that names nothing itself is a glob (`**` reaches any depth), its matches in natural order. Every
    other name is kept as it is, and the decoder says if it is missing.
    Raises InputError for a folder or a glob that yields no picture, FileUnreadable for a folder that cannot be listed.
    """
    found: list[str] = []
    for name in names:
        if os.path.isdir(name):  # noqa: PTH112 - Path("") is the current folder
            found += _pictures_in(name, recursive=recursive) or _refuse_folder(name, recursive=recursive)
        elif glob.has_magic(name) and not os.path.lexists(name):
            found += _matches(name, recursive=recursive)
        else:
            found.append(name)
    return found


def _matches(pattern: str, *, recursive: bool) -> list[str]:
    found: list[str] = []
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path drops a leading ./
    for match in sorted(matches, key=natural_key):
        found += _pictures_in(match, recursive=recursive) if Path(match).is_dir() else [match]
    if not found:
        raise InputError("no file matches this pattern", path=pattern)
    return found


def _pictures_in(folder: str, *, recursive: bool) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=_entry_key)
    except OSError as error:
        raise FileUnreadable(f"the folder cannot be listed: {error.strerror}", path=folder) from error
    # A link that leads nowhere is named, too: whoever reads it says so.
    found = [
        entry.path for entry in entries if Path(entry.name).suffix.lower() in PICTURE_EXTENSIONS and not entry.is_dir()
    ]
    if recursive:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):  # a link may lead back up
                found += _pictures_in(entry.path, recursive=True)
    return found


def _refuse_folder(folder: str, *, recursive: bool) -> list[str]:
    hint = f"pictures are known by their extension: {' '.join(sorted(PICTURE_EXTENSIONS))}"
    if not recursive and any(child.is_dir() for child in Path(folder).iterdir()):
        hint = "it has sub-folders: name one of them, or look into all of them with --recursive"
    raise InputError("there is no picture in this folder", path=folder, hint=hint)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts img2 before img10 and B after a; names that differ in nothing else keep the order of their characters."""
    parts = re.split(r"0*([0-9]+)", name.casefold())
    # A number is compared by its length, then by its digits; text stands before any number.
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)], name


def _entry_key(entry: os.DirEntry[str]) -> tuple[list[tuple[int, str]], str]:
    return natural_key(entry.name)


# --- lists


def read_list(stream: BinaryIO, *, nul: bool = False) -> list[str]:
    """Names, one a line; blank lines are skipped, and CR LF is accepted. With `nul`, names end with NUL instead
    (`find -print0`) and may hold anything else. Spaces belong to a name.

    Raises ListMalformed for bytes that such a list cannot hold.
    """
    return [os.fsdecode(item) for _, item in _items(stream, nul=nul)]


def read_pairs(stream: BinaryIO, *, nul: bool = False) -> list[tuple[str, str]]:
    """Pairs of names, one pair a line: separated by one tab, or in a line without a tab by one space. Blank lines and
    those that begin with # are skipped. With `nul`, every name ends with NUL, and each two in a row are a pair.

    Raises ListMalformed, which names the line.
    """
    items = list(_items(stream, nul=nul))
    if nul:
        if len(items) % 2:
            raise ListMalformed(
                f"the last name has no partner: there are {len(items)} names", hint="names are taken two by two"
            )
        names = [os.fsdecode(item) for _, item in items]
        return list(zip(names[::2], names[1::2], strict=True))
    return [_pair(number, line) for number, line in items if not line.startswith(b"#")]


def _pair(number: int, line: bytes) -> tuple[str, str]:
    names = line.split(b"\t" if b"\t" in line else b" ")
    if len(names) != 2 or not all(name.strip() for name in names):
        raise ListMalformed(
            f"line {number} is not a pair of names: {os.fsdecode(line[:80])!r}",
            hint="separate two names by one tab; by one space if neither name holds a space",
        )
    return os.fsdecode(names[0]), os.fsdecode(names[1])


def _items(stream: BinaryIO, *, nul: bool) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, content) of every item that is not blank."""
    try:
        data = stream.read()
    except OSError as error:
        raise FileUnreadable(f"the list cannot be read: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ListMalformed("the list is in UTF-16", hint="save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if nul:
        if b"\0" not in data and b"\n" in data:
            raise ListMalformed("the list has lines and no NUL", hint="leave out -0, or use find -print0")
        for number, item in enumerate(data.split(b"\0"), 1):
            if item:
                yield number, item
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if b"\0" in line:
            raise ListMalformed(f"line {number} holds a NUL", hint="a list whose names end with NUL is read with -0")
        line = line.removesuffix(b"\r")
        if line.strip():
            yield number, line


@contextlib.contextmanager
def open_list(name: str) -> Iterator[BinaryIO]:
    """The bytes of a list: standard input for "-", else a file; a FIFO is welcome, as in `--files-from <(find …)`.

    Raises FileMissing, NotAFile (a folder) or FileUnreadable.
    """
    if name == "-":
        if sys.stdin is None:
            raise FileUnreadable("standard input is closed", path=name)
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb")  # noqa: PTH123, SIM115 - closed below; what the caller raises is not about it
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise FileMissing("there is no such list", path=name) from error
    except IsADirectoryError as error:
        raise NotAFile("this is a folder, not a list", path=name) from error
    except OSError as error:
        hint = "its permissions do not let you read it" if error.errno in (errno.EACCES, errno.EPERM) else None
        raise FileUnreadable(f"the list cannot be read: {error.strerror}", path=name, hint=hint) from error
    with stream:
        yield stream
