"""Which pictures `featkit match` matches with which, as the command line says it. No pairs are listed that need not be:
2,000 pictures have two million."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

from featkit.cli.named import each_once, named_pictures
from featkit.errors import FileMissing, ListMalformed, UsageError
from featkit.local.pairing import DEFAULT_PARTNERS, count_sequential, sequential
from featkit.sources import open_list, read_pairs

AUTO = "auto"
SEQUENTIAL = "sequential"

_SCHEME_HINT = f"--pairs {AUTO} and {AUTO}:K match each picture with those most like it, {SEQUENTIAL}:K with the next K"


@dataclass(frozen=True)
class Selection:
    """pictures: each once, in the order in which the pairs name them. each: gives all pairs, as often as it is called.
    count: how many these are, None while it is not known. distinct: no picture is paired with itself and no two pairs
    join the same two. partners: how many of its likes each picture is to be paired with, once those are known."""

    pictures: list[str]
    each: Callable[[], Iterable[tuple[str, str]]]
    count: int | None
    distinct: bool
    scheme: str | None = None
    partners: int | None = None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.each())

    @property
    def possible(self) -> int:
        """How many pairs all with all would be."""
        return len(self.pictures) * (len(self.pictures) - 1) // 2

    def chosen(self, positions: list[tuple[int, int]]) -> Selection:
        """The same pictures in pairs, by their positions."""

        def each() -> Iterator[tuple[str, str]]:
            return ((self.pictures[a], self.pictures[b]) for a, b in positions)

        return replace(self, each=each, count=len(positions), partners=None)


def is_scheme(pairs: str) -> bool:
    """Whether --pairs says how to choose them, rather than name a list."""
    return pairs.partition(":")[0] in (AUTO, SEQUENTIAL)


def select(pictures: list[str], files_from: str | None, pairs: str | None, *, nul: bool, recursive: bool) -> Selection:
    """The pairs that the user named, one way or another; UsageError or InputError where that cannot be."""
    if pairs is not None and not is_scheme(pairs):
        if pictures or files_from is not None:
            raise UsageError("--pairs names all pictures itself", hint=f"leave the other names out; {_SCHEME_HINT}")
        return _listed(pairs, nul=nul)
    scheme, number = (None, None) if pairs is None else _scheme(pairs)
    paths = _paths(pictures, files_from, nul=nul, recursive=recursive)
    everything = partial(combinations, paths, 2)
    possible = len(paths) * (len(paths) - 1) // 2
    distinct = len(paths) > 2
    if scheme == SEQUENTIAL and number is not None:
        each = partial(sequential, paths, number)
        return Selection(paths, each, count_sequential(len(paths), number), distinct, scheme)
    if scheme == AUTO and number is not None and len(paths) > number + 1:
        return Selection(paths, everything, None, distinct, scheme, partners=number)
    return Selection(paths, everything, possible, distinct, scheme)


def _scheme(text: str) -> tuple[str, int]:
    """ "auto:5" → auto, 5."""
    name, colon, number = text.partition(":")
    if name == AUTO and not colon:
        return AUTO, DEFAULT_PARTNERS
    if not colon:
        raise UsageError(f"--pairs {name} lacks a number", hint=f"for example {name}:3, each with the next three")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise UsageError(f"--pairs {name} takes a whole number, not {number!r}", hint=f"for example {name}:10")
    if int(number) < 1:
        raise UsageError(f"--pairs {text} pairs nothing", hint=f"the number is at least 1, as in {name}:10")
    return name, int(number)


def _listed(name: str, *, nul: bool) -> Selection:
    try:
        with open_list(name) as stream:
            named = read_pairs(stream, nul=nul)
    except FileMissing as error:
        if re.fullmatch(r"[A-Za-z]+(:.*)?", name):  # more likely a word that was meant for a scheme than a file
            raise FileMissing(error.message, path=error.path, hint=_SCHEME_HINT) from None
        raise
    if not named:
        raise ListMalformed("the list of pairs is empty", path=name, hint="give two names a line")
    pictures = list(dict.fromkeys(path for pair in named for path in pair))
    return Selection(pictures, lambda: named, len(named), distinct=False)


def _paths(pictures: list[str], files_from: str | None, *, nul: bool, recursive: bool) -> list[str]:
    paths = named_pictures(pictures, files_from, nul=nul, recursive=recursive)
    if len(paths) > 2:  # two names of one picture are a question: how well does it match itself?
        paths = each_once(paths)
    if len(paths) < 2:
        found = "no picture" if not paths else "only one picture"
        raise UsageError(f"{found} to match, it takes two", hint="featkit match a.jpg b.jpg")
    return paths
