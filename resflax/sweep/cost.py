"""What a sweep will cost: multiply-adds of every trial, and seconds where a rate is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from resflax.data.source import describe, training_examples
from resflax.errors import UsageError
from resflax.models.summary import summarize
from resflax.sweep.folder import SweepFolder
from resflax.sweep.progress import read_progress, read_result
from resflax.sweep.table import clock
from resflax.sweep.trials import Trial

# A training step computes the forward pass, and the gradients of inputs and of weights.
_PASSES = 3


@dataclass(frozen=True)
class Cost:
    """Of one trial."""

    trial: Trial
    macs: float | None
    """Multiply-adds of the whole training; None where the data is not at hand."""
    done: float
    """Fraction of it that is behind."""


def costs(folder: SweepFolder, trials: Sequence[Trial]) -> list[Cost]:
    """Of all trials. Every network is traced once. Raises `UsageError` for one that is unfit."""
    macs: dict[object, int] = {}
    found = []
    for trial in trials:
        experiment = trial.experiment
        facts = describe(experiment.data)
        key = (experiment.model, facts)
        if key not in macs:
            shape = facts.image_shape
            macs[key] = summarize(experiment.model, facts.num_classes, shape).macs
        images = _images(trial)
        progress = read_progress(folder.run(trial), experiment)
        done = progress.step / progress.total if progress.total else 0.0
        cost = None if images is None else _PASSES * macs[key] * images
        found.append(Cost(trial, cost, 1.0 if folder.is_done(trial) else done))
    return found


def _images(trial: Trial) -> float | None:
    """Training examples that the trial sees, one counted as often as it is seen."""
    experiment = trial.experiment
    if experiment.steps is not None:
        return experiment.steps * experiment.batch_size
    assert experiment.epochs is not None
    try:
        return experiment.epochs * training_examples(experiment.data)
    except UsageError:
        return None  # not prepared yet


def macs_per_second(folder: SweepFolder, found: Sequence[Cost]) -> float | None:
    """Of the finished trials together; None if there are none."""
    total, seconds = 0.0, 0.0
    for cost in found:
        result = read_result(folder.run(cost.trial))
        if result is not None and cost.macs is not None:
            total, seconds = total + cost.macs, seconds + result["seconds"]
    return total / seconds if seconds else None


def cost_table(folder: SweepFolder, found: Sequence[Cost]) -> Table:
    """The trials and what is left of each, for a terminal."""
    rate = macs_per_second(folder, found)
    known = [cost.macs for cost in found if cost.macs is not None]
    least = min(known, default=1.0)
    left = sum((1 - cost.done) * cost.macs for cost in found if cost.macs is not None)
    table = Table(title=f"{len(found)} trials", title_justify="left", show_footer=True)
    table.add_column("trial", "left to do", overflow="fold")
    table.add_column("folder")
    table.add_column("done", f"{sum(cost.done == 1 for cost in found)}", justify="right")
    table.add_column("multiply-adds", f"{left:.2e}" if known else "?", justify="right")
    table.add_column("relative", f"{left / least:.1f}", justify="right")
    table.add_column("time", clock(left / rate) if rate else "?", justify="right")
    for cost in found:
        macs = cost.macs
        table.add_row(
            cost.trial.label or "(the experiment)",
            cost.trial.hash,
            f"{cost.done:.0%}",
            "?" if macs is None else f"{macs:.2e}",
            "?" if macs is None else f"{macs / least:.1f}",
            "?" if macs is None or rate is None else clock(macs / rate),
        )
    return table
