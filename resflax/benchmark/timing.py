"""Times contenders in alternation, so that a busy machine slows all of them equally."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from resflax.benchmark.ceilings import Ceilings
from resflax.benchmark.contender import Case, Contender
from resflax.models.summary import summarize
from resflax.runs.loop import CALL_SECONDS


@dataclass(frozen=True)
class StepTiming:
    """The measured training step of one case in one implementation."""

    net: str
    batch_size: int
    precision: str
    implementation: str
    compile_seconds: float
    """Time from the network's declaration to the end of the first step."""
    step_seconds: float
    """Median time of a step."""
    step_spread: float
    """Interquartile range of the step times, as a fraction of their median."""
    images_per_second: float
    """Images per second at the median step time."""
    ratio: float | None
    """Images per second as a fraction of eager PyTorch's; None if PyTorch was not timed."""
    share_of_peak: float
    """Floating-point operations per second, as a fraction of the device's measured rate in matrix
    products. A step counts as three forward passes: one forward, and two for the backward pass."""
    memory_bytes: int | None
    """Peak memory without the pictures of the data set; None if it is not known."""


def time_in_turn(
    case: Case,
    contenders: Sequence[Contender],
    ceilings: Ceilings,
    repetitions: int,
    tick: Callable[[], None],
) -> list[StepTiming]:
    """Times all contenders in turn, each for about as long as one call in a training run takes.

    Args:
      case: the case that the contenders implement.
      contenders: the implementations.
      ceilings: the device's limits in the case's precision.
      repetitions: number of times that each contender is timed.
      tick: is called after each timing of a contender.
    """
    counts = {}
    for contender in contenders:
        contender.steps(1)
        start = time.perf_counter()
        contender.steps(1)
        counts[contender.name] = max(1, round(CALL_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(repetitions):
        for contender in contenders:
            count = counts[contender.name]
            start = time.perf_counter()
            contender.steps(count)
            times[contender.name].append((time.perf_counter() - start) / count)
            tick()
    flops = 6 * summarize(case.model, case.num_classes, case.image_shape).macs
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    timings = []
    for contender in contenders:
        median = medians[contender.name]
        low, _, high = statistics.quantiles(times[contender.name], n=4)
        timings.append(
            StepTiming(
                net=case.name,
                batch_size=case.batch_size,
                precision=case.precision,
                implementation=contender.name,
                compile_seconds=contender.compile_seconds,
                step_seconds=median,
                step_spread=(high - low) / median,
                images_per_second=case.batch_size / median,
                ratio=medians["torch"] / median if "torch" in medians else None,
                share_of_peak=flops * case.batch_size / median / ceilings.flops_per_second,
                memory_bytes=contender.memory_bytes(),
            )
        )
    return timings


def timing_table(timings: Sequence[StepTiming]) -> Table:
    """The timings as a table for a terminal."""
    table = Table(title="training steps")
    table.add_column("net", no_wrap=True)
    for header in ("batch", "precision"):
        table.add_column(header, justify="right")
    table.add_column("implementation", no_wrap=True)
    for header in ("compile", "step", "spread", "images/s", "of torch", "of peak", "memory"):
        table.add_column(header, justify="right", no_wrap=True)
    for timing in timings:
        memory, ratio = timing.memory_bytes, timing.ratio
        table.add_row(
            timing.net,
            str(timing.batch_size),
            timing.precision,
            timing.implementation,
            f"{timing.compile_seconds:.1f} s",
            f"{1e3 * timing.step_seconds:,.1f} ms",
            f"{timing.step_spread:.0%}",
            f"{timing.images_per_second:,.1f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{timing.share_of_peak:.1%}",
            "" if memory is None else f"{memory / 2**20:,.0f} MiB",
        )
    return table
