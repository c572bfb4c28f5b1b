"""What a run writes down at its marks: means over training batches, and evaluations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.experiment import Experiment
from resflax.models.stacking import unstack
from resflax.training.clock import Clock
from resflax.training.display import Display
from resflax.training.measure import measure
from resflax.training.metrics import Metrics
from resflax.training.plan import Plan
from resflax.training.state import TrainState


class Record:
    """The log of a run, on disk and on the console."""

    def __init__(
        self, experiment: Experiment, plan: Plan, metrics: Metrics, clock: Clock, display: Display
    ) -> None:
        self.experiment, self.plan, self.metrics = experiment, plan, metrics
        self.clock, self.display = clock, display

    def training(self, state: TrainState, step: int) -> TrainState:
        """Writes the means since the last line, and begins to sum anew."""
        if self.metrics.has(step, "train"):
            return state
        totals = jax.device_get(state.totals)
        steps = (step - 1) % self.experiment.log_every + 1
        self._line(
            step,
            "train",
            loss=float(totals.loss) / steps,
            error=int(totals.wrong) / (steps * self.experiment.batch_size),
            gradient_norm=_finite(float(totals.gradient_norm) / steps),
            kernel_gradient_norms=_means(totals.kernel_gradient_norms, steps),
            **({"bad_pictures": len(self.plan.train.bad)} if self.plan.train.bad else {}),
        )
        self.clock.forget()
        none = jax.tree.map(np.zeros_like, totals)
        return state.replace(totals=self.plan.devices.replicate(none))

    def evaluation(
        self, state: TrainState, step: int, split: str, stop: Callable[[], bool]
    ) -> bool:
        """Measures a split; False if `stop()` came first."""
        if self.metrics.has(step, split):
            return True
        feed = self.plan.held_out[split]
        with self.display.bar(f"{split} split", feed.examples) as bar:
            found = measure(
                self.plan.evaluate,
                state,
                feed,
                self.experiment.batch_size,
                tick=bar.set,
                stop=stop,
            )
        if found is None:
            return False
        self._line(
            step, split, loss=found.loss, error=found.top1_error, top5_error=found.top5_error
        )
        return True

    def _line(self, step: int, split: str, *, loss: float, error: float, **more: Any) -> None:
        """One measurement, to the log and to the console."""
        speed = self.clock.rate()
        rate = self.learning_rate(step)
        self.metrics.append(
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
        self.display.say(
            f"step {step:>{len(str(self.plan.steps))}}/{self.plan.steps}  {split:<10} "
            f"loss {loss:7.4f}  error {error:7.2%}  learning rate {rate:<8.4g} {self.speed()}"
        )

    def learning_rate(self, step: int) -> float:
        """Of the step that made `step` of them."""
        return float(self.plan.learning_rate(jnp.int32(step - 1)))

    def speed(self) -> str:
        """Of the steps since the last line, for the console."""
        rate = self.clock.rate()
        return "" if rate is None else f"{rate * self.experiment.batch_size:,.0f} images/s"


def _means(sums: Any, steps: int) -> dict[str, float | None]:
    """By the path of a module, of stacked units each by its own."""
    flat = flatten_dict(unstack(sums), sep=".")
    return {path: _finite(float(total) / steps) for path, total in flat.items()}


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if math.isfinite(number) else None
