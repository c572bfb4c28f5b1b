"""Renders a self-contained HTML page: reading it needs no internet, other files or scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from resflax.drawing.picture import Picture, to_inline_svg
from resflax.report.cells import ReportTable
from resflax.report.tables import PaperNote


@dataclass(frozen=True)
class Section:
    """Pictures under a heading, with an explanation."""

    title: str
    pictures: tuple[Picture, ...]
    explanation: str = ""
    sentences: tuple[str, ...] = ()
    """The section in words."""


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fff;
  --line: #d9dce1; --shade: #f4f5f7; --accent: #2f7de1; --bad: #c62a2f; --warn: #a15c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9ba1a8; --paper: #121416;
  --line: #33383f; --shade: #1c1f23; --accent: #70b0ff; --bad: #ff8589; --warn: #f1b45a; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p, li { max-width: 46rem; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
nav { margin: .5rem 0 0; } nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--accent); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .875rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td.words { white-space: normal; min-width: 9rem; max-width: 26rem; overflow-wrap: anywhere; }
thead th { background: var(--shade); border-bottom: 1px solid var(--line); }
tbody tr + tr td { border-top: 1px solid var(--line); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
thead th:first-child { background: var(--shade); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible, input:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
input.filter { font: inherit; font-size: .875rem; color: inherit; background: var(--paper);
  border: 1px solid var(--line); border-radius: 6px; padding: .25rem .6rem; margin: .4rem 0;
  width: min(20rem, 100%); }
tr.failed td { color: var(--bad); } tr.unfinished td, tr.pruned td { color: var(--warn); }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { margin-top: .25rem; }
.notes { font-size: .875rem; } .notes li { margin-bottom: .5rem; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 0 2rem; }
.scripted { display: none; } .js .scripted { display: block; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; color: #000; }
  .scripted, nav { display: none !important; } .scroll { overflow: visible; border: 0; }
  th:first-child, td:first-child { position: static; } thead { display: table-row-group; }
  table { font-size: 7pt; } th, td { padding: 2pt 3pt; white-space: normal; }
  figure { display: inline-block; width: 48%; margin: 0 1% 0 0; } .grid { display: block; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""

_SCRIPT = """
document.documentElement.classList.add('js');
for (const table of document.querySelectorAll('table')) {
  const body = table.tBodies[0];
  table.querySelectorAll('th').forEach((head, column) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      table.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const key = row => row.cells[column].dataset.value;
      const missing = row => key(row) === undefined ? 1 : 0;
      [...body.rows].sort((a, b) => missing(a) - missing(b) || (up ? 1 : -1) *
        (isNaN(key(a)) || isNaN(key(b)) ? String(key(a)).localeCompare(String(key(b)),
          undefined, {numeric: true}) : key(a) - key(b))).forEach(row => body.append(row));
    };
  });
  const filter = table.parentElement.previousElementSibling;
  if (filter && filter.matches('input.filter')) filter.oninput = () => {
    const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of body.rows)
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  };
}
"""


def render_page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[tuple[ReportTable, str]],
    notes: Sequence[PaperNote],
    sections: Sequence[Section],
) -> str:
    """The HTML of a page.

    Args:
      title: the title of the page.
      summary: lines of text under the title.
      tables: the tables, each with its explanation. The first table comes before the pictures, and
        the others come after them; tables after the first are left out if they have no rows.
      notes: notes on the papers' figures, which come below the first table.
      sections: the sections of pictures.
    """
    first, *others = tables
    body = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="soft">{escape(line)}</p>' for line in summary),
    ]
    names = [first[0].title, *(section.title for section in sections)]
    names += [table.title for table, _ in others if table.rows]
    links = (f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in names)
    body += [f"<nav>{' '.join(links)}</nav>", _render_table(*first), _render_notes(notes)]
    body += [_render_section(section) for section in sections]
    body += [_render_table(table, explanation) for table, explanation in others if table.rows]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def _render_table(table: ReportTable, explanation: str) -> str:
    columns = range(len(table.headers))
    classes = [' class="words"' if table.has_words(i) else "" for i in columns]
    head = "".join(
        f'<th scope="col"{css_class}>{escape(name)}</th>'
        for name, css_class in zip(table.headers, classes, strict=True)
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for cell, css_class in zip(row, classes, strict=True):
            value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
            link = "" if cell.note is None else f' <a href="#note{cell.note}">{cell.note}</a>'
            cells.append(f"<td{css_class}{value}>{escape(cell.text)}{link}</td>")
        state = f' class="{table.states[i]}"' if table.states else ""
        rows.append(f"<tr{state}>{''.join(cells)}</tr>")
    return (
        f'<h2 id="{_anchor(table.title)}">{escape(table.title)}</h2>\n'
        f'<p class="soft">{escape(explanation)}</p>\n'
        f'<input class="filter scripted" type="search" placeholder="filter {len(rows)} rows" '
        f'aria-label="filter rows of {escape(table.title)}">\n'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _render_notes(notes: Sequence[PaperNote]) -> str:
    if not notes:
        return ""
    items = []
    for i, note in enumerate(notes, start=1):
        figure = note.figure
        protocol = (
            f"† another protocol (paper ≠ here): {'; '.join(note.differences)}"
            if note.differences
            else "the same protocol"
        ).replace(" != ", " ≠ ")
        items.append(
            f'<li id="note{i}"><b>{escape(note.label)}</b>: {escape(figure.source)}: '
            f"{escape(figure.printed)}; {escape(figure.description)}. "
            f"<span>{escape(protocol)}.</span></li>"
        )
    return (
        '<h3>The papers\' figures</h3>\n<p class="soft">† marks a figure that was measured under '
        "another protocol. It shows what the paper reports, not what these runs should reach.</p>\n"
        f'<ol class="notes">{"".join(items)}</ol>'
    )


def _render_section(section: Section) -> str:
    figures = "".join(_render_picture(picture) for picture in section.pictures)
    grid = ' class="grid"' if len(section.pictures) > 1 else ""
    explanation = (
        f'<p class="soft">{escape(section.explanation)}</p>\n' if section.explanation else ""
    )
    head = f'<h2 id="{_anchor(section.title)}">{escape(section.title)}</h2>'
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
    words = f"<ul>{items}</ul>\n" if items else ""
    return f"{head}\n{explanation}{words}<div{grid}>{figures}</div>"


def _render_picture(picture: Picture) -> str:
    title = f"<h3>{escape(picture.title)}</h3>" if picture.title else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{title}{to_inline_svg(picture)}{caption}</figure>"
