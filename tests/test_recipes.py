"""Losses, micro-batches, moving averages and precise batch norm, against loops written out."""

import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from whole_runs import assert_same, result

from resflax import LAMB, SGD, Augmentation, Cosine, Digits, Experiment, ResNet, UsageError
from resflax.data.normalization import fit_normalization, normalize
from resflax.declarations.data import TFDS
from resflax.devices.parallel import AXIS, Devices
from resflax.errors import Interrupted
from resflax.feeding.batch import Batch, ResidentSplit, gather_resident
from resflax.models import build
from resflax.models.stacking import unstack
from resflax.runs import loop
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.training.batch_statistics import statistics_step, with_measured_statistics
from resflax.training.many_steps import gathered
from resflax.training.objective import Objective, example_losses, split_micro_batches
from resflax.training.optimizer import make_optimizer
from resflax.training.state import begin_average, initial_state, params_sha256
from resflax.training.step import train_step

SHAPE = (8, 8, 3)
BATCH = 32
DATA = TFDS("x")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3 * BATCH, *SHAPE), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 3 * BATCH).astype(np.int32)
NORMALIZATION = fit_normalization(IMAGES, DATA)


class Linear(nn.Module):
    """A classifier without batch norm that has batch statistics all the same."""

    @nn.compact
    def __call__(self, images, *, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, (), jnp.float32)
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * jnp.mean(images)
        return nn.Dense(10)(images.reshape(len(images), -1))


def started(module, optimizer):
    """The state before the first step of a module that is to be trained with moving averages."""
    draw = jax.jit(lambda: initial_state(module, optimizer, NORMALIZATION, SHAPE, 0))
    return begin_average(draw())


def trained(objective, optimizer, state, ema_decay=None, devices=1, steps=3):
    """The state and the losses after a few steps."""
    chosen = Devices("shard_map", jax.devices()[:devices])
    step = gathered(train_step(objective, optimizer, ema_decay), gather_resident)
    run = chosen.parallelize(step, donate_state=False)
    state, split = chosen.replicate(
        (state, ResidentSplit(jnp.asarray(IMAGES), jnp.asarray(LABELS)))
    )
    losses = []
    for number in range(steps):
        indices = np.arange(number * BATCH, (number + 1) * BATCH, dtype=np.int32)
        state, loss = run(state, split, chosen.shard(indices))
        losses.append(float(loss))
    return jax.device_get(state), losses


def assert_close(one, other, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), one, other)


# --- Losses
def test_losses_are_pytorchs():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    logits = RNG.normal(0, 3, (6, 10)).astype(np.float32)
    labels = np.array([0, 3, 9, 3, 1, 1])
    there, targets = torch.tensor(logits), functional.one_hot(torch.tensor(labels), 10).float()
    smoothed = targets * 0.9 + 0.01
    mixed = 0.7 * targets + 0.3 * targets[[1, 0, 3, 2, 5, 4]]

    def ours(loss, weight=None, **augmentation):
        objective = Objective(Linear(), DATA, Augmentation(**augmentation), loss)
        return example_losses(objective, jnp.asarray(logits), jnp.asarray(labels), weight)

    def binary(targets):
        losses = functional.binary_cross_entropy_with_logits(there, targets, reduction="none")
        return losses.mean(-1)

    def cross(targets):
        return functional.cross_entropy(there, targets, reduction="none")

    weight = jnp.float32(0.7)
    pairs = [
        (ours("cross_entropy"), cross(torch.tensor(labels))),
        (ours("cross_entropy", label_smoothing=0.1), cross(smoothed)),
        (ours("cross_entropy", weight, mixup=1.0), cross(mixed)),
        (ours("binary_cross_entropy"), binary(targets)),
        (ours("binary_cross_entropy", label_smoothing=0.1), binary(smoothed)),
        (
            ours("binary_cross_entropy", weight, mixup=1.0, target_threshold=0.2),
            binary((mixed > 0.2).float()),
        ),
    ]
    for losses, expected in pairs:
        np.testing.assert_allclose(losses, expected, rtol=2e-5)


# --- Gradient accumulation and moving averages


def test_accumulated_gradients_are_those_of_the_whole_batch():
    optimizer = optax.sgd(0.1, 0.9)
    state = started(Linear(), optimizer)
    whole, losses = trained(Objective(Linear(), DATA), optimizer, state)
    accumulating = Objective(Linear(), DATA, gradient_accumulation=4)
    parts, part_losses = trained(accumulating, optimizer, state)
    np.testing.assert_allclose(losses, part_losses, rtol=1e-5)
    assert_close(whole.params, parts.params, 1e-5)
    assert whole.totals.wrong == parts.totals.wrong


