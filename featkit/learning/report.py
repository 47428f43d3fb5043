"""One page, and the pictures in it beside it as files, that show what a classifier can and cannot tell apart."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featkit import images
from featkit.errors import OutputError, OutputExists
from featkit.images import Pixels
from featkit.learning import charts
from featkit.learning.charts import Mistake
from featkit.learning.evaluation import Evaluation, FloatArray, percent
from featkit.records import check_writable, printable, write_atomically

_PAGE = "index.html"
_CONFUSION, _MISTAKES = "confusion.png", "mistakes.png"
_MAPS = {"tsne": "map-tsne.png", "pca": "map-pca.png"}
#: Of other modules, by the names of their files: what each shows.
CHARTS = {
    "layers.png": "Accuracy along the network",
    "learning-curve.png": "Accuracy by pictures a class",
    "comparison.png": "Accuracy by backbone",
}
_METHODS = {"tsne": "t-SNE", "pca": "principal components"}
_NAMES = (_PAGE, _CONFUSION, _MISTAKES, *_MAPS.values(), *CHARTS)
_MOST_CONFUSIONS = 12


@dataclass(frozen=True)
class Table:
    """A table of the page: its title, a name for each column, and rows of as many texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def check_report(folder: Path, *, force: bool) -> None:
    """Refuse a folder into which `write_report` could not write, before any work is done for it. Raises OutputError,
    and OutputExists for a report that is there already."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", path=str(folder), hint="name a folder, or a new one")
    if not folder.exists():
        check_writable(folder)
        return
    for name in _NAMES:
        try:
            check_writable(folder / name, force=force)
        except OutputExists as error:
            hint = "--force overwrites it; or name a new folder"
            raise OutputExists(error.message, path=error.path, hint=hint) from None


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    summary: Mapping[str, str],
    features: FloatArray | None,
    load: Callable[[str], Pixels],
    extra: Sequence[tuple[str, bytes]] = (),
    remarks: Sequence[str] = (),
    tables: Sequence[Table] = (),
    figures: Mapping[str, bytes] | None = None,
    force: bool,
    seed: int,
) -> Iterator[Path]:
    """Write the report into a folder, which is made if the one around it is there; yields each path as it is written.

    confusion.png, mistakes.png, with features map-tsne.png and map-pca.png, and at last index.html, which holds all it
    shows. summary: names and values of what was done, one table. features: float32 N×D, a row for each picture of the
    evaluation, or None: no maps. load: a path's pixels. extra: captions and PNG files to show besides. tables: to show
    besides, as of an ablation. remarks: sentences for the head of the page. figures: PNG files by names of CHARTS, to
    write and to show. seed: of the maps. An evaluated picture is never overwritten. Raises what `check_report`
    does.
    """
    check_report(folder, force=force)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made: {error.strerror}", path=str(folder)) from error
    pictures = {os.path.realpath(path) for path in evaluation.paths}

    def saved(name: str, data: bytes) -> Path:
        path = folder / name
        write_atomically(path, data, force=force and os.path.realpath(path) not in pictures)
        return path

    confusion = charts.confusion_chart(evaluation)
    yield saved(_CONFUSION, confusion)
    mistakes = charts.worst_mistakes(evaluation, load)
    yield saved(_MISTAKES, charts.gallery(mistakes))
    maps = {}
    for method, name in _MAPS.items():
        if features is None:
            break
        points, rows = charts.embed(features, method, seed)
        caption = f"{_METHODS[method]} of the features, {_of(len(rows), len(evaluation.paths))} pictures"
        maps[caption] = charts.map_chart(points, evaluation.truth[rows], evaluation.classes, caption)
        yield saved(name, maps[caption])
    figures = figures or {}
    for name, data in figures.items():
        yield saved(name, data)
    sections = [
        _headline(evaluation),
        *(f"<p>{_text(remark)}</p>" for remark in remarks),
        *(_section(CHARTS[name], _picture(data, CHARTS[name])) for name, data in figures.items()),
        _section("Settings", _settings(summary)) if summary else "",
        *(_section(table.title, _table(table)) for table in tables),
        _section("Confusion", _confusion(evaluation, confusion)),
        _section("Mistakes", _gallery(mistakes)),
        _section("Classes", _classes(evaluation)),
        _section("Maps", "".join(_picture(data, caption) for caption, data in maps.items())) if maps else "",
        *(_section(caption, _picture(data, caption)) for caption, data in extra),
    ]
    yield saved(_PAGE, _page(title, sections).encode())


def _of(some: int, all_of_them: int) -> str:
    return f"all {some}" if some == all_of_them else f"{some} of {all_of_them}"


# --- sections of the page


def _headline(evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    return (
        f'<p class="headline"><strong>{_percent(evaluation.accuracy)}</strong> accuracy</p>\n'
        f"<p>95 % interval {_percent(low)} to {_percent(high)} (Wilson), on {len(evaluation.paths)} pictures of "
        f"{len(evaluation.classes)} classes.</p>"
    )


def _settings(summary: Mapping[str, str]) -> str:
    rows = (f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in summary.items())
    return '<div class="scroll"><table class="settings">' + "\n".join(rows) + "</table></div>"


def _table(table: Table) -> str:
    numeric = [
        all(re.match(r"[-+−±]?\d|–?$", row[column]) for row in table.rows) for column in range(len(table.columns))
    ]
    return _rows(
        [_cell("th", name, number=number) for name, number in zip(table.columns, numeric, strict=True)],
        [[_cell("td", value, number=number) for value, number in zip(row, numeric, strict=True)] for row in table.rows],
    )


def _rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in body)
    return f'<div class="scroll"><table><thead><tr>{"".join(head)}</tr></thead>\n<tbody>{rows}</tbody></table></div>'


def _cell(tag: str, value: str, *, number: bool = False) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    kind = ' class="number"' if number else ""
    return f"<{tag}{scope}{kind}>{_text(value)}</{tag}>"


def _confusion(evaluation: Evaluation, chart: bytes) -> str:
    alternative = "confusion matrix: true classes from top to bottom, predicted ones from left to right"
    confusion = evaluation.confusion
    counts = confusion.sum(axis=1)
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = [divmod(place, len(confusion)) for place in order.tolist() if confusion.flat[place]]
    if not pairs:
        return _picture(chart, alternative)
    frequent = Table(
        "",
        ("true class", "taken for", "pictures", "share"),
        tuple(
            (
                evaluation.classes[truth],
                evaluation.classes[predicted],
                str(confusion[truth, predicted]),
                _percent(confusion[truth, predicted] / counts[truth]),
            )
            for truth, predicted in pairs
        ),
    )
    return f"{_picture(chart, alternative)}\n<h3>Most frequent confusions</h3>\n{_table(frequent)}"


def _gallery(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    figures = "\n".join(map(_mistake, mistakes))
    return (
        "<p>The most confident ones: by how much the score of the wrong label exceeds that of the true one.</p>\n"
        f'<div class="gallery">\n{figures}\n</div>'
    )


def _mistake(mistake: Mistake) -> str:
    shown = '<p class="missing">cannot be read</p>'
    if mistake.thumbnail is not None:
        height, width = (mistake.enlarged * side for side in mistake.thumbnail.shape[:2])
        # A small picture is shown by its own pixels, exactly; a photo may lose what nobody sees.
        kind, data = (
            ("png", images.encode(mistake.thumbnail, ".png"))
            if mistake.enlarged > 1
            else ("jpeg", images.encode(mistake.thumbnail, ".jpg", quality=88))
        )
        alternative = f"{mistake.truth}, taken for {mistake.predicted}"
        shown = _image(data, alternative, kind, f'class="{kind}" width="{width}" height="{height}"')
    return (
        f'<figure title="{_text(mistake.path)}">{shown}<figcaption>'
        f"{_scored('wrong', f'taken for {mistake.predicted}', mistake.predicted_score)}"
        f"{_scored('right', f'is {mistake.truth}', mistake.true_score)}"
        f'<span class="file">{_text(Path(mistake.path).name)}</span></figcaption></figure>'
    )


def _scored(kind: str, label: str, score: float) -> str:
    return f'<span class="{kind}"><span>{_text(label)}</span><span class="score">{score:.3g}</span></span>'


def _classes(evaluation: Evaluation) -> str:
    body = [
        [
            f'<th scope="row">{_text(each.label)}</th>',
            _cell("td", str(each.count), number=True),
            f'<td class="number share" style="--share: {100 * (each.recall or 0):.1f}%">{_percent(each.recall)}</td>',
            *(_cell("td", _percent(share), number=True) for share in (each.precision, each.f1)),
        ]
        for each in evaluation.hardest_first
    ]
    head = [_cell("th", "class"), *(_cell("th", name, number=True) for name in _MEASURES)]
    note = "Lowest recall first. Recall: of the pictures of the class, how many were recognised. Precision: of those "
    note += "given its label, how many bear it rightly. F1: the harmonic mean of both."
    return f"<p>{note}</p>\n{_rows(head, body)}"


_MEASURES = ("pictures", "recall", "precision", "F1")


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


# --- HTML


def _text(text: str) -> str:
    """As it stands in the page: names of classes and files may hold anything, tags and undecodable bytes too."""
    return html.escape(printable(text))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}\n</section>"


def _picture(data: bytes, alternative: str) -> str:
    """A chart: as wide as the page, or at its full size, to be scrolled, once the box above it is ticked."""
    return (
        '<div class="chart"><label><input type="checkbox" /> full size</label>'
        f'<div class="scroll">{_image(data, alternative)}</div></div>'
    )


def _image(data: bytes, alternative: str, kind: str = "png", attributes: str = "") -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img {attributes} src="{source}" alt="{_text(alternative)}" />'


def _page(title: str, sections: Sequence[str]) -> str:
    # No network and no scripts, which the policy enforces whatever the names in the page are.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{_text(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
{_lines(sections)}
</main>
</body>
</html>
"""


