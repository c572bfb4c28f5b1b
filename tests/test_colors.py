"""Colours: they can be read on white and on the dark page, and told apart by the colour-blind.

Relative luminance and contrast are those of WCAG 2.2. Colour vision deficiencies are simulated as
by Machado, Oliveira & Fernandes 2009 (Table 1, severity 1.0, applied to linear RGB). The distance
of two colours is that of CIE 1976 in L*a*b*, with the white of D65.
"""

import itertools
import re
from importlib import resources

import numpy as np
import pytest

from resflax.drawing.style import COLORS, DASHES, MARKERS

WHITE = "#ffffff"
CSS = (resources.files("resflax.report") / "page.css").read_text(encoding="utf-8")

VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def to_linear(color):
    """Linear RGB (3,) from 0 to 1."""
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(color):
    return float(TO_XYZ[1] @ to_linear(color))


def contrast(first, second):
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def to_lab(linear):
    ratio = TO_XYZ @ linear / (TO_XYZ @ np.ones(3))
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(first, second, vision):
    seen = [np.clip(VISIONS[vision] @ to_linear(color), 0, 1) for color in (first, second)]
    return float(np.linalg.norm(to_lab(seen[0]) - to_lab(seen[1])))


def least_distance(colors, vision):
    return min(distance(*pair, vision) for pair in itertools.combinations(colors, 2))


def schemes():
    """The variables of the page's stylesheet on a light screen, a dark one, and on paper."""
    light, dark, paper = (
        dict(re.findall(r"--(\w+): (#\w{6})", rules))
        for rules in re.findall(r":root {(.*?)}", CSS, re.S)
    )
    return {"light": light, "dark": light | dark, "paper": light | paper}


def test_formulas_agree_with_known_values():
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast("#777777", WHITE) == pytest.approx(4.48, abs=0.01)  # well known to just fail
    assert to_lab(to_linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert distance("#ff0000", "#ff0000", "usual") == 0
    for vision in VISIONS:  # grey stays grey
        seen = VISIONS[vision] @ to_linear("#808080")
        assert seen == pytest.approx(to_linear("#808080"), abs=1e-5)
    assert (
        distance("#ff0000", "#00ff00", "deuteranopia") < distance("#ff0000", "#00ff00", "usual") / 2
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_are_seen_on_the_page(scheme):
    background = schemes()[scheme]["paper"]
    assert min(contrast(color, background) for color in COLORS) >= 3  # WCAG 1.4.11


@pytest.mark.parametrize("vision", VISIONS)
def test_colors_are_told_apart(vision):
    assert least_distance(COLORS[:6], vision) >= 25
    assert least_distance(COLORS, vision) >= 18


def test_every_color_has_a_mark_of_its_own():
    assert len(COLORS) == len(set(COLORS)) == len(MARKERS) == len(set(MARKERS)) == 10
    assert len(DASHES) == len(set(DASHES)) == 4


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_text_is_read_on_the_page(scheme):
    colors = schemes()[scheme]
    for text, background in itertools.product(
        ("ink", "soft", "accent", "bad", "warn"), ("paper", "shade")
    ):
        assert contrast(colors[text], colors[background]) >= 4.5, (text, background)  # WCAG 1.4.3
