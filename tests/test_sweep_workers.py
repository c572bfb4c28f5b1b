"""Workers that train one trial after another: each trial is as if it had a process of its own."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from whole_runs import assert_same, run
from whole_sweeps import start_sweep, wait_until, worker_ids

from resflax import Grid
from resflax.locks import take_lock
from resflax.sweep.channel import Channel
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid
from resflax.sweep.workers import WorkerJob

FILE = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(), batch_size=48, steps=8,
    log_every=4, evaluate_every=8, checkpoint_every=4,
)
sweep = Grid({NAMES: VALUES})
"""


def write(folder, names, values):
    """An experiment file whose sweep varies these fields together."""
    file = folder / "tiny.py"
    file.write_text(FILE.replace("NAMES", repr(names)).replace("VALUES", repr(values)))
    return file


def sweep(file, folder, *options):
    """Runs a sweep to its end; returns its exit code, errors, and trials by their labels."""
    process = start_sweep(folder, file, *options)
    _, err = process.communicate(timeout=240)
    labels = json.loads((folder / "sweep.json").read_text())["trials"]
    return process.returncode, err, {x["label"]: name for name, x in labels.items()}


def process_of(run_folder):
    """The id of the process that trained a run."""
    return json.loads((run_folder / "run.lock").read_text())["pid"]


def test_trials_of_one_process_are_equal_to_the_bit_to_trials_alone(tmp_path):
    names = ("seed", "optimizer.learning_rate", "precision")
    values = [(0, 0.1, "float32"), (1, 0.1, "float32"), (0, 0.05, "float32"), (2, 0.1, "bfloat16")]
    file, folder = write(tmp_path, names, values), tmp_path / "sweep"
    code, err, trials = sweep(file, folder)
    assert code == 0, err
    runs = [folder / "trials" / name for name in trials.values()]
    assert len(runs) == 4
    assert len({process_of(path) for path in runs}) == 1
    for (seed, rate, precision), (_, name) in zip(values, trials.items(), strict=True):
        alone = tmp_path / f"alone-{name}"
        options = "--seed", seed, "--optimizer.learning-rate", rate, "--precision", precision
        run(file, "--run-dir", alone, *options)
        trained = folder / "trials" / name
        assert_same(trained, alone)
        log = (folder / "logs" / f"{name}.log").read_text()
        assert log.count("all of it is in ") == 1
        assert f"all of it is in {trained}" in log
        environment = json.loads((trained / "environment.json").read_text())
        declared = folder / "declared" / f"{name}.json"
        assert environment["command"].endswith(
            f"-m resflax.commands train {declared} --run-dir {trained}"
        )


OWN = """
import ctypes, os, sys
import jax
from resflax.models import Shortcut

CALLS = []

class Counting(Shortcut):
    def __call__(self, x, branch, *, train):
        CALLS.append(1)
        return self.identity(x, branch) * (1 + SCALE * len(CALLS)) + branch

class Segfault(Shortcut):
    def __call__(self, x, branch, *, train):
        os.system("echo output of another program")
        return ctypes.string_at(0)

class Raises(Shortcut):
    def __call__(self, x, branch, *, train):
        raise RuntimeError("on purpose")

class Sets(Shortcut):
    def __call__(self, x, branch, *, train):
        os.environ["SET_BY_A_TRIAL"] = "1"
        return self.identity(x, branch) + branch

class Looks(Shortcut):
    def __call__(self, x, branch, *, train):
        assert "SET_BY_A_TRIAL" not in os.environ
        return self.identity(x, branch) + branch
"""


def own_file(path, scale):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OWN.replace("SCALE", str(scale)))
    return path


@pytest.mark.slow
def test_versions_of_a_file_share_no_class_and_no_module(tmp_path):
    one, two = own_file(tmp_path / "a/own.py", 0.01), own_file(tmp_path / "b/own.py", 0.02)
    values = [(f"{one}:Counting", 0), (f"{two}:Counting", 0), (f"{one}:Counting", 1)]
    file, folder = write(tmp_path, ("model.shortcut", "seed"), values), tmp_path / "sweep"
    code, err, _ = sweep(file, folder)
    assert code == 0, err
    runs = [*(folder / "trials").iterdir()]
    assert len({process_of(path) for path in runs}) == 1
    for path in runs:
        experiment = json.loads((path / "experiment.json").read_text())
        own = experiment["model"]["shortcut"]
        alone = tmp_path / f"alone-{path.name}"
        shortcut = f"{own['file']}:{own['name']}"
        run(file, "--run-dir", alone, "--model.shortcut", shortcut, "--seed", experiment["seed"])
        assert_same(path, alone)


