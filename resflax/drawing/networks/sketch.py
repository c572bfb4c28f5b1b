"""Sketches: boxes, lines and texts with their places, before they become a figure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

Style = Literal["layer", "step", "operator", "module"]
"""layer: what has weights; step: what has none, such as BN, ReLU or pooling; operator: a sign in a
circle; module: what is drawn elsewhere."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box or a circle with a text, by its centre."""

    x: float
    y: float
    width: float
    height: float
    text: str
    style: Style


@dataclass(frozen=True)
class Line:
    """A line through points, with the head of an arrow at its end."""

    points: tuple[Point, ...]
    arrow: bool = True
    thin: bool = False


@dataclass(frozen=True)
class Dot:
    """A dot where a line splits."""

    x: float
    y: float


@dataclass(frozen=True)
class Words:
    """A line of text that stands alone."""

    x: float
    y: float
    text: str
    align: Literal["left", "center", "right"] = "center"
    bold: bool = False


Shape = Box | Line | Dot | Words

_TITLE = 13.0
"""Titles may be so wide even if what is below them is narrower."""


@dataclass(frozen=True)
class Sketch:
    """Shapes between (0, 0) and (width, height)."""

    width: float
    height: float
    shapes: tuple[Shape, ...]


@cache
def text_width(text: str, *, bold: bool = False) -> float:
    """The width of a line of text, as a multiple of its size."""
    font = FontProperties(family="sans-serif", weight="bold" if bold else "normal")
    size = 10  # a glyph's outline has no fractions of a point
    if not text.strip():
        return 0.3 * len(text)
    path = TextPath((0, 0), text.replace("$", "S"), size=size, prop=font)
    return float(path.get_extents().width) / size


def moved(shape: Shape, dx: float, dy: float) -> Shape:
    """The shape at another place."""
    if isinstance(shape, Line):
        return replace(shape, points=tuple((x + dx, y + dy) for x, y in shape.points))
    return replace(shape, x=shape.x + dx, y=shape.y + dy)


def stacked(sketches: Sequence[Sketch], gap: float) -> Sketch:
    """Sketches below each other, each in the middle."""
    width = max(sketch.width for sketch in sketches)
    shapes: list[Shape] = []
    y = 0.0
    for sketch in sketches:
        left = (width - sketch.width) / 2
        shapes += (moved(shape, left, y) for shape in sketch.shapes)
        y += sketch.height + gap
    return Sketch(width, y - gap, tuple(shapes))


def beside(sketches: Sequence[Sketch], gap: float) -> Sketch:
    """Sketches beside each other, whose upper edges are aligned."""
    shapes: list[Shape] = []
    x = 0.0
    for sketch in sketches:
        shapes += (moved(shape, x, 0) for shape in sketch.shapes)
        x += sketch.width + gap
    height = max(sketch.height for sketch in sketches)
    return Sketch(x - gap, height, tuple(shapes))


def packed(sketches: Iterable[Sketch], width: float, gap: float) -> Sketch:
    """Sketches in rows that are, if possible, no wider than `width`."""
    rows: list[list[Sketch]] = []
    for sketch in sketches:
        taken = sum(other.width + gap for other in rows[-1]) if rows else 0.0
        if rows and taken + sketch.width <= width:
            rows[-1].append(sketch)
        else:
            rows.append([sketch])
    return stacked([beside(row, gap) for row in rows], gap)


def titled(sketch: Sketch, title: Sequence[str], least_lines: int = 1) -> Sketch:
    """The sketch below the lines of its title, which take the space of at least so many lines."""
    broad = max(sketch.width, _TITLE)
    lines = [line for text in title for line in wrapped(text, broad, bold=True)]
    width = max(sketch.width, *(text_width(line, bold=True) for line in lines))
    rows = max(len(lines), least_lines)
    top = 1.4 * rows + 0.4
    words = (
        Words(width / 2, 0.7 + 1.4 * row, line, bold=True)
        for row, line in enumerate(lines, start=rows - len(lines))
    )
    shapes = (*words, *(moved(shape, (width - sketch.width) / 2, top) for shape in sketch.shapes))
    return Sketch(width, sketch.height + top, shapes)


def wrapped(text: str, width: float, *, bold: bool = False) -> list[str]:
    """The text in lines of at most this width; longer words are cut and get an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, width, bold=bold))
    return lines


def shortened(text: str, width: float, *, bold: bool = False) -> str:
    """The text, cut in the middle if it is wider than `width`."""
    if text_width(text, bold=bold) <= width:
        return text
    kept = len(text)
    while kept > 2 and text_width(f"{text[: -(-kept // 2)]}…{text[-(kept // 2) :]}") > width:
        kept -= 1
    return f"{text[: -(-kept // 2)]}…{text[-(kept // 2) :]}"
