"""What makes a recipe, against formulas and loops written out, and PyTorch's losses."""

import io
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from rich.console import Console
from whole_runs import ROOT, assert_same, result

from resflax import (
    LAMB,
    LARS,
    SGD,
    AdamW,
    Augmentation,
    Cosine,
    Digits,
    Experiment,
    ImageNet,
    ResNet,
    UsageError,
)
from resflax.command_line import load_experiment
from resflax.data.augmentation import fit_normalization, normalize
from resflax.data.feed import Order
from resflax.declarations.data import TFDS
from resflax.declarations.optimization import Optimizer
from resflax.errors import Interrupted
from resflax.models import build
from resflax.models.stacking import stack, unstack
from resflax.training import environment, loop, plan, session
from resflax.training.checkpoints import Checkpoints
from resflax.training.devices import Devices
from resflax.training.optimizer import learning_rate, make_optimizer
from resflax.training.precise import precise, statistics_step
from resflax.training.recipe import Recipe, losses_of
from resflax.training.run_folder import RunFolder
from resflax.training.state import begin_average, initial_state, params_sha256
from resflax.training.step import AXIS, Examples, micro_batches, train_step

SHAPE = (8, 8, 3)
BATCH = 32
DATA = TFDS("x")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3 * BATCH, *SHAPE), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 3 * BATCH).astype(np.int32)
NORMALIZATION = fit_normalization(IMAGES, DATA)


def started(module, optimizer):
    """The state before the first step of a module that is to be trained with moving averages."""
    draw = jax.jit(lambda: initial_state(module, optimizer, NORMALIZATION, SHAPE, 0))
    return begin_average(draw())


def trained(module, optimizer, state, recipe, devices=1, steps=3):
    """The state and the losses after a few steps."""
    chosen = Devices("shard_map", jax.devices()[:devices])
    step = chosen.parallelize(train_step(module, optimizer, DATA, recipe), donate_state=False)
    state, examples = chosen.replicate((state, Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))))
    losses = []
    for number in range(steps):
        batch = np.arange(number * BATCH, (number + 1) * BATCH, dtype=np.int32)
        state, loss = step(state, examples, batch)
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
        recipe = Recipe(Augmentation(**augmentation), loss)
        return losses_of(jnp.asarray(logits), jnp.asarray(labels), weight, recipe)

    def binary(targets):
        found = functional.binary_cross_entropy_with_logits(there, targets, reduction="none")
        return found.mean(-1)

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
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=2e-5)


# --- Optimizers


PARAMS = {
    "stem_conv": {"kernel": (3, 3)},
    **{
        f"stage1_unit{n}": {"conv1": {"kernel": (2, 4)}, "norm1": {"scale": (4,), "bias": (4,)}}
        for n in (1, 2, 3)
    },
    "head": {"kernel": (4, 2), "bias": (2,)},
}


def drawn(scale):
    return jax.tree.map(
        lambda shape: RNG.normal(0, scale, shape), PARAMS, is_leaf=lambda x: isinstance(x, tuple)
    )


def decayed(path, without):
    norm = path[-2].startswith("norm")
    return not (norm and without != "none") and not (
        without == "norm_and_bias" and path[-1] == "bias"
    )


def by_hand(declared: Optimizer, path, p, gradients, norms, rates):
    """A parameter array after the optimizer's steps: the formulas of its docstring."""
    decays = decayed(path, declared.no_weight_decay)
    decay = declared.weight_decay if decays else 0.0
    m = v = np.zeros_like(p)
    for t, (g, norm, rate) in enumerate(zip(gradients, norms, rates, strict=True), start=1):
        if isinstance(declared, SGD):
            m = declared.momentum * m + g + decay * p
            p = p - rate * m
            continue
        if isinstance(declared, LARS):
            g = g + decay * p
            ratio = declared.trust_coefficient * np.linalg.norm(p) / np.linalg.norm(g)
            m = declared.momentum * m + rate * g * (ratio if decays else 1)
            p = p - m
            continue
        if isinstance(declared, LAMB) and declared.max_gradient_norm is not None:
            g = g / max(1, norm / declared.max_gradient_norm)
        m = declared.b1 * m + (1 - declared.b1) * g
        v = declared.b2 * v + (1 - declared.b2) * g**2
        u = (m / (1 - declared.b1**t)) / (np.sqrt(v / (1 - declared.b2**t)) + declared.epsilon)
        u = u + decay * p
        if isinstance(declared, LAMB) and decays:
            u = u * np.linalg.norm(p) / np.linalg.norm(u)
        p = p - rate * u
    return p


