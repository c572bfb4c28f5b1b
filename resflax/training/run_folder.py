"""A run folder: which files it has, whose it is, and whether it is done."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, differences, from_json, to_json
from resflax.training import lock
from resflax.training.files import in_words, write_atomically, writing

_FREE = ("parallel",)
"""Fields that a continued run may change: the numbers stay the same."""


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
            names = sorted(path.name for path in self.path.iterdir())
            foreign = [name for name in names if name != lock.NAME and not name.endswith(".tmp")]
            if foreign:
                raise UsageError(
                    f"{self.path} is not a run folder (it has {foreign[0]} but no "
                    "experiment.json); name another with --run-dir"
                )
            return Status.NEW
        there = dataclasses.replace(self.read_experiment(), **_free(experiment))
        found = differences(there, experiment)
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

    def create(self) -> None:
        """Makes the folder, empty. Raises `UsageError` if it cannot be made."""
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)

    def begin(
        self, experiment: Experiment, environment: dict[str, Any], source_changes: str = ""
    ) -> None:
        """Makes the folder the experiment's, or notes where its run is continued.

        Args:
          experiment: the run's.
          environment: of this session.
          source_changes: a patch, where the source is not that of a commit. It is kept beside the
            environment, which then names its file as `source_diff`.

        Raises `UsageError` if nothing can be written there.
        """
        self.create()
        sessions = self._sessions()
        with self._writing():
            if not self.experiment.exists():
                _write(self.experiment, to_json(experiment))
            if source_changes:
                name = f"source-{len(sessions) + 1}.diff" if sessions else "source.diff"
                write_atomically(self.path / name, source_changes)
                environment = environment | {"source_diff": name}
            first, *continued = [*sessions, environment]
            _write(self.environment, first | ({"continued": continued} if continued else {}))

    def last_environment(self) -> dict[str, Any]:
        """Of the newest session of the run; empty if it is not known."""
        return next(reversed(self._sessions()), {})

    def _sessions(self) -> list[dict[str, Any]]:
        """The environments of all sessions, none if the first was cut off while it began."""
        try:
            first = json.loads(self.environment.read_text(encoding="utf-8"))
            return [first, *first.pop("continued", [])]
        except (OSError, ValueError, TypeError, AttributeError):
            return []

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {in_words(error)}; name another folder with "
                "--run-dir, or make room"
            ) from None

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result: the run is done. Raises `TrainingError` if it cannot be written."""
        with writing(self.result):
            _write(self.result, result)


def _free(experiment: Experiment) -> dict[str, Any]:
    return {name: getattr(experiment, name) for name in _FREE}


def _write(path: Path, plain: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def describe_result(path: Path, result: dict[str, Any]) -> str:
    """A finished run in a few lines of text."""
    lines = []
    for split in ("train", "validation", "test"):
        if f"{split}_error" in result:
            error, loss = result[f"{split}_error"], result[f"{split}_loss"]
            shown = "not finite" if loss is None else f"{loss:.4f}"
            lines.append(f"{split:<10} error {error:7.2%}   loss {shown}")
    minutes, seconds = divmod(round(result["seconds"]), 60)
    lines += [
        f"{result['params']:,} parameters, {result['macs']:,} multiply-adds an image, "
        f"{result['steps']:,} steps in {minutes}:{seconds:02d} min",
        f"all of it is in {path}",
    ]
    return "\n".join(lines)
