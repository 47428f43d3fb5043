"""Features of many pictures in one file, or read from whatever holds them.

    .npz        arrays for a notebook                         npz_file.py
    .npy        one array, and an index of its rows beside    npy_file.py
    .parquet    a table, one row a picture                    parquet_file.py
    .h5         HDF5                                          hdf5_file.py
    a folder    shards, as `featkit.extraction.shards` writes them

Each module's docstring describes its format. All of them hold the same: the paths and digests of the pictures in their
order, an error where one failed, any number of kinds of features, and the config that says what made them. The same
tables give the same bytes, no file is ever unpickled, and none is read or written as a whole: what is in memory is a
table, and the names of the pictures.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from featkit.errors import OutputError, UsageError
from featkit.extraction.headings import Heading, damaged
from featkit.extraction.tables import Field, Table, check_fields
from featkit.records import check_writable

FOLDER = "folder"

_MODULES = {"npz": "npz_file", "npy": "npy_file", "parquet": "parquet_file", "h5": "hdf5_file", FOLDER: "shards"}
#: Names of all formats; that of a file is how its name ends.
FORMATS = tuple(_MODULES)


class Writer(Protocol):
    def add(self, table: Table) -> None: ...


class Reader(Protocol):
    @property
    def heading(self) -> Heading: ...

    def tables(self, fields: Sequence[Field]) -> Iterator[Table]: ...


class _Module(Protocol):
    def writing(self, path: Path, heading: Heading, *, force: bool) -> AbstractContextManager[Writer]: ...

    def reading(self, path: str) -> AbstractContextManager[Reader]: ...


def _module_of(name: str) -> _Module:
    # Loaded late: pyarrow and h5py cost a run that does not need them.
    return cast(_Module, importlib.import_module(f"featkit.extraction.{_MODULES[name]}"))


def format_of(path: str | os.PathLike[str], name: str | None = None) -> str:
    """One of FORMATS: `name`, where one is given, or what the path's ending says; a folder where it has none, ends in a
    slash or is one. Raises UsageError for any other."""
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    found = suffix.removeprefix(".") if name is None else name
    if name is None and (not suffix or text.endswith(os.sep) or Path(text).is_dir()):
        return FOLDER
    if found not in _MODULES or (name is None and found == FOLDER):
        hint = f"there are: {', '.join(FORMATS)}"
        raise UsageError(f"there is no format {found!r} for features", path=text, hint=hint)
    return found


# --- writing


def check_output(
    path: str | os.PathLike[str], fields: Sequence[Field], *, force: bool = False, format: str | None = None
) -> None:
    """Refuse a file that could not be written, before any work is done for it; `shards.prepare` does so for a folder.

    Raises UsageError for a format that there is not, or that does not hold these fields, OutputExists and OutputError.
    """
    from featkit.extraction import npy_file

    check_fields(fields)
    found = format_of(path, format)
    if found == FOLDER:
        return
    check_writable(path, force=force)
    if found == "npy":
        npy_file.check_fields(fields)
        check_writable(npy_file.index_of(Path(path)), force=force)


def write(
    path: str | os.PathLike[str],
    tables: Iterable[Table],
    fields: Sequence[Field],
    config: Mapping[str, Any],
    count: int,
    *,
    force: bool = False,
    format: str | None = None,
    unbroken: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Write features to one file, whole or not at all, a table at a time.

    count: the pictures in all tables. config: what JSON holds. format: one of FORMATS, and no folder; None: as the path
    ends. unbroken: entered around every step that no exception of a signal may break in two, as HDF5 does not bear it;
    tables are asked for outside.

    Raises UsageError, OutputExists and OutputError as `check_output` does; ValueError for tables without these fields,
    or with more or fewer pictures.
    """
    found = format_of(path, format)
    if found == FOLDER:
        raise ValueError("a folder is written by featkit.extraction.shards")
    check_output(path, fields, force=force, format=found)
    heading = Heading(tuple(fields), config, count)
    context = _module_of(found).writing(Path(path), heading, force=force)
    with contextlib.ExitStack() as stack:
        with unbroken():
            # One that an exception ends before the stack has it is closed by nobody.
            writer = context.__enter__()
            stack.push(_closing(context, unbroken))
        rows = 0
        for table in tables:
            table.check(fields)
            rows += len(table)
            with unbroken():
                writer.add(table)
        if rows != count:
            raise ValueError(f"there are {rows} pictures, and not {count}")


def move(path: Path, target: Path, *, format: str) -> None:
    """Rename a file that `write` has written, on one disk; what is there is replaced. Raises OutputError."""
    from featkit.extraction import npy_file

    # As it is written: the index first.
    names = [(npy_file.index_of(path), npy_file.index_of(target))] if format == "npy" else []
    try:
        for old, new in (*names, (path, target)):
            old.replace(new)
    except OSError as error:
        raise OutputError(f"it cannot be written: {error.strerror}", path=str(target)) from error


def _closing(
    context: AbstractContextManager[Writer], unbroken: Callable[[], AbstractContextManager[None]]
) -> Callable[..., bool | None]:
    def close(*failure: Any) -> bool | None:
        with unbroken():
            return context.__exit__(*failure)

    return close


# --- reading


@dataclass(frozen=True)
class Features:
    """A file or a folder of features: `fields`, the `config` of what made them, and how many pictures (`count`)."""

    path: str
    format: str
    fields: tuple[Field, ...]
    config: Mapping[str, Any]
    count: int

    @property
    def files(self) -> tuple[Path, ...]:
        """All that they are read from."""
        from featkit.extraction import npy_file, shards

        path = Path(self.path)
        if self.format == FOLDER:
            return tuple(each for each in path.iterdir() if each.name == shards.MANIFEST or shards.is_shard(each.name))
        return (path, npy_file.index_of(path)) if self.format == "npy" else (path,)

    def tables(self, names: Iterable[str] | None = None) -> Iterator[Table]:
        """The pictures in their order, some at a time, with these of the fields, or all.

        What carries a checksum is held against it at the end of an array, a file or a shard: an exception may come
        after the last table. Raises UsageError for a name that there is not, and InputError as `read` does.
        """
        wanted = [field.name for field in self.fields] if names is None else list(names)
        known = {field.name: field for field in self.fields}
        for name in wanted:
            if name not in known:
                hint = f"there are: {', '.join(known)}"
                raise UsageError(f"there are no features {name!r}", path=self.path, hint=hint)
        return self._tables([known[name] for name in wanted])

    def _tables(self, fields: Sequence[Field]) -> Iterator[Table]:
        with _module_of(self.format).reading(self.path) as reader:
            if reader.heading != Heading(self.fields, self.config, self.count):
                raise damaged(self.path, "they were changed while featkit was at work")
            rows = 0
            for table in reader.tables(fields):
                table.check(fields)
                rows += len(table)
                yield table
            if rows != self.count:
                raise damaged(self.path, "there are not as many pictures as it declares")


def read(path: str | os.PathLike[str], *, format: str | None = None) -> Features:
    """What a file or a folder of features holds; its tables are read when they are asked for. format: as of `write`.

    Raises UsageError for a format that there is not, FileMissing, NotAFile, FileUnreadable, and InputError for what
    featkit did not write, for another version, and for what is damaged.
    """
    text, found = os.fspath(path), format_of(path, format)
    with _module_of(found).reading(text) as reader:
        return Features(text, found, reader.heading.fields, reader.heading.config, reader.heading.count)
