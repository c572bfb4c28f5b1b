"""Traces a program on a CPU: when each of its instructions began and ended."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from resflax.benchmark.hlo import Program
from resflax.benchmark.operations import Event


def trace(run: Callable[[], None], program: Program) -> list[Event]:
    """Runs a function under JAX's profiler.

    Args:
      run: runs the program on one CPU device, and returns when it has finished.
      program: the program whose executions are returned.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    with warnings.catch_warnings():
        # JAX 0.12: "builtin type event_stats has no __module__ attribute".
        warnings.simplefilter("ignore", DeprecationWarning)
        return _events(profile, program)


def _events(profile: Any, program: Program) -> list[Event]:
    """The executions in a profile.

    An operation that goes on in other threads after its call has returned is followed by an event
    named "end: ...", which knows the number that the call produced.
    """
    calls: list[tuple[str, float, float, int | None]] = []
    ends: dict[int | None, float] = {}
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name.startswith("end: "):
                    ends[dict(event.stats).get("_c")] = event.start_ns
                elif event.name in program.instructions:
                    facts = dict(event.stats)
                    if facts.get("hlo_module") == program.name:
                        end = event.start_ns + event.duration_ns
                        calls.append((event.name, event.start_ns, end, facts.get("_p")))
    return [
        Event(name, start * 1e-9, max(end, ends.get(number, end)) * 1e-9)
        for name, start, end, number in calls
    ]
