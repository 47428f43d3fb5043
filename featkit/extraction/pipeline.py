"""Features of many pictures: into memory, into a folder of shards, or into one file.

To a folder or file it goes in three steps: `begin`, `make`, `finish`. A run that was killed in any of them goes on when
it is begun again, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featkit.archives import PictureFiles
from featkit.cache import Cache, open_cache
from featkit.configs import given
from featkit.errors import UsageError
from featkit.extraction import formats, merging, shards
from featkit.extraction.config import ExtractConfig
from featkit.extraction.describers import Describer, describer
from featkit.extraction.running import Finished, make_shards, plan_of
from featkit.extraction.shards import Plan
from featkit.extraction.tables import Table, joined
from featkit.processors import threads
from featkit.records import TEMPORARY, check_writable

#: What is added to a file's name, for the folder where its shards are until all are there.
PARTS = ".parts"
# What the file is called there until it is whole.
_WHOLE = "whole"


@dataclass(frozen=True)
class Job:
    """One of an array: the `number`-th of `jobs`, from 1. It makes every jobs-th shard."""

    number: int = 1
    jobs: int = 1


@dataclass(frozen=True)
class Output:
    """Where features go. path: a file or a folder. format: one of `formats.FORMATS`, None: as the path says. rows:
    pictures a shard, None: as many as go well. force: what is there may be overwritten, or begun anew."""

    path: str
    format: str | None = None
    rows: int | None = None
    job: Job = Job()
    force: bool = False

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise UsageError("--shard-size must be at least 1", hint="leave it out for what goes well")
        if self.job.jobs > 1 and not self.is_folder:
            raise UsageError(
                "--shard writes a folder of shards, and not one file",
                path=self.path,
                hint="name a folder with -o; featkit extract --merge FOLDER -o FILE makes a file of it",
            )
        if self.job.jobs > 1 and self.force:
            raise UsageError(
                "--force would remove what the other jobs of --shard have made",
                path=self.path,
                hint="remove the folder before the first of them begins",
            )

    @property
    def is_folder(self) -> bool:
        return formats.format_of(self.path, self.format) == formats.FOLDER

    @property
    def folder(self) -> Path:
        """Where the shards are."""
        return Path(self.path) if self.is_folder else Path(self.path + PARTS)


def extract(
    pictures: Sequence[str | os.PathLike[str]],
    config: ExtractConfig | None = None,
    *,
    cache: Cache | None = None,
    jobs: int | None = None,
    **options: Any,
) -> Table:
    """The features of pictures, in memory; those that cannot be read have an error.

        vectors = featkit.extract(["a.jpg", "b.jpg"], features="hog").values["hog"]

    pictures: files, and tar archives of some. config: or its fields as keywords. cache: None for the user's own. jobs:
    threads, None for one a processor. Raises what `describers.describer` raises, and InputError for an archive
    that cannot be read.
    """
    chosen = given(config, ExtractConfig, options)
    files = PictureFiles([os.fspath(picture) for picture in pictures])
    used, workers = open_cache() if cache is None else cache, threads(jobs)
    made = describer(chosen, count=len(files.paths), cache=used, jobs=workers)
    described = made(files.paths, files.read, cache=used, jobs=workers)
    return joined((each.table for each in described), made.fields)


def check_place(output: Output) -> None:
    """Refuse what could not be written, as far as that shows before the features are known: a network may have to be
    downloaded to know them. Raises UsageError, OutputExists and OutputError."""
    if not output.is_folder:
        check_writable(output.path, force=_may_overwrite(output))
    elif not output.folder.is_dir():
        check_writable(output.folder)


def check_output(output: Output, describer: Describer) -> None:
    """Raises UsageError, OutputExists and OutputError for a file that could not be written."""
    if not output.is_folder:
        formats.check_output(output.path, describer.fields, force=_may_overwrite(output), format=output.format)


def _may_overwrite(output: Output) -> bool:
    # One that is to be finished was begun with the consent to overwrite what is there.
    return output.force or output.folder.is_dir()


def begin(output: Output, files: PictureFiles, describer: Describer) -> Plan:
    """Make the folder of the shards, or find what an earlier run has left there, to go on with.

    Raises OutputExists where what is there is of another run, and what `check_output` raises.
    """
    check_output(output, describer)
    plan = plan_of(files, describer, output.rows)
    shards.prepare(output.folder, plan, force=output.force)
    return plan


def make(
    output: Output, plan: Plan, files: PictureFiles, describer: Describer, *, cache: Cache, jobs: int
) -> Generator[Finished, None, None]:
    """The shards of this job, made or found as they are."""
    mine = shards.mine(plan.shards, output.job.number, output.job.jobs)
    yield from make_shards(output.folder, plan, describer, files, mine, cache=cache, jobs=jobs)


def finish(
    output: Output, plan: Plan, *, unbroken: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
) -> bool:
    """Complete the folder, if all shards are there, or make the file of them. Returns whether all were there.

    unbroken: as of `formats.write`. A file that was there is overwritten: `begin` has asked.
    """
    if not shards.complete(output.folder, plan):
        return False
    if not output.is_folder:
        found, target = formats.format_of(output.path, output.format), Path(output.path)
        # What a killed run leaves half-written is removed with the shards; beside the file, nobody would know it. Where
        # a link leads to may be another disk.
        whole = target if target.is_symlink() else output.folder / f"{_WHOLE}.{found}"
        merging.merge([output.folder], whole, force=True, format=found, unbroken=unbroken)
        if whole != target:
            formats.move(whole, target, format=found)
        _remove(output.folder)
    return True


def _remove(folder: Path) -> None:
    """The shards of a file that is whole; what is not ours stays."""
    # The manifest last: until then, a run that is killed here is known for what it is.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == shards.MANIFEST):
        if path.name == shards.MANIFEST or shards.is_shard(path.name) or path.name.startswith(TEMPORARY):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
