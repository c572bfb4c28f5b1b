"""Runs a benchmark: compiles each case in all implementations, times them and reports them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

from resflax.benchmark.ceilings import Ceilings, measure_ceilings
from resflax.benchmark.contender import Case, Contender, Precision
from resflax.benchmark.module_step import resflax_contender
from resflax.benchmark.naive import naive_contender
from resflax.benchmark.timing import StepTiming, time_in_turn
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


def run_benchmark(
    cases: Sequence[Case],
    *,
    with_naive: bool,
    with_torch_compile: bool,
    repetitions: int,
    display: Display,
) -> list[StepTiming]:
    """Times every case in all implementations that are installed and have its network.

    Args:
      cases: the cases to be timed.
      with_naive: whether to time also linen networks that are written as in a tutorial.
      with_torch_compile: whether to time PyTorch's networks also compiled by torch.compile.
      repetitions: number of times that each implementation is timed.
      display: shows the progress and the device's measured limits.

    Raises:
      UsageError: if a case does not fit into the memory, or JAX's settings do not allow any.
    """
    check_settings()
    if (note := kernels_note()) is not None:
        display.say(note)
    makers = _makers(with_naive, with_torch_compile, display)
    ceilings = _ceilings_of(sorted({case.precision for case in cases}), display)
    timings: list[StepTiming] = []
    for case in cases:
        with exhaustion(UsageError):
            made = [make(case) for make in display.items(makers, f"compiling {case.name}")]
            contenders = [contender for contender in made if contender is not None]
            timings += _time_case(case, contenders, ceilings[case.precision], repetitions, display)
    return timings


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


def benchmark_record(timings: Sequence[StepTiming]) -> dict[str, Any]:
    """The timings, the hardware and the versions of packages, as plain JSON values."""
    facts = environment.describe_environment()
    record = {name: facts[name] for name in _FACTS}
    record["flags"] = {k: v for k, v in facts["flags"].items() if k.startswith(_FLAGS)}
    record["packages"] = {name: facts["packages"].get(name) for name in _PACKAGES}
    return {"environment": record, "results": [asdict(timing) for timing in timings]}


def _makers(with_naive: bool, with_torch_compile: bool, display: Display) -> list[MakeContender]:
    makers: list[MakeContender] = [resflax_contender]
    if with_naive:
        makers.append(naive_contender)
    try:
        from resflax.benchmark.pytorch import torch_contender
    except ImportError:
        display.say("PyTorch is not installed, so it is not timed (pip install 'resflax[torch]')")
        return makers
    makers.append(lambda case: torch_contender(case, compiled=False))
    if with_torch_compile:
        makers.append(lambda case: torch_contender(case, compiled=True))
    return makers
