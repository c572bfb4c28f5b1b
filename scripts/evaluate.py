"""Measures a trained network: top-1 and top-5 error and loss over a whole split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.command_line import Flag, parse, run


@dataclass(frozen=True)
class Options:
    """Measures a trained network over a whole split, from the run's newest good checkpoint."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, finished or not."""

    split: Literal["train", "validation", "test"] = "test"
    """Which examples; those held out of train are `validation`."""

    data_dir: str | None = None
    """Where the data lies now. None: where the experiment says."""

    json: Flag = False
    """Print one JSON object and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Evaluates, and prints the result."""
    options = parse(Options, arguments)
    from resflax.evaluation import evaluate  # imports JAX: only now
    from resflax.training.display import Display
    from resflax.training.run_folder import RunFolder

    with Display(Console(stderr=options.json)) as display:
        found = evaluate(RunFolder(Path(options.run)), options.split, options.data_dir, display)
    if options.json:
        print(json.dumps(found.to_json()))
        return
    measured = found.measurement
    print(
        f"{found.split} split, {measured.examples:,} examples, after {found.step:,} steps: "
        f"top-1 error {measured.top1_error:.2%}, top-5 error {measured.top5_error:.2%}, "
        f"loss {measured.loss:.4f}"
    )


if __name__ == "__main__":
    run(main)
