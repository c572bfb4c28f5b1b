"""What a sweep declares, what its launcher runs, and what cutting it off does to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import Choice, Experiment, Grid, Integers, LogUniform, ResNet, Search
from resflax.command_line import load_experiment, load_sweep
from resflax.declarations.sweeps import Point, Uniform
from resflax.errors import Interrupted, UsageError
from resflax.experiment import flat_json, with_fields
from resflax.report.papers import deviations, figure_of
from resflax.sweep.executors import LocalJob, flags_of_place
from resflax.sweep.folder import SweepFolder, claim
from resflax.sweep.launcher import Launcher, State
from resflax.sweep.queues import GridQueue
from resflax.sweep.search import SearchQueue
from resflax.sweep.trials import Trial, expand

ROOT = Path(__file__).parents[1]
BASE = Experiment(name="base", model=ResNet(20), batch_size=32, steps=10)
FILE = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(validation=100), batch_size=48, steps=40,
    schedule=Cosine(warmup_steps=5), log_every=7, evaluate_every=20, checkpoint_every=9,
)
sweep = Grid({"model.shortcut": ["none", "zero_pad"], "seed": range(2)})
"""


# Declarations


def test_a_grid_is_the_product_and_the_last_field_varies_fastest():
    trials = expand(BASE, Grid({"model.depth": [20, 32], "seed": range(3)}))
    found = [(t.experiment.model.depth, t.experiment.seed) for t in trials]
    assert found == [(20, 0), (20, 1), (20, 2), (32, 0), (32, 1), (32, 2)]
    assert trials[4].label == "depth 32, seed 1"


def test_fields_in_a_tuple_vary_together():
    grid = Grid({("model.depth", "batch_size"): [(20, 8), (32, 16)], "seed": [0, 1]})
    found = [(t.experiment.model.depth, t.experiment.batch_size) for t in expand(BASE, grid)]
    assert Counter(found) == {(20, 8): 2, (32, 16): 2}


def test_variants_are_named_sets_of_fields():
    variants: list[dict[str, Any]] = [
        {"name": "original"},
        {"name": "gated", "model.shortcut": "shortcut_gating", "model.gate_bias": -3.0},
    ]
    trials = expand(BASE, Grid({"seed": range(2)}, variants=variants))
    assert [t.label for t in trials] == [
        "original, seed 0", "original, seed 1", "gated, seed 0", "gated, seed 1",
    ]  # fmt: skip
    assert trials[2].experiment.model == ResNet(20, shortcut="shortcut_gating", gate_bias=-3.0)


def test_a_value_may_be_a_whole_part():
    nets = [ResNet(20), ResNet(20, shortcut="none")]
    found = [t.experiment.model for t in expand(BASE, Grid({"model": nets}))]
    assert found == nets


@given(
    st.lists(st.sampled_from([8, 14, 20, 26]), min_size=1, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
)
@settings(deadline=None, max_examples=20)
def test_every_trial_is_what_its_fields_say_and_has_a_hash_of_its_own(depths, seeds):
    trials = expand(BASE, Grid({"model.depth": depths, "seed": seeds}))
    assert len({t.hash for t in trials}) == len(trials) == len(depths) * len(seeds)
    for trial in trials:
        flat = flat_json(trial.experiment)
        assert {name: flat[name] for name in trial.point.fields} == trial.point.fields
        assert trial.experiment == with_fields(BASE, trial.point.fields)


def test_steps_replace_epochs_and_the_other_way_round():
    assert with_fields(BASE, {"epochs": 2}).steps is None
    assert with_fields(with_fields(BASE, {"epochs": 2}), {"steps": 5}).epochs is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grid({}), "Grid.fields is empty; a sweep varies at least one field"),
        (lambda: Grid({"seed": []}), "Grid: seed has no values"),
        (lambda: Grid({"seed": "12"}), "Grid: seed is given '12'; it must be a list of values"),
        (lambda: Grid({"seed": [1, 1]}), "Grid: seed: 1 is there twice"),
        (lambda: Grid({"seed": [1], ("seed", "steps"): [(1, 2)]}), "seed varies in two places"),
        (lambda: Grid({("seed", "steps"): [(1,)]}), "is given (1,); it must be 2 values"),
        (lambda: Grid({}, variants=[{"seed": 1}]), "the variant {'seed': 1} needs a name"),
        (lambda: Grid({}, variants=[{"name": "a"}, {"name": "a"}]), "'a' is there twice"),
        (lambda: LogUniform(0, 1), "LogUniform.low is 0.0; a logarithm needs it above 0"),
        (lambda: Uniform(2, 1), "Uniform.high is 1.0; it must be above low, 2.0"),
        (lambda: Integers(1, 9, step=0), "Integers.step is 0; it must be at least 1"),
        (lambda: Choice(["a"]), "Choice.values is ['a']; it must be two or more"),
        (
            lambda: Search(cast(Any, {"seed": [1]}), trials=3),
            "Search: seed is given [1]; it must be Uniform",
        ),
        (lambda: Search({"seed": Integers(0, 9)}, trials=0), "Search.trials is 0"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(make, said):
    with pytest.raises(UsageError) as refused:
        make()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model.deepth": [20]}, "has no field model.deepth; did you mean model.depth?"),
        ({"modle.depth": [20]}, "did you mean model.depth?"),
        ({"sede": [1]}, "has no field sede; did you mean seed?"),
        ({"model.depth": [20, 21]}, "sweep: model.depth 21: ResNet.depth is 21; the cifar layout"),
        ({"seed": [1, -1]}, "sweep: seed -1: Experiment.seed is -1"),
        ({"model.shortcut": [None, "zero_pad"]}, "are the same experiment"),
    ],
)
def test_a_field_or_value_that_does_not_fit_is_named(fields, said):
    with pytest.raises(UsageError) as refused:
        expand(BASE, Grid(fields))
    assert said in str(refused.value)


