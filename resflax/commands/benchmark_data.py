"""Measures how fast pictures are read, decoded and cropped.

The feed is compared with Pillow, and with PyTorch's DataLoader and tf.data if they are installed.

usage: resflax benchmark-data NAME [--data-dir DIR] [--test-split SPLIT] [--image-size N]
           [--pictures N] [--repetitions N] [--output FILE.json]

  NAME           a prepared set of encoded pictures, such as imagenet2012
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.declarations.data import Streamed
from resflax.errors import UsageError
from resflax.files import write_atomically
from resflax.paths import check_output_file, user_path, writing_output
from resflax.terminal.display import Display
from resflax.terminal.options import parse


@dataclass(frozen=True)
class Options:
    """Measures how fast pictures are read, decoded and cropped, here and in other libraries."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A prepared set of encoded pictures, such as imagenet2012."""

    data_dir: str | None = None
    """The folder that holds NAME/VERSION/. None: the folder in which TFDS keeps its sets."""

    test_split: str = "validation"
    """The split of the set that is not for training."""

    image_size: int = 224
    """Height and width of the crops."""

    pictures: int = 300
    """Number of pictures that each loader decodes in one repetition."""

    repetitions: int = 5
    """Number of times that each loader is timed. The loaders take turns."""

    output: str | None = None
    """A JSON file to write the results to."""


def main(arguments: Sequence[str]) -> None:
    """Times the loaders, prints a table of the results and writes them to the file."""
    options = parse(Options, arguments)
    for field in ("pictures", "repetitions"):
        if getattr(options, field) < 1:
            raise UsageError(f"--{field} is {getattr(options, field)}; it must be at least 1")
    file = None if options.output is None else user_path(options.output)
    if file is not None:
        check_output_file("--output", file)
    size = options.image_size
    data = Streamed(
        options.name,
        options.data_dir,
        test_split=options.test_split,
        image_size=size,
        shorter_side=(size, size),
        test_shorter_side=size,
    )
    # Imports JAX, so not before the options are checked.
    from resflax.benchmark.picture_loading import (
        loading_table,
        make_loaders,
        measure_loaders,
    )

    with Display(Console(stderr=True)) as display:
        total = options.repetitions * len(make_loaders(data, 1))
        with display.bar("timing", total) as bar:
            done = iter(range(1, total + 1))
            speeds = measure_loaders(
                data, options.pictures, options.repetitions, lambda: bar.set(next(done))
            )
    console = Console()
    console.width = max(console.width, 90)  # so that no column is cut off in a file
    console.print(loading_table(speeds, f"{options.name}, crops of {size}x{size}"))
    if file is not None:
        with writing_output(file):
            write_atomically(file, json.dumps([asdict(s) for s in speeds], indent=1) + "\n")
