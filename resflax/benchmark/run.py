"""Runs a benchmark: compiles each case in all implementations, times them and reports them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import jax

from resflax.benchmark.ceilings import Ceilings, measure_ceilings
from resflax.benchmark.contender import Case, Contender, Precision
from resflax.benchmark.hlo import read_program
from resflax.benchmark.module_step import resflax_contender
from resflax.benchmark.naive import naive_contender
from resflax.benchmark.operations import StepOperations, operations_of
from resflax.benchmark.timing import StepTiming, time_in_turn
from resflax.benchmark.trace import trace
from resflax.devices.kernels import kernels_note
from resflax.devices.memory import exhaustion
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.runs import environment
from resflax.terminal.display import Display

MakeContender = Callable[[Case], Contender | None]
"""Returns the contender of a case; None if the implementation does not have the network."""

# Results are published, so they hold only those facts of the environment that decide the speed.
_FACTS = ("python", "platform", "cpus", "devices", "kernels", "git")
_PACKAGES = ("jax", "jaxlib", "flax", "torch")
_FLAGS = ("JAX_", "XLA_", "OMP_", "RESFLAX_")
_FEWEST_TRACED, _MOST_TRACED, _TRACED_SECONDS = 3, 64, 1.0


@dataclass(frozen=True)
class Measured:
    """Everything that was measured."""

    ceilings: Mapping[Precision, Ceilings]
    """The device's limits."""
    timings: Sequence[StepTiming]
    """One for each case and implementation."""
    operations: Sequence[StepOperations]
    """One for each case, if they were asked for."""


def run_benchmark(
    cases: Sequence[Case],
    *,
    with_naive: bool,
    with_torch_compile: bool,
    with_operations: bool,
    repetitions: int,
    display: Display,
) -> Measured:
    """Times every case in all implementations that are installed and have its network.

    Args:
      cases: the cases to be timed.
      with_naive: whether to time also linen networks that are written as in a tutorial.
      with_torch_compile: whether to time PyTorch's networks also compiled by torch.compile.
      with_operations: whether to trace our own step and divide its time among its operations.
      repetitions: number of times that each implementation is timed.
      display: shows the progress and the device's measured limits.

    Raises:
      UsageError: if a case does not fit into the memory, JAX's settings do not allow any, or
        operations are asked for on another device than a CPU.
    """
    check_settings()
    if with_operations and jax.default_backend() != "cpu":
        raise UsageError(
            f"--operations is for CPUs; this is a {jax.default_backend()}: set JAX_PLATFORMS=cpu, "
            "or trace a run with train.py --profile"
        )
    if (note := kernels_note()) is not None:
        display.say(note)
    makers = _makers(with_naive, with_torch_compile, display)
    ceilings = _ceilings_of(sorted({case.precision for case in cases}), display)
    timings: list[StepTiming] = []
    operations: list[StepOperations] = []
    for case in cases:
        with exhaustion(UsageError):
            made = [make(case) for make in display.items(makers, f"compiling {case.name}")]
            contenders = [contender for contender in made if contender is not None]
            limits = ceilings[case.precision]
            of_case = _time_case(case, contenders, limits, repetitions, display)
            timings += of_case
            if with_operations:
                with display.bar(f"tracing {case.name}", 1):
                    step_seconds = of_case[0].step_seconds
                    operations.append(_operations(case, contenders[0], step_seconds, limits))
    return Measured(ceilings, timings, operations)


def _operations(
    case: Case, contender: Contender, step_seconds: float, ceilings: Ceilings
) -> StepOperations:
    """Traces some steps of our own contender."""
    assert contender.program_text is not None
    program = read_program(contender.program_text())
    steps = round(_TRACED_SECONDS / step_seconds)
    steps = min(max(steps, _FEWEST_TRACED), _MOST_TRACED)
    events = trace(lambda: contender.steps(steps), program)
    rows = operations_of(program, events, steps, ceilings)
    seconds = sum(row.seconds for row in rows)
    return StepOperations(case.name, case.batch_size, case.precision, seconds, rows)


def _ceilings_of(precisions: Sequence[Precision], display: Display) -> Mapping[Precision, Ceilings]:
    """Measures the device's limits in each precision."""
    ceilings = {}
    for precision in display.items(precisions, "measuring the device"):
        limits = ceilings[precision] = measure_ceilings(precision)
        display.say(
            f"this device, {precision}: {limits.flops_per_second / 1e9:,.0f} GFLOP/s in matrix "
            f"products, {limits.bytes_per_second / 1e9:,.1f} GB/s in copies"
        )
    return ceilings


def _time_case(
    case: Case,
    contenders: Sequence[Contender],
    ceilings: Ceilings,
    repetitions: int,
    display: Display,
) -> list[StepTiming]:
    """Times the contenders of a case, and shows the progress as a bar."""
    numbers = count(1)
    with display.bar(f"timing {case.name}", len(contenders) * repetitions) as bar:
        return time_in_turn(case, contenders, ceilings, repetitions, lambda: bar.set(next(numbers)))


def benchmark_record(measured: Measured) -> dict[str, Any]:
    """The measurements, the hardware and the versions of packages, as plain JSON values."""
    facts = environment.describe_environment()
    record = {name: facts[name] for name in _FACTS}
    record["flags"] = {k: v for k, v in facts["flags"].items() if k.startswith(_FLAGS)}
    record["packages"] = {name: facts["packages"].get(name) for name in _PACKAGES}
    return {
        "environment": record,
        "limits": {precision: asdict(limits) for precision, limits in measured.ceilings.items()},
        "results": [asdict(timing) for timing in measured.timings],
        "operations": [asdict(step) for step in measured.operations],
    }


def _makers(with_naive: bool, with_torch_compile: bool, display: Display) -> list[MakeContender]:
    makers: list[MakeContender] = [resflax_contender]
    if with_naive:
        makers.append(naive_contender)
    try:
        from resflax.benchmark.pytorch import torch_contender, why_not_compiled
    except ImportError:
        display.say("PyTorch is not installed, so it is not timed (pip install 'resflax[torch]')")
        return makers
    makers.append(lambda case: torch_contender(case, compiled=False))
    if with_torch_compile:
        with display.bar("trying torch.compile", 1):
            reason = why_not_compiled()
        if reason is None:
            makers.append(lambda case: torch_contender(case, compiled=True))
        else:
            display.say(f"torch.compile is left out, because it does not work here: {reason}")
    return makers
