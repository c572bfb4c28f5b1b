"""scripts/benchmark.py measures training steps, and its contenders train the same networks."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from photos import encode, photo

from resflax import DenseNet, ResNet
from resflax.benchmark.contender import Case
from resflax.benchmark.module_step import resflax_contender
from resflax.benchmark.naive import naive_contender
from resflax.benchmark.other_loaders import load_by_tf_data, random_crop_by_pillow
from resflax.data.draws import Doubles
from resflax.models.summary import summarize


def case(model, side=8):
    return Case("net", model, (side, side, 3), 10, 4, "float32")


def test_the_command_measures_and_records_the_machine(script, tmp_path):
    arguments = "resnet20 --batch-size 4 8 --repetitions 2 --operations --output b.json"
    done = script("benchmark", *arguments.split())
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b.json").read_text())
    results = [result for result in record["results"] if result["implementation"] == "resflax"]
    assert [result["batch_size"] for result in results] == [4, 8]
    for result in results:
        assert result["images_per_second"] == pytest.approx(
            result["batch_size"] / result["step_seconds"]
        )
        assert 0 < result["share_of_peak"] < 1
        assert result["memory_bytes"] > 4 * 269_722
        assert result["compile_seconds"] > result["step_seconds"]
    assert record["environment"]["devices"]
    assert "resnet20" in done.stdout
    assert [step["batch_size"] for step in record["operations"]] == [4, 8]
    peak = record["limits"]["float32"]["flops_per_second"]
    for step in record["operations"]:
        rows = step["operations"]
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert sum(row["seconds"] for row in rows) == pytest.approx(step["step_seconds"])
        multiplying = [row for row in rows if row["flops_per_second"]]
        assert multiplying
        for row in multiplying:
            assert row["share_of_peak"] == pytest.approx(row["flops_per_second"] / peak)
        assert f"operations of resnet20, batch {step['batch_size']}, float32" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet21"], "no network is named"),
        (["resnet20", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["resnet20", "--repetitions", "1"], "at least 2"),
        (["resnet20", "--output", "nowhere/b.json"], "there is no folder nowhere"),
        (["resnet20", "--precision", "float8"], "float8"),
    ],
)
def test_mistakes_are_one_line(script, arguments, message):
    done = script("benchmark", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("model", [ResNet(8), DenseNet(10, 4)])
def test_the_naive_network_has_the_same_parameters(model):
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


def test_networks_without_a_naive_form_have_no_naive_contender():
    assert naive_contender(case(ResNet(8, shortcut="none"))) is None
    assert naive_contender(case(ResNet(8, order="full_pre"))) is None
    assert naive_contender(case(ResNet(8, widening=2))) is None
    assert naive_contender(case(ResNet(8, dropout_rate=0.3))) is None
    assert naive_contender(case(ResNet(10))) is None  # it has projections
    assert naive_contender(case(DenseNet(10, 4, compression=1.0))) is None


def test_a_contender_does_several_steps():
    contender = resflax_contender(case(ResNet(8)))
    contender.steps(3)
    assert contender.compile_seconds > 0


@pytest.mark.parametrize(
    "model",
    [
        ResNet(14),
        ResNet(8, shortcut="none"),
        ResNet(8, order="full_pre"),
        ResNet(8, shortcut="none", order="full_pre"),
        ResNet(10, widening=2, order="full_pre"),
        ResNet(10),
        ResNet(18, layout="imagenet"),
        DenseNet(16, 4),
    ],
    ids=["A", "plain", "A pre", "plain pre", "wide pre", "B", "large pictures", "BC"],
)
def test_the_pytorch_network_has_the_same_parameters(model):
    torch = pytest.importorskip("torch")
    from resflax.benchmark.pytorch import torch_contender
    from resflax.benchmark.pytorch_networks import torch_network

    net = torch_network(model, 10)
    assert net is not None
    counted = summarize(model, 10, (32, 32, 3))
    assert sum(p.numel() for p in net.parameters()) == counted.params
    assert macs_in_torch(torch, net) == counted.macs
    contender = torch_contender(case(model, side=32), compiled=False)
    assert contender is not None
    contender.steps(2)


def macs_in_torch(torch, net) -> int:
    """Multiply-adds of the network for one picture of 32x32."""
    counts = []

    def count(layer, _, output):
        counts.append(layer.weight[0].numel() * output.numel())

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    net.eval()(torch.zeros(1, 3, 32, 32))
    return sum(counts)


def test_networks_without_a_pytorch_form_are_left_out():
    pytest.importorskip("torch")
    from resflax.benchmark.pytorch_networks import torch_network

    for model in (
        ResNet(8, order="relu_only_pre"),
        ResNet(8, shortcut="dropout"),
        ResNet(10, widening=2, dropout_rate=0.3),
        ResNet(29, block="bottleneck"),
        DenseNet(10, 4, compression=1.0),
    ):
        assert torch_network(model, 10) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize(("setting", "threads"), [({}, 1), ({"PJRT_NPROC": "3"}, 3)])
def test_pytorch_has_as_many_threads_as_xla(setting, threads):
    pytest.importorskip("torch")
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import torch
from resflax import ResNet
from resflax.benchmark.contender import Case
from resflax.benchmark.pytorch import torch_contender
import jax
jax.devices()
torch_contender(Case("net", ResNet(8), (8, 8, 3), 10, 4, "bfloat16"), compiled=False).steps(1)
print(torch.get_num_threads())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | setting | {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(threads)], done.stderr


@pytest.mark.slow
def test_torch_compile_is_timed_or_the_reason_is_said(script, monkeypatch):
    """The compiler that CXX names is not there in the second run."""
    pytest.importorskip("torch")
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    arguments = ["resnet20", "--batch-size", 2, "--repetitions", 2, "--torch-compile"]
    done = script("benchmark", *arguments)
    assert done.returncode == 0, done.stderr
    assert "torch.compile" in done.stdout
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = script("benchmark", *arguments)
    assert done.returncode == 0, done.stderr
    assert "torch.compile" not in done.stdout
    (reason,) = [line for line in done.stderr.splitlines() if "torch.compile" in line]
    assert "torch.compile is left out, because it does not work here: " in reason


JPEGS = [encode(photo(40 + number, 60, seed=number), "jpeg") for number in range(3)]


def test_a_crop_by_pillow_depends_on_the_random_numbers_alone():
    first, same_seed, other_seed = (
        random_crop_by_pillow(JPEGS[0], 24, Doubles(np.random.PCG64(seed))) for seed in (0, 0, 1)
    )
    assert (first.shape, first.dtype) == ((24, 24, 3), np.uint8)
    np.testing.assert_array_equal(first, same_seed)
    assert not np.array_equal(first, other_seed)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_tf_data_loads_batches_of_crops(monkeypatch):
    import tensorflow as tf

    shapes: list[object] = []
    batch = tf.data.Dataset.batch

    def batch_and_note_shapes(self, size):
        batches = batch(self, size)
        shapes.extend((crops.shape, crops.dtype) for crops in batches.as_numpy_iterator())
        return batches

    monkeypatch.setattr(tf.data.Dataset, "batch", batch_and_note_shapes)
    assert load_by_tf_data(JPEGS, 24, 4, 2, 10) == 10
    assert shapes == [((n, 24, 24, 3), np.uint8) for n in (4, 4, 2)]
