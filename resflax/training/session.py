"""A session of a run: one process in its folder, from what is there to the end or a signal."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.training import environment
from resflax.training.checkpoints import Checkpoints
from resflax.training.compilation import keep_compiled
from resflax.training.display import Display
from resflax.training.interruption import Interruption
from resflax.training.lock import locked, locked_anew
from resflax.training.loop import Run
from resflax.training.memory import exhaustion
from resflax.training.plan import Plan, make_plan
from resflax.training.run_folder import RunFolder, Status
from resflax.training.start import start_from
from resflax.training.state import TrainState


def train(experiment: Experiment, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Trains the experiment in its folder, from where it stands there; returns its result.

    Raises:
      UsageError: before anything is written, if the experiment, its data or the folder are unfit,
        or another process runs there.
      TrainingError: if a loss or gradient is not finite, no checkpoint of the run can be read,
        something cannot be written, or memory runs out.
      Interrupted: on Ctrl-C, SIGTERM or SIGUSR1, after the run was saved.
    """
    experiment = experiment.resolved()
    with Display(console) as display, contextlib.ExitStack() as held:
        status, stays = folder.status(experiment), lambda: None
        if status is Status.UNFINISHED:
            held.enter_context(locked(folder.path, display.say))
        elif status is Status.NEW:
            stays = held.enter_context(locked_anew(folder.path, display.say))
        status = folder.status(experiment)  # the process before may have ended just now
        if status is Status.FINISHED:
            return _finished(folder, display)

        newest = Checkpoints(folder.checkpoints).newest_good(display.say)
        keep_compiled()
        with exhaustion(UsageError):
            plan = make_plan(experiment, display)
            held.callback(plan.train.close)
            first, origin = _first(experiment, plan, newest, display)
        if status is Status.UNFINISHED:
            _compare(experiment, plan, folder, display)
        stays()
        here = environment.describe() | {"data_sha256": plan.data_sha256} | origin
        folder.begin(experiment, here, environment.source_changes())
        with Interruption() as interruption, exhaustion(TrainingError):
            run = Run(experiment, plan, first, newest, folder, display, interruption)
            return run.finish(run.go())


def _finished(folder: RunFolder, display: Display) -> dict[str, Any]:
    display.say(f"{folder.path} holds this run, finished: nothing to do")
    result = folder.read_result()
    assert result is not None
    return result


def _first(
    experiment: Experiment, plan: Plan, newest: int | None, display: Display
) -> tuple[Callable[[], TrainState], dict[str, Any]]:
    """What makes the state before the first step, and for environment.json where it is from."""
    if experiment.initialize_from is None:
        return plan.initial, {}
    path = Path(experiment.initialize_from)

    def first() -> TrainState:
        return start_from(path, experiment, plan.initial(), lambda text: None)[0]

    if newest is not None:
        return first, {}  # continued: the first weights no longer matter
    _, origin = start_from(path, experiment, plan.initial(), display.say)
    return first, {"initialized_from": origin}


def _compare(experiment: Experiment, plan: Plan, folder: RunFolder, display: Display) -> None:
    """Says what is not as in the run's last session; refuses other data."""
    last = folder.last_environment()
    if last.get("data_sha256", plan.data_sha256) != plan.data_sha256:
        raise UsageError(
            f"{folder.path} was trained on other pictures or labels than {experiment.data.name} "
            "has now; bring those back, or name another folder with --run-dir"
        )
    begun = folder.read_experiment().parallel
    if begun != experiment.parallel:
        display.say(f"begun with parallel {begun}, continued with {experiment.parallel}")
    before, now = len(last.get("devices", [])), len(plan.devices.devices)
    if before not in (0, now):
        effect = "batch norm is synchronized, so results are equal up to rounding"
        if experiment.batch_norm == "per_device":
            size = experiment.batch_size
            effect = f"batch norm now sees {size // now} examples at a time, not {size // before}"
        display.say(f"last on {before} devices, continued on {now}: {effect}")
