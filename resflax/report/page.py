"""The parts of a report's page, in their order. How they are shown is said in other modules."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resflax.drawing.picture import Picture
from resflax.report.cells import ReportTable
from resflax.report.tables import PaperNote

_LONGEST = 60
"""The most characters that a name has of one title."""


@dataclass(frozen=True)
class Section:
    """What stands under one heading, in the order of the fields; each part may be missing."""

    title: str
    pictures: tuple[Picture, ...] = ()
    explanation: str = ""
    """What the section shows and how it was measured; it comes first, under the heading."""
    sentences: tuple[str, ...] = ()
    """The section in words; it comes before the pictures."""
    table: ReportTable | None = None
    files: tuple[str, ...] = ()
    """The names of the files beside the page that have all rows of the table."""
    notes: tuple[PaperNote, ...] = ()
    """Notes on the table's figures from papers, which its cells name by number from 1."""

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show under the heading and the explanation."""
        return bool(self.pictures or self.sentences or (self.table and self.table.rows))


@dataclass(frozen=True)
class Page:
    """A report as a list of sections, which are shown in order."""

    title: str
    summary: tuple[str, ...]
    """Lines of text under the title."""
    sections: tuple[Section, ...]
    """The sections; none is empty."""
    renewed: bool = False
    """Whether the files of the page are written again and again while somebody looks at it."""


def note_texts(note: PaperNote) -> tuple[str, str]:
    """The label of a note, and its text."""
    figure = note.figure
    protocol = "the same protocol"
    if note.same_as is not None:
        protocol = f"† differs from the paper as note {note.same_as} does"
    elif note.differences:
        differences = "; ".join(note.differences).replace(" != ", " ≠ ")
        protocol = f"† another protocol (paper ≠ here): {differences}"
    return note.label, f"{figure.source}: {figure.printed}; {figure.description}. {protocol}."


def section_names(sections: Sequence[Section]) -> list[str]:
    """A name for each section, for links: small letters, digits and hyphens; no two are equal."""
    return _distinct(_as_name(section.title) or "section" for section in sections)


def picture_names(sections: Sequence[Section]) -> list[list[str]]:
    """For each section the names of its pictures, which are the names of their files.

    They are made of the titles of section and picture, so that they stay the same from report to
    report: small letters, digits and hyphens. No two are equal.
    """
    names = iter(
        _distinct(
            f"{_as_name(section.title)}-{_as_name(picture.title)}".strip("-") or "picture"
            for section in sections
            for picture in section.pictures
        )
    )
    return [[next(names) for _ in section.pictures] for section in sections]


def _as_name(title: str) -> str:
    """The letters and digits of a title, without accents, and with hyphens for all else."""
    letters = unicodedata.normalize("NFKD", title.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", letters.lower()).strip("-")[:_LONGEST].rstrip("-")


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, of which equal ones get a number from the second on."""
    distinct: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}-{count}" for count in itertools.count(2))
        distinct[next(n for n in itertools.chain([name], numbered) if n not in distinct)] = None
    return list(distinct)
