"""A session of a run: one process that trains in the run's folder until the end or a signal."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from rich.console import Console

from resflax.declarations.data import Streamed
from resflax.devices import hosts
from resflax.devices.compilation import keep_compiled
from resflax.devices.kernels import kernels_note
from resflax.devices.memory import exhaustion
from resflax.devices.randomness import pinned_randomness
from resflax.devices.settings import check_settings
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment, to_json
from resflax.parts.user_files import UserFiles, changes
from resflax.runs import environment, metrics
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.git import changes_sha256, experiment_state
from resflax.runs.initial_weights import with_initial_weights
from resflax.runs.initialization import first_state
from resflax.runs.lock import locked, locked_anew
from resflax.runs.loop import TrainingLoop
from resflax.runs.plan import Plan, make_plan
from resflax.runs.programs import KeptPrograms
from resflax.runs.resuming import newest_complete
from resflax.runs.run_folder import RunFolder, Status
from resflax.runs.trained import say_copies
from resflax.runs.versions import version_changes
from resflax.terminal.display import Display
from resflax.terminal.interruption import Interruption


@pinned_randomness()
def train(
    experiment: Experiment,
    folder: RunFolder,
    console: Console,
    files: UserFiles | None = None,
    programs: KeptPrograms | None = None,
) -> dict[str, Any]:
    """Trains an experiment in its folder and returns the result; continues a run that was begun.

    Args:
      experiment: the experiment.
      folder: the run's folder.
      console: where progress is printed.
      files: the experiment file and its modules, which the folder keeps.
      programs: the programs of earlier runs of this process.

    Raises:
      UsageError: before anything is written, if the experiment, its data or the folder cannot be
        used, or if another process trains in the folder.
      TrainingError: if a loss or gradient is not finite, no checkpoint of the run can be read,
        something cannot be written, or memory runs out.
      Interrupted: on a signal of `interruption.SIGNALS`, after the run was saved.
    """
    check_settings()
    with Display(console) as display, contextlib.ExitStack() as held:
        session = Session(experiment, folder, display, held, files)
        if not session.open():
            return session.finished()
        keep_compiled()
        say_copies(session.experiment, display.say)
        if (note := kernels_note()) is not None:
            display.say(note)
        with exhaustion(UsageError):
            plan = make_plan(session.experiment, display, kept=programs)
            held.callback(plan.training_feed.close)
        interruption = Interruption(hosts.highest)
        loop = session.begin(plan, interruption)
        with interruption, exhaustion(TrainingError):
            return loop.finish(loop.run())


class Session:
    """The start of a session: everything that comes before its first step."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        display: Display,
        held: contextlib.ExitStack,
        files: UserFiles | None = None,
    ) -> None:
        """Writes nothing yet. `held` will hold the folder's lock until `held` is closed."""
        self.files = files
        weights = hosts.on_first(lambda: with_initial_weights(experiment, folder).initial_weights)
        if weights is not None:
            experiment = dataclasses.replace(experiment, initial_weights=weights)
        self.experiment, self.folder, self.display = experiment.resolved(), folder, display
        self._status = Status.NEW
        self._held = held
        self._make_folder_stay: Callable[[], None] = lambda: None
        self._newest: int | None = None
        """Step of the checkpoint from which the run continues."""

    def open(self) -> bool:
        """Locks and inspects the folder; returns False if it holds this run and it is finished.

        Writes nothing except the folder and its lock.
        """
        hosts.check_same("experiments", json.dumps(to_json(self.experiment)))
        status, self._newest = hosts.on_first(self._look)
        self._status = Status[status]
        return self._status is not Status.FINISHED

    def _look(self) -> tuple[str, int | None]:
        """The name of the folder's status, and the checkpoint from which to continue."""
        status = self.folder.status(self.experiment)
        path, say = self.folder.path, self.display.say
        if status is Status.UNFINISHED:
            self._held.enter_context(locked(path, say))
        elif status is Status.NEW:
            self._make_folder_stay = self._held.enter_context(locked_anew(path, say))
        # The process that held the lock before may have finished just now.
        status = self.folder.status(self.experiment)
        newest = None
        if status is not Status.FINISHED:
            lines = metrics.read_lines(self.folder.metrics)
            newest = newest_complete(Checkpoints(self.folder.checkpoints), lines, say)
        return status.name, newest

    def begin(
        self,
        plan: Plan,
        interruption: Interruption,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> TrainingLoop:
        """Writes the first files of the run or of this session, and returns the training loop.

        Args:
          plan: the run's plan.
          interruption: ends the loop when a signal comes.
          notes: further entries for this session in environment.json.
        """
        with exhaustion(UsageError):
            first, origin = first_state(self.experiment, plan, self._newest, self.display)
        here = (
            environment.describe_environment()
            | {"data_sha256": plan.data_sha256}
            | origin
            | dict(notes)
        )
        source_changes, experiment_changes = environment.source_changes(), ""
        if (sha256 := changes_sha256(source_changes)) is not None:
            here["source_changes_sha256"] = sha256
        if self.files is not None:
            here["experiment_git"], experiment_changes = experiment_state(self.files.main)
        if self._status is Status.UNFINISHED:
            hosts.on_first(partial(_compare, self.experiment, plan, self.folder, self.display))
            hosts.on_first(partial(_compare_software, here, self))
        self._make_folder_stay()
        hosts.on_first(
            lambda: self.folder.begin(
                self.experiment, here, source_changes, self.files, experiment_changes
            )
        )
        hosts.on_all(self.folder.read_experiment)  # the other hosts must see the folder too
        return TrainingLoop(
            self.experiment, plan, first, self._newest, self.folder, self.display, interruption
        )

    def finished(self) -> dict[str, Any]:
        """Reports that the run is finished, and returns its result."""
        self.display.say(f"{self.folder.path} holds this run, finished: nothing to do")
        result = self.folder.read_result()
        assert result is not None
        return result


def _compare(experiment: Experiment, plan: Plan, folder: RunFolder, display: Display) -> None:
    """Prints how devices and `parallel` have changed since the run's earlier sessions.

    Raises `UsageError` if the data have changed.
    """
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


def _compare_software(here: dict[str, Any], session: Session) -> None:
    """Prints how versions and the experiment's files have changed since earlier sessions."""
    sessions, say = session.folder.sessions(), session.display.say
    streamed = isinstance(session.experiment.data, Streamed)
    changed = version_changes(sessions, here, streamed=streamed)
    if changed is not None:
        say(changed)
    noted = [x["experiment_files"]["files"] for x in sessions if "experiment_files" in x]
    if noted and session.files is not None and (files := changes(noted[-1], session.files)):
        say(f"{', '.join(files)} changed since the run's last session; code/ keeps both")
