"""Pictures as SVG: logarithmic axes have labels that are plain text, and true."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from resflax.drawing.picture import to_file
from resflax.drawing.style import plot_style

DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def texts(figure):
    root = ElementTree.fromstring(to_file(figure, "svg"))
    return [
        text for node in root.iter() if node.tag.endswith("}text") for text in [node.text] if text
    ]


def number(label):
    """The number that a label shows: 0.5, 10⁶, 2·10⁻⁶."""
    power = re.fullmatch(r"(?:(\d)·)?10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", label)
    if power is None:
        return float(label.translate(DIGITS))
    return float(power[1] or 1) * 10.0 ** int(power[2].translate(DIGITS))


@pytest.mark.parametrize("limits", [(1e-3, 1e3), (1e-9, 1e-3), (2, 8), (2e-6, 9e-6), (1, 1e7)])
def test_ticks_of_logarithmic_axes_are_numbers(limits):
    with plot_style():
        figure = Figure(layout="constrained")
        axis = figure.subplots()
        axis.plot([1, 2], limits)
        axis.set(yscale="log", xticks=[], ylim=limits)
    labels = texts(figure)
    assert len(labels) >= 2
    low, high = limits
    values = [number(label) for label in labels]
    assert all(low * 0.99 <= value <= high * 1.01 for value in values)
    ticks = {*axis.get_yticks(), *axis.get_yticks(minor=True)}
    assert all(any(value == pytest.approx(tick) for tick in ticks) for value in values)


def test_colour_bars_are_labelled_in_the_same_way():
    with plot_style():
        figure = Figure(layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(np.array([[1e-3, 1e2]]), norm=LogNorm())
        axis.set(xticks=[], yticks=[])
        figure.colorbar(image)
    assert {number(label) for label in texts(figure)} >= {0.01, 0.1, 1, 10}


def test_any_name_can_be_written_whatever_characters_it_has():
    with plot_style():
        figure = Figure(layout="constrained")
        figure.subplots().set_title("\x1b[31mred \x07 漢字 🎉 $x_1$")
    assert "\ufffd[31mred \ufffd 漢字 🎉 $x_1$" in texts(figure)
    assert to_file(figure, "pdf").startswith(b"%PDF")
