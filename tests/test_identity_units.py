"""Variables of deeper networks compute what those of the shallower networks compute."""

import dataclasses
import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import DenseNet, ResNet, UsageError
from resflax.declarations.deepening import added_parts, branch_factor, check_deeper
from resflax.models import build, identity_units, unread_layers
from resflax.models.identity_units import Signal, dirac
from resflax.models.layers import BatchNorm
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS

SMALL, LARGE = (
    jnp.asarray(np.random.default_rng(3).normal(size=(3, side, side, 1)), jnp.float32)
    for side in (8, 32)
)


def images_for(model):
    return LARGE if isinstance(model, DenseNet) and model.layout == "imagenet" else SMALL


@cache
def shapes_of(model):
    module = build(model, 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images_for(model), train=False))
    return jax.tree.map(lambda x: x.shape, dict(shapes))


def noise(model, seed=0):
    """Variables of which none has its initial value; variances are positive."""
    random = np.random.default_rng(seed)
    drawn = jax.tree.map(
        lambda shape: np.float32(random.normal(0, 0.3, shape)),
        shapes_of(model),
        is_leaf=lambda x: isinstance(x, tuple),
    )
    drawn["batch_stats"] = jax.tree.map(lambda x: 0.5 + np.abs(x), drawn["batch_stats"])
    return drawn


def deeper(shallow, depth, trained):
    """The deeper declaration and the variables that make it compute the same."""
    shallow = shallow.resolved()
    deep = dataclasses.replace(shallow, depth=depth).resolved()
    check_deeper(shallow, deep)
    drawn = noise(deep, seed=1)
    if isinstance(shallow, DenseNet):
        return deep, unread_layers.deepened(shallow, deep, trained, drawn)
    signals = {}
    if identity_units.needs_signals(deep):
        stages = tuple(added_parts(shallow, deep))
        measure = identity_units.signal_moments(shallow, build(shallow, 10), stages)
        for stage, measured in measure(trained, SMALL).items():
            mean, square = np.asarray(measured, np.float64)
            signals[stage] = Signal(mean, np.maximum(square - mean**2, 0))
    return deep, identity_units.deepened(shallow, deep, trained, drawn, signals)


def logits(model, variables, *, train=False):
    module = build(model, 10)

    def apply(variables, images):
        if not train:
            return module.apply(variables, images, train=False)
        return module.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    # Every layer of a DenseNet has other shapes, for which single operations would be compiled.
    run = jax.jit(apply) if isinstance(model, DenseNet) else apply
    return np.asarray(run(variables, images_for(model)))


def assert_same_function(shallow, depth, *, to_the_bit=False):
    trained = noise(shallow)
    deep, variables = deeper(shallow, depth, trained)
    assert jax.tree.map(np.shape, variables) == shapes_of(deep)
    before, after = logits(shallow, trained), logits(deep, variables)
    assert np.isfinite(before).all()
    assert np.abs(before).max() > 0
    if to_the_bit:
        np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())


def refusal(config, depth):
    try:
        check_deeper(config.resolved(), dataclasses.replace(config.resolved(), depth=depth))
    except UsageError as error:
        return str(error)
    return None


UNITS: list[dict[str, Any]] = [
    {"order": order, "shortcut": shortcut, "block": block}
    for order in ORDERS
    for shortcut in sorted(SHORTCUTS)
    for block in ("basic", "bottleneck")
]
PASSES = ("zero_pad", "projection", "projection_pooled", "projection_all", "conv", "dropout")


def identity_exists(order, shortcut, block):
    """Whether a unit can be the identity and learn, as the errors' proofs have it."""
    if shortcut in PASSES:
        return order != "relu_before_addition"
    if block == "bottleneck":
        return False
    return shortcut == "none" or order in ("post", "bn_after_addition", "relu_before_addition")


def test_units_are_refused_where_no_identity_can_learn_and_nowhere_else():
    for unit in UNITS:
        depths = (8, 14) if unit["block"] == "basic" else (11, 20)
        error = refusal(ResNet(depths[0], **unit), depths[1])
        assert (error is None) == identity_exists(**unit), (unit, error)


def declared(unit, **more):
    shallow, deep = (8, 14) if unit["block"] == "basic" else (11, 20)
    return ResNet(shallow, **unit, **more), deep


