"""SLURM without a cluster: the script that is submitted, and what a job does on its node."""

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from resflax import Experiment, Grid, ResNet
from resflax.errors import UsageError
from resflax.locks import in_turn, take_lock
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
