"""Runs that step together, each with the folder, log and checkpoints that it would have alone.

Members may be at different steps: one may have been cut off before it was its turn to save, or have
gone back after a loss or gradient that was not finite. Those furthest behind then step while the
others are held, until all are at the same step.
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

from resflax.devices.compilation import keep_compiled
from resflax.devices.kernels import kernels_note
from resflax.devices.memory import exhaustion
from resflax.devices.randomness import pinned_randomness
from resflax.devices.settings import check_settings
from resflax.errors import Interrupted, TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.feeding.order import ExampleOrder
from resflax.feeding.resident import ResidentTrainingFeed
from resflax.runs.loop import TrainingLoop
from resflax.runs.plan import Plan, make_plan
from resflax.runs.run_folder import RunFolder
from resflax.runs.session import Session
from resflax.terminal.display import Display
from resflax.terminal.interruption import Interruption
from resflax.training.schedule import learning_rate
from resflax.training.state import TrainState

T = TypeVar("T")


@pinned_randomness()
def train_group(members: Sequence[tuple[Experiment, RunFolder, Console]]) -> int:
    """Trains every experiment in its folder as `session.train` does, all with one training step.

    Args:
      members: experiments that differ only in `seed` and in fields of the optimizer that are among
        `declarations.optimization.TRACED_FIELDS`, each with its folder and its console. A failure
        of one member is printed on its console, as `error: ...`, and the others go on.

    Returns:
      The number of members that failed.

    Raises:
      UsageError: if something is wrong for the whole group, such as its data, or if its step does
        not fit in memory.
      TrainingError: if memory runs out during the training.
      Interrupted: on a signal of `interruption.SIGNALS`, after all members were saved.
    """
    with contextlib.ExitStack() as held:
        sessions = [
            Session(experiment, folder, held.enter_context(Display(console)), held)
            for experiment, folder, console in members
        ]
        failures = Failures()
        try:
            check_settings()
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
    """Failures of single members, each printed on the member's display."""

    def __init__(self) -> None:
        self.displays: list[Display] = []

    def note(self, display: Display, why: str) -> None:
        """Prints a failure of a member, unless an earlier one was printed."""
        if display not in self.displays:
            display.say(f"error: {why}")
            self.displays.append(display)

    def attempt(self, display: Display, do: Callable[[], T]) -> T | None:
        """Returns the result of `do`, or None if it fails with an error of this member alone."""
        try:
            return do()
        except (UsageError, TrainingError) as error:
            self.note(display, str(error))
            return None


def _train(sessions: Sequence[Session], failures: Failures) -> None:
    opened = []
    for session in sessions:
        unfinished = failures.attempt(session.display, session.open)
        if unfinished:
            opened.append(session)
        elif unfinished is not None:
            session.finished()
    if not opened:
        return
    keep_compiled()
    if (note := kernels_note()) is not None:
        for session in opened:
            session.display.say(note)
    experiments = [session.experiment for session in opened]
    with exhaustion(UsageError):
        plan = make_plan(experiments[0], opened[0].display, experiments)
    interruption = Interruption()
    notes = {"group": [session.folder.path.name for session in opened]}
    loops = []
    for session in opened:
        begin = partial(session.begin, _plan_of(plan, session.experiment), interruption, notes)
        loops.append(failures.attempt(session.display, begin))
    with interruption, exhaustion(TrainingError):
        GroupLoop(plan, loops, interruption, failures).run()


def _plan_of(plan: Plan, experiment: Experiment) -> Plan:
    """The plan of a group with the example order and the learning rate of one member."""
    peak = experiment.optimizer.learning_rate
    order = ExampleOrder(plan.order.examples, experiment.batch_size, experiment.seed)
    return dataclasses.replace(
        plan,
        order=order,
        training_feed=_resident_feed(plan).in_order(order),
        learning_rate=learning_rate(experiment.schedule, peak, plan.steps),
    )


def _resident_feed(plan: Plan) -> ResidentTrainingFeed:
    assert isinstance(plan.training_feed, ResidentTrainingFeed), "streamed data are refused"
    return plan.training_feed


@dataclass
class Member:
    """A run of a group."""

    loop: TrainingLoop
    place: int
    """Index of its state in the stacked states."""
    step: int = 0
    """Number of steps that are done."""
    ended: bool = False
    """Whether it is finished or has failed."""


