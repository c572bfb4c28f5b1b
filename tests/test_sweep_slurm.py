"""SLURM without a cluster: the script that is submitted, and what a job does on its node."""

import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from whole_runs import ROOT, assert_same

from resflax import Experiment, Grid, ResNet
from resflax.errors import UsageError
from resflax.locks import in_turn, take_lock
from resflax.sweep import slurm
from resflax.sweep.slurm import SlurmExecutor, SlurmOptions, SlurmTask
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid

submitit = pytest.importorskip("submitit")

BASE = Experiment(name="base", model=ResNet(8), batch_size=32, steps=10)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of a cluster: `sbatch` keeps the script and prints job 77, and no job ever ends."""
    commands = tmp_path / "bin"
    commands.mkdir()
    programs = {
        "srun": "exit 1",
        "sbatch": f'cp "$1" {tmp_path}/script-$(ls {tmp_path} | grep -c script-).sh\n'
        'echo "Submitted batch job 77"',
        "sacct": 'echo "JobID|State|NodeList"\n'
        + "\n".join(f'echo "77_{i}|PENDING|None"' for i in range(9)),
        "scancel": "exit 0",
        "scontrol": f'echo "$@" >> {tmp_path}/requeued',
    }
    for name, text in programs.items():
        file = commands / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.begin(BASE)
    return folder


def test_the_trials_are_one_array_with_the_declared_resources(cluster, folder):
    options = SlurmOptions(
        partition="gpu", minutes=90, gpus=1, cpus=6, memory_gb=24, account="lab", constraint="a100"
    )
    trials = expand_grid(BASE, Grid({"seed": range(5)}))
    jobs = SlurmExecutor(folder, 5, 2, options, "base").start(alone(trials))
    (script,) = cluster.glob("script-*")
    lines = script.read_text().splitlines()
    parameters = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    for option in (
        "array=0-4%2", "job-name=base", "partition=gpu", "time=90", "gpus-per-node=1",
        "cpus-per-task=6", "mem=24GB", "account=lab", "constraint=a100", "nodes=1",
        "ntasks-per-node=1", "signal=USR2@120",
    ):  # fmt: skip
        assert option in parameters, parameters
    assert any("submitit" in line and "srun" in line for line in lines)
    assert [job.trials for job in jobs] == alone(trials)
    assert job_ids(jobs) == [f"77_{i}" for i in range(5)]
    assert [job.poll() for job in jobs] == [None] * 5


def alone(trials):
    return [(trial,) for trial in trials]


def job_ids(jobs: Sequence[Any]):
    return [job.job.job_id for job in jobs]


def test_a_second_launcher_follows_the_jobs_of_the_first(cluster, folder):
    trials = expand_grid(BASE, Grid({"seed": range(3)}))
    SlurmExecutor(folder, 3, 3, SlurmOptions(), "base").start(alone(trials))
    more = expand_grid(BASE, Grid({"seed": range(4)}))
    jobs = SlurmExecutor(folder, 4, 4, SlurmOptions(), "base").start(alone(more))
    assert job_ids(jobs)[:3] == ["77_0", "77_1", "77_2"]
    scripts = sorted(cluster.glob("script-*"))
    assert len(scripts) == 2  # the second submits only the fourth trial
    assert "array" not in scripts[1].read_text() or "array=0-0" in scripts[1].read_text()


def test_launchers_do_not_submit_at_the_same_time(cluster, folder, monkeypatch):
    trials = expand_grid(BASE, Grid({"seed": range(2)}))
    executor = SlurmExecutor(folder, 2, 2, SlurmOptions(), "base")
    (folder.path / "slurm").mkdir()
    monkeypatch.setattr("resflax.locks.WAIT_SECONDS", 0.05)
    with in_turn(folder.path / "slurm" / "submit.lock"), pytest.raises(UsageError, match="in use"):
        executor.start(alone(trials))
    assert not list(cluster.glob("script-*"))
    executor.start(alone(trials))
    assert len(list(cluster.glob("script-*"))) == 1


def test_a_machine_without_slurm_is_refused(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="this machine has no SLURM: "):
        SlurmExecutor(folder, 1, 1, SlurmOptions(), "base")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"minutes": 0}, "SlurmOptions.minutes is 0"), ({"gpus": -1}, "SlurmOptions.gpus is -1")],
)
def test_numbers_that_are_too_small_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        SlurmOptions(**fields)


def test_a_job_returns_the_workers_exit_code_and_skips_a_trial_that_is_locked(tmp_path):
    program = [sys.executable, "-c", "print('error: no'); raise SystemExit(3)"]
    task = SlurmTask(program, tmp_path / "log", tmp_path / "lock")
    assert task() == 3
    assert (tmp_path / "log").read_text() == "error: no\n"
    lock = take_lock(tmp_path / "lock")
    assert lock is not None
    assert task() == 0
    os.close(lock)
    assert task() == 3


def test_a_job_lets_the_worker_save_before_the_time_limit_and_is_requeued(tmp_path):
    saved = tmp_path / "saved"
    program = f"""
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path({str(saved)!r}).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(saved)!r}).write_text("running")
time.sleep(60)
"""
    task = SlurmTask([sys.executable, "-c", program], tmp_path / "log", tmp_path / "lock")
    codes = []
    thread = threading.Thread(target=lambda: codes.append(task()))
    thread.start()
    deadline = time.monotonic() + 20
    while not saved.exists() or saved.read_text() != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    submission = task.checkpoint()
    thread.join()
    assert isinstance(submission, submitit.helpers.DelayedSubmission)
    assert saved.read_text() == "saved"
    assert codes == [128 + signal.SIGTERM]
    assert take_lock(tmp_path / "lock") is not None  # free for the requeued job


def test_a_worker_that_does_not_end_is_killed_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "SAVING_SECONDS", 0.3)
    program = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("running", flush=True)
time.sleep(60)
"""
    log = tmp_path / "log"
    task = SlurmTask([sys.executable, "-c", program], log, tmp_path / "lock")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(task()))
    thread.start()
    wait_for(lambda: log.exists() and log.read_text() == "running\n")
    assert isinstance(task.checkpoint(), submitit.helpers.DelayedSubmission)
    thread.join()
    assert codes == [-signal.SIGKILL]


