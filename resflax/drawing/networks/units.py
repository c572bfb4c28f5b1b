"""The units of a network: those that differ, and a drawing of each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from resflax.drawing.networks.chains import with_short_activations
from resflax.drawing.networks.flow import draw_flow, in_words
from resflax.drawing.networks.labels import size_text
from resflax.drawing.networks.sketch import Sketch, titled
from resflax.models.graph import Call, Graph, Node, Path, inside, outermost_calls, readers

_PLACE = re.compile(r"(stage|block)(\d+)_(unit|layer)(\d+)")
_NOUNS = {"ResidualUnit": "unit", "DenseLayer": "layer", "Transition": "transition"}
_WIDTHS = ("features", "squeezed", "before", "after")
"""Details that are numbers of maps."""
_NOT_DRAWN = ("survival", "bias")
MOST_NODES = 40
"""A module with more layers and operations is not drawn as a unit."""


@dataclass(frozen=True)
class Unit:
    """Modules of a network that are alike: equal but for a common factor of their widths."""

    name: str
    """The class of the modules."""
    paths: tuple[Path, ...]
    """The modules, in order."""
    shown: Path
    """The module whose graph it is."""
    graph: Graph
    """The graph of one of them. Maps that it only concatenates are one input of the graph."""


def distinct_units(graph: Graph) -> list[Unit]:
    """The modules that a network calls, such as residual units, without repeating equal ones."""
    found: dict[Any, list[tuple[Call, Graph]]] = {}
    for call in outermost_calls(graph):
        unit = with_one_input(inside(graph, call))
        found.setdefault((call.name, _structure(unit)), []).append((call, unit))
    units = []
    for (name, _), alike in found.items():
        paths = tuple(call.path for call, _ in alike)
        # The second layer of a dense block is the first that concatenates.
        call, shown = next((pair for pair in alike if "name" in pair[1].nodes[0].details), alike[0])
        if len(shown.nodes) <= MOST_NODES:
            units.append(Unit(name, paths, call.path, shown))
    return units


def draw_unit(unit: Unit, units: Sequence[Unit]) -> Sketch:
    """The drawing of a unit under its title.

    Args:
      unit: the unit.
      units: all distinct units of the network.
    """
    return titled(draw_flow(_drawn(unit)), _title(unit, units), least_lines=2)


def describe_units(units: Sequence[Unit]) -> str:
    """The units in words, for readers who cannot see the drawing."""
    return " ".join(f"{' '.join(_title(unit, units))}: {in_words(_drawn(unit))}." for unit in units)


def with_one_input(graph: Graph) -> Graph:
    """The graph of a module with one input in place of those that it only concatenates."""
    inputs = [number for number, node in enumerate(graph.nodes) if node.kind == "input"]
    first = len(inputs)  # the number of the first node that is no input
    read_by = readers(graph)
    joined = graph.nodes[first] if first < len(graph.nodes) else None
    if (
        joined is None
        or joined.kind != "concatenate"
        or list(joined.inputs) != inputs
        or any(read_by[given] != [first] for given in inputs)
    ):
        return graph
    text = f"all maps so far: {size_text(joined.shape)}"
    places = {number: number - first for number in range(first, len(graph.nodes))}
    others = (
        replace(other, inputs=tuple(places[given] for given in other.inputs))
        for other in graph.nodes[first + 1 :]
    )
    nodes = (Node("input", (), joined.shape, details={"name": text}), *others)
    return Graph(nodes, tuple(places[given] for given in graph.outputs))


def _structure(graph: Graph) -> Any:
    """A value that is equal for graphs that differ only by a factor of their widths."""
    maps = max(graph.nodes[graph.outputs[0]].shape[-1], 1)

    def relative(name: str, value: Any) -> Any:
        if name == "parameters":
            return tuple((place, path[1:]) for place, path in value)
        return Fraction(value, maps) if name in _WIDTHS else value

    def changed_width(node: Node) -> Fraction | None:
        """The width of a node, unless it is that of what the node reads."""
        read = {graph.nodes[given].shape[-1:] for given in node.inputs}
        known = node.kind in ("input", "concatenate") or any(n in node.details for n in _WIDTHS)
        if known or not node.shape or node.shape[-1:] in read:
            return None
        return Fraction(node.shape[-1], maps)

    return tuple(
        (
            node.kind,
            node.inputs,
            changed_width(node),
            tuple(
                (name, relative(name, value))
                for name, value in node.details.items()
                if name not in _NOT_DRAWN and node.kind != "input"
            ),
        )
        for node in graph.nodes
    )


def _drawn(unit: Unit) -> Graph:
    """The unit's graph with a node for its result, and with short activations."""
    graph = with_short_activations(unit.graph)
    end = Node("output", graph.outputs, graph.nodes[graph.outputs[0]].shape)
    return replace(graph, nodes=(*graph.nodes, end), outputs=(len(graph.nodes),))


def _title(unit: Unit, units: Sequence[Unit]) -> list[str]:
    """Where the unit stands in the network, and whose numbers are shown."""
    noun = _NOUNS.get(unit.name)
    if noun is None:
        names = [".".join(path) for path in unit.paths]
        return [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", f"({unit.name})"]
    alike = [other for other in units if other.name == unit.name]
    largest = max(alike, key=lambda other: len(other.paths))
    if len(alike) == 1:
        where = f"the {noun}" if len(unit.paths) == 1 else f"every {noun}"
    elif unit is largest and len(unit.paths) > 1:
        where = f"all other {noun}s"
    else:
        where = _listed(unit.paths, noun)
    numbers = {_numbers_of(path[-1]) for path in unit.paths}
    return [where] if len(numbers) == 1 else [where, f"(sizes of {_numbers_of(unit.shown[-1])})"]


def _numbers_of(module: str) -> str:
    """The part of the network in which all modules of a kind have the same numbers of maps."""
    match = _PLACE.fullmatch(module)
    if match is None:
        return re.sub(r"(?<=[a-z])(?=\d)", " ", module)
    place = f"{match[1]} {match[2]}"
    return f"{place}, layer {match[4]}" if match[3] == "layer" else place


def _listed(paths: Sequence[Path], noun: str) -> str:
    """The places of units in words: `unit 1 of stages 2, 3`."""
    numbers: dict[str, list[str]] = {}
    kind = "stage"
    for path in paths:
        match = _PLACE.fullmatch(path[-1])
        if match is None:
            return ", ".join(".".join(path) for path in paths)
        kind = match[1]
        numbers.setdefault(match[2], []).append(match[4])
    groups: dict[str, list[str]] = {}
    for stage, units in numbers.items():
        text = f"{noun} {units[0]}" if len(units) == 1 else f"{noun}s {units[0]} to {units[-1]}"
        groups.setdefault(text, []).append(stage)
    return "; ".join(
        f"{text} of {kind}{'s' if len(stages) > 1 else ''} {', '.join(stages)}"
        for text, stages in groups.items()
    )
