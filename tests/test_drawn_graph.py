"""The graph that drawings of networks are made of is the network.

`computed` works out a graph with NumPy alone, from its nodes and the network's variables, and is
compared with what the network computes. Hand-written tables say what units of the papers consist of
(He et al. 2016, Figures 2 and 4; Huang et al. 2017, section 3).
"""

from collections import Counter
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import own_classes
import pytest
from drawn_networks import KEY, jit, shuffled
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from numpy.lib.stride_tricks import sliding_window_view
from test_models_properties import SMALL

from resflax import Custom, DenseNet, ResNet, UsageError
from resflax.declarations.own import Own
from resflax.drawing.networks.dense_block import dense_blocks
from resflax.drawing.networks.labels import label
from resflax.drawing.networks.stages import stages
from resflax.drawing.networks.units import distinct_units, with_one_input
from resflax.models import build
from resflax.models.dataflow import trace
from resflax.models.graph import Graph, Node, inside, outermost_calls, with_hidden
from resflax.models.summary import summarize
from resflax.models.zoo import TASKS, named
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS

# --- Working a graph out


def windows(x: Any, size: Any, stride: Any, padding: Any, filled: float) -> Any:
    """The windows (B, H', W', C, h, w) of maps."""
    padded = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=filled)
    return sliding_window_view(padded, size, (1, 2))[:, :: stride[0], :: stride[1]]


