"""Measures a trained network, or the ensemble of several, over a whole split."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.declarations.data import Data
from resflax.errors import UsageError
from resflax.evaluation.other_data import OtherData
from resflax.paths import user_path
from resflax.terminal.options import Flag, parse
from resflax.text import path_text

if TYPE_CHECKING:
    from resflax.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Options:
    """Measures a trained network, from the run's newest good checkpoint, over a whole split."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders, finished or not. The probabilities of several runs are averaged."""

    split: Literal["train", "validation", "test"] = "test"
    """Split to measure on. `validation` means the examples held out of the training split."""

    data_dir: str | None = None
    """Folder where the run's own data is now. None: the folder that the experiment declares."""

    data: OtherData = field(default_factory=OtherData)
    """Other data to measure on."""

    classes: Literal["all", "present"] = "all"
    """Classes among which the network guesses: all of its classes, or only those that the measured
    pictures have, as ImageNet-A and ImageNet-R are measured."""

    best: Flag = False
    """Measure the checkpoint with the lowest validation error, which a run with `keep_best` keeps,
    and not the newest."""

    crops: Literal[1, 10] = 1
    """10: average over the four corners and the centre, and the same five mirrored. Pictures of one
    size are padded first, as they were in training."""

    scales: tuple[int, ...] = ()
    """Average over pictures resized to these lengths of the shorter side: over whole pictures or,
    with `--crops 10`, over ten crops of each. He et al. 2015 use 224 256 384 480 640."""

    flip: Flag = False
    """Average over mirrored pictures as well."""

    predictions: str | None = None
    """File to write, with the label, the five most probable classes and their probabilities for
    every example. It ends in .npz, which has the probabilities of all classes, or in .csv."""

    hosts: str | None = None
    """Measure on several hosts together, with the same command on each: ADDRESS:PORT,COUNT,NUMBER,
    or `auto` (on TPU pods, and under SLURM and Open MPI with a task for each GPU)."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""

    json: Flag = False
    """Print one JSON object and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Measures the runs and prints the result."""
    _refuse_fields_of_training(arguments)
    options = parse(Options, arguments)
    if not options.runs:
        raise UsageError("name at least one run folder: resflax evaluate RUN [RUN ...]")
    if "--scales" in arguments and not options.scales:
        raise UsageError("--scales has no number; give shorter sides, such as --scales 224 256")
    other = options.data if options.data != OtherData() else None
    from resflax.devices import hosts
    from resflax.evaluation.evaluate import evaluate  # imports JAX: only now
    from resflax.evaluation.views import Views
    from resflax.runs.run_folder import RunFolder
    from resflax.terminal.display import Display

    views = Views(options.crops, options.scales, options.flip)
    if options.hosts is not None:
        hosts.join(options.hosts)
    with Display(Console(stderr=options.json or not hosts.first())) as display:
        evaluation = evaluate(
            [RunFolder(user_path(path), trust_code=options.trust_code) for path in options.runs],
            options.split,
            options.data_dir,
            display,
            views,
            user_path(options.predictions) if options.predictions is not None else None,
            best=options.best,
            data=other,
            classes=options.classes,
        )
    if hosts.first():
        plain = evaluation.to_json()
        print(json.dumps(plain, allow_nan=False) if options.json else _in_words(evaluation))


def _refuse_fields_of_training(arguments: Sequence[str]) -> None:
    """Raises `UsageError` for a field of data that other data cannot have in an evaluation."""
    of_any = {declared.name for kind in get_args(Data) for declared in fields(kind)}
    given = {a.split("=")[0].removeprefix("--data.").replace("-", "_"): a for a in arguments}
    for name in sorted(of_any - {declared.name for declared in fields(OtherData)}):
        if given.get(name, "").startswith("--data."):
            raise UsageError(
                f"--data.{name.replace('_', '-')} cannot be changed in an evaluation: the network "
                "sees pictures as the test pictures of its training"
            )


def _in_words(evaluation: "Evaluation") -> str:
    measures, steps, data = evaluation.measures, [*evaluation.runs.values()], evaluation.data
    runs = f"{len(steps)} runs averaged" if len(steps) > 1 else f"after {steps[0]:,} steps"
    left_out = {
        "that cannot be read": evaluation.bad_pictures,
        "that have no label": evaluation.unlabelled_pictures,
    }
    without = " and ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    matched = "" if data.matched_by is None else f", classes by {data.matched_by}"
    labels = ", any label of a picture is right" if data.several_labels else ""
    among = ""
    if evaluation.classes == "present":
        among = f", guesses among the {evaluation.classes_present:,} classes that are present"
    split = f"{evaluation.split} split"
    if data.facts.version is not None and data.facts.split not in ("train", evaluation.split):
        split += f" ({data.facts.split})"
    text = (
        f"{data.in_words()}, {split}, {measures.examples:,} examples"
        f"{' without ' if without else ''}{without}{matched}{labels}{among}, {runs}: "
        f"top-1 error {measures.top1_error:.2%}, top-5 error {measures.top5_error:.2%}, "
        f"loss {measures.loss:.4f}, calibration error {measures.calibration_error:.2%}"
    )
    classes = len(measures.per_class_accuracy)
    if not data.own and evaluation.classes == "all" and evaluation.classes_present < classes:
        text += (
            f"\nonly {evaluation.classes_present:,} of the network's {classes:,} classes are "
            "present; --classes present lets it guess among these alone"
        )
    known = [
        (accuracy, number)
        for number, accuracy in enumerate(measures.per_class_accuracy)
        if not math.isnan(accuracy)
    ]
    names = evaluation.class_names or [str(number) for number in range(classes)]
    worst = ", ".join(
        f"{path_text(names[number])} ({accuracy:.2%})" for accuracy, number in sorted(known)[:5]
    )
    return f"{text}\nclasses of the lowest accuracy: {worst}"