def _lines(pieces: Iterable[str]) -> str:
    return "\n".join(piece for piece in pieces if piece)


_STYLE = """:root { color-scheme: light dark; --ink: #1c1c1e; --muted: #62656a; --paper: #ffffff; --line: #dcdfe4;
  --bar: #d5e4f5; --wrong: #b3261e; --right: #1b6e3c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e8; --muted: #a0a4ab; --paper: #16181c; --line: #363a42;
  --bar: #24405f; --wrong: #ff9a90; --right: #85d6a2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 79rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.headline { font-size: 1.25rem; margin: 0; }
.headline strong { font-size: 2.75rem; line-height: 1.15; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  font-weight: normal; overflow-wrap: break-word; max-width: 22rem; }
.settings td { overflow-wrap: anywhere; max-width: none; }
thead th { color: var(--muted); font-size: .875rem; }
.number { text-align: right; white-space: nowrap; padding-left: .8rem; }
.share { background: linear-gradient(to right, var(--bar) var(--share), transparent 0) no-repeat; }
.chart { margin: 0 0 1rem; }
.chart img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
.chart label { display: block; color: var(--muted); font-size: .875rem; margin-bottom: .25rem; }
.chart label:has(:checked) + .scroll img { max-width: none; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, 192px); gap: 1.25rem 1rem; align-items: end; }
.gallery figure { margin: 0; font-size: .875rem; line-height: 1.4; min-width: 0; }
.gallery img { display: block; max-width: 100%; height: auto; margin-bottom: .35rem; }
.gallery .png { image-rendering: pixelated; }
.gallery .missing { color: var(--muted); border: 1px dashed var(--line); padding: 2rem .5rem; text-align: center; }
.gallery figcaption > span { display: flex; justify-content: space-between; gap: .5rem; overflow-wrap: anywhere;
  max-height: 2.8em; overflow: hidden; }
.score { white-space: nowrap; overflow-wrap: normal; }
.wrong { color: var(--wrong); }
.right { color: var(--right); }
.file { color: var(--muted); font-size: .75rem; }
@media (max-width: 30rem) { .gallery { grid-template-columns: 1fr 1fr; } table { font-size: .875rem; }
  th, td { padding-right: .4rem; } .number { padding-left: .4rem; } thead th { font-size: .8125rem; } }
@media print { .chart label { display: none; } }
"""
