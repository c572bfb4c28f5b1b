"""The trained network of a run, read from one of its checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from resflax.data.normalization import Normalization
from resflax.devices import hosts
from resflax.devices.settings import check_settings
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.runs import metrics
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder


@dataclass(frozen=True)
class TrainedNetwork:
    """The weights of a run's network, with everything that is needed to apply them."""

    experiment: Experiment
    variables: dict[str, Any]
    """`params` and `batch_stats` by module path, as evaluations use them: the moving averages if
    the run has them. Units are not stacked, and the arrays are on one local device."""
    normalization: Normalization
    step: int
    """Number of steps for which the network was trained."""


def load_trained(
    folder: RunFolder, say: Callable[[str], None], *, best: bool = False
) -> TrainedNetwork:
    """Reads the newest good checkpoint of a run, or its best one.

    Args:
      folder: the run's folder.
      say: is called with a line for every unfinished or damaged checkpoint that is skipped.
      best: whether to read the checkpoint with the lowest validation error up to the newest one.

    Raises:
      UsageError: if the folder is not a run folder or has no checkpoint, or if the best one is
        wanted of a run that keeps none or has none yet.
      TrainingError: if all of its checkpoints are damaged, or the best one is.
    """
    check_settings()
    experiment = folder.read_experiment()
    say_copies(experiment, say)
    checkpoints = Checkpoints(folder.checkpoints)
    step = hosts.on_first(partial(checkpoints.newest_good, say))
    if step is None:
        raise UsageError(f"{folder.path} has no checkpoint yet")
    if best:
        step = _best_step(folder, experiment, step)
    return read_trained(experiment, checkpoints, step)


def say_copies(experiment: Experiment, say: Callable[[str], None]) -> None:
    """Says which code of a user's own is run from a copy that a run kept.

    Raises `UsageError` if such code may not be run.
    """
    for own in experiment.own_classes.values():
        if own.uses_copy:
            copy = own.source.root / own.source.files[0].path
            say(f"running {copy}, because {own.file} has changed or is gone")


def _best_step(folder: RunFolder, experiment: Experiment, newest: int) -> int:
    """The best step up to the newest good checkpoint. Raises as `load_trained` does."""
    if not experiment.keep_best:
        raise UsageError(
            f"{folder.path} keeps no best checkpoint: that takes --keep-best True in training"
        )
    lines = hosts.on_first(partial(metrics.read_lines, folder.metrics))
    steps = metrics.best_steps([line for line in lines if line["step"] <= newest])
    if not steps:
        raise UsageError(f"{folder.path} has no best checkpoint yet: nothing was evaluated")
    fault = hosts.on_first(partial(Checkpoints(folder.checkpoints).fault, steps[-1]))
    if fault is not None:
        raise TrainingError(f"{folder.path}: the best checkpoint, of step {steps[-1]}: {fault}")
    return steps[-1]


def read_trained(experiment: Experiment, checkpoints: Checkpoints, step: int) -> TrainedNetwork:
    """Reads the checkpoint of one step. May raise any error if the checkpoint is damaged."""
    saved = checkpoints.restore_arrays(step)
    variables = {name: saved[name] or {} for name in ("params", "batch_stats")}
    return TrainedNetwork(experiment, variables, Normalization(**saved["normalization"]), step)