POSSIBLE = [unit for unit in UNITS if identity_exists(**unit)]


@pytest.mark.parametrize(
    ("order", "shortcut"),
    [
        ("post", "none"),
        ("full_pre", "none"),
        ("relu_only_pre", "projection_all"),
        ("bn_after_addition", "exclusive_gating"),
        ("relu_before_addition", "shortcut_gating"),
    ],
    ids="abcde",
)
def test_a_deeper_resnet_has_the_same_logits(order, shortcut):
    assert_same_function(ResNet(8, order=order, shortcut=shortcut), 14)


@pytest.mark.slow
@pytest.mark.parametrize("unit", POSSIBLE, ids=lambda unit: "-".join(unit.values()))
def test_every_deeper_resnet_has_the_same_logits(unit):
    assert_same_function(*declared(unit))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from(POSSIBLE),
    squeeze=st.sampled_from([None, 4, 16]),
    widening=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 4]),
    side=st.sampled_from(["end", "both"]),
)
def test_any_deeper_resnet_has_the_same_logits(unit, squeeze, widening, groups, side):
    more = {"widening": widening} if unit["block"] == "basic" else {"groups": groups}
    if SHORTCUTS[unit["shortcut"]].uses_identity:
        more["zero_pad_side"] = side
    assert_same_function(*declared(unit, squeeze_excitation=squeeze, **more))


@pytest.mark.parametrize("order", ["post", "full_pre", "relu_only_pre"])
def test_units_of_a_zero_branch_change_no_bit(order):
    assert_same_function(ResNet(8, shortcut="zero_pad", order=order), 14, to_the_bit=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shallow", "depth"),
    [
        (ResNet(18, layout="imagenet"), 34),
        (ResNet(18, layout="imagenet", shortcut="none"), 34),
        (ResNet(50, layout="imagenet", stem="deep", shortcut="projection_pooled"), 101),
        (ResNet(101, layout="imagenet", order="full_pre", groups=32, bottleneck_width=128), 152),
        (ResNet(8, stochastic_depth=0.5, stochastic_depth_by="picture"), 14),
        (ResNet(11, block="bottleneck", bottleneck_width=64, shortcut="none", groups=8), 20),
        (ResNet(8, shortcut="constant_scaling", shortcut_scale=1.5, branch_scale=-0.5), 14),
        (ResNet(8, shortcut="constant_scaling", shortcut_scale=1.0, branch_scale=0.5), 14),
        (DenseNet(121, 4, layout="imagenet"), 169),
    ],
    ids="abcdefghi",
)
def test_other_declarations_have_the_same_logits(shallow, depth):
    assert_same_function(shallow, depth)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    bottleneck=st.booleans(),
    growth=st.integers(1, 6),
    compression=st.sampled_from([0.3, 0.5, 0.77, 1.0]),
    channels=st.sampled_from([None, 5]),
    old=st.integers(1, 2),
    more=st.integers(1, 2),
)
def test_any_deeper_densenet_has_the_same_logits(
    bottleneck, growth, compression, channels, old, more
):
    per_layer = 6 if bottleneck else 3
    shallow = DenseNet(
        old * per_layer + 4,
        growth,
        bottleneck=bottleneck,
        compression=compression,
        initial_channels=channels,
    )
    assert_same_function(shallow, shallow.depth + more * per_layer)


def test_a_deeper_densenet_has_the_same_logits_in_training_too():
    shallow = DenseNet(7, 4, bottleneck=False, compression=0.77)
    trained = noise(shallow)
    deep, variables = deeper(shallow, 10, trained)
    for train in (False, True):
        before = logits(shallow, trained, train=train)
        after = logits(deep, variables, train=train)
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())
    kernel = variables["params"]["transition1"]["conv"]["kernel"][0, 0]
    # 16 + 4 maps become 15; with a second layer, 16 + 4 + 4 become 18, of which 3 are new.
    assert kernel.shape == (24, 18)
    assert not kernel[20:, :15].any()
    assert kernel[:, 15:].all()


