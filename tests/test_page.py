"""The report as files: the page, its Markdown, its tables and its pictures, and the command."""

import csv
import io
import itertools
import json
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from reported import BASE, make_run, make_sweep

from resflax.drawing.picture import to_inline_svg
from resflax.experiment import with_fields
from resflax.report.build import write_report
from resflax.report.collect import collect_runs
from resflax.report.curves import plot_error_curves
from resflax.report.groups import form_seed_groups
from resflax.report.tables import make_results_table
from resflax.report.texts import to_csv, to_markdown


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two shortcuts and three seeds, with one more run unfinished and one failed."""
    make_sweep(tmp_path / "sweep")
    return tmp_path / "sweep"


# The page


class PageParser(HTMLParser):
    """Collects the ids, links, loaded files and text of a page; tags must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.loaded, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "href" and tag == "a":
                self.links.append(value)
            elif name in ("src", "href", "xlink:href"):
                self.loaded.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "input"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_complete_and_needs_no_other_files(sweep, tmp_path):
    runs = collect_runs([sweep])
    paths = write_report(tmp_path / "out" / "r.html", runs, form_seed_groups(runs))
    assert sorted(path.name for path in paths) == [
        "r-comparisons.csv", "r-comparisons.tex", "r-pictures", "r-runs.csv", "r-runs.tex", "r.csv",
        "r.html", "r.md", "r.tex",
    ]  # fmt: skip
    html = (tmp_path / "out" / "r.html").read_text()
    page = PageParser()
    page.feed(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.loaded:
        assert link.startswith(("#", "data:")), link
    for link in page.links:
        assert link[0] != "#" or link[1:] in page.ids, link
        assert link[0] == "#" or (tmp_path / "out" / unquote(link)).is_file(), link
    assert not re.search(r"url\((?!#)", html)
    text = "".join(page.text)
    assert "failed: the loss is nan <at> step 7" in text  # escaped, and read back
    for count in ("8 runs: ", "1 unfinished", "6 finished", "1 failed"):
        assert count in text
    assert "8.75 % †" in text
    assert "Thin lines show the error on the training batches" in text
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_tables_of_an_earlier_report_do_not_stay(sweep, tmp_path):
    runs = collect_runs([sweep])
    for kept in (runs, runs[:1]):
        write_report(tmp_path / "r.html", kept, form_seed_groups(kept))
    assert not (tmp_path / "r-comparisons.csv").exists()
    assert (tmp_path / "r-runs.csv").exists()


def test_pictures_are_svg_in_the_text_colour_of_the_page(sweep):
    picture_of_errors, *_ = plot_error_curves(form_seed_groups(collect_runs([sweep])))
    picture = to_inline_svg(picture_of_errors)
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("aria-label") == picture_of_errors.description
    assert root.get("style", "").startswith("max-width:")
    assert root.get("width") is root.get("height") is None
    assert "currentColor" in picture
    assert "#010203" not in picture
    assert "font-family" not in picture
    assert "shortcut zero_pad" in picture  # text stays text


def test_csv_has_plain_numbers_and_columns_for_standard_deviations(sweep):
    table, _ = make_results_table(form_seed_groups(collect_runs([sweep])))
    none, zero_pad = csv.DictReader(io.StringIO(to_csv(table)))
    assert float(none["test error"]) == pytest.approx(23)
    assert float(none["test error std"]) == pytest.approx(3)
    assert zero_pad["parameters"] == "269434"
    assert float(zero_pad["paper"]) == 8.75
    assert "| shortcut zero_pad | 3 of 4 | 12.00 ± 2.00 % | 8.75 % † |" in to_markdown(table)


def test_only_finished_groups_have_a_papers_figure_and_equal_differences_name_the_first(tmp_path):
    for place, depth in enumerate((20, 32, 44, 56)):
        error = None if depth == 32 else 0.1
        fields = {"model.depth": depth, "batch_size": 64 if depth == 56 else 128}
        make_run(tmp_path / str(place), with_fields(BASE, fields), error)
    groups = form_seed_groups(collect_runs([tmp_path]))
    table, notes = make_results_table(groups)
    column = table.headers.index("paper")
    assert [row[column].note for row in table.rows] == [1, None, 2, 3]
    assert [row[column].text for row in table.rows] == ["8.75 % †", "-", "7.17 % †", "6.97 % †"]
    assert [note.same_as for note in notes] == [None, 1, None]
    unfinished, notes = make_results_table(groups[1:2])
    assert "paper" not in unfinished.headers
    assert len(unfinished.headers) == len(unfinished.rows[0]) == len(table.headers) - 1
    assert notes == []


HOSTILE = [
    "=HYPERLINK(\"http://x\",\"y\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\r=1",
    "\uff1d1", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:b)",
    "![a](b)", "`code`", "*em* _em_ __strong__", "_hidden", "a_b_c", "a|b", "\\|", "end\\",
    "~~no~~",
    "# no", "C# #", "&lt;&#65;", "two\nlines", "$\\frac$ and $x$", 'id="x" url(#y) #010203', "-0.5",
    "1. no", "> no", "<http://auto>", "\\", "a, b", "'", "ü ∞ 中",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A report of variants with hostile names, through the files of a sweep."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    folder, trials = tmp_path / "sweep", {}
    for place, name in enumerate(HOSTILE):
        for seed in (0, 1):
            trial = with_fields(BASE, {"batch_size": place + 1, "seed": seed})
            make_run(folder / "trials" / trial.content_hash, trial, 0.4 + (place + 3) % 7 / 100)
            trials[trial.content_hash] = {"name": name}
    (folder / "sweep.json").write_text(json.dumps({"experiment": {}, "trials": trials}))
    runs = collect_runs([folder])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of matplotlib, about space and glyphs
        write_report(tmp_path / "r.html", runs, form_seed_groups(runs), unreadable=HOSTILE)
    return tmp_path


def test_no_name_is_a_formula_for_a_spreadsheet_and_numbers_stay_numbers(hostile):
    for file in ("r.csv", "r-runs.csv", "r-comparisons.csv"):
        with open(hostile / file, newline="", encoding="utf-8") as text:
            header, *rows = csv.reader(text)
        assert {len(row) for row in rows} == {len(header)}
        for cell in itertools.chain(*rows):
            if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")):
                assert math.isfinite(float(cell))
        names = {row[0].removeprefix("'") if row[0] != "'" else "'" for row in rows}
        assert names <= set(HOSTILE)
    with open(hostile / "r-comparisons.csv", newline="", encoding="utf-8") as text:
        differences = [float(row["difference"]) for row in csv.DictReader(text)]
    assert min(differences) < 0 < max(differences)


def text_of(path):
    return path.read_bytes().decode()  # with its carriage returns


class CellParser(HTMLParser):
    """Collects the texts of a page's elements of one kind, and the names of all elements."""

    def __init__(self, kind):
        super().__init__(convert_charrefs=True)
        self.kind, self.inside, self.texts, self.tags = kind, False, [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == self.kind:
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag):
        self.inside &= tag != self.kind

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def test_rendered_markdown_shows_every_name_as_it_is(hostile):
    markdown_it = pytest.importorskip("markdown_it")
    render = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    page = CellParser("td")
    page.feed(render(text_of(hostile / "r.md")))
    assert page.tags == {
        *("h1", "h2", "h3", "p", "img", "ol", "ul", "li"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    shown = set(page.texts)
    assert {name.strip() for name in HOSTILE} <= {text.strip() for text in shown}
    paragraphs = CellParser("p")
    paragraphs.feed(render(text_of(hostile / "r.md")))
    left_out = [text for text in paragraphs.texts if text.startswith("Left out: ")]
    assert [text.removeprefix("Left out: ")[:-1] for text in left_out] == HOSTILE


def test_the_page_shows_every_name_as_it_is(hostile):
    html = text_of(hostile / "r.html")
    page, cells = PageParser(), CellParser("th")
    page.feed(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    cells.feed(html)
    assert set(HOSTILE) <= set(cells.texts)
    assert not {"img", "em"} & cells.tags
    assert html.count("<script>") == 1
    drawn = CellParser("text")
    drawn.feed(html)
    flat = {name for name in HOSTILE if not set("\n\r\t") & set(name)}
    assert flat <= {text.lstrip("\u200b") for text in drawn.texts}


def test_the_command_prints_its_files_and_refuses_another_ending(script, sweep, tmp_path):
    done = script("report", sweep, "--output", "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "page.html", "page.md", "page.csv", "page.tex", "page-comparisons.csv",
        "page-comparisons.tex", "page-runs.csv", "page-runs.tex", "page-pictures",
    ]  # fmt: skip
    (tmp_path / "other.md").mkdir()
    done = script("report", sweep, "--output", "other.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --output is other.md; that is a folder\n"
    assert not list(tmp_path.glob("other*.csv"))
    done = script("report", sweep, "--output", "page.pdf")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --output is 'page.pdf'; it must end in .html\n"


@pytest.mark.slow
def test_diagnostics_of_dense_and_gated_networks_are_pictures_of_the_page(script, tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(
        "from resflax import *\n"
        "experiment = Experiment(\n"
        "    name='nets', model=ResNet(8), batch_size=48, steps=4, log_every=2\n"
        ")\n"
        "sweep = Grid({'model': [DenseNet(10, 4), ResNet(8, shortcut='exclusive_gating')]})\n"
    )
    done = script("sweep", file, "--sweep-dir", "sweep")
    assert done.returncode == 0, done.stderr
    done = script("report", "sweep", "--diagnostics")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report.html").read_text()
    page = PageParser()
    page.feed(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    titles = re.findall(r"<figure><h3>([^<]+)</h3>", html)
    for title, count in {
        "The class, told from each depth": 1, "The picture, rebuilt from each depth": 1,
        "Layer responses": 2, "Gradients": 2, "Gradients over training": 2,
        "Signal at initialisation": 2, "Gates": 1,
        "Without single units": 2, "Feature reuse": 1, "First filters": 2,
        "First feature maps": 2, "Confusion": 2, "Surest mistakes": 2,
    }.items():  # fmt: skip
        assert titles.count(title) == count, title
