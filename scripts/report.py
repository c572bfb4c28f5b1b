"""Tables and pictures of runs and sweeps: one HTML page, with CSV and Markdown beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.command_line import parse, run
from resflax.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Reports runs and sweeps on one HTML page, with its tables as CSV and Markdown beside it."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders of either."""

    output: str = "report.html"
    """The page; replaced if it is there."""


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
    for path in write_report(output, runs, group(runs)):
        print(path)


if __name__ == "__main__":
    run(main)
