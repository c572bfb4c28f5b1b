"""One step on one device, on eight, by pmap and by shard_map: the same training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resflax import SGD, DenseNet, Digits, ResNet, StepDecay, UsageError
from resflax.data.in_memory import Split
from resflax.data.normalization import fit_normalization
from resflax.devices.parallel import AXIS, Devices
from resflax.feeding.batch import gather_resident
from resflax.feeding.resident import ResidentEvaluationFeed, evaluation_batches, to_devices
from resflax.models import build
from resflax.models.stacking import unstack
from resflax.training.many_steps import gathered
from resflax.training.measurement import evaluation_step, measure_split
from resflax.training.objective import Objective
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import initial_state, params_sha256
from resflax.training.step import train_step

SHAPE = (8, 8, 1)
BATCH = 32
DATA = Digits(crop_padding=1, flip=True)
RESNET = ResNet(8)
DENSENET = DenseNet(10, 4, dropout_rate=0.2)


def random_split(count=100, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Split(images, rng.integers(0, 10, count).astype(np.int32))


def resident_step(devices, objective, optimizer):
    """The training step of an objective, given indices into a split on the devices."""
    step = gathered(train_step(objective, optimizer), gather_resident)
    return devices.parallelize(step, donate_state=True)


def steps(model, parallel, count, *, synchronized, number=3, nesterov=True):
    """The state and the losses after a few steps."""
    split = random_split()
    devices = Devices(parallel, jax.devices()[:count])
    optimizer = make_optimizer(
        SGD(nesterov=nesterov), learning_rate(StepDecay(boundaries=(2,)), 0.1, number)
    )
    module = build(model, 10, axis_name=AXIS, synchronized=synchronized)
    normalization = fit_normalization(split.images, DATA)
    state = devices.replicate(
        initial_state(build(model, 10), optimizer, normalization, SHAPE, seed=0)
    )
    resident = to_devices(devices, split)
    step = resident_step(devices, Objective(module, DATA), optimizer)
    losses = []
    for index in range(number):
        indices = np.arange(index * BATCH, (index + 1) * BATCH, dtype=np.int32)
        state, loss = step(state, resident, devices.shard(indices))
        losses.append(float(loss))
    return jax.device_get(state), losses


def assert_close(one, other, tolerance):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(("count", "synchronized"), [(1, False), (8, False), (8, True)])
def test_pmap_and_shard_map_agree_to_the_bit(count, synchronized):
    one, losses = steps(RESNET, "pmap", count, synchronized=synchronized)
    other, other_losses = steps(RESNET, "shard_map", count, synchronized=synchronized)
    assert losses == other_losses
    assert params_sha256(one.params) == params_sha256(other.params)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("model", [RESNET, DENSENET], ids=["resnet", "densenet with dropout"])
def test_eight_devices_with_synchronized_batch_norm_are_one_device(model):
    one, losses = steps(model, "shard_map", 1, synchronized=True)
    eight, eight_losses = steps(model, "shard_map", 8, synchronized=True)
    np.testing.assert_allclose(losses, eight_losses, rtol=1e-5)
    assert_close(one.params, eight.params, 2e-5)
    assert_close(one.batch_stats, eight.batch_stats, 2e-5)
    assert one.totals.wrong == eight.totals.wrong


def test_eight_devices_with_their_own_batch_norm_are_not_one_device():
    one, _ = steps(RESNET, "pmap", 1, synchronized=False)
    eight, _ = steps(RESNET, "pmap", 8, synchronized=False)
    apart = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), one.params, eight.params)
    assert max(jax.tree.leaves(apart)) > 1e-3


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_gradients_are_the_mean_over_devices_not_their_sum(parallel):
    """One SGD step by hand: plain jax.grad over the whole batch, no device axis anywhere.

    `shard_map` with its default `check_vma=True` fails this by a factor of 8.
    """
    split, data = random_split(), Digits(crop_padding=0)
    module = build(RESNET, 10)
    normalization = fit_normalization(split.images, data)
    optimizer = optax.sgd(0.1)
    state = jax.jit(lambda: initial_state(module, optimizer, normalization, SHAPE, seed=0))()
    images = (split.images[:BATCH].astype(np.float32) - normalization.mean) * normalization.scale
    labels = split.labels[:BATCH]

    def loss_of(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = module.apply(variables, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])

    by_hand = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, jax.grad(loss_of)(state.params))

    moved = jax.device_get(jax.tree.map(lambda p, q: (p - q) / 0.1, state.params, by_hand))

    devices = Devices(parallel, jax.devices()[:8])
    synchronized = build(RESNET, 10, axis_name=AXIS, synchronized=True)
    step = resident_step(devices, Objective(synchronized, data), optimizer)
    indices = devices.shard(np.arange(BATCH, dtype=np.int32))
    stepped, _ = step(devices.replicate(state), to_devices(devices, split), indices)
    assert_close(jax.device_get(stepped.params), by_hand, 2e-6)
    norms = flatten_dict(unstack(stepped.totals.kernel_gradient_norms))
    kernels = {p[:-1]: g for p, g in flatten_dict(unstack(moved)).items() if p[-1] == "kernel"}
    assert norms.keys() == kernels.keys()
    for path, kernel in kernels.items():
        np.testing.assert_allclose(norms[path], np.linalg.norm(kernel), rtol=1e-3)


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_evaluation_counts_every_example_once_on_any_batch_and_devices(parallel):
    split = random_split(53)
    module = build(RESNET, 10, axis_name=AXIS)
    normalization = fit_normalization(split.images, DATA)
    state = initial_state(build(RESNET, 10), optax.sgd(0.1), normalization, SHAPE, seed=0)

    images = (split.images.astype(np.float32) - normalization.mean) * normalization.scale
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(build(RESNET, 10).apply(variables, images, train=False), np.float64)
    logits -= logits.max(1, keepdims=True)
    chosen = (np.arange(53), split.labels)
    loss = np.mean(np.log(np.exp(logits).sum(1)) - logits[chosen])
    better = (logits > logits[chosen][:, None]).sum(1)

    step = evaluation_step(module)

    def evaluate(state, resident, given):
        indices, weights = given
        return step(state, gather_resident(resident, indices), weights)

    for count, batch_size in ((1, 53), (1, 8), (8, 16), (8, 64)):
        devices = Devices(parallel, jax.devices()[:count])
        means = measure_split(
            devices.parallelize(evaluate, donate_state=False),
            devices.replicate(state),
            ResidentEvaluationFeed(devices, split),
            batch_size,
        )
        assert means is not None
        assert means.examples == 53
        assert means.top1_error == np.mean(better >= 1)
        assert means.top5_error == np.mean(better >= 5)
        np.testing.assert_allclose(means.loss, loss, rtol=1e-5)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do():
    with pytest.raises(UsageError, match=r"batch_size is 100; .* multiple of the 8 .* 96 or 104"):
        Devices("pmap", jax.devices()[:8]).check_batch_size(100)
    assert len(evaluation_batches(53, 16)) == 4
