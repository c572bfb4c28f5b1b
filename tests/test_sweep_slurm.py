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
from resflax.sweep.folder import SweepFolder, claim
from resflax.sweep.slurm import Slurm, SlurmOptions, Work
from resflax.sweep.trials import expand

submitit = pytest.importorskip("submitit")

BASE = Experiment(name="base", model=ResNet(8), batch_size=32, steps=10)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """`sbatch` keeps the script and names job 77; no job ever ends."""
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


def test_the_trials_are_one_array_with_what_was_asked_for(cluster, folder):
    options = SlurmOptions(
        partition="gpu", minutes=90, gpus=1, cpus=6, memory_gb=24, account="lab", constraint="a100"
    )
    trials = expand(BASE, Grid({"seed": range(5)}))
    jobs = Slurm(folder, 5, 2, options, "base").start(alone(trials))
    (script,) = cluster.glob("script-*")
    lines = script.read_text().splitlines()
    asked = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    for option in (
        "array=0-4%2", "job-name=base", "partition=gpu", "time=90", "gpus-per-node=1",
        "cpus-per-task=6", "mem=24GB", "account=lab", "constraint=a100", "nodes=1",
        "ntasks-per-node=1", "signal=USR2@120",
    ):  # fmt: skip
        assert option in asked, asked
    assert any("submitit" in line and "srun" in line for line in lines)
    assert [job.trials for job in jobs] == alone(trials)
    assert numbers(jobs) == [f"77_{i}" for i in range(5)]
    assert [job.poll() for job in jobs] == [None] * 5


def alone(trials):
    return [(trial,) for trial in trials]


def numbers(jobs: Sequence[Any]):
    return [job.job.job_id for job in jobs]


def test_a_second_launcher_follows_the_jobs_of_the_first(cluster, folder):
    trials = expand(BASE, Grid({"seed": range(3)}))
    Slurm(folder, 3, 3, SlurmOptions(), "base").start(alone(trials))
    more = expand(BASE, Grid({"seed": range(4)}))
    jobs = Slurm(folder, 4, 4, SlurmOptions(), "base").start(alone(more))
    assert numbers(jobs)[:3] == ["77_0", "77_1", "77_2"]
    scripts = sorted(cluster.glob("script-*"))
    assert len(scripts) == 2  # the fourth trial alone
    assert "array" not in scripts[1].read_text() or "array=0-0" in scripts[1].read_text()


def test_where_there_is_no_cluster_it_is_said(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no SLURM cluster here"):
        Slurm(folder, 1, 1, SlurmOptions(), "base")


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"minutes": 0}, "SlurmOptions.minutes is 0"), ({"gpus": -1}, "SlurmOptions.gpus is -1")],
)
def test_options_that_cannot_be_are_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        SlurmOptions(**fields)


def test_a_job_gives_the_workers_exit_code_and_leaves_a_claimed_trial_alone(tmp_path):
    program = [sys.executable, "-c", "print('error: no'); raise SystemExit(3)"]
    work = Work(program, tmp_path / "log", tmp_path / "claim")
    assert work() == 3
    assert (tmp_path / "log").read_text() == "error: no\n"
    held = claim(tmp_path / "claim")
    assert held is not None
    assert work() == 0
    os.close(held)
    assert work() == 3


def test_before_its_time_is_up_a_job_lets_the_worker_save_and_is_requeued(tmp_path):
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
    work = Work([sys.executable, "-c", program], tmp_path / "log", tmp_path / "claim")
    codes = []
    thread = threading.Thread(target=lambda: codes.append(work()))
    thread.start()
    deadline = time.monotonic() + 20
    while not saved.exists() or saved.read_text() != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = work.checkpoint()
    thread.join()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert saved.read_text() == "saved"
    assert codes == [128 + signal.SIGTERM]
    assert claim(tmp_path / "claim") is not None  # free for the requeued job
