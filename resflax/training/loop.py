"""The loop: steps, and at their marks a line in the log, an evaluation, a checkpoint.

What happens at a mark depends on the step and on the log alone, so a run that is cut off anywhere
and continued from a checkpoint does and writes the same as one that was not.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from resflax.errors import Interrupted, TrainingError
from resflax.experiment import Experiment
from resflax.training import hosts
from resflax.training.background import Background
from resflax.training.checkpoints import Checkpoints
from resflax.training.clock import Clock
from resflax.training.display import Bar, Display
from resflax.training.interruption import Interruption
from resflax.training.metrics import Metrics
from resflax.training.plan import Plan
from resflax.training.precise import precise
from resflax.training.record import Record
from resflax.training.run_folder import RunFolder
from resflax.training.state import TrainState, params_sha256, same
from resflax.training.step import Batch

ROLLBACKS = 3
"""Times that a run goes back to the same step before it gives up."""
CALL_SECONDS = 2.0
"""That the steps of one call take together; a single one may take longer."""


class Run:
    """One session of a run: from the newest checkpoint to the end, or to an interruption."""

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        first: Callable[[], TrainState],
        newest: int | None,
        folder: RunFolder,
        display: Display,
        interruption: Interruption,
    ) -> None:
        self.experiment, self.plan, self.folder = experiment, plan, folder
        self.first = first
        """Makes the state before the first step."""
        self.display, self.interruption = display, interruption
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.saving = Background()
        """Of the newest checkpoint."""
        self.metrics = Metrics(folder.metrics)
        self.clock = Clock()
        self.record = Record(experiment, plan, self.metrics, self.clock, display)
        self.saved = newest
        """Step of the newest checkpoint."""
        self.skipped = 0
        """Batches passed over so far: step s takes batch s + skipped."""
        self.rollbacks: list[dict[str, Any]] = []
        """`at` which step there was no finite loss or gradient, `to` which one the run went back,
        and the `learning_rate` there."""

    def go(self) -> TrainState:
        """Runs to the end and returns the final state.

        Raises:
          Interrupted: where a signal asks for it, after saving.
          TrainingError: if a step has no finite loss or gradient and the run is not to go back, or
            something cannot be written.
        """
        state, step = self.begin()
        with self.saving, self.display.bar("training", self.plan.steps, step) as bar:
            while True:
                state, complete = self.mark(state, step)
                if complete and step == self.plan.steps:
                    return state
                if self.interruption:
                    assert self.interruption.signal is not None
                    self.save(state, step)
                    self.saving.finish()
                    raise Interrupted(
                        self.interruption.signal,
                        f"stopped at step {step} of {self.plan.steps} and saved; "
                        "the same command continues",
                    )
                state, step = self._advance(state, step, bar)

    def begin(self) -> tuple[TrainState, int]:
        """The newest good checkpoint, or the state before the first step."""
        self.checkpoints.forget_after(self.saved)
        self.metrics.rewind(self.saved or 0)
        if self.saved is None:
            return self.first(), 0
        self.display.say(f"continuing from step {self.saved} of {self.plan.steps}")
        return self._restore(self.saved), self.saved

    def _restore(self, step: int) -> TrainState:
        state, notes = self.checkpoints.restore(step, self.plan.state)
        self.clock.before = max(self.clock.before, notes["seconds"])
        self.skipped = notes.get("skipped", 0)
        self.rollbacks = notes.get("rollbacks", [])
        self.plan.train.bad = {int(index): why for index, why in notes.get("bad", {}).items()}
        return state

    def _advance(self, state: TrainState, step: int, bar: Bar) -> tuple[TrainState, int]:
        """Steps to the next mark, or until a signal, or back where a number is not finite."""
        until = self.next_mark(step)
        before: jax.Array | None = None
        loss: jax.Array | None = None
        self.clock.resume()
        # Several hosts would have to ask each other before every call: they ask at marks.
        while step < until and (hosts.several() or not self.interruption):
            before = loss
            count = min(until - step, self.steps_at_once())
            batches = self.plan.train.batches(step + self.skipped, count)
            state, loss = self.plan.run(state, self.plan.train.on_devices, batches)
            step += count
            self.clock.steps += count
            # The host stays one call ahead: enough to keep the devices busy, and a signal is
            # answered after two calls at most.
            if before is not None and not math.isfinite(before):
                break
            bar.set(step, note=self.record.speed())
        failed = loss is not None and not math.isfinite(loss)  # as after any failed step
        self.clock.pause()
        return self.go_back(state) if failed else (state, step)

    def next_mark(self, step: int) -> int:
        """The next step after which there is something to do."""
        every = self.experiment
        marks = (every.log_every, every.evaluate_every, every.checkpoint_every)
        return min(self.plan.steps, *((step // mark + 1) * mark for mark in marks))

    def batch(self, step: int) -> Batch:
        """What a step takes, counted from 0."""
        return self.plan.train.batch(step + self.skipped)

    def steps_at_once(self) -> int:
        """As many as take two seconds, so that signals do not wait long, on a single host."""
        most = self.plan.train.steps_at_once
        if hosts.several():  # their clocks differ
            return most
        rate = self.clock.rate()
        return 1 if rate is None else min(max(round(rate * CALL_SECONDS), 1), most)

    def go_back(self, state: TrainState) -> tuple[TrainState, int]:
        """Answers a failed state: stops, or returns an older one with its step."""
        self.saving.finish()
        done = int(state.step)
        step, rate = done + 1, self.record.learning_rate(done + 1)
        cause = self.plan.explain(state, self.plan.train.on_devices, self.batch(done))
        fault = f"at step {step} (learning rate {rate:g}) {cause}"
        if self.experiment.on_nonfinite == "stop":
            newest = "there is no checkpoint yet"
            if self.saved is not None:
                newest = f"the newest checkpoint, of step {self.saved}, is good"
            raise TrainingError(f"{fault}; {newest}")
        # Where a run was interrupted must not decide where it goes back to.
        every = self.experiment.checkpoint_every
        good = partial(self.checkpoints.newest_good, self.display.say, every=every)
        to = hosts.by_first(good) or 0
        times = 1
        for rollback in reversed(self.rollbacks):
            if rollback["to"] != to:
                break
            times += 1
        if times > ROLLBACKS:
            raise TrainingError(
                f"{fault}; the run went back to step {to} {ROLLBACKS} times already"
            )
        self.display.say(
            f"{fault}; going back to step {to} and passing over the batches of {step - to} steps "
            f"({times} of at most {ROLLBACKS} times)"
        )
        skipped = self.skipped + step - to
        rollbacks = [*self.rollbacks, {"at": step, "to": to, "learning_rate": rate}]
        self.checkpoints.drop_after(to)
        self.metrics.rewind(to)
        saved = hosts.by_first(lambda: to in self.checkpoints.steps())
        state = self._restore(to) if saved else self.first()
        self.saved, self.skipped, self.rollbacks = to if saved else None, skipped, rollbacks
        self.clock.forget()
        return state, to

    def mark(self, state: TrainState, step: int) -> tuple[TrainState, bool]:
        """Does what is due after `step` steps and not done yet.

        Returns the state, and False if a signal came before all of it was done.
        """
        experiment, final = self.experiment, step == self.plan.steps
        if step == 0:
            return state, True
        self.saving.check()
        self.plan.train.agree()
        if final or step % experiment.log_every == 0:
            state = self.record.training(state, step)
        if final and experiment.precise_batch_norm:
            found = self._precise(state, step)
            if found is None:
                return state, False
            state = found
        if final or step % experiment.evaluate_every == 0:
            names = list(self.plan.held_out) if final else list(self.plan.held_out)[:1]
            stop = self.interruption.__bool__
            if not all(self.record.evaluation(state, step, name, stop) for name in names):
                return state, False
        if final or step % experiment.checkpoint_every == 0:
            self.save(state, step)
        if final:
            self.saving.finish()
        return state, True

    def _precise(self, state: TrainState, step: int) -> TrainState | None:
        """The final state with precise statistics, or None if a signal came first."""
        first = step + self.skipped
        found = precise(
            self.plan.statistics,
            state,
            self.plan.devices,
            self.plan.train.on_devices,
            map(self.plan.train.batch, range(first, first + self.experiment.precise_batch_norm)),
            self.interruption.__bool__,
        )
        if found is not None and self.saved == step and not same(found, state):
            # Saved by a session that was interrupted before it had them.
            self.checkpoints.drop_after(step - 1)
            self.saved = None
        return found

    def save(self, state: TrainState, step: int) -> None:
        """Begins to save the state after `step` steps, if that is not done yet."""
        if self.saved == step:
            return
        notes = {
            "seconds": self.clock.total,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "bad": dict(self.plan.train.bad),
        }
        # Copied, for on CPUs these are the buffers that the next step writes to.
        copied = jax.tree.map(np.array, jax.device_get(state))
        every = self.experiment.checkpoint_every
        self.saving.begin(partial(self.checkpoints.save, step, copied, notes, every=every))
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
            "params_sha256": params_sha256(jax.device_get(state.evaluated()["params"])),
        }
        if self.experiment.on_nonfinite == "rollback":
            result["rollbacks"] = self.rollbacks
        hosts.by_first(lambda: self.folder.finish(result))
        return result
