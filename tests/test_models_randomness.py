"""Randomness in networks: dropout and stochastic depth."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_networks import KEY, draw, jit

from resflax import DenseNet, ResNet
from resflax.models import build
from resflax.models.layers import StochasticDepth
from resflax.models.residual import survivals
from resflax.orders import ORDERS


@pytest.mark.parametrize("order", ORDERS)
def test_dropout_stands_directly_before_the_second_convolution(order):
    module = build(ResNet(10, widening=2, order=order, dropout_rate=0.5), 10)
    images = jax.random.normal(KEY, (2, 8, 8, 3))
    variables = draw(module, images)

    def seen(*, train):
        """For each unit, the input of its dropout and that of its second convolution."""
        dropped, convolved = [], []

        def record(call, args, kwargs, context):
            path = context.module.path
            if context.method_name == "__call__" and path[-1:] == ("dropout",):
                dropped.append(args[0])
            if context.method_name == "__call__" and path[-1:] == ("conv2",):
                convolved.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            module.apply(variables, images, train=train, mutable=["batch_stats"],
                         rngs={"dropout": KEY})  # fmt: skip
        return dropped, convolved

    for given, convolved in zip(*jit(partial(seen, train=False))(), strict=True):
        np.testing.assert_array_equal(given, convolved)
    dropped, convolved = jit(partial(seen, train=True))()
    assert len(dropped) == 3
    for given, maps in zip(dropped, convolved, strict=True):
        kept = np.asarray(maps) != 0
        np.testing.assert_allclose(maps, np.where(kept, 2 * given, 0), rtol=1e-6)
        share = kept.mean() / np.mean(np.asarray(given) != 0)
        assert abs(share - 0.5) < 0.1


def test_survival_falls_linearly_to_the_last_unit():
    module = build(ResNet(14, stochastic_depth=0.6), 10)
    given = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            given.append(args[1])
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: module.init(KEY, x, train=False), jnp.zeros((1, 8, 8, 3)))
    np.testing.assert_allclose(given, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])


def test_stochastic_depth_drops_the_whole_batch_and_scales_in_evaluation():
    module = StochasticDepth()
    branch = jnp.arange(1.0, 9.0).reshape(2, 1, 1, 4)
    scaled: Any = module.apply({}, branch, 0.7, train=False)
    np.testing.assert_allclose(scaled, 0.7 * branch, rtol=1e-6)
    keys = jax.random.split(KEY, 2000)
    drawn = jit(
        jax.vmap(lambda key: module.apply({}, branch, 0.7, train=True, rngs={"dropout": key}))
    )(keys)
    survived = np.all(drawn == branch, axis=(1, 2, 3, 4))
    assert np.all(survived | np.all(drawn == 0, axis=(1, 2, 3, 4)))
    assert abs(survived.mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / 2000)


def test_stochastic_depth_by_picture_drops_each_picture_and_changes_no_evaluation():
    module = StochasticDepth("picture")
    branch = jnp.arange(1.0, 17.0).reshape(4, 1, 1, 4)
    evaluated: Any = module.apply({}, branch, 0.7, train=False)
    np.testing.assert_array_equal(evaluated, branch)
    keys = jax.random.split(KEY, 2000)
    drawn = np.asarray(
        jit(jax.vmap(lambda key: module.apply({}, branch, 0.7, train=True, rngs={"dropout": key})))(
            keys
        )
    )
    kept = np.all(np.isclose(drawn, branch / 0.7, rtol=1e-6), axis=(2, 3, 4))
    assert np.all(kept | np.all(drawn == 0, axis=(2, 3, 4)))
    # Each picture is kept with probability 0.7, independently of the others, so the mean is kept.
    tolerance = 5 * np.sqrt(0.7 * 0.3 / 2000)
    np.testing.assert_allclose(kept.mean(0), 0.7, atol=tolerance)
    np.testing.assert_allclose(drawn.mean(0), branch, rtol=tolerance / 0.7)
    for one, other in ((0, 1), (0, 3), (1, 2)):
        assert abs((kept[:, one] & kept[:, other]).mean() - 0.49) < 5 * np.sqrt(0.25 / 2000)


def test_survival_by_picture_is_timms():
    # timm: rate * block / (blocks - 1), counted from 0.
    config = ResNet(14, stochastic_depth=0.6, stochastic_depth_by="picture")
    expected = 1 - 0.6 * np.arange(6) / 5
    found = [float(survival or 0) for stage in survivals(config) for survival in stage]
    np.testing.assert_allclose(found, expected)


def test_a_network_evaluates_by_picture_as_without_stochastic_depth():
    images = jax.random.normal(KEY, (2, 8, 8, 3))
    fields: dict[str, Any] = {"stochastic_depth": 0.5, "stochastic_depth_by": "picture"}
    without, by_picture = build(ResNet(8), 10), build(ResNet(8, **fields), 10)
    variables = draw(without, images)
    evaluate = [jit(partial(module.apply, train=False)) for module in (without, by_picture)]
    logits = [apply(variables, images) for apply in evaluate]
    np.testing.assert_array_equal(*logits)


def test_stacked_units_have_masks_of_their_own_by_picture():
    """Units of the training form, whose probabilities of survival are values of a loop."""
    config = ResNet(20, stochastic_depth=0.6, stochastic_depth_by="picture", dropout_rate=0.2)
    module = build(config, 10, for_training=True)
    images = jax.random.normal(KEY, (1, 8, 8, 3)).repeat(64, 0)
    variables = draw(module, images[:1])

    @jit
    def logits(key):
        rngs = {"dropout": key}
        return module.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    drawn = np.asarray(logits(KEY))
    assert np.all(np.isfinite(drawn))
    assert len(np.unique(drawn.round(4), axis=0)) > 32  # equal pictures are dropped differently
    np.testing.assert_array_equal(logits(KEY), drawn)
    assert not np.allclose(logits(jax.random.key(1)), drawn)


def test_units_are_dropped_independently():
    module = build(ResNet(8, stochastic_depth=0.9), 10)
    images = jnp.ones((2, 8, 8, 3))
    variables = draw(module, images)

    @jit
    def survived_units(key):
        survived = []

        def record(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if isinstance(context.module, StochasticDepth):
                survived.append(jnp.any(output != 0))
            return output

        with nn.intercept_methods(record):
            module.apply(variables, images, train=True, mutable=["batch_stats"],
                         rngs={"dropout": key})  # fmt: skip
        return jnp.stack(survived)

    drawn = np.array([survived_units(key) for key in jax.random.split(KEY, 60)])
    assert len({tuple(row) for row in drawn}) > 4  # of 8; one number for all would give 4


@pytest.mark.parametrize(
    "config",
    [
        ResNet(8, shortcut="dropout", stochastic_depth=0.5),
        ResNet(10, dropout_rate=0.3),
        ResNet(8, stochastic_depth=0.8, stochastic_depth_by="picture"),
        DenseNet(10, 4, dropout_rate=0.3),
    ],
)
def test_random_draws_do_not_depend_on_the_number_of_devices(config):
    images = jax.random.normal(KEY, (4, 16, 16, 3))
    on_one = build(config, 10)
    on_several = build(config, 10, axis_name="data", synchronized=True)
    variables = draw(on_one, images)

    def logits(module, images, key):
        return module.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )[0]

    # vmap's named axis stands for the devices.
    devices = jax.vmap(lambda x, key: logits(on_several, x, key), (0, None), axis_name="data")
    one = jit(lambda key: logits(on_one, images, key))
    two = jit(lambda key: devices(images.reshape(2, 2, 16, 16, 3), key).reshape(4, 10))
    for key in jax.random.split(KEY, 4):
        np.testing.assert_allclose(two(key), one(key), rtol=1e-3, atol=1e-4)
