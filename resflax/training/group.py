"""Runs that step together, each with the folder, log and checkpoints that it has alone.

Members stand at steps of their own: those furthest behind step, and the others are held until all
stand together. So one that was cut off before its turn to save, or went back from a number that was
not finite, catches up.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from resflax.data.feed import Order
from resflax.errors import Interrupted, TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.training.compilation import keep_compiled
from resflax.training.display import Display
from resflax.training.interruption import Interruption
from resflax.training.loop import Run
from resflax.training.memory import exhaustion
from resflax.training.optimizer import learning_rate
from resflax.training.plan import Plan, make_plan
from resflax.training.resident import ResidentTraining
from resflax.training.run_folder import RunFolder
from resflax.training.session import Session
from resflax.training.state import TrainState

T = TypeVar("T")


def train_group(members: Sequence[tuple[Experiment, RunFolder, Console]]) -> int:
    """Trains every experiment in its folder as `session.train` does, all in one step.

    Args:
      members: experiments that differ in `seed` and in fields of the optimizer that are among
        `declarations.optimization.ARGUMENTS` alone, and what each has for itself. What goes wrong
        with one is said on its console, as `error: ...`, and the others go on.

    Returns:
      How many failed.

    Raises:
      UsageError: if the data or the memory is unfit for all.
      Interrupted: on Ctrl-C, SIGTERM or SIGUSR1, after all were saved.
    """
    with contextlib.ExitStack() as held:
        sessions = [
            Session(experiment, folder, held.enter_context(Display(console)), held)
            for experiment, folder, console in members
        ]
        failures = Failures()
        try:
            _train(sessions, failures)
        except Exception as error:
            for session in sessions:
                if not session.folder.result.exists():
                    failures.note(
                        session.display,
                        f"{error} (so for all {len(sessions)} that train together; --vectorize N "
                        "makes groups smaller)",
                    )
            raise
        return len(failures.displays)


class Failures:
    """Of single members, each said on its display."""

    def __init__(self) -> None:
        self.displays: list[Display] = []

    def note(self, display: Display, why: str) -> None:
        """Says the first failure of a member."""
        if display not in self.displays:
            display.say(f"error: {why}")
            self.displays.append(display)

    def attempt(self, display: Display, do: Callable[[], T]) -> T | None:
        """What `do` returns, or None if it fails in a way that is the member's own."""
        try:
            return do()
        except (UsageError, TrainingError) as error:
            self.note(display, str(error))
            return None


def _train(sessions: Sequence[Session], failures: Failures) -> None:
    opened = []
    for session in sessions:
        free = failures.attempt(session.display, session.open)
        if free:
            opened.append(session)
        elif free is not None:
            session.finished()
    if not opened:
        return
    keep_compiled()
    group = [session.experiment for session in opened]
    with exhaustion(UsageError):
        plan = make_plan(group[0], opened[0].display, group)
    interruption = Interruption()
    notes = {"group": [session.folder.path.name for session in opened]}
    runs = []
    for session in opened:
        own = _of_member(plan, session.experiment)
        begin = partial(session.begin, own, interruption, notes)
        runs.append(failures.attempt(session.display, begin))
    with interruption, exhaustion(TrainingError):
        Group(plan, runs, interruption, failures).go()


def _of_member(plan: Plan, experiment: Experiment) -> Plan:
    """A group's plan with what is one member's own."""
    peak = experiment.optimizer.learning_rate
    order = Order(plan.order.examples, experiment.batch_size, experiment.seed)
    assert isinstance(plan.train, ResidentTraining), "streamed data are refused"
    return dataclasses.replace(
        plan,
        order=order,
        train=plan.train.in_order(order),
        learning_rate=learning_rate(experiment.schedule, peak, plan.steps),
    )


@dataclass
class Member:
    """A run of a group."""

    run: Run
    place: int
    """Of its state among the stacked ones."""
    step: int = 0
    """Steps done."""
    ended: bool = False
    """Whether it is finished or has failed."""


