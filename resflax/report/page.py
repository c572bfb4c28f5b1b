"""One HTML page that needs nothing else: no network, no files beside it, no scripts to be read."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from resflax.report.tables import Note, Table


@dataclass(frozen=True)
class Picture:
    """An SVG with what it shows."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """Pictures under a heading."""

    title: str
    pictures: tuple[Picture, ...]
    explanation: str = ""


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


def page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[tuple[Table, str]],
    notes: Sequence[Note],
    sections: Sequence[Section],
) -> str:
    """The page.

    Args:
      title: of the page.
      summary: lines under the title.
      tables: with a line of explanation each; the first comes before the pictures.
      notes: on the papers' figures, below the first table.
      sections: of pictures.
    """
    first, *others = tables
    body = [f"<h1>{_e(title)}</h1>", *(f'<p class="soft">{_e(line)}</p>' for line in summary)]
    names = [first[0].title, *(s.title for s in sections), *(t.title for t, _ in others if t.rows)]
    links = (f'<a href="#{_anchor(name)}">{_e(name)}</a>' for name in names)
    body += [f"<nav>{' '.join(links)}</nav>", _table(*first), _notes(notes)]
    body += [_section(section) for section in sections]
    body += [_table(*other) for other in others if other[0].rows]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_e(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _e(text: str) -> str:
    return html.escape(text)


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def _table(table: Table, explanation: str) -> str:
    words = [
        all(isinstance(row[i].value, str) for row in table.rows) for i in range(len(table.headers))
    ]
    kinds = [' class="words"' if w else "" for w in words]
    head = "".join(
        f'<th scope="col"{kind}>{_e(name)}</th>'
        for name, kind in zip(table.headers, kinds, strict=True)
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for cell, kind in zip(row, kinds, strict=True):
            value = "" if cell.value is None else f' data-value="{_e(str(cell.value))}"'
            link = "" if cell.note is None else f' <a href="#note{cell.note}">{cell.note}</a>'
            cells.append(f"<td{kind}{value}>{_e(cell.text)}{link}</td>")
        state = f' class="{table.states[i]}"' if table.states else ""
        rows.append(f"<tr{state}>{''.join(cells)}</tr>")
    return (
        f'<h2 id="{_anchor(table.title)}">{_e(table.title)}</h2>\n'
        f'<p class="soft">{_e(explanation)}</p>\n'
        f'<input class="filter scripted" type="search" placeholder="filter {len(rows)} rows" '
        f'aria-label="filter rows of {_e(table.title)}">\n'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _notes(notes: Sequence[Note]) -> str:
    if not notes:
        return ""
    items = []
    for i, note in enumerate(notes, start=1):
        figure = note.figure
        differs = (
            f"† another protocol (paper ≠ here): {'; '.join(note.deviations)}"
            if note.deviations
            else "the same protocol"
        ).replace(" != ", " ≠ ")
        items.append(
            f'<li id="note{i}"><b>{_e(note.label)}</b>: {_e(figure.where)}: {_e(figure.shown)}; '
            f"{_e(figure.described)}. <span>{_e(differs)}.</span></li>"
        )
    return (
        '<h3>The papers\' figures</h3>\n<p class="soft">† marks a figure that was measured under '
        "another protocol: it says what the paper found, not what these runs should reach.</p>\n"
        f'<ol class="notes">{"".join(items)}</ol>'
    )


def _section(section: Section) -> str:
    figures = "".join(
        f"<figure>{f'<h3>{_e(p.title)}</h3>' if p.title else ''}{p.svg}"
        f"{f'<figcaption>{_e(p.caption)}</figcaption>' if p.caption else ''}</figure>"
        for p in section.pictures
    )
    grid = ' class="grid"' if len(section.pictures) > 1 else ""
    said = f'<p class="soft">{_e(section.explanation)}</p>\n' if section.explanation else ""
    head = f'<h2 id="{_anchor(section.title)}">{_e(section.title)}</h2>'
    return f"{head}\n{said}<div{grid}>{figures}</div>"