# --- Jobs as SLURM runs them: submitit's own program, with its own signal handlers

# It counts until it is told to save, and continues where it was.
COUNTING = """
import pathlib, signal, sys, time
state = pathlib.Path(sys.argv[1])
count = int(state.read_text()) if state.exists() else 0
def save(*_):
    state.write_text(str(count))
    time.sleep(0.2)  # the lock is held until the end
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("from", count, flush=True)
while count < 300:
    time.sleep(0.01)
    count += 1
"""


def wait_for(condition, process=None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.01)


class Node:
    """A node of the cluster, which runs job 77."""

    def __init__(self, cluster: Path, folder: SweepFolder) -> None:
        self.cluster, self.folder = cluster, folder.path / "slurm"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **variables: str) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        job = {
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": "77",
            "SLURM_PROCID": "0",
            "PYTHONPATH": path,
        }
        folder = str(self.folder / "%j")
        process = subprocess.Popen(
            [sys.executable, "-m", "submitit.core._submit", folder],
            env=os.environ | job | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def requeued(self) -> list[str]:
        file = self.cluster / "requeued"
        return file.read_text().splitlines() if file.exists() else []

    def result(self) -> Any:
        (file,) = self.folder.rglob("*_result.pkl")
        return pickle.loads(file.read_bytes())


@pytest.fixture
def node(cluster, folder):
    node = Node(cluster, folder)
    yield node
    for process in node.processes:
        process.kill()
        process.wait()


def submit(folder, trial, options=SlurmOptions()):  # noqa: B008
    (job,) = SlurmExecutor(folder, 1, 1, options, "base").start([(trial,)])
    return job


def test_the_warning_before_the_time_limit_saves_and_requeues(node, folder, tmp_path, monkeypatch):
    state = tmp_path / "state"
    monkeypatch.setattr(
        slurm, "worker_command", lambda *_: [sys.executable, "-c", COUNTING, str(state)]
    )
    (trial,) = expand_grid(BASE, Grid({"seed": [0]}))
    job, log = submit(folder, trial), folder.log(trial)

    process = node.start()
    wait_for(lambda: log.exists() and log.read_text() == "from 0\n", process)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=30) == 255  # as submitit ends a job that was requeued
    assert node.requeued() == ["requeue 77"]
    saved = int(state.read_text())
    assert 0 <= saved < 300
    assert job.poll() is None
    lock = take_lock(folder.lock_file(trial))
    assert lock is not None
    os.close(lock)

    process = node.start()
    wait_for(lambda: log.read_text() == f"from 0\nfrom {saved}\n", process)
    process.send_signal(signal.SIGTERM)  # the job is cancelled
    assert process.wait(timeout=60) == 0
    assert node.result() == ("success", 143)
    assert int(state.read_text()) >= saved
    assert node.requeued() == ["requeue 77"]


def test_a_job_that_was_requeued_too_often_saves_too(node, folder, tmp_path, monkeypatch):
    state = tmp_path / "state"
    monkeypatch.setattr(
        slurm, "worker_command", lambda *_: [sys.executable, "-c", COUNTING, str(state)]
    )
    (trial,) = expand_grid(BASE, Grid({"seed": [0]}))
    submit(folder, trial, SlurmOptions(minutes=1, requeues=0))
    process = node.start()
    wait_for(
        lambda: folder.log(trial).exists() and folder.log(trial).read_text() == "from 0\n", process
    )
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=60) == 1
    assert state.exists()
    assert node.requeued() == []
    kind, why = node.result()
    assert kind == "error"
    assert "timed-out too many times" in why


@pytest.mark.slow
def test_a_trial_that_was_requeued_ends_the_same_to_the_bit(node, folder, tiny, undisturbed):
    (trial,) = expand_grid(tiny, Grid({"seed": [0]}))
    folder.add([trial])
    submit(folder, trial)
    variables = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    process, run = node.start(**variables), folder.run(trial)
    wait_for(lambda: run.metrics.exists() and run.metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=30) == 255
    assert node.requeued() == ["requeue 77"]
    assert not run.result.exists()
    step = max(int(path.name) for path in run.checkpoints.iterdir())
    assert f"stopped at step {step} of 40 and saved" in folder.log(trial).read_text()

    assert node.start(**variables).wait(timeout=120) == 0
    assert node.result() == ("success", 0)
    assert f"continuing from step {step} of 40" in folder.log(trial).read_text()
    assert_same(run.path, undisturbed)
