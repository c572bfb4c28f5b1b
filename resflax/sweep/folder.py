"""A sweep folder: which files it has, and who runs which trial."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, to_json
from resflax.sweep.trials import Trial
from resflax.training.files import write_atomically
from resflax.training.run_folder import RunFolder


def default_path(experiment: Experiment) -> Path:
    """`sweeps/NAME-HASH` below the working directory, whatever the sweep varies."""
    return Path("sweeps") / f"{experiment.name}-{experiment.content_hash}"


class SweepFolder:
    """The files of one sweep.

    sweep.json    what was declared: name and fields of every trial, by hash
    trials/HASH   run folders
    declared/     HASH.json: the trials' experiments, as the workers read them
    logs/         HASH.log: what the workers printed
    ended/        HASH.json: trials that ended without a result, and why
    claims/       HASH: locked (flock) by whoever runs the trial, for as long as its process lives
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.declaration = path / "sweep.json"
        self.search = path / "search.journal"

    def run(self, trial: Trial) -> RunFolder:
        """The trial's run folder."""
        return RunFolder(self.path / "trials" / trial.hash)

    def declared(self, trial: Trial) -> Path:
        """The file a worker reads its experiment from."""
        return self.path / "declared" / f"{trial.hash}.json"

    def log(self, trial: Trial) -> Path:
        """What the trial's worker prints."""
        return self.path / "logs" / f"{trial.hash}.log"

    def claim_file(self, trial: Trial) -> Path:
        """The file whose lock its runner holds."""
        return self.path / "claims" / trial.hash

    def begin(self, experiment: Experiment) -> None:
        """Makes the folder. Raises `UsageError` if it cannot be made, or is another sweep's."""
        try:
            for name in ("trials", "declared", "logs", "ended", "claims"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror}; name another with --sweep-dir"
            ) from None
        found = self.read()
        if found is not None and found["experiment"] != to_json(experiment):
            raise UsageError(
                f"{self.path} holds a sweep of another experiment ({found['experiment']['name']}); "
                "name another folder with --sweep-dir"
            )
        if found is None:
            self._write({"experiment": to_json(experiment), "trials": {}})

    def add(self, trials: list[Trial]) -> None:
        """Notes trials: those that were there stay."""
        found = self.read()
        assert found is not None, "begin() wrote it"
        for trial in trials:
            found["trials"][trial.hash] = trial.to_json()
            if not self.declared(trial).exists():
                text = json.dumps(to_json(trial.experiment), indent=2) + "\n"
                write_atomically(self.declared(trial), text)
        self._write(found)

    def read(self) -> dict[str, Any] | None:
        """What sweep.json says: `experiment` and `trials`; None if there is none."""
        try:
            found = json.loads(self.declaration.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.declaration} cannot be read: {error}") from None
        if not isinstance(found, dict) or not {"experiment", "trials"} <= found.keys():
            raise UsageError(f"{self.declaration} is not a sweep's")
        return found

    def _write(self, found: dict[str, Any]) -> None:
        write_atomically(self.declaration, json.dumps(found, indent=1) + "\n")

    def is_done(self, trial: Trial) -> bool:
        """Whether the trial's run went to its end."""
        return self.run(trial).result.exists()

    def end(self, trial: Trial, state: str, why: str) -> None:
        """Notes that the trial ended without a result: `state` is `failed` or `pruned`."""
        text = json.dumps({"state": state, "why": why}) + "\n"
        write_atomically(self._ended(trial), text)

    def ended(self, trial: Trial) -> dict[str, str] | None:
        """What `end` noted last, since the trial was begun last."""
        try:
            found = json.loads(self._ended(trial).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        assert isinstance(found, dict)
        return found

    def forget_end(self, trial: Trial) -> None:
        """The trial is begun again."""
        self._ended(trial).unlink(missing_ok=True)

    def _ended(self, trial: Trial) -> Path:
        return self.path / "ended" / f"{trial.hash}.json"


def claim(path: Path) -> int | None:
    """Takes the lock of a claim file; None if a living process holds it.

    The lock is the open file's: a child that inherits the descriptor holds it as long as it
    lives, though the launcher that gave it be killed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
