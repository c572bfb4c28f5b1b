"""Equal units are drawn together, with the weights that they would have one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resflax import DenseNet, ResNet
from resflax.devices.compilation import compile_as_called, compile_fast
from resflax.models import build, initial_variables
from resflax.models.initial_variables import draw_variables
from resflax.models.stacking import stack
from resflax.models.summary import summarize

IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
KEY = jax.random.PRNGKey(3)  # as a run has it


def one_by_one(module, key):
    variables = module.lazy_init(key, IMAGES, train=False)
    return {collection: stack(variables[collection]) for collection in variables}


def check_same(drawn, expected):
    drawn, expected = flatten_dict(drawn, sep="/"), flatten_dict(expected, sep="/")
    assert drawn.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(drawn[path], value, err_msg=path)


@pytest.mark.parametrize(
    "config",
    [
        ResNet(20),
        ResNet(14),  # a single unit after the first: nothing is stacked
        DenseNet(16, growth_rate=4),
        *(
            pytest.param(config, marks=pytest.mark.slow)
            for config in (
                ResNet(29, block="bottleneck", shortcut="exclusive_gating", order="full_pre"),
                ResNet(26, shortcut="projection_all", squeeze_excitation=4),
            )
        ),
    ],
    ids=str,
)
def test_units_have_the_weights_that_they_would_have_one_by_one(config):
    module = build(config, 10)
    drawn = compile_fast(lambda key: draw_variables(module, key, IMAGES))(KEY)
    check_same(drawn, compile_fast(lambda key: one_by_one(module, key))(KEY))


def test_a_key_with_a_type_draws_the_same():
    module = build(ResNet(20), 10)
    draw = compile_fast(lambda key: draw_variables(module, key, IMAGES))
    check_same(draw(jax.random.wrap_key_data(KEY)), draw(KEY))


@pytest.mark.slow
def test_a_very_deep_network_has_the_weights_of_operations_called_one_by_one():
    module = build(ResNet(20), 10)
    drawn = compile_as_called(lambda key: draw_variables(module, key, IMAGES))(KEY)
    check_same(drawn, one_by_one(module, KEY))


def test_units_are_drawn_one_by_one_if_flax_derives_keys_in_another_way(monkeypatch):
    module = build(ResNet(20), 10)
    monkeypatch.setattr(initial_variables, "_number", lambda draw: 1)
    drawn = jax.eval_shape(lambda key: draw_variables(module, key, IMAGES), KEY)
    expected = jax.eval_shape(lambda key: module.lazy_init(key, IMAGES, train=False), KEY)
    assert drawn == expected


def test_the_program_that_draws_does_not_grow_with_depth():
    def equations(depth):
        module = build(ResNet(depth), 10)
        return len(jax.make_jaxpr(lambda key: draw_variables(module, key, IMAGES))(KEY).eqns)

    assert equations(20) == equations(182)


def test_a_summary_has_every_layer_of_every_unit():
    config = ResNet(26, order="full_pre")
    variables = jax.eval_shape(
        lambda: build(config, 10).init(jax.random.key(0), jnp.zeros(IMAGES.shape), train=False)
    )
    sizes: dict[str, int] = {}
    for path, leaf in flatten_dict(variables["params"]).items():
        layer = ".".join(path[:-1])
        sizes[layer] = sizes.get(layer, 0) + leaf.size
    layers = summarize(config, 10, IMAGES.shape[1:]).layers
    assert {layer.name: layer.params for layer in layers} == sizes
    assert len(layers) == len(sizes)
