"""Sends finished or unfinished runs to TensorBoard or Weights & Biases."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from resflax.errors import UsageError
from resflax.paths import check_output_folder, user_path, writing_output
from resflax.report.collect import collect_runs
from resflax.report.trackers import TRACKERS, send_runs
from resflax.terminal.command import message_line
from resflax.terminal.options import parse


@dataclass(frozen=True)
class Options:
    """Sends runs and sweeps to TensorBoard or Weights & Biases, from their metrics.jsonl."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders that contain these."""

    to: Literal["tensorboard", "wandb"] = "tensorboard"
    """tensorboard writes event files; wandb sends the runs to Weights & Biases, or only writes them
    to disk if WANDB_MODE=offline is set."""

    output: str = "tracked"
    """Folder for the event files of TensorBoard or the files of Weights & Biases."""


def main(arguments: Sequence[str]) -> None:
    """Sends the runs, and prints how many there were and where they are."""
    options = parse(Options, arguments)
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    output = user_path(options.output)
    check_output_folder("--output", output)
    runs = collect_runs(
        [user_path(folder) for folder in options.folders],
        lambda line: print(message_line(f"left out: {line}"), file=sys.stderr),
    )
    with writing_output(output):
        send_runs(runs, TRACKERS[options.to](output))
    print(f"{len(runs)} {'run is' if len(runs) == 1 else 'runs are'} in {output}")
