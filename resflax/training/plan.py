"""All that a run needs and that stays the same while it goes: data, network, compiled steps."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentation import Normalization, fit_normalization
from resflax.data.feed import Order, evaluation_batches
from resflax.data.source import Dataset, Split, load
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build
from resflax.models.summary import Summary, summarize
from resflax.training import memory
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.nonfinite import explain
from resflax.training.optimizer import LearningRate, learning_rate, make_optimizer
from resflax.training.state import TrainState, drawing, initial_state
from resflax.training.step import (
    AXIS,
    Examples,
    TrainStep,
    evaluation_step,
    loss_of,
    many_steps,
    train_step,
)
from resflax.training.vectorized import Numbers, group_step, numbers_of, with_numbers


@dataclass(frozen=True)
class Plan:
    """A run before its first step."""

    steps: int
    """Length of the training."""
    order: Order
    """Which examples each step takes."""
    devices: Devices
    train: Examples
    """Training examples, on the devices."""
    held_out: dict[str, Examples]
    """`test`, and `validation` if the experiment holds examples out, on the devices."""
    run: Callable[..., Any]
    """(state, examples, batches (B, n)) -> (state, last loss), see `step.many_steps`; the state
    passed in is gone afterwards. Of a group: (states, examples, batches (B, n, members))."""
    steps_at_once: int
    """n, the most steps of one call."""
    evaluate: Callable[..., Any]
    """(state, examples, (indices, weights)) -> sums."""
    explain: Callable[[TrainState, Examples, np.ndarray], str]
    """Says what is not finite in the step that follows a state, and since which layer."""
    state: TrainState
    """Shapes, types and devices of a state, without its numbers."""
    initial: Callable[[int], TrainState]
    """The state before the first step, drawn from a seed, on the devices."""
    learning_rate: LearningRate
    summary: Summary
    """Of the network."""
    data_sha256: str
    """Hash of all pictures and labels."""


def make_plan(experiment: Experiment, display: Display, group: Sequence[Experiment] = ()) -> Plan:
    """Loads the data, builds the network and compiles its step, on all devices of this machine.

    Args:
      experiment: the run's.
      display: is shown what is done.
      group: experiments that step together with it, itself among them; they differ as in
        `training.group`. The plan's `run` is then for all of their states, stacked.

    Raises `UsageError` where data, network, batch size or schedule do not fit together, or the step
    does not fit into the memory.
    """
    devices = Devices(experiment.parallel)
    devices.check_batch_size(experiment.batch_size)
    dataset = load(experiment.data, display.items)
    order = Order(len(dataset.train), experiment.batch_size, experiment.seed)
    steps = _steps(experiment, order)
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, steps)
    optimizer = make_optimizer(experiment.optimizer, rate)
    network = partial(
        build,
        experiment.model,
        dataset.num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        synchronized=experiment.batch_norm == "synchronized",
    )
    module = network(for_training=True)
    # Parameters do not depend on the axis, and outside the devices' functions there is none.
    drawn = build(experiment.model, dataset.num_classes)
    normalization = fit_normalization(dataset.train.images, experiment.data)

    def draw(normalization: Normalization, seed: np.uint32) -> TrainState:
        return initial_state(drawn, optimizer, normalization, dataset.image_shape, seed)

    def step_with(numbers: Numbers) -> TrainStep:
        declared = with_numbers(experiment.optimizer, numbers)
        rate = learning_rate(experiment.schedule, declared.learning_rate, steps)
        return train_step(module, make_optimizer(declared, rate), experiment.data)

    train = _on_devices(devices, dataset.train)
    held_out = {name: _on_devices(devices, split) for name, split in _held_out(dataset)}
    summary = summarize(experiment.model, dataset.num_classes, dataset.image_shape)
    draw_once = drawing(draw, len(summary.rows))
    state = devices.abstract(partial(draw, normalization, np.uint32(0)))
    with display.bar("compiling", 1):
        steps_at_once = devices.steps_at_once
        batches = np.zeros((experiment.batch_size, steps_at_once), np.int32)
        if group:
            run, program = _compile_group(devices, step_with, group, state, train, batches)
        else:
            step = many_steps(train_step(module, optimizer, experiment.data))
            run, program = devices.compile(step, state, train, batches, donate_state=True)
        needed = memory.step_bytes(program)
        if needed is not None:  # the examples are there already
            memory.check_fits(needed - sum(array.nbytes for array in train), devices.devices)
        evaluate = devices.parallelize(evaluation_step(module), donate_state=False)
        for split in held_out.values():
            batch = evaluation_batches(len(split.labels), experiment.batch_size)[0]
            evaluate.prepare(state, split, batch)
    return Plan(
        steps=steps,
        order=order,
        devices=devices,
        train=train,
        held_out=held_out,
        run=run,
        steps_at_once=steps_at_once,
        evaluate=evaluate,
        explain=partial(explain, devices, partial(loss_of, network(), experiment.data)),
        state=state,
        initial=lambda seed: devices.replicate(draw_once(normalization, np.uint32(seed))),
        learning_rate=rate,
        summary=summary,
        data_sha256=_sha256(dataset),
    )


def _compile_group(
    devices: Devices,
    step_of: Callable[[Numbers], TrainStep],
    group: Sequence[Experiment],
    state: TrainState,
    train: Examples,
    batches: np.ndarray,
) -> tuple[Callable[..., Any], Any]:
    """`Plan.run` for the states of a group, stacked, and its program."""
    numbers = devices.replicate(numbers_of(group))
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (len(group), *leaf.shape), leaf.dtype, sharding=leaf.sharding
        ),
        state,
    )
    run, program = devices.compile(
        # On CPUs one member fills all cores, and an axis more is no gain (benchmarks/notes.md).
        many_steps(group_step(step_of, in_turn=devices.platform == "cpu")),
        states,
        (train, numbers),
        np.repeat(batches[..., None], len(group), axis=-1),
        donate_state=True,
    )
    return lambda states, train, batches: run(states, (train, numbers), batches), program


def _steps(experiment: Experiment, order: Order) -> int:
    if experiment.steps is not None:
        return experiment.steps
    assert experiment.epochs is not None, "Experiment has checked it"
    steps = order.steps(experiment.epochs)
    if not 1 <= steps < 2**31:
        raise UsageError(
            f"Experiment.epochs is {experiment.epochs}; with {order.examples} training examples "
            f"that makes {steps} steps, and there must be at least 1 and below 2**31"
        )
    return steps


def _held_out(dataset: Dataset) -> list[tuple[str, Split]]:
    test = [("test", dataset.test)]
    return test if dataset.validation is None else [("validation", dataset.validation), *test]


def _sha256(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for split in (dataset.train, *(split for _, split in _held_out(dataset))):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    return digest.hexdigest()


def _on_devices(devices: Devices, split: Split) -> Examples:
    images, labels = devices.replicate((split.images, split.labels))
    return Examples(images, labels)
