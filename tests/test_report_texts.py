"""The report's tables as CSV, Markdown and LaTeX, with names that are markup in each of them."""

import csv
import html
import io
import math
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resflax.report.cells import Cell, ReportTable, words_cell
from resflax.report.latex import as_latex, to_latex
from resflax.report.texts import to_csv, to_markdown

NAMES = [
    "plain", "a_b", "100 %", "R&D", "$x$", "#1", "{a}", "\\", "end\\", "\\frac{1}{2}", "~", "^2",
    "a|b", "<b>", '"quoted"', "it's", "`code`", "[a](b)", "[", "*", "* a", "--- ,, ?` !` ''",
    "-0.5", "=1+2", "&lt;", "a, b", "ü ß ő", "± † ∞ ≠", "two\nlines", "\ttab", "x\ry", "%", "\\\\",
]  # fmt: skip

TABLE = ReportTable(
    "Names & 100 %",
    ("variant", "error", "95 % interval", "n"),
    tuple(
        (
            words_cell(name),
            Cell(f"-{place}.50 ± 0.25 %", -place - 0.5, std=0.25),
            Cell("-", high=math.nan) if place % 3 else Cell("-2.0 to +1.0", -2.0, high=1.0),
            Cell("-") if place == 1 else Cell(f"{place} of 99", place),
        )
        for place, name in enumerate(NAMES)
    ),
)

UNESCAPED = {
    "textbackslash{}": "\\", "{": "{", "}": "}", "$": "$", "&": "&", "#": "#", "%": "%", "_": "_",
    "textasciicircum{}": "^", "textasciitilde{}": "~", "textless{}": "<", "textgreater{}": ">",
    "textbar{}": "|", "textasciigrave{}": "`", "textquotesingle{}": "'", "char34{}": '"',
    "textpm{}": "±", "textdagger{}": "†",
}  # fmt: skip
"""What LaTeX shows for each command."""


def shown_by_latex(source):
    """The text that LaTeX shows, by the commands that a name may have."""

    def shown(token):
        command, math_mode, group = token.groups()
        if command is not None:
            return UNESCAPED[command]
        return {"-": "-", "\\neq": "≠", "\\infty": "∞"}[math_mode] if math_mode else group or ""

    commands = "|".join(map(re.escape, sorted(UNESCAPED, key=len, reverse=True)))
    return re.sub(rf"\\({commands})|\$([^$]+)\$|\{{([*\[\]]?)\}}", shown, source)


def without_control(text):
    return re.sub(r"[\x00-\x1f]", " ", text)


def latex_rows(source):
    """The cells of all rows under the first \\midrule."""
    body = re.split(r"\\(?:endhead|midrule)\n", source)[-1]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    return [row.removesuffix(r" \\").split(" & ") for row in rows]


def test_csv_markdown_and_latex_have_the_same_cells():
    rows = list(csv.DictReader(io.StringIO(to_csv(TABLE), newline="")))
    markdown = [line[2:-2].split(" | ") for line in to_markdown(TABLE).splitlines()[2:]]
    latex = latex_rows(to_latex(TABLE, "r", "A"))
    assert len(rows) == len(markdown) == len(latex) == len(NAMES)
    for cells, row, in_markdown, in_latex in zip(TABLE.rows, rows, markdown, latex, strict=True):
        texts = [cell.text for cell in cells]
        plain = [html.unescape(re.sub(r"\\(\W)", r"\1", re.sub("&(?!#)", "&amp;", text)))
                 for text in in_markdown]  # fmt: skip
        assert plain == texts
        assert [shown_by_latex(cell) for cell in in_latex] == list(map(without_control, texts))
        name, error, interval, n = cells
        assert row["variant"] in (name.value, f"'{name.value}")
        assert (float(row["error"]), float(row["error std"])) == (error.value, error.std)
        ends = [row["95 % interval low"], row["95 % interval high"]]
        assert ends == (["", ""] if interval.value is None else ["-2.0", "1.0"])
        assert row["n"] == ("" if n.value is None else str(n.value))


@given(st.text(st.characters(max_codepoint=0x17F)))
def test_latex_shows_any_text_as_it_is(text):
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)
    latex = as_latex(text)
    assert shown_by_latex(latex) == plain
    assert not latex.startswith(("[", "*"))  # they would belong to the \\ before them
    assert not re.search(r"--|,,|''|``|[?!]`|\n", latex)


def test_latex_has_the_rules_the_caption_and_columns_by_kind():
    table = ReportTable("Runs", ("variant", "error"), ((words_cell("a"), Cell("-1.5 %", -1.5)),))
    assert to_latex(table, "my_sweep", "100 %") == "\n".join([
        r"% Packages: booktabs, graphicx; \usepackage[T1]{fontenc} for accents.",
        r"\begin{table}",
        r"\centering",
        r"\caption{Runs of 100 \%}\label{tab:my_sweep-runs}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{\begin{tabular}{lr}",
        r"\toprule",
        r"variant & error \\",
        r"\midrule",
        r"a & $-$1.5 \% \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def test_latex_has_a_common_unit_in_the_header_and_explains_the_dagger():
    def table(mark, last):
        errors = (Cell("1 ± 2 %", 1, 2, unit=" %"), Cell(f"3 %{mark}", 3, unit=" %", note=1))
        rows = ((*errors, Cell("4 points", 4, unit=" points")), (Cell("-"), Cell("-"), last))
        return ReportTable("Results", ("error", "paper", "difference"), rows)

    latex = to_latex(table(" †", Cell("5", 5)), "r", "A")
    assert r"error (\%) & paper (\%) & difference \\" in latex
    assert latex_rows(latex) == [
        [r"1 \textpm{} 2", r"3 \textdagger{}", "4 points"],
        ["-", "-", "5"],
    ]
    assert r"\caption{Results of A. \textdagger{} marks a figure that" in latex
    latex = to_latex(table("", Cell("-")), "r", "A")
    assert r"\caption{Results of A}\label{tab:r-results}" in latex
    assert r"difference (points) \\" in latex


def test_latex_breaks_tables_of_more_than_40_rows_over_pages():
    rows = tuple((words_cell(str(i)),) for i in range(41))
    long, short = (
        to_latex(ReportTable("Runs", ("variant",), rows[:n]), "r", "A") for n in (41, 40)
    )
    assert r"\begin{longtable}{l}" in long
    assert long.count(r"variant \\") == 2  # on the first page and on the others
    assert "longtable" not in short


def test_latex_says_which_characters_need_another_engine():
    table = ReportTable("Runs", ("variant",), ((words_cell("中 ∞ ü 文"),),))
    assert to_latex(table, "r", "A").splitlines()[1] == (
        "% LuaLaTeX or XeLaTeX, with a font that has 中 文"
    )
    assert "LuaLaTeX" not in to_latex(TABLE, "r", "A")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex")
def test_latex_compiles_hostile_names(tmp_path):
    long = ReportTable("Long", TABLE.headers, 2 * TABLE.rows)
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx,longtable}"
    body = f"{to_latex(TABLE, 'a', 'A_1')}{to_latex(long, 'b', '')}"
    source = f"{preamble}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000
