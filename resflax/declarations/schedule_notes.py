"""Tells which parts of a learning-rate schedule have no effect in a training of some length."""

from collections.abc import Sequence

from resflax.declarations.optimization import Schedule, StepDecay

_MOST = 4  # boundaries in a line


def schedule_notes(schedule: Schedule, steps: int) -> list[str]:
    """Lines about parts of a schedule that have no effect in a training of `steps` steps.

    None of them is an error, because short trials of long experiments are common.
    """
    warmup = schedule.warmup_steps
    if warmup >= steps:
        rate = "the learning rate does not reach its peak"
        if schedule.warmup == "constant":
            rate = f"the learning rate is {schedule.warmup_learning_rate:g} in all of them"
        return [
            f"nothing but warm-up: the training has {_steps(steps)}, and schedule.warmup_steps is "
            f"{warmup:,}, so that {rate}"
        ]
    notes = []
    if warmup and schedule.warmup == "constant" and schedule.warmup_learning_rate == 0:
        notes.append(
            f"nothing is learned in the warm-up, the first {_steps(warmup)}, because "
            "schedule.warmup_learning_rate is 0"
        )
    if isinstance(schedule, StepDecay):
        notes += _notes_on_boundaries(schedule, steps)
    return notes


def _notes_on_boundaries(schedule: StepDecay, steps: int) -> list[str]:
    warmup = schedule.warmup_steps
    places = list(zip(schedule.boundaries, schedule.boundary_steps(steps), strict=True))
    early = [boundary for boundary, step in places if step <= warmup]
    late = [boundary for boundary, step in places if step >= steps]
    notes = []
    if warmup and early:
        notes.append(
            f"the learning rate does not reach its peak: it decays at {_listed(early)} "
            f"(schedule.boundaries), and the warm-up takes {_steps(warmup)}"
        )
    if late:
        notes.append(
            f"the learning rate does not decay at {_listed(late)} (schedule.boundaries): the "
            f"training ends after {_steps(steps)}"
        )
    return notes


def _steps(number: int) -> str:
    return f"{number:,} step{'' if number == 1 else 's'}"


def _listed(boundaries: Sequence[float]) -> str:
    shown = [f"{boundary:,}" for boundary in boundaries[:_MOST]]
    return " and ".join(shown) + (" and so on" if len(boundaries) > _MOST else "")