# The experiments of the papers

SWEPT = sorted(p for p in (ROOT / "experiments").rglob("*.py") if "sweep =" in p.read_text())


@pytest.mark.parametrize("path", SWEPT, ids=lambda path: path.stem)
def test_every_experiments_sweep_expands(path):
    experiment, sweep = load_experiment(path), load_sweep(path)
    if isinstance(sweep, Search):
        SearchQueue.check(experiment, sweep)
        return
    trials = expand(experiment, sweep)
    assert len({trial.label for trial in trials}) == len(trials)
    assert f"sweeps/{experiment.name}-*" in path.read_text()
    assert str(path.relative_to(ROOT)) in path.read_text()
    if "cifar" not in path.stem:
        return
    # What the paper has a figure for is its protocol to the letter.
    for trial in trials:
        figure = figure_of(trial.experiment)
        if figure is not None:
            assert deviations(figure, trial.experiment) == []


@pytest.mark.parametrize(
    ("path", "figures"),
    [
        ("he2015/figure6_cifar10.py", {8.75, 7.51, 7.17, 6.97}),
        ("he2015/table6_cifar10.py", {8.75, 7.51, 7.17, 6.97, 6.61, 7.93}),
        ("he2016/table1_cifar10.py", {6.61, None, 12.35, 8.7, 9.81, 12.86, 6.91, 12.22}),
        ("he2016/table2_cifar10.py",
         {6.61, 8.17, 7.84, 6.71, 6.37, 5.93, 6.5, 6.14, 5.91, 5.46}),
        ("huang2017/table2_cifar.py",
         {5.24, 4.1, 3.74, 4.51, 3.62, 3.46, 24.42, 20.2, 19.25, 22.27, 17.6, 17.18}),
        ("huang2017/table2_unaugmented_cifar.py",
         {7.0, 5.77, 5.83, 5.92, 5.19, 27.55, 23.79, 23.42, 24.15, 19.64}),
    ],
)  # fmt: skip
def test_a_papers_sweep_has_all_rows_of_its_table(path, figures):
    path = ROOT / "experiments" / path
    sweep = load_sweep(path)
    assert isinstance(sweep, Grid)
    trials = expand(load_experiment(path), sweep)
    found = [figure_of(trial.experiment) for trial in trials]
    assert {figure.error for figure in found if figure is not None} == figures


# The launcher, with workers that are no processes


class FakeJob:
    def __init__(self, trial, folder, codes):
        self.trials, self._folder, self._codes = [trial], folder, codes
        self.stopped = False

    def poll(self):
        code = self._codes.pop(0) if self._codes else 0
        if code == 0:
            run = self._folder.run(*self.trials)
            run.path.mkdir(parents=True, exist_ok=True)
            run.result.write_text(json.dumps({"status": "finished"}))
        return 143 if self.stopped and code is None else code

    def stop(self):
        self.stopped = True

    def why(self, trial):
        return "the loss is nan"


class FakeExecutor:
    detached = False

    def __init__(self, folder, capacity, codes=lambda trial: [None, 0]):
        self.folder, self.capacity, self.codes = folder, capacity, codes
        self.started = []

    def start(self, groups):
        self.started += [t.hash for (t,) in groups]
        return [FakeJob(t, self.folder, self.codes(t)) for (t,) in groups]


