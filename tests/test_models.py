"""What the networks compute: orders, shortcuts, initial values, number formats."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_networks import KEY, initial, jit, shuffled
from flax.traverse_util import unflatten_dict

from resflax import DenseNet, ResNet
from resflax.models import build
from resflax.models.layers import Layers
from resflax.models.units import make_shortcut
from resflax.orders import ORDERS

# --- initial values ---------------------------------------------------------------------------


def test_convolutions_start_he_normal_by_fan_out():
    kernels = [v for path, v in initial(ResNet(20)).items() if v.ndim == 4]
    # In units of sqrt(2 / (k * k * outputs)), all weights together are standard normal.
    units = [v / np.sqrt(2 / (v.shape[0] * v.shape[1] * v.shape[3])) for v in kernels]
    weights = np.concatenate([np.ravel(v) for v in units])
    n = len(weights)
    assert n == 267_696
    assert abs(weights.mean()) < 5 / np.sqrt(n)
    assert abs(weights.std() - 1) < 5 / np.sqrt(2 * n)
    assert abs(np.mean(weights**4) - 3) < 5 * np.sqrt(96 / n)  # not truncated
    for v in units:
        assert abs(v.std() - 1) < 5 / np.sqrt(2 * v.size)


def test_grouped_convolutions_start_by_their_whole_fan_out():
    config = ResNet(11, block="bottleneck", bottleneck_width=64, groups=16)
    kernel = initial(config)["params/stage3_unit1/conv2/kernel"]
    assert kernel.shape == (3, 3, 16, 256)
    assert abs(kernel.std() / np.sqrt(2 / (9 * 256)) - 1) < 5 / np.sqrt(2 * kernel.size)


def test_the_classifier_starts_as_torchs():
    variables = initial(ResNet(8), classes=1000)
    kernel, bound = variables["params/head/kernel"], 1 / np.sqrt(64)
    assert kernel.shape == (64, 1000)
    assert 0.999 * bound < np.abs(kernel).max() <= bound
    assert abs(kernel.std() / (bound / np.sqrt(3)) - 1) < 5 / np.sqrt(kernel.size)
    assert not variables["params/head/bias"].any()


def test_norms_start_as_the_identity_and_gates_almost_closed():
    variables = initial(ResNet(8, shortcut="exclusive_gating", squeeze_excitation=4))
    for path, value in variables.items():
        if path.endswith(("/scale", "/var")):
            assert np.all(value == 1)
        elif path.endswith("/gate/bias"):
            assert np.all(value == -6)
        elif path.endswith(("/bias", "/mean")):
            assert not np.any(value)
    assert sum(path.endswith("/gate/bias") for path in variables) == 3
    biased = initial(ResNet(8, shortcut="shortcut_gating", gate_bias=-1.5))
    assert np.all(biased["params/stage2_unit1/shortcut/gate/bias"] == -1.5)


@pytest.mark.parametrize("order", ["post", "relu_only_pre"])
def test_zero_scales_start_every_branch_at_zero_and_still_learn(order):
    config = ResNet(14, order=order, zero_init_last_scale=True)
    variables = initial(config)
    scales = {path: v for path, v in variables.items() if path.endswith("/scale")}
    zero = {path for path, v in scales.items() if not v.any()}
    assert zero == {path for path in scales if path.endswith("/norm2/scale")}
    assert all(np.all(v == 1) for path, v in scales.items() if path not in zero)

    module = build(config, 10)
    images = jax.random.normal(KEY, (4, 16, 16, 3))

    def loss(params: Any) -> jax.Array:
        tree = unflatten_dict({**variables, **params}, sep="/")
        logits: Any = module.apply(tree, images, train=False)
        return jnp.sum(jnp.square(logits - 1))

    gradients = jit(jax.grad(loss))({path: scales[path] for path in zero})
    assert all(np.any(g != 0) for g in gradients.values())


def test_two_orders_have_branches_that_end_in_bn():
    ending = [name for name, order in ORDERS.items() if order.branch_ends_in_norm]
    assert ending == ["post", "relu_only_pre"]


# --- orders: He et al. 2016, Figure 4, written out ----------------------------------------------


class Written:
    """A CIFAR net of basic units with option A, from variables by path, in evaluation."""

    def __init__(self, variables: dict, order: str, units: int) -> None:
        self.variables, self.order, self.units = variables, order, units

    def conv(self, x, name, stride=1):
        kernel = self.variables[f"params/{name}/kernel"]
        pad = kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def bn(self, x, name):
        scale, bias = (self.variables[f"params/{name}/{leaf}"] for leaf in ("scale", "bias"))
        mean, var = (self.variables[f"batch_stats/{name}/{leaf}"] for leaf in ("mean", "var"))
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def unit(self, x, name, stride, first):
        def conv1(x):
            return self.conv(x, f"{name}/conv1", stride)

        def conv2(x):
            return self.conv(x, f"{name}/conv2")

        def bn1(x):
            return self.bn(x, f"{name}/norm1")

        def bn2(x):
            return self.bn(x, f"{name}/norm2")

        def a(x):
            x = x[:, ::stride, ::stride]
            missing = x.shape[-1] * (stride - 1)  # channels double where the stride is 2
            return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))

        relu = nn.relu
        if self.order == "post":
            return relu(a(x) + bn2(conv2(relu(bn1(conv1(x))))))
        if self.order == "bn_after_addition":
            return relu(bn2(a(x) + conv2(relu(bn1(conv1(x))))))
        if self.order == "relu_before_addition":
            return a(x) + relu(bn2(conv2(relu(bn1(conv1(x))))))
        if self.order == "relu_only_pre":
            h = x if first else relu(x)
            return a(h if stride == 2 else x) + bn2(conv2(relu(bn1(conv1(h)))))
        h = x if first else relu(bn1(x))
        return a(h if stride == 2 else x) + conv2(relu(bn2(conv1(h))))

    def __call__(self, x):
        x = nn.relu(self.bn(self.conv(x, "stem_conv"), "stem_norm"))
        for stage in (1, 2, 3):
            for unit in range(1, self.units + 1):
                stride = 2 if stage > 1 and unit == 1 else 1
                x = self.unit(x, f"stage{stage}_unit{unit}", stride, first=(stage, unit) == (1, 1))
        if self.order == "relu_only_pre":
            x = nn.relu(x)
        if self.order == "full_pre":
            x = nn.relu(self.bn(x, "final_norm"))
        weights, bias = (self.variables[f"params/head/{leaf}"] for leaf in ("kernel", "bias"))
        return x.mean((1, 2)) @ weights + bias


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_its_figure(order):
    module = build(ResNet(14, order=order), 10)
    images = np.random.default_rng(1).normal(size=(2, 13, 13, 3)).astype(np.float32)
    variables = shuffled(initial(ResNet(14, order=order)))
    apply = jit(lambda variables: module.apply(variables, images, train=False))
    logits = apply(unflatten_dict(variables, sep="/"))
    expected = Written(variables, order, units=2)(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# --- shortcuts: He et al. 2016, Figure 2 ---------------------------------------------------------


def shortcut_module(config: ResNet, stride: int, layers: Layers | None = None) -> nn.Module:
    """The shortcut of a unit by itself, as a linen module."""
    return make_shortcut(config.resolved(), layers or Layers(), stride)


def join(config: ResNet, stride: int, features: int, *, train=False, **rngs):
    """(x, F(x), the shortcut's output, its params) at an odd size, from 4 to `features` maps."""
    module: Any = shortcut_module(config, stride)
    random = np.random.default_rng(3)
    x = random.normal(size=(2, 5, 5, 4)).astype(np.float32)
    side = -(-5 // stride)
    branch = random.normal(size=(2, side, side, features)).astype(np.float32)
    variables = jit(lambda: module.init(KEY, x, branch, train=False))()
    output = jit(lambda v: module.apply(v, x, branch, train=train, rngs=rngs))(variables)
    return x, branch, np.asarray(output), variables.get("params", {})


def option_a(x, stride, features, before=0):
    x = x[:, ::stride, ::stride]
    missing = features - x.shape[-1]
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


SHAPES = pytest.mark.parametrize(("stride", "features"), [(1, 4), (1, 9), (2, 8)])


@SHAPES
def test_no_shortcut_is_the_branch(stride, features):
    _, branch, output, _ = join(ResNet(8, shortcut="none"), stride, features)
    np.testing.assert_array_equal(output, branch)


@SHAPES
def test_option_a_pads_at_the_end_or_on_both_sides(stride, features):
    x, branch, output, params = join(ResNet(8, shortcut="zero_pad"), stride, features)
    np.testing.assert_array_equal(output, option_a(x, stride, features) + branch)
    assert params == {}
    both = ResNet(8, shortcut="zero_pad", zero_pad_side="both")
    x, branch, output, _ = join(both, stride, features)
    expected = option_a(x, stride, features, before=(features - 4) // 2)
    np.testing.assert_array_equal(output, expected + branch)


@SHAPES
@pytest.mark.parametrize(("a", "b"), [(None, None), (0.0, 1.0), (0.5, 1.0), (-2.0, 0.25)])
def test_constant_scaling_scales_both(stride, features, a, b):
    config = ResNet(8, shortcut="constant_scaling", shortcut_scale=a, branch_scale=b)
    x, branch, output, _ = join(config, stride, features)
    a, b = 0.5 if a is None else a, 0.5 if b is None else b
    expected = a * option_a(x, stride, features) + b * branch
    np.testing.assert_allclose(output, expected, rtol=1e-6)


@SHAPES
@pytest.mark.parametrize("exclusive", [True, False])
def test_gates_divide_shortcut_and_branch(stride, features, exclusive):
    shortcut = "exclusive_gating" if exclusive else "shortcut_gating"
    config = ResNet(8, shortcut=shortcut, gate_bias=-1.0)
    x, branch, output, params = join(config, stride, features)
    kernel, bias = params["gate"]["kernel"], params["gate"]["bias"]
    g = 1 / (1 + np.exp(-(x[:, ::stride, ::stride] @ kernel[0, 0] + bias)))
    shared = g * branch if exclusive else branch
    expected = (1 - g) * option_a(x, stride, features) + shared
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@SHAPES
def test_dropout_drops_the_identity_alone(stride, features):
    config = ResNet(8, shortcut="dropout", shortcut_dropout_rate=0.25)
    x, branch, output, _ = join(config, stride, features)
    shortcut = option_a(x, stride, features)
    np.testing.assert_array_equal(output, shortcut + branch)
    _, _, output, _ = join(config, stride, features, train=True, dropout=KEY)
    kept = np.isclose(output, shortcut / 0.75 + branch, rtol=1e-5)
    dropped = np.isclose(output, branch, rtol=1e-5)
    assert np.all(kept | dropped)
    assert np.any(kept & (shortcut != 0))
    assert np.any(dropped & (shortcut != 0))


@SHAPES
@pytest.mark.parametrize("shortcut", ["projection", "projection_all", "conv", "projection_pooled"])
def test_projections_project_where_they_should(stride, features, shortcut):
    x, branch, output, params = join(ResNet(8, shortcut=shortcut), stride, features)
    if shortcut in ("projection", "projection_pooled") and (stride, features) == (1, 4):
        np.testing.assert_array_equal(output, x + branch)
        return
    read = x[:, ::stride, ::stride]
    if shortcut == "projection_pooled":
        places = range(0, 5, stride)  # the last window of an odd side is cut off at the border
        read = np.array(
            [[x[:, i : i + stride, j : j + stride].mean((1, 2)) for j in places] for i in places]
        ).transpose(2, 0, 1, 3)
    projected = read @ params["conv"]["kernel"][0, 0] / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(output, projected + branch, rtol=1e-4, atol=1e-5)


def test_a_gate_keeps_its_precision_in_bfloat16():
    # 1 - sigmoid(-8) = 0.99966 would round to 1.
    config = ResNet(8, shortcut="shortcut_gating", gate_bias=-8.0)
    module = shortcut_module(config, 1, Layers(dtype=jnp.bfloat16))
    x = jnp.full((1, 2, 2, 4), 4096, jnp.bfloat16)
    variables = {"params": {"gate": {"kernel": jnp.zeros((1, 1, 4, 4)), "bias": jnp.full(4, -8.0)}}}
    output: Any = module.apply(variables, x, -x, train=False)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(output), -4096 / (1 + np.exp(8)), rtol=2**-8)


# --- number formats ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        ResNet(8, shortcut="exclusive_gating", squeeze_excitation=4, stochastic_depth=0.2),
        ResNet(
            8,
            shortcut="constant_scaling",
            order="bn_after_addition",
            stochastic_depth=0.2,
            stochastic_depth_by="picture",
        ),
        ResNet(11, order="full_pre", shortcut="projection_pooled"),
        DenseNet(10, 4, dropout_rate=0.1),
    ],
)
def test_bfloat16_is_for_activations_alone(config):
    module = build(config, 10, dtype=jnp.bfloat16)
    dtypes: dict[str, set] = {}

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(output, jax.Array):
            dtypes.setdefault(type(context.module).__name__, set()).add(output.dtype.name)
        return output

    @jit
    def step(images):
        variables = module.init(KEY, images, train=False)
        with nn.intercept_methods(record):
            logits, updates = module.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": KEY}
            )
        return logits, {**variables, **updates}

    logits, variables = step(jax.random.normal(KEY, (4, 16, 16, 3)))
    assert logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    float32 = {"Dense", type(module).__name__}  # the classifier, SE's two layers, the logits
    for name, of_outputs in dtypes.items():
        assert of_outputs == ({"float32"} if name in float32 else {"bfloat16"}), name
