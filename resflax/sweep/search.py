"""The queue of a search: Optuna proposes its trials and judges them by their validation errors."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resflax.declarations.checks import refuse
from resflax.declarations.sweeps import Choice, Integers, LogUniform, Point, Range, Search
from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json, with_fields
from resflax.locks import in_turn
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trial_progress import read_trial_progress, read_validation_errors
from resflax.sweep.trials import Trial, make_trial


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from printing anything but errors. It can also be used as a decorator."""
    logging = _import_optuna().logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


class _JournalLock:
    """Optuna's lock of its journal as a kernel lock.

    Optuna's own lock is a link in the folder. If its process is killed, that link stays, and other
    processes wait for ever.
    """

    def __init__(self, journal: Path) -> None:
        self._path, self._held = journal.with_suffix(".lock"), contextlib.ExitStack()

    def acquire(self) -> bool:
        """Waits for the lock. Raises `UsageError` if another process does not end."""
        self._held.enter_context(in_turn(self._path))
        return True

    def release(self) -> None:
        """Ends the lock."""
        self._held.close()


def _cut_off_torn_end(journal: Path) -> None:
    """Removes the end of a journal from its first damaged line on.

    A process that was killed while it wrote leaves half a line. Optuna would write the next line
    after it, and then refuse the journal.
    """
    if not journal.exists():
        return
    whole = 0
    with open(journal, "rb") as file:
        for line in file:
            try:
                json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
    if whole < journal.stat().st_size:
        os.truncate(journal, whole)