@pytest.mark.slow
def test_a_crash_costs_its_trial_alone(tmp_path):
    own = own_file(tmp_path / "own.py", 0)
    values = [("zero_pad", 0), *((f"{own}:{name}", 0) for name in ("Segfault", "Raises"))]
    values += [("zero_pad", 1), (f"{own}:Sets", 0), (f"{own}:Looks", 0)]
    file, folder = write(tmp_path, ("model.shortcut", "seed"), values), tmp_path / "sweep"
    code, err, trials = sweep(file, folder)
    assert code == 1
    assert err.startswith("error: 2 of 6 trials failed: "), err
    assert "killed 3 times at step 0" in err
    assert "RuntimeError: on purpose" in err
    names = list(trials.values())
    done = [name for name in names if (folder / "trials" / name / "result.json").exists()]
    assert done == [names[0], *names[3:]]
    first, second, sets, looks = (process_of(folder / "trials" / name) for name in done)
    assert first != second == sets != looks
    logs = [(folder / "logs" / f"{name}.log").read_text() for name in names]
    assert [log.count("output of another program") > 0 for log in logs] == [
        False, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the workers")
def test_a_killed_worker_is_replaced_and_ctrl_c_saves(tmp_path):
    file, folder = write(tmp_path, "seed", [0, 1, 2]), tmp_path / "sweep"
    process = start_sweep(folder, file, "--steps", 3000, "--data.validation", 100)
    wait_until(lambda: list(folder.glob("trials/*/checkpoints/*/sha256.json")), process)
    (killed,) = worker_ids(folder, "resflax.sweep.serving")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(list(folder.glob("trials/*/checkpoints/4/sha256.json"))) == 2, process)
    (worker,) = worker_ids(folder, "resflax.sweep.serving")
    assert worker != killed
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped, all trials saved; the same command continues\n"
    logs = [path.read_text() for path in folder.glob("logs/*.log")]
    assert sum("saved; the same command continues" in log for log in logs) == 1
    assert not worker_ids(folder, "resflax.sweep.serving")


def test_a_trial_that_is_stopped_before_it_begins_does_not_begin(tiny, tmp_path):
    folder, trials = SweepFolder(tmp_path), expand_grid(tiny, Grid({"seed": [0, 1]}))
    folder.begin(tiny)
    folder.add(list(trials))
    worker = None
    for trial, stop in zip(trials, (True, False), strict=True):
        lock = take_lock(folder.lock_file(trial))
        assert lock is not None
        job = WorkerJob(folder, trial, lock, 0, dict(os.environ), worker)
        assert worker in (None, job.worker)
        worker = job.worker
        if stop:
            worker._channel.send({"stop": 1})  # as `stop` does; its signal may come too early
        deadline = time.monotonic() + 120
        while (code := job.poll()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert code == (143 if stop else 0), job.failure_reason(trial)
        assert folder.is_done(trial) != stop
        job.close()
        free = take_lock(folder.lock_file(trial))
        assert free is not None, "the worker still holds the lock"
        os.close(free)
    assert worker is not None
    worker.close()
    assert worker.process.returncode == 0


def test_messages_bring_open_files(tmp_path):
    one, other = map(Channel, socket.socketpair())
    with open(tmp_path / "file", "w") as file:
        one.send({"first": "x" * 100_000})
        one.send({"second": 2}, [file.fileno()])
    assert other.receive(wait=True) == {"first": "x" * 100_000}
    assert other.receive(wait=False) == {"second": 2}
    (descriptor,) = other.take_descriptors(1)
    os.write(descriptor, b"text")
    os.close(descriptor)
    assert (tmp_path / "file").read_text() == "text"
    assert other.receive(wait=False) is None
    assert not other.closed
    one.close()
    assert other.receive(wait=True) is None
    assert other.closed
    other.close()
