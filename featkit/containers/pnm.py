"""PBM, PGM, PPM and PFM: Netpbm's format pages."""

from __future__ import annotations

import math
import re

from featkit.containers.headers import Header, PnmHeader, check_size
from featkit.errors import ImageDamaged

_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")


def inspect(data: bytes, frame: int) -> Header:
    """See `featkit.containers.inspect`."""
    kind = data[:2]
    at = 2
    tokens = []
    for _ in range(2 if kind in (b"P1", b"P4") else 3):
        found = _TOKEN.match(data, at, at + 4096)
        if found is None or found.end() >= len(data):
            raise ImageDamaged("the PNM is cut short in its header")
        tokens.append(found[1])
        at = found.end()
    try:
        width, height = int(tokens[0]), int(tokens[1])
        scale = float(tokens[2]) if len(tokens) > 2 else 1.0
    except ValueError:
        raise ImageDamaged("the PNM's header makes no sense") from None
    check_size((width, height))
    floating = kind in (b"Pf", b"PF")
    if not math.isfinite(scale) or scale == 0 or (not floating and not (1 <= scale <= 65535 and scale == int(scale))):
        raise ImageDamaged("the PNM's header makes no sense")
    return PnmHeader(
        format="PNM",
        width=width,
        height=height,
        stripped=lambda: data[at + 1 :],
        samples="float" if floating else "16-bit" if scale > 255 else "8-bit",
        kind=kind.decode(),
        scale=scale,
    )
