"""The stages of a network with the sizes of their maps."""

import re
from collections.abc import Sequence
from dataclasses import replace

from resflax.drawing.networks.chains import in_one_box, is_activation, with_chains
from resflax.drawing.networks.flow import draw_flow, in_words
from resflax.drawing.networks.sketch import Sketch
from resflax.models.graph import Graph, Node, outermost_calls, with_hidden

_STAGE = re.compile(r"(stage\d+)_unit\d+|(block\d+)_layer\d+")
_NUMBERED = re.compile(r"([a-z]+)(\d+)")


def stages(graph: Graph) -> Graph:
    """The network as a short graph, whose nodes are stages, blocks, and layers outside of them.

    The units of a stage are one node, and so are equal modules that follow each other. A dense
    block's result are all of its maps, those that it was given included. Batch norm and activations
    are part of the node before them.
    """
    short = with_hidden(graph, outermost_calls(graph))
    short = _with_whole_blocks(short)
    short = with_chains(short, _repeats, _repeated)
    short = with_chains(short, _continues, in_one_box)
    return replace(short, nodes=(_named_input(short.nodes[0]), *short.nodes[1:]))


def draw_stages(graph: Graph) -> Sketch:
    """The drawing of `stages` with the sizes (H, W, maps) at the right edge."""
    return draw_flow(stages(graph), sizes=True)


def describe_stages(graph: Graph) -> str:
    """The stages and their sizes in words, for readers who cannot see the drawing."""
    return in_words(stages(graph), sizes=True)


def _named_input(node: Node) -> Node:
    return replace(node, details={"name": "image"})


def _stage_of(node: Node) -> str | None:
    match = _STAGE.fullmatch(node.path[-1]) if node.kind == "module" else None
    return None if match is None else match[1] or match[2]


def _with_whole_blocks(graph: Graph) -> Graph:
    """The graph with one node for each dense block, which returns all maps of the block."""
    nodes: list[Node] = []
    places: dict[int, int] = {}
    names = [_stage_of(node) for node in graph.nodes]
    for number, node in enumerate(graph.nodes):
        name = names[number]
        if name is not None and node.details["class"] == "DenseLayer":
            if nodes[-1].details.get("block") == name:
                places[number] = len(nodes) - 1
                nodes[-1] = replace(nodes[-1], details=_grown(nodes[-1]))
            else:
                places[number] = len(nodes)
                given = tuple(places[n] for n in node.inputs)
                details = {"block": name, "class": f"{_in_words(name)}: 1 layer", "count": 1}
                nodes.append(Node("module", given, node.shape, node.path, details))
            continue
        read = tuple(dict.fromkeys(places[n] for n in node.inputs))
        blocks = [n for n in read if "block" in nodes[n].details]
        for block in blocks:  # its input is read as one of its maps
            inner = set(nodes[block].inputs)
            maps = sum(
                graph.nodes[n].shape[-1] for n in node.inputs if places[n] in inner | {block}
            )
            nodes[block] = replace(nodes[block], shape=(*nodes[block].shape[:-1], maps))
            read = tuple(n for n in read if n not in inner)
        if node.kind == "concatenate" and len(read) == len(blocks) == 1:
            places[number] = read[0]
            continue
        places[number] = len(nodes)
        nodes.append(replace(node, inputs=read))
    return Graph(tuple(nodes), tuple(places[n] for n in graph.outputs))


def _grown(block: Node) -> dict[str, object]:
    count = block.details["count"] + 1
    return {
        **block.details,
        "count": count,
        "class": f"{_in_words(block.details['block'])}: {count} layers",
    }


def _in_words(name: str) -> str:
    """`stage 1` for stage1."""
    match = _NUMBERED.fullmatch(name)
    return name if match is None else f"{match[1]} {match[2]}"


def _repeats(before: Node, node: Node) -> bool:
    if before.kind != "module" or node.kind != "module":
        return False
    if "block" in before.details or "block" in node.details:
        return False
    same = before.details["class"] == node.details["class"]
    if _stage_of(before) is not None or _stage_of(node) is not None:
        return _stage_of(before) == _stage_of(node)
    return same and before.shape == node.shape


def _repeated(members: Sequence[Node]) -> Node:
    first, count = members[0], len(members)
    if first.kind != "module" or "block" in first.details:
        return first
    stage = _stage_of(first)
    if stage is not None:
        text = f"{_in_words(stage)}: {count} unit{'s' if count > 1 else ''}"
    elif first.details["class"] == "Transition":
        text = _in_words(first.path[-1])
    else:
        names = dict.fromkeys(node.path[-1] for node in (first, members[-1]))
        text = f"{' to '.join(names)}: {first.details['class']}"
    return replace(first, details={"class": text, "count": count})


def _continues(before: Node, node: Node) -> bool:
    return is_activation(node) and before.kind not in ("input", "module")
