"""Measures training steps here: compile time, images per second, share of the peak, memory.

usage: benchmark.py [NET ...] [--batch-size N ...] [--precision float32|bfloat16 ...]
                    [--repetitions N] [--naive] [--torch-compile] [--output FILE.json]

  NET            published networks, such as resnet50 (on 224x224x3 pictures of 1000 classes) or
                 densenet_bc_100_12 (on 32x32x3 pictures of 10 classes)

Every net is timed in every batch size and precision, beside PyTorch's (channels-last; AMP for
bfloat16) where that is installed and has the net. The input pipeline is not part of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from resflax.benchmark.contender import Case, Precision
from resflax.command_line import Flag, parse, run
from resflax.errors import UsageError
from resflax.models.zoo import TASKS, named


@dataclass(frozen=True)
class Options:
    """Measures training steps here: compile time, images per second, share of the peak, memory."""

    nets: Annotated[tuple[str, ...], tyro.conf.Positional] = (
        "resnet20",
        "resnet56",
        "densenet_bc_100_12",
    )
    """Published networks."""

    batch_size: tuple[int, ...] = (64,)
    """Pictures in a step."""

    precision: tuple[Precision, ...] = ("float32",)
    """Of convolutions and activations."""

    repetitions: int = 9
    """Times that each implementation is timed, in turn."""

    naive: Flag = False
    """Also time the net as a linen tutorial would write it, where there is one."""

    torch_compile: Flag = False
    """Also time PyTorch's net compiled by torch.compile."""

    output: Path | None = None
    """A JSON file for the results with hardware and versions; printed alone where it is -."""

    def cases(self) -> list[Case]:
        """All that is to be timed. Raises `UsageError` for what cannot be."""
        if not self.nets:
            raise UsageError("name a network, such as resnet20")
        if self.repetitions < 2:
            raise UsageError(f"--repetitions is {self.repetitions}; it must be at least 2")
        if min(self.batch_size, default=0) < 1:
            raise UsageError("--batch-size must be at least 1")
        if self.output is not None and not self.output.parent.is_dir():
            raise UsageError(f"--output: there is no folder {self.output.parent}")
        return [
            Case(name, model, *TASKS[model.layout], batch_size, precision)
            for name, model in ((name, named(name)) for name in self.nets)
            for precision in self.precision
            for batch_size in self.batch_size
        ]


def main(arguments: Sequence[str]) -> None:
    """Prints the table, and writes the file."""
    options = parse(Options, arguments)
    cases = options.cases()
    from resflax.benchmark.measure import table  # imports JAX: only now
    from resflax.benchmark.run import benchmark, record
    from resflax.training.display import Display
    from resflax.training.files import write_atomically

    with Display(Console(stderr=True)) as display:
        results = benchmark(
            cases,
            with_naive=options.naive,
            with_torch_compile=options.torch_compile,
            repetitions=options.repetitions,
            display=display,
        )
    text = json.dumps(record(results), indent=1)
    if options.output == Path("-"):
        print(text)
        return
    console = Console()
    console.width = max(console.width, 140)  # whole columns also in a file
    console.print(table(results))
    if options.output is not None:
        write_atomically(options.output, text + "\n")


if __name__ == "__main__":
    run(main)
