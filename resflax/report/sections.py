"""The sections of pictures on a report's page, in their order. It does not import JAX."""

from collections.abc import Sequence
from pathlib import Path

from resflax.report.collect import RunRecord
from resflax.report.curves import plot_error_curves, plot_loss_curves
from resflax.report.finding import plot_findings
from resflax.report.groups import SeedGroup
from resflax.report.page import Section
from resflax.report.search_pictures import plot_search
from resflax.report.search_table import EXPLANATION, describe_best, make_trials_table
from resflax.report.search_trials import best_first
from resflax.report.sizes import plot_error_against_size


def finding_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """The pictures of what was found where groups are compared; searches are not among them."""
    return plot_findings(_compared(groups))


def search_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """A section for each search: its best trial, its pictures, and the table of its trials."""
    sections = []
    searches: dict[Path, list[RunRecord]] = {}
    for run in (run for group in groups for run in group.all_runs):
        if _is_trial(run) and run.sweep is not None:
            searches.setdefault(run.sweep.path, []).append(run)
    for path, trials in searches.items():
        name = "" if len(searches) == 1 else f" {path.name}"
        section = Section(
            f"Search{name}",
            pictures=tuple(plot_search(trials)),
            explanation=EXPLANATION,
            sentences=tuple(describe_best(trials)),
            table=make_trials_table(trials, f"Trials{name}"),
        )
        sections.append(section)
    return sections


def course_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    """The curves of the trainings, and the errors against the sizes of the networks.

    The curves of searches are those of their four best trials.
    """
    compared = _compared(groups)
    trials = [group for group in groups if not any(group is other for other in compared)]
    best = best_first(trials)
    shown, note = [*compared, *best], _left_out(len(trials), len(best))
    curves = [*plot_loss_curves(shown, note), *plot_error_curves(shown, note)]
    return [
        Section("Loss and error against steps", tuple(curves)),
        Section("Error against size", tuple(plot_error_against_size(compared))),
    ]


def _left_out(trials: int, shown: int) -> str:
    """A sentence that says how many trials of searches have no curves; "" if all have some."""
    out = trials - shown
    if not out:
        return ""
    has = "has a curve" if shown == 1 else "have curves"
    return (
        f"{shown} of the {trials} trials of searches {has}, the best of the finished ones; {out} "
        f"{'is' if out == 1 else 'are'} left out."
    )


def _compared(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    """The groups without the trials of searches, each of which is a group of its own."""
    return [group for group in groups if not all(map(_is_trial, group.runs))]


def _is_trial(run: RunRecord) -> bool:
    return run.sweep is not None and run.sweep.searched
