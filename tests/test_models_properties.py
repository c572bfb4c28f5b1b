"""Random declarations: valid ones build and train, invalid ones are refused in one line."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import DenseNet, Experiment, ResNet, UsageError
from resflax.declarations.checks import choices, field_types
from resflax.declarations.resnet import SHORTCUT_FIELDS
from resflax.experiment import from_json, to_json
from resflax.models import build
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS

# New shortcuts and orders are tested as soon as they are in these tables.
IDENTITIES = tuple(name for name, shortcut in SHORTCUTS.items() if shortcut.uses_identity)


@st.composite
def resnets(draw: Any, *, small: bool) -> ResNet:
    """Any valid `ResNet`; if small, one that compiles in seconds."""
    layout = draw(st.sampled_from(["cifar"] if small else ["cifar", "imagenet"]))
    block = draw(st.sampled_from(["basic", "bottleneck"]))
    if layout == "cifar":
        units = 1 if small else draw(st.integers(1, 200))
        depth = (6 if block == "basic" else 9) * units + 2
        if block == "basic" and draw(st.booleans()):
            depth += 2
    else:
        depth = draw(st.sampled_from([18, 34] if block == "basic" else [50, 101, 152, 200]))
    fields: dict[str, Any] = {"depth": depth, "layout": layout, "block": block}
    fields["shortcut"] = shortcut = draw(st.sampled_from(tuple(SHORTCUTS)))
    fields["order"] = order = draw(st.sampled_from(tuple(ORDERS)))
    factor, rate = st.floats(-2, 2), st.floats(0, 0.9)
    if shortcut in IDENTITIES:
        fields["zero_pad_side"] = draw(st.sampled_from([None, "end", "both"]))
    if shortcut == "constant_scaling":
        fields["shortcut_scale"] = draw(st.none() | factor)
        fields["branch_scale"] = draw(st.none() | factor)
    if shortcut.endswith("gating"):
        fields["gate_bias"] = draw(st.none() | st.floats(-10, 0))
    if shortcut == "dropout":
        fields["shortcut_dropout_rate"] = draw(st.none() | rate)
    if block == "bottleneck":
        fields["stride_on"] = draw(st.sampled_from([None, "1x1", "3x3"]))
        fields["groups"] = groups = draw(st.sampled_from([1, 2, 4]))
        fields["bottleneck_width"] = draw(st.none() | st.integers(1, 8).map(lambda n: n * groups))
    else:
        fields["dropout_rate"] = draw(rate)
        if layout == "cifar":
            fields["widening"] = draw(st.integers(1, 3))
    if layout == "imagenet":
        fields["stem"] = draw(st.sampled_from(["conv", "deep"]))
        fields["pool_first"] = order == "full_pre" and draw(st.booleans())
    fields["squeeze_excitation"] = draw(st.sampled_from([None, 1, 4, 16]))
    if shortcut != "none":
        fields["stochastic_depth"] = drop = draw(rate)
        fields["stochastic_depth_by"] = draw(st.sampled_from(["batch", *["picture"] * (drop > 0)]))
        if order in ("post", "relu_only_pre"):
            fields["zero_init_last_scale"] = draw(st.booleans())
    return ResNet(**fields)


@st.composite
def densenets(draw: Any, *, small: bool) -> DenseNet:
    """Any valid `DenseNet`; if small, one that compiles in seconds."""
    bottleneck = draw(st.booleans())
    layers = draw(st.integers(1, 2 if small else 60))
    return DenseNet(
        depth=(6 if bottleneck else 3) * layers + 4,
        growth_rate=draw(st.integers(1, 8 if small else 60)),
        bottleneck=bottleneck,
        compression=draw(st.floats(0.01, 1)),
        dropout_rate=draw(st.floats(0, 0.9)),
        initial_channels=draw(st.none() | st.integers(1, 8)),
    )


SMALL = {
    "config": resnets(small=True) | densenets(small=True),
    "shape": st.sampled_from([(8, 8, 1), (9, 13, 3)]),
    "classes": st.integers(1, 5),
}


@settings(deadline=None, max_examples=3)
@given(**SMALL)
def test_a_declared_network_builds_and_trains(config, shape, classes):
    check_building_and_training(config, shape, classes)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(**SMALL)
def test_any_declared_network_builds_and_trains(config, shape, classes):
    check_building_and_training(config, shape, classes)


def check_building_and_training(config: Any, shape: tuple[int, int, int], classes: int) -> None:
    module = build(config, classes)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    labels = np.arange(2) % classes

    def loss_of(params: Any, batch_stats: Any, key: Any) -> Any:
        logits, updates = module.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), updates["batch_stats"]

    def run(key: Any) -> Any:
        variables = module.init(key, images, train=False)
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch_stats), gradients = grad(variables["params"], variables["batch_stats"], key)
        evaluated = module.apply({**variables, "batch_stats": batch_stats}, images, train=False)
        return variables, loss, gradients, batch_stats, evaluated

    jitted = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})
    variables, loss, gradients, batch_stats, evaluated = jitted(jax.random.key(0))
    assert evaluated.shape == (2, classes)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    expected: Any = {"params": gradients, "batch_stats": batch_stats}
    shapes = jax.tree.map(jnp.shape, (variables, expected))
    assert shapes[0] == shapes[1]
    for leaf in jax.tree.leaves((loss, gradients, batch_stats, evaluated)):
        assert np.all(np.isfinite(leaf))


ANY = resnets(small=False) | densenets(small=False)


@settings(deadline=None, max_examples=200)
@given(config=ANY)
def test_a_declaration_survives_json_and_resolving_twice(config):
    experiment = Experiment(name="x", model=config, batch_size=1, steps=1)
    again = from_json(json.loads(json.dumps(to_json(experiment))))
    assert again == experiment.resolved()
    assert again.model == again.model.resolved()
    assert again.content_hash == experiment.content_hash


# Values that no field's annotation allows, and values outside the ranges of single fields.
STRANGE = st.sampled_from([[], {}, "no such choice\n", b"x", 2.5j, float("nan"), float("inf")])
BELOW_ZERO, ABOVE_ONE = st.floats(max_value=-1e-6), st.floats(min_value=1 + 1e-6)
OUTSIDE: dict[str, Any] = {
    "depth": st.integers(max_value=6) | st.sampled_from([9, 12, 21, 10**400 + 2]),
    "growth_rate": st.integers(max_value=0),
    "compression": BELOW_ZERO | ABOVE_ONE | st.just(0),
    "dropout_rate": BELOW_ZERO | ABOVE_ONE | st.just(1),
    "initial_channels": st.integers(max_value=0),
    "groups": st.integers(max_value=0) | st.just(1009),
    "bottleneck_width": st.integers(max_value=0),
    "squeeze_excitation": st.integers(max_value=0) | st.sampled_from([3, 512]),
    "widening": st.integers(max_value=0),
    "stochastic_depth": BELOW_ZERO | ABOVE_ONE | st.just(1),
    "shortcut_dropout_rate": BELOW_ZERO | ABOVE_ONE | st.just(1),
}


@settings(deadline=None, max_examples=200)
@given(config=ANY, data=st.data())
def test_a_wrong_value_is_refused_in_one_line_that_names_the_field(config, data):
    types = field_types(type(config))
    field = data.draw(st.sampled_from(sorted(types)))
    wrong = STRANGE
    if bool not in choices(types[field]):
        wrong |= st.booleans()
    if type(None) not in choices(types[field]):
        wrong |= st.none()
    if field in OUTSIDE:
        wrong |= OUTSIDE[field]
    value = data.draw(wrong)
    with pytest.raises(UsageError) as refusal:
        type(config)(**{**vars(config), field: value})
    message = str(refusal.value)
    assert message.startswith(f"{type(config).__name__}.{field} is ")
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 20, "shortcut_scale": 0.5}, "ResNet.shortcut_scale is 0.5; only the shortcut"),
        ({"depth": 20, "branch_scale": 1.0, "shortcut": "dropout"}, "constant_scaling has it"),
        ({"depth": 20, "gate_bias": -1, "shortcut": "conv"}, "exclusive_gating or shortcut_gating"),
        ({"depth": 20, "shortcut_dropout_rate": 0.5}, "only the shortcut dropout has it"),
        ({"depth": 20, "zero_pad_side": "both", "shortcut": "none"}, "ResNet.zero_pad_side is"),
        ({"depth": 164, "block": "bottleneck", "zero_pad_side": "end"}, "ResNet.zero_pad_side is"),
        ({"depth": 20, "stem": "deep"}, "ResNet.stem is 'deep'; only the imagenet layout"),
        ({"depth": 20, "order": "full_pre", "pool_first": True}, "ResNet.pool_first is True"),
        ({"depth": 50, "layout": "imagenet", "pool_first": True}, "ResNet.pool_first is True"),
        ({"depth": 20, "groups": 2}, "ResNet.groups is 2; only the 3x3 convolution of a"),
        ({"depth": 20, "bottleneck_width": 16}, "basic units have no bottleneck"),
        ({"depth": 20, "stride_on": "1x1"}, "basic units have no 1x1 convolution"),
        (
            {"depth": 29, "groups": 3},
            "ResNet.groups is 3; it must divide the bottleneck's width, 16",
        ),
        ({"depth": 20, "squeeze_excitation": 32}, "it must divide the first stage's maps, 16"),
        ({"depth": 28, "widening": 10, "squeeze_excitation": 64}, "the first stage's maps, 160"),
        (
            {"depth": 29, "widening": 2},
            "ResNet.widening is 2; only basic units of the cifar layout",
        ),
        ({"depth": 50, "layout": "imagenet", "widening": 2}, "bottleneck_width (128 makes wide_"),
        ({"depth": 18, "layout": "imagenet", "widening": 2}, "ResNet.widening is 2; only basic"),
        ({"depth": 29, "dropout_rate": 0.3}, "only basic units have dropout between"),
        ({"depth": 20, "shortcut": "none", "stochastic_depth": 0.5}, "no way around"),
        ({"depth": 20, "stochastic_depth_by": "picture"}, "it needs a stochastic_depth above 0"),
        ({"depth": 20, "shortcut": "none", "zero_init_last_scale": True}, "zero everywhere"),
        (
            {"depth": 20, "order": "full_pre", "zero_init_last_scale": True},
            "post and relu_only_pre",
        ),
        ({"depth": 50, "layout": "imagenet", "block": "basic"}, "depth 50 is bottleneck"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(UsageError) as refusal:
        ResNet(**fields)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("shortcut", "filled"),
    [
        ("zero_pad", {"zero_pad_side": "end"}),
        ("constant_scaling", {"zero_pad_side": "end", "shortcut_scale": 0.5, "branch_scale": 0.5}),
        ("exclusive_gating", {"zero_pad_side": "end", "gate_bias": -6.0}),
        ("shortcut_gating", {"zero_pad_side": "end", "gate_bias": -6.0}),
        ("dropout", {"zero_pad_side": "end", "shortcut_dropout_rate": 0.5}),
        ("projection", {}),
    ],
)
def test_resolving_fills_in_the_papers_values(shortcut, filled):
    resolved = vars(ResNet(20, shortcut=shortcut).resolved())
    values = {name: resolved[name] for name in SHORTCUT_FIELDS}
    assert {name: value for name, value in values.items() if value is not None} == filled


def test_resolving_knows_the_layouts_units():
    net = ResNet(50, layout="imagenet").resolved()
    assert (net.block, net.shortcut, net.stride_on) == ("bottleneck", "projection", "3x3")
    assert net.bottleneck_width == 64
    net = ResNet(164, block="bottleneck").resolved()
    assert (net.shortcut, net.stride_on, net.bottleneck_width) == ("projection", "1x1", 16)
    assert ResNet(20).resolved().bottleneck_width is None


def test_depths_of_wide_networks_count_their_projections():
    for units in (1, 2, 4, 1000):
        thin, wide = ResNet(6 * units + 2).resolved(), ResNet(6 * units + 4).resolved()
        assert thin.units_per_stage == wide.units_per_stage == (units,) * 3
        assert (thin.block, thin.shortcut) == ("basic", "zero_pad")
        assert (wide.block, wide.shortcut) == ("basic", "projection")
    assert ResNet(28, shortcut="zero_pad").resolved().shortcut == "zero_pad"
    assert ResNet(26, widening=2).resolved().shortcut == "zero_pad"