def convolved(x: Any, kernel: Any, stride: Any, groups: int) -> Any:
    pads = [(side // 2, side // 2) for side in kernel.shape[:2]]
    seen = windows(x, kernel.shape[:2], stride, pads, 0)
    parts = zip(np.split(seen, groups, 3), np.split(kernel, groups, 3), strict=True)
    return np.concatenate([np.tensordot(a, k, ((4, 5, 3), (0, 1, 2))) for a, k in parts], -1)


def sigmoid(x: Any) -> Any:
    return (1 + np.tanh(x / 2)) / 2


def node_value(node: Node, given: list[Any], variables: dict[str, Any]) -> Any:
    """What a node computes of what it reads."""
    details = node.details
    x: Any = given[0] if given else None

    def own(name: str, kind: str = "params") -> Any:
        return variables["/".join((kind, *node.path, name))]

    operands = list(given)
    for place, path in details.get("parameters", ()):
        operands.insert(place, variables["/".join(("params", *path))])
    if "constant" in details:
        operands.insert(0 if details["comes_first"] else 1, details["constant"])
    match node.kind:
        case "conv":
            y = convolved(x, own("kernel"), details["stride"], details["groups"])
            return y + own("bias") if details["bias"] else y
        case "norm":
            centred = x - own("mean", "batch_stats")
            normal = centred / np.sqrt(own("var", "batch_stats") + 1e-5)
            return own("scale") * normal + own("bias")
        case "dense":
            return x @ own("kernel") + own("bias")
        case "squeeze-excitation":
            hidden = x.mean((1, 2)) @ own("squeeze/kernel") + own("squeeze/bias")
            gates = np.maximum(hidden, 0) @ own("excite/kernel") + own("excite/bias")
            return x * sigmoid(gates)[:, None, None]
        case "stochastic depth":
            return x * (details["survival"] if details["by"] == "batch" else 1)
        case "dropout":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "sigmoid":
            return sigmoid(x)
        case "add":
            return operands[0] + operands[1]
        case "subtract":
            return operands[0] - operands[1]
        case "multiply":
            return operands[0] * operands[1]
        case "subsample":
            return x[:, :: details["stride"][0], :: details["stride"][1]]
        case "pad maps":
            return np.pad(x, ((0, 0),) * 3 + ((details["before"], details["after"]),))
        case "concatenate":
            return np.concatenate(given, details["axis"])
        case "max pool":
            size, stride, padding = (details[name] for name in ("size", "stride", "padding"))
            return windows(x, size, stride, padding, -np.inf).max((-2, -1))
        case "average pool":
            size, stride, padding = (details[name] for name in ("size", "stride", "padding"))
            total = windows(x, size, stride, padding, 0).sum((-2, -1))
            if details["counted"] == "all":
                return total / np.prod(size)
            return total / windows(np.ones_like(x), size, stride, padding, 0).sum((-2, -1))
        case "global average":
            return x.mean((1, 2))
    raise AssertionError(f"{node.kind} is not known here")


def computed(graph: Graph, variables: dict[str, Any], inputs: list[Any]) -> list[Any]:
    """The values of all nodes."""
    values: list[Any] = []
    given = iter(inputs)
    for node in graph.nodes:
        if node.kind == "input":
            values.append(next(given))
        elif node.kind == "parameter":
            values.append(variables["/".join(("params", *node.path, node.details["name"]))])
        else:
            values.append(node_value(node, [values[n] for n in node.inputs], variables))
    return values


def check_that_the_graph_is_the_network(config: Any, shape: Any, classes: int = 10) -> None:
    """Compares the graph with the network, and the graphs of its modules with their places in it.

    Random variables of the network, images of the given shape.
    """
    module, random = build(config, classes), np.random.default_rng(1)
    images = np.float32(random.normal(size=(2, *shape)))
    shapes = jax.eval_shape(partial(module.init, KEY, train=False), images)
    variables = shuffled(flatten_dict(shapes, sep="/"))
    expected = jit(partial(module.apply, train=False))(unflatten_dict(variables, sep="/"), images)
    graph = trace(config, classes, shape)
    double = {path: np.float64(value) for path, value in variables.items()}
    values = computed(graph, double, [np.float64(images)])
    (logits,) = (values[number] for number in graph.outputs)
    scale = np.abs(logits).max() + 1e-9
    np.testing.assert_allclose(expected / scale, logits / scale, atol=2e-4)  # float32
    for call in outermost_calls(graph):
        unit = inside(graph, call)
        again = computed(unit, double, [values[number] for number in call.inputs])
        assert np.array_equal(again[unit.outputs[0]], values[call.outputs[0]])
    for node, value in zip(graph.nodes, values, strict=True):
        assert node.kind == "parameter" or np.shape(value)[1:] == node.shape[1:]


@settings(deadline=None, max_examples=3)
@given(**SMALL)
def test_the_graph_computes_what_the_network_computes(config, shape, classes):
    check_that_the_graph_is_the_network(config, shape, classes)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(**SMALL)
def test_the_graph_computes_what_any_network_computes(config, shape, classes):
    check_that_the_graph_is_the_network(config, shape, classes)


OWN = {
    "own shortcut": ResNet(8, shortcut=own_classes.LearnedScale),
    "own branch": ResNet(8, unit=Own(own_classes.BasicBranch, kernel=5), order="full_pre"),
    "own network": Custom(own_classes.WithLayers),
    "imagenet layout": ResNet(18, layout="imagenet", stem="deep", squeeze_excitation=16),
}


@pytest.mark.parametrize("name", OWN)
def test_the_graph_of_other_networks_is_the_network(name):
    shape = (17, 24, 3) if name == "imagenet layout" else (8, 8, 1)
    check_that_the_graph_is_the_network(OWN[name], shape)


# --- What units consist of


def kinds(graph: Graph) -> list[str]:
    return [node.kind for node in graph.nodes[1:]]


def units_of(config: Any, shape: tuple[int, int, int] = (32, 32, 3)) -> dict[str, Graph]:
    graph = trace(config, 10, shape)
    return {call.path[0]: inside(graph, call) for call in outermost_calls(graph)}


# He et al. 2016, Figure 4: each operation of a unit whose input keeps its shape, from x_l down.
FIGURE_4 = {
    "post": "conv norm relu conv norm add relu",
    "bn_after_addition": "conv norm relu conv add norm relu",
    "relu_before_addition": "conv norm relu conv norm relu add",
    "relu_only_pre": "relu conv norm relu conv norm add",
    "full_pre": "norm relu conv norm relu conv add",
}


@pytest.mark.parametrize("order", ORDERS)
def test_units_have_the_order_of_the_paper(order):
    unit = units_of(ResNet(14, order=order))["stage1_unit2"]
    assert kinds(unit) == FIGURE_4[order].split()
    end = kinds(unit).index("add") + 1
    assert unit.nodes[end].inputs == (0, end - 1)  # the identity and the branch


# What a unit has beside the branch's two convolutions, their norms and the two ReLUs: where the
# shape stays, and where it changes (He et al. 2015, section 3.3; He et al. 2016, Figure 2).
BESIDE = {
    "none": ("", ""),
    "zero_pad": ("add", "subsample pad add"),
    "projection": ("add", "conv norm add"),
    "projection_all": ("conv norm add", "conv norm add"),
    "conv": ("conv norm add", "conv norm add"),
    "projection_pooled": ("add", "average conv norm add"),
    "constant_scaling": ("multiply multiply add", "subsample pad multiply multiply add"),
    "exclusive_gating": (
        "conv sigmoid subtract multiply multiply add",
        "conv sigmoid subtract subsample pad multiply multiply add",
    ),
    "shortcut_gating": (
        "conv sigmoid subtract multiply add",
        "conv sigmoid subtract subsample pad multiply add",
    ),
    "dropout": ("dropout add", "subsample pad dropout add"),
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_units_have_what_the_shortcut_has_and_nothing_else(shortcut):
    units = units_of(ResNet(14, shortcut=shortcut))
    branch = Counter({"conv": 2, "norm": 2, "relu": 2})
    for name, beside in zip(("stage1_unit2", "stage2_unit1"), BESIDE[shortcut], strict=True):
        found = Counter(kind.split()[0] for kind in kinds(units[name]))
        assert found == branch + Counter(beside.split())


def test_bottlenecks_have_the_papers_convolutions():
    # He et al. 2015, Table 1, conv3_x of the 50-layer net; the stride stands on the 3x3.
    unit = units_of(ResNet(50, layout="imagenet"), (64, 64, 3))["stage2_unit1"]
    convolutions = [n.details for n in unit.nodes if n.kind == "conv"]
    found = [(d["size"][0], d["features"], d["stride"][0]) for d in convolutions]
    assert found == [(1, 128, 1), (3, 128, 2), (1, 512, 1), (1, 512, 2)]
    at_1x1 = units_of(ResNet(50, layout="imagenet", stride_on="1x1"), (64, 64, 3))["stage2_unit1"]
    strides = [n.details["stride"][0] for n in at_1x1.nodes if n.kind == "conv"]
    assert strides == [2, 1, 1, 2]


def test_what_is_only_done_in_training_is_in_the_graph():
    config = ResNet(
        16, order="full_pre", dropout_rate=0.3, stochastic_depth=0.5, squeeze_excitation=4
    )
    found = Counter(node.kind for node in trace(config, 10, (8, 8, 1)).nodes)
    assert (found["dropout"], found["stochastic depth"], found["squeeze-excitation"]) == (6, 6, 6)
    plain = Counter(node.kind for node in trace(ResNet(16), 10, (8, 8, 1)).nodes)
    assert not {"dropout", "stochastic depth", "squeeze-excitation"} & plain.keys()


def test_an_own_shortcut_appears_with_its_parameter():
    unit = units_of(ResNet(8, shortcut=own_classes.LearnedScale))["stage1_unit1"]
    (scaled,) = (node for node in unit.nodes if node.kind == "multiply")
    assert scaled.inputs == (0,)
    assert scaled.details["parameters"] == ((0, ("stage1_unit1", "shortcut", "a")),)
    assert label(scaled).text == "\N{MULTIPLICATION SIGN} a"


def test_units_that_differ_are_told_apart():
    def paths(config: Any) -> list[list[str]]:
        units = distinct_units(trace(config, 10, (32, 32, 3)))
        return [[path[0] for path in unit.paths] for unit in units]

    changing = ["stage2_unit1", "stage3_unit1"]
    alike = [f"stage{s}_unit{u}" for s in (1, 2, 3) for u in (1, 2)]
    same = [name for name in alike if name not in changing]
    assert paths(ResNet(14)) == [same, changing]
    assert paths(ResNet(14, stochastic_depth=0.5)) == [same, changing]
    # The first unit begins with activated maps.
    assert paths(ResNet(14, order="full_pre")) == [["stage1_unit1"], same[1:], changing]
    layers = [f"block{b}_layer{n}" for b in (1, 2, 3) for n in (1, 2)]
    assert paths(DenseNet(16, 4)) == [layers, ["transition1", "transition2"]]


# --- Dense blocks and stages


@pytest.mark.parametrize(
    "config", [DenseNet(22, 12), DenseNet(13, 5, bottleneck=False, initial_channels=7)], ids=str
)
def test_every_layer_of_a_block_reads_all_maps_before_it(config):
    blocks = dense_blocks(trace(config, 10, (32, 32, 3)))
    k0 = config.stem_channels
    for block, count in zip(blocks, config.layers_per_block, strict=True):
        assert block.widths == (k0, *[config.growth_rate] * count)
        assert block.read == tuple(tuple(range(layer)) for layer in range(1, count + 2))
        assert block.maps_read == tuple(k0 + config.growth_rate * n for n in range(count + 1))
        assert block.growth == config.growth_rate
        k0 = int(config.compression * (k0 + config.growth_rate * count))
    assert dense_blocks(trace(ResNet(8), 10, (32, 32, 3))) == []


SLOW = ("preact_resnet1001", "wrn_28_10", "densenet_bc_250_24", "densenet121")
ZOO = ["resnet20", "resnet50", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]


@pytest.mark.parametrize("name", ["small", *ZOO])
def test_stages_have_the_sizes_of_the_summary(name):
    config = DenseNet(22, 12) if name == "small" else named(name)
    task = TASKS[config.layout]
    counted = summarize(config, task.num_classes, task.image_shape).layers
    last = {layer.name.split("_unit")[0].split(".")[0]: layer.output for layer in counted}
    short = stages(trace(config, task.num_classes, task.image_shape))
    sizes = {label(node).text: node.shape[1:] for node in short.nodes}
    if isinstance(config, ResNet):
        for stage, units in enumerate(config.units_per_stage, start=1):
            assert sizes[f"stage {stage}: {units} units"] == last[f"stage{stage}"]
    else:
        read = {layer.name: layer.output for layer in counted if layer.kind == "BatchNorm"}
        follows = [f"transition{n}.norm" for n in range(1, len(config.layers_per_block))]
        for block, norm in enumerate([*follows, "final_norm"], start=1):
            layers = config.layers_per_block[block - 1]
            assert sizes[f"block {block}: {layers} layers"] == read[norm]
    assert list(sizes.values())[-1] == (task.num_classes,)
    # Each stage reads the one before it, and nothing else.
    assert [node.inputs for node in short.nodes[1:]] == [(n,) for n in range(len(sizes) - 1)]


# --- Networks of other kinds


class Blocks(nn.Module):
    """Modules in modules, one of them called twice, and shortcuts around modules."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(4)(images)
        shared = Squared()
        for _ in range(2):
            x = x + shared(x)
        a, b = Squared()(x), nn.Dropout(0.5, deterministic=not train)(x)
        x = jnp.concatenate([a, jax.nn.silu(b)], -1).transpose(0, 2, 1, 3)
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1)[:, ::2])


class Squared(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = nn.softplus(self.param("scale", nn.initializers.ones, ()))
        return nn.LayerNorm()(scale * x**2 / 3)


def test_modules_of_an_own_network_are_nodes():
    graph = trace(Custom(Blocks), 5, (4, 6, 3))
    assert [call.path for call in outermost_calls(graph)] == [("Squared_0",)] * 2 + [("Squared_1",)]
    expected = ["parameter", "softplus", "power", "multiply", "divide", "norm"]
    assert kinds(inside(graph, graph.calls[0])) == expected
    short = with_hidden(graph, outermost_calls(graph))
    assert [(node.kind, node.inputs) for node in short.nodes] == [
        ("input", ()),
        ("dense", (0,)),
        ("module", (1,)),
        ("add", (1, 2)),
        ("module", (3,)),
        ("add", (3, 4)),
        ("module", (5,)),
        ("dropout", (5,)),
        ("silu", (7,)),
        ("concatenate", (6, 8)),
        ("transpose", (9,)),
        ("flatten", (10,)),
        ("slice", (11,)),
        ("dense", (12,)),
    ]


class Lifted(nn.Module):
    """The same module compiled, recomputed and as it is."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for lift in (nn.jit, nn.remat, lambda module: module):
            x = lift(Inner)()(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.silu(nn.Conv(3, (3, 3))(x))


def test_lifted_modules_are_traced_each_time():
    for _ in range(2):
        graph = trace(Custom(Lifted), 5, (4, 4, 3))
        assert kinds(graph) == ["conv", "silu", "add"] * 3 + ["global average", "dense"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoNorm", "flatten dense relu dot"),
        ("Scanned", "global dense scan dense sum"),
        ("Tiny", "conv relu norm global dense"),
    ],
)
def test_networks_of_linens_layers_are_traced(name, expected):
    graph = trace(Custom(getattr(own_classes, name)), 10, (8, 8, 1))
    assert [kind.split()[0] for kind in kinds(graph)] == expected.split()
    if name == "Scanned":
        assert label(graph.nodes[3]).text == "scan 5 times"
        assert graph.nodes[4].shape[0] == 3  # three layers in parallel


def test_maps_that_a_module_only_concatenates_are_one_input():
    layer = units_of(DenseNet(22, 12))["block1_layer3"]
    assert [node.shape[-1] for node in layer.nodes if node.kind == "input"] == [24, 12, 12]
    joined = with_one_input(layer)
    assert joined.nodes[0].shape == (1, 32, 32, 48)
    assert kinds(layer)[2:] == ["concatenate", *kinds(joined)]
    assert kinds(joined) == ["norm", "relu", "conv", "norm", "relu", "conv"]
    assert [node.inputs for node in joined.nodes[1:]] == [(n,) for n in range(6)]
    residual = units_of(ResNet(8))["stage1_unit1"]
    assert with_one_input(residual) is residual


def test_networks_that_cannot_take_the_images_are_refused():
    with pytest.raises(UsageError, match="too small for this network"):
        trace(DenseNet(22, 12), 10, (3, 3, 1))
    with pytest.raises(UsageError, match="WrongShape"):
        trace(ResNet(8, shortcut=own_classes.WrongShape), 10, (8, 8, 1))
