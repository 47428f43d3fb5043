"""Where a network's weights are: in a file that is named, in torch hub's folder, or at the address they come from."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import urlopen

import torch
from torch import Tensor

from featkit.errors import DependencyError, InputError, OutputError
from featkit.files import opened
from featkit.records import replacing

#: Told of a download: the bytes that have come, and of how many; 0 where that is not known.
Progress: TypeAlias = Callable[[int, int], None]

_CHUNK = 1 << 20
_PATIENCE = 30  # seconds without a byte
#: torchvision's names say how the SHA-256 begins, by eight digits or more.
_BEGINNING = re.compile(r"-([0-9a-f]{8,})\.")


def of_file(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """By name, on the processor. safetensors, or what torch.save wrote, of which tensors alone are read.

    Raises InputError for what is neither, and what `files.opened` raises.
    """
    name = os.fspath(path)
    with opened(name, "file of weights"):  # what cannot be opened is told from what cannot be read
        pass
    try:
        if name.endswith(".safetensors"):
            from safetensors.torch import load_file

            values: Any = load_file(name)
        else:
            values = torch.load(name, map_location="cpu", weights_only=True)
    except Exception as error:  # Whoever wrote it may make anything fail; torch's own advice is not for users.
        raise InputError(
            "no weights can be read from it: it is none, is damaged, or holds more than tensors",
            path=name,
            hint="featkit reads .safetensors, and .pth that hold tensors alone",
        ) from error
    for inner in ("state_dict", "model"):  # as training scripts write it
        if isinstance(values, dict) and isinstance(values.get(inner), dict):
            values = values[inner]
    if not isinstance(values, dict) or not all(isinstance(each, Tensor) for each in values.values()):
        raise InputError("what it holds are no weights: names and tensors", path=name)
    return values


def sha256(path: str | os.PathLike[str]) -> str:
    """Of a file of weights, as hexadecimal digits. Raises what `files.opened` raises."""
    digest = hashlib.sha256()
    with opened(path, "file of weights") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def hub_file(address: str) -> Path:
    """Where torch hub keeps what comes from there, whether it is there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(address).path).name


def at_address(address: str, progress: Progress | None = None) -> Path:
    """Torch hub's file of that address, downloaded where it is not there, whole or not at all.

    Raises DependencyError where there is neither the file nor a network, and OutputError for a folder or a disk that
    does not take it.
    """
    file = hub_file(address)
    if file.exists():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder for weights cannot be made: {error.strerror}",
            path=str(file.parent),
            hint="set TORCH_HOME to a folder that can be written to",
        ) from error
    with replacing(file, force=True) as part:
        try:
            digest = _download(address, part, progress)
        except (URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it is an answer, too
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise not_to_be_had(file.name, str(file.parent), reason, address) from error
        named = _BEGINNING.search(file.name)
        if named is not None and not digest.startswith(named[1]):
            reason = "what came is not what its name says"
            raise not_to_be_had(file.name, str(file.parent), reason, address)
    return file


def not_to_be_had(name: str, folder: str, reason: str, address: str) -> DependencyError:
    """name: of the file, which is not in that folder. address: where it can be had."""
    return DependencyError(
        f"the weights {name} are not in {folder}, and cannot be downloaded: {reason}",
        hint=f"get {address} elsewhere and name it by --weights FILE; --backbone lite0 needs no download",
    )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _download(address: str, to: Path, progress: Progress | None) -> str:
    """The SHA-256 of what has come."""
    done, digest = 0, hashlib.sha256()
    with urlopen(address, timeout=_PATIENCE) as response, to.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0))
        while data := response.read(_CHUNK):
            file.write(data)
            digest.update(data)
            done += len(data)
            if progress is not None:
                progress(done, total)
    if done < total:
        raise URLError(f"it was cut off after {done:,} of {total:,} bytes")
    return digest.hexdigest()
