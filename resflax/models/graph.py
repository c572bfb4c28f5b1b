"""The data flow of a network as a graph: its layers and operations, and which one reads which.

This file does not import JAX. `models.dataflow` makes such a graph from a network.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Path = tuple[str, ...]
"""The names of a module and of the modules around it, the outermost first."""


@dataclass(frozen=True)
class Node:
    """A layer or an operation, with the array that it computes for one image."""

    kind: str
    """What it computes, such as `conv`, `norm`, `add` or `concatenate`; `input` for what is given
    to the graph, `parameter` for a parameter, `module` for a module whose inside is hidden."""
    inputs: tuple[int, ...]
    """The numbers of the nodes that it reads, in the order of its arguments."""
    shape: tuple[int, ...]
    """Shape of the array, such as (1, H, W, C)."""
    path: Path = ()
    """The module of a layer; for an operation, the innermost module that it stands in."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that decides what it computes, such as the `stride` of a convolution."""


@dataclass(frozen=True)
class Call:
    """A call of a module that has layers or operations in it."""

    path: Path
    """The module."""
    name: str
    """The class of the module."""
    inputs: tuple[int, ...]
    """The numbers of the nodes that are given to it."""
    outputs: tuple[int, ...]
    """The numbers of the nodes that it returns."""
    first: int
    """The nodes that are made inside begin with this number."""


@dataclass(frozen=True)
class Graph:
    """Nodes, each after all that it reads. A node's number is its place among the nodes."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    """The numbers of the nodes that are the result."""
    calls: tuple[Call, ...] = ()
    """The calls of modules, in the order in which they begin."""


def readers(graph: Graph) -> list[list[int]]:
    """For each node, the numbers of the nodes that read it, in ascending order."""
    found: list[list[int]] = [[] for _ in graph.nodes]
    for number, node in enumerate(graph.nodes):
        for given in dict.fromkeys(node.inputs):
            found[given].append(number)
    return found


def without_unused(graph: Graph) -> Graph:
    """The graph without nodes that its outputs do not depend on, except that inputs stay."""
    used = {n for n, node in enumerate(graph.nodes) if node.kind == "input"} | set(graph.outputs)
    for number in reversed(range(len(graph.nodes))):
        if number in used:
            used.update(graph.nodes[number].inputs)
    kept = sorted(used)
    places = {number: place for place, number in enumerate(kept)}
    nodes = (graph.nodes[number] for number in kept)
    return Graph(
        tuple(replace(node, inputs=_moved(node.inputs, places)) for node in nodes),
        _moved(graph.outputs, places),
        tuple(
            replace(
                call,
                inputs=_moved(call.inputs, places),
                outputs=_moved(call.outputs, places),
                first=bisect_left(kept, call.first),
            )
            for call in graph.calls
            if any(number in places for number in call.outputs)
        ),
    )


def _moved(numbers: Iterable[int], places: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(places[number] for number in numbers if number in places)


def inside(graph: Graph, call: Call) -> Graph:
    """The graph of one call of a module; what the call reads are its inputs, which come first."""
    within, borders = _within(graph, call)
    places: dict[int, int] = {}
    nodes: list[Node] = []
    for number in sorted(borders) + sorted(within):
        node = graph.nodes[number]
        places[number] = len(nodes)
        if number in borders:
            nodes.append(Node("input", (), node.shape))
        else:
            nodes.append(replace(node, inputs=_moved(node.inputs, places)))
    return Graph(tuple(nodes), _moved(call.outputs, places))


def _within(graph: Graph, call: Call) -> tuple[set[int], set[int]]:
    """The numbers of the nodes of a call, and of those that it reads from outside."""
    within: set[int] = set()
    borders: set[int] = set()
    left = list(call.outputs)
    while left:
        number = left.pop()
        if number in within or number in borders:
            continue
        is_parameter = graph.nodes[number].kind == "parameter"
        if number in call.inputs or (number < call.first and not is_parameter):
            borders.add(number)
        else:
            within.add(number)
            left += graph.nodes[number].inputs
    return within, borders


def outermost_calls(graph: Graph) -> list[Call]:
    """The calls of modules that the network itself calls, in order."""
    return [call for call in graph.calls if len(call.path) == 1]


def with_hidden(graph: Graph, calls: Sequence[Call]) -> Graph:
    """The graph with one node of the kind `module` in place of the nodes of each call.

    Its detail `class` is the name of the module's class. A call inside another one has no node.
    """
    hidden: set[int] = set()
    ends: dict[int, tuple[Call, set[int], list[int]]] = {}
    for call in calls:
        within, borders = _within(graph, call)
        within = {number for number in within if graph.nodes[number].kind != "parameter"}
        if within and not within & hidden:
            hidden |= within
            given = [number for number in call.inputs if number in borders]
            given += sorted(borders - set(given))
            ends[max(within)] = call, within, given
    places: dict[int, int] = {}
    made: list[Node] = []
    for number, node in enumerate(graph.nodes):
        if number in ends:
            call, within, given = ends[number]
            places |= dict.fromkeys(within, len(made))
            shape = graph.nodes[call.outputs[0]].shape
            details = {"class": call.name}
            made.append(Node("module", _moved(given, places), shape, call.path, details))
        elif number not in hidden:
            places[number] = len(made)
            made.append(replace(node, inputs=_moved(node.inputs, places)))
    return without_unused(Graph(tuple(made), _moved(graph.outputs, places)))
