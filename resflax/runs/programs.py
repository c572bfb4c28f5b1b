"""The programs of a run, which depend on neither its seed nor its pictures, and those kept.

A process that runs one experiment after another keeps the programs of the last few, so that a run
which differs from an earlier one only in its seed need not trace and compile them again.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from resflax.data.normalization import Normalization
from resflax.declarations.checks import refuse
from resflax.declarations.models import ResNet
from resflax.devices.parallel import AXIS, Devices, ReplicatedFunction
from resflax.experiment import Experiment
from resflax.feeding.batch import Batch, Gather
from resflax.models import build
from resflax.models.own_parts import other_batch_norms
from resflax.models.summary import Summary, summarize
from resflax.training.batch_statistics import statistics_step
from resflax.training.many_steps import gathered, many_steps
from resflax.training.measurement import evaluation_step
from resflax.training.nonfinite import explain
from resflax.training.objective import LossOfParams, Objective, step_loss_of
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import LearningRate, learning_rate
from resflax.training.state import TrainState, drawing, initial_state
from resflax.training.step import train_step


@dataclass(frozen=True)
class DataFacts:
    """The facts of the data on which programs depend. Pictures are not among them."""

    steps: int
    """Number of steps of the training."""
    num_classes: int
    image_shape: tuple[int, int, int]
    """(H, W, C) of the images in evaluations."""
    gather: Gather
    """Makes the batch inside a compiled step."""


@dataclass(frozen=True)
class Programs:
    """The programs of a run. Each is compiled when it is first needed."""

    learning_rate: LearningRate
    objective: Objective
    summary: Summary
    """Layers and counts of the network."""
    draw: Callable[[Normalization, np.uint32], TrainState]
    """Draws the state before the first step from the normalisation and a seed."""
    abstract_state: TrainState
    """Shapes, types and devices of a state, without values."""
    step: ReplicatedFunction
    """A single step."""
    steps: ReplicatedFunction
    """Several steps in one call: see `many_steps`."""
    evaluate: ReplicatedFunction
    """(state, resident, what the feed gives for a batch) -> sums."""
    measure_statistics: ReplicatedFunction
    """(state, resident, what the feed gives for a step) -> statistics: see `statistics_step`."""
    explain_failure: Callable[[TrainState, Any, Any], str]
    """(state, resident, what the feed gives) -> text: see `Plan.explain_failure`."""


class KeptPrograms:
    """The programs of the last runs of a process."""

    most = 4
    """How many runs' programs are kept; each may need hundreds of megabytes."""

    def __init__(self) -> None:
        self._programs: OrderedDict[Hashable, Programs] = OrderedDict()

    def find(self, key: Hashable, make: Callable[[], Programs]) -> Programs:
        """The programs that were made under this key; they are made if there are none."""
        programs = self._programs.pop(key, None) or make()
        self._programs[key] = programs
        while len(self._programs) > self.most:
            self._programs.popitem(last=False)
        return programs


def program_key(experiment: Experiment, facts: DataFacts, data_sha256: str) -> Hashable:
    """A key that is equal for experiments, and data, whose programs are the same.

    It has everything of both but the seed. Experiments are compared by their hash, because 1 and
    1.0 are equal in Python but make different programs.
    """
    unseeded = dataclasses.replace(experiment.resolved(), seed=0)
    return unseeded.content_hash, facts, data_sha256


def make_programs(
    experiment: Experiment, devices: Devices, facts: DataFacts, normalization: Normalization
) -> Programs:
    """Builds the network and its programs. Raises `UsageError` if the network does not fit."""
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, facts.steps)
    rate(jnp.int32(0))  # compiles it now, not at the first line of the log
    build_network = partial(
        build,
        experiment.model,
        facts.num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        synchronized=experiment.batch_norm == "synchronized",
    )
    objective = Objective.of(experiment, build_network(for_training=True))
    summary = summarize(experiment.model, facts.num_classes, facts.image_shape)
    _check_batch_norm(experiment, facts)
    initialize = _make_initialize(experiment, facts, rate)
    optimizer = make_optimizer(experiment.optimizer, rate)
    step = gathered(train_step(objective, optimizer, experiment.ema_decay), facts.gather)

    def loss_at(state: TrainState, resident: Any, given: Any) -> LossOfParams:
        with_named_units = Objective.of(experiment, build_network())
        return step_loss_of(with_named_units, state, facts.gather(resident, given))

    return Programs(
        learning_rate=rate,
        objective=objective,
        summary=summary,
        draw=drawing(initialize, len(summary.layers), stacked=isinstance(experiment.model, ResNet)),
        abstract_state=devices.abstract(partial(initialize, normalization, np.uint32(0))),
        step=devices.parallelize(step, donate_state=True),
        steps=devices.parallelize(many_steps(step), donate_state=True),
        evaluate=_make_evaluate(devices, objective, facts.gather),
        measure_statistics=_make_measure_statistics(devices, objective, facts.gather),
        explain_failure=partial(explain, devices, loss_at),
    )


def _check_batch_norm(experiment: Experiment, facts: DataFacts) -> None:
    """Refuses what only our own batch norm can do for a network that has another one."""
    if experiment.batch_norm != "synchronized" and not experiment.precise_batch_norm:
        return
    module = build(experiment.model, facts.num_classes)
    for path in other_batch_norms(module, facts.image_shape):
        field = "batch_norm" if experiment.batch_norm == "synchronized" else "precise_batch_norm"
        refuse(
            experiment,
            field,
            f"{path} is linen's batch norm, which cannot do that; use self.layers.norm()",
        )


def _make_initialize(
    experiment: Experiment, facts: DataFacts, rate: LearningRate
) -> Callable[[Normalization, np.uint32], TrainState]:
    """Makes a function that draws the state before the first step.

    The function takes the normalisation and a seed.
    """
    # The module has no axis, because parameters do not depend on it, and it exists only inside
    # replicas.
    module = build(experiment.model, facts.num_classes)
    optimizer = make_optimizer(experiment.optimizer, rate)

    def initialize(normalization: Normalization, seed: np.uint32) -> TrainState:
        return initial_state(
            module,
            optimizer,
            normalization,
            facts.image_shape,
            seed,
            averaged=experiment.ema_decay is not None,
        )

    return initialize


def _make_evaluate(devices: Devices, objective: Objective, gather: Gather) -> ReplicatedFunction:
    """Makes `Programs.evaluate`."""
    step = evaluation_step(objective.module)

    def evaluate(state: TrainState, resident: Any, given: Any) -> Any:
        examples, weights = given
        batch: Batch = gather(resident, examples)
        return step(state, batch, weights)

    return devices.parallelize(evaluate, donate_state=False)


def _make_measure_statistics(
    devices: Devices, objective: Objective, gather: Gather
) -> ReplicatedFunction:
    """Makes `Programs.measure_statistics`."""
    step = statistics_step(objective)

    def measure(state: TrainState, resident: Any, given: Any) -> Any:
        return step(state, gather(resident, given))

    return devices.parallelize(measure, donate_state=False)
