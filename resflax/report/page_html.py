"""Shows a page as HTML: reading it needs no internet, other files or scripts."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib import resources
from urllib.parse import quote

from resflax.drawing.picture import Picture, to_inline_svg
from resflax.report.cells import PAPER_MARK, Cell, ReportTable
from resflax.report.page import (
    Page,
    Section,
    note_texts,
    picture_names,
    section_names,
)
from resflax.report.tables import PaperNote

MOST_ROWS = 1000
"""The most rows of a table that the page shows."""

_MOST_OPEN_NOTES = 30
"""The most notes that are shown without being asked for."""

_SECONDS_SHOWN = 20
"""How long a page that is renewed is shown before it is loaded again."""


def render_html(page: Page, folder: str) -> str:
    """The HTML of a page.

    All ids that are not made from titles or by matplotlib have an underscore, so that no title can
    lead to the same id.

    Args:
      page: the page.
      folder: the folder of the pictures' files, to which the page has links, as seen from the page.
    """
    names, pictures = section_names(page.sections), picture_names(page.sections)
    links = "".join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for name, section in zip(names, page.sections, strict=True)
    )
    head = [
        f"<h1>{escape(page.title)}</h1>",
        *(f'<p class="soft">{escape(line)}</p>' for line in page.summary),
        _render_renewal() if page.renewed else "",
    ]
    body = [
        '<a class="skip" href="#main_">Skip to the results</a>',
        f"<header>{''.join(head)}</header>",
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
        '<main id="main_">',
        *(
            _render_section(section, name, [f"{folder}/{picture}" for picture in files])
            for section, name, files in zip(page.sections, names, pictures, strict=True)
        ),
        "</main>",
    ]
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{_read('page.css')}</style>\n</head>\n"
        "<body>\n"
        + "\n".join(body)
        + f"\n<script>\n{_read('page.js')}</script>\n</body>\n</html>\n"
    )
    return _NOT_IN_HTML.sub("\ufffd", html)


_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Control characters that names may have and HTML may not. They become U+FFFD."""


@cache
def _read(name: str) -> str:
    return (resources.files("resflax.report") / name).read_text(encoding="utf-8")


def _render_renewal() -> str:
    return (
        '<p class="scripted"><label><input type="checkbox" id="renew_" checked '
        f'data-seconds="{_SECONDS_SHOWN}"> Show what is new every {_SECONDS_SHOWN} seconds. The '
        "runs have not ended.</label></p>"
    )


def _render_section(section: Section, name: str, files: Sequence[str]) -> str:
    parts = [f'<h2 id="{name}">{escape(section.title)}</h2>']
    if section.explanation:
        parts.append(f'<p class="soft">{escape(section.explanation)}</p>')
    if section.sentences:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
        parts.append(f"<ul>{items}</ul>")
    if section.pictures:
        grid = ' class="grid"' if len(section.pictures) > 1 else ""
        figures = map(_render_picture, section.pictures, files)
        parts.append(f"<div{grid}>{''.join(figures)}</div>")
    if section.table is not None and section.table.rows:
        parts += _render_table(section.table, section.title, section.files)
    if section.notes:
        parts.append(_render_notes(section.notes))
    content = "\n".join(parts)
    return f"<section>\n{content}\n</section>"


def _render_picture(picture: Picture, file: str) -> str:
    title = f"<h3>{escape(picture.title)}</h3>" if picture.title else ""
    links = _render_links(f"{file}.svg", f"{file}.pdf")
    caption = f"<figcaption>{escape(picture.caption)} {links}</figcaption>"
    return f"<figure>{title}{to_inline_svg(picture)}{caption}</figure>\n"


def _render_links(*files: str) -> str:
    """Links to files by the kinds of these files."""
    kinds = [file.rpartition(".")[2].upper() for file in files]
    links = (
        f'<a href="{quote(file)}" aria-label="{kind}: {escape(file)}">{kind}</a>'
        for file, kind in zip(files, kinds, strict=True)
    )
    return f'<span class="files">{" ".join(links)}</span>'


def _render_table(table: ReportTable, title: str, files: Sequence[str]) -> Iterator[str]:
    rows, name = table.rows[:MOST_ROWS], escape(title)
    left_out = f"The first {len(rows):,} of {len(table.rows):,} rows; the files have all of them: "
    yield (
        '<p class="filter scripted"><label>Rows with <input type="search"></label> '
        f'<span role="status">{len(rows):,} rows</span></p>'
    )
    columns = range(len(table.headers))
    classes = [' class="words"' if table.has_words(column) else "" for column in columns]
    heads = (
        f'<th scope="col"{css_class}>{escape(head)}</th>'
        for head, css_class in zip(table.headers, classes, strict=True)
    )
    states = [f' class="{state}"' for state in table.states] or [""] * len(rows)
    yield (
        f'<div class="scroll" role="region" aria-label="Table: {name}" tabindex="0"><table>'
        f'<caption class="unseen">{name}</caption>\n<thead><tr>{"".join(heads)}</tr></thead>'
        "\n<tbody>"
    )
    for row, state in zip(rows, states, strict=False):
        cells = "".join(map(_render_cell, row, classes, ["th", *["td"] * (len(row) - 1)]))
        yield f"<tr{state}>{cells}</tr>"
    yield "</tbody></table></div>"
    if files:
        beginning = left_out if len(rows) < len(table.rows) else ""
        yield f'<p class="soft">{beginning}{_render_links(*files)}</p>'


def _render_cell(cell: Cell, css_class: str, tag: str) -> str:
    scope = ' scope="row"' if tag == "th" else ""
    note = cell.note
    if cell.value is None:
        key = " data-missing"
    elif cell.value == cell.text and note is None:
        key = ""  # the page sorts by the text
    else:
        key = f' data-value="{escape(str(cell.value))}"'
    link = "" if note is None else f' <a href="#note_{note}" aria-label="note {note}">{note}</a>'
    return f"<{tag}{scope}{css_class}{key}>{escape(cell.text)}{link}</{tag}>"


def _render_notes(notes: Sequence[PaperNote]) -> str:
    items = []
    for i, note in enumerate(notes, start=1):
        label, text = note_texts(note)
        items.append(f'<li id="note_{i}"><b>{escape(label)}</b>: {escape(text)}</li>')
    listed = f'<ol class="notes">{"".join(items)}</ol>'
    if len(notes) > _MOST_OPEN_NOTES:
        listed = f"<details><summary>{len(notes):,} notes</summary>{listed}</details>"
    return f'<h3>The papers\' figures</h3>\n<p class="soft">{PAPER_MARK}</p>\n{listed}'
