"""A table of all published networks, with their counted sizes beside the printed ones."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from resflax.models.published import PUBLISHED, Published
from resflax.models.summary import Summary, summarize
from resflax.models.zoo import TASKS, named


def summarize_published(names: Iterable[str]) -> dict[str, Summary]:
    """The summary of each named network, for pictures of the size that it was published for."""
    summaries = {}
    for name in names:
        task = TASKS[named(name).layout]
        summaries[name] = summarize(named(name), task.num_classes, task.image_shape)
    return summaries


def agrees(printed: str, counted: int) -> bool:
    """Whether a count rounds to a printed figure such as `0.27 M`, `3.8 G` or `11,689,512`."""
    number, _, unit = printed.replace(",", "").partition(" ")
    decimals = len(number.partition(".")[2])
    return f"{counted / {'': 1, 'M': 1e6, 'G': 1e9}[unit]:.{decimals}f}" == number


def comparison_rows(summaries: dict[str, Summary]) -> list[dict[str, Any]]:
    """Counts, printed figures and notes of each network as plain JSON values."""
    rows = []
    for name, summary in summaries.items():
        printed = PUBLISHED.get(name, Published())
        rows.append(
            {
                "name": name,
                "params": summary.params,
                "published_params": printed.params,
                "macs": summary.macs,
                "published_macs": printed.macs,
                "source": printed.source,
                "note": printed.note,
            }
        )
    return rows


def comparison_table(summaries: dict[str, Summary]) -> Group:
    """The comparison for a terminal, with a line for each source and note below the table.

    A * marks printed figures that the counts do not round to.
    """
    table = Table(title="published networks: counted beside printed (* where they differ)")
    table.add_column("network", no_wrap=True)
    for column in ("parameters", "printed", "multiply-adds", "printed"):
        table.add_column(column, justify="right", no_wrap=True)
    lines = []
    for row in comparison_rows(summaries):
        notes = "; ".join(filter(None, (row["source"], row["note"])))
        table.add_row(
            row["name"],
            f"{row['params']:,}",
            _marked(row["published_params"], row["params"]),
            f"{row['macs']:,}",
            _marked(row["published_macs"], row["macs"]),
        )
        if notes:
            lines.append(Text(f"{row['name']}: {notes}"))
    return Group(table, *lines)


def _marked(printed: str | None, counted: int) -> str:
    if printed is None:
        return ""
    return printed if agrees(printed, counted) else f"{printed} *"
