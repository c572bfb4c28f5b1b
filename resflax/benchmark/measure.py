"""Contenders timed in alternation, so that a busy machine is equally unfair to all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from resflax.benchmark.ceilings import Ceilings
from resflax.benchmark.contender import Case, Contender
from resflax.models.summary import summarize
from resflax.training.loop import CALL_SECONDS


@dataclass(frozen=True)
class Result:
    """One implementation of one case."""

    net: str
    batch_size: int
    precision: str
    implementation: str
    compile_seconds: float
    """From the declaration to the end of the first step."""
    step_seconds: float
    """Median."""
    step_spread: float
    """Interquartile range of the steps' times as a fraction of the median."""
    images_per_second: float
    """At the median."""
    ratio: float | None
    """Of images per second to PyTorch's (eager), where it ran."""
    share_of_peak: float
    """Multiply-adds of forward and backward pass (three times the forward pass's), as a share of
    the device's measured matrix product."""
    memory_bytes: int | None
    """Peak, without the pictures of the data set; None where it is not known."""


def time_in_turn(
    case: Case,
    contenders: Sequence[Contender],
    ceilings: Ceilings,
    repetitions: int,
    tick: Callable[[], None],
) -> list[Result]:
    """Times every contender `repetitions` times, one after the other, for as long as a call in
    training takes.

    `tick` is called after each of them.
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
    medians = {name: statistics.median(found) for name, found in times.items()}
    results = []
    for contender in contenders:
        median = medians[contender.name]
        low, _, high = statistics.quantiles(times[contender.name], n=4)
        results.append(
            Result(
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
    return results


def to_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results as plain JSON values."""
    return [asdict(result) for result in results]


def table(results: Sequence[Result]) -> Table:
    """The results for a terminal."""
    found = Table(title="training steps")
    found.add_column("net", no_wrap=True)
    for header in ("batch", "precision"):
        found.add_column(header, justify="right")
    found.add_column("implementation", no_wrap=True)
    for header in ("compile", "step", "spread", "images/s", "of torch", "of peak", "memory"):
        found.add_column(header, justify="right", no_wrap=True)
    for result in results:
        memory, ratio = result.memory_bytes, result.ratio
        found.add_row(
            result.net,
            str(result.batch_size),
            result.precision,
            result.implementation,
            f"{result.compile_seconds:.1f} s",
            f"{1e3 * result.step_seconds:,.1f} ms",
            f"{result.step_spread:.0%}",
            f"{result.images_per_second:,.1f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{result.share_of_peak:.1%}",
            "" if memory is None else f"{memory / 2**20:,.0f} MiB",
        )
    return found
