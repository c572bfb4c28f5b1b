"""A search's trials: proposed by Optuna, judged by their errors on the held-out examples."""

from collections.abc import Sequence
from typing import Any

from resflax.declarations.checks import refuse
from resflax.declarations.sweeps import Choice, Integers, LogUniform, Point, Range, Search
from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json, with_fields
from resflax.sweep.folder import SweepFolder
from resflax.sweep.progress import read_result, validation_errors
from resflax.sweep.trials import Trial, make_trial


class SearchQueue:
    """Asks Optuna for trials and tells it how they went; its study is in the sweep folder."""

    def __init__(self, experiment: Experiment, search: Search, folder: SweepFolder) -> None:
        self.check(experiment, search)
        self._optuna = _import_optuna()
        self._experiment, self._search, self._folder = experiment, search, folder
        self._ranges = {name: self._distribution(r) for name, r in search.fields.items()}
        self._study = self._open()
        self._asked: dict[str, Any] = {}
        """Optuna's trials, by hash."""
        self._trials: list[Trial] = []
        self._waiting: list[Trial] = []
        self._told: dict[str, int] = {}
        """Evaluations that Optuna knows, by hash."""
        self._before: dict[str, str] = {}
        """What had become of earlier trials, by hash."""
        states = self._optuna.trial.TrialState
        ended = {states.COMPLETE: "done", states.PRUNED: "pruned", states.FAIL: "failed"}
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state is states.WAITING:
                continue
            trial = self._trial(frozen.params)
            if trial.hash in self._asked:
                continue
            self._trials.append(trial)
            self._asked[trial.hash] = self._optuna.trial.Trial(self._study, frozen._trial_id)
            self._told[trial.hash] = len(frozen.intermediate_values)
            if frozen.state is states.RUNNING:  # of a launcher that was cut off
                self._waiting.append(trial)
            else:
                self._before[trial.hash] = ended[frozen.state]

    @staticmethod
    def check(experiment: Experiment, search: Search) -> None:
        """Raises `UsageError` if nothing is held out, a field is unknown, or Optuna is missing."""
        if experiment.data.validation == 0:
            refuse(
                experiment.data,
                "validation",
                "a search needs examples held out to choose by; the test split is not for choosing",
            )
        known = flat_json(experiment)
        for name in search.fields:
            if name not in known:
                with_fields(experiment, {name: None})  # says what it might be
        _import_optuna()

    def _open(self) -> Any:
        optuna, search = self._optuna, self._search
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = optuna.storages.journal.JournalFileBackend(str(self._folder.search))
        pruner = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1),
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4),
            "none": optuna.pruners.NopPruner,
        }[search.pruner]()
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="search",
            direction="minimize",
            pruner=pruner,
            load_if_exists=True,
        )
        # Another seed for every session, or it would propose its first values again.
        seed = search.seed + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return study

    def _distribution(self, values: Range) -> Any:
        kinds = self._optuna.distributions
        if isinstance(values, Choice):
            return kinds.CategoricalDistribution(tuple(values.values))
        if isinstance(values, Integers):
            return kinds.IntDistribution(values.low, values.high, step=values.step)
        log = isinstance(values, LogUniform)
        return kinds.FloatDistribution(values.low, values.high, log=log)

    def _trial(self, params: dict[str, Any]) -> Trial:
        return make_trial(self._experiment, Point(params))

    def known(self) -> Sequence[Trial]:
        """Those proposed so far."""
        return self._trials

    def before(self, trial: Trial) -> str | None:
        """What the study was told when it was opened."""
        return self._before.get(trial.hash)

    def take(self) -> Sequence[Trial]:
        """One that was cut off, or a new proposal while there are fewer than declared."""
        if self._waiting:
            return [self._waiting.pop(0)]
        while len(self._study.get_trials(deepcopy=False)) < self._search.trials:
            asked = self._study.ask(self._ranges)
            try:
                trial = self._trial(asked.params)
            except UsageError:
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
                raise
            if trial.hash not in self._asked:
                self._asked[trial.hash] = asked
                self._told[trial.hash] = 0
                self._trials.append(trial)
                return [trial]
            self._tell_again(asked, trial)
        return ()

    def _tell_again(self, asked: Any, trial: Trial) -> None:
        """The same values as an earlier trial's need not be run again."""
        result = read_result(self._folder.run(trial))
        if result is None:
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, result["validation_error"])

    def give_back(self, trial: Trial) -> None:
        """It goes before new proposals."""
        self._waiting.append(trial)

    def watch(self, trial: Trial) -> bool:
        """Reports what was measured since, and whether it has fallen behind."""
        asked = self._asked[trial.hash]
        errors = validation_errors(self._folder.run(trial))
        behind = False
        for place, step in enumerate(sorted(errors), start=1):
            if place > self._told[trial.hash]:
                asked.report(errors[step], place)
                self._told[trial.hash] = place
                behind = bool(asked.should_prune())
        return behind

    def settle(self, trial: Trial, state: str) -> None:
        """Tells the study, once."""
        states = self._optuna.trial.TrialState
        asked = self._asked[trial.hash]
        if state == "done":
            result = read_result(self._folder.run(trial))
            assert result is not None
            self._study.tell(asked, result["validation_error"], skip_if_finished=True)
        else:
            told = states.PRUNED if state == "pruned" else states.FAIL
            self._study.tell(asked, state=told, skip_if_finished=True)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("a search needs Optuna: pip install -e '.[search]'") from None
    return optuna
