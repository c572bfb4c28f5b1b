"""The style that all plots share. It does not import JAX."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

COLORS = (
    "#0064fa", "#dc7800", "#82966e", "#aa1eaa", "#c80a28", "#785a6e", "#3ca0b4", "#aa78f0",
    "#fa32a0", "#007832",
)  # fmt: skip
"""Colours of lines. They have a contrast of at least 3 to white and to the page's dark background.

The first six, above all, are told apart by readers who cannot see red, green or blue: they were
found by a search for the greatest distances in such readers' eyes (tests/test_colors.py measures
them). `MARKERS` and `DASHES` tell lines apart without colour.
"""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""Marks of lines, in the order of `COLORS`, so that a line is not told by its colour alone."""

DASHES = ("-", "--", "-.", ":")
"""Kinds of strokes, for a second property of a line."""

SIZE = (5.2, 3.6)
"""Width and height in inches: two plots fit side by side in a wide window, and one on a phone."""

INK = "#010203"
"""Stands for the page's text colour until a picture is put into a page; it is nearly black."""


@contextmanager
def plot_style() -> Iterator[None]:
    """Sets matplotlib's style inside a `with` statement.

    Text stays text in SVG and PDF; text, axes and grid have the colour `INK`.
    """
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "text.parse_math": False,  # names may have dollar signs
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.18,
        "axes.titlesize": 11,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings |= dict.fromkeys((*ink, "grid.color"), INK)
    keyed: Any = settings  # matplotlib 3.11 types every key
    with mpl.rc_context(keyed):
        yield


def in_legend(label: str) -> str:
    """The label as matplotlib's legend shows it, which leaves out those that begin with `_`."""
    return f"\u200b{label}" if label.startswith("_") else label  # a space without width
