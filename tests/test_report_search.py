"""The pictures of a search, against numbers that were worked out by hand."""

import numpy as np
import pytest
from made_runs import (
    BASE,
    DEPTH,
    SHORTCUT,
    axes_of,
    legend_of,
    log_line,
    made_run,
    made_search,
    points_of,
)

from resflax.drawing.picture import to_file
from resflax.report.build import make_sections
from resflax.report.groups import form_seed_groups
from resflax.report.search_pictures import plot_search
from resflax.report.search_table import describe_best, make_trials_table
from resflax.report.sections import course_sections, finding_sections, search_sections
from resflax.report.texts import to_csv

RATE = "optimizer.learning_rate"
SWEEP = made_search([RATE, SHORTCUT, DEPTH])


def trial(number, rate, error, state="finished", shortcut="none", depth=20, sweep=SWEEP):
    """A trial of a search; unless it is finished, the log's last line has its error."""
    lines = [log_line(10, "validation", error=0.9), log_line(10, error=0.8)]
    if error is not None:
        lines.append(log_line(20, "validation", error=error))
    result = error if state == "finished" else None
    return made_run(
        {RATE: rate, SHORTCUT: shortcut, DEPTH: depth}, error=result, validation_error=error,
        state=state, lines=lines if error is not None else (), number=number, sweep=sweep,
    )  # fmt: skip


def trials():
    """Six trials in the order in which a folder may list them, which is not their own."""
    listed = [
        trial(3, 0.3, 0.1),
        trial(0, 0.001, 0.4),
        trial(1, 0.01, 0.5, "pruned", "zero_pad"),
        trial(2, 0.1, 0.2, depth=32),
        trial(5, 0.2, 0.3, shortcut="zero_pad"),
        trial(4, 1.0, None, "failed"),
    ]
    return listed


def test_a_search_has_its_three_pictures_and_no_comparison_of_groups():
    runs = trials()
    groups = form_seed_groups(runs)
    (search,), (curves, sizes) = search_sections(groups), course_sections(groups)
    assert finding_sections(groups) == []
    assert search.title == "Search"
    assert not sizes.pictures
    assert [picture.title for picture in search.pictures] == [
        "Best error so far", "Effect of each field", "Pairs of fields",
    ]  # fmt: skip
    assert len(axes_of(curves.pictures[0]).lines) == 4  # of the finished ones
    for picture in curves.pictures:
        assert picture.caption.endswith(
            " 4 of the 6 trials of searches have curves, the best of the finished ones; 2 are left "
            "out."
        )


def test_curves_of_all_trials_and_of_other_sweeps_leave_nothing_out():
    for runs in ([trial(0, 0.1, 0.2), trial(1, 0.2, 0.3)], [made_run(lines=[log_line(10)])]):
        curves, _ = course_sections(form_seed_groups(runs))
        assert curves.pictures
        assert all("left out" not in picture.caption for picture in curves.pictures)


def test_the_best_trial_is_named_with_its_fields_and_errors():
    (search,) = search_sections(form_seed_groups(trials()))
    assert search.sentences == (
        "The best of 4 finished trials is trial 4: learning rate 0.3, shortcut none, depth 20; its "
        "validation error is 10.00 % and its test error 10.00 %.",
    )
    assert describe_best([trial(0, 0.1, 0.2, "pruned")]) == []
    (sentence,) = describe_best([trial(0, 0.0123456, 0.2), trial(1, 0.2, 0.1, "pruned")])
    assert sentence.startswith("The only finished trial is trial 1: learning rate 0.01235, ")


def test_the_table_of_trials_begins_with_the_best_and_ends_with_those_without_a_result():
    runs = [*trials(), trial(6, 1 / 3, 0.05, "pruned")]
    table = make_trials_table(runs)
    assert table.headers == (
        "trial", "learning rate", "shortcut", "depth", "state", "steps", "validation error",
        "test error", "folder",
    )  # fmt: skip
    assert [row[0].value for row in table.rows] == [4, 3, 6, 1, 7, 2, 5]
    assert table.states == (*["finished"] * 4, "pruned", "pruned", "failed")
    pruned, failed = table.rows[4], table.rows[6]
    assert [cell.text for cell in pruned[:8]] == [
        "7", "0.3333", "none", "20", "pruned", "20", "5.00 %", "-",
    ]  # fmt: skip
    assert [cell.text for cell in failed[4:8]] == ["failed", "0", "-", "-"]
    (line,) = [line for line in to_csv(table).splitlines() if line.startswith("7,")]
    assert line.startswith(f"7,{1 / 3!r},none,20,pruned,20,5.0,,")


def test_fields_of_equal_names_are_told_apart():
    fields = ["optimizer.type", "schedule.type", "batch_size"]
    table = make_trials_table([made_run(sweep=made_search(fields), number=0)])
    assert table.headers[1:4] == ("optimizer type", "schedule type", "batch size")


def test_each_search_has_files_of_its_own():
    second = made_search([RATE])
    object.__setattr__(second, "path", second.path / "other")
    runs = [*trials(), trial(0, 0.7, 0.6, sweep=second)]
    sections = make_sections("report", form_seed_groups(runs))
    assert {section.title: section.files for section in sections[:2]} == {
        "Search search": ("report-search.csv", "report-search.tex"),
        "Search other": ("report-search-2.csv", "report-search-2.tex"),
    }


