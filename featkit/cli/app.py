"""The command line as a whole: its subcommands, and how every run ends."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Any, NoReturn

import typer

from featkit import __version__
from featkit.cli import cache, match
from featkit.cli.console import print_error, print_warning
from featkit.errors import FeatkitError, UsageError

INTERRUPTED = 130

app = typer.Typer(
    name="featkit",
    help="Image features, classical and deep.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("match")(match.command)
app.add_typer(cache.app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"featkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Image features, classical and deep: find what corresponds in pictures."""


def run(arguments: list[str]) -> int:
    """Parse and carry out a command line; returns the exit status. No traceback is printed without --debug."""
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    warnings.simplefilter("default")
    try:
        status = _invoke(arguments)
        sys.stdout.flush()
        return status
    except FeatkitError as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        return error.exit_status
    except KeyboardInterrupt:
        print("featkit: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has all it wanted. Python would complain once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print_error(FeatkitError("out of memory", hint="try --max-side 2000, or --jobs 1"))
        return FeatkitError.exit_status
    except Exception as error:
        if debug:
            raise
        summary = f"{type(error).__name__}: {error}".splitlines()[0]
        print_error(
            FeatkitError(f"a defect in featkit ({summary})", hint="run again with --debug and report what it prints")
        )
        return FeatkitError.exit_status


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        outcome = command.main(arguments or ["--help"], prog_name="featkit", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = "featkit" if context is None else context.command_path
        raise UsageError(error.format_message().rstrip("."), hint=f"see `{where} --help`") from None
    return outcome if isinstance(outcome, int) else 0


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that half-written files are removed on the way out.
    raise SystemExit(128 + signum)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """featkit's own warnings are for the user; those of libraries are for their developers."""
    if category.__module__.startswith("featkit"):
        print_warning(str(message))
