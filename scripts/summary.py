"""Shows what a network is made of: layers, output shapes, parameters, multiply-adds.

usage: summary.py EXPERIMENT [--json] [--FIELD VALUE ...]

  EXPERIMENT     a Python file that declares `experiment = Experiment(...)`
  --json         print one JSON object and nothing else
  --FIELD VALUE  replaces a field of the experiment: --model.depth 56

summary.py EXPERIMENT --help lists every field with the value it has in that file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from resflax.command_line import ExperimentFile, Flag, Overridden, parse_with_experiment, run


@dataclass(frozen=True)
class Options:
    """Shows what a network is made of: layers, output shapes, parameters, multiply-adds."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)`."""

    experiment: Overridden

    json: Flag = False
    """Print one JSON object and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Prints the summary."""
    options = parse_with_experiment(Options, arguments, usage=__doc__ or "")
    from resflax.data.source import describe  # imports JAX: only now
    from resflax.models.summary import summarize, table, to_json

    facts = describe(options.experiment.data)
    summary = summarize(options.experiment.model, facts.num_classes, facts.image_shape)
    if options.json:
        print(json.dumps(to_json(summary)))
    else:
        Console().print(table(summary, title=options.experiment.name))


if __name__ == "__main__":
    run(main)
