"""The report's tables as CSV and as Markdown."""

import csv
import io
import math
import re
from collections.abc import Sequence

from resflax.report.cells import Cell, ReportTable


def to_csv(table: ReportTable) -> str:
    """The table as CSV.

    Numbers have no units, and errors are in per cent. A standard deviation has a column of its own,
    after the column of its mean, and an interval has two columns, for its lower and its upper end.
    A text that a spreadsheet would take for a formula has an apostrophe before it (OWASP, "CSV
    Injection").
    """
    kinds = [_kind(table, column) for column in range(len(table.headers))]
    file = io.StringIO()
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    names = zip(table.headers, kinds, strict=True)
    plain.writerow([_no_formula(f"{name}{ending}") for name, kind in names for ending in kind])
    for cells in table.rows:
        pairs = zip(cells, kinds, strict=True)
        row = [_no_formula(entry) for cell, kind in pairs for entry in _entries(cell, kind)]
        # The csv module does not quote a carriage return by itself, and would read it as a new row.
        (quoted if any("\r" in str(entry) for entry in row) else plain).writerow(row)
    return file.getvalue()


_VALUE, _WITH_STD, _INTERVAL = ("",), ("", " std"), (" low", " high")
"""What is added to a header in each column of the CSV that it has."""


def _kind(table: ReportTable, column: int) -> tuple[str, ...]:
    cells = [row[column] for row in table.rows]
    if any(cell.high is not None for cell in cells):
        return _INTERVAL
    return _WITH_STD if any(cell.std is not None for cell in cells) else _VALUE


def _entries(cell: Cell, kind: tuple[str, ...]) -> list[float | str | None]:
    second = cell.high if kind == _INTERVAL else cell.std
    if second is not None and math.isnan(second):
        second = None
    return [cell.value, second][: len(kind)]


_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What formulas begin with. The last four are = + - @ as wide characters."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def _no_formula(entry: object) -> object:
    """The entry, with an apostrophe before a text that a spreadsheet would run."""
    if isinstance(entry, str) and _FORMULA.match(entry) and not _NUMBER.fullmatch(entry):
        return f"'{entry}"
    return entry


def to_markdown(table: ReportTable) -> str:
    """The rows of the table as Markdown, without its title."""
    separator = " | ".join(["---"] * len(table.headers))
    lines = [_markdown_row(table.headers)]
    lines += [
        f"| {separator} |",
        *(_markdown_row([cell.text for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(map(as_markdown, texts)) + " |"


_MARKUP = re.compile(r"[\\`*<>\[\]|~&#$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that may be markup. An underscore within a word is none."""


def as_markdown(text: str) -> str:
    """Markdown (with GitHub's tables) that is shown as the text itself, and has no markup."""
    escaped = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub(r"[\x00-\x1f\x7f]", lambda control: f"&#{ord(control[0])};", escaped)
