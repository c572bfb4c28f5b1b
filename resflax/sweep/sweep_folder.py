"""The folder of a sweep: its files, and the trials that it lists."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, differences, from_json, to_json
from resflax.files import reason_of, write_atomically
from resflax.locks import in_turn
from resflax.parts.keeping import keep
from resflax.parts.user_files import UserFiles, changes, described, keep_user_files
from resflax.paths import output_fault
from resflax.runs.git import experiment_state
from resflax.runs.run_folder import RunFolder, found_by_hash
from resflax.sweep.trials import Trial


def default_sweep_path(experiment: Experiment) -> Path:
    """The folder `sweeps/NAME-HASH` below the working directory.

    NAME and HASH are those of the experiment, so they do not depend on what the sweep varies.
    """
    return found_by_hash(Path("sweeps"), experiment, f"{experiment.name}-")


class SweepFolder:
    """The files of one sweep. Several launchers may use them at the same time.

    sweep.lock      is locked (flock) while a process changes one of these files
    sweep.json      the experiment, the label and fields of every trial by its hash, and the hashes
                    of the experiment file and the modules beside it
    search.journal  Optuna's study, if the sweep is a search
    search.lock     is locked (flock) while a process writes the study
    trials/HASH     run folders
    declared/       HASH.json: the trials' experiments, which the workers read; code/: the code of
                    the user's own classes, the experiment file and the modules beside it
    logs/           HASH.log: what the workers printed
    ended/          HASH.json: why a trial ended without a result
    claims/         HASH: a file that is locked (flock) as long as a process runs the trial
    slurm/          the files of SLURM jobs

    Args:
      path: the folder.
      say: is called with a warning if the filesystem has no locks.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.path, self._say = path, say
        self.declaration = path / "sweep.json"
        self.search = path / "search.journal"

    def run(self, trial: Trial) -> RunFolder:
        """The trial's run folder."""
        return RunFolder(self._run_path(trial), trust_code=True)  # the launcher wrote the code

    def _run_path(self, trial: Trial) -> Path:
        return found_by_hash(self.path / "trials", trial.experiment)

    def experiment_file(self, trial_hash: str) -> Path:
        """The file from which a worker reads the experiment of the trial with this hash."""
        return self.path / "declared" / f"{trial_hash}.json"

    def log(self, trial: Trial) -> Path:
        """The file that the trial's worker prints to."""
        return self.path / "logs" / f"{trial.hash}.log"

    def lock_file(self, trial: Trial) -> Path:
        """The file that is kept locked by the process that runs the trial."""
        return self.path / "claims" / trial.hash

    @contextlib.contextmanager
    def in_turn(self, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Keeps other launchers from changing the folder's files meanwhile; waits for them.

        Args:
          say: is called with a warning if the filesystem has no locks.

        Raises `UsageError` if the folder cannot be written to, or another launcher does not end.
        """
        try:
            with in_turn(self.path / "sweep.lock", say):
                yield
        except OSError as error:
            raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> UsageError:
        return UsageError(
            f"cannot write to {self.path}: {reason_of(error)}; name another folder with --sweep-dir"
        )

    def begin(self, experiment: Experiment, files: UserFiles | None = None) -> None:
        """Creates the folder and its sweep.json, unless they exist.

        Args:
          experiment: the experiment that the trials vary.
          files: the experiment file and its modules. They are copied to `declared/code/`. If they
            have changed since the sweep was begun, that is said.

        Raises `UsageError` if it cannot be created, or if it holds a sweep of another experiment.
        """
        fault = output_fault(self.path)
        if fault is not None:
            raise UsageError(f"{fault}; a sweep needs a folder: name another with --sweep-dir")
        try:
            for name in ("trials", "declared", "logs", "ended", "claims"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from None
        state, patch = (None, "") if files is None else experiment_state(files.main)
        with self.in_turn(self._say):
            declared = self.read() or {"experiment": to_json(experiment), "trials": {}}
            there = from_json(declared["experiment"])
            different = differences(there, experiment)
            if different:
                raise UsageError(
                    f"{self.path} holds a sweep of another experiment, {there.name} "
                    f"(there != here): {'; '.join(different)}; name another folder with --sweep-dir"
                )
            noted = declared.setdefault("experiment_files", [])
            changed = changes(noted[-1]["files"] if noted else {}, files) if files else []
            if noted and changed:
                names = ", ".join(changed)
                self._say(f"{names} changed since the sweep was begun; declared/code/ keeps both")
            if files is not None and changed:
                kept = keep_user_files(files, self.path / "declared" / "code")
                note = described(files, kept.relative_to(self.path)) | {"git": state}
                if patch:
                    number = f"-{len(noted) + 1}" if noted else ""
                    note["diff"] = f"experiment{number}.diff"
                    write_atomically(self.path / note["diff"], patch)
                noted.append(note)
            if changed or not self.declaration.exists():
                self._write(declared)

    def add(self, trials: list[Trial]) -> None:
        """Adds trials to those that the folder already lists.

        Raises `UsageError` as `in_turn` does.
        """
        with self.in_turn():
            declared = self.read()
            assert declared is not None, "begin() wrote it"
            listed = dict(declared["trials"])
            for trial in trials:
                listed[self._run_path(trial).name] = trial.to_json()
                for own in trial.experiment.own_classes.values():
                    keep(own.source, self.path / "declared" / "code")
                path = self.experiment_file(trial.hash)
                if not path.exists():
                    write_atomically(path, json.dumps(to_json(trial.experiment), indent=2) + "\n")
            if listed != declared["trials"]:
                self._write(declared | {"trials": listed})

    def read(self) -> dict[str, Any] | None:
        """Returns the content of sweep.json, `experiment` and `trials`; None if there is no file.

        Raises `UsageError` if the file cannot be read or does not describe a sweep.
        """
        try:
            declared = json.loads(self.declaration.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.declaration} cannot be read: {reason_of(error)}") from None
        if not isinstance(declared, dict) or not {"experiment", "trials"} <= declared.keys():
            raise UsageError(f"{self.declaration} does not describe a sweep")
        return declared

    def _write(self, declared: dict[str, Any]) -> None:
        write_atomically(self.declaration, json.dumps(declared, indent=1) + "\n")

    def is_done(self, trial: Trial) -> bool:
        """Whether the trial's run is finished."""
        return self.run(trial).result.exists()

    def record_end(self, trial: Trial, state: str, reason: str) -> None:
        """Records that the trial ended without a result, and when.

        Args:
          trial: the trial that ended.
          state: `failed` or `pruned`.
          reason: why it ended, on one line.
        """
        end = {"state": state, "why": reason, "at": datetime.now(UTC).isoformat()}
        write_atomically(self._end_file(trial), json.dumps(end) + "\n")

    def read_end(self, trial: Trial) -> dict[str, str] | None:
        """Returns `state`, `why` and `at` (the time) of the trial's last end without a result.

        Returns None if the trial did not end in this way since it was last started.
        """
        return _read_end(self._end_file(trial))

    def read_ends(self) -> dict[Path, dict[str, str] | None]:
        """The ends that `read_end` returns, by the trials' run folders."""
        files = (self.path / "ended").glob("[!.]*.json")
        return {self.path / "trials" / file.stem: _read_end(file) for file in files}

    def clear_end(self, trial: Trial) -> None:
        """Removes what `record_end` wrote, because the trial is started again."""
        self._end_file(trial).unlink(missing_ok=True)

    def _end_file(self, trial: Trial) -> Path:
        return self.path / "ended" / f"{self._run_path(trial).name}.json"


def _read_end(file: Path) -> dict[str, str] | None:
    try:
        end = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return end if isinstance(end, dict) and {"state", "why"} <= end.keys() else None
