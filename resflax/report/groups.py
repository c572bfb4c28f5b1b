"""Groups the runs that differ only in the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resflax.experiment import Experiment, flat_json
from resflax.report.collect import RunRecord
from resflax.report.labels import (
    IGNORED_FIELDS,
    find_varying,
    make_labels,
    name_origins,
    sort_key,
)
from resflax.report.papers import PaperFigure, nearest_figure
from resflax.runs.origins import InitialWeights, find_initial_weights, hash_without_seed
from resflax.text import path_text

_MOST_LINES = 10
"""The most lines about repeated seeds."""


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs that differ only in the seed, or in other fields that do not set groups apart."""

    label: str
    """The name of the group in the report, which no other group has. It is for eyes only."""
    fields: dict[str, Any]
    """The values of all fields in which some groups differ, by dotted name. A field that the
    group's experiment does not have is None. `initial_weights` is the name of the origin of the
    weights that the runs start with, and None if they are drawn from the seed."""
    runs: tuple[RunRecord, ...]
    """The runs in the order of their seeds, one for each seed."""
    repeated: tuple[RunRecord, ...] = ()
    """Runs that are not used, because another run of the group has the same seed."""

    @property
    def all_runs(self) -> tuple[RunRecord, ...]:
        """The runs that are used, and then those that are not."""
        return (*self.runs, *self.repeated)

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.result is not None)

    @property
    def experiment(self) -> Experiment:
        """The experiment of the first run."""
        return self.runs[0].experiment

    @cached_property
    def paper_figure(self) -> PaperFigure | None:
        """The figure of `nearest_figure` for the experiment, which is looked up once."""
        return nearest_figure(self.experiment)


def form_seed_groups(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """Divides runs into groups whose runs differ only in the seed.

    Runs are of one group if their experiments have equal fields, apart from `IGNORED_FIELDS`, and
    if they start with weights of the same origin. If a seed was run several times, a finished run
    is used, or else the one that got furthest; of equal ones it is the first by path.

    The groups are sorted by the fields that vary between them, after the names of the experiments
    if the labels begin with these.
    """
    members: dict[tuple[str, str | None], list[RunRecord]] = {}
    for run in runs:
        origin = _find_origin(run)
        key = hash_without_seed(run.experiment), None if origin is None else origin.identity
        members.setdefault(key, []).append(run)
    divided = [_use_seeds_once(inside) for inside in members.values()]
    origins = name_origins([_find_origin(used[0]) for used, _ in divided])
    values = [
        _comparable_fields(used[0].experiment) | {"initial_weights": origin}
        for (used, _), origin in zip(divided, origins, strict=True)
    ]
    varying = find_varying(values)
    order = sorted(range(len(values)), key=lambda i: [sort_key(values[i].get(n)) for n in varying])
    values, divided = [values[i] for i in order], [divided[i] for i in order]
    variants = [_find_variant([*used, *repeated]) for used, repeated in divided]
    labels, by_name = make_labels(values, variants, varying)
    groups = [
        SeedGroup(label, {name: fields.get(name) for name in varying}, used, repeated)
        for label, fields, (used, repeated) in zip(labels, values, divided, strict=True)
    ]
    return sorted(groups, key=lambda group: group.experiment.name) if by_name else groups


def repetition_lines(groups: Sequence[SeedGroup]) -> list[str]:
    """A line for each seed that was run several times, which says which of the runs is used.

    After ten lines, the last one says how many more there are.
    """
    lines = []
    for group in groups:
        used = {run.experiment.seed: run for run in group.runs}
        others: dict[int, list[str]] = {}
        for run in group.repeated:
            others.setdefault(run.experiment.seed, []).append(path_text(run.path))
        for seed, paths in others.items():
            times = "twice" if len(paths) == 1 else f"{len(paths) + 1} times"
            lines.append(
                f"seed {seed} of {group.label} was run {times}: {path_text(used[seed].path)} is "
                f"used, {' and '.join(paths)} {'is' if len(paths) == 1 else 'are'} not"
            )
    more = len(lines) - _MOST_LINES
    if more > 1:
        last = f"{more} more seeds were run several times; the table of runs says which are used"
        return [*lines[:_MOST_LINES], last]
    return lines


def _find_origin(run: RunRecord) -> InitialWeights | None:
    return find_initial_weights(run.experiment, run.initialized_from)


def _comparable_fields(experiment: Experiment) -> dict[str, Any]:
    flat = flat_json(experiment)
    return {name: value for name, value in flat.items() if name not in IGNORED_FIELDS}


def _find_variant(runs: Sequence[RunRecord]) -> str | None:
    """The name of the variant to which the runs belong; None if they have several, or none."""
    names = {run.variant for run in runs} - {None}
    return names.pop() if len(names) == 1 else None


def _use_seeds_once(
    runs: Sequence[RunRecord],
) -> tuple[tuple[RunRecord, ...], tuple[RunRecord, ...]]:
    """The runs to use, one for each seed, and those that are not used, both in order of seeds."""
    used: dict[int, RunRecord] = {}
    repeated = []
    best_first = sorted(
        runs, key=lambda run: (run.result is None, -run.steps_done, run.number is None, run.path)
    )
    for run in sorted(best_first, key=lambda run: run.experiment.seed):
        if used.setdefault(run.experiment.seed, run) is not run:
            repeated.append(run)
    return tuple(used.values()), tuple(repeated)
