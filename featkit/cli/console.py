"""What a command shows: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from featkit.errors import FeatkitError
from featkit.records import to_json

_Item = TypeVar("_Item")


def printable(text: str) -> str:
    """A file name or message fit for one line of a terminal: control characters and undecodable bytes escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def print_line(text: str) -> None:
    """One line of result for people; what the terminal's encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def print_record(record: Mapping[str, object]) -> None:
    """One JSON record, flushed, so that a pipeline sees each as it comes."""
    print(to_json(record), flush=True)


def print_error(error: FeatkitError) -> None:
    place = "" if error.path is None else f"{printable(error.path)}: "
    _to_stderr(f"featkit: error: {place}{printable(error.message)}")
    if error.hint:
        _to_stderr(f"hint: {printable(error.hint)}")


def print_warning(message: str) -> None:
    _to_stderr(f"featkit: warning: {printable(message)}")


def print_note(message: str, *, quiet: bool) -> None:
    if not quiet:
        _to_stderr(message)


def _to_stderr(line: str) -> None:
    encoding = sys.stderr.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def progress_wanted(*, quiet: bool, json: bool) -> bool:
    return sys.stderr.isatty() and not quiet and not json


def with_progress(items: Iterable[_Item], total: int, label: str, *, wanted: bool) -> Iterator[_Item]:
    """Pass items through, with a bar on stderr if `wanted`."""
    if not wanted or total < 2:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task)
