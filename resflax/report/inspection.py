"""Looks into the networks of a report, each only once however often the report is written."""

from collections.abc import Callable, Sequence
from pathlib import Path

from resflax.errors import TrainingError, UsageError
from resflax.report.diagnostic_pictures import draw_diagnostics
from resflax.report.groups import SeedGroup
from resflax.report.page import Section
from resflax.report.probe_pictures import draw_knowledge

Inspector = Callable[[Sequence[SeedGroup]], list[Section]]


def make_inspector(
    note: Callable[[str], None], progress: Callable[[str], None], *, trust_code: bool
) -> Inspector:
    """A function that draws what is inside the networks of groups, as sections of a report.

    The first section compares the groups, and each of the others has the diagnostics of one network
    per group, that of its first finished run. What was drawn once is not drawn again.

    Args:
      note: is called with a line for everything that cannot be inspected.
      progress: is called with a line before each network.
      trust_code: whether kept code of a user's own classes may be run: see `RunFolder`.
    """
    drawn: dict[tuple[Path, str], Section | None] = {}
    compared: dict[tuple[tuple[Path, str], ...], Section | None] = {}

    def inspect_one(path: Path, title: str) -> Section | None:
        progress(f"inspecting {title}")
        try:
            return draw_diagnostics(path, title, note, trust_code=trust_code)
        except (UsageError, TrainingError) as error:
            note(f"not inspected: {error}")
            return None

    def inspect(groups: Sequence[SeedGroup]) -> list[Section]:
        runs = tuple((run.path, group.label) for group in groups for run in group.finished)
        if runs not in compared:
            compared[runs] = draw_knowledge(
                groups, note, lambda title: progress(f"probing {title}"), trust_code=trust_code
            )
        sections = [compared[runs]]
        for group in groups:
            for run in group.finished[:1]:
                title = f"{group.label}, seed {run.experiment.seed}"
                if (run.path, title) not in drawn:
                    drawn[run.path, title] = inspect_one(run.path, title)
                sections.append(drawn[run.path, title])
        return [section for section in sections if section is not None]

    return inspect
