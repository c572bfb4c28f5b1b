"""Reports of runs, against numbers that were worked out by hand."""

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reported import BASE, make_run, make_sweep
from scipy import stats

from resflax import CIFAR10, SGD, Cosine, DenseNet, Digits, Experiment, ResNet, StepDecay
from resflax.errors import UsageError
from resflax.experiment import with_fields
from resflax.report.build import write_report
from resflax.report.collect import collect_runs
from resflax.report.groups import form_seed_groups
from resflax.report.papers import nearest_figure, paper_figures, protocol_differences
from resflax.report.statistics import Spread, compare_by_seed, compute_spread, sign_flip_p
from resflax.report.tables import make_results_table


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two shortcuts and three seeds, with one more run unfinished and one failed."""
    make_sweep(tmp_path / "sweep")
    return tmp_path / "sweep"


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
def test_equal_differences_have_no_interval_and_no_t(first, second):
    comparison = compare_by_seed(dict(enumerate(first)), dict(enumerate(second)))
    assert comparison is not None
    assert comparison.mean == pytest.approx(0.25)
    assert np.isnan([*comparison.interval, comparison.p_t]).all()
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
    plain = {"model": ResNet(110, shortcut="none")}  # He et al. 2015 say "higher than 60%"
    assert figure_for(with_fields(BASE, plain)).printed == "fail (above 60 %)"
