"""Comparisons of groups in words, and as forest plots."""

import pytest
from compared import BASE, VARIANTS, drawn, groups_of, many_groups, runs_of, sweep_of

from resflax import DenseNet
from resflax.experiment import with_fields
from resflax.report.comparisons import compare
from resflax.report.forest import plot_comparisons
from resflax.report.sentences import describe, sentences

# --- Sentences


def told(*runs, against=None):
    """The sentences about the training loss."""
    comparisons = compare(groups_of(*runs), against)
    return [describe(one) for one in comparisons if one.measure.key == "train_loss"]


FIVE = (0.1, 0.3, 0.2, 0.5, 0.4)
"""Losses of five seeds."""


def plus(*differences):
    return tuple(loss + difference for loss, difference in zip(FIVE, differences, strict=False))


CLEAR = plus(0.5, 0.6, 0.55, 0.6, 0.5)
"""0.55 more in the mean, with a deviation of 0.05: 0.062 is t = 2.776 times 0.05 / 5^0.5."""


def test_a_clear_difference_is_told_with_its_context():
    sweep = sweep_of()
    runs = [
        runs_of({"model.depth": depth, "model.shortcut": shortcut}, FIVE, losses, sweep=sweep)
        for depth, shortcut, losses in (
            (32, "none", CLEAR), (32, "zero_pad", FIVE), (20, "none", FIVE), (20, "zero_pad", FIVE),
        )
    ]  # fmt: skip
    assert told(*runs) == [
        "In the plain net, the training loss is 0.550 higher at 32 layers than at 20 layers "
        "(95 % 0.488 to 0.612, n = 5).",
        "In the net with zero-padding, the training loss at 32 layers equals that at 20 layers in "
        "all 5 pairs.",
        "At 20 layers, the training loss in the plain net equals that in the net with zero-padding "
        "in all 5 pairs.",
        "At 32 layers, the training loss is 0.550 higher in the plain net than in the net with "
        "zero-padding (95 % 0.488 to 0.612, n = 5).",
    ]


def test_lower_is_told_as_lower_and_errors_in_points():
    rate = "optimizer.learning_rate"
    runs = [runs_of({rate: 0.1}, CLEAR, FIVE), runs_of({rate: 0.01}, FIVE, FIVE)]
    (error, _) = compare(groups_of(*runs), "learning rate 0.1")
    assert describe(error) == (
        "The test error is 55.0 points lower at learning rate 0.01 than at learning rate 0.1 "
        "(95 % 48.8 to 61.2, n = 5)."
    )


def test_what_cannot_be_told_is_not_told():
    unclear = plus(0.1, -0.1, 0.1, -0.1, 0.1)  # mean 0.02, deviation 0.10954, so 0.136
    assert told(runs_of({"batch_size": 64}, FIVE), runs_of({"batch_size": 128}, unclear)) == [
        "The training loss at batch size 128 cannot be told from that at batch size 64 (difference "
        "+0.02, 95 % -0.12 to +0.16, n = 5)."
    ]


def test_equal_differences_and_corrected_p_are_told():
    runs = [runs_of({"model.shortcut": "none"}, (0.1, 0.2)),
            runs_of({"model.shortcut": "my.py:Own"}, (0.3, 0.4))][:1]  # fmt: skip
    runs += [runs_of({"model.shortcut": "conv"}, (0.35, 0.45))]
    assert told(*runs) == [
        "The training loss is 0.2500 lower in the plain net than in the net with 1x1 convolutions "
        "as shortcuts, by the same amount in both pairs."
    ]
    rates = [[*runs_of({"optimizer.momentum": m}, FIVE, losses)] for m, losses in
             ((0.5, FIVE), (0.8, plus(0.1, 0.3, 0.1, 0.3, 0.2)), (0.9, FIVE))]  # fmt: skip
    # The mean is 0.2 and the deviation 0.1, so t is 4.472 and p 0.0111; of four rows, two count.
    higher = "The training loss is 0.20 higher at momentum 0.8 than at momentum 0.5 "
    assert told(*rates)[0] == f"{higher}(95 % 0.08 to 0.32, n = 5)."
    more = [runs_of({"optimizer.momentum": m}, FIVE, plus(0.1, -0.1, 0.1, -0.1, 0.1))
            for m in (0.91, 0.92, 0.93, 0.94)]  # fmt: skip
    # Five rows count, those of the losses: 5 * 0.0111 = 0.055.
    assert next(text for text in told(*rates[:2], *more) if "momentum 0.8 " in text) == (
        f"{higher}(95 % 0.08 to 0.32, n = 5), but this is not significant after Holm's correction "
        "(p = 0.055)."
    )


def test_other_fields_have_a_general_form():
    cases = {
        ("optimizer.nesterov", False, True): (
            "with Nesterov momentum",
            "without Nesterov momentum",
        ),
        ("ema_decay", None, 0.9): ("with ema decay 0.9", "without ema decay"),
        ("precision", "float32", "bfloat16"): ("with precision bfloat16", "with precision float32"),
        ("model.shortcut", "projection", "dropout"): (
            "in the net with dropout on the shortcuts",
            "in the net with projections",
        ),
    }
    for (name, first, second), (here, there) in cases.items():
        sweep = sweep_of(with_fields(BASE, {name: first}), fields=(name,))
        first_runs = runs_of({name: first}, FIVE, sweep=sweep)
        sentence = told(first_runs, runs_of({name: second}, FIVE, CLEAR, sweep=sweep))
        assert sentence[0].startswith(f"The training loss is 0.550 higher {here} than {there} (")


