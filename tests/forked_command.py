"""A command in a process of its own, which a server forks that has imported all modules.

So a command need not import JAX, which takes seconds.
"""

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


class ForkedCommand:
    """A running script, with those methods of `subprocess.Popen` that the tests need.

    Args:
      script: the path of the script.
      arguments: what follows it on the command line.
      environment: all variables. Those that are read by imports have the values that they had when
        the server began.
      folder: the working folder.
      patch: statements to run before the script.
    """

    def __init__(
        self,
        script: Path,
        arguments: list[str],
        environment: Mapping[str, str],
        folder: Path,
        patch: str = "",
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="resflax-output-")
        request = {
            "script": str(script),
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(folder),
            "output": self._folder,
            "patch": patch,
        }
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(_server())
            connection.sendall(json.dumps(request).encode() + b"\n")
            self._answers = connection.makefile(encoding="utf-8")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None
        self._printed = "", ""

    def poll(self) -> int | None:
        """The exit code; minus the signal that ended the command; None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            paths = Path(self._folder, "stdout"), Path(self._folder, "stderr")
            self._printed = paths[0].read_text("utf-8"), paths[1].read_text("utf-8")
            shutil.rmtree(self._folder)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end and returns what was printed on stdout and stderr."""
        self.wait(timeout)
        return self._printed

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL, unless the command has ended."""
        self.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def hangups_reach_children() -> Iterator[None]:
    """Lets processes that are started meanwhile answer SIGHUP, even if nohup runs the tests."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN:
        # This process goes on ignoring it, but unlike SIG_IGN, children do not inherit a function.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@cache
def _server() -> str:
    """Starts the server of this process, which ends with it; returns the path of its socket."""
    folder = tempfile.TemporaryDirectory(prefix="resflax-server-")
    path = os.path.join(folder.name, "socket")
    with hangups_reach_children():
        server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "command_server.py", path],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"

    def end() -> None:
        server.communicate()
        folder.cleanup()

    atexit.register(end)
    return path
