"""The progress of a trial, read from its run folder."""

from dataclasses import dataclass
from typing import Any

from resflax.experiment import Experiment
from resflax.runs import metrics
from resflax.runs.run_folder import RunFolder


@dataclass(frozen=True)
class TrialProgress:
    """The newest measurements of a run."""

    step: int = 0
    """Number of steps that were done when the last line was logged."""
    total: int | None = None
    """Number of steps of the whole training; None until it is known."""
    error: float | None = None
    """Newest error on `split`, as a fraction."""
    split: str = ""
    """The split of `error`: validation if there is one, else test; train before any evaluation."""
    seconds_left: float | None = None
    """Estimated time until the training is complete; None until it can be estimated."""


def read_trial_progress(folder: RunFolder, experiment: Experiment) -> TrialProgress:
    """Returns the progress that a run's metrics.jsonl shows."""
    lines = metrics.read_lines(folder.metrics)
    total = experiment.steps
    if not lines:
        return TrialProgress(total=total)
    last = lines[-1]
    if total is None and experiment.epochs is not None and last.get("epoch"):
        examples = round(last["step"] * experiment.batch_size / last["epoch"])
        total = experiment.count_steps(examples)
    newest_by_split = (_newest(lines, split) for split in ("validation", "test", "train"))
    evaluation = next((line for line in newest_by_split if line is not None), last)
    seconds_left = None
    if total is not None and last.get("seconds"):
        seconds_left = last["seconds"] / last["step"] * max(total - last["step"], 0)
    return TrialProgress(
        last["step"], total, evaluation.get("error"), evaluation["split"], seconds_left
    )


def _newest(lines: list[dict[str, Any]], split: str) -> dict[str, Any] | None:
    return next((line for line in reversed(lines) if line["split"] == split), None)


def read_validation_errors(folder: RunFolder) -> dict[int, float]:
    """Returns the errors on the held-out examples, as fractions, by step."""
    lines = metrics.read_lines(folder.metrics)
    return {line["step"]: line["error"] for line in lines if line["split"] == "validation"}
