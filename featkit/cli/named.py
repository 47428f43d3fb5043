"""Which pictures the command line names: as arguments, in folders and globs, in a list."""

from __future__ import annotations

import os

from featkit.cli.console import counted, print_warning
from featkit.errors import UsageError
from featkit.sources import expand, open_list, read_list


def named_pictures(pictures: list[str], files_from: str | None, *, nul: bool, recursive: bool) -> list[str]:
    """The pictures, in the order in which they are named; `-` among them is a list on stdin, `files_from` one in a
    file. Raises UsageError and InputError where that cannot be."""
    if "-" in pictures:
        if len(pictures) > 1 or files_from is not None:
            raise UsageError("- means that all names come on stdin", hint="leave the other names out")
        pictures, files_from = [], "-"
    if files_from is not None:
        with open_list(files_from) as stream:
            pictures = [*pictures, *read_list(stream, nul=nul)]
    return expand(pictures, recursive=recursive)


def each_once(paths: list[str]) -> list[str]:
    """Without the names of what was named before, as photos/a.jpg in `photos photos/*.jpg`."""
    once: dict[str, str] = {}
    for path in paths:
        once.setdefault(os.path.abspath(path), path)  # noqa: PTH100
    if len(once) < len(paths):
        print_warning(f"{counted(len(paths) - len(once), 'picture')} named more than once: each is taken once")
    return list(once.values())
