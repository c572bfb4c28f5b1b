"""The pictures of curves and sizes, against numbers that were worked out by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import (
    DEPTH,
    SHORTCUT,
    axes_of,
    legend_of,
    log_line,
    made_run,
    means_of,
    points_of,
)

from resflax.drawing.picture import to_file
from resflax.report.curves import mean_curve, plot_error_curves, plot_loss_curves, thin_out
from resflax.report.groups import form_seed_groups
from resflax.report.sizes import plot_error_against_size


def log_of(losses, split="train", every=10):
    """Log lines with these losses, and errors that are half of them."""
    return [
        log_line(every * i, split, loss=loss, error=loss / 2)
        for i, loss in enumerate(losses, start=1)
    ]


def curve_of(runs, split="train", key="loss"):
    (group,) = form_seed_groups(runs)
    steps, values = mean_curve(group, split, key)
    return steps.tolist(), pytest.approx(values.tolist())


# Means


def test_the_mean_is_over_the_seeds_at_each_step():
    runs = [made_run({"seed": s}, lines=log_of(x)) for s, x in enumerate([(3, 1), (5, 2)])]
    assert curve_of(runs) == ([10, 20], [4, 1.5])
    assert curve_of(runs, key="error") == ([10, 20], [200, 75])


def test_a_mean_of_runs_that_were_logged_at_different_steps_has_no_jumps():
    # Both fall along a straight line, so their mean does.
    often = made_run({"seed": 0}, lines=log_of(np.linspace(9, 0, 10), every=10))
    seldom = made_run({"seed": 1}, lines=log_of(np.linspace(18, 2, 3), every=40))
    steps, values = mean_curve(form_seed_groups([often, seldom])[0], "train", "loss")
    assert steps.tolist() == [40, 50, 60, 70, 80, 90, 100]  # both have been measured
    assert values == pytest.approx([(10 - s / 10 + 26 - s / 5) / 2 for s in steps])


def test_a_run_that_ends_early_does_not_bend_the_mean():
    lines = [log_of((4, 3, 2, 1)), log_of((8, 7, 6, 5)), log_of((90, 80))]
    finished = [made_run({"seed": s}, lines=lines[s]) for s in (0, 1)]
    unfinished = [made_run({"seed": s}, error=None, lines=lines[s]) for s in (0, 1, 2)]
    both = ([10, 20, 30, 40], [6, 5, 4, 3])
    assert curve_of([*finished, unfinished[2]]) == both
    assert curve_of(unfinished) == ([10, 20], [34, 30])
    assert curve_of(unfinished[:2]) == both


def test_losses_that_are_not_finite_are_passed_over():
    lines = [log_line(10, loss=4), log_line(20, loss=None), log_line(30, loss=2)]
    assert curve_of([made_run(lines=lines)]) == ([10, 30], [4, 2])
    assert curve_of([made_run(lines=[log_line(10, loss=None)])]) == ([], [])
    assert curve_of([made_run()]) == ([], [])


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=2000), st.integers(3, 300))
@settings(deadline=None, max_examples=60)
def test_a_thinned_curve_keeps_its_ends_and_its_range(values, most):
    steps = np.arange(len(values), dtype=float)
    thin_steps, thin_values = thin_out((steps, np.array(values)), most)
    assert len(thin_steps) == len(thin_values) == min(most, len(values))
    assert (thin_steps[0], thin_steps[-1]) == (0, len(values) - 1)
    assert (thin_values[0], thin_values[-1]) == (values[0], values[-1])
    assert (np.diff(thin_steps) > 0).all()
    assert min(values) <= thin_values.min() * (1 + 1e-9)
    assert thin_values.max() <= max(values) * (1 + 1e-9)


def test_a_long_curve_is_averaged_over_stretches():
    run = made_run(lines=log_of([1.0, *[2.0, 4.0] * 198, 9.0], every=1))
    steps, values = mean_curve(form_seed_groups([run])[0], "train", "loss")
    assert len(steps) == 200
    assert values.tolist() == [1.0, *[3.0] * 198, 9.0]
    assert steps[:3].tolist() == [1, 2.5, 4.5]


# Pictures of curves


def two_nets():
    return [
        made_run({DEPTH: depth}, lines=[*log_of((loss, loss / 4)), *log_of((1, 0.5), "test")])
        for depth, loss in ((20, 4), (32, 2))
    ]


def test_the_training_loss_has_a_curve_on_a_logarithmic_scale():
    (picture,) = plot_loss_curves(form_seed_groups(two_nets()))
    axes = axes_of(picture)
    assert points_of(axes, "_bold") == [([10, 20], [4, 1]), ([10, 20], [2, 0.5])]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "training loss")  # below a decade
    steep = [made_run(lines=log_of((2, 0.02)))]
    (picture,) = plot_loss_curves(form_seed_groups(steep))
    assert axes_of(picture).get_yscale() == "log"
    assert [t.get_text() for t in axes_of(picture).get_yticklabels()][1:-1] == ["0.1", "1"]


def test_the_curve_of_a_net_that_diverged_leaves_the_picture():
    courses = {20: (2, 1, 0.5, 0.4), 32: (2, 1, 0.6, 0.3), 56: (2, 1, 0.2, 3e12)}
    runs = [made_run({DEPTH: depth}, lines=log_of(losses)) for depth, losses in courses.items()]
    (picture,) = plot_loss_curves(form_seed_groups(runs))
    assert 2 < axes_of(picture).get_ylim()[1] < 4
    assert "Curves of nets that diverged leave the picture." in picture.caption
    assert "diverged" not in plot_loss_curves(form_seed_groups(runs[:2]))[0].caption


def test_error_curves_are_thin_for_training_and_bold_for_the_test_split():
    (picture,) = plot_error_curves(form_seed_groups(two_nets()))
    axes = axes_of(picture)
    assert points_of(axes, "_train") == [([10, 20], [200, 50]), ([10, 20], [100, 25])]
    assert points_of(axes, "_bold") == [([10, 20], [50, 25])] * 2
    by_label = {line.get_label(): line.get_linewidth() for line in axes.lines}
    assert by_label["_train"] < 1 < by_label["_bold"]


def test_the_legend_has_the_papers_own_value():
    (picture,) = plot_error_curves(form_seed_groups(two_nets()))
    assert legend_of(picture) == [
        "depth 20 (paper 8.75 %, cifar10)",
        "depth 32 (paper 7.51 %, cifar10)",
    ]
    plain = [made_run({SHORTCUT: "none", DEPTH: d}, lines=log_of((1,))) for d in (20, 110)]
    (picture,) = plot_error_curves(form_seed_groups(plain))
    assert legend_of(picture) == ["depth 20", "depth 110 (fails in the paper, cifar10)"]
    (picture,) = plot_error_curves(form_seed_groups(two_nets()[:1]))
    assert legend_of(picture) == ["paper 8.75 %, cifar10"]
    names = ("net that is called by a long name", "other")
    named = [made_run({DEPTH: d}, variant=n) for d, n in zip((20, 32), names, strict=True)]
    named = [dataclasses.replace(run, lines=tuple(log_of((1,)))) for run in named]
    (picture,) = plot_error_curves(form_seed_groups(named))  # the data have no room beside it
    assert legend_of(picture)[0] == "net that is called by a long name (paper 8.75 %)"


def test_groups_with_equal_labels_have_curves_of_their_own():
    groups = [dataclasses.replace(g, label="same") for g in form_seed_groups(two_nets())]
    (loss,) = plot_loss_curves(groups)
    assert points_of(axes_of(loss), "_bold") == [([10, 20], [4, 1]), ([10, 20], [2, 0.5])]
    named = [
        made_run({DEPTH: depth, SHORTCUT: shortcut}, variant="same", lines=log_of((depth, 1)))
        for depth in (20, 56, 110)
        for shortcut in ("none", "zero_pad")
    ]
    groups = [dataclasses.replace(g, label="same") for g in form_seed_groups(named)]
    pictures = plot_loss_curves(groups)
    assert [picture.title for picture in pictures] == [
        "Training loss against steps: shortcut none",
        "Training loss against steps: shortcut zero_pad",
    ]
    for picture in pictures:
        assert [y[0] for _, y in points_of(axes_of(picture), "_bold")] == [20, 56, 110]
        assert legend_of(picture) == ["depth 20", "depth 56", "depth 110"]


def test_panels_with_equal_titles_are_not_one():
    splits = [f"{'a very long name of a split ' * 2}{end}" for end in "ab"]  # titles are shortened
    runs = [
        made_run({"data.train_split": split, DEPTH: depth}, lines=log_of((depth, 1)))
        for split in splits
        for depth in (20, 32, 56)
    ]
    pictures = plot_loss_curves(form_seed_groups(runs))
    assert len(pictures) == 2
    assert pictures[0].title == pictures[1].title
    assert [len(axes_of(picture).lines) for picture in pictures] == [3, 3]


def test_curves_of_one_picture_differ_in_more_than_colour():
    runs = [made_run({"batch_size": 8 + i}, lines=log_of((i + 2, 1))) for i in range(15)]
    (picture,) = plot_loss_curves(form_seed_groups(runs))
    lines = axes_of(picture).lines
    assert len(lines) == 12
    assert "3 more curves are not drawn; the CSV file has all results." in picture.caption
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 12
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 12


def test_runs_without_lines_have_no_curves_and_extreme_losses_are_drawn():
    groups = form_seed_groups([made_run(error=None)])
    assert plot_loss_curves(groups) == plot_error_curves(groups) == []
    zeros = form_seed_groups([made_run(lines=log_of(x), error=0.0) for x in [(0, 0)]])
    mixed = form_seed_groups([made_run(lines=log_of((5, 0.1, 0)))])
    diverged = form_seed_groups([made_run(lines=log_of((*[1e-3] * 5, 1e30)))])
    for groups in (zeros, mixed, diverged):
        for picture in (*plot_loss_curves(groups), *plot_error_curves(groups)):
            assert to_file(picture.figure, "svg")


# Sizes


def sized(fields, params, error, **others):
    return made_run(fields, error=error, params=params, macs=10 * params, **others)


def test_twins_of_equal_size_have_lines_of_their_own():
    runs = [
        sized({DEPTH: depth, SHORTCUT: shortcut}, 1000 * depth, depth / factor)
        for depth, (shortcut, factor) in itertools.product(
            (20, 56), (("none", 100), ("zero_pad", 1000))
        )
    ]
    params, macs = plot_error_against_size(form_seed_groups(runs))
    assert means_of(axes_of(params)) == [
        ([20_000, 56_000], pytest.approx([20, 56])),
        ([20_000, 56_000], pytest.approx([2, 5.6])),
    ]
    assert means_of(axes_of(macs))[0][0] == [200_000, 560_000]
    looks = {
        (c.lines[0].get_color(), c.lines[0].get_marker(), c.lines[0].get_linestyle())
        for c in axes_of(params).containers
    }
    assert [len(set(kinds)) for kinds in zip(*looks, strict=True)] == [2, 2, 2]
    assert legend_of(params) == [
        "shortcut none",
        "shortcut zero_pad",
        "hollow: the papers' figures (cifar10)",
    ]
    assert not axes_of(params).texts  # no labels among the marks
    assert points_of(axes_of(params), "_paper") == [([20_000], [8.75]), ([56_000], [6.97])]
    (above,) = axes_of(params).child_axes
    assert above.get_xlabel() == "depth"
    assert [label.get_text() for label in above.get_xticklabels()] == ["20", "56"]


def test_variants_of_other_sizes_are_single_marks():
    runs = [
        sized({SHORTCUT: shortcut, "seed": seed}, params, error + seed / 10)
        for shortcut, params, error in (("none", 100, 0.2), ("projection", 150, 0.1))
        for seed in (0, 1)
    ]
    picture, _ = plot_error_against_size(form_seed_groups(runs))
    drawn = means_of(axes_of(picture))
    assert drawn == [([100], pytest.approx([25])), ([150], pytest.approx([15]))]
    assert points_of(axes_of(picture), "_seeds")[0] == ([100, 100], pytest.approx([20, 30]))
    lines = [container.lines[0].get_linestyle() for container in axes_of(picture).containers]
    assert lines == ["None", "None"]


def test_equal_sizes_have_no_picture():
    for other in (1000, 1499):  # less than 1.5 times as large
        runs = [sized({SHORTCUT: s}, n, 0.1) for s, n in (("none", 1000), ("zero_pad", other))]
        assert plot_error_against_size(form_seed_groups(runs)) == []
    assert plot_error_against_size([]) == []
    unmeasured = [sized({DEPTH: d}, d, None) for d in (20, 56)]
    assert plot_error_against_size(form_seed_groups(unmeasured)) == []
