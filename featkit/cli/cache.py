"""`featkit cache`: look at the cache and clean it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from featkit.cli.console import counted, print_line, print_record
from featkit.cli.options import Debug, Json

if TYPE_CHECKING:
    from featkit.cache import Pruned

app = typer.Typer(help="Look at the cache of computed features, or clean it.")


@app.command("info")
def info(json: Json = False, debug: Debug = False) -> None:
    """Where the cache is, what it holds, and its limit."""
    from featkit.cache import open_cache
    from featkit.records import printable, record

    found = open_cache().info()
    folder = None if found.folder is None else str(found.folder)
    if json:
        print_record(
            record(
                "cache",
                folder=folder,
                entries=found.entries,
                bytes=found.bytes,
                limit_bytes=found.limit_bytes,
                abandoned=found.abandoned,
            )
        )
    elif folder is None:
        print_line("the cache is off (FEATKIT_CACHE)")
    else:
        print_line(
            f"{printable(folder)}: {counted(found.entries, 'entry', 'entries')}, {_size(found.bytes)} of "
            f"{_size(found.limit_bytes)}, {found.abandoned} unfinished"
        )


@app.command("prune")
def prune(
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Keep at most this much, as 500M or 2G.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove unfinished and damaged entries, and the least recently used beyond the limit."""
    from featkit.cache import open_cache, parse_size

    limit = None if max_size is None else parse_size(max_size, "--max-size")
    _report("pruned", open_cache().prune(limit), json)


@app.command("clear")
def clear(json: Json = False, debug: Debug = False) -> None:
    """Remove every entry."""
    from featkit.cache import open_cache

    _report("cleared", open_cache().clear(), json)


def _report(done: str, removed: Pruned, json: bool) -> None:
    from featkit.records import record

    if json:
        print_record(
            record(
                "cache-cleaned",
                done=done,
                entries=removed.entries,
                bytes=removed.bytes,
                abandoned=removed.abandoned,
                damaged=removed.damaged,
            )
        )
    else:
        print_line(
            f"{done}: {counted(removed.entries, 'entry', 'entries')}, {removed.abandoned} unfinished, "
            f"{removed.damaged} damaged; {_size(removed.bytes)} freed"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
