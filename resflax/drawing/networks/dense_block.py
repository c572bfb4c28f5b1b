"""A dense block: its layers in a row, and an arc for each concatenation that is read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from resflax.drawing.networks.labels import MINUS
from resflax.drawing.networks.sketch import Box, Line, Point, Shape, Sketch, Words, text_width
from resflax.models.graph import Graph, Node, outermost_calls, with_hidden

_LAYER = re.compile(r"block(\d+)_layer\d+")
MOST_LAYERS = 7
"""A block with more layers is drawn without some of them."""
_FIRST = 5
"""Layers that are drawn at the beginning of such a block."""
_STEP, _BOX = 3.1, 2.1


@dataclass(frozen=True)
class DenseBlock:
    """A dense block. Place 0 is its input, place l its layer l, and the last one what follows."""

    number: int
    """The block's number in the network, from 1."""
    widths: tuple[int, ...]
    """The maps of the input and of each layer."""
    read: tuple[tuple[int, ...], ...]
    """For each layer, and last for what follows the block, the places of the maps that it reads."""

    @property
    def maps_read(self) -> tuple[int, ...]:
        """The number of maps that each layer reads and, last, what follows the block."""
        return tuple(sum(self.widths[place] for place in places) for places in self.read)

    @property
    def growth(self) -> int | None:
        """The k of k0 + k (l - 1), if each layer l reads as many maps."""
        first, *layers = self.widths
        k = layers[0]
        formula = tuple(first + k * place for place in range(len(layers) + 1))
        return k if self.maps_read == formula else None


def dense_blocks(graph: Graph) -> list[DenseBlock]:
    """The dense blocks of a network; there are none in networks of other kinds."""
    short = with_hidden(graph, outermost_calls(graph))
    members: dict[int, list[int]] = {}
    for number, node in enumerate(short.nodes):
        if (block := _block_of(node)) is not None:
            members.setdefault(block, []).append(number)
    blocks = []
    for block, layers in members.items():
        given = next(n for n in short.nodes[layers[0]].inputs)
        follows = next(
            n for n, node in enumerate(short.nodes) if n > layers[-1] and layers[-1] in node.inputs
        )
        places = {number: place for place, number in enumerate([given, *layers])}
        blocks.append(
            DenseBlock(
                block,
                tuple(short.nodes[n].shape[-1] for n in (given, *layers)),
                tuple(
                    tuple(places[n] for n in short.nodes[reader].inputs)
                    for reader in (*layers, follows)
                ),
            )
        )
    return blocks


def _block_of(node: Node) -> int | None:
    match = _LAYER.fullmatch(node.path[-1]) if node.kind == "module" else None
    return None if match is None or node.details["class"] != "DenseLayer" else int(match[1])


def draw_dense_blocks(blocks: Sequence[DenseBlock]) -> Sketch:
    """The first of the blocks, and the widths of the others in words."""
    block = blocks[0]
    layers = len(block.widths) - 1
    shown = list(range(layers + 2))
    if layers > MOST_LAYERS:
        shown = [*range(_FIRST + 1), layers, layers + 1]
    left = 1.0 + max(map(text_width, ("reads", "adds")))
    arcs_high = 1.1 + 0.75 * (len(shown) - 1)
    xs = {place: left + _BOX / 2 + _STEP * i for i, place in enumerate(shown)}
    if len(shown) < layers + 2:
        xs |= {place: xs[place] + _BOX for place in shown if place >= layers}
    shapes: list[Shape] = []
    middle = arcs_high + _BOX / 2
    rows = middle + _BOX / 2 + 1.0, middle + _BOX / 2 + 2.4
    shapes += (
        Words(left - 0.5, y, text, "right") for y, text in zip(rows, ("reads", "adds"), strict=True)
    )
    for place in shown:
        is_layer = 0 < place <= layers
        text = str(place) if is_layer else ("in" if place == 0 else "end")
        shapes.append(Box(xs[place], middle, _BOX, _BOX, text, "module" if is_layer else "step"))
        if place > 0:
            shapes.append(Words(xs[place], rows[0], str(block.maps_read[place - 1])))
            for source in block.read[place - 1]:
                if source in xs:
                    shapes.append(Line(_arc(xs, shown, source, place, arcs_high), thin=True))
        if place <= layers:
            shapes.append(Words(xs[place], rows[1], str(block.widths[place])))
    y = rows[1] + 1.6
    width = xs[shown[-1]] + _BOX / 2
    for text in _explanations(blocks, layers - len(shown) + 2):
        shapes.append(Words(0, y, text, "left"))
        width = max(width, text_width(text))
        y += 1.4
    if len(shown) < layers + 2:
        gap = (xs[_FIRST] + xs[layers]) / 2
        shapes.append(Words(gap, middle, "…"))
    return Sketch(width, y - 0.7, tuple(shapes))


def describe_dense_blocks(blocks: Sequence[DenseBlock]) -> str:
    """The connections of the first block in words, for readers who cannot see the drawing."""
    block = blocks[0]
    texts = [
        f"layer {layer} reads {', '.join('the input' if p == 0 else str(p) for p in places)} "
        f"({maps} maps)"
        for layer, (places, maps) in enumerate(
            zip(block.read[:-1], block.maps_read, strict=False), start=1
        )
    ]
    return " ".join([f"{'; '.join(texts)}.", *_explanations(blocks, 0)])


def _arc(
    xs: dict[int, float], shown: Sequence[int], source: int, target: int, top: float
) -> tuple[Point, ...]:
    """A half ellipse from the upper edge of a source to that of what reads it."""
    sources = [place for place in shown if place < target]
    spread = 0.8 * _BOX / max(len(sources), 2)
    begin = xs[source] + 0.25 * _BOX
    # The nearest source arrives at the left of the edge, so that arcs do not cross at their ends.
    rank = len(sources) - 1 - sources.index(source)
    end = xs[target] + spread * (rank - (len(sources) - 1) / 2)
    high = 0.75 * (shown.index(target) - shown.index(source)) + 0.5
    angles = [math.pi * step / 24 for step in range(25)]
    middle, half = (begin + end) / 2, (end - begin) / 2
    return tuple((middle - half * math.cos(a), top - high * math.sin(a)) for a in angles)


def _explanations(blocks: Sequence[DenseBlock], left_out: int) -> list[str]:
    block, *others = blocks
    lines = []
    if left_out:
        lines.append(
            f"{left_out} layers between {_FIRST} and {len(block.widths) - 1} are left out."
        )
    if block.growth is not None:
        before, k0 = f"(l {MINUS} 1)", block.widths[0]
        lines.append(f"Layer l reads k0 + k {before} = {k0} + {block.growth} {before} maps.")
    for other in others:
        lines.append(
            f"Block {other.number}: {len(other.widths) - 1} layers, k0 = {other.widths[0]}"
            + (f", k = {other.growth}." if other.growth is not None else ".")
        )
    return lines
