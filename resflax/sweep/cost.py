"""The cost of a sweep: the multiply-adds of each trial, and its time once a trial has finished.

This module imports JAX.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from resflax.data.description import describe, training_examples
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models.summary import summarize
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trial_progress import read_trial_progress
from resflax.sweep.trials import Trial
from resflax.text import duration

# A training step computes the forward pass, the gradients of inputs and those of weights.
_PASSES = 3


@dataclass(frozen=True)
class TrialCost:
    """The cost of one trial, and how much of it is done."""

    trial: Trial
    macs: float | None
    """Multiply-adds of the whole training.

    None if the training's length is in epochs and the data set is not prepared."""
    done: float
    """Fraction of the training that is done."""


def estimate_costs(folder: SweepFolder, trials: Sequence[Trial]) -> list[TrialCost]:
    """Returns the cost of each trial. Each distinct network is traced only once.

    Raises `UsageError` if a network cannot be built for its data, or if the data is neither known
    nor prepared.
    """
    check_settings()
    forward_macs: dict[object, int] = {}
    costs = []
    for trial in trials:
        experiment = trial.experiment
        facts = describe(experiment.data)
        key = (experiment.model, facts)
        if key not in forward_macs:
            shape = facts.image_shape
            forward_macs[key] = summarize(experiment.model, facts.num_classes, shape).macs
        images = _training_images(experiment)
        macs = None if images is None else _PASSES * forward_macs[key] * images
        progress = read_trial_progress(folder.run(trial), experiment)
        done = progress.step / progress.total if progress.total else 0.0
        costs.append(TrialCost(trial, macs, 1.0 if folder.is_done(trial) else done))
    return costs


def _training_images(experiment: Experiment) -> float | None:
    """Number of images in the whole training; an image counts each time that it is used.

    None if that number depends on a data set that is not prepared.
    """
    if experiment.steps is not None:
        return experiment.steps * experiment.batch_size
    assert experiment.epochs is not None
    try:
        return experiment.epochs * training_examples(experiment.data)
    except UsageError:
        return None  # the data set is not prepared


def macs_per_second(folder: SweepFolder, costs: Sequence[TrialCost]) -> float | None:
    """Returns the mean speed of the finished trials; None if no trial is finished."""
    total, seconds = 0.0, 0.0
    for cost in costs:
        result = folder.run(cost.trial).read_result()
        if result is not None and cost.macs is not None:
            total, seconds = total + cost.macs, seconds + result["seconds"]
    return total / seconds if seconds else None


def cost_table(folder: SweepFolder, costs: Sequence[TrialCost]) -> Table:
    """A table of the trials with their costs; its last row shows what is left to do."""
    rate = macs_per_second(folder, costs)
    known_macs = [cost.macs for cost in costs if cost.macs is not None]
    least = min(known_macs, default=1.0)
    left = sum((1 - cost.done) * cost.macs for cost in costs if cost.macs is not None)
    table = Table(title=f"{len(costs)} trials", title_justify="left", show_footer=True)
    table.add_column("trial", "left to do", overflow="fold")
    table.add_column("folder")
    table.add_column("done", f"{sum(cost.done == 1 for cost in costs)}", justify="right")
    table.add_column("multiply-adds", f"{left:.2e}" if known_macs else "?", justify="right")
    table.add_column("relative", f"{left / least:.1f}", justify="right")
    table.add_column("time", duration(left / rate) if rate else "?", justify="right")
    for cost in costs:
        macs = cost.macs
        table.add_row(
            Text(cost.trial.label or "(the experiment)"),  # brackets in a name are no markup
            cost.trial.hash,
            f"{cost.done:.0%}",
            "?" if macs is None else f"{macs:.2e}",
            "?" if macs is None else f"{macs / least:.1f}",
            "?" if macs is None or rate is None else duration(macs / rate),
        )
    return table
