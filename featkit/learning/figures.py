"""What all charts are drawn with: matplotlib's Agg under its default style, whatever the user's own is. The same input
gives the same bytes, and text is shown as it is, never read as a formula."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from featkit.records import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 100
#: A point of a font, in pixels.
POINT_PIXELS = _DOTS_PER_INCH / 72
_FONT = "DejaVu Sans"
#: What stands for a character that the font lacks.
_NO_GLYPH = "□"
INK, MUTED = "#202020", "#6b6b6b"


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """matplotlib as it is shipped: what the user has configured would change the picture, and `$` starts no formula."""
    import matplotlib.style

    with matplotlib.style.context(["default", {"font.family": _FONT, "text.parse_math": False}]):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, *, tight: bool = False) -> bytes:
    """tight: cut, or widened, to what is drawn."""
    buffer = io.BytesIO()
    extent: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if tight else {}
    # Without the name of the library's version, which is all that would differ between two of them.
    figure.savefig(buffer, format="png", metadata={"Software": None}, **extent)
    return buffer.getvalue()


def drawable(text: str) -> str:
    """One line, with a box for each character that the font lacks: matplotlib would warn of it."""
    glyphs = _glyphs()
    return "".join(letter if ord(letter) in glyphs else _NO_GLYPH for letter in printable(text))


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=_FONT))).get_charmap())
