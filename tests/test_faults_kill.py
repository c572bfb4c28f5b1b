"""Runs killed at random moments end as if nothing had happened: to the bit, line for line."""

import random
import signal
import time

import pytest
from whole_runs import assert_same, files, result, run, start

# Sleeps in the places where a process seldom is, to find it there when it is killed.
SLOW = """
import os, time
from resflax.runs import checkpoints, loop, manifest
from resflax import files
from resflax.feeding import resident

def slowly(function, seconds):
    def slow(*arguments, **options):
        time.sleep(seconds)
        result = function(*arguments, **options)
        time.sleep(seconds)
        return result
    return slow

files.os = type("os", (), {**vars(os), "replace": staticmethod(slowly(os.replace, 0.05))})
manifest._hashes = slowly(manifest._hashes, 0.1)
checkpoints.ocp.CheckpointManager.save = slowly(checkpoints.ocp.CheckpointManager.save, 0.1)
resident.evaluation_batches = slowly(resident.evaluation_batches, 0.2)
loop.params_sha256 = slowly(loop.params_sha256, 0.5)
"""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def kill_at_random(rng, experiment, folder):
    """One session, ended by a random signal at a random moment; whether it came before the end.

    The moment is counted from when something new happens in the folder, for starting takes long.
    """
    process = start(experiment, "--run-dir", folder, patch=SLOW)
    before = files(folder) if folder.exists() else {}
    while process.poll() is None and (not folder.exists() or files(folder) == before):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 4))
    number = rng.choice(SIGNALS)
    killed = process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    allowed = (0, -number if number == signal.SIGKILL else 128 + number)
    assert process.returncode in allowed, err
    return process.returncode != 0 and killed


def kill(times, experiment, undisturbed, tmp_path, seed):
    """Kills runs until it has happened so often; each of them is compared when it is done."""
    rng, killed, runs = random.Random(seed), 0, 0
    while killed < times:
        folder = tmp_path / f"run{runs}"
        while not (folder / "result.json").exists():
            if killed < times:
                killed += kill_at_random(rng, experiment, folder)
            else:
                run(experiment, "--run-dir", folder)
        assert result(folder)["status"] == "finished"
        assert_same(folder, undisturbed)
        runs += 1


def test_five_random_moments(experiment, undisturbed, tmp_path):
    kill(5, experiment, undisturbed, tmp_path, seed=None)


@pytest.mark.slow
def test_thirty_random_moments(experiment, undisturbed, tmp_path):
    kill(30, experiment, undisturbed, tmp_path, seed=None)
