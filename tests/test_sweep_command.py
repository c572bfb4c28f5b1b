"""Whole sweeps by `scripts/sweep.py`: cut off and continued, shown, refused, and failing."""

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import ROOT
from whole_runs import start_interpreter
from whole_sweeps import start_sweep, wait_until, worker_ids

FILE = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(validation=100), batch_size=48, steps=40,
    schedule=Cosine(warmup_steps=5), log_every=7, evaluate_every=20, checkpoint_every=9,
)
sweep = Grid({"model.shortcut": ["none", "zero_pad"], "seed": range(2)})
"""


def sessions(run):
    """Number of times that a trial's worker began, and the step and split of each logged line."""
    environment = json.loads((run / "environment.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return 1 + len(environment.get("continued", [])), [(x["step"], x["split"]) for x in lines]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the workers")
def test_nothing_is_lost_or_repeated_after_the_launcher_and_workers_are_killed(tmp_path):
    file, folder = tmp_path / "tiny.py", tmp_path / "sweep"
    file.write_text(FILE)
    trials = folder / "trials"

    unread = start_interpreter(file, "--sweep-dir", folder, "--jobs", "2", script="sweep")
    for stream in (unread.stdout, unread.stderr):
        assert stream is not None
        stream.close()  # nobody reads what it prints
    wait_until(lambda: len(list(trials.glob("*/metrics.jsonl"))) >= 2, unread)
    os.kill(worker_ids(folder, "resflax.sweep.serving")[0], signal.SIGKILL)  # it is started again
    wait_until(lambda: list(trials.glob("*/result.json")), unread)
    orphans = set(worker_ids(folder, "resflax.sweep.serving"))
    unread.kill()  # the workers keep running
    unread.wait()

    process = start_sweep(folder, file, "--jobs", "2")
    wait_until(lambda: len(list(trials.glob("*/metrics.jsonl"))) == 4, process)
    process.send_signal(signal.SIGHUP)  # the workers save and end
    _, err = process.communicate(timeout=60)
    assert process.returncode == 129, err
    assert err == "stopped, all trials saved; the same command continues\n"
    assert set(worker_ids(folder, "resflax.sweep.serving")) <= orphans

    process = start_sweep(folder, file, "--jobs", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert "4 trials: 4 done" in out
    runs = sorted(trials.iterdir())
    assert len(runs) == 4
    for run in runs:
        starts, logged = sessions(run)
        assert len(logged) == len(set(logged)) == 9  # each line once
        assert logged[-1] == (40, "test")
        assert starts <= 3
    before = {p: p.stat().st_mtime_ns for p in trials.rglob("*")}
    process = start_sweep(folder, file)
    out, _ = process.communicate(timeout=60)
    assert "4 trials: 4 done; 0 of them were run now" in out
    assert before == {p: p.stat().st_mtime_ns for p in trials.rglob("*")}


def test_a_dry_run_shows_the_costs_and_mistakes_are_refused(script, tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(FILE)
    completed = script("sweep", file, "--dry-run", "--model.depth", 14, "--steps", 5)
    assert completed.returncode == 0, completed.stderr
    assert "4 trials" in completed.stdout
    assert completed.stdout.count("shortcut none") == 2
    assert completed.stdout.endswith(
        "nothing but warm-up: the training has 5 steps, and schedule.warmup_steps is 5, so that "
        "the learning rate does not reach its peak\n"
    )
    assert not (tmp_path / "sweeps").exists()
    completed = script("sweep", file, "--seed", 3)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == (
        "error: --seed is given, but the sweep varies seed; leave the option out\n"
    )
    file.write_text(FILE.replace("sweep =", "other ="))
    completed = script("sweep", file)
    assert completed.returncode == 2
    assert (
        "must declare `sweep = Grid(...)` or `Search(...)`, and there is none" in completed.stderr
    )


def test_failed_trials_are_named_at_the_end(script, tmp_path):
    file = tmp_path / "tiny.py"
    names = '{"data.name": ["no_set", "no_other"]}'
    file.write_text(FILE.split("sweep =")[0] + f"sweep = Grid({names})")
    completed = script("sweep", file, "--jobs", 2)
    assert completed.returncode == 1
    assert completed.stderr.startswith("error: 2 of 2 trials failed: ")
    assert (
        "(name no_set): Digits.name is 'no_set'; no prepared set of that name" in completed.stderr
    )
    assert completed.stderr.count("\n") == 1
    assert "2 trials: 2 failed; 2 of them were run now" in completed.stdout
    # A script was called, so scripts are named, also where a worker wrote the message.
    assert f"prepare it: python {ROOT}/scripts/prepare_data.py no_" in completed.stderr
    (sweep,) = (tmp_path / "sweeps").iterdir()
    last = completed.stdout.splitlines()[-1]
    assert last == f"python {ROOT}/scripts/report.py sweeps/{sweep.name}"
