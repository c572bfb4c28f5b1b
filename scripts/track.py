"""Sends runs and sweeps to TensorBoard or Weights & Biases, from their metrics.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from resflax.command_line import parse, run
from resflax.errors import UsageError
from resflax.report.collect import collect
from resflax.report.trackers import TRACKERS, send


@dataclass(frozen=True)
class Options:
    """Sends runs and sweeps to TensorBoard or Weights & Biases, from their metrics.jsonl."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders of either."""

    to: Literal["tensorboard", "wandb"] = "tensorboard"
    """tensorboard: event files; wandb: Weights & Biases, offline with WANDB_MODE=offline."""

    output: str = "tracked"
    """Folder for the event files, or for W&B's own."""


def main(arguments: Sequence[str]) -> None:
    """Sends them, and says where they are."""
    options = parse(Options, arguments)
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    runs = collect([Path(folder) for folder in options.folders])
    send(runs, TRACKERS[options.to](Path(options.output)))
    print(f"{len(runs)} runs are in {options.output}")


if __name__ == "__main__":
    run(main)
