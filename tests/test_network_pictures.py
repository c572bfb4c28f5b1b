"""Drawings of networks: nothing overlaps, every edge is a line, and reports repeat no picture."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import own_classes
import pytest
from declared_experiments import experiment
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import Custom, DenseNet, ImageFolder, ResNet, UsageError
from resflax.commands import summary
from resflax.declarations.models import Model
from resflax.declarations.own import Own
from resflax.drawing.networks.dense_block import dense_blocks, draw_dense_blocks
from resflax.drawing.networks.flow import draw_flow, in_words
from resflax.drawing.networks.labels import label
from resflax.drawing.networks.render import to_figure
from resflax.drawing.networks.sketch import Box, Line, Sketch, Words, text_width
from resflax.drawing.networks.stages import draw_stages
from resflax.drawing.networks.units import distinct_units, draw_unit
from resflax.drawing.networks.whole import draw_network
from resflax.drawing.picture import to_file, to_inline_svg
from resflax.experiment import Experiment, from_json, to_json
from resflax.models.dataflow import trace
from resflax.models.graph import Graph, Node, inside, outermost_calls
from resflax.orders import ORDERS
from resflax.report.collect import RunRecord
from resflax.report.groups import form_seed_groups
from resflax.report.network_pictures import MOST_PICTURES, draw_networks
from resflax.shortcuts import SHORTCUTS

# --- Lines and boxes


def edges_of(box: Box | Words) -> tuple[float, float, float, float]:
    """Left, right, upper and lower edge."""
    if isinstance(box, Box):
        width, height, middle = box.width, box.height, box.x
    else:
        width, height = text_width(box.text, bold=box.bold), 1.0
        middle = box.x + {"left": 0.5, "center": 0.0, "right": -0.5}[box.align] * width
    return middle - width / 2, middle + width / 2, box.y - height / 2, box.y + height / 2


def check_geometry(sketch: Sketch) -> None:
    """Nothing overlaps, texts fit into their boxes, and no line runs through a box or a text."""
    boxes = [s for s in sketch.shapes if isinstance(s, Box | Words)]
    slack = 1e-6
    for box in boxes:
        left, right, upper, lower = edges_of(box)
        assert min(left, upper) > -slack
        assert right < sketch.width + slack
        assert lower < sketch.height + slack
        assert not isinstance(box, Box) or text_width(box.text) < box.width - 0.3
    for one, other in itertools.combinations(boxes, 2):
        a, b = edges_of(one), edges_of(other)
        apart = a[1] < b[0] or b[1] < a[0] or a[3] < b[2] or b[3] < a[2]
        assert apart, (one, other)
    for line in (s for s in sketch.shapes if isinstance(s, Line)):
        for (x0, y0), (x1, y1) in itertools.pairwise(line.points):
            for box in boxes:
                left, right, upper, lower = edges_of(box)
                touches = (
                    max(x0, x1) > left + 0.01
                    and min(x0, x1) < right - 0.01
                    and max(y0, y1) > upper + 0.01
                    and min(y0, y1) < lower - 0.01
                )
                assert not touches or line.thin, (line, box)


def lines_between(graph: Graph, sketch: Sketch) -> set[tuple[int, int]]:
    """The pairs of nodes that lines connect, as one sees them in the drawing."""
    boxes = [s for s in sketch.shapes if isinstance(s, Box | Words)]
    assert [box.text for box in boxes] == [label(node).text for node in graph.nodes]

    def at(point: tuple[float, float]) -> int:
        def distance(box: Box | Words) -> float:
            left, right, upper, lower = edges_of(box)
            x, y = point
            return max(left - x, x - right, 0) + max(upper - y, y - lower, 0)

        nearest = min(range(len(boxes)), key=lambda n: distance(boxes[n]))
        assert distance(boxes[nearest]) < 0.2
        return nearest

    lines = [s for s in sketch.shapes if isinstance(s, Line)]
    return {(at(line.points[0]), at(line.points[-1])) for line in lines}


def check_drawing(graph: Graph) -> None:
    sketch = draw_flow(graph)
    check_geometry(sketch)
    edges = {(given, n) for n, node in enumerate(graph.nodes) for given in node.inputs}
    assert lines_between(graph, sketch) == edges


CONFIGS: dict[str, Model] = {
    **{f"shortcut {name}": ResNet(14, shortcut=name) for name in SHORTCUTS},
    **{f"order {name}": ResNet(14, order=name, shortcut="projection") for name in ORDERS},
    "bottleneck": ResNet(29, block="bottleneck", shortcut="exclusive_gating"),
    "groups": ResNet(20, block="bottleneck", groups=8),
    "wide": ResNet(16, widening=10, order="full_pre", dropout_rate=0.3, squeeze_excitation=4),
    "drop": ResNet(14, stochastic_depth=0.5, shortcut="shortcut_gating", zero_pad_side="both"),
    "own shortcut": ResNet(8, shortcut=own_classes.LearnedScale),
    "own product": ResNet(8, shortcut=own_classes.Projected),
    "own branch": ResNet(8, unit=Own(own_classes.BasicBranch, kernel=5)),
    "dense": DenseNet(52, 12),
    "small dense": DenseNet(13, 5, bottleneck=False),
    **{name: Custom(getattr(own_classes, name)) for name in ("Tiny", "NoNorm", "Scanned")},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_edge_is_a_line_and_nothing_overlaps(name):
    graph = trace(CONFIGS[name], 10, (32, 32, 3))
    for call in outermost_calls(graph)[:4]:
        check_drawing(inside(graph, call))
    units = distinct_units(graph)
    sketches = [draw_unit(unit, units) for unit in units] + [draw_stages(graph)]
    blocks = dense_blocks(graph)
    for sketch in [*sketches, *([draw_dense_blocks(blocks)] if blocks else [])]:
        check_geometry(sketch)
    figure = draw_network(graph)
    assert figure.get_figwidth() < 3.3  # inches of a column
    assert {text.get_fontsize() for text in figure.axes[0].texts} <= {7.0, 8.75}


@st.composite
def graphs(draw: Any) -> Graph:
    """Any small graph: each node reads some of the nodes before it."""
    kinds = st.sampled_from(["add", "relu", "conv", "concatenate"])
    nodes = [Node("input", (), (1, 4, 4, 2))]
    for number in range(1, draw(st.integers(2, 9))):
        kind = draw(kinds)
        read = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True))
        read = (read * 2)[:2] if kind == "add" else read
        details = {"size": (3, 3), "features": 2} if kind == "conv" else {}
        nodes.append(Node(kind, tuple(read), (1, 4, 4, 2), (), details))
    return Graph(tuple(nodes), (len(nodes) - 1,))


@settings(deadline=None, max_examples=40)
@given(graph=graphs())
def test_the_lines_of_any_graph_are_its_edges(graph):
    edges = {(given, n) for n, node in enumerate(graph.nodes) for given in node.inputs}
    assert lines_between(graph, draw_flow(graph)) == edges


def test_a_dense_block_has_an_arc_for_each_map_that_is_read():
    block = dense_blocks(trace(DenseNet(22, 12), 10, (32, 32, 3)))[0]
    sketch = draw_dense_blocks([block])
    arcs = [s for s in sketch.shapes if isinstance(s, Line)]
    assert len(arcs) == 1 + 2 + 3 + 4  # three layers and what follows
    texts = [s.text for s in sketch.shapes if isinstance(s, Words)]
    assert texts[:2] == ["reads", "adds"]
    numbers = [int(text) for text in texts if text.isdigit()]
    assert sorted(numbers) == sorted([24, 36, 48, 60, 24, 12, 12, 12])
    assert "Layer l reads k0 + k (l \N{MINUS SIGN} 1) = 24 + 12 (l \N{MINUS SIGN} 1) maps." in texts


def test_a_long_dense_block_says_how_many_layers_are_left_out():
    config = DenseNet(28, 12, bottleneck=False, compression=1.0)
    sketch = draw_dense_blocks(dense_blocks(trace(config, 10, (32, 32, 3))))
    texts = [s.text for s in sketch.shapes if isinstance(s, Words)]
    assert "2 layers between 5 and 8 are left out." in texts
    assert "Block 3: 8 layers, k0 = 208, k = 12." in texts  # 16 + 2 * 8 * 12
    shown = [s.text for s in sketch.shapes if isinstance(s, Box)]
    assert shown == ["in", "1", "2", "3", "4", "5", "8", "end"]
    assert {"100", "112"} <= set(texts)  # what layer 8 reads, and what follows the block


def test_a_graph_in_words_has_its_edges():
    unit = inside(graph := trace(ResNet(8), 10, (8, 8, 1)), outermost_calls(graph)[0])
    cross = "\N{MULTIPLICATION SIGN}"
    assert in_words(unit).split("; ") == [
        f"1: 8{cross}8{cross}16", f"2: 3{cross}3 conv, 16 of 1", "3: BN of 2", "4: ReLU of 3",
        f"5: 3{cross}3 conv, 16 of 4", "6: BN of 5", "7: + of 1 and 6", "8: ReLU of 7",
    ]  # fmt: skip


# --- The command


def test_summary_draws_a_published_network(tmp_path, capsys):
    network = ["resnet20", "--model.shortcut", "projection", "--draw"]
    summary.main([*network, str(tmp_path / "resnet.svg")])
    assert capsys.readouterr().out.rstrip().endswith("resnet.svg")
    summary.main([*network, str(tmp_path / "resnet.pdf"), "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["params"] == 272_474  # option B, worked out from the paper
    assert printed.err.rstrip().endswith("resnet.pdf")
    assert (tmp_path / "resnet.pdf").read_bytes().startswith(b"%PDF")
    texts = ["".join(e.itertext()) for e in ElementTree.parse(tmp_path / "resnet.svg").iter()]
    assert any("1\N{MULTIPLICATION SIGN}1 conv, 32, /2" in text for text in texts)
    assert {path.name for path in tmp_path.iterdir()} == {"resnet.svg", "resnet.pdf"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("net.png", r"--draw is .*; it must end in .svg or .pdf"),
        ("net", r"--draw is .*; it must end in .svg or .pdf"),
        ("nowhere/net.svg", "there is no folder"),
    ],
)
def test_summary_refuses_files_that_it_cannot_draw(file, message, tmp_path, capsys):
    with pytest.raises(UsageError, match=message):
        summary.main(["resnet20", "--draw", str(tmp_path / file)])
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


# --- The report


def groups_of(*experiments: Experiment, folder: Path = Path("nowhere")) -> list[Any]:
    runs = [
        RunRecord(folder / str(n), declared, (), None, "unfinished")
        for n, declared in enumerate(experiments)
    ]
    return form_seed_groups(runs)


def drawn(*experiments: Experiment) -> Any:
    said: list[str] = []
    section = draw_networks(groups_of(*experiments), said.append)
    assert said == []
    assert section is not None
    for picture in section.pictures:
        ElementTree.fromstring(to_inline_svg(picture))
    return section


def test_a_depth_sweep_has_each_unit_once_and_the_stages_of_two_depths():
    section = drawn(
        *(
            experiment(model=ResNet(depth, shortcut=shortcut), seed=seed)
            for depth in (8, 14, 20)
            for shortcut in ("none", "zero_pad")
            for seed in (0, 1)
        )
    )
    assert [picture.title for picture in section.pictures] == [
        "Units: shortcut none", "Units: shortcut zero_pad", "Stages: all networks",
    ]  # fmt: skip
    plain, residual, stages = (picture.description for picture in section.pictures)
    assert " + of " not in plain
    assert " + of 1 and " in residual
    assert "Depth 8: " in stages
    assert "stage 1: 1 unit of 2" in stages
    assert "Depth 20: " in stages
    assert "stage 1: 3 units of 2" in stages


def test_networks_that_are_drawn_alike_have_one_picture():
    section = drawn(
        *(
            experiment(model=ResNet(14, shortcut="exclusive_gating", gate_bias=bias), seed=seed)
            for bias in (-6.0, -3.0)
            for seed in (0, 1)
        )
    )
    titles = [picture.title for picture in section.pictures]
    assert titles == ["Units: all networks", "Stages: all networks"]


def test_dense_networks_have_their_block_in_the_report():
    section = drawn(experiment(model=DenseNet(22, 12)), experiment(model=ResNet(8)))
    titles = [picture.title for picture in section.pictures]
    assert [title.split(":")[0] for title in titles] == [
        "Units", "Units", "Dense block", "Stages", "Stages",
    ]  # fmt: skip
    assert "layer 2 reads the input, 1 (36 maps)" in section.pictures[2].description


def test_what_is_not_drawn_is_counted():
    section = drawn(
        *(experiment(model=ResNet(8, dropout_rate=n / 100)) for n in range(1, MOST_PICTURES + 9))
    )
    assert len(section.pictures) == MOST_PICTURES
    # Eleven units and the stages, which all have in common.
    assert "The networks of 9 more variants are not drawn." in section.explanation


def test_the_size_of_unknown_data_is_a_guess_that_is_named():
    model = ResNet(18, layout="imagenet")
    elsewhere = ImageFolder(data_dir="/nowhere", name="photos")
    section = drawn(experiment(model=model, data=elsewhere), experiment(model=ResNet(8)))
    guessed = [picture for picture in section.pictures if "guess" in picture.caption]
    assert len(guessed) == 2
    assert "224\N{MULTIPLICATION SIGN}224\N{MULTIPLICATION SIGN}3" in guessed[1].description


def test_own_code_that_may_not_be_run_is_named_and_left_out(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(Path(own_classes.__file__).read_text())
    own = experiment(model=ResNet(8, shortcut=f"{file}:LearnedScale"))
    recorded = from_json(to_json(own))
    file.write_text("raise SystemExit('run')")
    said: list[str] = []
    groups = groups_of(recorded, experiment(model=ResNet(8)))
    section = draw_networks(groups, said.append)
    assert section is not None
    assert len(section.pictures) == 2
    assert re.search(r"Not drawn: .*own\.py .*changed", section.explanation)
    assert len(said) == 1


def test_odd_names_are_drawn_as_they_are():
    node = Node("module", (0,), (1, 2), ("a",), {"class": "$x_1$ & <" + "W" * 60})
    graph = Graph((Node("input", (), (1, 2)), node), (1,))
    sketch = draw_flow(graph)
    check_geometry(sketch)
    svg = to_file(to_figure(sketch, 7.0), "svg").decode()
    assert "$x_1$ &amp; &lt;" in svg
    assert "…WW" in svg  # it was too long
