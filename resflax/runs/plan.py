"""The parts of a run: the feeds of its data, its network, and its compiled programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.normalization import Normalization
from resflax.declarations.checks import refuse
from resflax.declarations.crop_notes import crop_notes
from resflax.declarations.models import ResNet
from resflax.declarations.schedule_notes import schedule_notes
from resflax.devices import hosts, memory
from resflax.devices.parallel import AXIS, Devices, ReplicatedFunction
from resflax.experiment import Experiment
from resflax.feeding.batch import Batch
from resflax.feeding.feeds import EvaluationFeed, Feeds, TrainingFeed, open_feeds
from resflax.feeding.order import ExampleOrder
from resflax.models import build
from resflax.models.own_parts import explaining, other_batch_norms
from resflax.models.summary import Summary, summarize
from resflax.terminal.display import Display
from resflax.training.batch_statistics import statistics_step
from resflax.training.many_steps import CallStep, gathered, many_steps
from resflax.training.measurement import evaluation_step
from resflax.training.nonfinite import explain
from resflax.training.objective import LossOfParams, Objective, step_loss_of
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import LearningRate, learning_rate
from resflax.training.state import TrainState, drawing, initial_state
from resflax.training.step import TrainStep, train_step
from resflax.training.together import (
    GroupInput,
    OptimizerNumbers,
    group_step,
    numbers_of,
    with_numbers,
)


@dataclass(frozen=True)
class Plan:
    """The parts of a run that do not change, apart from the inner state of its feeds.

    `resident` below stands for what a feed keeps on the devices.
    """

    steps: int
    """Number of steps of the training."""
    order: ExampleOrder
    """Which examples each step takes."""
    devices: Devices
    training_feed: TrainingFeed
    evaluation_feeds: dict[str, EvaluationFeed]
    """Feeds by split: `validation` first if examples are held out, then `test`."""
    run_steps: Callable[..., Any]
    """(state, what the feed gives to a call, number of steps) -> (state, loss of the last step).
    The state passed in cannot be used afterwards. For a group, states and losses are stacked, and a
    fourth argument, (members,) bool, marks the members that are held."""
    evaluate: Callable[..., Any]
    """(state, resident, what the feed gives for a batch) -> sums."""
    measure_statistics: Callable[..., Any]
    """(state, resident, what the feed gives for a step) -> statistics: see `statistics_step`."""
    explain_failure: Callable[[TrainState, Any, Any], str]
    """(state, resident, what the feed gives for the next step) -> a text that names what is not
    finite in that step, and the layer in which that began."""
    abstract_state: TrainState
    """Shapes, types and devices of a state, without values."""
    draw_state: Callable[[int], TrainState]
    """Draws the state before the first step from a seed, on the devices."""
    learning_rate: LearningRate
    summary: Summary
    """Layers and counts of the network."""
    data_sha256: str
    """Hash that identifies the data: see `Feeds.sha256`."""


def make_plan(experiment: Experiment, display: Display, group: Sequence[Experiment] = ()) -> Plan:
    """Opens the data, builds the network and compiles its programs, on all devices.

    Args:
      experiment: the experiment to run.
      display: shows progress.
      group: experiments that step together, `experiment` among them. They may differ only as
        `runs.group` allows. The plan's `run_steps` is then for all of their states, stacked.

    Raises `UsageError` if data, network, batch size and schedule do not fit together, if a step
    does not fit in memory, or if a class of the user's own fails.
    """
    with explaining(experiment.model):
        return _make_plan(experiment, display, group)


def _make_plan(experiment: Experiment, display: Display, group: Sequence[Experiment]) -> Plan:
    devices = Devices(experiment.parallel)
    devices.check_batch_size(
        experiment.batch_size,
        experiment.gradient_accumulation,
        in_pairs=experiment.augmentation.mixes,
    )
    feeds = open_feeds(experiment, devices, display)
    experiment.augmentation.check_channels(feeds.image_shape[-1])
    for note in schedule_notes(experiment.schedule, feeds.steps) + crop_notes(experiment.data):
        display.say(note)
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, feeds.steps)
    rate(jnp.int32(0))  # compiles it now, not at the first line of the log
    build_network = partial(
        build,
        experiment.model,
        feeds.num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        synchronized=experiment.batch_norm == "synchronized",
    )
    objective = Objective.of(experiment, build_network(for_training=True))
    summary = summarize(experiment.model, feeds.num_classes, feeds.image_shape)
    _check_batch_norm(experiment, feeds)
    initialize = _make_initialize(experiment, feeds, rate)
    initialize_fast = drawing(
        initialize, len(summary.layers), stacked=isinstance(experiment.model, ResNet)
    )
    state = devices.abstract(partial(initialize, feeds.normalization, np.uint32(0)))

    if group:
        step_with = partial(_member_step, experiment, objective, feeds.steps)
        run_steps = _compile_group(devices, step_with, group, state, feeds.train, display)
    else:
        optimizer = make_optimizer(experiment.optimizer, rate)
        step = gathered(train_step(objective, optimizer, experiment.ema_decay), feeds.gather)
        run_steps = _compile(devices, step, state, feeds.train, display)
    evaluate = _make_evaluate(devices, objective, feeds)
    for feed in display.items(list(feeds.evaluation.values()), "compiling evaluation"):
        evaluate.compile(state, feed.resident, feed.sample_input(experiment.batch_size))

    def loss_at(state: TrainState, resident: Any, given: Any) -> LossOfParams:
        with_named_units = Objective.of(experiment, build_network())
        return step_loss_of(with_named_units, state, feeds.gather(resident, given))

    return Plan(
        steps=feeds.steps,
        order=feeds.order,
        devices=devices,
        training_feed=feeds.train,
        evaluation_feeds=feeds.evaluation,
        run_steps=run_steps,
        evaluate=evaluate,
        measure_statistics=_make_measure_statistics(devices, objective, feeds),
        explain_failure=partial(explain, devices, loss_at),
        abstract_state=state,
        draw_state=lambda seed: devices.replicate(
            initialize_fast(feeds.normalization, np.uint32(seed))
        ),
        learning_rate=rate,
        summary=summary,
        data_sha256=feeds.sha256,
    )


def _check_batch_norm(experiment: Experiment, feeds: Feeds) -> None:
    """Refuses what only our own batch norm can do for a network that has another one."""
    if experiment.batch_norm != "synchronized" and not experiment.precise_batch_norm:
        return
    module = build(experiment.model, feeds.num_classes)
    for path in other_batch_norms(module, feeds.image_shape):
        field = "batch_norm" if experiment.batch_norm == "synchronized" else "precise_batch_norm"
        refuse(
            experiment,
            field,
            f"{path} is linen's batch norm, which cannot do that; use self.layers.norm()",
        )


def _make_initialize(
    experiment: Experiment, feeds: Feeds, rate: LearningRate
) -> Callable[[Normalization, np.uint32], TrainState]:
    """Makes a function that draws the state before the first step.

    The function takes the normalisation and a seed.
    """
    # The module has no axis, because parameters do not depend on it, and it exists only inside
    # replicas.
    module = build(experiment.model, feeds.num_classes)
    optimizer = make_optimizer(experiment.optimizer, rate)

    def initialize(normalization: Normalization, seed: np.uint32) -> TrainState:
        return initial_state(
            module,
            optimizer,
            normalization,
            feeds.image_shape,
            seed,
            averaged=experiment.ema_decay is not None,
        )

    return initialize


def _member_step(
    experiment: Experiment, objective: Objective, steps: int, numbers: OptimizerNumbers
) -> TrainStep:
    """Makes the training step of a member of a group, which has its own optimizer numbers."""
    declared = with_numbers(experiment.optimizer, numbers)
    rate = learning_rate(experiment.schedule, declared.learning_rate, steps)
    return train_step(objective, make_optimizer(declared, rate), experiment.ema_decay)


def _make_evaluate(devices: Devices, objective: Objective, feeds: Feeds) -> ReplicatedFunction:
    """Makes `Plan.evaluate`."""
    step = evaluation_step(objective.module)

    def evaluate(state: TrainState, resident: Any, given: Any) -> Any:
        examples, weights = given
        batch: Batch = feeds.gather(resident, examples)
        return step(state, batch, weights)

    return devices.parallelize(evaluate, donate_state=False)


def _make_measure_statistics(
    devices: Devices, objective: Objective, feeds: Feeds
) -> ReplicatedFunction:
    """Makes `Plan.measure_statistics`."""
    step = statistics_step(objective)

    def measure(state: TrainState, resident: Any, given: Any) -> Any:
        return step(state, feeds.gather(resident, given))

    return devices.parallelize(measure, donate_state=False)


def _compile(
    devices: Devices, step: CallStep, state: TrainState, train: TrainingFeed, display: Display
) -> Callable[..., Any]:
    """Makes `Plan.run_steps`, compiled for each shape of the feed's inputs.

    Raises `UsageError` if the largest program does not fit in memory.
    """
    single = train.steps_per_call == 1
    function = devices.parallelize(step if single else many_steps(step), donate_state=True)

    def replicated(count: int) -> Any:
        return train.resident if single else (train.resident, np.int32(count))

    programs = []
    for given in display.items(train.sample_inputs(), "compiling"):
        programs.append(function.compile(state, replicated(1), given))
    _check_memory(devices, train, programs)

    def run_steps(state: TrainState, given: Any, count: int) -> Any:
        return function(state, replicated(count), given)

    return run_steps


def _compile_group(
    devices: Devices,
    step_with: Callable[[OptimizerNumbers], TrainStep],
    group: Sequence[Experiment],
    state: TrainState,
    train: TrainingFeed,
    display: Display,
) -> Callable[..., Any]:
    """Makes `Plan.run_steps` for the stacked states of a group.

    Raises `UsageError` if the program does not fit in memory.
    """
    numbers = devices.replicate(numbers_of(group))
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (len(group), *leaf.shape), leaf.dtype, sharding=leaf.sharding
        ),
        state,
    )
    # On CPUs a single member keeps all cores busy, so an axis of members gains nothing
    # (benchmarks/notes.md).
    step = group_step(step_with, in_turn=devices.platform == "cpu")
    function = devices.parallelize(many_steps(step), donate_state=True)

    def replicated(count: int, held: np.ndarray) -> Any:
        return GroupInput(train.resident, numbers, held), np.int32(count)

    shape = group[0].batch_size, train.steps_per_call, len(group)
    given = devices.shard(np.zeros(shape, np.int32))
    with display.bar("compiling", 1):
        program = function.compile(states, replicated(1, np.zeros(len(group), bool)), given)
    _check_memory(devices, train, [program])

    def run_steps(states: TrainState, given: Any, count: int, held: np.ndarray) -> Any:
        return function(states, replicated(count, held), given)

    return run_steps


def _check_memory(devices: Devices, train: TrainingFeed, programs: Sequence[Any]) -> None:
    """Raises `UsageError` on all hosts if a program is known not to fit on at least one of them."""
    needed = [count for count in map(memory.step_bytes, programs) if count is not None]
    if needed:
        resident_bytes = sum(array.nbytes for array in jax.tree.leaves(train.resident))
        hosts.on_all(partial(memory.check_fits, max(needed) - resident_bytes, devices.local))
