"""Features of many pictures as a folder: shards of some pictures each, in their order, and a manifest.

    part-00000.parquet …    the pictures from 0 on, from `rows` on, and so forth; see parquet_file.py. Their metadata
                            have, as `featkit.shard`, the fingerprint of the plan and the number of the part
    manifest.json           v, type, config, fields, pictures, rows (a shard), paths_sha256, fingerprint, and once all
                            shards are there complete (true) and shards [{file, rows, failed, sha256}]

A run prepares the folder, makes the shards that are not there, and completes it. Each file appears whole or not at all,
and says by its fingerprint what it is part of: a run that was killed goes on from there, several may share a folder
(`mine`), and their bytes depend on the plan and the pictures alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from featkit.errors import FileMissing, InputError, OutputError, OutputExists, UsageError
from featkit.extraction import parquet_file
from featkit.extraction.headings import (
    Heading,
    canonical,
    damaged,
    document_of,
    foreign,
    from_json,
    heading_of,
    told,
    whole_number,
)
from featkit.extraction.tables import Field, Table, check_fields
from featkit.files import opened
from featkit.records import check_writable, replacing

if TYPE_CHECKING:
    import hashlib

try:
    import fcntl
except ImportError:  # Windows, where a file that is held open cannot be deleted.
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"

_MARK = "featkit.shard"
_PART = re.compile(r"part-[0-9]{5,18}\.parquet")
_TEMPORARY = re.compile(r"\.featkit-[0-9a-f]{12}\.(parquet|json)")
_LONGEST_MANIFEST = 1 << 30
# In messages: where a manifest differs, and what is shown of a value.
_WORDS = {"config": "", "fields": "its list of features", "rows": "its pictures a shard", "pictures": "its pictures"}
_LONGEST_SHOWN = 100
_ABSENT = object()


@dataclass(frozen=True)
class Outline:
    """What the shards of a run have in common, and what a manifest tells of it.

    heading: of all pictures. rows: pictures a shard. paths_sha256: of the list of their paths (`digest_of_paths`).
    """

    heading: Heading
    rows: int
    paths_sha256: str

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.heading.count // self.rows)

    def places(self, index: int) -> range:
        """The pictures in a shard."""
        return range(index * self.rows, min((index + 1) * self.rows, self.heading.count))

    @cached_property
    def document(self) -> dict[str, Any]:
        """What a manifest holds before the shards are there."""
        said = {**document_of(self.heading), "rows": self.rows, "paths_sha256": self.paths_sha256}
        return {**said, "fingerprint": sha256(canonical(said).encode()).hexdigest()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all this, hexadecimal."""
        return str(self.document["fingerprint"])