class GroupLoop:
    """One session of a group: from the newest checkpoints to the end, or to an interruption."""

    def __init__(
        self,
        plan: Plan,
        loops: Sequence[TrainingLoop | None],
        interruption: Interruption,
        failures: Failures,
    ) -> None:
        self.plan, self.interruption, self.failures = plan, interruption, failures
        self.members = [Member(loop, place) for place, loop in enumerate(loops) if loop is not None]
        self._places = len(loops)
        self._states: TrainState
        """The states of all members, stacked. A place whose run failed at the start has a copy of
        another member's state."""

    def run(self) -> None:
        """Runs all members to their end.

        Raises `Interrupted` on a signal, after all members were saved.
        """
        with contextlib.ExitStack() as held:
            for member in self.members:
                held.enter_context(member.loop.saving)
            self._run()

    def _run(self) -> None:
        states = {}
        for member in self.members:
            begun = self._try(member, member.loop.begin)
            if begun is not None:
                states[member.place], member.step = begun
        if states:
            another = next(iter(states.values()))
            self._keep(_stack([states.get(place, another) for place in range(self._places)]))
        while running := [member for member in self.members if not member.ended]:
            step = min(member.step for member in running)
            now = [member for member in running if member.step == step]
            self._do_due_work(now, step)
            if self.interruption:
                assert self.interruption.signal is not None
                self._leave(self.interruption.signal)
            self._advance([member for member in now if not member.ended], step)

    def _try(self, member: Member, do: Callable[[], T]) -> T | None:
        """Returns the result of `do`, or None if it failed, which ends the member."""
        result = self.failures.attempt(member.loop.display, do)
        member.ended |= result is None
        return result

    def _do_due_work(self, now: Sequence[Member], step: int) -> None:
        """Does what is due for members that have done `step` steps."""
        complete = []
        for member in now:
            before = self._state(member)
            done = self._try(member, partial(member.loop.do_due_work, before, step))
            if done is not None:
                if done[0] is not before:
                    self._put(member, done[0])
                if done[1] and step == self.plan.steps:
                    complete.append(member)
        # A run is marked as finished only after all are saved. Otherwise a group that was cut off
        # in between would go on without the runs that had finished.
        for member in complete:
            self._try(member, partial(member.loop.finish, self._state(member)))
            member.ended = True

    def _leave(self, signal: int) -> None:
        for member in self.members:
            if not member.ended:
                self._try(member, partial(self._save, member))
        raise Interrupted(signal, "stopped and saved; the same command continues")

    def _save(self, member: Member) -> bool:
        member.loop.save(self._state(member), member.step)
        member.loop.saving.finish()
        return True

    def _advance(self, now: Sequence[Member], step: int) -> None:
        """Steps until something is due or other members are caught up; handles failed steps."""
        if not now:
            return
        places = [member.place for member in now]
        ahead = [member.step for member in self.members if not member.ended and member.step > step]
        until = min(now[0].loop.next_due_step(step), *ahead, self.plan.steps)
        held = np.ones(self._places, bool)
        held[places] = False
        before: jax.Array | None = None
        loss: jax.Array | None = None
        for member in now:
            member.loop.clock.resume()
        while step < until and not self.interruption:
            before = loss
            count = min(until - step, now[0].loop.steps_per_call())
            given = self._indices(now, step, count)
            self._states, loss = self.plan.run_steps(self._states, given, count, held)
            step += count
            for member in now:
                member.loop.clock.steps += count
            # The host stays one call ahead, as in `TrainingLoop`.
            if before is not None and not np.isfinite(before[np.array(places)]).all():
                break
        losses = None if loss is None else jax.device_get(loss)
        for member in now:
            member.loop.clock.pause()
        for member in now:
            if losses is None or math.isfinite(losses[member.place]):
                member.step = step
                continue
            back = self._try(member, partial(member.loop.roll_back, self._state(member)))
            if back is not None:
                state, member.step = back
                self._put(member, state)

    def _indices(self, now: Sequence[Member], step: int, count: int) -> Any:
        """The indices (B, n, members) int32 for a call of `count` steps, sharded over the devices.

        n is the feed's `steps_per_call`; the indices of members that are held are zero.
        """
        feed = _resident_feed(self.plan)
        batch_size = now[0].loop.experiment.batch_size
        indices = np.zeros((batch_size, feed.steps_per_call, self._places), np.int32)
        for member in now:
            loop = member.loop
            own = _resident_feed(loop.plan).indices(step + loop.skipped, count)
            indices[:, :, member.place] = own
        return self.plan.devices.shard(indices)

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