def test_a_sweep_beside_a_search_is_compared_and_two_searches_are_told_apart():
    others = [made_run({DEPTH: d, "seed": s}) for d in (56, 110) for s in range(2)]
    runs = [*trials(), *others]
    titles = [section.title for section in make_sections("report", form_seed_groups(runs))]
    assert titles[:2] == ["Loss and error against depth", "Search"]
    second = made_search([RATE])
    object.__setattr__(second, "path", second.path / "other")
    runs = [*trials(), trial(0, 0.7, 0.6, sweep=second)]
    titles = [section.title for section in search_sections(form_seed_groups(runs))]
    assert titles == ["Search search", "Search other"]


def test_the_lowest_error_so_far_falls_with_the_finished_trials():
    picture = plot_search(trials())[0]
    axes = axes_of(picture)
    (best,) = points_of(axes, "_best")
    assert best == ([1, 3, 4, 6, 6.5], pytest.approx([40, 20, 10, 10, 10]))
    assert points_of(axes, "_finished") == [([1, 3, 4, 6], pytest.approx([40, 20, 10, 30]))]
    assert points_of(axes, "_pruned") == [([2], [50])]
    (failed,) = [line for line in axes.lines if line.get_label() == "_failed"]
    assert list(failed.get_xdata()) == [5]
    assert failed.get_transform().transform((5, 1))[1] == pytest.approx(axes.bbox.y1)
    assert legend_of(picture) == ["finished", "pruned", "failed", "best so far"]
    assert "trial 4 of 6, with 10 %" in picture.caption


def offsets(axes):
    """The places of all marks, as an array (n, 2)."""
    return np.concatenate([marks.get_offsets() for marks in axes.collections])


def test_each_field_has_a_panel_of_errors_against_its_values():
    picture = plot_search(trials())[1]
    rate, shortcut, depth = picture.figure.axes[:3]
    assert [axes.get_xlabel() for axes in (rate, shortcut, depth)] == [
        "learning rate", "shortcut", "depth",
    ]  # fmt: skip
    expected = {(0.001, 40), (0.1, 20), (0.3, 10), (0.2, 30), (0.01, 50)}
    assert {(x, round(y, 9)) for x, y in offsets(rate).tolist()} == expected
    assert rate.get_xscale() == "log"
    assert [label.get_text() for label in shortcut.get_xticklabels()] == ["none", "zero_pad"]
    places = {round(y): round(x) for x, y in offsets(shortcut)}
    assert places == {40: 0, 20: 0, 10: 0, 30: 1, 50: 1}
    assert [label.get_text() for label in depth.get_xticklabels()] == ["20", "32"]
    assert "1 of 6 trials has no error, and is not drawn." in picture.caption


def test_pairs_of_fields_are_coloured_by_the_error_and_the_best_has_a_ring():
    picture = plot_search(trials())[2]
    names = [(axes.get_xlabel(), axes.get_ylabel()) for axes in picture.figure.axes[:3]]
    assert names == [
        ("learning rate", "shortcut"), ("learning rate", "depth"), ("shortcut", "depth"),
    ]  # fmt: skip
    axes = picture.figure.axes[1]
    assert points_of(axes, "_best") == [([0.3], [20])]
    values = np.concatenate([np.asarray(marks.get_array()) for marks in axes.collections])
    errors = dict(zip(offsets(axes)[:, 0].tolist(), values.tolist(), strict=True))
    assert errors == pytest.approx({0.001: 40, 0.01: 50, 0.1: 20, 0.2: 30, 0.3: 10})


def test_of_many_fields_the_first_four_are_paired():
    fields = {RATE: 0.1, DEPTH: 20, SHORTCUT: "none", "batch_size": 8, "optimizer.nesterov": True}
    sweep = made_search(fields)
    runs = [
        made_run(fields | {"batch_size": 8 + i}, validation_error=0.1 + i, sweep=sweep, number=i)
        for i in range(2)
    ]
    _, effects, pairs = plot_search(runs)
    visible = [axes for axes in effects.figure.axes if axes.axison]
    assert len(visible) == 5 + 1  # with the colour bar
    assert len(pairs.figure.axes) == 6 + 1
    assert "The first 4 of 5 fields are shown." in pairs.caption


@pytest.mark.parametrize(
    "runs",
    [
        [trial(0, 0.1, 0.2)],
        [trial(0, 0.1, 0.0), trial(1, 0.1, 0.0, depth=32)],
        [trial(0, 0.1, 0.0), trial(1, 1e-5, 0.5), trial(2, 0.5, 0.005)],
        [trial(0, 0.1, 0.3, "pruned"), trial(1, 0.2, 0.4, "unfinished")],
    ],
    ids=["one", "zeros", "wide", "none finished"],
)
def test_small_and_extreme_searches_are_drawn_without_a_warning(runs):
    for picture in plot_search(runs):
        assert to_file(picture.figure, "svg").startswith(b"<?xml")


def test_logarithmic_scales_have_plain_numbers():
    runs = [trial(0, 0.1, 0.001), trial(1, 1e-5, 0.5), trial(2, 0.5, 0.005)]
    for picture in plot_search(runs):
        assert b"mathdefault" not in to_file(picture.figure, "svg")


def test_without_errors_on_held_out_examples_there_is_no_picture():
    assert plot_search([made_run(sweep=SWEEP, number=0, base=BASE)]) == []
    assert plot_search([]) == []