@pytest.mark.parametrize(
    "declared",
    [
        SGD(momentum=0.9, weight_decay=0.1, no_weight_decay="norm"),
        SGD(momentum=0.9, weight_decay=0.1, no_weight_decay="norm_and_bias"),
        LARS(learning_rate=0.5, weight_decay=0.1, trust_coefficient=0.01),
        LARS(learning_rate=0.5, weight_decay=0.1, no_weight_decay="none"),
        AdamW(weight_decay=0.1),
        AdamW(weight_decay=0.0, b1=0.5, b2=0.9, epsilon=1e-3),
        LAMB(learning_rate=0.05, weight_decay=0.1),
        LAMB(learning_rate=0.05, max_gradient_norm=None, no_weight_decay="norm"),
    ],
    ids=lambda declared: f"{type(declared).__name__} {declared.no_weight_decay}",
)
def test_optimizers_are_their_formulas_layer_by_layer(declared: Optimizer):
    start, gradients, rates = drawn(1.0), [drawn(0.5) for _ in range(3)], [0.01, 0.1, 0.1]
    optimizer = make_optimizer(declared, lambda step: jnp.asarray(rates)[step])
    # As a run holds them: units 2 and 3 are one array, and still two layers.
    single = jax.tree.map(jnp.float32, start)
    params = stack(single)
    assert "stage1_units" in params
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(stack(jax.tree.map(jnp.float32, gradient)), state, params)
        params = optax.apply_updates(params, updates)
    found = flatten_dict(unstack(params))
    norms = [float(optax.tree.norm(gradient)) for gradient in gradients]
    assert min(norms) > 1  # so that LAMB has something to clip
    for path, p in flatten_dict(start).items():
        own = [flatten_dict(gradient)[path] for gradient in gradients]
        expected = by_hand(declared, path, p, own, norms, rates)
        np.testing.assert_allclose(found[path], expected, rtol=2e-5, atol=1e-6, err_msg=str(path))


# --- Gradient accumulation and moving averages


class Linear(nn.Module):
    """A classifier without batch norm that has batch statistics all the same."""

    @nn.compact
    def __call__(self, images, *, train):
        mean = self.variable("batch_stats", "mean", jnp.zeros, (), jnp.float32)
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * jnp.mean(images)
        return nn.Dense(10)(images.reshape(len(images), -1))


def test_accumulated_gradients_are_those_of_the_whole_batch():
    optimizer = optax.sgd(0.1, 0.9)
    state = started(Linear(), optimizer)
    whole, losses = trained(Linear(), optimizer, state, Recipe())
    parts, part_losses = trained(Linear(), optimizer, state, Recipe(gradient_accumulation=4))
    np.testing.assert_allclose(losses, part_losses, rtol=1e-5)
    assert_close(whole.params, parts.params, 1e-5)
    assert whole.totals.wrong == parts.totals.wrong


def test_micro_batches_normalise_by_themselves_and_averages_follow():
    net, optimizer, decay = build(ResNet(8), 10), optax.sgd(0.1), 0.7
    state = started(net, optimizer)
    training = build(ResNet(8), 10, for_training=True)
    recipe = Recipe(gradient_accumulation=2, ema_decay=decay)
    found, _ = trained(training, optimizer, state, recipe, steps=2)

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
    assert_close(unstack(found.params), params, 1e-5)
    assert_close(unstack(found.batch_stats), statistics, 1e-5)
    assert_close({name: unstack(tree) for name, tree in found.average.items()}, average, 1e-5)
    assert found.evaluated() is found.average


def test_a_micro_batch_is_the_same_on_any_number_of_devices():
    batch = np.arange(24)
    for devices in (1, 2, 4):
        shares = np.split(batch, devices)
        dealt = [np.asarray(micro_batches(jnp.asarray(share), 3)) for share in shares]
        joined = np.concatenate(dealt, axis=1)
        assert np.array_equal(joined, np.asarray(micro_batches(jnp.asarray(batch), 3)))


EVERYTHING = Recipe(
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
    ema_decay=0.5,
)


def test_one_two_and_eight_devices_train_the_same():
    net, optimizer = Linear(), make_optimizer(SGD(), lambda step: jnp.float32(0.05))
    state = started(net, optimizer)
    one, losses = trained(net, optimizer, state, EVERYTHING, devices=1, steps=2)
    assert not np.allclose(losses[0], np.log(2), atol=1e-4)
    for devices in (2, 8):
        other, other_losses = trained(net, optimizer, state, EVERYTHING, devices, steps=2)
        # Other programs round a pixel of a policy's picture to the other side now and then.
        np.testing.assert_allclose(other_losses, losses, rtol=5e-4)
        assert_close(other.params, one.params, 5e-4)
        assert_close(other.average, one.average, 5e-4)
        assert other.totals.wrong == one.totals.wrong


def test_a_failed_step_leaves_the_averages():
    optimizer = optax.sgd(0.1)
    state = started(Linear(), optimizer)
    broken = state.replace(params=jax.tree.map(lambda p: p * jnp.inf, state.params))
    found, losses = trained(Linear(), optimizer, broken, Recipe(ema_decay=0.5), steps=1)
    assert np.isnan(losses[0])
    assert found.failed
    assert_close(found.average, state.average, 0)


