"""Measures a trained network, or the ensemble of several, over a whole split."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.command_line import Flag, parse, run
from resflax.errors import UsageError

if TYPE_CHECKING:
    from resflax.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Options:
    """Measures a trained network over a whole split, from the run's newest good checkpoint."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders, finished or not. Of several, their probabilities are averaged."""

    split: Literal["train", "validation", "test"] = "test"
    """Which examples; those held out of train are `validation`."""

    data_dir: str | None = None
    """Where the data lies now. None: where the experiment says."""

    crops: Literal[1, 10] = 1
    """10: average over the four corners, the centre, and the five mirrored. Pictures of one size
    are padded first, as they were in training."""

    scales: tuple[int, ...] = ()
    """Average over pictures resized to these shorter sides: whole ones, or ten crops of each.
    He et al. 2015: 224 256 384 480 640."""

    flip: Flag = False
    """Average over mirrored pictures too."""

    predictions: str | None = None
    """File for each example's label, first five classes and probabilities: .npz (all classes'
    probabilities) or .csv."""

    hosts: str | None = None
    """Measures on several hosts together, with the same command on each:
    ADDRESS:PORT,COUNT,NUMBER, or `auto` (TPU pods; SLURM and Open MPI, a task for each GPU)."""

    json: Flag = False
    """Print one JSON object and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Evaluates, and prints the result."""
    options = parse(Options, arguments)
    if not options.runs:
        raise UsageError("name at least one run folder: evaluate.py RUN [RUN ...]")
    if "--scales" in arguments and not options.scales:
        raise UsageError("--scales has no number; give shorter sides, such as --scales 224 256")
    from resflax.evaluation.evaluate import evaluate  # imports JAX: only now
    from resflax.evaluation.views import Views
    from resflax.training import hosts
    from resflax.training.display import Display
    from resflax.training.run_folder import RunFolder

    views = Views(options.crops, options.scales, options.flip)
    if options.hosts is not None:
        hosts.join(options.hosts)
    with Display(Console(stderr=options.json or not hosts.first())) as display:
        found = evaluate(
            [RunFolder(Path(path)) for path in options.runs],
            options.split,
            options.data_dir,
            display,
            views,
            Path(options.predictions) if options.predictions is not None else None,
        )
    if hosts.first():
        print(json.dumps(found.to_json(), allow_nan=False) if options.json else _in_words(found))


def _in_words(found: "Evaluation") -> str:
    measures, steps = found.measures, list(found.runs.values())
    of = f"{len(steps)} runs averaged" if len(steps) > 1 else f"after {steps[0]:,} steps"
    without = f" without {found.bad_pictures} that cannot be read" if found.bad_pictures else ""
    text = (
        f"{found.split} split, {measures.examples:,} examples{without}, {of}: "
        f"top-1 error {measures.top1_error:.2%}, top-5 error {measures.top5_error:.2%}, "
        f"loss {measures.loss:.4f}, calibration error {measures.calibration_error:.2%}"
    )
    known = [
        (accuracy, number)
        for number, accuracy in enumerate(measures.per_class_accuracy)
        if not math.isnan(accuracy)
    ]
    worst = ", ".join(f"{number} ({accuracy:.2%})" for accuracy, number in sorted(known)[:5])
    return f"{text}\nclasses of the lowest accuracy: {worst}"


if __name__ == "__main__":
    run(main)
