"""A drawing of a whole network: its distinct units, a dense block, and its stages."""

from matplotlib.figure import Figure

from resflax.drawing.networks.dense_block import dense_blocks, draw_dense_blocks
from resflax.drawing.networks.render import to_figure
from resflax.drawing.networks.sketch import packed, titled
from resflax.drawing.networks.stages import draw_stages
from resflax.drawing.networks.units import distinct_units, draw_unit
from resflax.models.graph import Graph

COLUMN = 32.9
"""The width of a paper's column, 3.3 inches, as a multiple of text of 7 points."""
GAP = 1.8
"""The distance of drawings in a figure."""


def draw_network(graph: Graph, text_size: float = 7.0) -> Figure:
    """A figure of the distinct units of a network, its first dense block, and its stages.

    Args:
      graph: the graph of the network.
      text_size: the size of text in points; with 7, the figure fits into a column of a paper.
    """
    units = distinct_units(graph)
    parts = [draw_unit(unit, units) for unit in units]
    blocks = dense_blocks(graph)
    if blocks:
        parts.append(titled(draw_dense_blocks(blocks), [f"block {blocks[0].number}"]))
    has_stages = any(unit.name in ("ResidualUnit", "DenseLayer") for unit in units)
    parts.append(titled(draw_stages(graph), ["stages" if has_stages else "network"]))
    return to_figure(packed(parts, COLUMN, GAP), text_size)
