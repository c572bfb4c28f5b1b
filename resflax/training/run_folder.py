"""A run folder: which files it has, whose it is, and whether it is done."""

import json
import os
from enum import Enum
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, differences, from_json, to_json
from resflax.training.files import write_atomically


class Status(Enum):
    """What a folder is to an experiment that wants to run in it."""

    NEW = "nothing there yet"
    UNFINISHED = "the same experiment, to be continued"
    FINISHED = "the same experiment, done"


def default_path(experiment: Experiment) -> Path:
    """`runs/NAME-HASH` below the working directory."""
    return Path("runs") / f"{experiment.name}-{experiment.content_hash}"


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiment = path / "experiment.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"

    def status(self, experiment: Experiment) -> Status:
        """What is there. Reads only.

        Raises:
          UsageError: if it cannot be used: a file, no permission, foreign files, an experiment
            that cannot be read, or another experiment; the message names the fields that differ.
        """
        self._check_usable()
        if not self.path.exists():
            return Status.NEW
        if not self.experiment.exists():
            foreign = sorted(p.name for p in self.path.iterdir() if not p.name.endswith(".tmp"))
            if foreign:
                raise UsageError(
                    f"{self.path} is not a run folder (it has {foreign[0]} but no experiment.json);"
                    " name another with --run-dir"
                )
            return Status.NEW
        found = differences(self.read_experiment(), experiment)
        if found:
            raise UsageError(
                f"{self.path} holds another experiment (there != here): {'; '.join(found)}; "
                "name another folder with --run-dir"
            )
        return Status.FINISHED if self.result.exists() else Status.UNFINISHED

    def _check_usable(self) -> None:
        there = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not there.is_dir():
            raise UsageError(f"{there} is a file; a run needs a folder: name one with --run-dir")
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"{there} cannot be written to; name another folder with --run-dir")

    def read_experiment(self) -> Experiment:
        """The experiment of the run. Raises `UsageError` if there is none that can be read."""
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is not a run folder: there is no such folder")
        try:
            plain = json.loads(self.experiment.read_text(encoding="utf-8"))
            return from_json(plain)
        except FileNotFoundError:
            raise UsageError(
                f"{self.path} is not a run folder: it has no experiment.json"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.experiment} cannot be read: {error}") from None

    def read_result(self) -> dict[str, Any] | None:
        """The result, or None if the run is not finished."""
        try:
            result = json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.result} cannot be read: {error}") from None
        assert isinstance(result, dict)
        return result

    def begin(self, experiment: Experiment, environment: dict[str, Any]) -> None:
        """Makes the folder the experiment's, or notes where its run is continued.

        Raises `UsageError` if nothing can be written there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.experiment.exists():
                _write(self.experiment, to_json(experiment))
                _write(self.environment, environment)
                return
            try:
                first = json.loads(self.environment.read_text(encoding="utf-8"))
                first["continued"] = [*first.get("continued", []), environment]
            except (OSError, ValueError, TypeError, AttributeError):
                first = environment  # cut off before it was written
            _write(self.environment, first)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror}; name another folder with --run-dir"
            ) from None

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result: the run is done."""
        _write(self.result, result)


def _write(path: Path, plain: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def describe_result(path: Path, result: dict[str, Any]) -> str:
    """A finished run in a few lines of text."""
    lines = [
        f"{split:<10} error {result[f'{split}_error']:7.2%}   loss {result[f'{split}_loss']:.4f}"
        for split in ("train", "validation", "test")
        if f"{split}_error" in result
    ]
    minutes, seconds = divmod(round(result["seconds"]), 60)
    lines += [
        f"{result['params']:,} parameters, {result['macs']:,} multiply-adds an image, "
        f"{result['steps']:,} steps in {minutes}:{seconds:02d} min",
        f"all of it is in {path}",
    ]
    return "\n".join(lines)
