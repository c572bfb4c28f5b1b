"""Diagnostics against slow computations that are written out here."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inspected_networks import network

from resflax import DenseNet, ResNet
from resflax.data.normalization import Normalization
from resflax.diagnostics.dropped_units import errors_without_units
from resflax.diagnostics.first_layer import feature_maps, filters
from resflax.diagnostics.gates import gate_values
from resflax.diagnostics.gradients import gradient_norms, norms_over_training
from resflax.diagnostics.inspected import outputs, untrained
from resflax.diagnostics.mistakes import confusion, probabilities, surest_mistakes
from resflax.diagnostics.propagation import signal_propagation
from resflax.diagnostics.responses import layer_responses
from resflax.diagnostics.reuse import feature_reuse
from resflax.errors import UsageError
from resflax.models.layers import Conv
from resflax.training.state import initial_state


def convolve(x, kernel, stride=1):
    """A convolution padded by k // 2, written out for each weight of the kernel."""
    k = kernel.shape[0]
    pad = k // 2
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = x.shape[1] - 2 * pad, x.shape[2] - 2 * pad
    total: Any = 0.0
    for i in range(k):
        for j in range(k):
            total = total + x[:, i : i + height, j : j + width] @ np.asarray(kernel[i, j], float)
    return total[:, ::stride, ::stride]


def normalized(x, params, stats):
    scale = np.asarray(params["scale"], float) / np.sqrt(np.asarray(stats["var"], float) + 1e-5)
    return (x - np.asarray(stats["mean"])) * scale + np.asarray(params["bias"])


@pytest.fixture(scope="module")
def plain():
    return network(ResNet(8, shortcut="none"))


def by_hand(net):
    """Responses (B, H, W, C) of every layer of a plain ResNet-8, written out."""
    params, stats = net.variables["params"], net.variables["batch_stats"]
    responses = {}
    x = convolve(net.images, params["stem_conv"]["kernel"])
    x = normalized(x, params["stem_norm"], stats["stem_norm"])
    responses["stem_conv"] = x
    x = np.maximum(x, 0)
    for stage in (1, 2, 3):
        name = f"stage{stage}_unit1"
        for i, stride in ((1, 1 if stage == 1 else 2), (2, 1)):
            x = convolve(x, params[name][f"conv{i}"]["kernel"], stride)
            x = normalized(x, params[name][f"norm{i}"], stats[name][f"norm{i}"])
            responses[f"{name}.conv{i}"] = x
            x = np.maximum(x, 0)
    return responses


def test_layer_responses_are_taken_after_bn_and_before_relu(plain):
    expected = {name: x.std() for name, x in by_hand(plain).items()}
    responses = layer_responses(plain)
    assert list(responses) == list(expected)
    assert responses == pytest.approx(expected, rel=1e-4)


def test_layer_responses_without_bn_after_them_are_the_convolutions():
    net = network(ResNet(8, order="full_pre"))
    responses = layer_responses(net)
    convolved = outputs(net, lambda m: isinstance(m, Conv))
    three = {name: x.std() for name, x in convolved.items() if name[-5:] in ("conv1", "conv2")}
    assert len(three) == 6
    del responses["stem_conv"]  # BN follows it
    assert responses == pytest.approx(three, rel=1e-4)


def test_every_family_has_responses_of_its_3x3_layers_alone():
    assert len(layer_responses(network(ResNet(8, shortcut="conv")))) == 7
    assert len(layer_responses(network(DenseNet(10, 4)))) == 4
    assert len(layer_responses(network(ResNet(11, block="bottleneck")))) == 4


def test_norms_over_training_are_read_from_the_log():
    lines = [
        {"step": 5, "split": "train", "kernel_gradient_norms": {"a": 1.0, "b": 2.0, "c": 3.0}},
        {"step": 5, "split": "test"},
        {"step": 9, "split": "train", "kernel_gradient_norms": {"a": 4.0, "b": None, "c": 6.0}},
    ]
    steps, norms = norms_over_training(lines, ["c", "b"])
    assert steps.tolist() == [5, 9]
    np.testing.assert_array_equal(norms, [[3, 2], [6, np.nan]])
    assert norms_over_training(lines[1:2], ["c"])[1].shape == (0, 1)


