"""All cases, one after the other: implementations compiled, timed in turn, put on record."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from resflax.benchmark.ceilings import Ceilings, measure_ceilings
from resflax.benchmark.contender import Case, Contender
from resflax.benchmark.measure import Result, time_in_turn, to_json
from resflax.benchmark.naive import naive
from resflax.benchmark.ours import ours
from resflax.errors import UsageError
from resflax.training import environment
from resflax.training.display import Display
from resflax.training.memory import exhaustion

Maker = Callable[[Case], Contender | None]


def benchmark(
    cases: Sequence[Case],
    *,
    with_naive: bool,
    with_torch_compile: bool,
    repetitions: int,
    display: Display,
) -> list[Result]:
    """Times every case in all implementations that there are here.

    Raises `UsageError` if a case does not fit into the memory.
    """
    makers = _makers(with_naive, with_torch_compile, display)
    precisions = sorted({case.precision for case in cases})
    ceilings: dict[str, Ceilings] = {}
    for precision in display.items(precisions, "measuring the device"):
        ceilings[precision] = found = measure_ceilings(precision)
        display.say(
            f"this device, {precision}: {found.flops_per_second / 1e9:,.0f} GFLOP/s in matrix "
            f"products, {found.bytes_per_second / 1e9:,.1f} GB/s in copies"
        )
    results: list[Result] = []
    for case in cases:
        with exhaustion(UsageError):
            made = [make(case) for make in display.items(makers, f"compiling {case.name}")]
            contenders = [contender for contender in made if contender is not None]
            with display.bar(f"timing {case.name}", len(contenders) * repetitions) as bar:
                done = count(1)

                def tick(bar: Any = bar, done: Any = done) -> None:
                    bar.set(next(done))

                ceiling = ceilings[case.precision]
                results += time_in_turn(case, contenders, ceiling, repetitions, tick)
    return results


def record(results: Sequence[Result]) -> dict[str, Any]:
    """The results with hardware and versions, as JSON values."""
    found = environment.describe()
    shown = ("python", "platform", "cpus", "devices", "git")
    packages = {name: found["packages"].get(name) for name in ("jax", "jaxlib", "flax", "torch")}
    # Results are shown to others: of the environment no more than decides the speed.
    flags = {k: v for k, v in found["flags"].items() if k.startswith(("JAX_", "XLA_", "OMP_"))}
    here = {name: found[name] for name in shown} | {"flags": flags, "packages": packages}
    return {"environment": here, "results": to_json(results)}


def _makers(with_naive: bool, with_torch_compile: bool, display: Display) -> list[Maker]:
    makers: list[Maker] = [ours]
    if with_naive:
        makers.append(naive)
    try:
        from resflax.benchmark.peers import torchs
    except ImportError:
        display.say("no PyTorch here: nothing to compare with (pip install -e '.[torch]')")
        return makers
    makers.append(lambda case: torchs(case, compiled=False))
    if with_torch_compile:
        makers.append(lambda case: torchs(case, compiled=True))
    return makers
