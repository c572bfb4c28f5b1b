"""Comparisons of groups of runs: which are made, and with which numbers."""

import csv
import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from compared import (
    BASE,
    DEPTH,
    drawn,
    grid,
    groups_of,
    many_groups,
    paired,
    runs_of,
    sweep_of,
    variants,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resflax.commands.report import main
from resflax.errors import UsageError
from resflax.experiment import flat_json, to_json, with_fields
from resflax.report.build import write_report
from resflax.report.cells import decimal
from resflax.report.comparisons import compare, make_comparisons_table
from resflax.report.forest import plot_comparisons
from resflax.report.groups import form_seed_groups
from resflax.report.sentences import describe
from resflax.report.statistics import holm
from resflax.report.tables import make_runs_table
from resflax.report.texts import to_csv

# --- Which groups are compared


def test_each_group_is_compared_with_its_twins_of_the_declared_experiment():
    groups = grid([8, 20], ["none", "projection", "zero_pad"], sweep_of())
    assert paired(compare(groups)) == [
        ("depth 8, shortcut none", "depth 20, shortcut none"),
        ("depth 8, shortcut projection", "depth 20, shortcut projection"),
        ("depth 8, shortcut zero_pad", "depth 20, shortcut zero_pad"),
        ("depth 8, shortcut none", "depth 8, shortcut zero_pad"),
        ("depth 8, shortcut projection", "depth 8, shortcut zero_pad"),
        ("depth 20, shortcut none", "depth 20, shortcut zero_pad"),
        ("depth 20, shortcut projection", "depth 20, shortcut zero_pad"),
    ]


@pytest.mark.parametrize(
    "sweeps",
    [
        [None, None],  # runs without a sweep
        [sweep_of(with_fields(BASE, {"model.shortcut": "conv"}))] * 2,
        [sweep_of(), sweep_of(with_fields(BASE, {"model.shortcut": "none"}), "other")],
    ],
    ids=["no sweep", "value does not occur", "sweeps disagree"],
)
def test_without_a_declared_value_the_first_is_the_reference(sweeps):
    runs = (
        runs_of({"model.shortcut": shortcut}, sweep=sweep)
        for shortcut, sweep in zip(["zero_pad", "none"], sweeps, strict=True)
    )
    groups = groups_of(*runs)
    assert paired(compare(groups)) == [(groups[1].label, groups[0].label)]


def test_a_gate_has_a_bias_and_its_twin_needs_none():
    gates = (("exclusive_gating", -6.0), ("exclusive_gating", 0.0), ("shortcut_gating", -6.0))
    groups = groups_of(
        runs_of({"model.shortcut": "zero_pad"}, sweep=sweep_of()),
        *(runs_of({"model.shortcut": gate, "model.gate_bias": b}) for gate, b in gates),
    )
    assert paired(compare(groups)) == [
        ("shortcut exclusive_gating, gate bias -6", "shortcut zero_pad"),
        ("shortcut exclusive_gating, gate bias 0", "shortcut zero_pad"),
        ("shortcut shortcut_gating, gate bias -6", "shortcut zero_pad"),
        (
            "shortcut exclusive_gating, gate bias 0",
            "shortcut exclusive_gating, gate bias -6",
        ),
    ]
    with_gate = compare(groups, "shortcut shortcut_gating")
    assert paired(with_gate) == [
        ("shortcut exclusive_gating, gate bias -6", "shortcut shortcut_gating, gate bias -6"),
        ("shortcut zero_pad", "shortcut shortcut_gating, gate bias -6"),
    ]


def test_a_value_of_none_counts_where_it_is_a_value():
    groups = groups_of(
        *(
            runs_of({"ema_decay": decay, "model.shortcut": shortcut})
            for decay in (None, 0.9)
            for shortcut in ("none", "zero_pad")
        )
    )
    fields = [one.pair.field for one in compare(groups)]
    assert [fields.count(name) for name in ("ema_decay", "model.shortcut")] == [4, 4]


def test_variants_are_compared_with_the_one_that_is_declared_as_the_experiment():
    comparisons = compare(groups_of(variants(sweep_of())))
    assert {pair[1] for pair in paired(comparisons)} == {"original"}
    assert len(paired(comparisons)) == 2
    other_base = with_fields(BASE, {"model.shortcut": "none"})
    comparisons = compare(groups_of(variants(sweep_of(other_base))))
    assert {pair[1] for pair in paired(comparisons)} == {"gated"}  # the first that is declared


def test_variants_are_compared_at_equal_other_fields_of_one_sweep():
    groups = groups_of(variants(sweep_of(), (20, 32)), variants(sweep_of(path="b"), (44,)))
    found = {
        (one.pair.field, one.pair.here.get("variant"), flat_json(one.pair.group.experiment)[DEPTH])
        for one in compare(groups)
    }
    at_all_depths = itertools.product(["variant"], ["gated", "scaled 0.5, 1"], [20, 32, 44])
    assert found == {*at_all_depths, (DEPTH, None, 32)}
    for one in compare(groups):
        assert one.pair.group.runs[0].path.parent == one.pair.reference.runs[0].path.parent


def test_two_common_seeds_are_needed():
    plain = list(runs_of({"model.shortcut": "none"}))
    zero_pad = list(runs_of({"model.shortcut": "zero_pad"}))
    assert {one.comparison.n for one in compare(form_seed_groups(plain[:2] + zero_pad))} == {2}
    assert compare(form_seed_groups(plain[:2] + zero_pad[1:])) == []


# --- The chosen reference


def test_against_a_value_or_a_group():
    groups = grid([8, 20], ["none", "projection"], None)
    assert paired(compare(groups, "shortcut projection")) == [
        ("depth 8, shortcut none", "depth 8, shortcut projection"),
        ("depth 20, shortcut none", "depth 20, shortcut projection"),
    ]
    whole = compare(groups, "depth 20, shortcut none")
    assert paired(whole) == [
        (label, "depth 20, shortcut none")
        for label in (
            "depth 8, shortcut none",
            "depth 8, shortcut projection",
            "depth 20, shortcut projection",
        )
    ]
    assert compare(groups, "shortcut none, depth 20") == whole
    assert dict(whole[2].pair.here) == {"model.depth": 8, "model.shortcut": "projection"}


def test_against_values_of_several_fields_compares_in_these():
    groups = groups_of(
        *(
            runs_of({"model.depth": depth, "model.shortcut": shortcut, "batch_size": size})
            for depth, shortcut, size in itertools.product((8, 20), ("none", "conv"), (64, 128))
        )
    )
    comparisons = compare(groups, "batch size 128, shortcut none")
    assert {one.pair.field for one in comparisons} == {"model.shortcut", "batch_size"}
    assert len(paired(comparisons)) == 4 + 4


def test_against_a_variant_whose_name_has_a_comma():
    groups = groups_of(variants(sweep_of(), (20, 32)))
    assert len(compare(groups, "scaled 0.5, 1")) == 2 * 2 * 2  # by two measures
    chosen = compare(groups, "scaled 0.5, 1, depth 32")
    assert {flat_json(one.pair.reference.experiment)[DEPTH] for one in chosen} == {32}


def test_against_what_does_not_occur_names_what_would_fit():
    groups = grid([8, 20, 32, 44], ["none", "projection"], None)
    with pytest.raises(UsageError) as error:
        compare(groups, "shortcut nothing")
    assert str(error.value) == (
        "--against is 'shortcut nothing'; it must be one of: depth 8; depth 20; depth 32; "
        "depth 44; shortcut none; shortcut projection; depth 8, shortcut none; "
        "depth 8, shortcut projection; or 6 more"
    )
    with pytest.raises(UsageError, match="must be one of"):
        compare(groups, "depth 8, depth 20")
    with pytest.raises(UsageError, match="differ in the seed alone"):
        compare(groups_of(runs_of({})), "depth 8")


def write_runs(folder, runs):
    for run in runs:
        path = folder / run.experiment.content_hash
        path.mkdir(parents=True)
        (path / "experiment.json").write_text(json.dumps(to_json(run.experiment)))
        (path / "metrics.jsonl").write_text("")
        (path / "result.json").write_text(json.dumps(run.result))


def test_the_command_compares_with_what_is_chosen(tmp_path, capsys):
    for shortcut in ("none", "zero_pad", "conv"):
        write_runs(tmp_path / "runs", runs_of({"model.shortcut": shortcut}, (0.1, 0.2)))
    page = tmp_path / "r.html"
    main([str(tmp_path / "runs"), "--output", str(page), "--against", "shortcut zero_pad"])
    assert str(page) in capsys.readouterr().out
    with open(tmp_path / "r-comparisons.csv", newline="") as file:
        assert {row["against"] for row in csv.DictReader(file)} == {"shortcut zero_pad"}
    with pytest.raises(UsageError, match="--against is 'zero'; it must be one of: shortcut conv"):
        main([str(tmp_path / "runs"), "--output", str(page), "--against", "zero"])


# --- Numbers


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests_and_so_on():
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, then 0.04, which may not be less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.4, math.nan, 0.6, 0.01])
    assert corrected[0::2] == pytest.approx([0.8, 0.8])
    assert math.isnan(corrected[1])
    assert corrected[3] == pytest.approx(0.03)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_plain_and_bonferroni_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    for plain, p in zip(p_values, corrected, strict=True):
        assert plain <= p <= min(1, len(p_values) * plain) * (1 + 1e-12)
    by_plain = [corrected[i] for i in np.argsort(p_values, kind="stable")]
    assert by_plain == sorted(by_plain)
    assert holm(p_values[:1]) == p_values[:1]
    shuffled = holm(p_values[::-1])[::-1]
    assert shuffled == corrected