@dataclass(frozen=True)
class Plan:
    """What a run is to make.

    paths: of all pictures, in their order, whoever makes them. config: what makes the features, as JSON holds it:
    whatever is another when they are. rows: pictures a shard.

    Raises ValueError for a config that JSON cannot hold, for fields that do not go together, and for less than one row.
    """

    paths: tuple[str, ...]
    fields: tuple[Field, ...]
    config: Mapping[str, Any]
    rows: int

    def __post_init__(self) -> None:
        check_fields(self.fields)
        if self.rows < 1:
            raise ValueError("a shard has one picture or more")

    @cached_property
    def outline(self) -> Outline:
        # As it comes out of JSON: with lists for tuples.
        config = json.loads(canonical(self.config))
        return Outline(Heading(self.fields, config, len(self.paths)), self.rows, digest_of_paths(self.paths))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all this, hexadecimal."""
        return self.outline.fingerprint

    @property
    def shards(self) -> int:
        """How many there are."""
        return self.outline.shards

    def places(self, index: int) -> range:
        """The pictures in a shard, as indices of `paths`."""
        return self.outline.places(index)


def digest_of_paths(paths: Iterable[str]) -> str:
    """SHA-256 of a list of paths, hexadecimal."""
    digest = sha256()
    add_paths(digest, paths)
    return digest.hexdigest()


def add_paths(digest: hashlib._Hash, paths: Iterable[str]) -> None:
    """Let a list of paths go on, in what becomes its digest."""
    for path in paths:
        digest.update(json.dumps(path).encode() + b"\n")


def mine(count: int, number: int, jobs: int) -> range:
    """The shards, of `count`, that job `number` of so many makes (`--shard number/jobs`, from 1 on): every jobs-th.

    Raises UsageError where there is no such job.
    """
    if not 1 <= number <= jobs:
        raise UsageError(f"there is no job {number} of {jobs}", hint="--shard 3/8 is the third of eight")
    return range(number - 1, count, jobs)


def is_shard(name: str) -> bool:
    """Whether the file of a shard is called so."""
    return _PART.fullmatch(name) is not None


def name_of(index: int) -> str:
    """What the file of a shard is called."""
    return f"part-{index:05d}.parquet"


# --- a folder, and what it says of itself


@dataclass(frozen=True)
class Shard:
    """What a manifest says of one: its `rows`, how many of them `failed`, and the SHA-256 of its file."""

    file: str
    rows: int
    failed: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """shards: None while they are not all there."""

    outline: Outline
    shards: tuple[Shard, ...] | None


def prepare(folder: str | os.PathLike[str], plan: Plan, *, force: bool = False) -> None:
    """Make a folder for these shards, or see that what is in it is of the same plan, and to be continued.

    What killed runs have left half-written is removed. force: so are shards and manifest, whatever their plan; other
    files never are.

    Raises OutputExists for a folder that holds something else, or shards of another plan, and says what differs; and
    OutputError for a folder that cannot be made or written to.
    """
    prepare_outline(Path(folder), plan.outline, force=force)


def prepare_outline(folder: Path, outline: Outline, *, force: bool) -> None:
    """`prepare`, for shards that are there already."""
    if not folder.is_dir():
        check_writable(folder)
    with _changing(folder):
        folder.mkdir(exist_ok=True)
    check_writable(folder / MANIFEST, force=True)
    with _changing(folder):
        names = sorted(path.name for path in folder.iterdir())
    ours = [name for name in names if _PART.fullmatch(name) or name == MANIFEST]
    others = [name for name in names if name not in ours and not name.startswith(".")]
    if MANIFEST not in ours and others:
        hint = "name another folder, or one that is not there yet"
        raise OutputExists(f"the folder holds something else: {others[0]}", path=str(folder), hint=hint)
    _sweep(folder, names)
    difference = _difference(folder, outline) if ours else ""
    if difference is None and not force:
        return
    if difference and not force:
        hint = "name another folder with -o, or begin anew with --force"
        raise OutputExists(f"the shards there are of another run: {difference}", path=str(folder), hint=hint)
    with _changing(folder):
        # The manifest last: until then, the folder is known for what it is.
        for name in sorted(ours, key=MANIFEST.__eq__):
            (folder / name).unlink(missing_ok=True)
    _write_manifest(folder, outline, None)


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"it cannot be written to: {error.strerror}", path=str(folder)) from error


def _difference(folder: Path, outline: Outline) -> str | None:
    """What the manifest there says that is not so now; None where it says the same."""
    try:
        return difference_of(read_manifest(folder).outline, outline)
    except InputError as error:
        return f"{MANIFEST}: {error.message}"


def difference_of(there: Outline, here: Outline) -> str | None:
    """What one has that the other has not; None if they are the same."""
    if there.fingerprint == here.fingerprint:
        return None
    before, after = there.document, here.document
    for key in ("config", "fields", "rows", "pictures"):
        if before[key] != after[key]:
            return _first_difference(before[key], after[key], _WORDS[key])
    return "its list of pictures is another"


def _first_difference(before: Any, after: Any, where: str) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if before.get(key, _ABSENT) != after.get(key, _ABSENT):
                inside = f"{where}.{key}" if where else f"its {key}"
                return _first_difference(before.get(key, _ABSENT), after.get(key, _ABSENT), inside)
    return f"{where} was {_shown(before)} there, and is {_shown(after)} here"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError for a folder without one, and for one that is none, or not of this version."""
    path = str(folder / MANIFEST)
    try:
        with opened(path, "manifest") as file:
            data = file.read(_LONGEST_MANIFEST)
    except FileMissing as error:
        raise foreign(str(folder)) if folder.exists() else FileMissing(error.message, path=str(folder)) from error
    document = from_json(data, path)
    heading = heading_of(document, path)
    with told(path):
        outline = Outline(heading, whole_number(document["rows"]), document["paths_sha256"])
        if outline.rows < 1 or outline.fingerprint != document["fingerprint"]:
            raise damaged(path, "its fingerprint is not that of what it says")
        if not document.get("complete"):
            return Manifest(outline, None)
        shards = tuple(Shard(**shard) for shard in document["shards"])
        expected = [(name_of(index), len(outline.places(index))) for index in range(len(shards))]
        if len(shards) != outline.shards or [(shard.file, shard.rows) for shard in shards] != expected:
            raise damaged(path, "it lists other shards than it declares")
        return Manifest(outline, shards)


def _write_manifest(folder: Path, outline: Outline, shards: Sequence[Shard] | None) -> None:
    document = dict(outline.document)
    if shards is not None:
        document |= {"complete": True, "shards": [asdict(shard) for shard in shards]}
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    with _replacing(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="ascii")


