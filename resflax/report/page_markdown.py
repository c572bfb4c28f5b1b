"""Shows a page as Markdown, with its pictures as links to files."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from resflax.report.cells import PAPER_MARK
from resflax.report.page import Page, Section, note_texts, picture_names
from resflax.report.texts import as_markdown, to_markdown


def render_markdown(page: Page, folder: str) -> str:
    """The page as Markdown (with GitHub's tables).

    Args:
      page: the page.
      folder: the folder of the pictures' files, as seen from the file of the Markdown.
    """
    lines = [f"# {as_markdown(page.title)}", *map(as_markdown, page.summary)]
    for section, names in zip(page.sections, picture_names(page.sections), strict=True):
        files = [f"{quote(folder)}/{name}.svg" for name in names]
        lines += _render_section(section, files)
    return "\n\n".join(lines) + "\n"


def _render_section(section: Section, files: Sequence[str]) -> Iterator[str]:
    yield f"## {as_markdown(section.title)}"
    if section.explanation:
        yield as_markdown(section.explanation)
    if section.sentences:
        yield "\n".join(f"- {as_markdown(sentence)}" for sentence in section.sentences)
    for picture, file in zip(section.pictures, files, strict=True):
        if picture.title:
            yield f"### {as_markdown(picture.title)}"
        yield f"![{as_markdown(picture.description)}]({file})"
        if picture.caption:
            yield as_markdown(picture.caption)
    if section.table is not None and section.table.rows:
        yield to_markdown(section.table).rstrip("\n")
    if section.notes:
        yield f"### The papers' figures\n\n{PAPER_MARK}"
        yield "\n".join(
            f"{i}. For {as_markdown(label)}: {as_markdown(text)}"
            for i, (label, text) in enumerate(map(note_texts, section.notes), start=1)
        )