def test_all_rows_of_the_table_are_one_family():
    rng = np.random.default_rng(0)
    groups = groups_of(
        *(
            runs_of({"model.shortcut": shortcut}, rng.random(5) / 9, rng.random(5))
            for shortcut in ("none", "zero_pad", "conv", "dropout")
        )
    )
    comparisons = compare(groups)
    assert len(comparisons) == 6
    none = groups[2]
    assert none.label == "shortcut none"
    for measure, corrected, key in (("holm_t", "p_t", "t"), ("holm_exact", "p_exact", "exact")):
        plain = [getattr(one.comparison, corrected) for one in comparisons]
        assert [getattr(one, measure) for one in comparisons] == holm(plain), key
    by_seed = [[run.result["train_loss"] for run in group.finished] for group in groups[:2]]
    expected = stats.ttest_rel(by_seed[1], by_seed[0]).pvalue
    assert comparisons[1].comparison.p_t == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text", "signed"),
    [(-0.001, "0.00", "0.00"), (0.004, "0.00", "0.00"), (-0.006, "-0.01", "-0.01"),
     (1.234, "1.23", "+1.23"), (-0.0, "0.00", "0.00"), (-12.0, "-12.00", "-12.00")],
)  # fmt: skip
def test_a_number_that_rounds_to_zero_has_no_sign(value, text, signed):
    assert (decimal(value, 2), decimal(value, 2, sign=True)) == (text, signed)


