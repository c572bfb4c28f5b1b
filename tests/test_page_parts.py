"""A page's sections as HTML, Markdown and files, each with what it shows and in which order."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from reported import BASE, make_sweep

from resflax.drawing.picture import Picture
from resflax.drawing.style import SIZE, plot_style
from resflax.report.build import write_report
from resflax.report.cells import Cell, ReportTable
from resflax.report.collect import collect_runs
from resflax.report.groups import form_seed_groups
from resflax.report.page import Page, Section, note_texts, picture_names, section_names
from resflax.report.page_html import MOST_ROWS, render_html
from resflax.report.page_markdown import render_markdown
from resflax.report.papers import nearest_figure
from resflax.report.tables import PaperNote


def draw_picture(title="", description="a line"):
    with plot_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.subplots().plot([1, 2], [3, 4])
    return Picture(title, figure, description)


def make_table(rows):
    cells = [(Cell(f"row {i}", f"row {i}"), Cell(f"{i} %", float(i))) for i in range(rows)]
    return ReportTable("Squares", ("name", "share"), tuple(cells))


def render(*sections, renewed=False):
    return render_html(Page("title", ("summary",), sections, renewed), "a folder-pictures")


def test_a_section_shows_its_parts_in_order():
    figure = nearest_figure(BASE)
    assert figure is not None
    section = Section(
        "Heading", (draw_picture("Picture"),), "An explanation.", ("A sentence.",),
        make_table(2), ("r.csv", "r.tex"), (PaperNote("Label", figure, ("depth: 20 != 8",)),),
    )  # fmt: skip
    parts = (
        "Heading", "An explanation.", "A sentence.", "Picture", "<svg", "SVG</a>", "row 1",
        "CSV</a>", "TEX</a>", "Label", "depth: 20 ≠ 8",
    )  # fmt: skip
    html = render(section).partition("<main")[2]
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
    markdown = render_markdown(Page("title", ("summary",), (section,)), "a folder-pictures")
    lines = (
        "# title\n", "summary", "## Heading\n\nAn explanation.\n\n- A sentence.\n", "### Picture",
        "![a line](a%20folder-pictures/heading-picture.svg)", "| row 1 | 1 % |", "Label",
    )  # fmt: skip
    places = [markdown.index(line) for line in lines]
    assert places == sorted(places)
    assert markdown.count("Heading") == 1


@pytest.mark.parametrize(
    ("section", "shown"),
    [
        (Section("x", explanation="Nothing follows."), False),
        (Section("x", table=make_table(0)), False),
        (Section("x", table=make_table(1)), True),
        (Section("x", sentences=("One.",)), True),
        (Section("x", (draw_picture(),)), True),
    ],
)
def test_a_section_without_content_is_known(section, shown):
    assert section.has_content == shown


def test_a_long_table_says_how_much_of_it_is_shown():
    section = Section("x", table=make_table(MOST_ROWS + 1), files=("r-squares.csv",))
    html = render(section)
    assert html.count("<tr") == MOST_ROWS + 1  # with the headers
    assert "The first 1,000 of 1,001 rows; the files have all of them: " in html
    assert 'href="r-squares.csv"' in html
    markdown = render_markdown(Page("title", (), (section,)), "p")
    assert f"| row {MOST_ROWS} |" in markdown
    section = Section("x", table=make_table(MOST_ROWS), files=("r-squares.csv",))
    assert "The first" not in render(section)


def test_a_page_that_is_renewed_says_so():
    section = Section("x", sentences=("One.",))
    assert "renew_" in render(section, renewed=True).partition("<script>")[0]
    assert "renew_" not in render(section).partition("<script>")[0]


@given(st.lists(st.tuples(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3))))
@settings(deadline=None, max_examples=100)
def test_names_are_safe_and_distinct(titles):
    figure = Figure()
    sections = [
        Section(title, tuple(Picture(name, figure, "") for name in names))
        for title, names in titles
    ]
    anchors = section_names(sections)
    files = [name for names in picture_names(sections) for name in names]
    for names in (anchors, files):
        assert len(names) == len(set(names))
        assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert [len(names) for names in picture_names(sections)] == [len(names) for _, names in titles]


def test_names_are_made_of_titles():
    pictures = tuple(Picture(title, Figure(), "") for title in ("", "order post", "Größe ≠ 3", ""))
    sections = [
        Section("Training loss, against depth", pictures),
        Section("x" * 300, pictures[:2]),
        Section("!", pictures),
    ]
    assert picture_names(sections) == [
        [
            "training-loss-against-depth",
            "training-loss-against-depth-order-post",
            "training-loss-against-depth-grosse-3",
            "training-loss-against-depth-2",
        ],
        ["x" * 60, f"{'x' * 60}-order-post"],
        ["picture", "order-post", "grosse-3", "picture-2"],
    ]


def test_pictures_are_files_for_papers(tmp_path):
    section = Section("Error", (draw_picture("one"), draw_picture("two")))
    make_sweep(tmp_path / "sweep")
    runs = collect_runs([tmp_path / "sweep"])
    folder = tmp_path / "r-pictures"
    folder.mkdir()
    (folder / "mine.svg").write_text("mine")
    files = write_report(tmp_path / "r.html", runs, form_seed_groups(runs), [section])
    assert files[-1] == folder
    names = {path.name for path in folder.iterdir()}
    assert {"mine.svg", "error-one.svg", "error-one.pdf", "error-two.svg", "error-two.pdf"} <= names
    svg = ElementTree.fromstring((folder / "error-one.svg").read_text())
    assert svg.get("width") == "374.4pt"  # 5.2 inches
    text = (folder / "error-one.svg").read_text()
    assert "#010203" in text
    assert "currentColor" not in text
    assert "#ffffff" not in text  # no background
    pdf = (folder / "error-one.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 374.4 259.2 ]" in pdf
    assert b"/FontFile2" in pdf  # TrueType, which Type 42 embeds
    assert b"/Type3" not in pdf
    for text in ((tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()):
        assert "r-pictures/error-two.svg" in text
    before = {path: path.read_bytes() for path in folder.iterdir()}
    write_report(tmp_path / "r.html", runs, form_seed_groups(runs), [section])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_equal_differences_from_papers_are_told_once():
    figure = nearest_figure(BASE)
    assert figure is not None
    texts = [
        note_texts(PaperNote("x", figure, ("depth: 20 != 8",), same_as))[1] for same_as in (None, 1)
    ]
    assert texts[0].endswith("† another protocol (paper ≠ here): depth: 20 ≠ 8.")
    assert texts[1].endswith("† differs from the paper as note 1 does.")
    assert "depth: 20" not in texts[1]
