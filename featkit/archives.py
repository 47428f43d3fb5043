"""Pictures inside tar archives, as webdataset writes them, named and read like files: photos.tar/0001.jpg.

An archive is looked through once; each picture is then read from where it lies, in any order and by any thread.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from featkit import images
from featkit.errors import ImageDamaged, InputError
from featkit.files import opened
from featkit.sources import PICTURE_EXTENSIONS

_EXTENSION = ".tar"
_INSIDE = re.compile(r"(.*?\.tar)/(.+)", re.IGNORECASE | re.DOTALL)
_COMPRESSED = (".tgz", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class _Member:
    archive: str
    offset: int
    size: int


class PictureFiles:
    """Pictures by name: files, and members of archives. `paths`: of all, archives replaced by what is in them."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises InputError for an archive that cannot be read, is compressed, or has no picture in it."""
        self._members: dict[str, _Member] = {}
        self.paths: tuple[str, ...] = tuple(name for path in paths for name in self._names(path))

    def read(self, path: str) -> bytes:
        """The bytes of one of them. Raises what `images.read_bytes` raises, and ImageDamaged where its archive was cut
        off since."""
        member = self._members.get(path)
        if member is None:
            return images.read_bytes(path)
        with opened(member.archive, "tar archive") as file:
            file.seek(member.offset)
            data = file.read(member.size)
        if len(data) < member.size:
            raise ImageDamaged("the archive has been cut off inside it", path=path)
        images.refuse_no_picture(data, path)
        return data

    def _names(self, path: str) -> list[str]:
        if path.lower().endswith(_COMPRESSED):
            raise InputError(
                "a compressed archive can only be read from its beginning",
                path=path,
                hint="uncompress it first: pictures are compressed as they are",
            )
        if not path.lower().endswith(_EXTENSION):
            return [path]
        found = _pictures_in(path)
        if not found:
            raise InputError("there is no picture in this archive", path=path)
        self._members.update(found)
        return list(found)


def archive_of(name: str) -> tuple[str, str] | None:
    """The archive, and the name inside it, that a picture's name as of `PictureFiles.paths` consists of; None for a
    file's. By the text alone: a folder may be called so, too."""
    found = _INSIDE.fullmatch(name)
    return (found[1], found[2]) if found else None


def _pictures_in(path: str) -> dict[str, _Member]:
    """By name, in their order; of two with one name the second, as whoever unpacks them would have it."""
    found = {}
    with opened(path, "tar archive") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
                for member in archive:
                    if member.size < 0:  # tarfile would go back, and round and round
                        raise ValueError("a size below 0")
                    name = PurePosixPath(member.name)
                    hidden = any(part.startswith(".") for part in name.parts if part != "..")
                    whole = member.isreg() and not member.issparse()
                    if whole and not hidden and name.suffix.lower() in PICTURE_EXTENSIONS:
                        found[f"{path}/{member.name}"] = _Member(path, member.offset_data, member.size)
                # It ends at a damaged header, too, and says nothing.
                file.seek(archive.offset)
                block = file.read(tarfile.BLOCKSIZE)
                if block and block != bytes(tarfile.BLOCKSIZE):
                    raise ValueError(f"there is no header at byte {archive.offset}")
        except (OSError, MemoryError):
            raise
        except Exception as error:  # TarError, ValueError, OverflowError, IndexError, RecursionError, …
            raise InputError(f"this is no tar archive, or it is damaged: {error}", path=path) from error
    return found
