"""Measures training steps: compile time, images per second, share of the peak, and memory.

usage: resflax benchmark [NET ...] [--batch-size N ...] [--precision float32|bfloat16 ...]
           [--repetitions N] [--naive] [--torch-compile] [--operations]
           [--output FILE.json]

  NET            published networks, such as resnet50 (on 224x224x3 pictures of 1000 classes) or
                 densenet_bc_100_12 (on 32x32x3 pictures of 10 classes), or experiment files, whose
                 networks are timed on pictures like those of their data

Every network is timed with every batch size and precision. It is also timed in PyTorch
(channels-last; AMP for bfloat16; on CPUs with as many threads as XLA has), if PyTorch is installed
and has the network; with --torch-compile, also compiled. The times do not include reading and
decoding pictures.

--operations prints where the time of our own step goes: for each kind of operation and its shapes,
its share of the step, its rate, and the rate as a share of the measured peak.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from resflax.benchmark.contender import Case, Precision
from resflax.declarations.models import Model
from resflax.errors import UsageError
from resflax.models.zoo import TASKS, Task, named
from resflax.paths import check_output_file, user_path, writing_output
from resflax.terminal.experiment_files import load_experiment
from resflax.terminal.options import Flag, parse


@dataclass(frozen=True)
class Options:
    """Measures training steps: compile time, images per second, share of the peak, and memory."""

    nets: Annotated[tuple[str, ...], tyro.conf.Positional] = (
        "resnet20",
        "resnet56",
        "densenet_bc_100_12",
    )
    """Published networks, or experiment files."""

    batch_size: tuple[int, ...] = (64,)
    """Number of pictures in a step."""

    precision: tuple[Precision, ...] = ("float32",)
    """Number format of convolutions and activations."""

    repetitions: int = 9
    """Number of times that each implementation is timed. The implementations take turns."""

    naive: Flag = False
    """Also time the network as a linen tutorial would write it, if that version exists."""

    torch_compile: Flag = False
    """Also time PyTorch's network when it is compiled by torch.compile."""

    operations: Flag = False
    """Also print each operation's share of the step and its rate, by JAX's profiler. Only on
    CPUs."""

    output: str | None = None
    """A JSON file for the results, the hardware and the versions of packages. With -, they are
    printed as JSON instead of the table."""

    @property
    def file(self) -> Path | None:
        """The file for the results, if they go to one."""
        return None if self.output in (None, "-") else user_path(self.output)

    def cases(self) -> list[Case]:
        """All cases to be timed. Raises `UsageError` if an option is invalid."""
        if not self.nets:
            raise UsageError("name a network, such as resnet20")
        if self.repetitions < 2:
            raise UsageError(f"--repetitions is {self.repetitions}; it must be at least 2")
        if min(self.batch_size, default=0) < 1:
            raise UsageError("--batch-size must be at least 1")
        if self.file is not None:
            check_output_file("--output", self.file)
        return [
            Case(name, model, *task, batch_size, precision)
            for name, model, task in map(_network, self.nets)
            for precision in self.precision
            for batch_size in self.batch_size
        ]


def _network(name: str) -> tuple[str, Model, Task]:
    """The name for the table, the network and its task: of an experiment, or a published one's."""
    if not name.endswith(".py"):
        model = named(name)
        return name, model, TASKS[model.layout]
    from resflax.data.description import describe

    experiment = load_experiment(user_path(name))
    facts = describe(experiment.data)
    return experiment.name, experiment.model, Task(facts.image_shape, facts.num_classes)


def main(arguments: Sequence[str]) -> None:
    """Times the networks, prints the table and writes the file."""
    options = parse(Options, arguments)
    cases = options.cases()
    from resflax.benchmark.operations import operations_table
    from resflax.benchmark.run import benchmark_record, run_benchmark  # imports JAX: only now
    from resflax.benchmark.timing import timing_table
    from resflax.files import write_atomically
    from resflax.terminal.display import Display

    with Display(Console(stderr=True)) as display:
        measured = run_benchmark(
            cases,
            with_naive=options.naive,
            with_torch_compile=options.torch_compile,
            with_operations=options.operations,
            repetitions=options.repetitions,
            display=display,
        )
    record = json.dumps(benchmark_record(measured), indent=1)
    if options.output == "-":
        print(record)
        return
    console = Console()
    console.width = max(console.width, 140)  # so that no column is cut off in a file
    console.print(timing_table(measured.timings))
    for case, step in zip(cases, measured.operations, strict=False):
        console.print(operations_table(step, measured.ceilings[case.precision]))
    if options.file is not None:
        with writing_output(options.file):
            write_atomically(options.file, record + "\n")