def test_all_fields_that_a_sweep_varies_are_told_and_derived_ones_are_not():
    narrow, wide = (with_fields(BASE, {"model": DenseNet(16, k)}) for k in (12, 24))
    fields = ("model.growth_rate", "model.initial_channels")
    for varied, more in ((fields[:1], ("", "")), (fields, (48, 24))):
        sweep = sweep_of(narrow, fields=varied)
        (sentence,) = told(
            runs_of({}, FIVE, base=narrow, sweep=sweep),
            runs_of({}, FIVE, CLEAR, base=wide, sweep=sweep),
        )
        here, there = (f" and with initial channels {n}" if n else "" for n in more)
        assert f"at growth rate 24{here} than at growth rate 12{there} (" in sentence
    together = {64: 0.05, 128: 0.1}
    (sentence,) = told(
        *(
            runs_of({"batch_size": size, "optimizer.learning_rate": rate}, FIVE, losses)
            for (size, rate), losses in zip(together.items(), (FIVE, CLEAR), strict=True)
        )
    )
    assert (
        "higher at learning rate 0.1 and at batch size 128 than at learning rate 0.05 and at "
        "batch size 64 (95 %"
    ) in sentence


def test_variants_are_told_by_their_names():
    runs = [
        runs_of(fields, FIVE, CLEAR if name == "gated" else FIVE, sweep=sweep_of(), variant=name)
        for name, fields in VARIANTS.items()
    ]
    assert told(*runs)[-1] == (
        'The training loss is 0.550 higher with "gated" than with "original" '
        "(95 % 0.488 to 0.612, n = 5)."
    )


def test_the_clearest_comparisons_are_told_in_the_order_of_the_table():
    steps = (0.1, 0.3, 0.2, 0.5, 0.4)
    groups = groups_of(
        *(runs_of({"batch_size": n}, plus(*(n * x**n for x in steps))) for n in range(1, 6))
    )
    comparisons = compare(groups)
    assert sentences(comparisons, 8) == [describe(one) for one in comparisons]
    *told_lines, last = sentences(comparisons, 3)
    p_values = sorted(one.comparison.p_t for one in comparisons)
    clearest = [one for one in comparisons if one.comparison.p_t <= p_values[2]]
    assert told_lines == [describe(one) for one in clearest]
    assert last == "These are the 3 comparisons with the smallest p; the table has 5 more."


# --- Pictures


def test_a_forest_plot_shows_each_effect_its_interval_and_its_number_of_pairs():
    groups = groups_of(
        runs_of({"model.shortcut": "zero_pad"}, FIVE, FIVE, sweep=sweep_of()),
        runs_of({"model.shortcut": "none"}, FIVE, CLEAR, sweep=sweep_of()),
        runs_of({"model.shortcut": "conv"}, FIVE[:3], plus(0.1, -0.1, 0.05)),
    )
    comparisons = compare(groups)
    errors, losses = plot_comparisons(comparisons)
    assert losses.title == "Training loss compared with shortcut zero_pad"
    axis = losses.figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "shortcut conv", "shortcut none",
    ]  # fmt: skip
    assert [text.get_text() for text in axis.texts] == ["n = 3", "n = 5"]
    bars, filled, hollow = drawn(losses)
    assert filled == {1: pytest.approx(0.55)}
    assert bars[1] == pytest.approx((0.488, 0.612), abs=1e-3)
    assert hollow == {0: pytest.approx(0.05 / 3)}
    assert bars[0][0] < 0 < bars[0][1]
    assert axis.lines[0].get_xdata() == [0, 0]  # the line of no difference
    assert errors.figure.axes[0].get_xlabel() == "difference in test error (points)"
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top


def test_wide_intervals_do_not_hide_the_others():
    groups = groups_of(
        *(
            runs_of({"batch_size": 1 + i}, plus(*(i * (0.1 + 0.01 * x) for x in FIVE)))
            for i in range(5)
        ),
        runs_of({"batch_size": 99}, (0.3, 0.9)),
    )
    picture = plot_comparisons(compare(groups))[1]
    axis = picture.figure.axes[0]
    low, high = axis.get_xlim()
    assert -10 < low < 0 < high < 10.5
    arrows = {line.get_marker(): line.get_ydata() for line in axis.lines}
    assert arrows["<"] == arrows[">"] == [4]


def test_long_comparisons_are_several_pictures_and_say_what_they_leave_out():
    pictures = plot_comparisons(compare(many_groups(131)))
    titles = [picture.title for picture in pictures]
    assert titles == [
        f"{measure} compared with batch size 1 (part {number})"
        for measure in ("Test error", "Training loss")
        for number in (1, 2, 3)
    ]
    captions = [picture.caption for picture in pictures]
    assert captions == ["", "", "10 more comparisons of this kind are in the table."] * 2
    rows = [len(picture.figure.axes[0].texts) for picture in pictures]
    assert rows == [40] * 6
    assert len(plot_comparisons(compare(many_groups(41)))) == 2  # all rows fit
