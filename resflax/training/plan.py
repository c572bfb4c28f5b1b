"""All that a run needs and that stays the same while it goes: data, network, compiled steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentation import Normalization
from resflax.data.feed import Order
from resflax.experiment import Experiment
from resflax.models import build
from resflax.models.summary import Summary, summarize
from resflax.training import hosts, memory
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.feeds import TestFeed, TrainingFeed, open_feeds
from resflax.training.nonfinite import explain
from resflax.training.optimizer import LearningRate, learning_rate, make_optimizer
from resflax.training.precise import statistics_step
from resflax.training.recipe import Recipe
from resflax.training.state import TrainState, drawing, initial_state
from resflax.training.step import (
    AXIS,
    Batch,
    Examples,
    TrainStep,
    evaluation_step,
    many_steps,
    train_step,
    whole_loss_of,
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
    train: TrainingFeed
    held_out: dict[str, TestFeed]
    """`test`, and `validation` if the experiment holds examples out."""
    run: Callable[..., Any]
    """(state, the feed's `on_devices`, its `batches`) -> (state, last loss), see `step.many_steps`;
    the state passed in is gone afterwards. Of a group: (states, ..., batches (B, n, members))."""
    evaluate: Callable[..., Any]
    """(state, the feed's `on_devices`, one of its `batches`) -> sums."""
    statistics: Callable[..., Any]
    """(state, the feed's `on_devices`, a `batch`) -> its statistics, see
    `precise.statistics_step`."""
    explain: Callable[[TrainState, Examples | None, Batch], str]
    """Says what is not finite in the step that follows a state, and since which layer."""
    state: TrainState
    """Shapes, types and devices of a state, without its numbers."""
    initial: Callable[[int], TrainState]
    """The state before the first step, drawn from a seed, on the devices."""
    learning_rate: LearningRate
    summary: Summary
    """Of the network."""
    data_sha256: str
    """Of the data: see `Feeds`."""


def make_plan(experiment: Experiment, display: Display, group: Sequence[Experiment] = ()) -> Plan:
    """Opens the data, builds the network and compiles its step, on all devices.

    Args:
      experiment: the run's.
      display: is shown what is done.
      group: experiments that step together with it, itself among them; they differ as in
        `training.group`. The plan's `run` is then for all of their states, stacked.

    Raises `UsageError` where data, network, batch size or schedule do not fit together, or the step
    does not fit into the memory.
    """
    devices = Devices(experiment.parallel)
    recipe = Recipe.of(experiment)
    devices.check_batch_size(
        experiment.batch_size, recipe.gradient_accumulation, pairs=recipe.augmentation.mixes
    )
    feeds = open_feeds(experiment, devices, display)
    train, steps, image_shape = feeds.train, feeds.steps, feeds.image_shape
    recipe.augmentation.check_channels(image_shape[-1])
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, steps)
    rate(jnp.int32(0))  # compiles it now, not at the first line of the log
    optimizer = make_optimizer(experiment.optimizer, rate)
    network = partial(
        build,
        experiment.model,
        feeds.num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        synchronized=experiment.batch_norm == "synchronized",
    )
    module = network(for_training=True)
    # Parameters do not depend on the axis, and outside the devices' functions there is none.
    drawn = build(experiment.model, feeds.num_classes)

    def draw(normalization: Normalization, seed: np.uint32) -> TrainState:
        return initial_state(
            drawn,
            optimizer,
            normalization,
            image_shape,
            seed,
            averaged=experiment.ema_decay is not None,
        )

    def step_with(numbers: Numbers) -> TrainStep:
        declared = with_numbers(experiment.optimizer, numbers)
        rate = learning_rate(experiment.schedule, declared.learning_rate, steps)
        return train_step(module, make_optimizer(declared, rate), experiment.data, recipe)

    summary = summarize(experiment.model, feeds.num_classes, image_shape)
    draw_once = drawing(draw, len(summary.rows))
    state = devices.abstract(partial(draw, feeds.normalization, np.uint32(0)))
    if group:
        run, needed = _compile_group(devices, step_with, group, state, train, display)
    else:
        step = train_step(module, optimizer, experiment.data, recipe)
        run, needed = _compile(devices, step, state, train, display)
    if needed is not None:  # the examples are there already
        kept = sum(array.nbytes for array in jax.tree.leaves(train.on_devices))
        hosts.by_all(partial(memory.check_fits, needed - kept, devices.of_host))
    evaluate = devices.parallelize(evaluation_step(module), donate_state=False)
    for feed in display.items(list(feeds.held_out.values()), "compiling evaluation"):
        evaluate.prepare(state, feed.on_devices, feed.kind(experiment.batch_size))
    return Plan(
        steps=steps,
        order=feeds.order,
        devices=devices,
        train=train,
        held_out=feeds.held_out,
        run=run,
        evaluate=evaluate,
        statistics=devices.parallelize(
            statistics_step(module, experiment.data, recipe), donate_state=False
        ),
        explain=partial(
            explain,
            devices,
            partial(whole_loss_of, network(), experiment.data, recipe=recipe),
        ),
        state=state,
        initial=lambda seed: devices.replicate(draw_once(feeds.normalization, np.uint32(seed))),
        learning_rate=rate,
        summary=summary,
        data_sha256=feeds.sha256,
    )


def _compile(
    devices: Devices, step: TrainStep, state: TrainState, train: TrainingFeed, display: Display
) -> tuple[Callable[..., Any], int | None]:
    """What runs steps, compiled for each shape of the batches, and the most bytes one needs."""
    kinds = train.kinds()
    programs, needed = {}, []
    with display.bar("compiling", len(kinds)) as bar:
        for kind in kinds:
            run, program = devices.compile(
                many_steps(step), state, train.on_devices, kind, donate_state=True
            )
            programs[_shapes(kind)] = run
            needed.append(memory.step_bytes(program))
            bar.set(len(needed))

    def run_any(state: TrainState, examples: Examples | None, batches: Any) -> Any:
        return programs[_shapes(batches)](state, examples, batches)

    return run_any, max((n for n in needed if n is not None), default=None)


def _compile_group(
    devices: Devices,
    step_of: Callable[[Numbers], TrainStep],
    group: Sequence[Experiment],
    state: TrainState,
    train: TrainingFeed,
    display: Display,
) -> tuple[Callable[..., Any], int | None]:
    """`Plan.run` for the states of a group, stacked, and the bytes it needs."""
    (batches,) = train.kinds()
    numbers = devices.replicate(numbers_of(group))
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (len(group), *leaf.shape), leaf.dtype, sharding=leaf.sharding
        ),
        state,
    )
    with display.bar("compiling", 1):
        run, program = devices.compile(
            # On CPUs one member fills all cores, and an axis more is no gain (benchmarks/notes.md).
            many_steps(group_step(step_of, in_turn=devices.platform == "cpu")),
            states,
            (train.on_devices, numbers),
            np.repeat(batches[..., None], len(group), axis=-1),
            donate_state=True,
        )

    def run_all(states: TrainState, examples: Examples | None, batches: Any) -> Any:
        return run(states, (examples, numbers), batches)

    return run_all, memory.step_bytes(program)


def _shapes(batches: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(np.shape(array) for array in jax.tree.leaves(batches))
