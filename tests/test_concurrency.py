"""Several processes that write the same files at the same time. None of them imports JAX."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from resflax import Digits, Experiment, Grid, ResNet, UsageError
from resflax import files as files_module
from resflax.files import write_atomically
from resflax.locks import in_turn, take_lock
from resflax.sweep.launcher import Launcher
from resflax.sweep.queues import GridQueue
from resflax.sweep.standings import TrialState
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid

BASE = Experiment(
    name="base", model=ResNet(8), data=Digits(validation=100), batch_size=32, steps=10
)

_SETUP = """
import json, os, sys, time
from pathlib import Path
from resflax import *
from resflax.files import write_atomically
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid
from resflax.sweep.search import SearchQueue

BASE = Experiment(
    name="base", model=ResNet(8), data=Digits(validation=100), batch_size=32, steps=10
)
path = Path(sys.argv[1])
"""

_TOGETHER = """
here, all_are_there = os.pipe()
for number in range(int(sys.argv[2])):
    if os.fork() == 0:
        os.close(all_are_there)
        os.read(here, 1)
        exec(sys.argv[3])
        sys.exit()
os.close(all_are_there)
sys.exit(any([os.wait()[1] for number in range(int(sys.argv[2]))]))
"""


def start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", _SETUP + program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(program, path, count=4):
    """Runs a program in several processes that begin at the same moment; returns their outputs.

    They are forked from one, so that only that one has to import everything.
    """
    process = start(_TOGETHER, path, count, program)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def test_launchers_that_add_trials_at_the_same_time_lose_none(tmp_path):
    program = """
folder = SweepFolder(path)
folder.begin(BASE)
for seed in range(30):
    folder.add(list(expand_grid(BASE, Grid({"seed": [100 * number + seed]}))))
"""
    together(program, tmp_path / "sweep")
    declared = SweepFolder(tmp_path / "sweep").read()
    assert declared is not None
    seeds = sorted(trial["fields"]["seed"] for trial in declared["trials"].values())
    assert seeds == [100 * number + seed for number in range(4) for seed in range(30)]
    assert len(list((tmp_path / "sweep" / "declared").glob("*.json"))) == 120
    assert not list((tmp_path / "sweep").rglob("*.tmp"))


def test_writers_of_one_file_never_collide_and_readers_see_one_whole_text(tmp_path):
    program = """
for count in range(100):
    write_atomically(path / "file", json.dumps([number] * 5000))
    read = json.loads((path / "file").read_text())
    assert len(read) == 5000 and len(set(read)) == 1
"""
    together(program, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_is_killed_leaves_the_old_text_and_its_draft_goes_later(tmp_path):
    write_atomically(tmp_path / "file", "old")
    program = """
os.fsync = lambda file: time.sleep(60)
write_atomically(path / "file", "new")
"""
    process = start(program, tmp_path)
    while not (drafts := list(tmp_path.glob(".file.*.tmp"))):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert (tmp_path / "file").read_text() == "old"
    files_module._remove_old_drafts.cache_clear()
    write_atomically(tmp_path / "file", "newer")
    assert drafts[0].exists()  # its writer might be alive
    os.utime(drafts[0], (time.time() - 7200,) * 2)
    (tmp_path / ".other.tmp").write_text("not ours")
    os.utime(tmp_path / ".other.tmp", (0, 0))
    files_module._remove_old_drafts.cache_clear()
    write_atomically(tmp_path / "file", "newest")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "file"]


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path):
    write_atomically(tmp_path / ("ü" * 127), "text")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text"]


def test_a_write_that_fails_leaves_nothing_but_the_old_text(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full") as raised:
        write_atomically(tmp_path / "file", "new")
    assert raised.value.filename == str(tmp_path / "file")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path, monkeypatch
):
    done: list[Path | str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_replace(draft, path):
        done.append("renamed")
        replace(draft, path)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_atomically(tmp_path / "file", "text")
    draft, *rest = done
    assert str(draft).startswith(f"{tmp_path}/.file.")
    assert rest == ["renamed", tmp_path]


def test_a_turn_is_waited_for_and_one_that_does_not_end_is_named(tmp_path, monkeypatch):
    program = """
from resflax.locks import in_turn
with in_turn(path / "lock"):
    print("held", flush=True)
    sys.stdin.readline()