def launch(tmp_path, grid, capacity=2, codes=lambda trial: [None, 0]):
    folder, trials = SweepFolder(tmp_path / "sweep"), expand(BASE, grid)
    folder.begin(BASE)
    folder.add(list(trials))
    executor = FakeExecutor(folder, capacity, codes)
    launcher = Launcher(folder, GridQueue(trials), executor, say=lambda text: None)
    return launcher.run(), executor, folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("resflax.sweep.launcher.POLL_SECONDS", 0.001)


def test_every_trial_is_started_once_and_a_second_time_none(tmp_path):
    grid = Grid({"seed": range(5)})
    standings, executor, _ = launch(tmp_path, grid)
    assert [s.state for s in standings] == [State.DONE] * 5
    assert len(set(executor.started)) == len(executor.started) == 5
    standings, executor, _ = launch(tmp_path, grid)
    assert [s.state for s in standings] == [State.DONE] * 5
    assert executor.started == []
    _, executor, folder = launch(tmp_path, Grid({"seed": range(3, 8)}))
    assert len(executor.started) == 3
    assert len(folder.read()["trials"]) == 8


def test_a_failed_trial_is_said_and_does_not_stop_the_others(tmp_path):
    def codes(trial):
        return [1] if trial.experiment.seed == 1 else [None, 0]

    standings, _, folder = launch(tmp_path, Grid({"seed": range(4)}), codes=codes)
    assert [s.state for s in standings].count(State.DONE) == 3
    (failed,) = [s for s in standings if s.state is State.FAILED]
    assert failed.why == folder.ended(failed.trial)["why"] == "the loss is nan"
    standings, executor, folder = launch(tmp_path, Grid({"seed": range(4)}))
    assert executor.started == [failed.trial.hash]  # tried again
    assert folder.ended(failed.trial) is None


def test_a_killed_worker_is_started_again_but_not_for_ever(tmp_path):
    fates: dict[int, list[Any]] = {0: [[None, -9], [None, 0]], 1: [[-9], [-9], [-9], [0]]}

    def codes(trial):
        return fates[trial.experiment.seed].pop(0)

    standings, executor, _ = launch(tmp_path, Grid({"seed": [0, 1]}), codes=codes)
    assert [s.state for s in standings] == [State.DONE, State.FAILED]
    assert Counter(executor.started).most_common() == [
        (standings[1].trial.hash, 3), (standings[0].trial.hash, 2),
    ]  # fmt: skip
    assert standings[1].why == "killed 3 times at step 0"


def test_a_trial_that_a_living_process_has_is_waited_for(tmp_path):
    folder, (trial,) = SweepFolder(tmp_path / "sweep"), expand(BASE, Grid({"seed": [0]}))
    folder.begin(BASE)
    claimed = claim(folder.claim_file(trial))
    assert claimed is not None
    assert claim(folder.claim_file(trial)) is None
    executor, seen = FakeExecutor(folder, 1), []

    def show(standings):
        seen.append([s.state for s in standings])
        if len(seen) == 3:
            os.close(claimed)

    Launcher(folder, GridQueue([trial]), executor, show, lambda text: None).run()
    assert seen[:3] == [[State.ELSEWHERE]] * 3
    assert executor.started == [trial.hash]


def test_a_signal_stops_the_workers(tmp_path):
    folder, trials = SweepFolder(tmp_path / "sweep"), expand(BASE, Grid({"seed": range(3)}))
    folder.begin(BASE)
    executor = FakeExecutor(folder, 2, lambda trial: [None] * 1000)
    with pytest.raises(Interrupted, match="all trials saved"):
        Launcher(
            folder,
            GridQueue(trials),
            executor,
            lambda standings: signal.raise_signal(signal.SIGTERM),
            lambda text: None,
        ).run()
    assert len(executor.started) == 2


def test_another_experiments_sweep_folder_is_refused(tmp_path):
    SweepFolder(tmp_path).begin(BASE)
    with pytest.raises(UsageError, match="holds a sweep of another experiment"):
        SweepFolder(tmp_path).begin(with_fields(BASE, {"batch_size": 7}))


