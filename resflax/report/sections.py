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


def picture_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """All pictures of the runs: the finding first, then searches, curves, and sizes.

    Every trial of a search is a group of its own. So searches have pictures of their own in place
    of the finding's, and the curves are those of their four best trials.
    """
    searches: dict[Path, list[RunRecord]] = {}
    for run in (run for group in groups for run in (*group.runs, *group.repeated)):
        if run.sweep is not None and run.sweep.searched:
            searches.setdefault(run.sweep.path, []).append(run)
    searched = {id(run) for members in searches.values() for run in members}
    trials = [group for group in groups if all(id(run) in searched for run in group.runs)]
    compared = [group for group in groups if not any(group is trial for trial in trials)]
    sections = plot_findings(compared)
    for path, members in searches.items():
        title = "Search" if len(searches) == 1 else f"Search {path.name}"
        sections.append(Section(title, tuple(plot_search(members))))
    shown = [*compared, *best_first(trials)]
    curves = [*plot_loss_curves(shown), *plot_error_curves(shown)]
    sections.append(Section("Loss and error against steps", tuple(curves)))
    sections.append(Section("Error against size", tuple(plot_error_against_size(compared))))
    return [section for section in sections if section.pictures]
