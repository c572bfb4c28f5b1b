"""Numbers that are not finite: where they began is named, and a run stops or goes back."""

import dataclasses
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs_in_process import interrupt_after_saving
from whole_runs import assert_same, metrics, result

from resflax import Digits, TrainingError
from resflax.data.normalization import fit_normalization
from resflax.devices.parallel import Devices
from resflax.errors import Interrupted
from resflax.feeding import feeds
from resflax.feeding.batch import ResidentSplit, gather_resident
from resflax.feeding.order import ExampleOrder
from resflax.models.layers import BatchNorm, Conv
from resflax.runs.loop import TrainingLoop
from resflax.training import objective, step
from resflax.training.many_steps import gathered
from resflax.training.nonfinite import explain
from resflax.training.objective import Objective, loss_of
from resflax.training.state import initial_state
from resflax.training.step import train_step


@pytest.fixture
def poison(monkeypatch, tiny):
    """Makes the loss of some batches NaN, in whatever step they come."""

    def poison(*batches):
        order = ExampleOrder(1342, tiny.batch_size, tiny.seed)
        bad = jnp.array([order.batch(batch) for batch in batches])

        def marking(split, indices):
            """The labels of a bad batch are marked by a thousand more."""
            batch = gather_resident(split, indices)
            is_bad = jnp.any(jnp.all(indices == bad, axis=1))
            return batch._replace(labels=batch.labels + jnp.where(is_bad, 1000, 0))

        def poisoned(objective, state, batch, micro_batch=0):
            unmarked = batch._replace(labels=batch.labels % 1000)
            loss = loss_of(objective, state, unmarked, micro_batch)
            factor = jnp.where(jnp.any(batch.labels >= 1000), jnp.nan, 1)

            def wrong(params):
                value, rest = loss(params)
                return value * factor, rest

            return wrong

        monkeypatch.setattr(feeds, "gather_resident", marking)
        for module in (step, objective):
            monkeypatch.setattr(module, "loss_of", poisoned)

    return poison


def test_a_loss_that_is_not_finite_stops_the_run_and_harms_nothing(
    tiny, undisturbed_here, tmp_path, train, poison, monkeypatch
):
    folder = tmp_path / "run"
    poison(30)
    with pytest.raises(TrainingError) as failure:
        train(tiny, folder)
    said = str(failure.value)
    assert said.startswith("at step 31 (learning rate ")
    assert "the loss is nan, and the outputs of all layers are finite" in said
    assert said.endswith("the newest checkpoint, of step 27, is good")
    assert metrics(folder)[-1]["step"] == 28
    monkeypatch.setattr(feeds, "gather_resident", gather_resident)
    for module in (step, objective):
        monkeypatch.setattr(module, "loss_of", loss_of)
    assert "continuing from step 27" in train(tiny, folder)
    assert_same(folder, undisturbed_here)


def test_rollback_takes_the_data_after_it_and_records_it(
    tiny, undisturbed_here, tmp_path, train, poison, monkeypatch
):
    """Batch 30 is bad: steps 28 to 40 take batches 31 to 43, also if interrupted."""
    tiny = dataclasses.replace(tiny, on_nonfinite="rollback")
    poison(30)
    said = train(tiny, tmp_path / "one")
    assert "going back to step 27 and passing over the batches of 4 steps (1 of at most 3" in said
    ended = result(tmp_path / "one")
    (rollback,) = ended["rollbacks"]
    assert (rollback["at"], rollback["to"]) == (31, 27)
    marks = [(line["step"], line["split"]) for line in metrics(tmp_path / "one")]
    assert marks == [(line["step"], line["split"]) for line in metrics(undisturbed_here)]
    assert ended["params_sha256"] != result(undisturbed_here)["params_sha256"]

    interrupt_after_saving(monkeypatch, 36)
    with pytest.raises(Interrupted):
        train(tiny, tmp_path / "other")
    assert "continuing from step 36" in train(tiny, tmp_path / "other")
    assert_same(tmp_path / "other", tmp_path / "one")
    assert result(tmp_path / "other")["rollbacks"] == [rollback]


