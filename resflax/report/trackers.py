"""Sends runs to the viewers TensorBoard and Weights & Biases.

metrics.jsonl remains the record of a run; a tracker receives its lines. To add a tracker, write a
class with the three methods of `Tracker` and name it in `TRACKERS`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json
from resflax.report.collect import RunRecord

_TRACKED = ("loss", "error", "top5_error", "learning_rate", "images_per_second")
"""The measurements that are sent from each line."""


class Tracker(Protocol):
    """Receives runs one after another."""

    def begin_run(self, name: str, experiment: Experiment) -> None:
        """Begins a run."""

    def log_step(self, step: int, measurements: Mapping[str, float]) -> None:
        """Adds all measurements of one step of the run, such as `{"test/error": 0.07}`."""

    def end_run(self, result: Mapping[str, Any] | None) -> None:
        """Ends the run. `result` is the run's result; None unless the run is finished."""


class TensorBoard:
    """Writes event files to `FOLDER/tensorboard`, with tensorboardX and without TensorFlow.

    Raises `UsageError` if tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageError(
                "TensorBoard needs tensorboardX: pip install 'resflax[tensorboard]'"
            ) from None
        self._folder, self._new_writer = folder / "tensorboard", SummaryWriter
        self._writer: Any = None

    def begin_run(self, name: str, experiment: Experiment) -> None:
        """Begins the run's event file in the folder NAME, and removes its earlier event files."""
        folder = self._folder / name
        for old in folder.glob("events.*"):
            old.unlink()
        self._writer = self._new_writer(str(folder))
        text = "\n".join(f"    {field}: {value}" for field, value in flat_json(experiment).items())
        self._writer.add_text("experiment", text)

    def log_step(self, step: int, measurements: Mapping[str, float]) -> None:
        """Writes each measurement as a scalar."""
        for name, value in measurements.items():
            self._writer.add_scalar(name, value, step)

    def end_run(self, result: Mapping[str, Any] | None) -> None:
        """Closes the event file."""
        self._writer.close()


class WandB:
    """Sends runs to Weights & Biases; with WANDB_MODE=offline, writes them below `FOLDER/wandb`.

    Raises `UsageError` if wandb is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise UsageError("W&B needs wandb: pip install 'resflax[wandb]'") from None
        self._wandb, self._folder = wandb, folder
        self._run: Any = None

    def begin_run(self, name: str, experiment: Experiment) -> None:
        """Begins the run under the experiment's hash, or resumes it if it was sent before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "resflax"),
            id=experiment.content_hash,
            name=name,
            config=flat_json(experiment),
            dir=str(self._folder),
            resume="allow",
        )

    def log_step(self, step: int, measurements: Mapping[str, float]) -> None:
        """Sends the step's measurements together."""
        self._run.log(dict(measurements), step=step)

    def end_run(self, result: Mapping[str, Any] | None) -> None:
        """Makes the result the run's summary, and ends the run."""
        if result is not None:
            self._run.summary.update(dict(result))
        self._run.finish()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""The trackers by their names on the command line. Each takes the folder that it writes to."""


def send_runs(runs: Sequence[RunRecord], tracker: Tracker) -> None:
    """Sends every run to the tracker; the lines of one step are sent together."""
    for run in runs:
        tracker.begin_run(f"{run.experiment.name}-{run.experiment.content_hash}", run.experiment)
        by_step: dict[int, dict[str, float]] = {}
        for line in run.lines:
            measurements = by_step.setdefault(line["step"], {})
            for name in _TRACKED:
                if line.get(name) is not None:
                    measurements[f"{line['split']}/{name}"] = line[name]
        for step, measurements in sorted(by_step.items()):
            tracker.log_step(step, measurements)
        tracker.end_run(run.result)
