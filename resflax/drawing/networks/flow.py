"""Draws a small graph as boxes, signs in circles and lines between them, from top to bottom."""

from collections.abc import Sequence

from resflax.drawing.networks.labels import Label, label, size_text
from resflax.drawing.networks.placement import Places, place
from resflax.drawing.networks.routes import CELL, LANES, Route, find_routes
from resflax.drawing.networks.sketch import (
    Box,
    Dot,
    Line,
    Point,
    Shape,
    Sketch,
    Words,
    shortened,
    text_width,
)
from resflax.models.graph import Graph, readers

ROW = 2.6
"""The distance of neighbouring rows."""
HEIGHT = 1.55
"""The height of a box."""
WIDEST = 15.0
"""The greatest width of a text; longer ones are cut."""
_LANE = 0.95
_PAD = 0.55


def draw_flow(graph: Graph, *, sizes: bool = False) -> Sketch:
    """The sketch of a graph, whose lines are all edges of the graph.

    Args:
      graph: the graph.
      sizes: whether the shapes of all arrays stand at the right edge.
    """
    labels = [label(node) for node in graph.nodes]
    labels = [Label(shortened(text, WIDEST), style) for text, style in labels]
    places = place(graph)
    routes = find_routes(graph, places, [style == "operator" for _, style in labels])
    widths = [_width(item) for item in labels]
    columns, lanes, right = _positions(places, routes, widths)
    top = _half_height(labels[places.rows.index(0)])

    def at(number: int) -> Point:
        return columns[places.columns[number]], top + ROW * places.rows[number]

    shapes: list[Shape] = []
    for number, (text, style) in enumerate(labels):
        x, y = at(number)
        if style is None:
            shapes.append(Words(x, y, text))
        else:
            shapes.append(Box(x, y, widths[number], _height(labels[number]), text, style))
    xs = {CELL * column: x for column, x in enumerate(columns)} | lanes
    read_by = readers(graph)
    for route in routes:
        points = _points(route, xs, top, widths, labels)
        shapes.append(Line(tuple(points)))
        if len(read_by[route.source]) > 1 and len(points) > 2 and points[0][0] == points[1][0]:
            shapes.append(Dot(*points[1]))
    if sizes:
        texts = {
            number: size_text(node.shape)
            for number, node in enumerate(graph.nodes)
            if places.columns[number] == 0
        }
        right += 1.0 + max(map(text_width, texts.values()))
        shapes += (Words(right, at(n)[1], text, "right") for n, text in texts.items())
    last = max(range(len(labels)), key=lambda n: places.rows[n])
    height = at(last)[1] + _half_height(labels[last])
    return Sketch(right, height, tuple(dict.fromkeys(shapes)))


def in_words(graph: Graph, *, sizes: bool = False) -> str:
    """The graph as a text: `1: 32x32x16; 2: 3x3 conv, 16 of 1; 3: + of 1 and 2`.

    With `sizes`, the text also has the shapes of all arrays.
    """
    texts = []
    for number, node in enumerate(graph.nodes, start=1):
        text = f"{number}: {label(node).text}"
        if node.inputs:
            text += f" of {' and '.join(str(given + 1) for given in node.inputs)}"
        texts.append(f"{text}, {size_text(node.shape)}" if sizes else text)
    return "; ".join(texts)


def _width(item: Label) -> float:
    if item.style == "operator":
        return HEIGHT
    return text_width(item.text) + (0 if item.style is None else 2 * _PAD)


def _height(item: Label) -> float:
    return 1.2 if item.style is None else HEIGHT


def _half_height(item: Label) -> float:
    return _height(item) / 2


def _positions(
    places: Places, routes: Sequence[Route], widths: Sequence[float]
) -> tuple[list[float], dict[int, float], float]:
    """The places of columns; those of lanes, by their place in the grid; and the right edge."""
    used = {x for route in routes for x, _ in route.points if x % CELL}
    columns: list[float] = []
    lanes: dict[int, float] = {}
    x = 0.0
    for column in range(max(places.columns) + 1):
        half = max(w for w, c in zip(widths, places.columns, strict=True) if c == column) / 2
        columns.append(x + half)
        x += 2 * half
        here = [CELL * column + lane for lane in LANES if CELL * column + lane in used]
        lanes |= {lane: x + _LANE * place for place, lane in enumerate(here, start=1)}
        x += _LANE * len(here)
        is_last = column == max(places.columns)
        x += 0.1 if is_last else max(1.3 - 0.3 * len(here), _LANE)
    return columns, lanes, x


def _points(
    route: Route,
    xs: dict[int, float],
    top: float,
    widths: Sequence[float],
    labels: Sequence[Label],
) -> list[Point]:
    """The corners of a route, from the edge of one box to the edge of another."""
    gap = ROW - HEIGHT

    def y_of(value: int) -> float:
        row, rest = divmod(value, CELL)
        if rest == 4:  # below a node
            return top + ROW * row + HEIGHT / 2 + 0.25 * gap
        if rest == 6:  # above the next one
            return top + ROW * (row + 1) - HEIGHT / 2 - 0.5 * gap
        return top + ROW * row

    points = [(xs[x], y_of(y)) for x, y in route.points]
    start_x, start_y = points[0]
    points[0] = (start_x, start_y + _half_height(labels[route.source]))
    x, y = points[-1]
    if route.entry == "top":
        points[-1] = (x, y - _half_height(labels[route.target]))
    else:
        aside = widths[route.target] / 2
        points[-1] = (x + aside if route.entry == "right" else x - aside, y)
    return points
