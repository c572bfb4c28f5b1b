"""The table of all published networks marks exactly the figures that are known not to fit."""

import pytest

from resflax.models.comparison import agrees, comparison_rows, summarize_published
from resflax.models.published import PUBLISHED
from resflax.models.zoo import NAMES


@pytest.mark.parametrize(
    ("printed", "counted", "expected"),
    [
        ("0.27 M", 269_722, True),
        ("0.27 M", 275_001, False),
        ("10.2 M", 10_327_706, False),
        ("3.8 G", 3_857_973_248, False),
        ("7.6 G", 7_570_000_000, True),
        ("11,689,512", 11_689_512, True),
        ("11,689,512", 11_689_511, False),
    ],
)
def test_a_count_agrees_with_a_printed_figure_if_it_rounds_to_it(printed, counted, expected):
    assert agrees(printed, counted) is expected


def test_only_known_networks_have_printed_figures():
    assert PUBLISHED.keys() <= set(NAMES)


@pytest.mark.slow  # counts ResNet-1202 too; test_counts has each count by itself
def test_every_printed_figure_that_does_not_fit_has_a_note_with_the_reason():
    rows = comparison_rows(summarize_published(NAMES))
    assert [row["name"] for row in rows] == list(NAMES)
    differing = {
        row["name"]
        for row in rows
        for printed, counted in (("published_params", "params"), ("published_macs", "macs"))
        if row[printed] is not None and not agrees(row[printed], row[counted])
    }
    assert differing == {"preact_resnet1001", "resnet34", "resnet50", "resnet101", "resnet152"}
    assert all(PUBLISHED[name].note for name in differing)
