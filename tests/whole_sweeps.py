"""Whole sweeps by `scripts/sweep.py` in processes of their own, for tests that disturb them."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import whole_runs
from forked_command import ForkedCommand


def start_sweep(folder: Path, file: Path, *arguments: object) -> ForkedCommand:
    """Starts `scripts/sweep.py` with an experiment file and a sweep folder."""
    return whole_runs.start(file, "--sweep-dir", folder, *arguments, script="sweep")


def wait_until(
    condition: Callable[[], object], process: "ForkedCommand | subprocess.Popen[str]"
) -> None:
    """Waits until a condition holds while a process runs; fails if the process ends before."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def worker_ids(folder: Path, word: str) -> list[int]:
    """Ids of the processes with this word, and a path in the sweep folder, as arguments."""
    ids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_text().split("\0")
        except OSError:
            continue  # the process has ended
        if word in arguments and any(a.startswith(str(folder)) for a in arguments):
            ids.append(int(path.parent.name))
    return ids
