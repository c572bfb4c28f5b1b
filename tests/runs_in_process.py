"""Runs in this process, for tests that disturb them from inside."""

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from resflax import Experiment
from resflax.devices.parallel import Devices
from resflax.runs import environment, plan, session
from resflax.runs.loop import TrainingLoop
from resflax.runs.run_folder import RunFolder

Train = Callable[..., str]


def trainer(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Makes a function that trains on so many devices and returns what was printed."""
    monkeypatch.setattr(environment, "source_changes", lambda: "")

    def train(experiment: Experiment, folder: Path, devices: int = 1) -> str:
        chosen = jax.local_devices()[:devices]
        monkeypatch.setattr(plan, "Devices", lambda parallel: Devices(parallel, chosen))
        monkeypatch.setattr(jax, "devices", lambda: chosen)
        printed = io.StringIO()
        session.train(experiment, RunFolder(folder), Console(file=printed, width=500))
        return printed.getvalue()

    return train


def once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Callable[..., Exception | None]
) -> None:
    """Makes a function raise what `fault` returns for its arguments, the first time it does."""
    original = getattr(owner, name)

    def faulty(*arguments: Any, **options: Any) -> Any:
        error = fault(*arguments, **options)
        if error is None:
            return original(*arguments, **options)
        monkeypatch.setattr(owner, name, original)
        raise error

    monkeypatch.setattr(owner, name, faulty)


def interrupt_after_saving(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Sends SIGTERM to this process after the checkpoint of a step was begun."""
    original = TrainingLoop.save

    def save(self: TrainingLoop, state: Any, step: int) -> None:
        due = self.saved != step
        original(self, state, step)
        if due and step == at:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingLoop, "save", save)
