"""The parts of a run: the feeds of its data, its network, and its compiled programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from resflax.declarations.crop_notes import crop_notes
from resflax.declarations.schedule_notes import schedule_notes
from resflax.devices import hosts, memory
from resflax.devices.parallel import Devices
from resflax.experiment import Experiment
from resflax.feeding.feeds import EvaluationFeed, TrainingFeed, open_feeds
from resflax.feeding.order import ExampleOrder
from resflax.models.own_parts import explaining
from resflax.models.summary import Summary
from resflax.runs.programs import (
    DataFacts,
    KeptPrograms,
    Programs,
    make_programs,
    program_key,
)
from resflax.terminal.display import Display
from resflax.training.many_steps import many_steps
from resflax.training.objective import Objective
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import LearningRate, learning_rate
from resflax.training.state import TrainState
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


def make_plan(
    experiment: Experiment,
    display: Display,
    group: Sequence[Experiment] = (),
    kept: KeptPrograms | None = None,
) -> Plan:
    """Opens the data, builds the network and compiles its programs, on all devices.

    Args:
      experiment: the experiment to run.
      display: shows progress.
      group: experiments that step together, `experiment` among them. They may differ only as
        `runs.group` allows. The plan's `run_steps` is then for all of their states, stacked.
      kept: the programs of earlier runs of this process, which are used again, and to which those
        of this run are added. A group's step is not kept.

    Raises `UsageError` if data, network, batch size and schedule do not fit together, if a step
    does not fit in memory, or if a class of the user's own fails.
    """
    with explaining(experiment.model):
        return _make_plan(experiment, display, group, kept or KeptPrograms())


def _make_plan(
    experiment: Experiment, display: Display, group: Sequence[Experiment], kept: KeptPrograms
) -> Plan:
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
    facts = DataFacts(feeds.steps, feeds.num_classes, feeds.image_shape, feeds.gather)
    programs = kept.find(
        program_key(experiment, facts, feeds.sha256),
        lambda: make_programs(experiment, devices, facts, feeds.normalization),
    )
    if group:
        step_with = partial(_member_step, experiment, programs.objective, feeds.steps)
        run_steps = _compile_group(
            devices, step_with, group, programs.abstract_state, feeds.train, display
        )
    else:
        run_steps = _compile(devices, programs, feeds.train, display)
    evaluate = programs.evaluate
    for feed in display.items(list(feeds.evaluation.values()), "compiling evaluation"):
        evaluate.compile(
            programs.abstract_state, feed.resident, feed.sample_input(experiment.batch_size)
        )

    return Plan(
        steps=feeds.steps,
        order=feeds.order,
        devices=devices,
        training_feed=feeds.train,
        evaluation_feeds=feeds.evaluation,
        run_steps=run_steps,
        evaluate=evaluate,
        measure_statistics=programs.measure_statistics,
        explain_failure=programs.explain_failure,
        abstract_state=programs.abstract_state,
        draw_state=lambda seed: devices.replicate(
            programs.draw(feeds.normalization, np.uint32(seed))
        ),
        learning_rate=programs.learning_rate,
        summary=programs.summary,
        data_sha256=feeds.sha256,
    )


def _member_step(
    experiment: Experiment, objective: Objective, steps: int, numbers: OptimizerNumbers
) -> TrainStep:
    """Makes the training step of a member of a group, which has its own optimizer numbers."""
    declared = with_numbers(experiment.optimizer, numbers)
    rate = learning_rate(experiment.schedule, declared.learning_rate, steps)
    return train_step(objective, make_optimizer(declared, rate), experiment.ema_decay)


def _compile(
    devices: Devices, programs: Programs, train: TrainingFeed, display: Display
) -> Callable[..., Any]:
    """Makes `Plan.run_steps`, compiled for each shape of the feed's inputs.

    Raises `UsageError` if the largest program does not fit in memory.
    """
    single = train.steps_per_call == 1
    function = programs.step if single else programs.steps

    def replicated(count: int) -> Any:
        return train.resident if single else (train.resident, np.int32(count))

    compiled = []
    for given in display.items(train.sample_inputs(), "compiling"):
        compiled.append(function.compile(programs.abstract_state, replicated(1), given))
    _check_memory(devices, train, compiled)

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
