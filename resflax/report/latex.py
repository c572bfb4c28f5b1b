"""The report's tables as LaTeX."""

import re

from resflax.report.cells import PAPER_MARK, Cell, ReportTable

_LONGEST = 40
"""The most rows of a table that is not broken over pages."""

_SYMBOLS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    '"': r"\char34{}",
    "[": "{[}",  # a bracket or a star at the start of a row would be an argument of the row before
    "]": "{]}",
    "*": "{*}",
    "±": r"\textpm{}",
    "†": r"\textdagger{}",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
}
"""LaTeX for characters that do not stand for themselves, or that pdfLaTeX lacks."""
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Makes what follows as narrow as the text, if it is wider."""
_LIGATURE = re.compile(r"([-,])(?=\1)")
"""The first of two characters that LaTeX would make one."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OTHER_SCRIPT = re.compile(r"[^\x00-\u017f]")
"""Characters that pdfLaTeX does not know, unless they are in `_SYMBOLS`."""


def to_latex(table: ReportTable, name: str, title: str) -> str:
    r"""The table as LaTeX, with the rules of booktabs, a caption and a label.

    The caption is the table's title "of" the report's, and explains † if it occurs. The label is
    `tab:NAME-results` for a table with the title "Results". Words are aligned to the left, and
    numbers to the right. A unit that all cells of a column have stands in the header alone. A table
    that is too wide is made smaller. A table of more than 40 rows is a longtable in small type,
    which may be broken over pages. Names are shown as they are, but control characters, such as the
    ends of lines, become spaces.

    Args:
      table: the table.
      name: the name of the report's files, which tells its tables from those of other reports.
      title: the title of the report.
    """
    columns = "".join("l" if table.has_words(i) else "r" for i in range(len(table.headers)))
    units = [_common_unit(table, i) for i in range(len(table.headers))]
    headers = [
        as_latex(f"{header} ({unit.strip()})" if unit else header)
        for header, unit in zip(table.headers, units, strict=True)
    ]
    head = [r"\toprule", _row(headers), r"\midrule"]
    rows = [_row([*map(_cell, row, units)]) for row in table.rows]
    label = re.sub(r"\W+", "-", f"{name}-{table.title.lower()}")
    words = f"{table.title} of {title}"
    if any(cell.text.endswith(" †") for row in table.rows for cell in row if cell.note):
        words += f". {PAPER_MARK}"
    caption = rf"\caption{{{as_latex(words)}}}\label{{tab:{label}}}"
    if len(table.rows) > _LONGEST:
        packages = "booktabs, longtable"
        body = [r"{\scriptsize\setlength{\tabcolsep}{3pt}", rf"\begin{{longtable}}{{{columns}}}"]
        body += [rf"{caption}\\", *head, r"\endfirsthead", *head, r"\endhead"]
        body += [r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}}"]
    else:
        packages = "booktabs, graphicx"
        body = [
            r"\begin{table}",
            r"\centering",
            caption,
            rf"{_FITTED}{{\begin{{tabular}}{{{columns}}}",
        ]
        body += [*head, *rows, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    needs = [f"% Packages: {packages}; \\usepackage[T1]{{fontenc}} for accents."]
    others = sorted(set(_OTHER_SCRIPT.findall("\n".join(body))))
    if others:
        needs.append(f"% LuaLaTeX or XeLaTeX, with a font that has {' '.join(others)}")
    return "\n".join([*needs, *body]) + "\n"


def _row(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"


def _common_unit(table: ReportTable, column: int) -> str:
    """The unit that all cells of a column with a value have; "" if they differ."""
    units = {row[column].unit for row in table.rows if row[column].value is not None}
    return units.pop() if len(units) == 1 else ""


def _cell(cell: Cell, common_unit: str) -> str:
    """The cell without the unit that stands in the header."""
    text = as_latex(cell.text if cell.value is None else cell.text.replace(common_unit, "", 1))
    return text if isinstance(cell.value, str) else re.sub(r"-(?=\d)", "$-$", text)


def as_latex(text: str) -> str:
    """LaTeX that is shown as the text itself, with spaces in place of control characters."""
    plain = _CONTROL.sub(" ", text)
    return _LIGATURE.sub(
        r"\1{}", "".join(_SYMBOLS.get(character, character) for character in plain)
    )
