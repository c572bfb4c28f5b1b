"""scripts/benchmark.py: what it measures, and that its contenders are the same networks."""

import importlib.util
import json

import numpy as np
import pytest
from test_pictures import encode, photo

from resflax import DenseNet, ResNet
from resflax.benchmark import loaders
from resflax.benchmark.contender import Case
from resflax.benchmark.naive import naive
from resflax.benchmark.ours import ours
from resflax.models.summary import summarize


def case(model, side=8):
    return Case("net", model, (side, side, 3), 10, 4, "float32")


def test_the_command_measures_and_says_where(script, tmp_path):
    done = script(
        "benchmark", "resnet20", "--batch-size", 4, 8, "--repetitions", 2, "--output", "b.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    mine = [result for result in found["results"] if result["implementation"] == "resflax"]
    assert [result["batch_size"] for result in mine] == [4, 8]
    for result in mine:
        assert result["images_per_second"] == pytest.approx(
            result["batch_size"] / result["step_seconds"]
        )
        assert 0 < result["share_of_peak"] < 1
        assert result["memory_bytes"] > 4 * 269_722
        assert result["compile_seconds"] > result["step_seconds"]
    assert found["environment"]["devices"]
    assert "resnet20" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet21"], "no network is named"),
        (["resnet20", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["resnet20", "--repetitions", "1"], "at least 2"),
        (["resnet20", "--output", "nowhere/b.json"], "there is no folder nowhere"),
        (["resnet20", "--precision", "float8"], "float8"),
    ],
)
def test_mistakes_are_one_line(script, arguments, said):
    done = script("benchmark", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("model", [ResNet(8), DenseNet(10, 4)])
def test_the_naive_net_is_the_same_net(model):
    import jax
    import jax.numpy as jnp

    from resflax.benchmark.naive import NaiveDenseNet, NaiveResNet

    module = (
        NaiveResNet(1, 10, jnp.float32)
        if isinstance(model, ResNet)
        else NaiveDenseNet(1, 4, 10, jnp.float32)
    )
    params = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, train=False), jnp.zeros((1, 8, 8, 3))
    )["params"]
    counted = summarize(model, 10, (8, 8, 3)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counted


def test_only_what_has_a_naive_form_has_one():
    assert naive(case(ResNet(8, shortcut="none"))) is None
    assert naive(case(ResNet(8, order="full_pre"))) is None
    assert naive(case(DenseNet(10, 4, compression=1.0))) is None


def test_steps_are_steps():
    contender = ours(case(ResNet(8)))
    contender.steps(3)
    assert contender.compile_seconds > 0


@pytest.mark.parametrize(
    "model", [ResNet(14), ResNet(8, shortcut="none"), DenseNet(16, 4)], ids=["A", "plain", "BC"]
)
def test_pytorchs_net_is_the_same_net(model):
    pytest.importorskip("torch")
    from resflax.benchmark.peers import network, torchs

    net = network(model, 10)
    assert net is not None
    assert sum(p.numel() for p in net.parameters()) == summarize(model, 10, (8, 8, 3)).params
    contender = torchs(case(model), compiled=False)
    assert contender is not None
    contender.steps(2)
    assert network(ResNet(8, order="full_pre"), 10) is None


JPEGS = [encode(photo(40 + number, 60, seed=number), "jpeg") for number in range(3)]


def test_pillow_crops_at_random_and_always_the_same():
    one, same, other = (
        loaders.pillow(JPEGS[0], 24, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert (one.shape, one.dtype) == ((24, 24, 3), np.uint8)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_tf_data_loads_batches_of_crops(monkeypatch):
    import tensorflow as tf

    shapes: list[object] = []
    batch = tf.data.Dataset.batch

    def noting(self, size):
        batches = batch(self, size)
        shapes.extend((found.shape, found.dtype) for found in batches.as_numpy_iterator())
        return batches

    monkeypatch.setattr(tf.data.Dataset, "batch", noting)
    assert loaders.tensorflows(JPEGS, 24, 4, 2, 10) == 10
    assert shapes == [((n, 24, 24, 3), np.uint8) for n in (4, 4, 2)]
