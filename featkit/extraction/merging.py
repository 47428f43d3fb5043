"""Shards that the jobs of an array made in several folders, joined to one folder or to one file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from featkit.errors import InputError, UsageError
from featkit.extraction import formats, shards
from featkit.extraction.shards import Outline
from featkit.extraction.tables import Table

_MOST_NAMED = 5


@dataclass(frozen=True)
class Merged:
    """What was joined: so many shards, of so many pictures, of which some failed."""

    shards: int
    pictures: int
    failed: int


def merge(
    sources: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    format: str | None = None,
    unbroken: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Merged:
    """Join folders of shards of one run to one complete folder, which may be one of them, or to one file.

    A shard may be in several folders if it is the same in all. Nothing but names and sizes is looked at before all
    shards are known to be there. force, format, unbroken: as of `formats.write`.

    Raises UsageError for no folders, and for a format that there is not, or that does not hold these features;
    InputError for a folder without shards, for shards of different runs, that are missing, damaged or not the same; and
    OutputExists and OutputError for the target.
    """
    folders = [Path(source) for source in sources]
    outline = _common(folders)
    paths = _find(folders, outline)
    merging = _Merging(outline, paths)
    if formats.format_of(target, format) == formats.FOLDER:
        _into_folder(merging, Path(target), force and not _is_among(Path(target), folders))
    else:
        heading = outline.heading
        tables = (table for _, table in merging)
        formats.write(
            target,
            tables,
            heading.fields,
            heading.config,
            heading.count,
            force=force,
            format=format,
            unbroken=unbroken,
        )
    return Merged(outline.shards, outline.heading.count, merging.failed)


def _common(folders: Sequence[Path]) -> Outline:
    """What all these have in common."""
    if not folders:
        raise UsageError("there are no folders of shards to merge", hint="name those that featkit extract wrote")
    first, *others = (shards.read_manifest(folder).outline for folder in folders)
    for folder, outline in zip(folders[1:], others, strict=True):
        difference = shards.difference_of(first, outline)
        if difference is not None:
            message = f"its shards are of another run than those of {folders[0]}: {difference}"
            raise InputError(message, path=str(folder), hint="merge what one command with --shard wrote")
    return first


def _find(folders: Sequence[Path], outline: Outline) -> list[Path]:
    """The file of each shard."""
    names = map(shards.name_of, range(outline.shards))
    found = [[folder / name for folder in folders if (folder / name).exists()] for name in names]
    missing = [index for index, paths in enumerate(found) if not paths]
    if missing:
        named = ", ".join(map(str, missing[:_MOST_NAMED]))
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        message = f"of {outline.shards} shards, numbered from 0, some are in none of the folders: {named}{more}"
        hint = "run the jobs that make them again; what is done is not done anew"
        raise InputError(message, path=str(folders[0]) if len(folders) == 1 else None, hint=hint)
    for first, *others in found:
        for other in others:
            if not _same(first, other):
                hint = "remove the one that is damaged or older, and make it again"
                raise InputError(f"it is not the same as {other}", path=str(first), hint=hint)
    return [paths[0] for paths in found]


def _same(path: Path, other: Path) -> bool:
    return path.samefile(other) or shards.bytes_of(path) == shards.bytes_of(other)


class _Merging:
    """The shards, one after the other: the bytes of each, and its table. failed: pictures among those so far.

    Raises InputError for one that is not whole, or not of this run, and at the end where the paths are not.
    """

    def __init__(self, outline: Outline, paths: Sequence[Path]) -> None:
        self.outline, self.paths = outline, paths
        self.failed = 0

    def __iter__(self) -> Iterator[tuple[bytes, Table]]:
        digest = sha256()
        for index, path in enumerate(self.paths):
            data = shards.bytes_of(path)
            table = shards.read_part(BytesIO(data), str(path), self.outline, index, self.outline.heading.fields)
            self.failed += sum(error != "" for error in table.errors)
            shards.add_paths(digest, table.paths)
            yield data, table
        if digest.hexdigest() != self.outline.paths_sha256:
            message = "the shards are of other pictures than their manifest declares"
            raise InputError(message, path=str(self.paths[0].parent), hint="make them again with featkit extract")


def _into_folder(merging: _Merging, target: Path, force: bool) -> None:
    shards.prepare_outline(target, merging.outline, force=force)
    shards.reopen(target, merging.outline)
    for index, (data, _) in enumerate(merging):
        if merging.paths[index].parent.resolve() != target.resolve():
            shards.put(target, index, data)
    shards.complete_outline(target, merging.outline)


def _is_among(target: Path, folders: Sequence[Path]) -> bool:
    return target.resolve() in [folder.resolve() for folder in folders]
