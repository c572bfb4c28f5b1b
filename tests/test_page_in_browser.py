"""The page in a real browser: accessibility (axe), narrow windows, paper, keyboard, renewal."""

import dataclasses
import json
import re
import shutil
import subprocess
from importlib import resources

import numpy as np
import pytest
from browser import Browser, find_browser
from matplotlib.figure import Figure
from reported import make_sweep

from resflax.drawing.picture import Picture
from resflax.drawing.style import SIZE, plot_style
from resflax.report.build import make_sections
from resflax.report.cells import Cell, ReportTable
from resflax.report.collect import collect_runs
from resflax.report.groups import form_seed_groups
from resflax.report.page import Page, Section
from resflax.report.page_html import render_html

LONG = "a_name_without_spaces_" * 20


def draw_picture(title):
    with plot_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.subplots().imshow(np.eye(8))
    return Picture(title, figure, f"a diagonal {LONG}", f"A picture made of squares. {LONG}")


def make_page():
    """A page with all kinds of sections, and with names that are long."""
    cells = [Cell(LONG, LONG), *(Cell(f"{x} %", x) for x in np.linspace(0, 1, 20))]
    wide = ReportTable("Wide", ("name", *(f"column {i}" for i in range(20))), (tuple(cells),) * 3)
    return [
        Section("Words", sentences=("One is larger than the other.", LONG)),
        Section("Many pictures", tuple(map(draw_picture, "abc")), f"Squares. {LONG}"),
        Section("Many pictures", (draw_picture(""),)),
        Section("Wide", table=wide, files=("wide.csv",)),
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two pages: one that is finished, and one that is being renewed."""
    folder = tmp_path_factory.mktemp("pages")
    make_sweep(folder / "sweep")
    groups = form_seed_groups(collect_runs([folder / "sweep"]))
    sections = (*make_sections("r", groups), *make_page())
    page = Page(f"Everything {LONG}", ("8 runs.", f"Left out: {LONG}."), sections)
    for name, renewed in (("finished", False), ("renewed", True)):
        html = render_html(dataclasses.replace(page, renewed=renewed), "r-pictures")
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed")
    with Browser(program) as opened:
        yield opened


def faults_by_axe(browser):
    """What axe finds in the page that is shown: the rule and the HTML of its first element."""
    package = pytest.importorskip("axe_core_python")
    browser.evaluate((resources.files(package) / "axe.min.js").read_text(encoding="utf-8"))
    found = browser.evaluate(
        "axe.run({resultTypes: ['violations']}).then(found => JSON.stringify(found.violations))"
    )
    return [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in json.loads(found)]


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("finished", 1280, "light"), ("renewed", 1280, "dark"), ("renewed", 360, "light")],
)
def test_axe_finds_no_fault(browser, pages, name, width, scheme):
    browser.show(pages / f"{name}.html", width=width, scheme=scheme)
    assert faults_by_axe(browser) == []


def test_axe_finds_faults_that_are_put_in(browser, pages, tmp_path):
    html = (pages / "finished.html").read_text(encoding="utf-8")
    html = html.replace("--soft: #596068", "--soft: #cccccc").replace('role="img"', 'role="imag"')
    (tmp_path / "faulty.html").write_text(html, encoding="utf-8")
    browser.show(tmp_path / "faulty.html")
    assert {rule for rule, _ in faults_by_axe(browser)} == {"aria-roles", "color-contrast"}


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_page_is_as_wide_as_the_window_and_its_tables_scroll(browser, pages, width):
    browser.show(pages / "finished.html", width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate("innerWidth") == width  # a phone would otherwise zoom out
    regions = "[...document.querySelectorAll('.scroll')]"
    scrolls = browser.evaluate(f"{regions}.map(region => region.scrollWidth > region.clientWidth)")
    assert scrolls[-1]  # the one of 21 columns
    named = browser.evaluate(f"{regions}.map(region => [region.tabIndex, region.ariaLabel])")
    assert named[0] == [0, "Table: Results"]


def test_printed_tables_are_whole_and_black_on_white(browser, pages):
    browser.show(pages / "finished.html", width=680, scheme="dark", media="print")  # A4 - 2 x 15 mm
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    widths = "[...document.querySelectorAll('table')].map(table => table.offsetWidth)"
    *of_reports, _ = browser.evaluate(widths)
    assert max(of_reports) <= 680
    hidden = "[...document.querySelectorAll('nav, .filter, .skip')].map(x => x.offsetHeight)"
    assert set(browser.evaluate(hidden)) == {0}
    assert browser.to_pdf().startswith(b"%PDF")


FIRST_CELLS = "[...document.querySelector('tbody').rows].map(row => row.cells[2].textContent)"


def focused(browser):
    return browser.evaluate("document.activeElement.textContent")


def test_tables_are_sorted_and_filtered_by_keyboard(browser, pages):
    browser.show(pages / "finished.html")
    browser.press("Tab")
    assert focused(browser) == "Skip to the results"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    browser.press("Enter")
    assert browser.evaluate("location.hash") == "#main_"
    while browser.evaluate("document.activeElement.type") != "search":
        browser.press("Tab")  # past the links to the files of pictures
    for key in "zero":
        browser.press(key)
    status = "document.querySelector('[role=status]').textContent"
    assert browser.evaluate(status) == "1 of 2 rows"
    assert browser.evaluate("document.querySelectorAll('tbody tr:not([hidden])').length") < (
        browser.evaluate("document.querySelectorAll('tbody tr').length")
    )
    browser.press("Tab")  # the table, which scrolls
    assert browser.evaluate("document.activeElement.ariaLabel") == "Table: Results"
    label = "document.activeElement.ariaLabel"
    while browser.evaluate(label) != "Sort by test error":
        browser.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.evaluate(outline) == "solid"
    browser.press("Enter")
    assert browser.evaluate(FIRST_CELLS) == ["12.00 ± 2.00 %", "23.00 ± 3.00 %"]
    assert browser.evaluate("document.activeElement.parentElement.ariaSort") == "ascending"
    browser.press("Enter")
    assert browser.evaluate(FIRST_CELLS) == ["23.00 ± 3.00 %", "12.00 ± 2.00 %"]
    assert browser.evaluate("document.activeElement.parentElement.ariaSort") == "descending"
    browser.evaluate("document.querySelectorAll('thead th')[2].click()")  # anywhere in the head
    assert browser.evaluate(FIRST_CELLS) == ["12.00 ± 2.00 %", "23.00 ± 3.00 %"]


def test_every_printed_sheet_of_a_table_has_its_headers(browser, tmp_path):
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("there is no pdftotext")
    cells = tuple((Cell(f"row {i}", f"row {i}"), Cell(f"{i}", i)) for i in range(200))
    section = Section("Long", table=ReportTable("Long", ("the_name", "the_number"), cells))
    (tmp_path / "long.html").write_text(
        render_html(Page("A page", (), (section,)), "p"), encoding="utf-8"
    )
    browser.show(tmp_path / "long.html")
    (tmp_path / "long.pdf").write_bytes(browser.to_pdf())
    command = [program, "-layout", "long.pdf", "-"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    *sheets, _ = printed.stdout.decode().split("\f")
    assert len(sheets) > 2
    assert [re.findall("the_name|the_number", sheet) for sheet in sheets] == (
        [["the_name", "the_number"]] * len(sheets)
    )


def test_a_renewed_page_keeps_what_the_reader_chose(browser, pages, tmp_path):
    page = tmp_path / "r.html"
    html = (pages / "renewed.html").read_text(encoding="utf-8")
    paused = html.replace('checked data-seconds="20"', 'data-seconds="0.1"')
    assert paused != html
    page.write_text(paused, encoding="utf-8")
    browser.show(page)
    browser.evaluate("document.querySelectorAll('th button')[2].click()")  # test error
    browser.evaluate("scrollTo(0, 300)")
    finished = (pages / "finished.html").read_text(encoding="utf-8").replace("8 runs", "9 runs")
    page.write_text(finished, encoding="utf-8")
    assert "8 runs" in browser.evaluate("document.querySelector('header').textContent")
    browser.evaluate("document.getElementById('renew_').checked = true")
    browser.wait_until("document.querySelector('header')?.textContent.includes('9 runs')")
    browser.wait_until("document.readyState === 'complete'")
    assert browser.evaluate("scrollY") == 300
    assert browser.evaluate(FIRST_CELLS) == ["12.00 ± 2.00 %", "23.00 ± 3.00 %"]
    assert browser.evaluate("document.getElementById('renew_')") is None