class SearchQueue:
    """Asks Optuna for trials and tells it their errors. Its study is a file in the sweep folder.

    Args:
      experiment: the experiment whose fields the search replaces.
      search: the fields and their ranges.
      folder: the sweep's folder, which must exist.

    Raises:
      UsageError: for the same reasons as `check`.
    """

    @_quiet_optuna()
    def __init__(self, experiment: Experiment, search: Search, folder: SweepFolder) -> None:
        self.check(experiment, search)
        self._optuna = _import_optuna()
        self._experiment, self._search, self._folder = experiment, search, folder
        self._distributions = {
            name: self._distribution(values) for name, values in search.fields.items()
        }
        with folder.in_turn():
            self._study = self._open_study()
        self._optuna_trials: dict[str, Any] = {}
        """Optuna's trial objects, by hash."""
        self._trials: list[Trial] = []
        self._waiting: list[Trial] = []
        self._reported: dict[str, int] = {}
        """Number of evaluations that Optuna was told, by hash."""
        self._earlier_ends: dict[str, str] = {}
        """States in which the trials of earlier sessions ended, by hash."""
        self._restore_trials()

    @staticmethod
    def check(experiment: Experiment, search: Search) -> None:
        """Checks that a search can run.

        Raises `UsageError` if no examples are held out, a field is unknown, or Optuna is missing.
        """
        if experiment.data.validation == 0:
            refuse(
                experiment.data,
                "validation",
                "a search needs examples held out to choose by; the test split is not for choosing",
            )
        known_fields = flat_json(experiment)
        for name in search.fields:
            if name not in known_fields:
                with_fields(experiment, {name: None})  # raises an error that suggests a field
        _import_optuna()

    def _open_study(self) -> Any:
        optuna, search = self._optuna, self._search
        lock = _JournalLock(self._folder.search)
        lock.acquire()
        try:
            _cut_off_torn_end(self._folder.search)
        finally:
            lock.release()
        backend = optuna.storages.journal.JournalFileBackend(str(self._folder.search), lock)
        pruner = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1),
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4),
            "none": optuna.pruners.NopPruner,
        }[search.pruner]()
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="search",
            direction="minimize",
            pruner=pruner,
            load_if_exists=True,
        )

    def _restore_trials(self) -> None:
        """Reads the trials of earlier sessions from the study."""
        states = self._optuna.trial.TrialState
        end_of_state = {states.COMPLETE: "done", states.PRUNED: "pruned", states.FAIL: "failed"}
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state is states.WAITING:
                continue
            trial = self._trial_of(frozen.params)
            if trial.hash in self._optuna_trials:
                continue
            self._trials.append(trial)
            self._optuna_trials[trial.hash] = self._optuna.trial.Trial(
                self._study, frozen._trial_id
            )
            self._reported[trial.hash] = len(frozen.intermediate_values)
            if frozen.state is states.RUNNING:  # its launcher was interrupted
                self._waiting.append(trial)
            else:
                self._earlier_ends[trial.hash] = end_of_state[frozen.state]

    def _distribution(self, values: Range) -> Any:
        distributions = self._optuna.distributions
        if isinstance(values, Choice):
            return distributions.CategoricalDistribution(tuple(values.values))
        if isinstance(values, Integers):
            return distributions.IntDistribution(values.low, values.high, step=values.step)
        log = isinstance(values, LogUniform)
        return distributions.FloatDistribution(values.low, values.high, log=log)

    def _trial_of(self, params: dict[str, Any]) -> Trial:
        return make_trial(self._experiment, Point(params))

    def known_trials(self) -> Sequence[Trial]:
        """The trials that have been proposed so far."""
        return self._trials

    def earlier_end(self, trial: Trial) -> str | None:
        """How the trial had ended (`done`, `failed` or `pruned`) before this session, if it had."""
        return self._earlier_ends.get(trial.hash)

    @_quiet_optuna()
    def take(self) -> Sequence[Trial]:
        """An interrupted trial, or else a new one; empty once as many trials as declared exist.

        Raises `UsageError` if the experiment refuses the proposed values.
        """
        if self._waiting:
            return [self._waiting.pop(0)]
        with self._folder.in_turn():  # or several launchers together would make too many trials
            return self._propose()

    def _propose(self) -> Sequence[Trial]:
        while (number := len(self._study.get_trials(deepcopy=False))) < self._search.trials:
            # Each trial has a seed of its own: another session or another launcher would propose
            # the same values again.
            seed = self._search.seed + number
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            proposal = self._study.ask(self._distributions)
            try:
                trial = self._trial_of(proposal.params)
            except UsageError:
                self._study.tell(proposal, state=self._optuna.trial.TrialState.FAIL)
                raise
            if trial.hash not in self._optuna_trials:
                self._optuna_trials[trial.hash] = proposal
                self._reported[trial.hash] = 0
                self._trials.append(trial)
                return [trial]
            self._tell_repetition(proposal, trial)
        return ()

    def _tell_repetition(self, proposal: Any, trial: Trial) -> None:
        """Answers a proposal that repeats an earlier trial with that trial's result.

        The trial is not run again. If it has no result, the proposal has failed.
        """
        result = self._folder.run(trial).read_result()
        if result is None:
            self._study.tell(proposal, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(proposal, result["validation_error"])

    def give_back(self, trial: Trial) -> None:
        """Takes back a trial, which is started again before new proposals."""
        self._waiting.append(trial)

    @_quiet_optuna()
    def should_stop(self, trial: Trial) -> bool:
        """Reports the trial's new evaluations, and returns whether the pruner stops it.

        It never stops a trial at its last step, which has nothing left to save and gets a result.
        """
        optuna_trial = self._optuna_trials[trial.hash]
        errors = read_validation_errors(self._folder.run(trial))
        stop = False
        for number, step in enumerate(sorted(errors), start=1):
            if number > self._reported[trial.hash]:
                optuna_trial.report(errors[step], number)
                self._reported[trial.hash] = number
                stop = bool(optuna_trial.should_prune())
        progress = read_trial_progress(self._folder.run(trial), trial.experiment)
        return stop and (progress.total is None or progress.step < progress.total)

    @_quiet_optuna()
    def settle(self, trial: Trial, state: str) -> None:
        """Tells the study how a trial has ended, unless the study knows it already."""
        with self._folder.in_turn():  # another launcher may tell the same
            self._tell(trial, state)

    def _tell(self, trial: Trial, state: str) -> None:
        optuna_trial = self._optuna_trials[trial.hash]
        if state == "done":
            result = self._folder.run(trial).read_result()
            assert result is not None
            self._study.tell(optuna_trial, result["validation_error"], skip_if_finished=True)
        else:
            states = self._optuna.trial.TrialState
            end = states.PRUNED if state == "pruned" else states.FAIL
            self._study.tell(optuna_trial, state=end, skip_if_finished=True)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("a search needs Optuna: pip install 'resflax[search]'") from None
    return optuna
