"""The form of networks that runs train: the same numbers, compiled once, kept small."""

import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from rich.console import Console

from resflax import SGD, DenseNet, Digits, Experiment, ResNet, StepDecay
from resflax.data.normalization import fit_normalization
from resflax.declarations.models import Model
from resflax.devices import compilation
from resflax.devices.compilation import compile_for
from resflax.devices.parallel import AXIS, Devices
from resflax.feeding.batch import ResidentSplit, gather_resident
from resflax.kernels import library
from resflax.models import build, residual
from resflax.models.convolution import convolve
from resflax.models.layers import relu, scale_and_shift
from resflax.models.stacking import stack, unstack
from resflax.runs.log import RunLog
from resflax.runs.run_folder import RunFolder
from resflax.runs.session import train
from resflax.training.many_steps import gathered, many_steps
from resflax.training.objective import Objective
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import initial_state, params_sha256
from resflax.training.step import train_step

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.array(RANDOM.normal(size=shape), jnp.float32)


def assert_close(one, other, tolerance=1e-5):
    def check(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1e-3, float(np.abs(b).max())))

    jax.tree.map(check, one, other)


# --- primitives ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    outputs=st.sampled_from([2, 6, 20]),  # each is computed in its own way
    groups=st.sampled_from([1, 2]),
)
def test_convolution_and_its_gradients_are_xlas(size, stride, height, width, outputs, groups):
    x, kernel = normal(2, height, width, 4), normal(size, size, 4 // groups, outputs)
    pad = size // 2

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    expected, expected_gradients = jax.vjp(plain, x, kernel)
    result, gradients = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, groups), x, kernel)
    assert result.shape == expected.shape
    assert_close(result, expected)
    gradient = normal(*expected.shape)
    assert_close(gradients(gradient), expected_gradients(gradient))


def test_elementwise_gradients_are_jaxs():
    x, factor, offset, gradient = normal(3, 4, 5, 6), normal(6), normal(6), normal(3, 4, 5, 6)
    _, ours = jax.vjp(lambda *a: relu(scale_and_shift(*a)), x, factor, offset)
    _, plain = jax.vjp(lambda x, f, o: jax.nn.relu(x * f + o), x, factor, offset)
    assert_close(ours(gradient), plain(gradient))


