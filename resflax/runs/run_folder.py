"""Run folders: the files of a run, its experiment, and whether the run is finished."""

import contextlib
import dataclasses
import json
import math
import reprlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, differences, from_json, to_json, with_code_from
from resflax.files import reason_of, write_atomically, writing
from resflax.parts.keeping import keep
from resflax.parts.user_files import UserFiles, described, keep_user_files
from resflax.paths import output_fault
from resflax.runs import lock
from resflax.runs.metrics import is_count, is_number
from resflax.text import duration

_COUNTS = ("steps", "params", "macs", "best_step", "rollbacks")
_MEASUREMENTS = (
    *(f"{split}_{name}" for split in ("train", "validation", "test") for name in ("error", "loss")),
    *("best_validation_error", "best_test_error", "seconds"),
)
"""The numbers in a result; each of them may be missing."""


class Status(Enum):
    """The state of a folder, as seen by an experiment that is to run in it."""

    NEW = "nothing there yet"
    UNFINISHED = "the same experiment, to be continued"
    FINISHED = "the same experiment, done"


def default_run_path(experiment: Experiment) -> Path:
    """`runs/NAME-HASH` below the working directory.

    HASH is that of format 1 if only a folder of that name exists.
    """
    return found_by_hash(Path("runs"), experiment, f"{experiment.name}-")


def found_by_hash(parent: Path, experiment: Experiment, prefix: str = "") -> Path:
    """The folder in `parent` that is named by an experiment's hash, after a prefix.

    It is named by the hash of format 1 if only that folder exists.
    """
    path = parent / f"{prefix}{experiment.content_hash}"
    old_hash = experiment.hash_of_format_1
    old = parent / f"{prefix}{old_hash}"
    return old if old_hash is not None and old.exists() and not path.exists() else path


