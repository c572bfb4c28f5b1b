"""Shows what a network is made of: layers, output shapes, parameters, multiply-adds, memory.

usage: summary.py EXPERIMENT|NAME [--json] [--FIELD VALUE ...]
       summary.py zoo [--json]

  EXPERIMENT     a Python file that declares `experiment = Experiment(...)`
  NAME           a published network, such as resnet50 (on 224x224x3 pictures of 1000 classes)
                 or densenet_bc_100_12 (on 32x32x3 pictures of 10 classes)
  zoo            every published network in one table, beside the figures in print
  --json         print one JSON object and nothing else
  --FIELD VALUE  replaces a field of the experiment: --model.depth 56; of a published network,
                 those that begin with --model

summary.py EXPERIMENT|NAME --help lists every field with the value it has there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from resflax.command_line import (
    ExperimentFile,
    Flag,
    NetworkName,
    Overridden,
    OverriddenModel,
    parse,
    parse_with_network,
    run,
)


@dataclass(frozen=True)
class Options:
    """Shows what a network is made of: layers, output shapes, parameters, multiply-adds, memory."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)`."""

    experiment: Overridden

    json: Flag = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class NamedOptions:
    """Shows what a network is made of: layers, output shapes, parameters, multiply-adds, memory."""

    name: NetworkName
    """A published network."""

    model: OverriddenModel

    json: Flag = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class ZooOptions:
    """Shows every published network in one table, beside the figures in print."""

    json: Flag = False
    """Print one JSON array and nothing else."""


def zoo(options: ZooOptions) -> None:
    """Prints all published networks."""
    from resflax.models.comparison import count, rows, table  # imports JAX: only now
    from resflax.models.zoo import NAMES
    from resflax.training.display import Display

    with Display(Console(stderr=options.json)) as display:
        summaries = count(display.items(NAMES, "counting"))
    if options.json:
        print(json.dumps(rows(summaries)))
    else:
        Console().print(table(summaries))


def main(arguments: Sequence[str]) -> None:
    """Prints the summary."""
    if list(arguments[:1]) == ["zoo"]:
        zoo(parse(ZooOptions, arguments[1:]))
        return
    options = parse_with_network(Options, NamedOptions, arguments, usage=__doc__ or "")
    from resflax.data.source import describe  # imports JAX: only now
    from resflax.models.summary import summarize, table, to_json
    from resflax.models.zoo import TASKS

    if isinstance(options, NamedOptions):
        title, task = options.name, TASKS[options.model.layout]
        summary = summarize(options.model, task.num_classes, task.image_shape)
    else:
        title, experiment = options.experiment.name, options.experiment
        facts = describe(experiment.data)
        summary = summarize(
            experiment.model, facts.num_classes, facts.image_shape, dtype=experiment.precision
        )
    if options.json:
        print(json.dumps(to_json(summary)))
    else:
        Console().print(table(summary, title=title))


if __name__ == "__main__":
    run(main)
