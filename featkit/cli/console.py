"""What a command shows: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO, TypeVar

from featkit.errors import FeatkitError, OutputError
from featkit.records import printable, to_json

_Item = TypeVar("_Item")

# What stands in for the few characters of featkit's own texts that an ASCII terminal lacks.
_ASCII = str.maketrans({"·": "-", "±": "+/-", "×": "x"})


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """1 picture, 2 pictures."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def open_closed_streams() -> None:
    """Let /dev/null stand in for an stdout or stderr that is closed (`>&-`): the next file opened would become it."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def _nowhere() -> TextIO:
    return open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)


def silence_stdout() -> None:
    """Send to nowhere what comes after a failure to write; Python would complain once more at its last flush."""
    _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _writing_to_stdout() -> Iterator[None]:
    """Raises BrokenPipeError if the reader has gone, OutputError for a full disk; either way stdout is silent after."""
    try:
        yield
    except OSError as error:
        silence_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"stdout cannot be written: {error.strerror}") from error


def print_line(text: str) -> None:
    """One line of result for people, flushed; what the terminal's encoding lacks is escaped."""
    with _writing_to_stdout():
        print(_encodable(text, sys.stdout), flush=True)


def print_record(record: Mapping[str, object]) -> None:
    """One JSON record, flushed, so that a pipeline sees each as it comes."""
    with _writing_to_stdout():
        print(to_json(record), flush=True)


def copy_to_stdout(path: Path) -> None:
    with path.open("rb") as file, _writing_to_stdout():
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def print_error(error: FeatkitError) -> None:
    place = "" if error.path is None else f"{printable(error.path) or repr(error.path)}: "
    print_note(f"featkit: error: {place}{printable(error.message)}")
    if error.hint:
        print_note(f"hint: {printable(error.hint)}")


def print_warning(message: str) -> None:
    print_note(f"featkit: warning: {printable(message)}")


def print_note(line: str) -> None:
    """One line on stderr; nothing is left to be done if that cannot be written."""
    try:
        print(_encodable(line, sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        # What is left in the buffer would fail again at the interpreter's last flush, and change the exit status.
        _silence(sys.stderr)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def progress_wanted(*, quiet: bool, json: bool) -> bool:
    return sys.stderr.isatty() and not quiet and not json


def with_progress(items: Iterable[_Item], total: int, label: str, *, wanted: bool) -> Iterator[_Item]:
    """Pass items through, with a bar on stderr if `wanted`; lines printed meanwhile appear above it."""
    with stages(wanted=wanted and total > 1) as show:
        show(label, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            show(label, done, total)


#: Shows how far a run is: the name of a stage, how much of it is done, and of how much.
Stages = Callable[[str, int, int], None]


@contextlib.contextmanager
def stages(*, wanted: bool) -> Iterator[Stages]:
    """A bar on stderr for a run of several stages, one after the other; lines printed meanwhile appear above it."""
    if not wanted:
        yield lambda label, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=console.is_dumb_terminal,
        redirect_stdout=sys.stdout.isatty(),  # rich would send to stderr even what goes to a file
    ) as bar:
        current, task = None, None

        def show(label: str, done: int, total: int) -> None:
            nonlocal current, task
            if task is None or label != current:
                if task is not None:
                    bar.remove_task(task)
                current, task = label, bar.add_task(label, total=total)
            bar.update(task, completed=done, total=total)

        yield show
