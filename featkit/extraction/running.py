"""From a list of pictures to finished shards: what is there is kept, what is missing is made.

This is one engine, on the threads of one machine. Another one takes the same plan, describes the pictures of a shard
(`Plan.places`) wherever it likes, and hands its table to `shards.write`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from featkit.archives import PictureFiles
from featkit.cache import Cache
from featkit.errors import InputError
from featkit.extraction import shards
from featkit.extraction.describers import Described, Describer
from featkit.extraction.shards import Plan
from featkit.extraction.tables import Table, error_text, joined
from featkit.processors import threads

# A shard is held in memory as it is made, and a killed run loses one: a minute's work of a processor.
_MOST_A_SHARD = 1024
_BYTES_A_SHARD = 64 << 20
# What a picture's ragged features may take: 8,000 keypoints of SIFT are a megabyte.
_BYTES_OF_RAGGED = 1 << 20


@dataclass(frozen=True, eq=False)
class Finished:
    """Pictures that follow one another, from `start` on of all. kept: whether their shard was there before; then the
    table has no values, and seconds is 0."""

    start: int
    described: Described
    kept: bool


def plan_of(files: PictureFiles, describer: Describer, rows: int | None = None) -> Plan:
    """rows: pictures a shard, rounded up to what is made together; None: so many that a shard is not too large."""
    if rows is None:
        a_picture = sum(_BYTES_OF_RAGGED if field.ragged else field.bytes for field in describer.fields)
        rows = max(1, min(_MOST_A_SHARD, _BYTES_A_SHARD // max(1, a_picture)))
    rows = -(-rows // describer.at_once) * describer.at_once
    return Plan(files.paths, describer.fields, describer.config, rows)


def make_shards(
    folder: Path,
    plan: Plan,
    describer: Describer,
    files: PictureFiles,
    indices: Sequence[int],
    *,
    cache: Cache,
    jobs: int,
) -> Generator[Finished, None, None]:
    """The shards of these indices, in their order: those that are there, of the same pictures, as they are; the others
    made and written. The folder is prepared before, and completed afterwards."""
    kept = {index: table for index in indices if (table := _kept(folder, plan, files, index, jobs)) is not None}
    todo = [index for index in indices if index not in kept]
    paths = [path for index in todo for path in _paths(plan, index)]
    with closing(describer(paths, files.read, cache=cache, jobs=jobs)) as described:
        for index in indices:
            places = plan.places(index)
            if index in kept:
                yield Finished(places.start, Described(kept[index], 0.0, True), kept=True)
                continue
            tables: list[Table] = []
            start = places.start
            for each in described:
                tables.append(each.table)
                yield Finished(start, each, kept=False)
                start += len(each.table)
                if start == places.stop:
                    break
            shards.write(folder, plan, index, joined(tables, plan.fields))


def _paths(plan: Plan, index: int) -> tuple[str, ...]:
    places = plan.places(index)
    return plan.paths[places.start : places.stop]


def _kept(folder: Path, plan: Plan, files: PictureFiles, index: int, jobs: int) -> Table | None:
    """What is known of a shard that need not be made: whole, and of pictures that have not changed."""
    table = shards.listed(folder, plan, index)
    if table is None:
        return None
    with ThreadPoolExecutor(threads(jobs), thread_name_prefix="featkit") as pool:
        found = list(pool.map(partial(_digest_or_error, files), table.paths))
    known = [digest or error for digest, error in zip(table.digests, table.errors, strict=True)]
    return table if found == known else None


def _digest_or_error(files: PictureFiles, path: str) -> str:
    try:
        return sha256(files.read(path)).hexdigest()
    except InputError as error:
        return error_text(error)
