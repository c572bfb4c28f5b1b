"""A picture with its description, and how it becomes SVG or PDF. It does not import JAX."""

import html
import io
import itertools
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from resflax.drawing.style import INK, plot_style


@dataclass(frozen=True)
class Picture:
    """A figure with its title and its words."""

    title: str
    """The heading; "" for a picture that is alone in its section."""
    figure: Figure
    """The figure, drawn under `plot_style`."""
    description: str
    """What the figure shows, for readers who cannot see it."""
    caption: str = ""
    """What the figure shows and how it was measured, for all readers."""

    @cached_property
    def svg(self) -> bytes:
        """The content of an SVG file of the figure, which is drawn once."""
        return to_file(self.figure, "svg")


_serial = itertools.count(1)
"""Counts the SVG elements of a process, so that the ids of several on one page differ."""


def to_inline_svg(picture: Picture) -> str:
    """The picture as an SVG element that can be put into an HTML page.

    It scales with the page, up to the size of the figure. Its text and axes have the page's text
    colour, and the page chooses the font. Its ids are unique in the process.
    """
    text = picture.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"f{next(_serial)}_"

    def adapt(tag: re.Match[str]) -> str:
        adapted = tag[0].replace(INK, "currentColor").replace("url(#", f"url(#{prefix}")
        adapted = re.sub(r'\bid="', f'id="{prefix}', adapted)
        adapted = re.sub(r'font-family: [^;"]*;? ?', "", adapted)
        return re.sub(r'xlink:href="#', f'xlink:href="#{prefix}', adapted)

    text = re.sub(r"<[^>]*>", adapt, text)  # texts between the tags stay as they are
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    width = picture.figure.get_figwidth() * 72
    attributes = (
        f'role="img" aria-label="{html.escape(picture.description)}" '
        f'style="max-width:{width:.0f}pt"'
    )
    return f"{head} {attributes}>{body}"


def to_file(figure: Figure, kind: Literal["svg", "pdf"]) -> bytes:
    """The content of an SVG or PDF file of a figure; equal figures have equal files.

    The background is transparent, text and axes are nearly black, and a PDF has its fonts in it.
    """
    file = io.BytesIO()
    keyed: Any = {"svg.hashsalt": "figure"}  # ids depend on the figure alone
    date: Any = {"Date" if kind == "svg" else "CreationDate": None}
    _write_powers_as_text(figure)
    with plot_style(), mpl.rc_context(keyed), warnings.catch_warnings():
        # An SVG is shown with the reader's fonts; in a PDF such a character is a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format=kind, transparent=True, metadata=date)
    figure.set_layout_engine("none")  # everything keeps its place in the next file
    return file.getvalue() if kind == "pdf" else _NOT_IN_XML.sub(b"\xef\xbf\xbd", file.getvalue())


_NOT_IN_XML = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Control characters, which XML does not allow. They become U+FFFD."""


class _PowersAsText(LogFormatterSciNotation):
    """Labels the ticks of logarithmic axes without mathematics, which `plot_style` has off."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of the tick at x: `0.01`, `10⁶`, `2·10⁻⁶`, or nothing."""
        label = super().__call__(x, pos)
        power = re.search(r"(-?)(?:([\d.]+)\\times)?10\^\{(-?\d+)\}", label)
        if power is None or 1e-4 < abs(x) < 1e5:
            return self.fix_minus(f"{x:g}") if label else ""
        sign, factor, exponent = power.groups()
        return (
            f"{self.fix_minus(sign)}{factor + '·' if factor else ''}10{exponent.translate(_RAISED)}"
        )


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _write_powers_as_text(figure: Figure) -> None:
    """Replaces matplotlib's own labels of logarithmic axes, which are mathematics."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for formatter, replace in (
            (axis.get_major_formatter(), axis.set_major_formatter),
            (axis.get_minor_formatter(), axis.set_minor_formatter),
        ):
            if type(formatter) is LogFormatterSciNotation:
                as_text = _PowersAsText()
                vars(as_text).update(vars(formatter))
                replace(as_text)
