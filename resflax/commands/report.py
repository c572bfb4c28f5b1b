"""Writes tables and plots of runs and sweeps: one HTML page, and files of its parts for papers."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.errors import UsageError
from resflax.paths import check_output_file, check_output_folder, user_path, writing_output
from resflax.terminal.command import message_line
from resflax.terminal.options import Flag, parse


@dataclass(frozen=True)
class Options:
    """Reports runs and sweeps on one HTML page, with its tables and pictures as files beside it."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Run folders, sweep folders, or folders that contain these."""

    output: str = "report.html"
    """Path of the page; an existing file is replaced."""

    diagnostics: Flag = False
    """Add what each depth of up to 8 variants knows of the class and the picture, and diagnostics
    of one network per variant, that of its first finished run: layer responses, gradients, feature
    reuse, mistakes and more."""

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
    from resflax.report.build import count_states, pictures_folder, report_files, write_report
    from resflax.report.collect import RunRecord, collect_runs
    from resflax.report.groups import form_seed_groups
    from resflax.report.inspection import make_inspector
    from resflax.report.run_cache import RunCache
    from resflax.report.watching import watch

    output = user_path(options.output)
    if output.suffix != ".html":
        raise UsageError(f"--output is {options.output!r}; it must end in .html")
    if not options.folders:
        raise UsageError("name at least one run or sweep folder")
    for path in report_files(output):
        check_output_file("--output", path, in_new_folder=True)
    check_output_folder("--output", pictures_folder(output))
    folders = [user_path(folder) for folder in options.folders]
    note, cache = _noting(), RunCache()
    inspect = make_inspector(
        note, _say, trust_code=options.trust_code, diagnostics=options.diagnostics
    )

    def collect() -> tuple[list[RunRecord], list[str]]:
        """The runs, and a line for each that cannot be read."""
        unreadable: list[str] = []
        return collect_runs(folders, unreadable.append, cache), unreadable

    def write(runs: list[RunRecord], unreadable: list[str], *, renewed: bool) -> list[Path]:
        """Writes the report, and returns the paths of its files."""
        groups = form_seed_groups(runs)
        if options.against is not None:
            find_reference(groups, options.against)  # a mistake is named before the work
        with writing_output(output):
            paths = write_report(
                output,
                runs,
                groups,
                inspect(groups),
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
            _say(text)

    return note


def _say(text: str) -> None:
    print(message_line(text), file=sys.stderr, flush=True)
