"""Searches: Optuna proposes trials by their validation errors, also after a search was cut off."""

import json
from dataclasses import replace

import pytest

from resflax import Choice, Digits, Experiment, Integers, LogUniform, ResNet, Search, Uniform
from resflax.errors import UsageError
from resflax.sweep.launcher import Launcher
from resflax.sweep.search import SearchQueue
from resflax.sweep.standings import TrialState
from resflax.sweep.sweep_folder import SweepFolder

optuna = pytest.importorskip("optuna")

BASE = Experiment(
    name="base", model=ResNet(8), data=Digits(validation=100), batch_size=32, steps=50
)
SEARCH = Search(
    {
        "optimizer.learning_rate": LogUniform(1e-3, 1.0),
        "optimizer.momentum": Uniform(0.5, 0.95),
        "model.depth": Integers(8, 20, step=6),
        "model.shortcut": Choice(["none", "zero_pad"]),
    },
    trials=12,
    pruner="median",
)


def error_of(experiment, evaluation):
    """An error that is lowest at a learning rate of 0.1, and falls with every evaluation."""
    distance = abs(experiment.optimizer.learning_rate - 0.1)
    return min(1.0, distance + 1 / (1 + evaluation))


class Job:
    """A worker that writes one evaluation each time it is polled."""

    def __init__(self, folder, trial):
        self.trials, self._run = [trial], folder.run(trial)
        self._evaluations, self._stopped = 0, False
        self._run.path.mkdir(parents=True, exist_ok=True)
        self._run.metrics.write_text("")

    def poll(self):
        if self._stopped:
            return 143
        self._evaluations += 1
        error = error_of(self.trials[0].experiment, self._evaluations)
        line = {"step": 10 * self._evaluations, "split": "validation", "error": error}
        with open(self._run.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._evaluations < 5:
            return None
        result = {"status": "finished", "validation_error": error, "test_error": 1 - error}
        self._run.result.write_text(json.dumps(result))
        return 0

    def close(self):
        pass

    def stop(self):
        self._stopped = True

    def failure_reason(self, trial):
        return ""


class Executor:
    detached, capacity = False, 2

    def __init__(self, folder, stop_after=1000):
        self.folder, self.started, self.stop_after = folder, [], stop_after

    def start(self, groups):
        trials = [trial for (trial,) in groups]
        if len(self.started) >= self.stop_after:
            raise KeyboardInterrupt
        self.started += [trial.hash for trial in trials]
        return [Job(self.folder, trial) for trial in trials]

    def close(self):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("resflax.sweep.launcher.POLL_SECONDS", 0.0)


def launch(folder, executor):
    queue = SearchQueue(BASE, SEARCH, folder)
    return Launcher(folder, queue, executor, say=lambda text: None).run()


def test_all_trials_are_within_their_ranges_and_bad_ones_are_stopped(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    standings = launch(folder, Executor(folder))
    states = [s.state for s in standings]
    assert len(standings) == 12
    assert set(states) == {TrialState.DONE, TrialState.PRUNED}
    for standing in standings:
        fields = standing.trial.point.fields
        assert 1e-3 <= fields["optimizer.learning_rate"] <= 1
        assert 0.5 <= fields["optimizer.momentum"] <= 0.95
        assert fields["model.depth"] in (8, 14, 20)
        assert fields["model.shortcut"] in ("none", "zero_pad")

    def final(standing):
        return error_of(standing.trial.experiment, 5)

    done = [final(s) for s in standings if s.state is TrialState.DONE]
    pruned = [final(s) for s in standings if s.state is TrialState.PRUNED]
    assert min(done) < min(pruned)
    executor = Executor(folder)
    second_standings = launch(folder, executor)
    assert executor.started == []
    assert sorted(s.trial.hash for s in second_standings) == sorted(s.trial.hash for s in standings)


def test_a_search_that_was_cut_off_continues_and_completes_every_trial_once(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    first = Executor(folder, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        launch(folder, first)
    done = [h for h in first.started if (folder.path / "trials" / h / "result.json").exists()]
    second = Executor(folder)
    standings = launch(folder, second)
    assert len(standings) == 12
    assert not set(done) & set(second.started)
    assert {*first.started, *second.started} == {s.trial.hash for s in standings}


def test_a_launcher_that_was_killed_while_it_wrote_the_journal_stops_no_other(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    for number, torn in enumerate((b"", b'{"op_code":4,"wor', b"\0" * 100, b"{}")):
        with open(folder.search, "ab") as journal:
            journal.write(torn)
        # Optuna's own lock, as such a process leaves it; its target does not exist from there.
        link = folder.search.with_name("search.journal.lock")
        link.unlink(missing_ok=True)
        link.symlink_to("sweep/search.journal")
        queue = SearchQueue(BASE, SEARCH, folder)
        assert len(queue.known_trials()) == number
        for _ in range(number + 1):
            assert queue.take()
    assert len(SearchQueue(BASE, SEARCH, folder).known_trials()) == 4


def test_the_same_values_are_not_run_twice(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    search = Search({"model.shortcut": Choice(["none", "zero_pad"])}, trials=8, pruner="none")
    executor = Executor(folder)
    queue = SearchQueue(BASE, search, folder)
    standings = Launcher(folder, queue, executor, say=lambda text: None).run()
    assert len(standings) == len(executor.started) == 2


def test_a_search_without_held_out_examples_or_with_an_unknown_field_is_refused():
    without_validation = Experiment(name="base", model=ResNet(8), batch_size=32, steps=50)
    with pytest.raises(UsageError, match=r"Digits.validation is 0; a search needs examples held"):
        SearchQueue.check(without_validation, SEARCH)
    with pytest.raises(UsageError, match=r"no field model.deepth; did you mean model.depth\?"):
        SearchQueue.check(BASE, Search({"model.deepth": Integers(8, 20)}, trials=1))


def test_a_trial_is_pruned_before_its_last_step_but_not_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: True)
    epochs = replace(BASE, steps=None, epochs=10)  # 1,337 examples, so ceil(417.8) = 418 steps
    for experiment, last in ((BASE, 50), (epochs, 418)):
        folder = SweepFolder(tmp_path / str(last))
        folder.begin(experiment)
        queue = SearchQueue(experiment, SEARCH, folder)
        (trial,) = queue.take()
        run = folder.run(trial)
        run.path.mkdir(parents=True)
        stopped = []
        for step in (last - 1, last):
            line = {"step": step, "epoch": step * 32 / 1337, "split": "validation", "error": 0.5}
            with open(run.metrics, "a") as file:
                file.write(json.dumps(line) + "\n")
            stopped.append(queue.should_stop(trial))
        assert stopped == [True, False]


def test_optuna_prints_nothing_and_its_verbosity_is_restored(tmp_path, capfd):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    verbosity = optuna.logging.get_verbosity()
    launch(folder, Executor(folder))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity
    (folder.path / "elsewhere").mkdir()
    impossible = Search({"model.depth": Integers(7, 9, step=2)}, trials=1)
    queue = SearchQueue(BASE, impossible, SweepFolder(folder.path / "elsewhere"))
    with pytest.raises(UsageError, match=r"ResNet.depth is [79]"):
        queue.take()
    assert optuna.logging.get_verbosity() == verbosity
