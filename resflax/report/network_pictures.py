"""Draws the networks that a report compares, each part once. It imports JAX."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.data.description import describe
from resflax.declarations.models import Custom, Model
from resflax.declarations.records import identity
from resflax.drawing.networks.dense_block import (
    dense_blocks,
    describe_dense_blocks,
    draw_dense_blocks,
)
from resflax.drawing.networks.render import to_figure
from resflax.drawing.networks.sketch import Sketch, packed, titled
from resflax.drawing.networks.stages import describe_stages, draw_stages
from resflax.drawing.networks.units import describe_units, distinct_units, draw_unit
from resflax.drawing.networks.whole import COLUMN, GAP
from resflax.drawing.picture import Picture
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models.dataflow import trace
from resflax.models.graph import Graph
from resflax.models.zoo import TASKS, Task
from resflax.report.groups import SeedGroup
from resflax.report.page import Section
from resflax.runs.run_folder import RunFolder

MOST_PICTURES = 12
"""The most pictures that a report has of networks."""
MOST_TRACED = 24
"""The most declarations of networks that are looked at, not counting other depths."""
_TEXT = 10.0
"""The size of text in points. A picture that is scaled to a column of a paper has at least 7."""

_KINDS = ("Units", "Dense block", "Stages")
"""Kinds of pictures in their order in the section."""

_EXPLANATION = (
    "These are the networks that the runs trained. The drawings are made from the networks "
    "themselves, so they show what is convolved, added and concatenated when a network is "
    "evaluated. Sizes are height, width and maps, and /2 is a stride of 2. Boxes with square "
    "corners are convolutions and dense layers. Boxes with double sides are drawn elsewhere."
)


@dataclass(frozen=True)
class _Family:
    """Seed groups whose networks differ in depth at most, in the order of their depths."""

    groups: tuple[SeedGroup, ...]
    models: tuple[Model, ...]
    """The network of each group."""
    task: Task
    is_assumed: bool
    """Whether the data set is not here, so that the task is a guess."""


@dataclass
class _Part:
    """A picture to be, with the groups whose networks have this part."""

    kind: str
    sketches: list[Sketch]
    description: str
    groups: list[SeedGroup]
    is_assumed: bool


def draw_networks(
    groups: Sequence[SeedGroup], say: Callable[[str], None], *, trust_code: bool = False
) -> Section | None:
    """Draws the units, dense blocks and stages of the groups' networks, without repeating any.

    Of networks that differ only in depth, the deepest is drawn, and the stages of the shallowest.

    Args:
      groups: the seed groups of a report.
      say: is called with a line for each network that cannot be drawn.
      trust_code: whether kept code of a user's own classes may be run: see `RunFolder`.

    Returns:
      A section with at most `MOST_PICTURES` pictures, whose explanation says what is left out; None
      if there is nothing to draw.
    """
    families = _families(groups, trust_code)
    parts: dict[tuple[str, str], _Part] = {}
    lines = [_EXPLANATION]
    looked_at = 0
    for family in families[:MOST_TRACED]:
        if len(parts) >= MOST_PICTURES:
            break
        looked_at += 1
        try:
            drawn = list(_parts(family))
        except UsageError as error:
            label = family.groups[0].label
            say(f"not drawn: {label}: {error}")
            lines.append(f"Not drawn: {label} ({error}).")
            continue
        for part in drawn:
            known = parts.setdefault((part.kind, part.description), part)
            if known is not part:
                known.groups += part.groups
    more = len(parts) - MOST_PICTURES
    if more > 0:
        lines.append(f"{more} more pictures are not drawn.")
    left_out = sum(len(family.groups) for family in families[looked_at:])
    if left_out:
        lines.append(f"The networks of {left_out} more variants are not drawn.")
    if more > 0 or left_out:
        lines.append("The command summary draws any network with --draw.")
    shown = sorted(list(parts.values())[:MOST_PICTURES], key=lambda part: _KINDS.index(part.kind))
    pictures = tuple(_picture(part, groups) for part in shown)
    return Section("Networks", pictures, " ".join(lines)) if pictures or len(lines) > 1 else None


def _families(groups: Sequence[SeedGroup], trust_code: bool) -> list[_Family]:
    """The groups, in order, divided by everything about their networks except depth."""
    members: dict[str, list[tuple[SeedGroup, Model]]] = {}
    tasks: dict[str, tuple[Task, bool]] = {}
    for group in groups:
        experiment = group.experiment
        if trust_code and experiment.own_classes:
            experiment = RunFolder(group.runs[0].path, trust_code=True).read_experiment()
        task, is_assumed = _task(experiment)
        declared = {**identity(experiment.model.resolved()), "depth": None}
        key = json.dumps([declared, task, is_assumed], sort_keys=True)
        members.setdefault(key, []).append((group, experiment.model))
        tasks[key] = task, is_assumed
    families = []
    for key, pairs in members.items():
        pairs.sort(key=lambda pair: getattr(pair[1], "depth", 0))
        alike, models = zip(*pairs, strict=True)
        families.append(_Family(alike, models, *tasks[key]))
    return families


def _task(experiment: Experiment) -> tuple[Task, bool]:
    """The shape of images and the number of classes, and whether they are a guess."""
    try:
        facts = describe(experiment.data)
        return Task(facts.image_shape, facts.num_classes), False
    except UsageError:
        model = experiment.model
        return TASKS["cifar" if isinstance(model, Custom) else model.layout], True


def _parts(family: _Family) -> Iterator[_Part]:
    """The units, the dense block and the stages of a family.

    Raises `UsageError` if a network cannot be built.
    """
    task, deepest = family.task, family.models[-1]
    graph = trace(deepest, task.num_classes, task.image_shape)

    def part(kind: str, sketches: list[Sketch], description: str) -> _Part:
        return _Part(kind, sketches, description, list(family.groups), family.is_assumed)

    units = distinct_units(graph)
    if units:
        sketches = [draw_unit(unit, units) for unit in units]
        yield part("Units", sketches, describe_units(units))
    blocks = dense_blocks(graph)
    if blocks:
        yield part("Dense block", [draw_dense_blocks(blocks)], describe_dense_blocks(blocks))
    graphs = {getattr(deepest, "depth", 0): graph}
    shallowest = family.models[0]
    if (depth := getattr(shallowest, "depth", 0)) not in graphs:
        graphs = {depth: trace(shallowest, task.num_classes, task.image_shape)} | graphs
    yield part("Stages", *_all_stages(graphs))


def _all_stages(graphs: dict[int, Graph]) -> tuple[list[Sketch], str]:
    """The stages of networks by their depths, and a text that says the same."""
    if len(graphs) == 1:
        (graph,) = graphs.values()
        return [draw_stages(graph)], describe_stages(graph)
    sketches = [titled(draw_stages(graph), [f"depth {depth}"]) for depth, graph in graphs.items()]
    texts = [f"Depth {depth}: {describe_stages(graph)}." for depth, graph in graphs.items()]
    return sketches, " ".join(texts)


def _picture(part: _Part, groups: Sequence[SeedGroup]) -> Picture:
    figure = to_figure(packed(part.sketches, COLUMN, GAP), _TEXT)
    caption = ""
    if part.is_assumed:
        caption = "The data set is not here, so the size of images and the classes are a guess."
    return Picture(f"{part.kind}: {_names(part.groups, groups)}", figure, part.description, caption)


def _names(some: Sequence[SeedGroup], groups: Sequence[SeedGroup]) -> str:
    """A name for some of the groups: what their networks share, or else their labels."""
    if len(some) == len(groups):
        return "all networks" if len(groups) > 1 else some[0].label
    if len(some) == 1:
        return some[0].label
    shared: dict[str, Any] = {}
    left = list(groups)
    for name, value in some[0].fields.items():
        alike = [group for group in left if group.fields.get(name) == value]
        is_shared = all(group.fields.get(name) == value for group in some)
        if name.startswith("model.") and is_shared and len(alike) < len(left):
            shared[name], left = value, alike
    if shared and len(left) == len(some):
        return ", ".join(
            f"{name.rpartition('.')[2].replace('_', ' ')} {_short(value)}"
            for name, value in shared.items()
        )
    labels = [group.label for group in some]
    return "; ".join(labels[:3]) + (f"; {len(labels) - 3} more" if len(labels) > 3 else "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
