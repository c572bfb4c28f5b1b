"""The report's pictures, as SVG that takes its ink from the page, light or dark."""

import html
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from resflax.report.collect import Group
from resflax.report.statistics import spread

# Readable on white and on near-black.
COLORS = (
    "#2f7de1", "#e5484d", "#2a9d63", "#d98200", "#9a5ce0", "#0c9fb5", "#d6409f", "#7a8b00",
    "#b0703c", "#74808f",
)  # fmt: skip

SIZE = (5.2, 3.6)
"""Inches: two of them stand side by side on a wide window, one below the other on a phone."""

_INK = "#010203"  # a colour nobody uses: replaced by the page's own
_serial = itertools.count(1)


@contextmanager
def style() -> Iterator[None]:
    """Text as text, no background, the page's ink."""
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"figure{next(_serial)}",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.18,
        "axes.titlesize": 11,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings |= dict.fromkeys((*ink, "grid.color"), _INK)
    keyed: Any = settings  # matplotlib 3.11 types every key
    with mpl.rc_context(keyed):
        yield


def svg(figure: Figure, description: str) -> str:
    """The figure as an SVG element for a page: no fixed size, its own ids, `description` for
    readers who do not see it."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"f{next(_serial)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}', text)
    text = text.replace("url(#", f"url(#{prefix}")
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    width = figure.get_figwidth() * 72
    about = f'role="img" aria-label="{html.escape(description)}" style="max-width:{width:.0f}pt"'
    return f"{head} {about}>{body}"


def panels(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by the first field with words for values, if two fields vary; else all in one."""
    if not groups or groups[0].runs[0].variant is not None or len(groups[0].fields) < 2:
        return {"": list(groups)}
    words = [
        name
        for name in groups[0].fields
        if all(isinstance(group.fields[name], str) for group in groups)
    ]
    for name in words:
        values = list(dict.fromkeys(group.fields[name] for group in groups))
        if 2 <= len(values) <= 6:
            short = name.rpartition(".")[2].replace("_", " ")
            return {
                f"{short} {value}": [g for g in groups if g.fields[name] == value]
                for value in values
            }
    return {"": list(groups)}


def line_label(group: Group, panel: str) -> str:
    """The group's label without what its panel says."""
    parts = [part for part in group.label.split(", ") if part != panel]
    return ", ".join(parts) or group.label


def error_curves(groups: Sequence[Group]) -> dict[str, str]:
    """Training error (thin) and test error (bold) against steps: the look of He et al. 2015,
    Figures 4 and 6; means over the seeds. One picture per panel, all to one scale."""
    shown = panels(groups)
    labels = list(dict.fromkeys(line_label(g, p) for p, members in shown.items() for g in members))
    color = {label: COLORS[i % len(COLORS)] for i, label in enumerate(labels)}
    curves = {g.label: (mean_curve(g, "train"), _held_out_curve(g)) for g in groups}
    late = [_late(errors) for pair in curves.values() for _, errors in pair]
    top = min(100.0, 1.15 * max([5.0, *late]))
    found = {}
    for panel, members in shown.items():
        with style():
            figure = Figure(figsize=SIZE, layout="constrained")
            axis = figure.subplots()
            for group in members:
                label = line_label(group, panel)
                train, held_out = curves[group.label]
                axis.plot(*train, color=color[label], linewidth=0.8, alpha=0.85)
                shown_as = label if len(held_out[0]) else None
                axis.plot(*held_out, color=color[label], linewidth=2.2, label=shown_as)
            axis.set(ylim=(0, top), xlabel="step", ylabel="error (%)")
            axis.legend()
            found[panel] = svg(figure, "error against steps: thin train, bold test")
    return found


def _held_out_curve(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Of the test split, or of the held-out examples where only those were measured on the way."""
    test, validation = mean_curve(group, "test"), mean_curve(group, "validation")
    return validation if len(validation[0]) > len(test[0]) else test


def mean_curve(group: Group, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the mean error (per cent) of the runs that have been measured there."""
    by_step: dict[int, list[float]] = {}
    for run in group.runs:
        for line in run.lines:
            if line["split"] == split and line.get("error") is not None:
                by_step.setdefault(line["step"], []).append(100 * line["error"])
    steps = sorted(by_step)
    return np.array(steps), np.array([np.mean(by_step[step]) for step in steps])


def _late(errors: np.ndarray) -> float:
    """The largest error behind the first third."""
    return float(errors[len(errors) // 3 :].max()) if len(errors) else 0.0


def error_against_size(groups: Sequence[Group]) -> dict[str, str]:
    """Test error against parameters and against multiply-adds (Huang et al. 2017, Figure 3)."""
    shown = panels(groups)
    found = {}
    for key, name in (("params", "parameters"), ("macs", "multiply-adds of one picture")):
        with style():
            figure = Figure(figsize=SIZE, layout="constrained")
            axis = figure.subplots()
            for i, (panel, members) in enumerate(shown.items()):
                _size_line(axis, members, key, panel, COLORS[i % len(COLORS)])
            low, high = axis.dataLim.intervalx
            far = high > 3 * low > 0
            axis.set(xscale="log" if far else "linear", xlabel=name, ylabel="test error (%)")
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(EngFormatter(sep="") if high < 30 * low else "")
            if len(shown) > 1:
                axis.legend()
            found[name] = svg(figure, f"test error against {name}")
    return found


def _size_line(axis: Axes, members: Sequence[Group], key: str, panel: str, ink: str) -> None:
    points = []
    for group in members:
        errors = spread([run.test_error for run in group.finished if run.test_error is not None])
        if errors is not None:
            size = next(run.result[key] for run in group.finished if run.result)
            points.append((size, 100 * errors.mean, 100 * (errors.std or 0), group))
    points.sort(key=lambda point: point[0])
    if not points:
        return
    sizes, means, stds, named = zip(*points, strict=True)
    line = "-" if len(set(sizes)) == len(sizes) else ""
    axis.errorbar(
        sizes, means, stds, color=ink, marker="o", linestyle=line, capsize=3, label=panel or None
    )
    if len(points) <= 12:
        for size, mean, group in zip(sizes, means, named, strict=True):
            axis.annotate(
                line_label(group, panel), (size, mean), (5, 5), textcoords="offset points",
                fontsize=8,
            )  # fmt: skip
