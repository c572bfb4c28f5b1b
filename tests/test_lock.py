"""One process to a run folder, and what the second one is told."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from whole_runs import ROOT, files, run, start

from resflax import UsageError
from resflax.runs.lock import NAME, locked, locked_anew

HOLD = """
import sys, time
from pathlib import Path
from resflax.runs.lock import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    """A process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it_and_a_dead_process_holds_nothing(tmp_path):
    process = hold(tmp_path)
    with pytest.raises(UsageError) as refused, locked(tmp_path, print):
        pass
    said = str(refused.value)
    assert f"is in use by process {process.pid} on {socket.gethostname()}, since 20" in said
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / NAME).read_text())["pid"] == process.pid  # stale
    with locked(tmp_path, print):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_a_process_that_only_stands_still_keeps_it(tmp_path):
    process = hold(tmp_path)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(UsageError, match="is in use"), locked(tmp_path, print):
        pass
    process.kill()
    process.communicate()


def test_an_unreadable_note_is_another_process(tmp_path):
    process = hold(tmp_path)
    (tmp_path / NAME).write_text("{")
    with pytest.raises(UsageError, match="is in use by another process"), locked(tmp_path, print):
        pass
    process.kill()
    process.communicate()


def test_where_there_are_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    with locked(tmp_path, said.append):
        pass
    assert len(said) == 1
    assert "cannot be locked" in said[0]


def test_a_second_training_is_refused_at_once_and_writes_nothing(experiment, tmp_path):
    folder = tmp_path / "run"
    first = start(experiment, "--run-dir", folder, "--steps", 100_000)
    while first.poll() is None and not (folder / "checkpoints" / "9" / "sha256.json").exists():
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    before = files(folder)
    began = time.monotonic()
    _, err = run(experiment, "--run-dir", folder, "--steps", 100_000, code=2)
    assert f"in use by process {first.pid} on {socket.gethostname()}" in err
    assert time.monotonic() - began < 60
    assert files(folder) == before
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 143
    # The lock that is left belongs to nobody, and the folder is its run's still.
    assert (folder / NAME).exists()
    _, err = run(experiment, "--run-dir", folder, "--seed", 5, "--steps", 100_000, code=2)
    assert "seed: 0 != 5" in err


def test_the_second_in_a_new_folder_is_refused_while_the_first_prepares(experiment, tmp_path):
    folder = tmp_path / "run"
    first = start(experiment, "--run-dir", folder)
    while first.poll() is None and not ((folder / NAME).exists() and (folder / NAME).read_text()):
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    _, err = run(experiment, "--run-dir", folder, code=2)
    assert "in use by" in err
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 143
    assert not folder.exists() or (folder / "experiment.json").exists()


@pytest.mark.parametrize("there", ["", "new", "new/run"])
def test_a_folder_that_comes_to_nothing_is_taken_away(tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    folder = tmp_path / "new" / "run"
    with contextlib.suppress(UsageError), locked_anew(folder, print):
        assert (folder / NAME).exists()
        raise UsageError("unfit")
    assert (tmp_path / there).is_dir()
    assert not any((tmp_path / there).iterdir())
    with locked_anew(folder, print) as stay:
        stay()
    with locked(folder, print):
        assert (folder / NAME).exists()


def test_a_lock_taken_on_a_file_that_is_gone_is_none(tmp_path, monkeypatch):
    flock = fcntl.flock

    def too_late(file, operation):
        (tmp_path / NAME).unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(UsageError, match="start again"), locked(tmp_path, print):
        pass


def test_a_lock_alone_does_not_make_a_folder_foreign(experiment, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).write_text("")
    run(experiment, "--run-dir", tmp_path / "run", "--steps", 1)
