"""The report of some runs: its page, and its tables as CSV and Markdown beside it."""

from collections.abc import Sequence
from pathlib import Path

from resflax.report.collect import Group, Run
from resflax.report.figures import error_against_size, error_curves
from resflax.report.page import Picture, Section, page
from resflax.report.tables import Table, ablation, comparisons, runs_table, to_csv, to_markdown
from resflax.training.files import write_atomically


def write_report(
    output: Path,
    runs: Sequence[Run],
    groups: Sequence[Group],
    diagnostics: Sequence[Section] = (),
) -> list[Path]:
    """Writes FILE.html, FILE.md and FILE.csv (runs and comparisons: FILE-runs.csv, ...)."""
    results, notes = ablation(groups)
    every, compared = runs_table(groups), comparisons(groups)
    title = ", ".join(sorted({run.experiment.name for run in runs})[:4])
    sections = [_section("Error against steps", error_curves(groups), _CURVES)]
    if any(group.finished for group in groups):
        sections.append(_section("Error against size", error_against_size(groups), _SIZES))
    html = page(
        title,
        _summary(runs),
        [
            (results, _RESULTS),
            (compared, _COMPARISONS),
            (every, "Every run that was found, finished or not."),
        ],
        notes,
        [*sections, *diagnostics],
    )
    stem = output.with_suffix("")
    markdown = "\n".join(to_markdown(t) for t in (results, compared, every) if t.rows)
    written = {output: html, stem.with_suffix(".md"): f"# {title}\n\n{markdown}"}
    written[stem.with_suffix(".csv")] = to_csv(results)
    named: dict[str, Table] = {"runs": every, "comparisons": compared}
    for name, table in named.items():
        if table.rows:
            written[stem.with_name(f"{stem.name}-{name}.csv")] = to_csv(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        write_atomically(path, text)
    return list(written)


_RESULTS = (
    "Mean ± standard deviation over the seeds of the finished runs (n of those there are), at the "
    "last step. Train: means over the last batches, augmentation included. Time is wall-clock."
)
_CURVES = (
    "Thin: error on the training batches, augmentation included. Bold: error on the test split, "
    "or on the held-out examples where those were measured on the way. Means over the seeds, "
    "unfinished runs included as far as they went."
)
_SIZES = (
    "Error of the finished runs at the end of training: mean, and standard deviation over the "
    "seeds as bars."
)
_COMPARISONS = (
    "Second minus first, paired by seed. p (t): paired t-test. p (exact): sign-flip permutation "
    "test, which cannot fall below 2 / 2^pairs. Neither is corrected for the number of rows."
)


def _section(title: str, pictures: dict[str, str], explanation: str) -> Section:
    shown = tuple(Picture(name, picture) for name, picture in pictures.items())
    return Section(title, shown, explanation)


def _summary(runs: Sequence[Run]) -> list[str]:
    states = [run.state for run in runs]
    counts = [f"{states.count(s)} {s}" for s in dict.fromkeys(states)]
    return [f"{len(runs)} runs: {', '.join(counts)}."]
