"""Rows and columns for the nodes of a small graph."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resflax.models.graph import Graph, Node, readers


@dataclass(frozen=True)
class Places:
    """The place of each node in a grid."""

    rows: tuple[int, ...]
    """Row 0 is the upper one. A node is below all that it reads."""
    columns: tuple[int, ...]
    """Column 0 has the longest path, which is that of a unit's branch."""


def place(graph: Graph) -> Places:
    """Places the nodes: the main path in a column, and what stands beside it in others.

    What stands beside it is in the middle between where it begins and where it ends.
    """
    nodes, read_by = graph.nodes, readers(graph)
    everything = range(len(nodes))
    main = set(_longest_path(nodes, everything))
    rows = _rows(nodes)
    chains: list[list[int]] = []
    for component in _components(nodes, set(everything) - main):
        ends = [rows[r] - rows[n] - 1 for n in component for r in read_by[n] if r not in component]
        begins = any(given not in component for n in component for given in nodes[n].inputs)
        slack = min(ends, default=0)
        for number in component:
            rows[number] += slack // 2 if begins else slack
        chains += _chains(nodes, component)
    columns = dict.fromkeys(main, 0)
    taken: list[list[tuple[int, int]]] = []
    for chain in chains:
        around = [*chain, *(g for n in chain for g in nodes[n].inputs)]
        around += [reader for n in chain for reader in read_by[n]]
        first, last = min(rows[n] for n in around), max(rows[n] for n in around)
        free = (
            place
            for place, spans in enumerate(taken)
            if all(last <= begin or end <= first for begin, end in spans)
        )
        column = next(free, len(taken))
        if column == len(taken):
            taken.append([])
        taken[column].append((first, last))
        columns |= dict.fromkeys(chain, column + 1)
    return Places(tuple(rows), tuple(columns[number] for number in everything))


def _rows(nodes: Sequence[Node]) -> list[int]:
    """For each node, the number of nodes on the longest path to it."""
    rows: list[int] = []
    for node in nodes:
        rows.append(1 + max((rows[given] for given in node.inputs), default=-1))
    return rows


def _longest_path(nodes: Sequence[Node], among: Iterable[int]) -> list[int]:
    """The longest path among some nodes that begins at no parameter, if there is one.

    The nodes of shortcuts hardly count.
    """
    lengths: dict[int, float] = {}
    before: dict[int, int | None] = {}
    for number in sorted(among):
        given = [n for n in nodes[number].inputs if n in lengths]
        before[number] = max(given, key=lambda n: lengths[n], default=None)
        begin = -1000.0 if nodes[number].kind == "parameter" else 0.0
        longest = max((lengths[n] for n in given), default=begin)
        lengths[number] = longest + (0.01 if "shortcut" in nodes[number].path else 1)
    path = []
    at: int | None = max(lengths, key=lambda n: (lengths[n], n))
    while at is not None:
        path.append(at)
        at = before[at]
    return path[::-1]


def _components(nodes: Sequence[Node], among: set[int]) -> list[set[int]]:
    """The parts of some nodes that no edge connects."""
    components: list[set[int]] = []
    for number in sorted(among):
        touching = [c for c in components if c & set(nodes[number].inputs)]
        components = [c for c in components if c not in touching]
        components.append({number}.union(*touching))
    return components


def _chains(nodes: Sequence[Node], component: set[int]) -> list[list[int]]:
    """The nodes of a component as paths, the longest first."""
    chains = []
    left = set(component)
    while left:
        chains.append(_longest_path(nodes, left))
        left -= set(chains[-1])
    return chains