"""
    process = start(program, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    monkeypatch.setattr("resflax.locks.WAIT_SECONDS", 0.05)
    with (
        pytest.raises(UsageError, match=f"is in use by process {process.pid} on"),
        in_turn(tmp_path / "lock"),
    ):
        pass
    monkeypatch.setattr("resflax.locks.WAIT_SECONDS", 60.0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with in_turn(tmp_path / "lock"):  # the lock ended with the process
        pass


def test_a_sweep_on_a_filesystem_without_locks_says_so_once_and_goes_on(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    folder = SweepFolder(tmp_path / "sweep", said.append)
    trials = expand_grid(BASE, Grid({"seed": range(3)}))
    folder.begin(BASE)
    folder.add(list(trials))
    states = [s.state for s in Launcher(folder, GridQueue(trials), Executor(folder)).run()]
    assert states == [TrialState.DONE] * 3
    assert len(said) == 1
    assert "cannot be locked" in said[0]


# --- Two launchers


class Job:
    """A trial that ends at the first look, with a result or without."""

    def __init__(self, folder, trial, code=0):
        self.trials, self._folder, self._code = [trial], folder, code

    def poll(self):
        (trial,) = self.trials
        if self._code == 0:
            run = self._folder.run(trial)
            run.path.mkdir(parents=True, exist_ok=True)
            run.result.write_text(json.dumps({"status": "finished", "validation_error": 0.5}))
        return self._code

    def stop(self):
        pass

    def failure_reason(self, trial):
        return "the loss is nan"

    def close(self):
        pass


class Executor:
    detached, capacity = False, 2

    def __init__(self, folder):
        self.folder = folder

    def start(self, groups):
        return [Job(self.folder, trial) for (trial,) in groups]

    def close(self):
        pass


_LAUNCHER = """
from resflax.sweep import workers, launcher
from resflax.sweep.local import LocalExecutor
from resflax.sweep.queues import GridQueue
launcher.POLL_SECONDS = 0.01
worker = '''
import json, os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
while True:
    text, descriptors, *_ = socket.recv_fds(channel, 2**16, 2)
    if not text:
        break
    log, lock = descriptors
    run, ran, code = json.loads(text)["command"]
    os.makedirs(run, exist_ok=True)
    with open(ran, "a") as file:
        file.write(run.rpartition("/")[2] + "\\\\n")
    time.sleep(0.1)
    if code == "1":
        os.write(log, b"error: the loss is nan\\\\n")
    else:
        open(run + "/result.json", "w").write('{"status": "finished"}')
    os.close(log)
    os.close(lock)
    channel.sendall(json.dumps({"code": code, "spent": False}).encode() + b"\\\\n")
'''
def command(folder, trial):
    code = "1" if trial.experiment.seed % 5 == 0 else "0"
    return [str(folder.run(trial).path), str(path.parent / "ran"), code]
workers.worker_command = command
workers.serving_command = lambda folder, channel: [
    sys.executable, "-S", "-c", worker, str(channel)
]
folder, trials = SweepFolder(path), expand_grid(BASE, Grid({"seed": range(20)}))
folder.begin(BASE)
queue = GridQueue(trials)
executor = LocalExecutor(folder, 2, [])
(path.parent / f"ready{number}").touch()
while len(list(path.parent.glob("ready*"))) < 3:  # what fails before a launcher begins, it tries
    time.sleep(0.001)
standings = launcher.Launcher(folder, queue, executor, say=lambda text: None).run()
ends = [[s.state.value, s.reason, s.ran] for s in standings]
sys.stdout.write(json.dumps(ends) + "\\n")  # at once
"""


def test_launchers_share_the_trials_of_a_sweep_and_agree_how_they_ended(tmp_path):
    """Real workers, which take 100 ms; every fifth fails, and no other launcher tries it again."""
    outputs = [json.loads(out) for out in together(_LAUNCHER, tmp_path / "sweep", 3)]
    ran = (tmp_path / "ran").read_text().split()
    assert len(ran) == len(set(ran)) == 20
    ends = [("failed", "the loss is nan") if seed % 5 == 0 else ("done", "") for seed in range(20)]
    for output in outputs:
        assert [(state, reason) for state, reason, _ in output] == ends
    shares = [sum(started for *_, started in output) for output in outputs]
    assert sum(shares) == 20
    assert max(shares) < 20, "the others only waited"


def test_a_later_launcher_tries_what_failed_before_it_began(tmp_path):
    folder, (trial,) = SweepFolder(tmp_path), expand_grid(BASE, Grid({"seed": [0]}))
    folder.begin(BASE)
    early = Launcher(folder, GridQueue([trial]), Executor(folder), say=lambda text: None)
    folder.record_end(trial, "failed", "the loss is nan")
    late = Launcher(folder, GridQueue([trial]), Executor(folder), say=lambda text: None)
    (standing,) = early.run()
    assert (standing.state, standing.reason, standing.ran) == (
        TrialState.FAILED, "the loss is nan", False,
    )  # fmt: skip
    (standing,) = late.run()
    assert (standing.state, standing.ran) == (TrialState.DONE, True)
    assert folder.read_end(trial) is None


def test_launchers_of_one_search_make_no_more_trials_than_declared(tmp_path):
    optuna = pytest.importorskip("optuna")
    program = """
search = Search({"optimizer.learning_rate": LogUniform(1e-3, 1.0)}, trials=9, pruner="none")
folder = SweepFolder(path)
folder.begin(BASE)
queue = SearchQueue(BASE, search, folder)
while taken := queue.take():
    (trial,) = taken
    folder.add([trial])
    run = folder.run(trial)
    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.result, '{"status": "finished", "validation_error": 0.5}')
    queue.settle(trial, "done")
print(len(queue.known_trials()))
"""
    together(program, tmp_path / "sweep", 3)
    declared = SweepFolder(tmp_path / "sweep").read()
    assert declared is not None
    assert len(declared["trials"]) == 9
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "sweep/search.journal"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 9


def test_a_lock_that_is_held_is_not_taken(tmp_path):
    lock = take_lock(tmp_path / "lock")
    assert lock is not None
    assert take_lock(tmp_path / "lock") is None
    os.close(lock)
