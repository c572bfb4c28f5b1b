"""Routes of lines between placed nodes, in a grid, so that few of them cross."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from resflax.drawing.networks.placement import Places
from resflax.models.graph import Graph

CELL = 10
"""The distance of neighbouring rows, and of neighbouring columns."""
LANES = (3, 5, 7)
"""Places for vertical lines in the gap after a column."""
_FORK, _ENTRY = 4, -4
"""Where horizontal lines leave below a node, and arrive above one."""

Grid = tuple[int, int]
Segment = tuple[Grid, Grid]


@dataclass(frozen=True)
class Route:
    """A line from one node to another, through points (x, y) of the grid.

    Column c is at x = 10 c and row r at y = 10 r.
    """

    source: int
    target: int
    points: tuple[Grid, ...]
    """The first is the source and the last is the target."""
    entry: Literal["top", "left", "right"]
    """The side of the target where it arrives."""


def find_routes(graph: Graph, places: Places, operators: Sequence[bool]) -> list[Route]:
    """A route for each pair of a node and another that reads it; short ones are chosen first.

    Args:
      graph: the graph.
      places: the places of its nodes.
      operators: for each node, whether it is drawn as a sign in a circle, which lines enter from
        the sides.
    """
    pairs = {(given, n) for n, node in enumerate(graph.nodes) for given in node.inputs}

    def key(pair: tuple[int, int]) -> tuple[bool, int, int, int]:
        source, target = pair
        straight = places.columns[source] == places.columns[target]
        distance = places.rows[target] - places.rows[source]
        return not straight or distance > 1, distance, source, target

    chosen: list[Route] = []
    for source, target in sorted(pairs, key=key):
        candidates = list(_candidates(places, source, target))
        chosen.append(
            min(candidates, key=lambda route: _cost(route, chosen, places, operators[route.target]))
        )
    return chosen


def _candidates(places: Places, source: int, target: int) -> Iterator[Route]:
    x, y = (CELL * value for value in (places.columns[source], places.rows[source]))
    end_x, end_y = (CELL * value for value in (places.columns[target], places.rows[target]))
    if x == end_x:
        yield Route(source, target, ((x, y), (end_x, end_y)), "top")
    columns = range(max(places.columns) + 1)
    lanes = [CELL * c + lane for c in columns for lane in LANES] + [CELL * c for c in columns]
    for lane in lanes:
        begin = ((x, y),) if lane == x else ((x, y), (x, y + _FORK), (lane, y + _FORK))
        if lane == end_x:
            if lane != x:
                yield Route(source, target, (*begin, (end_x, end_y)), "top")
            continue
        side: Literal["left", "right"] = "right" if lane > end_x else "left"
        yield Route(source, target, (*begin, (lane, end_y), (end_x, end_y)), side)
        if lane != x:
            above = ((lane, end_y + _ENTRY), (end_x, end_y + _ENTRY), (end_x, end_y))
            yield Route(source, target, (*begin, *above), "top")


def _cost(route: Route, others: Sequence[Route], places: Places, is_operator: bool) -> float:
    """How bad a route is: lines through nodes and on each other, crossings, corners, length."""
    segments = list(_segments(route))
    cost = 0.3 * len(segments)
    cost += sum(0.02 * (abs(a[0] - b[0]) + abs(a[1] - b[1])) for a, b in segments)
    if len(segments) > 1:
        cost += 1.5 if (route.entry == "top") == is_operator else 0
    cells = zip(places.columns, places.rows, strict=True)
    for number, (column, row) in enumerate(cells):
        if number not in (route.source, route.target):
            cost += sum(100 for a, b in segments if _passes(a, b, (CELL * column, CELL * row)))
    for other in others:
        if other.target == route.target and other.entry == route.entry:
            cost += 50 if is_operator or route.entry != "top" else 1
        for segment in segments:
            for another in _segments(other):
                cost += _disturbance(segment, another, route, other)
    return cost


def _segments(route: Route) -> Iterator[Segment]:
    for a, b in zip(route.points, route.points[1:], strict=False):
        if a != b:
            yield a, b


def _passes(a: Grid, b: Grid, point: Grid) -> bool:
    (x, y), (px, py) = (a[0], a[1]), point
    if a[0] == b[0]:
        return px == x and min(a[1], b[1]) < py < max(a[1], b[1])
    return py == y and min(a[0], b[0]) <= px <= max(a[0], b[0])


def _disturbance(one: Segment, other: Segment, route: Route, another: Route) -> float:
    vertical, other_vertical = one[0][0] == one[1][0], other[0][0] == other[1][0]
    if vertical == other_vertical:
        along = 1 if vertical else 0
        if one[0][1 - along] != other[0][1 - along]:
            return 0
        begin = max(min(p[along] for p in one), min(p[along] for p in other))
        end = min(max(p[along] for p in one), max(p[along] for p in other))
        merges = route.source == another.source or (
            route.target == another.target and route.entry == another.entry == "top"
        )
        return 100 if begin < end and not merges else 0
    upright, flat = (one, other) if vertical else (other, one)
    x, y = upright[0][0], flat[0][1]
    crosses = min(p[0] for p in flat) < x < max(p[0] for p in flat) and min(
        p[1] for p in upright
    ) < y < max(p[1] for p in upright)
    return 1 if crosses else 0
