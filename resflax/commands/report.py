"""Writes tables and plots of runs and sweeps: one HTML page, and files of its parts for papers."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from resflax.errors import TrainingError, UsageError
from resflax.paths import check_output_file, check_output_folder, user_path, writing_output
from resflax.terminal.command import message_line
from resflax.terminal.options import Flag, parse

if TYPE_CHECKING:
    from resflax.report.groups import SeedGroup
    from resflax.report.page import Section


@dataclass(frozen=True)
class Options:
    """Reports runs and sweeps on one HTML page, with its tables and pictures as files beside it."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders that contain these."""

    output: str = "report.html"
    """Path of the page; an existing file is replaced."""

    diagnostics: Flag = False
    """Add diagnostics of one network per variant, that of its first finished run: layer responses,
    gradients, feature reuse, mistakes and more."""

    against: str | None = None
    """What the variants are compared with, as the report names it: a variant, or a value such as
    "shortcut none" or "depth 20, shortcut none". If not given, it is what the sweep's experiment
    has."""

    watch: Flag = False
    """Write the report again whenever the runs have changed, until all of them have ended; trials
    of a sweep that have not begun are waited for."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""


def main(arguments: Sequence[str]) -> None:
    """Writes the report, and prints the paths of its files."""
    options = parse(Options, arguments)
    # Imported here, so that help and mistakes are answered before matplotlib is loaded.
    from resflax.report.against import find_reference
    from resflax.report.build import count_states, pictures_folder, write_report
    from resflax.report.collect import RunRecord, collect_runs
    from resflax.report.groups import form_seed_groups
    from resflax.report.run_cache import RunCache
    from resflax.report.watching import watch

    output = user_path(options.output)
    if output.suffix != ".html":
        raise UsageError(f"--output is {options.output!r}; it must end in .html")
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    check_output_file("--output", output, in_new_folder=True)
    longest = output.with_name(f"{output.stem}-comparisons.csv")  # of the names of its files
    check_output_file("--output", longest, in_new_folder=True)
    check_output_folder("--output", pictures_folder(output))
    folders = [user_path(folder) for folder in options.folders]
    note, cache = _noting(), RunCache()
    inspect = _inspecting(note, trust_code=options.trust_code)

    def collect() -> tuple[list[RunRecord], list[str]]:
        """The runs, and a line for each that cannot be read."""
        unreadable: list[str] = []
        return collect_runs(folders, unreadable.append, cache), unreadable

    def write(runs: list[RunRecord], unreadable: list[str], *, renewed: bool) -> list[Path]:
        """Writes the report, and returns the paths of its files."""
        groups = form_seed_groups(runs)
        if options.against is not None:
            find_reference(groups, options.against)  # a mistake is named before the work
        diagnostics = inspect(groups) if options.diagnostics else []
        with writing_output(output):
            paths = write_report(
                output,
                runs,
                groups,
                diagnostics,
                unreadable,
                against=options.against,
                renewed=renewed,
            )
        for line in unreadable:
            note(f"left out: {line}")
        return paths

    def renew(more: bool) -> None:
        """Writes the report while the runs train, and says so in one line."""
        try:
            runs, unreadable = collect()
        except UsageError as error:
            if not more:
                raise
            note(f"waiting: {error}")
            return
        write(runs, unreadable, renewed=more)
        print(f"{time.strftime('%H:%M:%S')} {output}: {count_states(runs)}", flush=True)

    if options.watch:
        watch(folders, renew)
    else:
        for path in write(*collect(), renewed=False):
            print(path)


def _noting() -> Callable[[str], None]:
    """A function that prints a line on stderr, unless it has printed the same line before."""
    noted: set[str] = set()

    def note(text: str) -> None:
        if text not in noted:
            noted.add(text)
            print(message_line(text), file=sys.stderr, flush=True)

    return note


def _inspecting(
    note: Callable[[str], None], *, trust_code: bool
) -> "Callable[[Sequence[SeedGroup]], list[Section]]":
    """A function that draws the diagnostics of one network per group, each network only once."""
    drawn: dict[tuple[Path, str], Section | None] = {}

    def inspect(groups: "Sequence[SeedGroup]") -> "list[Section]":
        from resflax.report.diagnostic_pictures import draw_diagnostics  # imports JAX

        sections = []
        for group in groups:
            for run in group.finished[:1]:
                title = f"{group.label}, seed {run.experiment.seed}"
                if (run.path, title) not in drawn:
                    drawn[run.path, title] = None
                    print(f"inspecting {title}", file=sys.stderr)
                    try:
                        section = draw_diagnostics(run.path, title, note, trust_code=trust_code)
                        drawn[run.path, title] = section
                    except (UsageError, TrainingError) as error:
                        note(f"not inspected: {error}")
                sections.append(drawn[run.path, title])
        return [section for section in sections if section is not None]

    return inspect
