"""Reports of runs, against numbers that were worked out by hand."""

import csv
import io
import itertools
import json
import math
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from resflax import CIFAR10, SGD, Cosine, DenseNet, Digits, Experiment, ResNet, StepDecay
from resflax.drawing.picture import to_inline_svg
from resflax.errors import UsageError
from resflax.experiment import to_json, with_fields
from resflax.report.build import write_report
from resflax.report.collect import collect_runs
from resflax.report.curves import plot_error_curves
from resflax.report.groups import form_seed_groups
from resflax.report.papers import nearest_figure, paper_figures, protocol_differences
from resflax.report.statistics import Spread, compare_by_seed, compute_spread, sign_flip_p
from resflax.report.tables import (
    make_comparisons_table,
    make_results_table,
    to_csv,
    to_markdown,
)

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)


def make_run(path, experiment, error=None, *, rate=1000.0, train=0.01):
    """Writes a run folder; the run is unfinished if it has no error."""
    path.mkdir(parents=True)
    (path / "experiment.json").write_text(json.dumps(to_json(experiment)))
    lines = []
    for step in (50, 100):
        common = {"step": step, "epoch": 1.0, "loss": 1.0, "seconds": step / 10}
        lines.append(common | {"split": "train", "error": 0.3, "images_per_second": rate})
        lines.append(common | {"split": "test", "error": 0.5 if error is None else error})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if error is not None:
        result = {
            "status": "finished", "steps": 100, "test_error": error, "test_loss": 1.0,
            "train_error": train, "train_loss": 10 * train, "params": 269434, "macs": 2516608,
            "seconds": 61.0,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two shortcuts and three seeds, with one more run unfinished and one failed."""
    errors = {"zero_pad": [0.10, 0.12, 0.14], "none": [0.20, 0.26, 0.23]}
    folder = tmp_path / "sweep"
    trials = {}
    for shortcut, per_seed in errors.items():
        for seed, error in enumerate(per_seed):
            trial = with_fields(BASE, {"model.shortcut": shortcut, "seed": seed})
            make_run(folder / "trials" / trial.content_hash, trial, error)
            trials[trial.content_hash] = {"name": None}
    unfinished = with_fields(BASE, {"seed": 9})
    make_run(folder / "trials" / unfinished.content_hash, unfinished)
    failed = with_fields(BASE, {"model.shortcut": "none", "seed": 9})
    make_run(folder / "trials" / failed.content_hash, failed)
    (folder / "ended").mkdir()
    ended = {"state": "failed", "why": "the loss is nan <at> step 7"}
    (folder / "ended" / f"{failed.content_hash}.json").write_text(json.dumps(ended))
    trials |= {trial.content_hash: {"name": None} for trial in (unfinished, failed)}
    (folder / "sweep.json").write_text(json.dumps({"experiment": {}, "trials": trials}))
    return folder


# Runs and groups


def test_the_page_and_the_trackers_do_not_import_jax():
    code = "import sys, resflax.report.build, resflax.report.trackers; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_runs_of_a_group_differ_in_the_seed_alone(sweep):
    groups = form_seed_groups(collect_runs([sweep]))
    assert [(g.label, len(g.runs), len(g.finished)) for g in groups] == [
        ("shortcut none", 4, 3), ("shortcut zero_pad", 4, 3),
    ]  # fmt: skip
    states = sorted(run.state for g in groups for run in g.runs)
    assert states == ["failed", *["finished"] * 6, "unfinished"]


def test_a_run_named_twice_counts_once(sweep):
    trial = next((sweep / "trials").iterdir())
    assert len(collect_runs([sweep, trial, sweep.parent])) == 8


def test_fields_that_follow_from_others_are_left_out_of_the_labels(tmp_path):
    make_run(tmp_path / "0", with_fields(BASE, {"model.shortcut": "zero_pad"}), 0.1)
    make_run(tmp_path / "1", with_fields(BASE, {"model.shortcut": "shortcut_gating"}), 0.1)
    make_run(tmp_path / "2", with_fields(BASE, {"model.depth": 32}), 0.1)
    labels = [group.label for group in form_seed_groups(collect_runs([tmp_path]))]
    assert labels == [
        "depth 20, shortcut shortcut_gating",
        "depth 20, shortcut zero_pad",
        "depth 32, shortcut zero_pad",
    ]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no runs"):
        collect_runs([tmp_path])
    with pytest.raises(UsageError, match="there is no such folder"):
        collect_runs([tmp_path / "none"])


def test_a_folder_that_cannot_be_read_is_named_and_left_out(sweep, tmp_path):
    broken = tmp_path / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "experiment.json").write_text('{"format": 99}')
    faults: list[str] = []
    runs = collect_runs([broken.parent, sweep], faults.append)
    assert len(runs) == len(collect_runs([sweep]))
    (fault,) = faults
    assert "experiment.format is 99" in fault
    write_report(tmp_path / "page.html", runs, form_seed_groups(runs), unreadable=faults)
    assert fault in (tmp_path / "page.md").read_text()
    with pytest.raises(UsageError, match=r"experiment\.format is 99"):
        collect_runs([broken.parent])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty has no runs"):
        collect_runs([broken.parent, sweep, tmp_path / "empty"])


# Numbers


def test_the_results_have_the_mean_and_the_samples_standard_deviation(sweep):
    table, _ = make_results_table(form_seed_groups(collect_runs([sweep])))
    none, zero_pad = (dict(zip(table.headers, row, strict=True)) for row in table.rows)
    assert none["test error"].text == "23.00 ± 3.00 %"
    assert zero_pad["test error"].text == "12.00 ± 2.00 %"
    assert zero_pad["n"].text == "3 of 4"
    assert zero_pad["time"].text == "1:01"
    assert zero_pad["parameters"].text == "269,434"
    assert zero_pad["images/s"].text == "1,000"


@given(st.lists(st.tuples(st.integers(0, 355), st.integers(0, 355)), min_size=2, max_size=9))
@settings(deadline=None, max_examples=40)
def test_comparisons_agree_with_the_formulas_and_with_counting(mistakes):
    counted_differences = np.array([second - first for first, second in mistakes])
    assume(len(set(counted_differences)) > 1)  # a t-test needs variance
    first, second = (np.array(mistakes)[:, i] / 355 for i in (0, 1))
    comparison = compare_by_seed(dict(enumerate(first)), dict(enumerate(second)))
    assert comparison is not None
    n = len(mistakes)
    mean, error = np.mean(second - first), np.std(second - first, ddof=1) / np.sqrt(n)
    p_t = 2 * stats.t.sf(abs(mean) / error, n - 1)
    assert comparison.p_t == pytest.approx(p_t, rel=1e-6, abs=1e-12)
    reach = stats.t.ppf(0.975, n - 1) * error
    assert comparison.interval == pytest.approx((mean - reach, mean + reach), rel=1e-6, abs=1e-12)
    # Whole numbers are added without rounding, so equal sums are equal here.
    signs = np.array(list(itertools.product((1, -1), repeat=n)))
    as_large = np.abs(signs @ counted_differences) >= abs(counted_differences.sum())
    assert comparison.p_exact == pytest.approx(as_large.mean(), abs=1e-12)


def test_only_common_seeds_are_paired():
    comparison = compare_by_seed({0: 0.1, 1: 0.2, 5: 0.9}, {1: 0.3, 0: 0.4, 7: 0.0})
    assert comparison is not None
    assert comparison.n == 2
    assert comparison.mean == pytest.approx(0.2)
    assert compare_by_seed({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_no_interval_and_no_t():
    comparison = compare_by_seed({3: 0.1}, {3: 0.3})
    assert comparison is not None
    assert comparison.mean == pytest.approx(0.2)
    assert np.isnan([*comparison.interval, comparison.p_t]).all()
    assert comparison.p_exact == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [((0.5, 0.25, 0.75), (0.75, 0.5, 1.0)), ((0.1, 0.3, 0.7), (0.35, 0.55, 0.95))],
    ids=["exactly", "but for rounding"],
)
def test_equal_differences_have_an_interval_of_one_point_and_no_t(first, second):
    comparison = compare_by_seed(dict(enumerate(first)), dict(enumerate(second)))
    assert comparison is not None
    assert comparison.interval == (comparison.mean, comparison.mean)
    assert comparison.mean == pytest.approx(0.25)
    assert np.isnan(comparison.p_t)
    assert comparison.p_exact == 2 / 8


def test_five_pairs_that_agree_have_the_least_p_of_five():
    assert sign_flip_p(np.array([1.0, 2, 3, 4, 5])) == 2 / 32
    assert sign_flip_p(np.zeros(3)) == 1


def test_beyond_16_pairs_sign_flips_are_sampled_in_the_same_way_each_time():
    assert sign_flip_p(np.arange(1.0, 31)) == 1 / 20_000
    differences = np.array([1.0, -1.0, 1.0] * 6)  # of 18 signs, 12 or more are equal
    expected = 2 * stats.binom.sf(11, 18, 0.5)
    assert sign_flip_p(differences) == pytest.approx(expected, abs=0.02)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_a_single_value_has_no_standard_deviation():
    assert compute_spread([0.5]) == Spread(1, 0.5, None)
    assert compute_spread([]) is None


def test_comparisons_are_of_the_seeds_that_both_groups_have(sweep):
    table = make_comparisons_table(form_seed_groups(collect_runs([sweep])))
    row = next(row for row in table.rows if row[2].text == "test error")
    assert [cell.text for cell in row[:5]] == [
        "shortcut none", "shortcut zero_pad", "test error", "3", "-11.00 points",
    ]  # fmt: skip
    assert row[7].value == 2 / 8


# The papers


def test_each_table_has_as_many_figures_as_in_its_paper():
    assert Counter(figure.source for figure in paper_figures()) == {
        "He et al. 2015, Table 6": 6,
        "He et al. 2015, Figure 6": 1,
        "He et al. 2016, Table 1": 15,
        "He et al. 2016, Table 2": 10,
        "He et al. 2016, Tables 3 and 4": 6,
        "Zagoruyko & Komodakis 2016, Table 5": 3,
        "Huang et al. 2017, Table 2": 22,
    }


def figure_for(experiment):
    """The paper's figure for an experiment that has one."""
    figure = nearest_figure(experiment)
    assert figure is not None
    return figure


def test_the_papers_protocol_is_recognised_and_differences_are_listed():
    paper = Experiment(
        name="anything", seed=4, model=ResNet(56), data=CIFAR10(normalization="pixel"),
        batch_size=128, steps=64_000, optimizer=SGD(),
        schedule=StepDecay(boundaries=(32_000, 48_000)),
    )  # fmt: skip
    figure = figure_for(paper)
    assert (figure.printed, figure.source) == ("6.97 %", "He et al. 2015, Table 6")
    assert protocol_differences(figure, paper) == []
    other = with_fields(
        paper, {"data": Digits(), "epochs": 8, "schedule": Cosine(), "batch_size": 64}
    )
    assert figure_for(other) == figure
    assert protocol_differences(figure, other) == [
        "batch_size: 128 != 64",
        "data.crop_padding: 4 != 1",
        "data.flip: True != False",
        "data.name: 'cifar10' != 'digits'",
        "data.normalization: 'pixel' != 'channel'",
        "schedule.type: 'StepDecay' != 'Cosine'",
        "length: 64,000 steps != 8 epochs",
    ]
    assert nearest_figure(with_fields(paper, {"model.depth": 26})) is None


def test_a_network_with_several_figures_gets_the_one_of_the_nearest_protocol():
    dense = Experiment(
        name="x", model=DenseNet(100, 12, dropout_rate=0.2),
        data=CIFAR10(crop_padding=0, flip=False), batch_size=64, epochs=300,
        optimizer=SGD(nesterov=True), schedule=StepDecay(boundaries=(0.5, 0.75)),
    )  # fmt: skip
    assert figure_for(dense).printed == "5.92 %"
    assert protocol_differences(figure_for(dense), dense) == []
    augmented = with_fields(dense, {"data": CIFAR10(), "model.dropout_rate": 0.0})
    assert figure_for(augmented).printed == "4.51 %"
    assert figure_for(with_fields(BASE, {"model.depth": 110})).printed == "6.61 ± 0.16 %"
    wide = with_fields(BASE, {"model": ResNet(28, widening=10, order="full_pre", dropout_rate=0.3)})
    assert figure_for(wide).printed == "4.00 %"
    assert "model.dropout_rate: 0.0 != 0.3" in protocol_differences(figure_for(wide), wide)
    failing = {"model": ResNet(110, shortcut="dropout")}
    assert figure_for(with_fields(BASE, failing)).printed == "fail (above 20 %)"


# The page


class PageParser(HTMLParser):
    """Collects the ids, links and text of a page, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)

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
        "r-comparisons.csv", "r-runs.csv", "r.csv", "r.html", "r.md",
    ]  # fmt: skip
    html = (tmp_path / "out" / "r.html").read_text()
    page = PageParser()
    page.feed(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith(("#", "data:")), link
        assert link[0] != "#" or link[1:] in page.ids, link
    assert not re.search(r"url\((?!#)", html)
    text = "".join(page.text)
    assert "failed: the loss is nan <at> step 7" in text  # escaped, and read back
    for count in ("8 runs: ", "1 unfinished", "6 finished", "1 failed"):
        assert count in text
    assert "8.75 % †" in text
    assert "Thin lines show the error on the training batches" in text
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_pictures_are_svg_in_the_text_colour_of_the_page(sweep):
    picture = to_inline_svg(*plot_error_curves(form_seed_groups(collect_runs([sweep]))))
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert (root.get("role"), root.get("aria-label")) == (
        "img", "error against steps: thin train, bold test",
    )  # fmt: skip
    assert root.get("style", "").startswith("max-width:")
    assert root.get("width") is root.get("height") is None
    assert "currentColor" in picture
    assert "#010203" not in picture
    assert "shortcut zero_pad" in picture  # text stays text


def test_csv_has_plain_numbers_and_columns_for_standard_deviations(sweep):
    table, _ = make_results_table(form_seed_groups(collect_runs([sweep])))
    none, zero_pad = csv.DictReader(io.StringIO(to_csv(table)))
    assert float(none["test error"]) == pytest.approx(23)
    assert float(none["test error std"]) == pytest.approx(3)
    assert zero_pad["parameters"] == "269434.0"
    assert float(zero_pad["paper"]) == 8.75
    assert "| shortcut zero_pad | 3 of 4 | 12.00 ± 2.00 % | 8.75 % † |" in to_markdown(table)


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
    assert page.tags == {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    shown = set(page.texts)
    assert {name.strip() for name in HOSTILE} <= {text.strip() for text in shown}
    paragraphs = CellParser("p")
    paragraphs.feed(render(text_of(hostile / "r.md")))
    assert [text.removeprefix("Left out: ")[:-1] for text in paragraphs.texts] == HOSTILE


def test_the_page_shows_every_name_as_it_is(hostile):
    html = text_of(hostile / "r.html")
    page, cells = PageParser(), CellParser("td")
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


def test_the_command_prints_its_files_and_refuses_another_ending(script, sweep):
    done = script("report", sweep, "--output", "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "page.html"
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
