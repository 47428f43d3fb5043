"""The one store of computed things, keyed by content.

An entry is a file `xx/<key>.fk`, xx being the first two digits of its key:

    magic 16 bytes · SHA-256 of key and payload 32 bytes · length of the payload 8 bytes · payload, an npz

It is written to a temporary beside its place and renamed, and checked as a whole on every read: a get gives what was
put or nothing. Nothing is ever unpickled. Any number of processes may share a folder; none waits for another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import stat
import struct
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featkit.arrays import ArraysDamaged, pack, unpack
from featkit.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows, where a file that is held open cannot be deleted: no lock is needed there.
    fcntl = None  # type: ignore[assignment]

DEFAULT_LIMIT_BYTES = 4 << 30

_MAGIC = b"featkit-cache 1\n"
_HEADER = struct.Struct("<16s32sQ")
_KEY = re.compile(r"[0-9a-f]{64}")
_OWN_NAME = re.compile(r"[0-9a-f]{64}\.(fk|[0-9a-f]{16}\.tmp)")
_PARTS_OF_LIMIT = 16  # One of them may be written before the folder is looked through again.
# What tells backup programs to leave a folder out: https://bford.info/cachedir/
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of featkit: it may be deleted at any time.\n"
# Never follow a link that lies in an entry's place, never wait for a pipe. Windows has neither flag.
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class CacheWarning(UserWarning):
    """The cache cannot be written: results are right without it, and computed anew each time."""


@dataclasses.dataclass(frozen=True)
class CacheInfo:
    """What is in a cache: `entries` of `bytes` in all, and the `abandoned` temporaries of killed writers."""

    folder: Path | None
    entries: int
    bytes: int
    limit_bytes: int
    abandoned: int


@dataclasses.dataclass(frozen=True)
class Pruned:
    """What was removed: good `entries`, `abandoned` temporaries and `damaged` entries, of `bytes` in all."""

    entries: int
    bytes: int
    abandoned: int
    damaged: int


def default_folder() -> Path | None:
    """FEATKIT_CACHE (a folder; "off" or empty: None), else $XDG_CACHE_HOME/featkit, else ~/.cache/featkit."""
    chosen = os.environ.get("FEATKIT_CACHE")
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # The XDG specification says to ignore a relative one.
        return shared / "featkit"
    try:
        return Path.home() / ".cache" / "featkit"
    except RuntimeError:  # A user without a home, as containers have them.
        return None


def default_limit_bytes() -> int:
    """FEATKIT_CACHE_LIMIT, else 4 GiB; UsageError for what is no size."""
    text = os.environ.get("FEATKIT_CACHE_LIMIT")
    return parse_size(text, "FEATKIT_CACHE_LIMIT") if text else DEFAULT_LIMIT_BYTES


def parse_size(text: str, what: str) -> int:
    """Bytes from "1000", "500M" or "4G" (K, M, G, T: powers of 1024); UsageError naming `what` otherwise."""
    form = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text.upper())
    if form is None:
        hint = "give bytes, or a whole number with K, M, G or T, as in 4G"
        raise UsageError(f"{what} is not a size: {text!r}", hint=hint)
    return int(form[1]) << 10 * " KMGT".index(form[2] or " ")


def open_cache(enabled: bool = True) -> Cache:
    """The user's cache as the environment describes it, or one that stores nothing."""
    return Cache(default_folder(), default_limit_bytes()) if enabled else Cache(None)


def make_key(
    *, content: Sequence[str], operation: str, version: int, config: object, libraries: Mapping[str, str] | None = None
) -> str:
    """The key of a result, 64 hexadecimal digits: a hash over everything that the result depends on.

    content: hashes of the bytes that went in; operation, version: what was done with them, by which code;
    config: a dataclass, mapping or None that holds plain values: 1, 1.0, "1" and True give four different keys;
    libraries: name to version, where it changes results.
    TypeError for a config with anything else in it: without a canonical form it could be mistaken for another.
    """
    document = [list(content), operation, version, _canonical(config), dict(libraries or {})]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _canonical(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value  # json writes each in its own way, floats by repr.
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"dataclass": type(value).__name__, "fields": fields}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {"mapping": {name: _canonical(item) for name, item in value.items()}}
    raise TypeError(f"a {type(value).__name__} has no canonical form: {value!r}")


