"""The loop: steps, and at their marks a line in the log, an evaluation, a checkpoint.

What happens at a mark depends on the step and on the log alone, so a run that is cut off anywhere
and continued from a checkpoint does and writes the same as one that was not.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from resflax.errors import Interrupted, TrainingError
from resflax.experiment import Experiment
from resflax.training import environment
from resflax.training.checkpoints import Checkpoints
from resflax.training.compilation import keep_compiled
from resflax.training.display import Bar, Display
from resflax.training.interruption import Interruption
from resflax.training.measure import measure
from resflax.training.metrics import Metrics
from resflax.training.plan import Plan, make_plan
from resflax.training.run_folder import RunFolder, Status
from resflax.training.start import start_from
from resflax.training.state import Totals, TrainState, params_sha256


def train(experiment: Experiment, folder: RunFolder, console: Console) -> dict[str, Any]:
    """Trains the experiment in its folder, from where it stands there; returns its result.

    Raises:
      UsageError: before anything is written, if the experiment, its data or the folder are unfit.
      TrainingError: if the loss stops being finite, or no checkpoint of the run can be read.
      Interrupted: on Ctrl-C or SIGTERM, after the run was saved.
    """
    experiment = experiment.resolved()
    if folder.status(experiment) is Status.FINISHED:
        console.print(f"{folder.path} holds this run, finished: nothing to do", soft_wrap=True)
        result = folder.read_result()
        assert result is not None
        return result
    keep_compiled()
    with Display(console) as display:
        plan = make_plan(experiment, display)
        here = environment.describe()
        start = None
        if experiment.initialize_from is not None and not _has_checkpoint(folder):
            path = Path(experiment.initialize_from)
            start, origin = start_from(path, experiment, plan.initial(), display.say)
            here["initialized_from"] = origin
        folder.begin(experiment, here)
        with Interruption() as interruption:
            run = Run(experiment, plan, start, folder, display, interruption)
            return run.finish(run.go())


def _has_checkpoint(folder: RunFolder) -> bool:
    """Whether a run is continued, so that its first weights no longer matter."""
    return Checkpoints(folder.checkpoints).newest_good(lambda text: None) is not None


@dataclass
class Clock:
    """Wall-clock time: of the whole run, and of the steps since the last line of the log."""

    before: float = 0.0
    """Seconds of earlier sessions."""
    warm: bool = False
    """Whether the step is compiled; the time of that is left out of the rate."""
    steps: int = 0
    """Steps timed since the last line."""
    _started: float = field(default_factory=time.perf_counter)
    _busy: float = 0.0
    _resumed: float | None = None

    @property
    def total(self) -> float:
        """Seconds of the run so far, all sessions together."""
        return self.before + time.perf_counter() - self._started

    def resume(self) -> None:
        """Steps begin."""
        self._resumed = time.perf_counter()

    def pause(self) -> None:
        """Steps end; evaluations and checkpoints are not timed."""
        self._busy = self._timed()
        self._resumed = None

    def forget(self) -> None:
        """Begins to time anew."""
        self.steps, self._busy = 0, 0.0

    def rate(self) -> float | None:
        """Steps per second; None if none were timed yet."""
        busy = self._timed()
        return self.steps / busy if self.steps and busy else None

    def _timed(self) -> float:
        running = 0.0 if self._resumed is None else time.perf_counter() - self._resumed
        return self._busy + running


class Run:
    """One session of a run: from the newest checkpoint to the end, or to an interruption."""

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        start: TrainState | None,
        folder: RunFolder,
        display: Display,
        interruption: Interruption,
    ) -> None:
        self.experiment, self.plan, self.folder = experiment, plan, folder
        self.start = start
        """The state before the first step, if it is not the plan's."""
        self.display, self.interruption = display, interruption
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.metrics = Metrics(folder.metrics)
        self.clock = Clock()
        self.saved: int | None = None
        """Step of the newest checkpoint."""

    def go(self) -> TrainState:
        """Runs to the end and returns the final state.

        Raises `Interrupted` where a signal asks for it, after saving.
        """
        state, step = self._begin()
        with self.display.bar("training", self.plan.steps, step) as bar:
            while True:
                state, complete = self._mark(state, step)
                if complete and step == self.plan.steps:
                    return state
                if self.interruption.signal is not None:
                    self._save(state, step)
                    raise Interrupted(
                        self.interruption.signal,
                        f"stopped at step {step} of {self.plan.steps} and saved; "
                        "the same command continues",
                    )
                state, step = self._advance(state, step, bar)

    def _begin(self) -> tuple[TrainState, int]:
        """The newest good checkpoint, or the state before the first step."""
        state = self.plan.initial() if self.start is None else self.start
        self.saved = self.checkpoints.newest_good(self.display.say)
        self.checkpoints.forget_after(self.saved)
        self.metrics.rewind(self.saved or 0)
        if self.saved is not None:
            state, notes = self.checkpoints.restore(self.saved, state)
            self.clock.before = notes["seconds"]
            self.display.say(f"continuing from step {self.saved} of {self.plan.steps}")
        return state, self.saved or 0

    def _advance(self, state: TrainState, step: int, bar: Bar) -> tuple[TrainState, int]:
        """Steps to the next mark, or until a signal."""
        every = self.experiment
        marks = (every.log_every, every.evaluate_every, every.checkpoint_every)
        until = min(self.plan.steps, *((step // mark + 1) * mark for mark in marks))
        before: jax.Array | None = None
        loss: jax.Array | None = None
        self.clock.resume()
        while step < until and not self.interruption:
            before = loss
            state, loss = self.plan.step(state, self.plan.train, self.plan.order.batch(step))
            step += 1
            if not self.clock.warm:  # the first step compiles
                loss.block_until_ready()
                self.clock.warm = True
                self.clock.resume()
            else:
                self.clock.steps += 1
            # The host stays one step ahead: enough to keep the devices busy, and a signal is
            # answered after one step.
            if before is not None:
                self._check_finite(before, step - 1)
            bar.set(step, note=self._speed())
        if loss is not None:
            self._check_finite(loss, step)
        self.clock.pause()
        return state, step

    def _check_finite(self, loss: jax.Array, step: int) -> None:
        if not math.isfinite(loss):
            rate = self._learning_rate(step)
            raise TrainingError(
                f"the loss is {float(loss)} at step {step} (learning rate {rate:g}); "
                f"checkpoints up to step {self.saved or 0} are kept"
            )

    def _learning_rate(self, step: int) -> float:
        """Of the step that made `step` of them."""
        return float(self.plan.learning_rate(jnp.int32(step - 1)))

    def _speed(self) -> str:
        rate = self.clock.rate()
        return "" if rate is None else f"{rate * self.experiment.batch_size:,.0f} images/s"

    def _mark(self, state: TrainState, step: int) -> tuple[TrainState, bool]:
        """Does what is due after `step` steps and not done yet.

        Returns the state, and False if a signal came before all of it was done.
        """
        experiment, final = self.experiment, step == self.plan.steps
        if step == 0:
            return state, True
        if final or step % experiment.log_every == 0:
            state = self._log(state, step)
        if final or step % experiment.evaluate_every == 0:
            names = list(self.plan.held_out) if final else list(self.plan.held_out)[:1]
            if not all(self._evaluate(state, step, name) for name in names):
                return state, False
        if final or step % experiment.checkpoint_every == 0:
            self._save(state, step)
        return state, True

    def _log(self, state: TrainState, step: int) -> TrainState:
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
        )
        self.clock.forget()
        return state.replace(totals=self.plan.devices.replicate(Totals.zero()))

    def _evaluate(self, state: TrainState, step: int, name: str) -> bool:
        """Measures a split; False if a signal came first."""
        if self.metrics.has(step, name):
            return True
        split = self.plan.held_out[name]
        with self.display.bar(f"{name} split", len(split.labels)) as bar:
            found = measure(
                self.plan.evaluate,
                state,
                split,
                self.experiment.batch_size,
                tick=bar.set,
                stop=lambda: bool(self.interruption),
            )
        if found is None:
            return False
        self._line(step, name, loss=found.loss, error=found.top1_error, top5_error=found.top5_error)
        return True

    def _line(self, step: int, split: str, *, loss: float, error: float, **more: float) -> None:
        """One measurement, to the log and to the console."""
        speed = self.clock.rate()
        rate = self._learning_rate(step)
        self.metrics.append(
            step=step,
            epoch=self.plan.order.epoch(step),
            split=split,
            loss=loss if math.isfinite(loss) else None,  # JSON has no infinity
            error=error,
            **more,
            learning_rate=rate,
            images_per_second=None if speed is None else speed * self.experiment.batch_size,
            seconds=self.clock.total,
        )
        self.display.say(
            f"step {step:>{len(str(self.plan.steps))}}/{self.plan.steps}  {split:<10} "
            f"loss {loss:7.4f}  error {error:7.2%}  learning rate {rate:<8.4g} {self._speed()}"
        )

    def _save(self, state: TrainState, step: int) -> None:
        if self.saved != step:
            self.checkpoints.save(step, state, {"seconds": self.clock.total})
            self.saved = step

    def finish(self, state: TrainState) -> dict[str, Any]:
        """Writes the result of a run that went to its end, and returns it."""
        result: dict[str, Any] = {"status": "finished", "steps": self.plan.steps}
        for split in ("test", "validation", "train"):
            line = self.metrics.last(split)
            if line is not None:
                result |= {f"{split}_error": line["error"], f"{split}_loss": line["loss"]}
        result |= {
            "params": self.plan.summary.params,
            "macs": self.plan.summary.macs,
            "seconds": self.clock.total,
            "params_sha256": params_sha256(jax.device_get(state.params)),
        }
        self.folder.finish(result)
        return result
