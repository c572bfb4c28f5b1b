"""Draws what each depth of the compared networks knows of the class and of the picture."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resflax.declarations.models import Custom
from resflax.diagnostics.probed_runs import (
    EXAMPLES,
    RunKnowledge,
    affordable_examples,
    probe_run,
)
from resflax.diagnostics.probes import UNITS, UnitKnowledge
from resflax.drawing.picture import Picture
from resflax.drawing.style import COLORS, INK, MARKERS, SIZE, in_legend, plot_style
from resflax.errors import TrainingError, UsageError
from resflax.report.groups import SeedGroup
from resflax.report.page import Section
from resflax.runs.run_folder import RunFolder

Say = Callable[[str], None]

GROUPS = 8
"""The most groups that are compared; the lines of more could not be told apart."""

NETWORKS = 16
"""The most networks that are probed: the fewer the groups, the more seeds of each."""

_CLASS = ("The class, told from each depth", "accuracy of a linear probe (%)")
_PICTURE = ("The picture, rebuilt from each depth", "variance that is rebuilt (%)")


@dataclass(frozen=True)
class GroupKnowledge:
    """What each depth of a group's networks knows."""

    label: str
    """The label of the group."""
    runs: tuple[RunKnowledge, ...]
    """One entry per seed; at least one."""


def draw_knowledge(
    groups: Sequence[SeedGroup], say: Say, progress: Say, *, trust_code: bool = False
) -> Section | None:
    """Draws what can be read linearly from each depth: the class, and the picture.

    Args:
      groups: the groups of the report; the first 8 that have finished runs are compared.
      say: is called with a line for each group, run or checkpoint that is left out.
      progress: is called with the name of each network before it is probed.
      trust_code: whether kept code of a user's own classes may be run: see `RunFolder`.

    Returns:
      A section with two pictures, in which every group has two lines: before and after its
      training. None if no group can be probed.
    """
    compared, left_out = choose_groups(groups)
    for line in left_out:
        say(f"not probed: {line}")
    known = list(probe_groups(compared, say, progress, trust_code=trust_code))
    if not known:
        return None
    with plot_style():
        pictures = (
            _draw(known, *_CLASS, lambda unit: unit.accuracy),
            _draw(known, *_PICTURE, lambda unit: unit.reconstructed),
        )
    return Section("What each depth knows", pictures, _explain(known, left_out))


def choose_groups(groups: Sequence[SeedGroup]) -> tuple[list[SeedGroup], list[str]]:
    """The groups to compare, and a line for each reason why others with finished runs are not."""
    finished = [group for group in groups if group.finished]
    own = [group for group in finished if isinstance(group.experiment.model, Custom)]
    known = [group for group in finished if not isinstance(group.experiment.model, Custom)]
    lines = []
    if own:
        lines.append(f"{_names(own)}, because nothing is known of the units of your own networks")
    if len(known) > GROUPS:
        lines.append(f"{_names(known[GROUPS:])}, because at most {GROUPS} variants are compared")
    return known[:GROUPS], lines


def probe_groups(
    groups: Sequence[SeedGroup], say: Say, progress: Say, *, trust_code: bool = False
) -> Iterator[GroupKnowledge]:
    """Probes all groups on equally many pictures; groups without a readable run are left out.

    The arguments are those of `draw_knowledge`; no group may be of a user's own network.
    """
    examples = min([EXAMPLES, *map(_affordable_examples, groups)])
    for group in groups:
        runs = []
        for run in group.finished[: max(1, NETWORKS // len(groups))]:
            title = f"{group.label}, seed {run.experiment.seed}"
            progress(title)
            try:
                folder = RunFolder(run.path, trust_code=trust_code)
                runs.append(probe_run(folder, examples, say))
            except (UsageError, TrainingError) as error:
                say(f"not probed: {title}: {error}")
        if runs:
            yield GroupKnowledge(group.label, tuple(runs))


def _affordable_examples(group: SeedGroup) -> int:
    try:
        return affordable_examples(group.experiment)
    except UsageError:  # it is raised again, and said, when the run is read
        return EXAMPLES


def _draw(
    known: Sequence[GroupKnowledge],
    title: str,
    quantity: str,
    share: Callable[[UnitKnowledge], float],
) -> Picture:
    """Draws one share for all groups, as percentages against the number of layers."""
    labels = [textwrap.fill(in_legend(group.label), 56) for group in known]
    columns = 2 if max(map(len, labels)) <= 24 else 1
    rows = -(-(sum(label.count("\n") + 1 for label in labels) + 2) // columns)
    figure = Figure(figsize=(SIZE[0], SIZE[1] + 0.19 * rows), layout="constrained")
    axis = figure.subplots()
    ends = []
    for i, (group, label) in enumerate(zip(known, labels, strict=True)):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        layers = [unit.layer for unit in group.runs[0].trained]
        initial = [run.initial for run in group.runs if run.initial is not None]
        for dash, runs in (("--", initial), ("-", [run.trained for run in group.runs])):
            if not runs:
                continue
            shares = 100 * np.array([[share(unit) for unit in units] for units in runs])
            mean = shares.mean(0)
            axis.plot(layers, mean, dash, color=color, marker=marker, markersize=3, linewidth=1.2)
            if len(runs) > 1:
                deviation = shares.std(0, ddof=1)
                low, high = mean - deviation, mean + deviation
                axis.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
        ends.append(f"{group.label} {mean[-1]:.0f} %")
        axis.plot([], [], color=color, marker=marker, markersize=4, label=label)
    axis.plot([], [], "-", color=INK, label="trained")
    axis.plot([], [], "--", color=INK, label="before the first step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="weighted layers passed", ylabel=quantity, xlim=(0, None), ylim=(-2, 102))
    figure.legend(loc="outside lower left", ncols=columns)
    description = f"{title}: {quantity}. After the last unit, trained: {', '.join(ends)}"
    return Picture(title, figure, description)


def _explain(known: Sequence[GroupKnowledge], left_out: Sequence[str]) -> str:
    """The words under the section's heading."""
    runs = [run for group in known for run in group.runs]
    fitting = " or ".join(f"{count:,}" for count in sorted({run.fitting for run in runs}))
    held_out = " or ".join(f"{count:,}" for count in sorted({run.held_out for run in runs}))
    seeds = max(len(group.runs) for group in known)
    spread = f"Lines are means over up to {seeds} seeds, and bands are ± one standard deviation. "
    return (
        "A linear probe tells the class from all maps of one depth (Alain & Bengio 2016), and a "
        "linear regression rebuilds the picture from them. Both are ridge regressions, fitted to "
        f"{fitting} pictures of the training split, without augmentation, and measured on "
        f"{held_out} pictures of the test split. The networks were trained on the former. After "
        "0 layers there is the picture itself; in a dense block, there are all maps of the block "
        "so far. "
        + (spread if seeds > 1 else "")
        + f"Networks with more than {UNITS} units are probed at {UNITS} of them. Before the first "
        "step, batch norm uses the statistics of the pictures that the probes are fitted to; "
        "after training, its running averages. Networks that began with the weights of another run "
        "are shown trained only." + "".join(f" Left out: {x}." for x in left_out)
    )


def _names(groups: Sequence[SeedGroup]) -> str:
    """The labels of the first five groups, and how many more there are."""
    more = len(groups) - 5
    return ", ".join(group.label for group in groups[:5]) + (
        f" and {more} more" if more > 0 else ""
    )
