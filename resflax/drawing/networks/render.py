"""Turns sketches into figures of matplotlib."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from resflax.drawing.networks.sketch import Box, Dot, Line, Sketch, Words
from resflax.drawing.style import COLORS, INK, plot_style

MARGIN = 0.5


def to_figure(sketch: Sketch, text_size: float) -> Figure:
    """The figure of a sketch, in which text has this size in points."""
    unit = text_size / 72
    width, height = sketch.width + 2 * MARGIN, sketch.height + 2 * MARGIN
    with plot_style():
        figure = Figure(figsize=(width * unit, height * unit))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN), aspect="equal")
        axis.set_axis_off()
        for shape in sketch.shapes:
            if isinstance(shape, Box):
                _draw_box(axis, shape, text_size)
            elif isinstance(shape, Line):
                _draw_line(axis, shape, text_size)
            elif isinstance(shape, Dot):
                axis.add_patch(Circle((shape.x, shape.y), 0.14, facecolor=INK, linewidth=0))
            else:
                _draw_words(axis, shape, text_size)
    return figure


def _draw_box(axis: Axes, box: Box, text_size: float) -> None:
    corner = box.x - box.width / 2, box.y - box.height / 2
    line: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.09 * text_size}
    if box.style == "operator":
        axis.add_patch(Circle((box.x, box.y), box.height / 2, facecolor="none", **line))
    elif box.style == "step":
        shape = f"round,pad=0,rounding_size={box.height / 2}"
        axis.add_patch(
            FancyBboxPatch(corner, box.width, box.height, shape, facecolor="none", **line)
        )
    else:
        color = COLORS[0] if box.style == "layer" else COLORS[3]
        axis.add_patch(
            Rectangle(corner, box.width, box.height, facecolor=color, alpha=0.22, linewidth=0)
        )
        axis.add_patch(Rectangle(corner, box.width, box.height, facecolor="none", **line))
        if box.style == "module":  # a double line, as flow charts have for what is drawn elsewhere
            for x in (corner[0] + 0.25, corner[0] + box.width - 0.25):
                axis.plot([x, x], [corner[1], corner[1] + box.height], **_thin(text_size))
    size = text_size * (1.25 if box.style == "operator" else 1)
    axis.text(box.x, box.y, box.text, fontsize=size, ha="center", va="center_baseline")


def _thin(text_size: float) -> dict[str, Any]:
    return {"color": INK, "linewidth": 0.07 * text_size}


def _draw_line(axis: Axes, line: Line, text_size: float) -> None:
    xs, ys = zip(*line.points, strict=True)
    width = (0.05 if line.thin else 0.1) * text_size
    axis.plot(xs, ys, color=INK, linewidth=width, solid_joinstyle="miter", solid_capstyle="butt")
    if line.arrow:
        (x0, y0), (x1, y1) = line.points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        long, broad = (0.35, 0.11) if line.thin else (0.5, 0.22)
        base = x1 - long * dx, y1 - long * dy
        sides = [(base[0] - broad * s * dy, base[1] + broad * s * dx) for s in (-1, 1)]
        axis.add_patch(Polygon([(x1, y1), *sides], closed=True, facecolor=INK, linewidth=0))


def _draw_words(axis: Axes, words: Words, text_size: float) -> None:
    axis.text(
        words.x,
        words.y,
        words.text,
        fontsize=text_size,
        fontweight="bold" if words.bold else "normal",
        ha=words.align,
        va="center_baseline",
    )
