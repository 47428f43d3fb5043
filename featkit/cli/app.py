"""The command line as a whole: its subcommands, and how every run ends."""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from typing import Any

import typer

from featkit import __version__
from featkit.cli import backbones, cache, classify, evaluate, extract, match, predict, probe, stitch
from featkit.cli.console import (
    open_closed_streams,
    print_error,
    print_line,
    print_note,
    print_record,
    print_warning,
    silence_stdout,
)
from featkit.cli.interrupts import Ended, raise_on_signals
from featkit.errors import FeatkitError, OutputError, UsageError
from featkit.records import error_record

INTERRUPTED = 130

app = typer.Typer(
    name="featkit",
    help="Image features, classical and deep.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("match", short_help="Find what corresponds in pictures.")(match.command)
app.command("stitch", short_help="Make one picture of many that overlap.")(stitch.command)
app.command("classify", short_help="Learn to label pictures, and test it.")(classify.command)
app.command("extract", short_help="Make vectors of pictures, by a network or without.")(extract.command)
app.command("probe", short_help="Learn from what a network sees, and test each layer.")(probe.command)
app.command("predict", short_help="Label pictures with a model.")(predict.command)
app.command("evaluate", short_help="Test a model on labelled pictures.")(evaluate.command)
app.command("backbones", short_help="List networks, and what is in them.")(backbones.command)
app.add_typer(cache.app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"featkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Image features, classical and deep: find what corresponds in pictures, join what overlaps, learn what is what."""


def run(arguments: list[str]) -> int:
    """Parse and carry out a command line; returns the exit status. No traceback is printed without --debug."""
    debug, json = "--debug" in arguments, "--json" in arguments
    open_closed_streams()
    raise_on_signals()
    warnings.showwarning = _show_warning
    # featkit's own warnings are shown whatever -W says; those of libraries obey it.
    warnings.filterwarnings("default", category=UserWarning, module="featkit")
    try:
        return _invoke(arguments)
    except FeatkitError as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        if json:
            with contextlib.suppress(OSError, FeatkitError):
                print_record(error_record(error))
        return error.exit_status
    except (KeyboardInterrupt, Ended) as end:
        if isinstance(end, KeyboardInterrupt):
            print_note("featkit: interrupted")
        # At once: the interpreter would wait for threads that are still at work.
        os._exit(end.status if isinstance(end, Ended) else INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has all it wanted, as in `| head -1`.
        silence_stdout()
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        silence_stdout()
        print_error(OutputError(error.strerror or str(error), path=error.filename))
        return OutputError.exit_status
    except Exception as error:
        if debug:
            raise
        print_error(_unforeseen(error))
        return FeatkitError.exit_status


def _unforeseen(error: Exception) -> FeatkitError:
    if isinstance(error, MemoryError) or "Insufficient memory" in str(error):  # so OpenCV says it
        return FeatkitError(
            "out of memory",
            hint="try --jobs 1, and smaller pictures (match --max-side 2000, stitch --scale 0.5, classify --size 64)",
        )
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    return FeatkitError(f"a defect in featkit ({summary})", hint="run again with --debug and report what it prints")


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    if "_FEATKIT_COMPLETE" in os.environ:
        command.main(prog_name="featkit")  # the shell asks for completions
    try:
        # Not command.main(), which turns an interrupt and a closed pipe into exit statuses of its own.
        with command.make_context("featkit", arguments or ["--help"]) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        failed = getattr(error, "ctx", None)
        where = " ".join(["featkit", *arguments[:1]]) if failed is None else failed.command_path
        message = error.format_message().rstrip(".")
        raise UsageError(message[:1].lower() + message[1:], hint=f"see `{where} --help`") from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """featkit's own warnings are for the user; those of libraries are for their developers."""
    if category.__module__.startswith("featkit"):
        print_warning(str(message))
