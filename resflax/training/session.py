"""A session of a run: one process in its folder, from what is there to the end or a signal."""

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment, to_json
from resflax.training import environment, hosts
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
    with Display(console) as display, contextlib.ExitStack() as held:
        session = Session(experiment, folder, display, held)
        if not session.open():
            return session.finished()
        keep_compiled()
        with exhaustion(UsageError):
            plan = make_plan(session.experiment, display)
            held.callback(plan.train.close)
        interruption = Interruption(hosts.highest)
        run = session.begin(plan, interruption)
        with interruption, exhaustion(TrainingError):
            return run.finish(run.go())


class Session:
    """One process in a run's folder, up to its first step."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        display: Display,
        held: contextlib.ExitStack,
    ) -> None:
        self.experiment, self.folder, self.display = experiment.resolved(), folder, display
        self.status = Status.NEW
        self._held = held
        """Holds the folder's lock, once there is a folder."""
        self._stays: Callable[[], None] = lambda: None
        """Says that a folder made for its lock is to stay."""
        self._newest: int | None = None

    def open(self) -> bool:
        """Looks at the folder; False if it holds the run, finished. Writes nothing but a lock."""
        hosts.check_same("experiments", json.dumps(to_json(self.experiment)))
        status, self._newest = hosts.by_first(self._look)
        self.status = Status[status]
        return self.status is not Status.FINISHED

    def _look(self) -> tuple[str, int | None]:
        """The name of the folder's status, and the newest good checkpoint."""
        self.status = self.folder.status(self.experiment)
        path, say = self.folder.path, self.display.say
        if self.status is Status.UNFINISHED:
            self._held.enter_context(locked(path, say))
        elif self.status is Status.NEW:
            self._stays = self._held.enter_context(locked_anew(path, say))
        # The process before may have ended just now.
        self.status = self.folder.status(self.experiment)
        newest = None
        if self.status is not Status.FINISHED:
            newest = Checkpoints(self.folder.checkpoints).newest_good(say)
        return self.status.name, newest

    def begin(
        self,
        plan: Plan,
        interruption: Interruption,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> Run:
        """Makes the folder the run's.

        Args:
          plan: the run's.
          interruption: ends it.
          notes: of this session, for environment.json.
        """
        with exhaustion(UsageError):
            first, origin = _first(self.experiment, plan, self._newest, self.display)
        if self.status is Status.UNFINISHED:
            hosts.by_first(partial(_compare, self.experiment, plan, self.folder, self.display))
        self._stays()
        here = environment.describe() | {"data_sha256": plan.data_sha256} | origin | dict(notes)
        changes = environment.source_changes()
        hosts.by_first(lambda: self.folder.begin(self.experiment, here, changes))
        hosts.by_all(self.folder.read_experiment)  # the others see the folder too
        return Run(
            self.experiment, plan, first, self._newest, self.folder, self.display, interruption
        )

    def finished(self) -> dict[str, Any]:
        """The result that is there."""
        self.display.say(f"{self.folder.path} holds this run, finished: nothing to do")
        result = self.folder.read_result()
        assert result is not None
        return result


def _first(
    experiment: Experiment, plan: Plan, newest: int | None, display: Display
) -> tuple[Callable[[], TrainState], dict[str, Any]]:
    """What makes the state before the first step, and for environment.json where it is from."""

    def drawn() -> TrainState:
        return plan.initial(experiment.seed)

    if experiment.initialize_from is None:
        return drawn, {}
    path = Path(experiment.initialize_from)

    def first() -> TrainState:
        return start_from(path, experiment, drawn(), lambda text: None)[0]

    if newest is not None:
        return first, {}  # continued: the first weights no longer matter
    _, origin = start_from(path, experiment, drawn(), display.say)
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
