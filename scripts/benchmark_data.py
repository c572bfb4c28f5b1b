"""Measures how fast pictures are read, decoded and cropped here, and by others.

Beside Pillow, and PyTorch's DataLoader and tf.data where they are installed.

usage: benchmark_data.py NAME [--data-dir DIR] [--image-size N] [--pictures N]
                         [--repetitions N] [--output FILE.json]

  NAME           a prepared set of encoded pictures, such as imagenet2012
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from resflax.command_line import parse, run
from resflax.declarations.data import Streamed
from resflax.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Measures how fast pictures are read, decoded and cropped here."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A prepared set of encoded pictures, such as imagenet2012."""

    data_dir: str | None = None
    """Folder that holds NAME/VERSION/. None: where TFDS keeps its sets."""

    test_split: str = "validation"
    """The set's split that is not for training."""

    image_size: int = 224
    """Of the crops."""

    pictures: int = 300
    """That each way decodes at a time."""

    repetitions: int = 5
    """Times that each way is timed, in turn."""

    output: Path | None = None
    """A JSON file for the results."""


def main(arguments: Sequence[str]) -> None:
    """Prints the table, and writes the file."""
    options = parse(Options, arguments)
    for field in ("pictures", "repetitions"):
        if getattr(options, field) < 1:
            raise UsageError(f"--{field} is {getattr(options, field)}; it must be at least 1")
    if options.output is not None and not options.output.parent.is_dir():
        raise UsageError(f"--output: there is no folder {options.output.parent}")
    size = options.image_size
    data = Streamed(
        options.name,
        options.data_dir,
        test_split=options.test_split,
        image_size=size,
        shorter_side=(size, size),
        test_shorter_side=size,
    )
    from resflax.benchmark.pictures import make_ways, measure_pictures
    from resflax.training.display import Display

    with Display(Console(stderr=True)) as display:
        total = options.repetitions * len(make_ways(data, 1))
        with display.bar("timing", total) as bar:
            done = iter(range(1, total + 1))
            found = measure_pictures(
                data, options.pictures, options.repetitions, lambda: bar.set(next(done))
            )
    table = Table(title=f"{options.name}, crops of {size}x{size}", title_justify="left")
    table.add_column("way")
    for name in ("pictures/s", "of the first", "pictures/CPU s", "of the first"):
        table.add_column(name, justify="right")
    for speed in found:
        wall, cpu = speed.wall / found[0].wall, speed.cpu / found[0].cpu
        table.add_row(
            speed.name, f"{speed.wall:.0f}", f"{wall:.2f}", f"{speed.cpu:.0f}", f"{cpu:.2f}"
        )
    console = Console()
    console.width = max(console.width, 90)  # whole columns also in a file
    console.print(table)
    if options.output is not None:
        options.output.write_text(json.dumps([asdict(speed) for speed in found], indent=1) + "\n")


if __name__ == "__main__":
    run(main)