def test_each_place_has_a_gpu_and_shares_its_memory_with_those_on_the_same():
    assert flags_of_place(0, 1, ["0", "1"]) == {}  # one trial at a time has all devices
    assert flags_of_place(3, 4, []) == {}
    assert [flags_of_place(i, 2, ["4", "7"]) for i in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "7"},
    ]
    shares = [flags_of_place(i, 3, ["0", "1"]) for i in range(3)]
    assert shares[0] == {"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}
    assert shares[1] == {"CUDA_VISIBLE_DEVICES": "1"}
    assert shares[2] == shares[0]


def test_the_claim_lives_as_long_as_the_worker_though_the_launcher_lets_go(tmp_path, monkeypatch):
    folder, trial = SweepFolder(tmp_path), Trial(Point({}), BASE)
    folder.begin(BASE)
    sleep = [sys.executable, "-c", "import sys; sys.stdin = None; import time; time.sleep(60)"]
    monkeypatch.setattr("resflax.sweep.executors.command", lambda *_: sleep)
    claimed = claim(folder.claim_file(trial))
    assert claimed is not None
    job = LocalJob(folder, [trial], [claimed], 0, {})
    assert claim(folder.claim_file(trial)) is None
    job.stop()
    job._process.wait()
    assert claim(folder.claim_file(trial)) is not None


# Whole sweeps by scripts/sweep.py


def start_sweep(folder, file, *arguments, flags=""):
    environment = os.environ | {"PYTHONPATH": _path(), "COLUMNS": "200", "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "sweep.py", file, "--sweep-dir", folder, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _path():
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def workers(folder):
    """Process ids of the workers, by the run folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if any(word.startswith(str(folder)) for word in words) and "--run-dir" in words:
            found.append(int(path.parent.name))
    return found


def sessions(run):
    """How often a trial's worker began, and the steps that its log holds."""
    environment = json.loads((run / "environment.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return 1 + len(environment.get("continued", [])), [(x["step"], x["split"]) for x in lines]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the workers in /proc")
def test_kill_the_launcher_and_workers_and_nothing_is_lost_or_repeated(tmp_path):
    file, folder = tmp_path / "tiny.py", tmp_path / "sweep"
    file.write_text(FILE)
    trials = folder / "trials"

    process = start_sweep(folder, file, "--jobs", "2")
    wait_until(lambda: len(list(trials.glob("*/metrics.jsonl"))) >= 2, process)
    os.kill(workers(folder)[0], signal.SIGKILL)  # it is started again
    wait_until(lambda: list(trials.glob("*/result.json")), process)
    orphans = set(workers(folder))
    process.kill()  # the workers go on by themselves
    process.communicate()

    process = start_sweep(folder, file, "--jobs", "2")
    wait_until(lambda: len(list(trials.glob("*/metrics.jsonl"))) == 4, process)
    process.send_signal(signal.SIGTERM)  # the workers save and end
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err == "stopped, all trials saved; the same command continues\n"
    assert set(workers(folder)) <= orphans

    process = start_sweep(folder, file, "--jobs", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert "4 trials: 4 done" in out
    runs = sorted(trials.iterdir())
    assert len(runs) == 4
    for run in runs:
        began, marks = sessions(run)
        assert len(marks) == len(set(marks)) == 9  # every mark once
        assert marks[-1] == (40, "test")
        assert began <= 3
    before = {p: p.stat().st_mtime_ns for p in trials.rglob("*")}
    process = start_sweep(folder, file)
    out, _ = process.communicate(timeout=60)
    assert "4 trials: 4 done; 0 of them run now" in out
    assert before == {p: p.stat().st_mtime_ns for p in trials.rglob("*")}


def test_the_command_says_what_it_would_cost_and_what_is_wrong(script, tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(FILE)
    done = script("sweep", file, "--dry-run", "--model.depth", 14)
    assert done.returncode == 0, done.stderr
    assert "4 trials" in done.stdout
    assert done.stdout.count("shortcut none") == 2
    assert not (tmp_path / "sweeps").exists()
    done = script("sweep", file, "--seed", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --seed is given, but the sweep varies seed; leave the option out\n"
    )
    file.write_text(FILE.replace("sweep =", "other ="))
    done = script("sweep", file)
    assert done.returncode == 2
    assert "must declare `sweep = Grid(...)` or `Search(...)`, and there is none" in done.stderr


def test_failed_trials_are_named_at_the_end(script, tmp_path):
    file = tmp_path / "tiny.py"
    names = '{"data.name": ["no_set", "no_other"]}'
    file.write_text(FILE.split("sweep =")[0] + f"sweep = Grid({names})")
    done = script("sweep", file, "--jobs", 2)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 2 of 2 trials failed: ")
    assert "(name no_set): Digits.name is 'no_set'; no prepared set of that name" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "2 trials: 2 failed; 2 of them run now" in done.stdout


def test_a_trials_file_is_its_experiment(tmp_path):
    folder, trial = SweepFolder(tmp_path / "sweep"), Trial(Point({}), BASE)
    folder.begin(BASE)
    folder.add([trial])
    assert load_experiment(folder.declared(trial)) == BASE.resolved()
    folder.declared(trial).write_text('{"name": "x"}')
    with pytest.raises(UsageError, match="cannot be read: experiment lacks the field"):
        load_experiment(folder.declared(trial))