def test_a_rollback_to_the_start_takes_weights_that_are_gone(
    tiny, undisturbed_here, tmp_path, train, poison, monkeypatch
):
    """The other run, whose weights the run began with, is removed while the run trains."""
    weights = tmp_path / "weights"
    begin = TrainingLoop.begin
    fine_tuning = dataclasses.replace(
        tiny, initialize_from=str(weights), on_nonfinite="rollback", checkpoint_every=1000
    )
    poison(3)

    def begin_and_remove(loop):
        begun = begin(loop)
        shutil.rmtree(weights)
        return begun

    for name in ("kept", "gone"):
        shutil.copytree(undisturbed_here, weights)
        if name == "gone":
            monkeypatch.setattr(TrainingLoop, "begin", begin_and_remove)
        assert "going back to step 0" in train(fine_tuning, tmp_path / name)
        if name == "kept":
            shutil.rmtree(weights)
    assert_same(tmp_path / "gone", tmp_path / "kept")


@pytest.mark.slow
def test_rollbacks_end(tiny, tmp_path, train, poison):
    """The fourth failure after one checkpoint is the last; those before it are forgiven."""
    tiny = dataclasses.replace(tiny, on_nonfinite="rollback")
    poison(3, 20, 21, 22, 23)
    with pytest.raises(TrainingError, match="the run went back to step 9 3 times already"):
        train(tiny, tmp_path / "run")


SHAPE = (8, 8, 1)


class Root(nn.Module):
    """A network with a finite loss whose gradient is infinite from its last convolution down."""

    @nn.compact
    def __call__(self, images, *, train):
        x = Conv(4, 3, name="conv")(images)
        x = BatchNorm(name="norm")(x, train=train)
        return nn.Dense(10, name="head")(jnp.sqrt(0 * jnp.mean(x, (1, 2))))


def state_for(module):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    split = ResidentSplit(jnp.array(images), jnp.array(rng.integers(0, 10, 64), jnp.int32))
    normalization = fit_normalization(images, Digits())
    return initial_state(module, optax.sgd(0.1, 0.9), normalization, SHAPE, 0), split


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_a_failed_step_changes_nothing_and_neither_do_those_after_it(parallel):
    module = Root()
    state, split = state_for(module)
    devices = Devices(parallel, jax.devices()[:2])
    before = jax.device_get(state)
    made = train_step(Objective(module, Digits()), optax.sgd(0.1, 0.9))
    run_step = devices.parallelize(gathered(made, gather_resident), donate_state=True)
    state, split = devices.replicate(state), devices.replicate(split)
    indices = devices.shard(np.arange(32, dtype=np.int32))
    for _ in range(3):
        state, loss = run_step(state, split, indices)
        assert np.isnan(loss)
        after = jax.device_get(state)
        assert after.failed
        same = jax.tree.map(np.array_equal, after.replace(failed=before.failed), before)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("", "the gradient is not finite from layer norm down"),
        ("head", "the first layer whose output is not finite is head"),
        ("norm", "the first layer whose output is not finite is norm"),
        ("picture", "the first layer whose output is not finite is conv"),
    ],
)
def test_the_layer_where_it_began_is_named(parallel, harm, said):
    module = Root()
    state, split = state_for(module)
    if harm == "picture":
        scale = state.normalization.scale * jnp.inf
        state = state.replace(normalization=state.normalization._replace(scale=scale))
    elif harm:
        bias = state.params[harm]["bias"] + jnp.inf
        state = state.replace(params=state.params | {harm: state.params[harm] | {"bias": bias}})
    devices = Devices(parallel, jax.devices()[:2])
    explanation = explain(
        devices,
        lambda state, split, indices: loss_of(
            Objective(module, Digits()), state, gather_resident(split, indices)
        ),
        devices.replicate(state),
        devices.replicate(split),
        devices.shard(np.arange(32, dtype=np.int32)),
    )
    assert explanation.endswith(said), explanation
