"""The training loop: steps and, after some of them, a log line, an evaluation or a checkpoint.

What is due after a step depends only on the step and on the log. So a run that is cut off anywhere
and continued from a checkpoint does and writes the same as an uninterrupted run.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np

from resflax.data.faults import SystemFault
from resflax.devices import hosts
from resflax.errors import Interrupted, TrainingError
from resflax.experiment import Experiment
from resflax.runs import resuming
from resflax.runs.background import BackgroundWriter
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.clock import Clock
from resflax.runs.log import LogLines, RunLog
from resflax.runs.plan import Plan
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Bar, Display
from resflax.terminal.interruption import Interruption
from resflax.training.batch_statistics import with_measured_statistics
from resflax.training.state import TrainState, params_sha256, same

ROLLBACKS = 3
"""How many times a run goes back to the same step before it gives up."""
CALL_SECONDS = 2.0
"""How long all steps of one call together should take. A single step may take longer."""


class TrainingLoop:
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
        self.saving = BackgroundWriter()
        """Writes the newest checkpoint."""
        self.lines = LogLines(folder.metrics)
        self.clock = Clock()
        self.log = RunLog(experiment, plan, self.lines, self.clock, display)
        self.saved = newest
        """Step of the newest checkpoint."""
        self.skipped = 0
        """Batches skipped so far: step s takes batch s + skipped."""
        self.rollbacks: list[dict[str, Any]] = []
        """A dict for each time the run went back: `at` is the step that failed, `to` the step from
        which the run continued, and `learning_rate` that of the step that failed."""
        self.best_test_error: float | None = None
        """With `keep_best`, the test error of the best checkpoint, once it was measured."""

    def run(self) -> TrainState:
        """Runs to the end and returns the final state.

        Raises:
          Interrupted: on a signal, once the state is saved.
          TrainingError: if a loss or gradient is not finite and either `on_nonfinite` is stop or
            the run has gone back too often; if too many pictures are bad; or if something cannot
            be written or read. If the system cannot read the data, the state is saved first.
        """
        state, step = self.begin()
        with self.saving, self.display.bar("training", self.plan.steps, step) as bar:
            while True:
                state, complete = self.do_due_work(state, step)
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
        """Returns the state and the step of the newest good checkpoint, or of the run's start."""
        self.checkpoints.forget_after(self.saved)
        self.lines.rewind(self.saved or 0)
        if self.saved is None:
            state = self.first()
            if self.experiment.initialize_from is not None:
                self.save(state, 0)  # the other run may change or go
            return state, 0
        self.display.say(f"continuing from step {self.saved} of {self.plan.steps}")
        return self._restore(self.saved), self.saved

    def _restore(self, step: int) -> TrainState:
        state, notes = self.checkpoints.restore(step, self.plan.abstract_state)
        self.log.logged = resuming.logged(notes, state, step, self.experiment.log_every)
        self.clock.before = max(self.clock.before, notes["seconds"])
        self.skipped = notes.get("skipped", 0)
        self.rollbacks = notes.get("rollbacks", [])
        self.plan.training_feed.bad = {
            int(index): why for index, why in notes.get("bad", {}).items()
        }
        return state

    def _advance(self, state: TrainState, step: int, bar: Bar) -> tuple[TrainState, int]:
        """Steps until something is due or a signal comes; goes back after a failed step."""
        until = self.next_due_step(step)
        before: jax.Array | None = None
        loss: jax.Array | None = None
        fault: SystemFault | None = None
        self.clock.resume()
        # Several hosts would have to ask each other about signals before every call, so they ask
        # only when something is due.
        while step < until and (hosts.several() or not self.interruption):
            before = loss
            count = min(until - step, self.steps_per_call())
            try:
                given = self.plan.training_feed.call_input(step + self.skipped, count)
            except SystemFault as error:
                fault = error
                break
            state, loss = self.plan.run_steps(state, given, count)
            step += count
            self.clock.steps += count
            # The host stays one call ahead. That keeps the devices busy, and a signal is answered
            # after two calls at most.
            if before is not None and not math.isfinite(before):
                break
            bar.set(step, note=self.log.speed())
        failed = loss is not None and not math.isfinite(loss)  # all losses after a failure are NaN
        self.clock.pause()
        if failed:
            return self.roll_back(state)
        if fault is not None:
            self._save_and_stop(state, step, fault)
        return state, step

    def _save_and_stop(self, state: TrainState, step: int, fault: SystemFault) -> NoReturn:
        """Ends the run because the system cannot read the data after so many steps."""
        if hosts.several():  # the others do not know of it, and all would have to save
            raise fault
        self.save(state, step)
        self.saving.finish()
        raise TrainingError(
            f"{fault}; stopped at step {step} of {self.plan.steps} and saved; the same command "
            "continues"
        ) from fault

    def next_due_step(self, step: int) -> int:
        """The first step after `step` at which something is due."""
        declared = self.experiment
        intervals = (declared.log_every, declared.evaluate_every, declared.checkpoint_every)
        return min(self.plan.steps, *((step // every + 1) * every for every in intervals))

    def steps_per_call(self) -> int:
        """The number of steps of the next call, chosen so that the call takes `CALL_SECONDS`.

        Calls are that short so that signals are answered soon. The number is 1 while the speed is
        unknown. Several hosts always take the feed's largest number, because their clocks differ.
        """
        most = self.plan.training_feed.steps_per_call
        if hosts.several():
            return most
        rate = self.clock.rate()
        return 1 if rate is None else min(max(round(rate * CALL_SECONDS), 1), most)

    def roll_back(self, state: TrainState) -> tuple[TrainState, int]:
        """Handles the failed step that follows `state`.

        Returns an older state with its step, or raises `TrainingError` if the run must end.
        """
        self.saving.finish()
        done = int(state.step)
        step, rate = done + 1, self.log.learning_rate(done + 1)
        train = self.plan.training_feed
        cause = self.plan.explain_failure(
            state, train.resident, train.step_input(done + self.skipped)
        )
        fault = f"at step {step} (learning rate {rate:g}) {cause}"
        if self.experiment.on_nonfinite == "stop":
            newest = "there is no checkpoint yet"
            if self.saved is not None:
                newest = f"the newest checkpoint, of step {self.saved}, is good"
            raise TrainingError(f"{fault}; {newest}")
        # Interruptions must not decide to which step a run goes back, so checkpoints that were
        # saved because of one do not count.
        every = self.experiment.checkpoint_every
        good = partial(self.checkpoints.newest_good, self.display.say, every=every)
        to = hosts.on_first(good) or 0
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
        self.lines.rewind(to)
        saved = hosts.on_first(lambda: to in self.checkpoints.steps())
        self.log.logged = 0
        state = self._restore(to) if saved else self.first()
        self.saved, self.skipped, self.rollbacks = to if saved else None, skipped, rollbacks
        self.clock.reset()
        return state, to

    def do_due_work(self, state: TrainState, step: int) -> tuple[TrainState, bool]:
        """Does all work that is due after `step` steps and not done yet.

        Returns the state, and whether all of the work was done before a signal came.
        """
        experiment, final = self.experiment, step == self.plan.steps
        if step == 0:
            return state, True
        self.saving.check()
        self.plan.training_feed.share_bad_examples()
        if final or step % experiment.log_every == 0:
            state = self.log.training(state, step)
        try:
            if final and experiment.precise_batch_norm:
                measured = self._measure_statistics(state, step)
                if measured is None:
                    return state, False
                state = measured
            if final or step % experiment.evaluate_every == 0:
                feeds = list(self.plan.evaluation_feeds)
                stop = self.interruption.__bool__
                names = feeds if final else feeds[:1]
                if not all(self.log.evaluation(state, step, name, stop) for name in names):
                    return state, False
            if final or step % experiment.checkpoint_every == 0 or step == self.best_step():
                self.save(state, step)
            if final:
                self.saving.finish()
                if experiment.keep_best and not self._measure_best():
                    return state, False
        except SystemFault as fault:
            self._save_and_stop(state, step, fault)
        return state, True

    def best_step(self) -> int | None:
        """The best step so far; None if there is none yet, or if the run does not keep its best."""
        return next(reversed(self._best_steps()), None)

    def _best_steps(self) -> list[int]:
        return self.lines.best_steps() if self.experiment.keep_best else []

    def _measure_best(self) -> bool:
        """Measures the best checkpoint on the test split; returns False if a signal came before.

        A best checkpoint that was damaged is named and not measured.
        """
        best = self.best_step()
        assert best is not None, "the last step was evaluated"
        if best == self.plan.steps:
            self.best_test_error = self.lines.at(best, "test")["error"]
            return True
        fault = hosts.on_first(partial(self.checkpoints.fault, best))
        if fault is not None:
            self.display.say(f"the best checkpoint, of step {best}, cannot be measured: {fault}")
            return True
        state, _ = self.checkpoints.restore(best, self.plan.abstract_state)
        means = self.log.measure(state, "test", self.interruption.__bool__)
        if means is not None:
            self.best_test_error = means.top1_error
        return means is not None

    def _measure_statistics(self, state: TrainState, step: int) -> TrainState | None:
        """The final state with precise batch statistics, or None if a signal came before."""
        train, first = self.plan.training_feed, step + self.skipped
        measured = with_measured_statistics(
            self.plan.measure_statistics,
            state,
            self.plan.devices,
            train.resident,
            map(train.step_input, range(first, first + self.experiment.precise_batch_norm)),
            self.interruption.__bool__,
        )
        if measured is not None and self.saved == step and not same(measured, state):
            # An interrupted session saved this step before the statistics were measured.
            self.checkpoints.drop_after(step - 1)
            self.saved = None
        return measured

    def save(self, state: TrainState, step: int) -> None:
        """Begins to save the state after `step` steps, unless it is saved already."""
        if self.saved == step:
            return
        notes = {
            "seconds": self.clock.total,
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "bad": dict(self.plan.training_feed.bad),
            "log": self.lines.relied_on(step),
        }
        # On CPUs these arrays are views of buffers that the next step overwrites.
        copied = jax.tree.map(np.array, jax.device_get(state))
        every, bests = self.experiment.checkpoint_every, self._best_steps()

        def write() -> None:
            self.lines.sync()
            weights = {"params_sha256": params_sha256(copied.evaluated()["params"])}
            self.checkpoints.save(step, copied, notes | weights, every=every, bests=bests)

        self.saving.begin(write)
        self.saved = step

    def finish(self, state: TrainState) -> dict[str, Any]:
        """Writes the result of a completed run and returns it."""
        result: dict[str, Any] = {"status": "finished", "steps": self.plan.steps}
        for split in ("test", "validation", "train"):
            line = self.lines.last(split)
            if line is not None:
                result |= {f"{split}_error": line["error"], f"{split}_loss": line["loss"]}
        best = self.best_step()
        if best is not None:
            result |= {
                "best_step": best,
                "best_validation_error": self.lines.at(best, "validation")["error"],
                "best_test_error": self.best_test_error,
            }
        result |= {
            "params": self.plan.summary.params,
            "macs": self.plan.summary.macs,
            "seconds": self.clock.total,
            "params_sha256": params_sha256(jax.device_get(state.evaluated()["params"])),
        }
        if self.experiment.on_nonfinite == "rollback":
            result["rollbacks"] = self.rollbacks
        self.lines.sync()
        hosts.on_first(lambda: self.folder.finish(result))
        return result
