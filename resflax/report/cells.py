"""The cells and rows of the report's tables, and how numbers are written in them."""

import math
from dataclasses import dataclass

from resflax.text import duration

PAPER_MARK = (
    "† marks a figure that was measured under another protocol. It shows what the paper reports, "
    "not what these runs should reach."
)
"""The meaning of † after a paper's figure."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """The text that the page, the Markdown and the LaTeX show."""
    value: float | str | None = None
    """The value by which the page sorts and which the CSV has; None if there is nothing to show."""
    std: float | None = None
    """Standard deviation of the value; the CSV has it in a column of its own."""
    high: float | None = None
    """Upper end of an interval whose lower end is the value; the CSV has it in a column of its own.

    It is nan for an interval that is not known, and None for a cell that is no interval.
    """
    unit: str = ""
    """The unit in the text, with the space before it; "" if there is none."""
    note: int | None = None
    """Number of the cell's note below the table."""


@dataclass(frozen=True)
class ReportTable:
    """Rows of cells under headers, with a title."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    states: tuple[str, ...] = ()
    """The state of each row's run; empty if the rows are not runs."""

    def has_words(self, column: int) -> bool:
        """Whether a column has words, and not numbers."""
        return all(isinstance(row[column].value, str) for row in self.rows)


def decimal(value: float, digits: int, *, sign: bool = False) -> str:
    """The number with so many digits after the point; one that rounds to zero has no sign.

    From a million on, as losses that have exploded, it has a power of ten.

    Args:
      value: the number.
      digits: the number of digits after the point.
      sign: whether a positive number has a sign, too.
    """
    plus = "+" if sign else ""
    if abs(value) >= 1e6:
        return f"{value:{plus}.2e}"
    text = f"{value:{plus}.{digits}f}"
    return text if float(text) else text.lstrip("+-")


def percent_cell(fraction: float | None) -> Cell:
    """A fraction in per cent."""
    return (
        Cell("-")
        if fraction is None
        else Cell(f"{decimal(100 * fraction, 2)} %", 100 * fraction, unit=" %")
    )


def count_cell(count: float | None) -> Cell:
    """A number of things, rounded in the text, with commas between thousands.

    A value that is whole is an int, so that the CSV has no ".0".
    """
    if count is None:
        return Cell("-")
    return Cell(f"{count:,.0f}", int(count) if float(count).is_integer() else count)


def duration_cell(seconds: float | None) -> Cell:
    """A duration in minutes and seconds."""
    return Cell("-") if seconds is None else Cell(duration(seconds), seconds)


def p_cell(p: float) -> Cell:
    """A p-value; nan is shown as missing."""
    if math.isnan(p):
        return Cell("-")
    return Cell("< 0.0001" if p < 1e-4 else f"{p:.4f}", p)


def words_cell(text: str) -> Cell:
    """A text."""
    return Cell(text, text)
