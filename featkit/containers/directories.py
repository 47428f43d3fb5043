"""Directories of tags: what a TIFF consists of, and EXIF, which is a TIFF inside another file. TIFF 6.0, BigTIFF."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_FIELD_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FIELD_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}


# Against files made to exhaust a reader: 4 million strips or tiles are ten times what 100 megapixels can need, and a
# stack of 50,000 pages has 1 million directory entries.
_MOST_VALUES = 2**22
MOST_ENTRIES = 2**21


@dataclass(frozen=True)
class Field:
    """One entry of a TIFF directory: type, count, and a view of its values (shorter where the file ends too early)."""

    kind: int
    count: int
    raw: memoryview

    @property
    def whole(self) -> bool:
        return 0 < len(self.raw) == _FIELD_SIZES.get(self.kind, 0) * self.count


@dataclass(frozen=True)
class Tiff:
    """The head of a TIFF: byte order ("<" or ">"), BigTIFF or not, where the first directory is."""

    data: bytes
    order: str
    big: bool
    first: int

    @classmethod
    def open(cls, data: bytes) -> Tiff:
        order = "<" if data[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        return cls(data, order, big, struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0])

    def directory(self, at: int) -> tuple[dict[int, Field], int]:
        """The tags of the directory at `at`, and where the next directory is (0: nowhere)."""
        count_code, entry_code, offset_code = ("Q", "HHQ8s", "Q") if self.big else ("H", "HHI4s", "I")
        entry = struct.Struct(self.order + entry_code)
        (count,) = struct.unpack_from(self.order + count_code, self.data, at)
        at += struct.calcsize(count_code)
        if count * entry.size > len(self.data) - at:
            raise struct.error("directory outside the file")
        fields = {}
        view = memoryview(self.data)
        for tag, kind, number, value in entry.iter_unpack(view[at : at + count * entry.size]):
            length = _FIELD_SIZES.get(kind, 0) * number
            raw = memoryview(value)[:length]
            if length > len(value):
                (offset,) = struct.unpack(self.order + offset_code, value)
                raw = view[offset : offset + length]
            fields[tag] = Field(kind, number, raw)
        at += count * entry.size
        rest = self.data[at : at + struct.calcsize(offset_code)]
        return fields, int.from_bytes(rest, "little" if self.order == "<" else "big")

    def values(self, entry: Field | None) -> tuple[float, ...]:
        """The numbers of a field; rationals are divided, with 0 for a zero denominator; () where it has none."""
        if entry is None or not entry.whole or entry.count > _MOST_VALUES:
            return ()
        if entry.kind in (5, 10):
            numbers = struct.unpack(f"{self.order}{2 * entry.count}{'I' if entry.kind == 5 else 'i'}", entry.raw)
            return tuple(top / bottom if bottom else 0.0 for top, bottom in zip(*[iter(numbers)] * 2, strict=True))
        if entry.kind not in _FIELD_CODES:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_FIELD_CODES[entry.kind]}", entry.raw)

    def integers(self, entry: Field | None) -> tuple[int, ...]:
        return tuple(int(value) for value in self.values(entry) if math.isfinite(value))