def test_a_tiny_difference_is_shown_without_a_sign():
    plain = runs_of({"model.shortcut": "none"}, (0.1, 0.2, 0.3))
    other = runs_of({"model.shortcut": "zero_pad"}, (0.1 - 4e-5, 0.2, 0.3 + 1e-5))
    row = make_comparisons_table(compare(groups_of(plain, other))).rows[0]
    assert [cell.text for cell in row[4:6]] == ["0.00 points", "-0.01 to +0.01 points"]


def test_the_interval_has_two_columns_in_the_csv_and_equal_differences_have_none():
    plain = runs_of({"model.shortcut": "none"}, (0.25, 0.5), (1.0, 3.0))
    other = runs_of({"model.shortcut": "zero_pad"}, (0.5, 0.75), (1.5, 3.7))
    comparisons = compare(groups_of(plain, other))
    table = make_comparisons_table(comparisons)
    assert [cell.text for cell in table.rows[0][4:8]] == ["+25.00 points", "-", "-", "-"]
    error, loss = csv.DictReader(to_csv(table).splitlines())
    assert (error["95 % interval low"], error["95 % interval high"]) == ("", "")
    assert error["p (t)"] == error["Holm (t)"] == ""
    # The mean is 0.6 and its error 0.1; with one degree of freedom t is 12.706.
    assert float(loss["95 % interval low"]) == pytest.approx(0.6 - 1.2706, abs=1e-4)
    assert float(loss["95 % interval high"]) == pytest.approx(0.6 + 1.2706, abs=1e-4)
    bars, _, hollow = drawn(plot_comparisons(comparisons)[0])
    assert (bars, hollow) == ({}, {0: pytest.approx(25)})


