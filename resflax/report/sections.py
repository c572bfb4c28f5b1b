"""The sections of pictures on a report's page, in their order. It does not import JAX."""

from collections.abc import Sequence
from pathlib import Path

from resflax.report.collect import RunRecord
from resflax.report.curves import plot_error_curves, plot_loss_curves
from resflax.report.finding import plot_findings
from resflax.report.groups import SeedGroup
from resflax.report.page import Section
from resflax.report.search_pictures import plot_search
from resflax.report.search_trials import best_first
from resflax.report.sizes import plot_error_against_size


def finding_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """The pictures of what was found: those of groups that are compared, then those of searches."""
    sections = plot_findings(_compared(groups))
    searches: dict[Path, list[RunRecord]] = {}
    for run in (run for group in groups for run in (*group.runs, *group.repeated)):
        if _is_trial(run) and run.sweep is not None:
            searches.setdefault(run.sweep.path, []).append(run)
    for path, trials in searches.items():
        title = "Search" if len(searches) == 1 else f"Search {path.name}"
        sections.append(Section(title, tuple(plot_search(trials))))
    return sections


def course_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """The curves of the trainings, and the errors against the sizes of the networks.

    The curves of searches are those of their four best trials.
    """
    compared = _compared(groups)
    trials = [group for group in groups if not any(group is other for other in compared)]
    shown = [*compared, *best_first(trials)]
    curves = [*plot_loss_curves(shown), *plot_error_curves(shown)]
    return [
        Section("Loss and error against steps", tuple(curves)),
        Section("Error against size", tuple(plot_error_against_size(compared))),
    ]


def _compared(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    """The groups without the trials of searches, each of which is a group of its own."""
    return [group for group in groups if not all(map(_is_trial, group.runs))]


def _is_trial(run: RunRecord) -> bool:
    return run.sweep is not None and run.sweep.searched
