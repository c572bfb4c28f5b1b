"""Where a trial stands, read from its run folder."""

import json
from dataclasses import dataclass
from typing import Any

from resflax.experiment import Experiment
from resflax.training import metrics
from resflax.training.run_folder import RunFolder


@dataclass(frozen=True)
class Progress:
    """The newest figures of a run."""

    step: int = 0
    total: int | None = None
    """Steps in all; None where nothing is known yet."""
    error: float | None = None
    """A fraction, of `split`."""
    split: str = ""
    """validation where there is one, else test; train until either was measured."""
    seconds_left: float | None = None


def read_progress(folder: RunFolder, experiment: Experiment) -> Progress:
    """Reads metrics.jsonl, and result.json if it is there."""
    lines = metrics.read(folder.metrics)
    total = experiment.steps
    if not lines:
        return Progress(total=total)
    last = lines[-1]
    if total is None and experiment.epochs is not None and last.get("epoch"):
        total = round(experiment.epochs * last["step"] / last["epoch"])
    measured = next(
        (line for split in ("validation", "test", "train") if (line := _last(lines, split))), last
    )
    left = None
    if total is not None and last.get("seconds"):
        left = last["seconds"] / last["step"] * max(total - last["step"], 0)
    return Progress(last["step"], total, measured.get("error"), measured["split"], left)


def _last(lines: list[dict[str, Any]], split: str) -> dict[str, Any] | None:
    return next((line for line in reversed(lines) if line["split"] == split), None)


def validation_errors(folder: RunFolder) -> dict[int, float]:
    """Errors on the held-out examples by step."""
    lines = metrics.read(folder.metrics)
    return {line["step"]: line["error"] for line in lines if line["split"] == "validation"}


def read_result(folder: RunFolder) -> dict[str, Any] | None:
    """The result of a finished run, or None."""
    try:
        found = json.loads(folder.result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