def test_relu_lets_nothing_through_at_zero_and_below():
    gradient = jax.grad(lambda x: relu(x).sum())(jnp.array([-1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(gradient, [0, 0, 1])


# --- stacked units -------------------------------------------------------------------------------

NETS: dict[str, tuple[Model, bool]] = {  # and whether its equal units are a loop
    "resnet": (ResNet(20), False),
    "resnet in a loop": (ResNet(20, shortcut="projection"), True),
    "grouped and gated": (
        ResNet(29, block="bottleneck", groups=2, order="full_pre", shortcut="exclusive_gating"),
        True,
    ),
    "recomputed": (ResNet(20, remat=True, squeeze_excitation=4), False),
    "dense": (DenseNet(16, 4), False),
    "dense without bottlenecks": (DenseNet(10, 4, bottleneck=False, compression=1.0), False),
}


@pytest.mark.parametrize("net", NETS)
def test_the_training_form_has_the_same_numbers(net, monkeypatch):
    config, rolled = NETS[net]
    if rolled:
        monkeypatch.setattr(residual, "UNROLLED", 0)
    plain, trained = build(config, 10), build(config, 10, for_training=True)
    images, cotangent = normal(3, 8, 8, 3), normal(3, 10)
    variables = plain.init(jax.random.key(0), images, train=False)
    stacked = {name: stack(tree) for name, tree in variables.items()}

    def step(module, variables):
        def logits(params):
            output, updates = module.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return output, updates["batch_stats"]

        output, pull, statistics = jax.vjp(logits, variables["params"], has_aux=True)
        return output, pull(cotangent)[0], statistics

    expected = jax.jit(lambda v: step(plain, v))(dict(variables))
    logits, gradients, statistics = jax.jit(lambda v: step(trained, v))(stacked)
    # The forms round differently where own kernels run, and batch norms of 12 places magnify it.
    assert_close((logits, unstack(gradients), unstack(statistics)), expected, 2e-4)
    assert_close(
        trained.apply(stacked, images, train=False), plain.apply(variables, images, train=False)
    )


def test_unstacking_undoes_stacking():
    params = build(ResNet(26), 10).init(jax.random.key(0), normal(1, 8, 8, 3), train=False)[
        "params"
    ]
    stacked = stack(params)
    assert sorted(name for name in stacked if "unit" in name) == sorted(
        f"stage{stage}_{name}" for stage in (1, 2, 3) for name in ("unit1", "units")
    )
    assert stacked["stage2_units"]["conv1"]["kernel"].shape == (3, 3, 3, 32, 32)
    jax.tree.map(np.testing.assert_array_equal, unstack(stacked), dict(params))
    assert params_sha256(stacked) == params_sha256(params)


def lowered(config, images=(2, 8, 8, 3)):
    """The gradient of a network's training form, not compiled yet; nothing is allocated."""
    module, plain = build(config, 10, for_training=True), build(config, 10)
    shape = jax.ShapeDtypeStruct(images, jnp.float32)
    variables = jax.eval_shape(
        lambda x: {
            name: stack(tree)
            for name, tree in plain.init(jax.random.key(0), x, train=False).items()
        },
        shape,
    )

    def loss(params, statistics, images):
        logits, updates = module.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(jnp.square(logits)), updates

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    return gradient.lower(variables["params"], variables["batch_stats"], shape)


def test_a_deep_net_has_no_more_convolutions_than_a_less_deep_one():
    few, many = 6 * 38 + 2, 6 * 41 + 2  # both with more equal units than are unrolled

    def convolutions(depth):
        return lowered(ResNet(depth)).as_text().count("stablehlo.convolution")

    assert convolutions(few) == convolutions(many) < 60


@pytest.mark.parametrize("with_kernels", [False, True])
def test_memory_of_a_dense_step_grows_with_depth_and_not_with_its_square(with_kernels, monkeypatch):
    if with_kernels and not library.load():
        pytest.skip("the kernels were not built")

    def temporary(config):
        return lowered(config, (16, 8, 8, 3)).compile().memory_analysis().temp_size_in_bytes

    monkeypatch.setattr(library, "load", lambda: with_kernels)
    small, middle, large = (temporary(DenseNet(depth, 8)) for depth in (16, 28, 40))
    assert large - middle < 1.2 * (middle - small)
    monkeypatch.setattr(library, "load", lambda: False)  # the kernels never keep activated maps
    assert large < temporary(DenseNet(40, 8, remat=False)) / 2


# --- steps in a row ------------------------------------------------------------------------------


def test_steps_in_a_row_are_the_same_steps():
    images = RANDOM.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    labels = RANDOM.integers(0, 10, 64).astype(np.int32)
    data, devices = Digits(crop_padding=1), Devices("shard_map", jax.devices()[:2])
    optimizer = make_optimizer(SGD(), learning_rate(StepDecay(), 0.1, 10))
    module = build(ResNet(8), 10, axis_name=AXIS, for_training=True)
    drawn = build(ResNet(8), 10)
    split = ResidentSplit(*devices.replicate((images, labels)))
    batches = RANDOM.integers(0, 64, (16, 5)).astype(np.int32)
    step = gathered(train_step(Objective(module, data), optimizer), gather_resident)
    many = devices.parallelize(many_steps(step), donate_state=True)
    single = devices.parallelize(step, donate_state=True)

    def steps_of_many(state, first, count):
        indices = np.zeros((16, 5), np.int32)
        indices[:, :count] = batches[:, first : first + count]
        return many(state, (split, np.int32(count)), devices.shard(indices))

    def one_step(state, first, count):
        assert count == 1
        return single(state, split, devices.shard(batches[:, first]))

    def run(call, calls):
        """Goes through the steps with the given first step and number of steps of each call."""
        state = devices.replicate(
            initial_state(drawn, optimizer, fit_normalization(images, data), (8, 8, 1), 0)
        )
        loss = None
        for first, count in calls:
            state, loss = call(state, first, count)
        return jax.device_get((state, loss))

    at_once, loss = run(steps_of_many, [(0, 5)])
    one_by_one, last = run(steps_of_many, [(0, 1), (1, 2), (3, 1), (4, 1)])
    assert at_once.step == 5
    assert loss == last
    jax.tree.map(np.testing.assert_array_equal, at_once, one_by_one)
    alone, _ = run(one_step, [(i, 1) for i in range(5)])
    assert_close(at_once.params, alone.params, 1e-4)
    assert optax.tree.norm(at_once.params) > 0


def test_nothing_is_compiled_after_the_first_epoch(tmp_path, monkeypatch, caplog):
    experiment = Experiment(
        name="epochs",
        model=ResNet(8),
        data=Digits(validation=100),
        batch_size=96,
        epochs=3,
        log_every=5,
        evaluate_every=7,
        checkpoint_every=6,
    )
    seen: list[tuple[int, int]] = []
    training = RunLog.training

    def count_and_log(self, state, step):
        messages = [record.getMessage() for record in caplog.records]
        seen.append((step, sum("Compiling" in message for message in messages)))
        return training(self, state, step)

    monkeypatch.setattr(RunLog, "training", count_and_log)
    with jax.log_compiles():
        train(experiment, RunFolder(tmp_path / "run"), Console(file=io.StringIO()))
    first_epoch = 1342 // 96 + 1
    counts = [count for step, count in seen if step > first_epoch]
    assert counts[0] > 0
    assert len(counts) > 4
    assert set(counts) == {counts[0]}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiler_options_leave_the_numbers_alone(precision):
    images = normal(360, 8, 8, 1)
    variables = build(ResNet(8), 10).init(jax.random.key(0), images, train=False)

    def lowered(dtype):
        apply = partial(build(ResNet(8), 10, dtype=dtype).apply, train=False)
        return jax.jit(apply).lower(variables, images)

    logits = compile_for("cpu", lowered(precision))(variables, images)
    expected = lowered("float32").compile()(variables, images)
    tolerance = {"float32": 1e-5, "bfloat16": 3e-2}[precision] * float(jnp.abs(expected).max())
    np.testing.assert_allclose(logits, expected, atol=tolerance)


def test_an_unknown_compiler_option_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_CPU_LIBRARY_OPTION", "xla_no_such_option")
    program = compile_for("cpu", jax.jit(lambda x: x + 1).lower(jnp.zeros(3)))
    np.testing.assert_array_equal(program(jnp.zeros(3)), np.ones(3))