def test_a_gradient_norm_is_the_slope_along_the_gradient(plain):
    norms = gradient_norms(plain)
    assert set(norms) == {"head", *by_hand(plain)}

    def loss(params):
        variables = {"params": params, "batch_stats": plain.variables["batch_stats"]}
        logits, _ = plain.module.apply(variables, plain.images, train=True, mutable=["batch_stats"])
        one_hot = jax.nn.one_hot(plain.labels, 10)
        return -jnp.mean(jnp.sum(one_hot * jax.nn.log_softmax(logits), -1))

    params = plain.variables["params"]
    gradient = jax.grad(loss)(params)
    direct = np.sqrt(np.sum(np.square(gradient["head"]["kernel"])))
    assert norms["head"] == pytest.approx(direct, rel=1e-3)
    size = 1e-2
    direction = gradient["head"]["kernel"] / direct
    ends = []
    for sign in (1, -1):
        moved = jax.tree.map(lambda x: x, params)
        moved["head"]["kernel"] = params["head"]["kernel"] + sign * size * direction
        ends.append(float(loss(moved)))
    assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(norms["head"], rel=2e-2)


def test_signal_propagation_of_each_unit_and_its_branch():
    net = network(ResNet(8))
    signals = signal_propagation(net)
    assert [s.name for s in signals] == [f"stage{i}_unit1" for i in (1, 2, 3)]
    state = {}

    def note(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.module.name == "stage2_unit1" and context.method_name == "__call__":
            state["out"] = np.asarray(output, float)
        if context.module.path == ("stage2_unit1", "stochastic_depth"):
            state["branch"] = np.asarray(output, float)
        return output

    with nn.intercept_methods(note):
        net.module.apply(net.variables, net.images, train=True, mutable=["batch_stats"])
    out, branch = state["out"].reshape(-1, 32), state["branch"].reshape(-1, 32)
    assert signals[1].variance == pytest.approx(np.mean([out[:, c].var() for c in range(32)]), 1e-4)
    squares = [out[:, c].mean() ** 2 for c in range(32)]
    assert signals[1].squared_mean == pytest.approx(np.mean(squares), rel=1e-4)
    assert signals[1].branch_variance == pytest.approx(branch.var(0).mean(), rel=1e-4)


def test_dense_layers_and_transitions_have_no_branch():
    signals = signal_propagation(untrained(network(DenseNet(10, 4))))
    assert [s.name for s in signals] == [
        "block1_layer1", "transition1", "block2_layer1", "transition2", "block3_layer1",
    ]  # fmt: skip
    assert {s.branch_variance for s in signals} == {None}


@pytest.mark.parametrize("bottleneck", [True, False])
def test_feature_reuse_is_the_mean_absolute_weight_from_each_source(bottleneck):
    model = DenseNet(16 if bottleneck else 10, 3, bottleneck=bottleneck)
    net = network(model)
    blocks = feature_reuse(net)
    assert [b.shape for b in blocks] == [(3, 3)] * 3
    params = net.variables["params"]
    first = "conv1" if bottleneck else "conv2"
    stem = params["stem_conv"]["kernel"].shape[-1]
    second = np.abs(np.asarray(params["block1_layer2"][first]["kernel"]))
    assert blocks[0][0, 1] == pytest.approx(second[:, :, :stem].mean())
    assert blocks[0][1, 1] == pytest.approx(second[:, :, stem : stem + 3].mean())
    after = np.abs(np.asarray(params["transition1"]["conv"]["kernel"]))
    assert blocks[0][2, 2] == pytest.approx(after[:, :, stem + 3 :].mean())
    head = np.abs(np.asarray(params["head"]["kernel"]))
    assert blocks[2][2, 2] == pytest.approx(head[-3:].mean())
    assert blocks[2][0, 2] == pytest.approx(head[:-6].mean())
    for block in blocks:
        assert np.array_equal(np.isnan(block), np.tril(np.ones((3, 3)), -1).astype(bool))
    with pytest.raises(UsageError, match="only dense networks"):
        feature_reuse(network(ResNet(8)))


def test_a_unit_whose_last_scale_and_bias_are_zero_is_dropped_already():
    net = network(ResNet(8), examples=64)
    with_all, without = errors_without_units(net)
    assert list(without) == [f"stage{i}_unit1" for i in (1, 2, 3)]
    logits = net.module.apply(net.variables, net.images, train=False)
    assert with_all == pytest.approx(np.mean(logits.argmax(1) != net.labels))
    for name in without:
        params = jax.tree.map(lambda x: x, net.variables["params"])
        params[name]["norm2"] = jax.tree.map(jnp.zeros_like, params[name]["norm2"])
        silent = {"params": params, "batch_stats": net.variables["batch_stats"]}
        logits = net.module.apply(silent, net.images, train=False)
        assert without[name] == pytest.approx(np.mean(logits.argmax(1) != net.labels))


def test_dropping_a_unit_of_a_plain_net_leaves_one_guess_for_all(plain):
    _, without = errors_without_units(plain)
    bias = int(np.argmax(plain.variables["params"]["head"]["bias"]))
    assert without["stage3_unit1"] == pytest.approx(np.mean(plain.labels != bias))


def test_gates_are_the_sigmoid_of_their_convolution():
    net = network(ResNet(8, shortcut="exclusive_gating", gate_bias=-1.0))
    gates = gate_values(net)
    assert [g.name for g in gates] == [f"stage{i}_unit1" for i in (1, 2, 3)]
    params, stats = net.variables["params"], net.variables["batch_stats"]
    x = convolve(net.images, params["stem_conv"]["kernel"])
    x = np.maximum(normalized(x, params["stem_norm"], stats["stem_norm"]), 0)
    gate = params["stage1_unit1"]["shortcut"]["gate"]
    values = 1 / (1 + np.exp(-(convolve(x, gate["kernel"]) + np.asarray(gate["bias"]))))
    ordered = np.sort(values.ravel())
    assert gates[0].mean == pytest.approx(values.mean(), rel=1e-4)
    assert gates[0].low == pytest.approx(ordered[round(0.1 * (len(ordered) - 1))], rel=1e-2)
    assert gates[0].high == pytest.approx(ordered[round(0.9 * (len(ordered) - 1))], rel=1e-2)
    assert gate_values(network(ResNet(8))) == []


def test_the_first_layer(plain):
    kernel = np.asarray(plain.variables["params"]["stem_conv"]["kernel"])
    stretched = filters(plain)
    assert stretched.shape == (16, 3, 3, 1)
    assert stretched.min() == 0
    assert stretched.max() == 1
    assert np.array_equal(np.argsort(stretched[5].ravel()), np.argsort(kernel[..., 5].ravel()))
    maps = feature_maps(plain, 2)
    expected = convolve(plain.images, kernel)[2]
    assert np.allclose(maps, np.moveaxis(expected, -1, 0), atol=1e-4)


def test_confusion_and_the_surest_mistakes():
    rng = np.random.default_rng(1)
    guessed, labels = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    counts = confusion(labels, guessed)
    for true in range(4):
        for guess in range(4):
            pairs = zip(labels, guessed, strict=True)
            count = sum(1 for label, p in pairs if label == true and max(p) == p[guess])
            assert counts[true, guess] == count
    mistakes = surest_mistakes(labels, guessed, 5)
    wrong = [
        (max(p), i)
        for i, (label, p) in enumerate(zip(labels, guessed, strict=True))
        if list(p).index(max(p)) != label
    ]
    expected = sorted(wrong, key=lambda pair: -pair[0])[:5]
    assert [m.picture for m in mistakes] == [i for _, i in expected]
    assert [m.confidence for m in mistakes] == pytest.approx([p for p, _ in expected])
    assert all(m.guess != m.label == labels[m.picture] for m in mistakes)


def test_probabilities_are_the_networks(plain):
    logits = np.asarray(plain.module.apply(plain.variables, plain.images, train=False), float)
    for row, of_picture in zip(logits, probabilities(plain), strict=True):
        exponentials = [math.exp(x - row.max()) for x in row]
        expected = [x / sum(exponentials) for x in exponentials]
        assert of_picture == pytest.approx(expected, abs=1e-4)


def test_an_untrained_network_is_what_training_draws():
    net = network(ResNet(8))
    other = dataclasses.replace(net.experiment, seed=7)
    drawn = untrained(dataclasses.replace(net, experiment=other))
    normalization = Normalization(jnp.zeros(1), jnp.ones(1))
    state = initial_state(net.module, optax.sgd(0.1), normalization, (8, 8, 1), 7)
    same = jax.tree.map(np.allclose, drawn.variables["params"], state.params)
    assert jax.tree.all(same)
    assert drawn.step == 0
