"""Writes tables and plots of runs and sweeps: one HTML page, and its tables as CSV and Markdown."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.errors import TrainingError, UsageError
from resflax.paths import check_output_file, user_path, writing_output
from resflax.terminal.command import message_line
from resflax.terminal.options import Flag, parse


@dataclass(frozen=True)
class Options:
    """Reports runs and sweeps on one HTML page, and writes its tables as CSV and Markdown."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders that contain these."""

    output: str = "report.html"
    """Path of the page; an existing file is replaced."""

    diagnostics: Flag = False
    """Add diagnostics of one network per variant, that of its first finished run: layer responses,
    gradients, feature reuse, mistakes and more."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""


def main(arguments: Sequence[str]) -> None:
    """Writes the report, and prints the paths of its files."""
    options = parse(Options, arguments)
    # Imported here, so that help and mistakes are answered before matplotlib is loaded.
    from resflax.report.build import write_report
    from resflax.report.collect import collect_runs
    from resflax.report.groups import form_seed_groups

    output = user_path(options.output)
    if output.suffix != ".html":
        raise UsageError(f"--output is {options.output!r}; it must end in .html")
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    check_output_file("--output", output, in_new_folder=True)
    longest = output.with_name(f"{output.stem}-comparisons.csv")  # of the names of its tables
    check_output_file("--output", longest, in_new_folder=True)
    unreadable: list[str] = []
    runs = collect_runs([user_path(folder) for folder in options.folders], unreadable.append)

    def note(text: str) -> None:
        print(message_line(text), file=sys.stderr)

    from resflax.report.network_pictures import draw_networks  # imports JAX

    groups = form_seed_groups(runs)
    networks = draw_networks(groups, note, trust_code=options.trust_code)
    sections = [] if networks is None else [networks]
    if options.diagnostics:
        from resflax.report.diagnostic_pictures import draw_diagnostics  # imports JAX

        for group in groups:
            for finished_run in group.finished[:1]:
                title = f"{group.label}, seed {finished_run.experiment.seed}"
                print(f"inspecting {title}", file=sys.stderr)
                draw = partial(draw_diagnostics, finished_run.path, title, note)
                try:
                    sections.append(draw(trust_code=options.trust_code))
                except (UsageError, TrainingError) as error:
                    note(f"not inspected: {error}")
    with writing_output(output):
        files = write_report(output, runs, groups, sections, unreadable)
    for path in files:
        print(path)
    for line in unreadable:
        note(f"left out: {line}")