def test_a_difference_too_small_to_be_shown_is_none():
    losses = [0.3, 0.4, 0.5]
    higher = [loss + 2.4e-8 for loss in losses]
    groups = groups_of(runs_of({DEPTH: 8}, losses), runs_of({DEPTH: 20}, (0.1, 0.2, 0.4), higher))
    loss = next(one for one in compare(groups, None) if one.measure.name == "training loss")
    assert (
        describe(loss) == "The training loss at 20 layers equals that at 8 layers in all 3 pairs."
    )


def test_a_difference_that_exploded_does_not_flatten_the_others():
    fields = [{"batch_size": n} for n in range(1, 6)]
    losses = [(0.1, 0.2), (0.2, 0.3), (0.3, 0.1), (0.2, 0.4), (1e13, 2e13)]
    runs = [runs_of(f, (0.1, 0.2), loss) for f, loss in zip(fields, losses, strict=True)]
    comparisons = compare(groups_of(*runs), None)
    (plot,) = [p for p in plot_comparisons(comparisons) if p.title.startswith("Training loss")]
    low, high = plot.figure.axes[0].get_xlim()
    assert -10 < low < 0 < high < 10
    axis = plot.figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["+1.50e+13 →", *["n = 2"] * 4]
    bars, filled, hollow = drawn(plot)
    assert sorted(filled | hollow) == [0, 1, 2]
    assert sorted(bars) == [1, 2]  # the first pairs are equal, and the last are far away
    plot.figure.draw_without_rendering()
    value, pairs = (axis.texts[i].get_window_extent() for i in (0, -1))
    assert value.y0 < pairs.y1  # they stand in the same row
    assert axis.transData.transform((0, 0))[0] < value.x0 < value.x1 < axis.bbox.x1 < pairs.x0
    texts = [row[4].text for row in make_comparisons_table(comparisons).rows]
    assert "+1.50e+13" in texts


def test_a_copy_of_some_runs_changes_no_comparison():
    sweep = sweep_of()
    listed = list(variants(sweep, (20, 32)))
    copies = [
        dataclasses.replace(run, path=Path("a") / run.path.name, sweep=None, number=None)
        for run in listed[:3]
    ]
    copies = [dataclasses.replace(run, variant=None) for run in copies]
    alone, beside = (compare(form_seed_groups(runs)) for runs in (listed, copies + listed))
    assert paired(alone) == paired(beside)
    assert len(alone) == len(beside)


# --- No row is lost


def test_no_row_is_lost_and_the_page_says_how_many_sentences_it_leaves_out(tmp_path):
    groups = many_groups(67)
    runs = [run for group in groups for run in group.runs]
    write_report(tmp_path / "r.html", runs, groups)
    with open(tmp_path / "r-comparisons.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 132
    expected = {f"batch size {n}" for n in range(2, 68)}
    assert {row["variant"] for row in rows} == expected
    html, markdown = (tmp_path / "r.html").read_text(), (tmp_path / "r.md").read_text()
    differences = html[html.index('id="differences"') :]
    assert differences[: differences.index("</table>")].count("<tr>") == 1 + 132
    assert "the table has 120 more" in html
    assert all(f"| {label} | batch size 1 | test error |" in markdown for label in expected)


def test_a_run_that_is_not_used_says_so_in_the_table_of_runs():
    used, again = runs_of({}, (0.1, 0.2)), runs_of({}, (0.3,))
    (group,) = groups_of(used)
    group = dataclasses.replace(group, repeated=tuple(again))
    states = [row[2].text for row in make_runs_table([group]).rows]
    assert states == ["finished", "finished", "finished, not used: its seed was run more than once"]