def test_the_mean_gradient_is_clipped_and_its_norm_before_that_is_logged():
    def optimizer(limit):
        declared = SGD(momentum=0.0, weight_decay=0.0, max_gradient_norm=limit)
        return make_optimizer(declared, lambda step: jnp.float32(0.1))

    unlimited = optimizer(None)
    state = started(Linear(), unlimited)
    free, _ = trained(Objective(Linear(), DATA), unlimited, state, steps=1)
    gradient = jax.tree.map(lambda old, new: (old - new) / 0.1, state.params, free.params)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    limit = float(norm) / 3
    expected = jax.tree.map(lambda p, g: p - 0.1 * g / 3, state.params, gradient)
    for parts, devices in ((1, 1), (4, 2)):
        objective = Objective(Linear(), DATA, gradient_accumulation=parts)
        limited = optimizer(limit)
        begun = state.replace(opt_state=limited.init(state.params))
        clipped, _ = trained(objective, limited, begun, devices=devices, steps=1)
        assert_close(clipped.params, expected, 1e-6)
        np.testing.assert_allclose(clipped.totals.gradient_norm, norm, rtol=1e-4)


def test_micro_batches_normalise_by_themselves_and_averages_follow():
    net, optimizer, decay = build(ResNet(8), 10), optax.sgd(0.1), 0.7
    state = started(net, optimizer)
    training = build(ResNet(8), 10, for_training=True)
    objective = Objective(training, DATA, gradient_accumulation=2)
    stepped, _ = trained(objective, optimizer, state, decay, steps=2)

    @jax.jit
    def learn(params, statistics, images, labels):
        def loss(params):
            variables = {"params": params, "batch_stats": statistics}
            logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"])
            rows = jnp.arange(len(labels))
            return -jnp.mean(jax.nn.log_softmax(logits)[rows, labels]), updates["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    params, statistics = unstack(state.params), unstack(state.batch_stats)
    average = {"params": params, "batch_stats": statistics}
    for step in range(2):
        gradients = []
        for part in range(2):
            chosen = slice(step * BATCH + part, (step + 1) * BATCH, 2)
            images = normalize(jnp.asarray(IMAGES[chosen]), NORMALIZATION)
            gradient, statistics = learn(params, statistics, images, LABELS[chosen])
            gradients.append(gradient)
        params = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b) / 2, params, *gradients)
        new = {"params": params, "batch_stats": statistics}
        average = jax.tree.map(lambda a, n: decay * a + (1 - decay) * n, average, new)
    assert_close(unstack(stepped.params), params, 1e-5)
    assert_close(unstack(stepped.batch_stats), statistics, 1e-5)
    assert_close({name: unstack(tree) for name, tree in stepped.average.items()}, average, 1e-5)
    assert stepped.evaluated() is stepped.average


def test_a_micro_batch_is_the_same_on_any_number_of_devices():
    labels = np.arange(24)

    def micro_batches(share):
        return np.asarray(split_micro_batches(Batch(share[:, None], share), 3).labels)

    for devices in (1, 2, 4):
        of_devices = [micro_batches(share) for share in np.split(labels, devices)]
        assert np.array_equal(np.concatenate(of_devices, axis=1), micro_batches(labels))


EVERYTHING = Objective(
    Linear(),
    DATA,
    Augmentation(
        policy="rand_augment",
        policy_layers=1,
        policy_magnitude_std=1.0,
        random_erasing=0.5,
        mixup=0.3,
        cutmix=1.0,
        label_smoothing=0.1,
    ),
    "binary_cross_entropy",
    gradient_accumulation=2,
)


def test_one_two_and_eight_devices_train_the_same():
    optimizer = make_optimizer(SGD(), lambda step: jnp.float32(0.05))
    state = started(Linear(), optimizer)
    one, losses = trained(EVERYTHING, optimizer, state, 0.5, devices=1, steps=2)
    assert not np.allclose(losses[0], np.log(2), atol=1e-4)
    for devices in (2, 8):
        other, other_losses = trained(EVERYTHING, optimizer, state, 0.5, devices, steps=2)
        # Other programs sometimes round a pixel of a policy's picture to the other side.
        np.testing.assert_allclose(other_losses, losses, rtol=5e-4)
        assert_close(other.params, one.params, 5e-4)
        assert_close(other.average, one.average, 5e-4)
        assert other.totals.wrong == one.totals.wrong


