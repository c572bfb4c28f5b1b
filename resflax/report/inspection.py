"""Looks into the networks of a report, each only once however often the report is written."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from resflax.errors import TrainingError, UsageError
from resflax.report.diagnostic_pictures import draw_diagnostics
from resflax.report.groups import SeedGroup
from resflax.report.network_pictures import draw_networks
from resflax.report.page import Section
from resflax.report.probe_pictures import draw_knowledge

Inspector = Callable[[Sequence[SeedGroup]], list[Section]]


def make_inspector(
    note: Callable[[str], None],
    progress: Callable[[str], None],
    *,
    trust_code: bool,
    diagnostics: bool,
) -> Inspector:
    """A function that draws the networks of groups and what is inside them, in sections.

    The first section has drawings of the networks. With `diagnostics`, another one compares what
    the depths of the networks know, and then there is one for each group, about the network of its
    first finished run. What was drawn once is not drawn again.

    Args:
      note: is called with a line for everything that cannot be drawn.
      progress: is called with a line before each network that is inspected.
      trust_code: whether kept code of a user's own classes may be run: see `RunFolder`.
      diagnostics: whether to look inside the trained networks.
    """
    drawn: dict[tuple[object, ...], Section | None] = {}

    def once(draw: Callable[[], Section | None], *key: object) -> Section | None:
        if key not in drawn:
            drawn[key] = draw()
        return drawn[key]

    def inspect_one(path: Path, title: str) -> Section | None:
        progress(f"inspecting {title}")
        try:
            return draw_diagnostics(path, title, note, trust_code=trust_code)
        except (UsageError, TrainingError) as error:
            note(f"not inspected: {error}")
            return None

    def probe(groups: Sequence[SeedGroup]) -> Section | None:
        def probing(title: str) -> None:
            progress(f"probing {title}")

        return draw_knowledge(groups, note, probing, trust_code=trust_code)

    def inspect(groups: Sequence[SeedGroup]) -> list[Section]:
        networks = tuple((group.label, group.experiment.content_hash) for group in groups)
        sections = [once(lambda: draw_networks(groups, note, trust_code=trust_code), networks)]
        if diagnostics:
            runs = tuple((group.label, *(r.path for r in group.finished)) for group in groups)
            sections.append(once(lambda: probe(groups), runs))
            for group in groups:
                for run in group.finished[:1]:
                    title = f"{group.label}, seed {run.experiment.seed}"
                    draw = partial(inspect_one, run.path, title)
                    sections.append(once(draw, run.path, title))
        return [section for section in sections if section is not None]

    return inspect
