"""Chains of nodes that are drawn as one box."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from resflax.drawing.networks.labels import label
from resflax.models.graph import Graph, Node, readers

_ACTIVATIONS = ("relu", "silu", "gelu", "elu", "tanh")


def with_chains(
    graph: Graph,
    belongs: Callable[[Node, Node], bool],
    join: Callable[[Sequence[Node]], Node],
) -> Graph:
    """The graph with joined chains: each node in a chain belongs to the one before it."""
    read_by = readers(graph)
    chains: list[list[int]] = []
    of: dict[int, int] = {}
    for number, node in enumerate(graph.nodes):
        given = node.inputs[0] if len(node.inputs) == 1 else None
        if given is not None and read_by[given] == [number] and belongs(graph.nodes[given], node):
            of[number] = of[given]
            chains[of[number]].append(number)
        else:
            of[number] = len(chains)
            chains.append([number])
    order = sorted(range(len(chains)), key=lambda chain: chains[chain][-1])
    places = {chain: place for place, chain in enumerate(order)}
    nodes = []
    for chain in order:
        members = [graph.nodes[n] for n in chains[chain]]
        inputs = tuple(places[of[n]] for n in members[0].inputs)
        nodes.append(replace(join(members), inputs=inputs, shape=members[-1].shape))
    return Graph(tuple(nodes), tuple(places[of[n]] for n in graph.outputs))


def is_activation(node: Node) -> bool:
    """Whether a node is a norm or an activation function."""
    return node.kind == "norm" or node.kind in _ACTIVATIONS


def with_short_activations(graph: Graph) -> Graph:
    """The graph in which a norm and the activation after it are one node."""

    def belongs(before: Node, node: Node) -> bool:
        return before.kind == "norm" and node.kind in _ACTIVATIONS

    return with_chains(graph, belongs, in_one_box)


def in_one_box(members: Sequence[Node]) -> Node:
    """One node for a chain, whose text names all members."""
    if len(members) == 1:
        return members[0]
    texts = ", ".join(label(node).text for node in members)
    return Node("row", (), (), members[0].path, {"name": texts, "like": members[0].kind})