# --- what killed runs leave


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """As `replacing`; the temporary is locked until it has become `path`, so that nobody takes it for one that was
    left. Where the file system has no locks, none is taken for that (`_sweep`)."""
    with contextlib.ExitStack() as held, replacing(path, force=True) as temporary:
        while fcntl is not None:
            file = held.enter_context(temporary.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                break
            if os.fstat(file.fileno()).st_nlink:  # Else it was swept away before it was locked, and is made anew.
                break
        yield temporary


def _sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporaries that nobody is writing."""
    for name in filter(_TEMPORARY.fullmatch, names):
        with contextlib.suppress(OSError), (folder / name).open("r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / name).unlink()


# --- shards


def finished(folder: str | os.PathLike[str], plan: Plan, index: int) -> Table | None:
    """A shard that is there and whole; None where it is to be made. Whether the pictures are still the same, their
    digests tell."""
    return _found(Path(folder), plan, index, plan.fields)


def listed(folder: str | os.PathLike[str], plan: Plan, index: int) -> Table | None:
    """As `finished`, and without the features, which are not looked at."""
    return _found(Path(folder), plan, index, ())


def _found(folder: Path, plan: Plan, index: int, fields: Sequence[Field]) -> Table | None:
    path = folder / name_of(index)
    try:
        with opened(path, "shard") as file:
            table = read_part(file, str(path), plan.outline, index, fields)
    except InputError:
        return None
    places = plan.places(index)
    return table if table.paths == plan.paths[places.start : places.stop] else None


def read_part(source: BinaryIO, path: str, outline: Outline, index: int, fields: Sequence[Field]) -> Table:
    """A shard, from an open file; path: for messages. Raises InputError where it is not that part of that plan."""
    with told(path):
        reader = parquet_file.Reader(source, path)
        if json.loads(reader.metadata.get(_MARK, b"0")) != _mark(outline, index):
            raise damaged(path, f"it is not part {index} of this run")
        (table,) = reader.tables(fields)
        if len(table) != len(outline.places(index)):
            raise damaged(path, "it has not as many pictures as a shard has")
        return table


def _mark(outline: Outline, index: int) -> dict[str, object]:
    return {"fingerprint": outline.fingerprint, "part": index}


def write(folder: str | os.PathLike[str], plan: Plan, index: int, table: Table) -> None:
    """Write a shard, in the place of one that is there; the folder is no longer complete, until `complete` says so.

    Raises OutputError, and ValueError for a table that is not that of the plan's pictures and fields.
    """
    folder, outline, places = Path(folder), plan.outline, plan.places(index)
    table.check(plan.fields)
    if table.paths != plan.paths[places.start : places.stop]:
        raise ValueError(f"these are not the pictures of part {index}")
    reopen(folder, outline)
    heading = Heading(plan.fields, outline.heading.config, len(table))
    marks = {_MARK: canonical(_mark(outline, index))}
    with _replacing(folder / name_of(index)) as temporary, parquet_file.writing_to(temporary, heading, marks) as writer:
        writer.add(table)


def put(folder: Path, index: int, data: bytes) -> None:
    """Put the file of a shard that was made elsewhere into a folder that is not complete."""
    with _replacing(folder / name_of(index)) as temporary:
        temporary.write_bytes(data)


def reopen(folder: Path, outline: Outline) -> None:
    """Say that the folder is not complete, before a shard is changed."""
    if read_manifest(folder).shards is not None:
        _write_manifest(folder, outline, None)


def complete(folder: str | os.PathLike[str], plan: Plan) -> bool:
    """Write the complete manifest; False where shards are still to be made.

    Raises InputError where one is damaged, or was made by another plan, and OutputError.
    """
    return complete_outline(Path(folder), plan.outline)


def complete_outline(folder: Path, outline: Outline) -> bool:
    """`complete`, for shards that are there already."""
    if not all((folder / name_of(index)).exists() for index in range(outline.shards)):
        return False
    shards, paths = [], sha256()
    for index in range(outline.shards):
        path = folder / name_of(index)
        data = bytes_of(path)
        table = read_part(BytesIO(data), str(path), outline, index, ())
        failed = sum(error != "" for error in table.errors)
        shards.append(Shard(path.name, len(table), failed, sha256(data).hexdigest()))
        add_paths(paths, table.paths)
    if paths.hexdigest() != outline.paths_sha256:
        raise damaged(str(folder), "its shards are of other pictures than it declares")
    if read_manifest(folder).shards != tuple(shards):
        _write_manifest(folder, outline, shards)
    return True


def bytes_of(path: Path) -> bytes:
    """The file of a shard."""
    with opened(path, "shard") as file:
        return file.read()


# --- a complete folder


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    with told(path):
        yield Reader(Path(path))


class Reader:
    """Raises InputError for a folder that is not complete."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest.shards is None:
            hint = "run featkit extract with the same -o again: what is done is not done anew"
            raise InputError("its shards are not all there", path=str(folder), hint=hint)
        self._folder, self._outline, self._shards = folder, manifest.outline, manifest.shards
        self.heading = manifest.outline.heading

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        """A shard at a time."""
        paths = sha256()
        for index, shard in enumerate(self._shards):
            path = self._folder / shard.file
            data = bytes_of(path)
            if sha256(data).hexdigest() != shard.sha256:
                raise damaged(str(path), "it is not the shard that the manifest declares")
            table = read_part(BytesIO(data), str(path), self._outline, index, fields)
            add_paths(paths, table.paths)
            yield table
        if paths.hexdigest() != self._outline.paths_sha256:
            raise damaged(str(self._folder), "its shards are of other pictures than it declares")