def test_a_plain_net_is_nearly_the_same_function_in_training():
    shallow = ResNet(8, shortcut="none")
    module = build(shallow, 10)
    step = jax.jit(lambda v: module.apply(v, SMALL, train=True, mutable=["batch_stats"])[1])
    trained = noise(shallow)
    for _ in range(150):
        trained = trained | dict(step(trained))
    trained = jax.device_get(trained)
    deep, variables = deeper(shallow, 14, trained)
    before = logits(shallow, trained, train=True)
    apart = np.abs(logits(deep, variables, train=True) - before).max()
    assert apart < 0.05 * np.abs(before).max()
    # The same function in evaluation, with other running averages, is another one in training.
    added = [f"stage{s}_unit{u}" for s, units in added_parts(shallow, deep).items() for u in units]
    for unit in added:
        for norm in ("norm1", "norm2"):
            mean, var = (variables["batch_stats"][unit][norm][n] for n in ("mean", "var"))
            variables["batch_stats"][unit][norm] = {"mean": 0 * mean, "var": 0 * var + 1}
            scale = np.full_like(var, np.sqrt(np.float32(1 + BatchNorm.epsilon)))
            variables["params"][unit][norm] = {"scale": scale, "bias": 0 * mean}
    assert np.abs(logits(deep, variables)).max() > 0
    assert np.abs(logits(deep, variables, train=True) - before).max() > 10 * apart


def test_dead_maps_pass_through_an_identity_unit():
    shallow = ResNet(8, shortcut="none")
    trained = noise(shallow)
    for name in ("scale", "bias"):
        trained["params"]["stage1_unit1"]["norm2"][name][:5] = 0  # 5 of 16 maps are always 0
    deep, variables = deeper(shallow, 14, trained)
    np.testing.assert_allclose(logits(deep, variables), logits(shallow, trained), atol=1e-4)
    unit = variables["params"]["stage1_unit2"]["norm1"]
    assert unit["scale"][:5] == pytest.approx(math.sqrt(1e-5), rel=1e-3)
    assert unit["bias"][:5].tolist() == [0] * 5


def test_a_dirac_kernel_maps_every_map_to_itself():
    kernel = dirac((3, 3, 2, 6))  # three groups of two maps
    assert kernel.sum() == 6
    assert [kernel[1, 1, o % 2, o] for o in range(6)] == [1] * 6
    assert dirac((1, 1, 3, 3))[0, 0].tolist() == np.eye(3).tolist()


def test_branches_are_multiples_of_the_input_that_make_up_the_rest():
    def factor(shortcut, **fields):
        return branch_factor(ResNet(8, shortcut=shortcut, **fields).resolved())

    assert factor("zero_pad") == 0
    assert factor("none") == 1
    assert factor("constant_scaling") == 1  # 0.5 x + 0.5 x
    assert factor("constant_scaling", shortcut_scale=0.25, branch_scale=0.5) == 1.5
    assert factor("shortcut_gating", gate_bias=0.0) == 0.5
    assert factor("exclusive_gating") == 1


@pytest.mark.parametrize(
    ("shallow", "depth", "reason"),
    [
        (ResNet(14), 8, "has 1, 1, 1 units in its stages; depth 14 has 2, 2, 2"),
        (ResNet(14), 16, "nowhere fewer and somewhere more"),  # 6n+4: the same units
        (ResNet(8, order="relu_before_addition"), 14, "the added units would never learn"),
        (ResNet(8, order="full_pre", shortcut="constant_scaling"), 14, "negative inputs"),
        (ResNet(11, block="bottleneck", shortcut="none"), 20, "16 maps inside for 64"),
        (ResNet(8, stochastic_depth=0.5), 14, "changes with the depth"),
        (
            ResNet(8, shortcut="constant_scaling", branch_scale=0.0),
            14,
            "every unit returns 0.5 x: none is the identity",
        ),
        (
            ResNet(
                8,
                order="relu_before_addition",
                shortcut="constant_scaling",
                branch_scale=-0.5,
            ),
            14,
            "never negative",
        ),
        (DenseNet(16, 4), 10, "1, 1, 1 layers in its blocks; depth 16 has 2, 2, 2"),
        (
            DenseNet(201, 4, layout="imagenet"),
            161,
            "6, 12, 36, 24 layers in its blocks; depth 201 has 6, 12, 48, 32",
        ),
    ],
    ids="abcdefghij",
)
def test_what_cannot_be_deeper_is_refused_with_the_reason(shallow, depth, reason):
    assert reason in (refusal(shallow, depth) or "")