def test_a_failed_step_leaves_the_averages():
    optimizer = optax.sgd(0.1)
    state = started(Linear(), optimizer)
    broken = state.replace(params=jax.tree.map(lambda p: p * jnp.inf, state.params))
    stepped, losses = trained(Objective(Linear(), DATA), optimizer, broken, 0.5, steps=1)
    assert np.isnan(losses[0])
    assert stepped.failed
    assert_close(stepped.average, state.average, 0)


def test_a_batch_that_cannot_be_split_is_refused_with_the_factors():
    devices = Devices("pmap", jax.devices()[:2])
    devices.check_batch_size(24, 3, in_pairs=True)
    said = r"batch_size is 18; .* 2 devices x 3 micro-batches x 2 pictures.* \(such as 12 or 24\)"
    with pytest.raises(UsageError, match=said):
        devices.check_batch_size(18, 3, in_pairs=True)


# --- Precise batch norm


@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (2, 2)])
def test_precise_statistics_are_those_of_all_activations(devices, parts):
    chosen = Devices("shard_map", jax.devices()[:devices])
    net = build(ResNet(8), 10, axis_name=AXIS, synchronized=True, for_training=True)
    objective = Objective(net, DATA, gradient_accumulation=parts)
    state = started(build(ResNet(8), 10), optax.sgd(0.1)).replace(average={})
    state, split = chosen.replicate(
        (state, ResidentSplit(jnp.asarray(IMAGES), jnp.asarray(LABELS)))
    )
    step = statistics_step(objective)
    run = chosen.parallelize(
        lambda state, split, indices: step(state, gather_resident(split, indices)),
        donate_state=False,
    )
    batches = [chosen.shard(part) for part in np.split(np.arange(3 * BATCH, dtype=np.int32), 3)]
    measured = with_measured_statistics(run, state, chosen, split, batches, lambda: False)
    assert measured is not None
    assert params_sha256(measured.params) == params_sha256(state.params)
    # What the stem gives does not depend on any batch norm.
    kernel = state.params["stem_conv"]["kernel"]
    images = normalize(jnp.asarray(IMAGES), NORMALIZATION)
    maps = np.asarray(
        jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    stem = measured.batch_stats["stem_norm"]
    np.testing.assert_allclose(stem["mean"], maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stem["var"], maps.var((0, 1, 2)), rtol=2e-3)
    stopped = with_measured_statistics(run, state, chosen, split, batches, lambda: True)
    assert stopped is None


# --- Whole runs


def test_an_interrupted_run_of_every_part_ends_the_same(train, tmp_path, monkeypatch):
    experiment = Experiment(
        name="modern",
        model=ResNet(8),
        data=Digits(),
        batch_size=64,
        steps=9,
        augmentation=Augmentation(random_erasing=0.5, label_smoothing=0.1),
        loss="binary_cross_entropy",
        optimizer=LAMB(learning_rate=5e-3),
        schedule=Cosine(),
        gradient_accumulation=2,
        ema_decay=0.6,
        precise_batch_norm=2,
        log_every=3,
        checkpoint_every=4,
    )
    undisturbed, disturbed = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "disturbed")
    train(experiment, undisturbed.path)

    def interrupted(owner, name):
        """A session that gets a signal when a function is called for the first time."""
        whole = getattr(owner, name)

        def call(*arguments, **options):
            signal.raise_signal(signal.SIGTERM)
            return whole(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, call)
            with pytest.raises(Interrupted, match="stopped at step"):
                train(experiment, disturbed.path)

    interrupted(loop.TrainingLoop, "save")  # at step 4
    # At the last step, so that it is saved with running averages still.
    interrupted(loop, "with_measured_statistics")
    train(experiment, disturbed.path)
    assert_same(disturbed.path, undisturbed.path)
    one, other = (
        Checkpoints(run.checkpoints).restore_arrays(9) for run in (undisturbed, disturbed)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    # What is evaluated, started from and exported are the averages.
    assert params_sha256(one["params"]) == result(undisturbed.path)["params_sha256"]
    jax.tree.map(np.testing.assert_array_equal, one["params"], unstack(one["average"]["params"]))