class Group:
    """One session of a group: from where its members stand to their ends, or an interruption."""

    def __init__(
        self,
        plan: Plan,
        runs: Sequence[Run | None],
        interruption: Interruption,
        failures: Failures,
    ) -> None:
        self.plan, self.interruption, self.failures = plan, interruption, failures
        self.members = [Member(run, place) for place, run in enumerate(runs) if run is not None]
        self._places = len(runs)
        self._states: TrainState
        """All members', stacked. Places without a run have another's."""

    def go(self) -> None:
        """Runs all members to their ends.

        Raises `Interrupted` where a signal asks for it, after saving.
        """
        with contextlib.ExitStack() as held:
            for member in self.members:
                held.enter_context(member.run.saving)
            self._go()

    def _go(self) -> None:
        states = {}
        for member in self.members:
            begun = self._try(member, member.run.begin)
            if begun is not None:
                states[member.place], member.step = begun
        if states:
            some = next(iter(states.values()))
            self._keep(_stack([states.get(place, some) for place in range(self._places)]))
        while running := [member for member in self.members if not member.ended]:
            step = min(member.step for member in running)
            now = [member for member in running if member.step == step]
            self._mark(now, step)
            if self.interruption:
                assert self.interruption.signal is not None
                self._leave(self.interruption.signal)
            self._advance([member for member in now if not member.ended], step)

    def _try(self, member: Member, do: Callable[[], T]) -> T | None:
        """What `do` returns; None if it failed, which ends the member."""
        found = self.failures.attempt(member.run.display, do)
        member.ended |= found is None
        return found

    def _mark(self, now: Sequence[Member], step: int) -> None:
        """Does what is due for members that have done `step` steps."""
        complete = []
        for member in now:
            before = self._state(member)
            marked = self._try(member, partial(member.run.mark, before, step))
            if marked is not None:
                if marked[0] is not before:
                    self._put(member, marked[0])
                if marked[1] and step == self.plan.steps:
                    complete.append(member)
        # When all are saved, so that a group never steps without those that have finished.
        for member in complete:
            self._try(member, partial(member.run.finish, self._state(member)))
            member.ended = True

    def _leave(self, signal: int) -> None:
        for member in self.members:
            if not member.ended:
                self._try(member, partial(self._save, member))
        raise Interrupted(signal, "stopped and saved; the same command continues")

    def _save(self, member: Member) -> bool:
        member.run.save(self._state(member), member.step)
        member.run.saving.finish()
        return True

    def _advance(self, now: Sequence[Member], step: int) -> None:
        """Steps to the next mark or the others' step; answers numbers that are not finite."""
        if not now:
            return
        places = [member.place for member in now]
        ahead = [member.step for member in self.members if not member.ended and member.step > step]
        until = min(now[0].run.next_mark(step), *ahead, self.plan.steps)
        before: jax.Array | None = None
        loss: jax.Array | None = None
        for member in now:
            member.run.clock.resume()
        while step < until and not self.interruption:
            before = loss
            count = min(until - step, now[0].run.steps_at_once())
            size = now[0].run.experiment.batch_size
            batches = np.full((size, self.plan.train.steps_at_once, self._places), -1, np.int32)
            for member in now:
                for i in range(count):
                    batches[:, i, member.place] = member.run.batch(step + i)
                member.run.clock.steps += count
            self._states, loss = self.plan.run(self._states, self.plan.train.on_devices, batches)
            step += count
            # One call ahead, as in `loop.Run`.
            if before is not None and not np.isfinite(before[np.array(places)]).all():
                break
        losses = None if loss is None else jax.device_get(loss)
        for member in now:
            member.run.clock.pause()
        for member in now:
            if losses is None or math.isfinite(losses[member.place]):
                member.step = step
                continue
            back = self._try(member, partial(member.run.go_back, self._state(member)))
            if back is not None:
                state, member.step = back
                self._put(member, state)

    def _state(self, member: Member) -> TrainState:
        state: TrainState = self.plan.devices.replicate(_take(self._states, member.place))
        return state

    def _put(self, member: Member, state: TrainState) -> None:
        self._keep(_put(self._states, member.place, state))

    def _keep(self, states: TrainState) -> None:
        self._states = self.plan.devices.replicate(states)


@jax.jit
def _stack(states: Sequence[TrainState]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@jax.jit
def _take(states: TrainState, place: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[place], states)


@partial(jax.jit, donate_argnums=0)
def _put(states: TrainState, place: int, state: TrainState) -> Any:
    return jax.tree.map(lambda leaf, new: leaf.at[place].set(new), states, state)
