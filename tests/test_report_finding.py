"""The pictures of what a sweep is about, against numbers that were worked out by hand."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import (
    BASE,
    DEPTH,
    SHORTCUT,
    axes_of,
    bars_of,
    legend_of,
    log_line,
    made_run,
    means_of,
    points_of,
)

from resflax import CIFAR10, DenseNet, ResNet
from resflax.drawing.picture import to_file
from resflax.report.build import make_sections
from resflax.report.finding import plot_findings
from resflax.report.groups import form_seed_groups
from resflax.report.series import find_numeric_fields

RATE, BATCH, DECAY = "optimizer.learning_rate", "batch_size", "optimizer.weight_decay"


def degradation():
    """Two shortcuts, three depths and two seeds; the plain net of 56 layers is bad."""
    losses = {
        ("none", 20): (0.02, 0.04), ("none", 56): (1.0, 3.0), ("none", 110): (2.0, 2.2),
        ("zero_pad", 20): (0.01, 0.03), ("zero_pad", 56): (0.1, 0.3), ("zero_pad", 110): (1.0, 1.4),
    }  # fmt: skip
    return [
        made_run(
            {SHORTCUT: shortcut, DEPTH: depth, "seed": seed}, loss=loss, error=loss / 10,
            params=1000 * depth, macs=2000 * depth, lines=[log_line(50), log_line(100)],
        )
        for (shortcut, depth), both in losses.items()
        for seed, loss in enumerate(both)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def against_depth():
    """The section that `degradation` is about."""
    (section,) = plot_findings(form_seed_groups(degradation()))
    return section


def titles_of(sections):
    return [picture.title for section in sections for picture in section.pictures]


def test_loss_and_error_against_depth_come_first():
    runs = degradation()
    sections = make_sections("report", form_seed_groups(runs))
    assert [section.title for section in sections] == [
        "Loss and error against depth", "Results", "Differences", "Loss and error against steps",
        "Error against size", "Runs",
    ]  # fmt: skip
    assert titles_of(sections[:1]) == ["Training loss against depth", "Test error against depth"]


def test_means_deviations_and_seeds_are_those_of_the_runs(against_depth):
    axes = axes_of(against_depth.pictures[0])
    plain, residual = means_of(axes)
    assert plain == ([20, 56, 110], pytest.approx([0.03, 2.0, 2.1]))
    assert residual == ([20, 56, 110], pytest.approx([0.02, 0.2, 1.2]))
    # Two values have the deviation |a - b| / sqrt(2).
    halves = {(20, 0.03): 0.02, (56, 2.0): 2.0, (110, 2.1): 0.2, (20, 0.02): 0.02}
    bars = {
        (low[0], round((low[1] + high[1]) / 2, 9)): high[1] - low[1] for low, high in bars_of(axes)
    }
    for place, distance in halves.items():
        assert bars[place] == pytest.approx(2 * distance / math.sqrt(2))
    assert points_of(axes, "_seeds") == [
        ([20, 20, 56, 56, 110, 110], [0.02, 0.04, 1.0, 3.0, 2.0, 2.2]),
        ([20, 20, 56, 56, 110, 110], [0.01, 0.03, 0.1, 0.3, 1.0, 1.4]),
    ]
    assert legend_of(against_depth.pictures[0]) == ["shortcut none", "shortcut zero_pad"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("depth", "training loss")
    assert axes.get_yscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["20", "56", "110"]


def test_the_papers_errors_are_hollow_marks_and_failed_runs_are_at_the_edge(against_depth):
    picture = against_depth.pictures[1]
    axes = axes_of(picture)
    marks = [line for line in axes.lines if line.get_label() == "_paper"]
    assert all(line.get_markerfacecolor() == "none" for line in marks)
    places = {(line.get_xdata()[0], line.get_ydata()[0]) for line in marks}
    assert places == {(20, 8.75), (56, 6.97), (110, 6.61), (110, 1.0)}  # He et al. 2015
    (failed,) = [line for line in marks if line.get_ydata()[0] == 1.0]
    assert failed.get_transform().transform((110, 1.0))[1] == pytest.approx(axes.bbox.y1)
    assert [text.get_text() for text in axes.texts] == ["fails"]
    colors = [container.lines[0].get_color() for container in axes.containers]  # plain, residual
    for mark in marks:
        assert mark.get_markeredgecolor() == colors[0 if mark is failed else 1]
    assert legend_of(picture)[-1] == "hollow: the papers' figures (cifar10)"  # the runs: digits
    assert "He et al. 2015, Table 6 (cifar10)" in picture.caption
    assert "He et al. 2015, Figure 6 (cifar10)" in picture.caption
    assert not points_of(axes_of(against_depth.pictures[0]), "_paper")  # papers have no losses
    assert "shortcut none: 0.3 % at 20, 20 % at 56, 21 % at 110" in picture.description


def test_groups_with_equal_labels_have_lines_of_their_own():
    groups = [
        dataclasses.replace(group, label="the same") for group in form_seed_groups(degradation())
    ]
    (section,) = plot_findings(groups)
    assert len(means_of(axes_of(section.pictures[0]))) == 2
    variants = [
        made_run({SHORTCUT: shortcut, "seed": seed}, loss=loss + seed, variant="the same")
        for shortcut, loss in (("none", 1.0), ("zero_pad", 5.0))
        for seed in range(2)
    ]
    groups = [dataclasses.replace(group, label="the same") for group in form_seed_groups(variants)]
    (section,) = plot_findings(groups)
    drawn = means_of(axes_of(section.pictures[0]))
    assert sorted(x[0] for x, _ in drawn) == [1.5, 5.5]


def test_fields_that_vary_together_are_one_picture_that_names_both():
    runs = [
        made_run({DEPTH: depth, BATCH: batch}, loss=loss)
        for depth, batch, loss in ((20, 128, 0.1), (56, 64, 0.2), (110, 64, 0.3))
    ]
    (section,) = plot_findings(form_seed_groups(runs))
    assert section.title == "Loss and error against depth"
    picture = section.pictures[0]
    assert axes_of(picture).get_xlabel() == "depth (with batch size)"
    assert "batch size varies together with depth" in picture.caption
    assert means_of(axes_of(picture)) == [([20, 56, 110], [0.1, 0.2, 0.3])]


def test_whole_networks_that_differ_in_numbers_are_drawn_against_these():
    networks = [(40, 12, 0.3), (100, 12, 0.2), (100, 24, 0.1)]
    runs = [made_run({"model": DenseNet(d, k, bottleneck=False)}, loss=x) for d, k, x in networks]
    against_depth, against_rate = plot_findings(form_seed_groups(runs))
    assert means_of(axes_of(against_depth.pictures[0])) == [([40, 100], [0.3, 0.2]), ([100], [0.1])]
    assert means_of(axes_of(against_rate.pictures[0])) == [([12], [0.3]), ([12, 24], [0.2, 0.1])]
    assert legend_of(against_depth.pictures[0]) == ["growth rate 12", "growth rate 24"]


def test_networks_of_two_kinds_are_not_joined():
    models = [ResNet(20), ResNet(56), DenseNet(40, 12), DenseNet(100, 12)]
    fields = find_numeric_fields(form_seed_groups([made_run({"model": m}) for m in models]))
    for line in (line for field in fields for line in field.lines):
        assert len({type(group.experiment.model) for group in line}) == 1
    assert [field.name for field in fields] == [DEPTH]


def test_without_a_number_that_varies_every_variant_has_a_row():
    runs = [
        made_run({SHORTCUT: shortcut, "seed": seed}, loss=loss + seed / 10, error=0.5)
        for shortcut, loss in (("none", 0.5), ("projection", 0.1), ("zero_pad", 0.2))
        for seed in range(3)
    ]
    (section,) = plot_findings(form_seed_groups(runs))
    assert section.title == "Loss and error of every variant"
    loss, error = section.pictures
    axes = axes_of(loss)
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["shortcut none", "shortcut projection", "shortcut zero_pad"]
    assert [means for means, _ in means_of(axes)] == [
        pytest.approx([0.6]), pytest.approx([0.2]), pytest.approx([0.3]),
    ]  # fmt: skip
    dots = points_of(axes, "_seeds")
    assert [x for x, _ in dots] == [
        pytest.approx(np.array([0.0, 0.1, 0.2]) + loss) for loss in (0.5, 0.1, 0.2)
    ]
    for (_, row), (_, below) in zip(means_of(axes), dots, strict=True):
        assert set(below) == {row[0] + 0.25}
    assert [x for x, _ in points_of(axes_of(error), "_paper")] == [[8.75]]


def test_variants_are_named_and_their_numbers_have_pictures_too():
    variants: dict[str, dict[str, Any]] = {
        "original": {SHORTCUT: "zero_pad"},
        **{
            f"gates {b:.0f}": {SHORTCUT: "exclusive_gating", "model.gate_bias": b}
            for b in (0.0, -6.0)
        },
        **{
            f"only {b:.0f}": {SHORTCUT: "shortcut_gating", "model.gate_bias": b}
            for b in (0.0, -6.0)
        },
    }
    runs = [
        made_run(fields | {"model.depth": 110}, loss=0.1 + i, variant=name)
        for i, (name, fields) in enumerate(variants.items())
    ]
    first, second = plot_findings(form_seed_groups(runs))
    assert first.title == "Loss and error of every variant"
    rows = [label.get_text() for label in axes_of(first.pictures[0]).get_yticklabels()]
    assert set(rows) == set(variants)
    assert second.title == "Loss and error against gate bias"
    assert means_of(axes_of(second.pictures[0])) == [([-6, 0], [2.1, 1.1]), ([-6, 0], [4.1, 3.1])]
    assert legend_of(second.pictures[0]) == [
        "shortcut exclusive_gating", "shortcut shortcut_gating",
    ]  # fmt: skip
    errors = axes_of(second.pictures[1])
    papers = {(x[0], y[0]) for x, y in points_of(errors, "_paper")}
    assert papers == {(-6, 8.70), (0, 1.0), (0, 12.86), (-6, 6.91)}  # He et al. 2016, Table 1


def test_lines_of_named_variants_have_their_names():
    runs = [
        made_run({SHORTCUT: shortcut, DEPTH: depth}, variant=name)
        for name, shortcut in (("with", "zero_pad"), ("without", "none"))
        for depth in (20, 56)
    ]
    (section,) = plot_findings(form_seed_groups(runs))
    assert sorted(legend_of(section.pictures[0])) == ["with", "without"]


def test_a_papers_figure_is_at_its_own_value_of_the_field_and_drawn_once():
    runs = [made_run({RATE: rate, BATCH: batch}) for rate in (0.01, 0.1, 1.0) for batch in (32, 64)]
    against = {s.title: s.pictures[1] for s in plot_findings(form_seed_groups(runs))}
    (mark,) = points_of(axes_of(against["Loss and error against learning rate"]), "_paper")
    assert mark == ([0.1], [8.75])  # the paper's learning rate; its batch size is 128
    without = against["Loss and error against batch size"]
    assert points_of(axes_of(without), "_paper") == []
    assert legend_of(without) == ["learning rate 0.01", "learning rate 0.1", "learning rate 1"]


def test_axes_are_logarithmic_from_a_decade_on_and_show_a_zero():
    rates = {0.001: 1e-3, 0.01: 1e-2, 0.1: 1.0}
    decays = {0.0: 0.0, 1e-5: 0.5, 1e-3: 3.0}
    (by_rate,) = plot_findings(
        form_seed_groups([made_run({RATE: x}, loss=y) for x, y in rates.items()])
    )
    axes = axes_of(by_rate.pictures[0])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (by_decay,) = plot_findings(
        form_seed_groups([made_run({DECAY: x}, loss=y) for x, y in decays.items()])
    )
    axes = axes_of(by_decay.pictures[0])
    assert axes.get_xscale() == "symlog"
    assert axes.get_xlim()[0] < 0 < axes.get_xlim()[1]
    (by_batch,) = plot_findings(form_seed_groups([made_run({BATCH: x}) for x in (32, 64)]))
    assert axes_of(by_batch.pictures[0]).get_xscale() == "linear"


def test_a_net_that_diverged_does_not_hide_how_the_others_differ():
    losses = {0.01: 0.2, 0.03: 0.1, 0.1: 0.3, 1.0: 5e13}
    sections = plot_findings(
        form_seed_groups([made_run({RATE: r}, loss=x) for r, x in losses.items()])
    )
    picture = sections[0].pictures[0]
    axes = axes_of(picture)
    assert axes.get_ylim()[1] < 1
    ((xs, _),) = points_of(axes, "_beyond")
    assert xs == [1.0]
    assert [text.get_text() for text in axes.texts] == ["5e13"]
    assert "have a triangle at the edge" in picture.caption
    shortcuts = ("none", "zero_pad", "projection", "conv")
    runs = [
        made_run({SHORTCUT: s}, loss=x) for s, x in zip(shortcuts, losses.values(), strict=True)
    ]
    ((picture, _),) = (section.pictures for section in plot_findings(form_seed_groups(runs)))
    assert axes_of(picture).get_xlim()[1] < 1
    rows = [label.get_text() for label in axes_of(picture).get_yticklabels()]
    ((_, ys),) = points_of(axes_of(picture), "_beyond")
    assert rows[int(ys[0])] == "shortcut conv"


def test_losses_of_a_few_decades_are_no_outliers():
    losses = {0.01: 1e-5, 0.03: 2e-5, 0.1: 2.3}
    sections = plot_findings(
        form_seed_groups([made_run({RATE: r}, loss=x) for r, x in losses.items()])
    )
    picture = sections[0].pictures[0]
    assert axes_of(picture).get_ylim()[1] > 2.3
    assert not points_of(axes_of(picture), "_beyond")
    assert "triangle" not in picture.caption


def test_many_lines_are_divided_and_what_is_left_out_is_counted():
    shortcuts = ("none", "zero_pad", "projection")
    some = [
        made_run({RATE: rate, SHORTCUT: shortcut, BATCH: batch})
        for shortcut, rate, batch in itertools.product(shortcuts, (0.1, 0.2), range(10, 15))
    ]
    section = next(s for s in plot_findings(form_seed_groups(some)) if "rate" in s.title)
    assert titles_of([section])[:3] == [
        f"Training loss against learning rate: shortcut {shortcut}"
        for shortcut in sorted(shortcuts)
    ]
    assert [len(means_of(axes_of(picture))) for picture in section.pictures] == [5] * 6
    legend = [f"batch size {batch}" for batch in range(10, 15)]
    assert all(legend_of(picture)[:5] == legend for picture in section.pictures)
    limits = {axes_of(picture).get_ylim() for picture in section.pictures[:3]}
    assert len(limits) == 1
    many = [made_run({RATE: rate, BATCH: batch}) for rate in (0.1, 0.2) for batch in range(20, 40)]
    section = plot_findings(form_seed_groups(many))[0]
    picture = section.pictures[0]
    assert len(means_of(axes_of(picture))) == 12
    assert "8 more lines are not drawn; the CSV file has all results." in picture.caption


def test_of_many_variants_forty_are_drawn_and_the_others_are_counted():
    names = (SHORTCUT, "model.order", "optimizer.nesterov", "data.flip")
    combinations = itertools.product(
        ("none", "zero_pad", "projection"),
        ("post", "full_pre", "relu_only_pre", "bn_after_addition"), (False, True), (False, True),
    )  # fmt: skip
    runs = [made_run(dict(zip(names, words, strict=True))) for words in combinations][:43]
    (section,) = plot_findings(form_seed_groups(runs))
    picture = section.pictures[0]
    assert len(axes_of(picture).get_yticklabels()) == 40
    assert "3 more variants are not drawn; the CSV file has them all." in picture.caption


def test_runs_without_a_result_are_counted():
    runs = [*degradation(), made_run({DEPTH: 32}, error=None, state="failed")]
    (section,) = plot_findings(form_seed_groups(runs))
    assert "1 of 13 runs is unfinished or failed, and not drawn." in section.pictures[0].caption
    assert all(32 not in xs for xs, _ in means_of(axes_of(section.pictures[0])))


def test_runs_that_are_on_none_of_the_lines_are_not_counted():
    runs = [*degradation(), made_run({SHORTCUT: "projection", DEPTH: 20}, error=None)]
    section = plot_findings(form_seed_groups(runs))[0]
    assert all("unfinished" not in picture.caption for picture in section.pictures)


@pytest.mark.parametrize("errors", [(0.4, 0.98), (0.01, 1.0), (0.0, 1.0)])
def test_the_axis_of_errors_ends_at_100_per_cent_and_its_marks_are_whole(errors):
    runs = [
        made_run({DEPTH: depth, SHORTCUT: "none"}, error=error)
        for depth, error in zip((20, 110), errors, strict=True)
    ]
    (section,) = plot_findings(form_seed_groups(runs))
    axes = axes_of(section.pictures[1])
    assert axes.get_ylim()[1] == pytest.approx(100)
    assert [text.get_text() for text in axes.texts] == ["fails"]
    (means,) = axes.containers
    (seeds,) = (line for line in axes.lines if line.get_label() == "_seeds")
    assert not means.lines[0].get_clip_on()
    assert not seeds.get_clip_on()


def test_the_papers_data_are_named_only_if_the_runs_have_others():
    cifar = dataclasses.replace(BASE, data=CIFAR10())
    runs = [made_run({DEPTH: depth}, base=cifar) for depth in (20, 56)]
    (section,) = plot_findings(form_seed_groups(runs))
    assert legend_of(section.pictures[1]) == ["hollow: the papers' figures"]


def test_nothing_is_compared_with_one_group():
    assert plot_findings([]) == []
    assert plot_findings(form_seed_groups([made_run(), made_run({"seed": 1})])) == []
    started = [made_run({DEPTH: depth}, error=None) for depth in (20, 56)]
    assert plot_findings(form_seed_groups(started)) == []


HOSTILE = "a $\\frac$ name_with\nnewlines " * 6


@pytest.mark.parametrize("losses", [(0.0, 0.0), (None, 1.0), (1e-30, 1e3)])
def test_degenerate_numbers_and_hostile_names_are_drawn_without_a_warning(losses):
    by_depth = [made_run({DEPTH: d}, loss=x) for d, x in zip((20, 56), losses, strict=True)]
    named = [
        made_run({SHORTCUT: s, DEPTH: d}, loss=x, variant=f"{HOSTILE}{s}", error=0.0)
        for s in ("none", "zero_pad")
        for d, x in zip((20, 56), losses, strict=True)
    ]
    rows = [run for run in named if run.experiment.model.depth == 20]
    for runs in (by_depth, named, rows):
        for section in plot_findings(form_seed_groups(runs)):
            for picture in section.pictures:
                assert to_file(picture.figure, "svg").startswith(b"<?xml")


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)),
        min_size=2, max_size=12, unique=True,
    )
)  # fmt: skip
@settings(deadline=None, max_examples=20)
def test_lines_join_groups_that_are_equal_in_all_other_fields(points):
    runs = [
        made_run(
            {
                DEPTH: (20, 56, 110)[a],
                SHORTCUT: ("none", "zero_pad", "projection")[b],
                BATCH: 32 + c,
            }
        )
        for a, b, c in points
    ]
    groups = form_seed_groups(runs)
    for field in find_numeric_fields(groups):
        drawn = [id(group) for line in field.lines for group in line]
        assert sorted(drawn) == sorted(map(id, groups))  # each is drawn, and drawn once
        assert max(map(len, field.lines)) > 1
        for line in field.lines:
            values = [field.value_of(group) for group in line]
            assert values == sorted(set(values))
            for name in field.others:
                assert len({str(group.fields[name]) for group in line}) == 1