def test_a_batch_that_cannot_be_split_is_refused_with_the_factors():
    devices = Devices("pmap", jax.devices()[:2])
    devices.check_batch_size(24, 3, pairs=True)
    said = r"batch_size is 18; .* 2 devices x 3 micro-batches x 2 pictures.* \(such as 12 or 24\)"
    with pytest.raises(UsageError, match=said):
        devices.check_batch_size(18, 3, pairs=True)


# --- Precise batch norm


@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (2, 2)])
def test_precise_statistics_are_those_of_all_activations(devices, parts):
    chosen = Devices("shard_map", jax.devices()[:devices])
    net = build(ResNet(8), 10, axis_name=AXIS, synchronized=True, for_training=True)
    recipe = Recipe(gradient_accumulation=parts)
    state = started(build(ResNet(8), 10), optax.sgd(0.1)).replace(average={})
    examples = Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))
    state, examples = chosen.replicate((state, examples))
    step = chosen.parallelize(statistics_step(net, DATA, recipe), donate_state=False)
    batches = np.split(np.arange(3 * BATCH, dtype=np.int32), 3)
    found = precise(step, state, chosen, examples, batches, lambda: False)
    assert found is not None
    assert params_sha256(found.params) == params_sha256(state.params)
    # What the stem gives does not depend on any batch norm.
    kernel = state.params["stem_conv"]["kernel"]
    images = normalize(jnp.asarray(IMAGES), NORMALIZATION)
    maps = np.asarray(
        jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    stem = found.batch_stats["stem_norm"]
    np.testing.assert_allclose(stem["mean"], maps.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stem["var"], maps.var((0, 1, 2)), rtol=2e-3)
    assert precise(step, state, chosen, examples, batches, lambda: True) is None


# --- Whole runs


@pytest.fixture
def train(monkeypatch):
    """Trains on a device of this process."""
    monkeypatch.setattr(environment, "source_changes", lambda: "")
    monkeypatch.setattr(plan, "Devices", lambda kind: Devices(kind, jax.devices()[:1]))

    def train(experiment, folder):
        said = io.StringIO()
        session.train(experiment, RunFolder(folder), Console(file=said, width=200))
        return said.getvalue()

    return train


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

    interrupted(loop.Run, "save")  # at step 4
    interrupted(loop, "precise")  # saved at the last step, and with running averages still
    train(experiment, disturbed.path)
    assert_same(disturbed.path, undisturbed.path)
    one, other = (
        Checkpoints(run.checkpoints).restore_arrays(9) for run in (undisturbed, disturbed)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    # What is evaluated, started from and exported are the averages.
    assert params_sha256(one["params"]) == result(undisturbed.path)["params_sha256"]
    jax.tree.map(np.testing.assert_array_equal, one["params"], unstack(one["average"]["params"]))


# --- Experiment files

# For each file the steps of its training and, by step, the learning rate that its source has.
TENTHS = (450_411, {0: 0.1, 150_136: 0.1, 150_137: 0.01, 300_274: 0.001, 450_410: 0.001})
RECIPES = {
    "he2015_resnet50": (
        600_000,
        {0: 0.1, 149_999: 0.1, 150_000: 0.01, 300_000: 1e-3, 450_000: 1e-4, 599_999: 1e-4},
    ),
    "fb_resnet_torch_resnet50": TENTHS,
    "goyal2017_resnet50": (
        14_076,
        {0: 0.1, 391: 1.65, 782: 3.2, 4_691: 3.2, 4_692: 0.32, 9_384: 0.032, 12_512: 0.0032},
    ),
    "huang2017_densenet121": TENTHS,
    "torchvision_v1_resnet50": TENTHS,
    "wightman2021_a2_resnet50": (187_671, {0: 0.0, 1_564: 2.5e-3, 3_128: 5e-3, 95_400: 2.5e-3}),
    "wightman2021_a3_resnet50": (62_557, {0: 0.0, 1_564: 4e-3, 3_128: 8e-3, 32_842: 4e-3}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_their_sources_steps_and_learning_rates(name):
    steps, marks = RECIPES[name]
    experiment = load_experiment(ROOT / "experiments" / "imagenet" / f"{name}.py")
    order = Order(1_281_167, experiment.batch_size, 0)  # pictures of ImageNet's training split
    assert steps == (experiment.steps or order.steps(experiment.epochs or 0))
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, steps)
    found = [float(rate(jnp.int32(step))) for step in marks]
    np.testing.assert_allclose(found, list(marks.values()), rtol=2e-4)
    experiment.augmentation.check_channels(3)
    assert isinstance(experiment.data, ImageNet)


def test_every_recipe_is_compared():
    files = {path.stem for path in (ROOT / "experiments" / "imagenet").glob("*.py")}
    assert files == RECIPES.keys()
    load_experiment(ROOT / "experiments" / "modern_digits.py").augmentation.check_channels(1)
