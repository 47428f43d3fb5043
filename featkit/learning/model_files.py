"""A trained model in one file: a configuration, and arrays.

    featkit-model 1\\n · SHA-256 of all that follows, 32 bytes · lengths of the JSON and of the arrays, 8 each · both

Lengths are little-endian, the JSON is ASCII, the arrays are an npz. The same model is the same bytes, and nothing is
ever unpickled. The digest tells of damage and of careless changes. It is no signature: a file made to deceive can bear
a right one, and gives ModelDamaged, or a config and arrays of its maker's choice.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy.typing as npt

from featkit.arrays import ArraysDamaged, pack, unpack
from featkit.errors import FileUnreadable, ModelDamaged
from featkit.files import opened
from featkit.records import replacing

VERSION = 1

_MAGIC = f"featkit-model {VERSION}\n".encode()
_ANY_MAGIC = re.compile(rb"featkit-model ([1-9][0-9]{0,8})\n")
_HEADER = struct.Struct("<16s32sQQ")
_LENGTHS = struct.Struct("<QQ")

_MADE_BY = "a model is what featkit classify DATA -o model.fk writes, or featkit probe"
_WHOLE_AGAIN = "copy it again from where it is whole, or train it again"


def write_model(
    path: str | os.PathLike[str], config: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]], *, force: bool
) -> None:
    """Write a model, whole or not at all.

    config: what JSON holds, its keys text. arrays: of any shape and any dtype but Python objects. The order within
    neither of them counts. Besides the arrays and their bytes, nothing of their size is held in memory.

    Raises OutputExists where there is a file and not `force`, and OutputError; ValueError for a NaN or an infinity in
    the config and for arrays that `featkit.arrays.pack` refuses, and TypeError for a config that JSON cannot hold.
    """
    document = json.dumps(dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    payload = pack(dict(sorted(arrays.items())))
    header = _HEADER.pack(_MAGIC, _digest(document, payload), len(document), len(payload))
    with replacing(path, force=force) as temporary, temporary.open("wb") as file:
        for part in (header, document, payload):
            file.write(part)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The config and the arrays of a model, which are new and writable; they come in the order of their names.

    Tuples of the config have become lists. Besides the arrays and their bytes, nothing of their size is held in memory.

    Raises FileMissing, NotAFile (a folder, FIFO, socket or device; never waits for one), FileUnreadable, and
    ModelDamaged for what is no model, one of another version, or not what was written.
    """
    name = os.fspath(path)
    try:
        with opened(name, "model") as file:
            header, size = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
            digest, document_bytes, payload_bytes = _unpack_header(header, size, name)
            document, payload = file.read(document_bytes), file.read(payload_bytes)
        if _digest(document, payload) != digest:
            raise ModelDamaged("it is not what was written: its checksum is wrong", path=name, hint=_WHOLE_AGAIN)
        return _parse(document), unpack(payload)
    except MemoryError as error:
        raise FileUnreadable("it is larger than the memory", path=name) from error
    except (ArraysDamaged, _DocumentDamagedError) as error:
        message = "its checksum is right, but what it holds is no model"
        raise ModelDamaged(message, path=name, hint=_MADE_BY) from error


class _DocumentDamagedError(Exception):
    """The JSON is not what `write_model` writes."""


def _digest(document: bytes, payload: bytes | memoryview) -> bytes:
    digest = sha256(_LENGTHS.pack(len(document), len(payload)))
    digest.update(document)
    digest.update(payload)
    return digest.digest()


def _unpack_header(header: bytes, size: int, name: str) -> tuple[bytes, int, int]:
    """The digest, and the bytes of the JSON and of the arrays, which make up a file of `size` bytes: so much may be
    allocated."""
    if not header:
        raise ModelDamaged("the file is empty (0 bytes)", path=name, hint=_MADE_BY)
    if not header.startswith(_MAGIC[: len(header)]):
        version = _ANY_MAGIC.match(header)
        if version is None:
            raise ModelDamaged("this is no model of featkit", path=name, hint=_MADE_BY)
        message = f"it is a model of version {version[1].decode()}, and this featkit reads version {VERSION}"
        hint = "train it again with this featkit, or use the featkit that wrote it"
        raise ModelDamaged(message, path=name, hint=hint)
    if len(header) < _HEADER.size:
        raise ModelDamaged(f"it is cut short, after {len(header)} bytes", path=name, hint=_WHOLE_AGAIN)
    _, digest, document_bytes, payload_bytes = _HEADER.unpack(header)
    declared = _HEADER.size + document_bytes + payload_bytes
    if size != declared:
        what = "cut short" if size < declared else "longer than it was written"
        raise ModelDamaged(f"it is {what}: {size} bytes instead of {declared}", path=name, hint=_WHOLE_AGAIN)
    return digest, document_bytes, payload_bytes


def _parse(document: bytes) -> dict[str, Any]:
    try:
        config = json.loads(document, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _DocumentDamagedError from error
    if not isinstance(config, dict):
        raise _DocumentDamagedError
    return config


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
