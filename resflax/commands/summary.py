"""Shows the layers of a network: output shapes, parameters, multiply-adds and memory.

usage: resflax summary EXPERIMENT|NAME [--json] [--draw FILE] [--FIELD VALUE ...]
       resflax summary zoo [--json]

  EXPERIMENT     a Python file that declares `experiment = Experiment(...)`
  NAME           a published network, such as resnet50 (for 224x224x3 pictures of 1000 classes)
                 or densenet_bc_100_12 (for 32x32x3 pictures of 10 classes)
  zoo            a table of all published networks, with the printed figures beside the counts
  --json         print one JSON object and nothing else
  --draw FILE    draw the network's units and stages to FILE.svg or FILE.pdf
  --FIELD VALUE  replaces a field of the experiment, such as --model.depth 56; a published
                 network has only the fields that begin with --model

resflax summary EXPERIMENT|NAME --help lists every field with its value in that experiment
or network.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from resflax.declarations.models import Model
from resflax.errors import UsageError
from resflax.files import write_atomically
from resflax.models.zoo import NAMES, TASKS, Task
from resflax.paths import check_output_file, user_path, writing_output
from resflax.terminal.options import (
    ExperimentFile,
    Flag,
    NetworkName,
    Overridden,
    OverriddenModel,
    parse,
    parse_with_network,
)


@dataclass(frozen=True)
class Options:
    """Shows the layers of a network: output shapes, parameters, multiply-adds, memory."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)`."""

    experiment: Overridden

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""

    json: Flag = False
    """Print one JSON object and nothing else."""

    draw: str | None = None
    """Draw the units and the stages of the network to this file, which ends in .svg or .pdf. The
    drawing fits into a column of a paper."""


@dataclass(frozen=True)
class NamedOptions:
    """Shows the layers of a network: output shapes, parameters, multiply-adds, memory."""

    name: NetworkName
    """A published network."""

    model: OverriddenModel

    json: Flag = False
    """Print one JSON object and nothing else."""

    draw: str | None = None
    """Draw the units and the stages of the network to this file, which ends in .svg or .pdf. The
    drawing fits into a column of a paper."""


@dataclass(frozen=True)
class ZooOptions:
    """Shows a table of all published networks, with the printed figures beside the counts."""

    json: Flag = False
    """Print one JSON array and nothing else."""


def zoo(options: ZooOptions) -> None:
    """Prints the table of all published networks."""
    from resflax.devices.settings import check_settings
    from resflax.models.comparison import (  # imports JAX
        comparison_rows,
        comparison_table,
        summarize_published,
    )
    from resflax.terminal.display import Display

    check_settings()
    with Display(Console(stderr=options.json)) as display:
        summaries = summarize_published(display.items(NAMES, "counting"))
    if options.json:
        print(json.dumps(comparison_rows(summaries)))
    else:
        Console().print(comparison_table(summaries))


def main(arguments: Sequence[str]) -> None:
    """Prints the summary of a network, or the table of all published ones."""
    if list(arguments[:1]) == ["zoo"]:
        zoo(parse(ZooOptions, arguments[1:]))
        return
    options = parse_with_network(Options, NamedOptions, arguments, usage=__doc__ or "")
    from resflax.data.description import describe
    from resflax.devices.settings import check_settings
    from resflax.models.summary import summarize, summary_table, summary_to_json  # imports JAX

    drawing = None if options.draw is None else _drawing_file(options.draw)
    check_settings()
    model: Model
    if isinstance(options, NamedOptions):
        title, model, task = options.name, options.model, TASKS[options.model.layout]
        summary = summarize(model, task.num_classes, task.image_shape)
    else:
        title, experiment = options.experiment.name, options.experiment
        model, facts = experiment.model, describe(experiment.data)
        task = Task(facts.image_shape, facts.num_classes)
        summary = summarize(model, task.num_classes, task.image_shape, dtype=experiment.precision)
    if options.json:
        print(json.dumps(summary_to_json(summary)))
    else:
        Console().print(summary_table(summary, title))
    if drawing is not None:
        _draw(drawing, model, task)
        print(drawing, file=sys.stderr if options.json else sys.stdout)


def _drawing_file(given: str) -> Path:
    """The path of `--draw`. Raises `UsageError` if no drawing can be written there."""
    path = user_path(given)
    if path.suffix not in (".svg", ".pdf"):
        raise UsageError(f"--draw is {given!r}; it must end in .svg or .pdf")
    check_output_file("--draw", path)
    return path


def _draw(path: Path, model: Model, task: Task) -> None:
    """Draws a network to a file."""
    from resflax.drawing.networks.whole import draw_network
    from resflax.drawing.picture import to_file
    from resflax.models.dataflow import trace  # imports JAX

    figure = draw_network(trace(model, task.num_classes, task.image_shape))
    content = to_file(figure, "svg" if path.suffix == ".svg" else "pdf")
    with writing_output(path):
        write_atomically(path, content)
