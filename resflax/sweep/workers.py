"""The launcher's side of workers: processes that train one trial after another."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from resflax.locks import close_all
from resflax.sweep.channel import Channel
from resflax.sweep.executors import last_line, log_size, serving_command, worker_command
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial

_SOURCE = Path(__file__).parents[1]
_PATIENCE = 10.0  # seconds that an idle worker may take to end


class Worker:
    """A process on this machine that trains one trial after another (`sweep.serving`).

    It has a session of its own, so Ctrl-C does not reach it. It ends when this process does, after
    the trial that it is training.

    Args:
      folder: the sweep's folder.
      environment: all environment variables of the process.
      log: the descriptor of the file that it prints to while it starts.
    """

    def __init__(self, folder: SweepFolder, environment: Mapping[str, str], log: int) -> None:
        self._environment, self._source = dict(environment), _source_stamp()
        self._busy = self._spent = False
        self._number, self._code = 0, 0
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                serving_command(folder, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = Channel(ours)

    def can_take(self, environment: Mapping[str, str]) -> bool:
        """Whether it can train another trial, as a new process with these variables would."""
        return (
            not (self._busy or self._spent)
            and self.process.poll() is None
            and self._environment == environment
            and self._source == _source_stamp()
        )

    def begin(self, trial: str, command: Sequence[str], log: int, lock: int) -> bool:
        """Begins a trial; returns False if the process has ended meanwhile.

        Args:
          trial: the trial's hash.
          command: the command line that trains the trial alone.
          log: the descriptor of the file that the trial prints to.
          lock: the descriptor of the trial's lock, which the process holds too until the trial ends
            there.
        """
        self._number += 1
        request = {"number": self._number, "trial": trial, "command": list(command)}
        try:
            self._channel.send(request, [log, lock])
        except OSError:
            return False
        self._busy = True
        return True

    def poll(self) -> int | None:
        """The exit code of the trial that was begun last; None while it runs.

        If the process ends instead of reporting a code, that of the process.
        """
        if self._spent:  # its memory and its GPU are not free before it has ended
            return None if self.process.poll() is None else self._code
        ended = self.process.poll()
        answer = self._channel.receive(wait=False)
        if answer is None:
            return ended
        self._busy, self._spent, self._code = False, answer["spent"], int(answer["code"])
        return self.poll() if self._spent else self._code

    def stop(self) -> None:
        """Asks it to save the trial that it trains, and to end that."""
        # The signal is lost if it comes before the process has taken the trial up.
        with contextlib.suppress(OSError):
            self._channel.send({"stop": self._number})
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Ends the process, or lets it end after its trial."""
        self._channel.close()
        if not self._busy:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE)


def _source_stamp() -> int:
    """A number that changes when a file of resflax is changed: a worker has read the old ones."""
    files = [(str(path), path.stat().st_mtime_ns) for path in sorted(_SOURCE.rglob("*.py"))]
    return hash(tuple(files))


class WorkerJob:
    """A trial in a worker.

    Args:
      folder: the sweep's folder.
      trial: the trial.
      lock: the descriptor of the trial's lock, which this process holds until `close`.
      slot: the job's number among those that run at the same time.
      environment: all environment variables that the trial needs.
      worker: the worker that had this slot before, if any.
    """

    def __init__(
        self,
        folder: SweepFolder,
        trial: Trial,
        lock: int,
        slot: int,
        environment: Mapping[str, str],
        worker: Worker | None,
    ) -> None:
        self.trials: Sequence[Trial] = [trial]
        self.slot = slot
        self._locks, self._log = [lock], folder.log(trial)
        self._log_start = log_size(self._log)
        self._code: int | None = None
        request = trial.hash, worker_command(folder, trial)
        with open(self._log, "ab") as log:
            if worker is not None:
                if worker.can_take(environment) and worker.begin(*request, log.fileno(), lock):
                    self.worker = worker
                    return
                worker.close()
            self.worker = Worker(folder, environment, log.fileno())
            self.worker.begin(*request, log.fileno(), lock)

    def poll(self) -> int | None:
        """The exit code; None while the trial runs."""
        if self._code is None:
            self._code = self.worker.poll()
        return self._code

    def stop(self) -> None:
        """Sends SIGTERM, after which the worker saves the trial and ends it."""
        if self.poll() is None:
            self.worker.stop()

    def failure_reason(self, trial: Trial) -> str:
        """The last line that the worker printed for the trial, or else its exit code."""
        return last_line(self._log, self._log_start) or f"exit code {self._code}"

    def close(self) -> None:
        """Gives up the trial's lock. The trial must have ended."""
        close_all(self._locks)