class RunFolder:
    """The files of one run.

    Args:
      path: the folder.
      trust_code: whether the code of a user's own classes that the folder keeps may be run, if the
        files where it came from have changed or are gone.
    """

    def __init__(self, path: Path, *, trust_code: bool = False) -> None:
        self.path = path
        self._trust_code = trust_code
        self.code = path / "code"
        self.experiment = path / "experiment.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"

    def status(self, experiment: Experiment) -> Status:
        """The state of the folder for the experiment. Writes nothing.

        Raises:
          UsageError: if the folder cannot be used, because it is a file, cannot be written to, or
            holds foreign files, an unreadable experiment or another experiment. In the last case
            the message names the fields that differ.
        """
        self._check_usable()
        if not self.path.exists():
            return Status.NEW
        if not self.experiment.exists():
            names = sorted(path.name for path in self.path.iterdir())
            foreign = [name for name in names if name != lock.NAME and not name.endswith(".tmp")]
            if foreign:
                raise UsageError(
                    f"{self.path} is not a run folder (it has {foreign[0]} but no "
                    "experiment.json); name another with --run-dir"
                )
            return Status.NEW
        different = differences(self.read_experiment(), experiment)
        if different:
            raise UsageError(
                f"{self.path} holds another experiment (there != here): {'; '.join(different)}; "
                "name another folder with --run-dir"
            )
        return Status.FINISHED if self.result.exists() else Status.UNFINISHED

    def _check_usable(self) -> None:
        fault = output_fault(self.path)
        if fault is not None:
            raise UsageError(f"{fault}; a run needs a folder: name another with --run-dir")

    def read_experiment(self) -> Experiment:
        """Reads the experiment of the run. Raises `UsageError` if it is missing or unreadable."""
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is not a run folder: there is no such folder")
        try:
            experiment = from_json(json.loads(self.experiment.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UsageError(
                f"{self.path} is not a run folder: it has no experiment.json"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.experiment} cannot be read: {reason_of(error)}") from None
        if experiment.initialize_from is not None and experiment.initial_weights is None:
            experiment = dataclasses.replace(experiment, initial_weights=self._noted_weights())
        return with_code_from(experiment, self.code, self._trust_code)

    def _noted_weights(self) -> str | None:
        """The sha256 of the weights that a run of format 1 started with."""
        noted = self.first_environment().get("initialized_from")
        return noted.get("params_sha256") if isinstance(noted, dict) else None

    def read_result(self) -> dict[str, Any] | None:
        """Reads the result of the run; None if the run is not finished.

        Numbers that are not finite are read as None: they were not measured.

        Raises `UsageError` if the file exists but cannot be read or does not describe a result.
        """
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.result} cannot be read: {reason_of(error)}") from None
        try:
            return _check_result(result)
        except ValueError as error:
            raise UsageError(f"{self.result} does not describe a result: {error}") from None

    def create(self) -> None:
        """Makes the folder if it does not exist. Raises `UsageError` if it cannot be made."""
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)

    def begin(
        self,
        experiment: Experiment,
        environment: dict[str, Any],
        source_changes: str = "",
        files: UserFiles | None = None,
        experiment_changes: str = "",
    ) -> None:
        """Writes experiment.json if it does not exist, and adds this session to environment.json.

        The code of the user's own classes is copied to `code/`.

        Args:
          experiment: the run's experiment.
          environment: the description of this session from `runs.environment`.
          source_changes: a patch, if the source differs from its commit. It is written to a file of
            its own, which the environment names as `source_diff`.
          files: the experiment file and its modules. They are copied to `code/`, and the
            environment has their hashes as `experiment_files`.
          experiment_changes: a patch, if the repository of these files differs from its commit. It
            is written as `source_changes` is, under the name `experiment_diff`.

        Raises `UsageError` if the files cannot be written.
        """
        self.create()
        sessions = self.sessions()
        with self._writing():
            for own in experiment.own_classes.values():
                keep(own.source, self.code)
            if not self.experiment.exists():
                _write_json(self.experiment, to_json(experiment))
            if files is not None:
                kept = keep_user_files(files, self.code).relative_to(self.path)
                environment = environment | {"experiment_files": described(files, kept)}
            for kind, patch in (("source", source_changes), ("experiment", experiment_changes)):
                if patch:
                    name = f"{kind}-{len(sessions) + 1}.diff" if sessions else f"{kind}.diff"
                    write_atomically(self.path / name, patch)
                    environment = environment | {f"{kind}_diff": name}
            first, *continued = [*sessions, environment]
            _write_json(self.environment, first | ({"continued": continued} if continued else {}))

    def first_environment(self) -> dict[str, Any]:
        """The environment of the run's first session; empty if it is not known."""
        return next(iter(self.sessions()), {})

    def last_environment(self) -> dict[str, Any]:
        """The environment of the run's newest session; empty if it is not known."""
        return next(reversed(self.sessions()), {})

    def sessions(self) -> list[dict[str, Any]]:
        """The environments of all sessions; empty if the first session was cut off at its start."""
        try:
            first = json.loads(self.environment.read_text(encoding="utf-8"))
            return [first, *first.pop("continued", [])]
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return []

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {reason_of(error)}; name another folder with "
                "--run-dir, or make room"
            ) from None

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result, which ends the run. Raises `TrainingError` if it cannot be written."""
        with writing(self.result):
            _write_json(self.result, result)


def _write_json(path: Path, plain: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _check_result(result: Any) -> dict[str, Any]:
    """The result without numbers that are not finite. Raises `ValueError` if it is damaged."""
    if not isinstance(result, dict):
        raise ValueError(f"it is {reprlib.repr(result)}")
    checked = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in result.items()
    }
    for names, is_right in ((_COUNTS, is_count), (_MEASUREMENTS, is_number)):
        for name in names:
            value = checked.get(name)
            if value is not None and not is_right(value):
                raise ValueError(f"{name} is {reprlib.repr(value)}")
    return checked


def describe_result(path: Path, result: dict[str, Any]) -> str:
    """Describes a finished run in a few lines of text."""
    lines = []
    for split in ("train", "validation", "test"):
        if f"{split}_error" in result:
            error, loss = result[f"{split}_error"], result[f"{split}_loss"]
            shown = "not finite" if loss is None else f"{loss:.4f}"
            lines.append(f"{split:<10} error {error:7.2%}   loss {shown}")
    if "best_step" in result:
        chosen, tested = result["best_validation_error"], result["best_test_error"]
        shown = "not measured" if tested is None else f"{tested:.2%}"
        lines.append(
            f"best       validation error {chosen:.2%} at step {result['best_step']:,}, "
            f"and there test error {shown}"
        )
    unit = "min" if result["seconds"] < 3600 else "h"
    lines += [
        f"{result['params']:,} parameters, {result['macs']:,} multiply-adds an image, "
        f"{result['steps']:,} steps in {duration(result['seconds'])} {unit}",
        f"all of it is in {path}",
    ]
    return "\n".join(lines)