class Cache:
    """A folder of entries; with `folder` None, a cache that holds nothing. Safe to share between threads.

    No failure of the disk is an error: what cannot be read is a miss, and the first thing that cannot be written is one
    CacheWarning, after which this object writes no more. ValueError for a key that make_key did not make.
    """

    def __init__(self, folder: Path | None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._writable = True
        self._room = -1  # Bytes that may be written before the folder is looked through; -1: it never was.

    def get(self, key: str) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays that were put under `key`, new and writable, or None. A damaged entry is deleted."""
        if self.folder is None:
            return None
        path = _entry_path(self.folder, key)
        try:
            arrays = unpack(_read_payload(path))
        except (OSError, MemoryError):
            return None
        except (_DamagedError, ArraysDamaged):
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # The time of last use, which decides what goes first.
        return arrays

    def put(self, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep `arrays` under `key`, in place of what was there. ValueError for an array of Python objects."""
        if self.folder is None or not self._writable:
            return
        path = _entry_path(self.folder, key)
        payload = pack(arrays)
        size = _HEADER.size + len(payload)
        if size > self.limit_bytes:
            return
        try:
            _make_folders(self.folder, path.parent)
            with self._lock:
                self._make_room(size)
            _write(path, _HEADER.pack(_MAGIC, _digest(key, payload), len(payload)), payload)
        except OSError as error:
            with self._lock:
                first, self._writable = self._writable, False
            if first:
                message = f"the cache is off: {self.folder} cannot be written: {error.strerror or error}"
                warnings.warn(message, CacheWarning, stacklevel=2)

    def info(self) -> CacheInfo:
        """Count what is there, without reading it."""
        entries, temporaries = self._files()
        size = sum(entry.stat().st_size for entry in entries)
        return CacheInfo(self.folder, len(entries), size, self.limit_bytes, sum(map(_is_abandoned, temporaries)))

    def prune(self, limit_bytes: int | None = None) -> Pruned:
        """Remove abandoned temporaries, damaged entries (each is read) and, over the limit, those longest unused."""
        entries, temporaries = self._files()
        abandoned = _remove_abandoned(temporaries)
        damaged = [entry for entry in entries if _is_damaged(entry) and _remove(entry)]
        left = [entry for entry in entries if entry not in damaged]
        oldest = _remove_oldest(left, self.limit_bytes if limit_bytes is None else limit_bytes)
        return _pruned(oldest, abandoned, damaged)

    def clear(self) -> Pruned:
        """Remove every entry and every abandoned temporary; a file that is not the cache's own stays."""
        entries, temporaries = self._files()
        abandoned = _remove_abandoned(temporaries)
        removed = [entry for entry in entries if _remove(entry)]
        for folder in {Path(file).parent for file in removed + abandoned}:
            with contextlib.suppress(OSError):  # It is not empty.
                folder.rmdir()
        return _pruned(removed, abandoned, [])

    def _make_room(self, size: int) -> None:
        if size > self._room:
            self._room = max(size, self.limit_bytes // _PARTS_OF_LIMIT)
            entries, temporaries = self._files()
            _remove_abandoned(temporaries)
            _remove_oldest(entries, self.limit_bytes - self._room)
        self._room -= size

    def _files(self) -> tuple[list[_File], list[_File]]:
        """Entries and temporaries: the regular files that are named as the cache's own and lie where it puts them."""
        entries: list[_File] = []
        temporaries: list[_File] = []
        for folder in _listing(self.folder) if self.folder is not None else []:
            for file in _listing(folder) if len(folder.name) == 2 else []:
                if not _OWN_NAME.fullmatch(file.name) or not file.name.startswith(folder.name):
                    continue
                try:
                    mode = file.stat(follow_symlinks=False).st_mode  # It is kept: later calls do not ask the disk.
                except OSError:  # Gone meanwhile.
                    continue
                if stat.S_ISREG(mode):
                    (entries if file.name.endswith(".fk") else temporaries).append(file)
        return entries, temporaries


_File = os.DirEntry[str]


class _DamagedError(Exception):
    """An entry is not what was written."""


def _entry_path(folder: Path, key: str) -> Path:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key that make_key made: {key!r}")
    return folder / key[:2] / f"{key}.fk"


def _digest(key: str, payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(key.encode())  # With its key, so that an entry under another's name is a damaged one.
    digest.update(payload)
    return digest.digest()


def _read_payload(path: Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _OPEN_FLAGS)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(path)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise _DamagedError
        magic, digest, length = _HEADER.unpack(header)
        if magic != _MAGIC or length != status.st_size - _HEADER.size:  # Before so much is allocated.
            raise _DamagedError
        payload = file.read(length)
    if _digest(path.stem, payload) != digest:
        raise _DamagedError
    return payload


def _is_damaged(entry: _File) -> bool:
    try:
        _read_payload(Path(entry))
    except (OSError, _DamagedError) as error:
        return isinstance(error, _DamagedError)
    return False


def _make_folders(folder: Path, entry_folder: Path) -> None:
    if entry_folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not _listing(folder):  # In a folder that holds anything else, the tag would keep that out of backups.
        (folder / "CACHEDIR.TAG").write_bytes(_TAG)
    entry_folder.mkdir(exist_ok=True)


def _write(path: Path, header: bytes, payload: memoryview) -> None:
    temporary = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            if fcntl is not None:  # The lock says that the writer lives; the system drops it with the process.
                with contextlib.suppress(OSError):  # Without it the temporary may be pruned: it is not stored, then.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(header)
            file.write(payload)
        temporary.replace(path)
    except FileNotFoundError:
        pass  # Somebody pruned or cleared the folder meanwhile: the entry is not stored, and nothing is wrong.
    except BaseException:
        _remove(temporary)
        raise


def _is_abandoned(temporary: _File) -> bool:
    try:
        with Path(temporary).open("r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _listing(folder: Path | _File) -> list[_File]:
    try:
        with os.scandir(folder) as files:
            return list(files)
    except OSError:
        return []


def _remove(file: Path | _File) -> bool:
    try:
        Path(file).unlink(missing_ok=True)  # Whoever else removed it, its bytes are free.
    except OSError:
        return False
    return True


def _remove_abandoned(temporaries: list[_File]) -> list[_File]:
    return [file for file in temporaries if _is_abandoned(file) and _remove(file)]


def _remove_oldest(entries: list[_File], limit_bytes: int) -> list[_File]:
    excess = sum(entry.stat().st_size for entry in entries) - limit_bytes
    removed: list[_File] = []
    for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime_ns):
        if excess > 0 and _remove(entry):
            excess -= entry.stat().st_size
            removed.append(entry)
    return removed


def _pruned(entries: list[_File], abandoned: list[_File], damaged: list[_File]) -> Pruned:
    size = sum(file.stat().st_size for file in entries + abandoned + damaged)
    return Pruned(len(entries), size, len(abandoned), len(damaged))
