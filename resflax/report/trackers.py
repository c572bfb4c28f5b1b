"""Runs in other people's viewers: TensorBoard and Weights & Biases.

metrics.jsonl is the record; a tracker is given its lines, afterwards or while the run goes. A new
one is a class with these three methods and a name in `TRACKERS`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json
from resflax.report.collect import Run

_FIGURES = ("loss", "error", "top5_error", "learning_rate", "images_per_second")


class Tracker(Protocol):
    """Where the lines of one run go."""

    def begin(self, name: str, experiment: Experiment) -> None:
        """The run and its experiment."""

    def line(self, step: int, figures: Mapping[str, float]) -> None:
        """What was measured at a step, as `{"test/error": 0.07}`."""

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Its result, if it has one; nothing more comes."""


class TensorBoard:
    """Event files in `DIR/tensorboard`, by tensorboardX: no TensorFlow."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageError(
                "TensorBoard needs tensorboardX: pip install -e '.[tensorboard]'"
            ) from None
        self._folder, self._writer_of = folder / "tensorboard", SummaryWriter
        self._writer: Any = None

    def begin(self, name: str, experiment: Experiment) -> None:
        """One folder per run; what was there of it is replaced."""
        folder = self._folder / name
        for old in folder.glob("events.*"):
            old.unlink()
        self._writer = self._writer_of(str(folder))
        text = "\n".join(f"    {field}: {value}" for field, value in flat_json(experiment).items())
        self._writer.add_text("experiment", text)

    def line(self, step: int, figures: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Closes the file."""
        self._writer.close()


class WandB:
    """Weights & Biases; without a network (WANDB_MODE=offline) below `DIR/wandb`."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise UsageError("W&B needs wandb: pip install -e '.[wandb]'") from None
        self._wandb, self._folder = wandb, folder
        self._run: Any = None

    def begin(self, name: str, experiment: Experiment) -> None:
        """One run by that id, so that a second time adds to it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "resflax"),
            id=experiment.content_hash,
            name=name,
            config=flat_json(experiment),
            dir=str(self._folder),
            resume="allow",
        )

    def line(self, step: int, figures: Mapping[str, float]) -> None:
        """One step's figures together."""
        self._run.log(dict(figures), step=step)

    def end(self, result: Mapping[str, Any] | None) -> None:
        """The result is the run's summary."""
        if result is not None:
            self._run.summary.update(dict(result))
        self._run.finish()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def send(runs: Sequence[Run], tracker: Tracker) -> None:
    """Gives every run's lines to the tracker, those of one step together."""
    for run in runs:
        tracker.begin(f"{run.experiment.name}-{run.experiment.content_hash}", run.experiment)
        by_step: dict[int, dict[str, float]] = {}
        for line in run.lines:
            figures = by_step.setdefault(line["step"], {})
            for figure in _FIGURES:
                if line.get(figure) is not None:
                    figures[f"{line['split']}/{figure}"] = line[figure]
        for step, figures in sorted(by_step.items()):
            tracker.line(step, figures)
        tracker.end(run.result)
