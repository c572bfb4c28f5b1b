"""Tables and pictures of runs and sweeps: one HTML page, with CSV and Markdown beside it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.command_line import Flag, parse, run
from resflax.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Reports runs and sweeps on one HTML page, with its tables as CSV and Markdown beside it."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders of either."""

    output: str = "report.html"
    """The page; replaced if it is there."""

    diagnostics: Flag = False
    """Look into the network of the first finished run of every variant: layer responses,
    gradients, feature reuse, mistakes, ..."""


def main(arguments: Sequence[str]) -> None:
    """Writes the report, and prints where it is."""
    options = parse(Options, arguments)
    from resflax.report.build import write_report  # imports matplotlib: only now
    from resflax.report.collect import collect, group

    output = Path(options.output)
    if output.suffix != ".html":
        raise UsageError(f"--output is {options.output!r}; it must end in .html")
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    runs = collect([Path(folder) for folder in options.folders])
    groups, sections = group(runs), []
    if options.diagnostics:
        from resflax.report.diagnostics import diagnose  # imports JAX: only now

        for variant in groups:
            for done in variant.finished[:1]:
                title = f"{variant.label}, seed {done.experiment.seed}"
                print(f"looking into {title}", file=sys.stderr)
                sections.append(diagnose(done.path, title))
    for path in write_report(output, runs, groups, sections):
        print(path)


if __name__ == "__main__":
    run(main)
