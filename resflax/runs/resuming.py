"""Chooses the checkpoint from which a run continues, so that its log has no gap.

A checkpoint has the sums only of the steps since the newest training line, and none of earlier
ones. So it notes on which lines it relies. They are on the disk before it is. They can still be
lost, because somebody changes the file or a disk forgets what it confirmed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resflax.runs.checkpoints import Checkpoints
from resflax.training.state import TrainState


def relied_on(lines: Sequence[Mapping[str, Any]], step: int) -> dict[str, int]:
    """Returns what a checkpoint of `step` notes about the log.

    That is `before`, the number of lines of earlier steps, and `trained`, the step of the newest
    training line (0: none). Evaluations of the step itself can be made again from the checkpoint.
    """
    trained = (line["step"] for line in lines if line["split"] == "train" and line["step"] <= step)
    return {
        "before": sum(line["step"] < step for line in lines),
        "trained": max(trained, default=0),
    }


def newest_complete(
    checkpoints: Checkpoints, lines: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> int | None:
    """The step of the newest good checkpoint that finds all of its lines in the log.

    If none after step 0 does, it is the newest good one: the lines that are missing stay so, and
    the training is not lost. None if no save was ever finished.

    Args:
      checkpoints: the run's checkpoints.
      lines: the lines of the log.
      say: is called with a line for every checkpoint that is skipped, with the reason.

    Raises `TrainingError` if there are checkpoints, but all of them are damaged.
    """
    newest = None
    for step in checkpoints.good(say):
        newest = step if newest is None else newest
        if not _finds_its_lines(checkpoints.notes(step), lines, step):
            continue
        if step == 0 != newest:
            break  # the whole training would be lost
        if step != newest:
            say(
                f"metrics.jsonl lacks lines before checkpoint {newest}; going back to checkpoint "
                f"{step}, whose lines are all there"
            )
        return step
    if newest is not None:
        say(f"metrics.jsonl lacks lines before checkpoint {newest}, and they stay missing")
    return newest


def _finds_its_lines(
    notes: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], step: int
) -> bool:
    """Whether the log has all lines that a checkpoint noted; True if it noted none."""
    if "log" not in notes:
        return True
    noted, there = notes["log"], relied_on(lines, step)
    return there["before"] == noted["before"] and there["trained"] >= noted["trained"]


def logged(notes: Mapping[str, Any], state: TrainState, step: int, log_every: int) -> int:
    """The step after which the sums in a checkpoint's state begin.

    Args:
      notes: the checkpoint's notes.
      state: its state.
      step: its step.
      log_every: the number of steps between training lines.
    """
    if "log" in notes:
        return int(notes["log"]["trained"])
    # Earlier versions did not note it. Where a line is due, the sums are empty after it.
    empty = not (float(state.totals.loss) or float(state.totals.gradient_norm))
    return step if empty else (step - 1) // log_every * log_every
