"""The log of a run, on disk and on the console: means over training batches, and evaluations."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.devices import hosts
from resflax.experiment import Experiment
from resflax.models.stacking import unstack
from resflax.runs import metrics, resuming
from resflax.runs.clock import Clock
from resflax.runs.plan import Plan
from resflax.terminal.display import Display
from resflax.training.measurement import SplitMeans, measure_split
from resflax.training.state import TrainState


class LogLines:
    """The lines of a run's log, in memory on every host and in a file that the first host writes.

    Every line has `step`, `epoch`, `split` (`train`, `validation` or `test`), `loss` (nats),
    `error` (a fraction), `learning_rate`, `images_per_second` and `seconds`. Training lines also
    have `gradient_norm` and `kernel_gradient_norms` (by layer), both before gradients are clipped;
    evaluations have `top5_error`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = hosts.on_first(lambda: metrics.read_lines(path))

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, and a line that was cut off while it was written.

        Raises `TrainingError` if the file cannot be written.
        """
        self._lines = [line for line in self._lines if line["step"] <= step]
        hosts.on_first(lambda: metrics.rewrite(self._path, self._lines))

    def append(self, **line: Any) -> None:
        """Adds a line. Raises `TrainingError` if it cannot be written."""
        hosts.on_first(lambda: metrics.append(self._path, line))
        self._lines.append(line)

    def sync(self) -> None:
        """Waits until the file is on the disk. Raises `TrainingError` if that fails."""
        hosts.on_first(lambda: metrics.sync(self._path))

    def relied_on(self, step: int) -> dict[str, int]:
        """Returns what a checkpoint of `step` notes about the log: see `runs.resuming`."""
        return resuming.relied_on(self._lines, step)

    def has(self, step: int, split: str) -> bool:
        """Whether there is a line for the step and the split."""
        return any(line["step"] == step and line["split"] == split for line in self._lines)

    def best_steps(self) -> list[int]:
        """The steps whose error on the validation split was below all earlier ones, in order."""
        return metrics.best_steps(self._lines)

    def at(self, step: int, split: str) -> dict[str, Any]:
        """The line of a step and a split, which must exist."""
        return next(x for x in self._lines if x["step"] == step and x["split"] == split)

    def last(self, split: str) -> dict[str, Any] | None:
        """The newest line of a split, or None if there is none."""
        return next((line for line in reversed(self._lines) if line["split"] == split), None)


class RunLog:
    """Writes the measurements of a run to its log and to the console.

    Training lines are means over the steps since the last training line. The steps add up sums in
    the state (`training.state.Totals`); the method `training` divides the sums and resets them.
    """

    def __init__(
        self, experiment: Experiment, plan: Plan, lines: LogLines, clock: Clock, display: Display
    ) -> None:
        self.experiment, self.plan, self.lines = experiment, plan, lines
        self.clock, self.display = clock, display
        self.logged = 0
        """The sums in the state are over the steps after this one."""

    def training(self, state: TrainState, step: int) -> TrainState:
        """Writes the means since the last training line; returns the state with its sums reset.

        If the sums were reset already, the line was written once. If it is lost, it is not made up.
        """
        steps = step - self.logged
        if steps == 0:
            return state
        totals = jax.device_get(state.totals)
        if not self.lines.has(step, "train"):
            bad = len(self.plan.training_feed.bad)
            self._line(
                step,
                "train",
                loss=float(totals.loss) / steps,
                error=int(totals.wrong) / (steps * self.experiment.batch_size),
                gradient_norm=_finite(float(totals.gradient_norm) / steps),
                kernel_gradient_norms=_means(totals.kernel_gradient_norms, steps),
                **({"bad_pictures": bad} if bad else {}),
            )
            self.clock.reset()
        self.logged = step
        zero = jax.tree.map(np.zeros_like, totals)
        return state.replace(totals=self.plan.devices.replicate(zero))

    def evaluation(
        self, state: TrainState, step: int, split: str, stop: Callable[[], bool]
    ) -> bool:
        """Measures a split and writes the result; returns False if `stop()` ended it before."""
        if self.lines.has(step, split):
            return True
        means = self.measure(state, split, stop)
        if means is None:
            return False
        self._line(
            step, split, loss=means.loss, error=means.top1_error, top5_error=means.top5_error
        )
        return True

    def measure(self, state: TrainState, split: str, stop: Callable[[], bool]) -> SplitMeans | None:
        """Measures a split and writes nothing; returns None if `stop()` ended it before."""
        feed = self.plan.evaluation_feeds[split]
        with self.display.bar(f"{split} split", feed.examples) as bar:
            return measure_split(
                self.plan.evaluate,
                state,
                feed,
                self.experiment.batch_size,
                tick=bar.set,
                stop=stop,
            )

    def _line(self, step: int, split: str, *, loss: float, error: float, **more: Any) -> None:
        """Writes one measurement to the file and to the console."""
        speed = self.clock.rate()
        rate = self.learning_rate(step)
        self.lines.append(
            step=step,
            epoch=self.plan.order.epoch(step),
            split=split,
            loss=_finite(loss),
            error=error,
            **more,
            learning_rate=rate,
            images_per_second=None if speed is None else speed * self.experiment.batch_size,
            seconds=self.clock.total,
        )
        text = (
            f"step {step:>{len(str(self.plan.steps))}}/{self.plan.steps}  {split:<10} "
            f"loss {loss:7.4f}  error {error:7.2%}  learning rate {rate:<8.4g} {self.speed()}"
        )
        self.display.say(text.rstrip())

    def learning_rate(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 1."""
        return float(self.plan.learning_rate(jnp.int32(step - 1)))

    def speed(self) -> str:
        """The speed since the last training line as text for the console; empty if not known."""
        rate = self.clock.rate()
        return "" if rate is None else f"{rate * self.experiment.batch_size:,.0f} images/s"


def _means(sums: Any, steps: int) -> dict[str, float | None]:
    """Divides sums by the number of steps: means by module path, with stacked units taken apart."""
    flat = flatten_dict(unstack(sums), sep=".")
    return {path: _finite(float(total) / steps) for path, total in flat.items()}


def _finite(number: float) -> float | None:
    """The number, or None if it is not finite, because JSON has neither infinity nor NaN."""
    return number if math.isfinite(number) else None
