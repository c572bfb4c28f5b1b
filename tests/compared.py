"""Groups of runs to compare, made up instead of trained."""

import itertools
from pathlib import Path
from typing import Any

from resflax import Experiment, ResNet
from resflax.experiment import with_fields
from resflax.report.collect import RunRecord
from resflax.report.groups import form_seed_groups
from resflax.report.sweep_records import SweepRecord

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)
DEPTH = "model.depth"
SMALL = (0.0, 0.001, -0.001)
"""What is added to the numbers of three seeds, so that they differ."""


def sweep_of(base=BASE, path="sweep", fields=()):
    return SweepRecord(Path(path), base, fields, False, 0)


def runs_of(fields, errors=SMALL, losses=None, *, sweep=None, base=BASE, **more):
    """Finished runs with the seeds 0, 1, ... of an experiment with some fields replaced."""
    losses = errors if losses is None else losses
    folder = Path("runs") if sweep is None else sweep.path / "trials"
    for seed, (error, loss) in enumerate(zip(errors, losses, strict=True)):
        experiment = with_fields(base, {**fields, "seed": seed})
        result = {"test_error": error, "train_loss": loss, "seconds": 1.0, "params": 9, "macs": 9}
        path = folder / experiment.content_hash
        yield RunRecord(path, experiment, (), result, "finished", sweep=sweep, **more)


def groups_of(*runs):
    return form_seed_groups(list(itertools.chain(*runs)))


def paired(comparisons):
    """The labels of the pairs, once for each pair."""
    labels = ((one.pair.group.label, one.pair.reference.label) for one in comparisons)
    return list(dict.fromkeys(labels))


def grid(depths, shortcuts, sweep):
    return groups_of(
        *(
            runs_of({"model.depth": depth, "model.shortcut": shortcut}, sweep=sweep)
            for depth in depths
            for shortcut in shortcuts
        )
    )


def drawn(picture):
    """The bars of a forest plot, as (low, high) by row, and the means of filled and hollow marks.

    The means, too, are by row, from 0 at the top.
    """
    axis = picture.figure.axes[0]
    bars = [collection for collection in axis.collections if collection.get_linewidth()[0] > 1]
    segments = [segment for collection in bars for segment in collection.get_segments()]
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    filled, hollow = (dict(zip(line.get_ydata(), line.get_xdata(), strict=True)) for line in marks)
    assert [line.get_markerfacecolor() for line in marks] == [marks[0].get_color(), "none"]
    return {row: (low, high) for (low, row), (high, _) in segments}, filled, hollow


VARIANTS: dict[str, dict[str, Any]] = {
    "gated": {"model.shortcut": "shortcut_gating", "model.gate_bias": 0.0},
    "original": {"model.shortcut": "zero_pad"},
    "scaled 0.5, 1": {"model.shortcut": "constant_scaling"},
}


def variants(sweep, depths=(20,)):
    for (number, (name, fields)), depth in itertools.product(enumerate(VARIANTS.items()), depths):
        yield from runs_of(
            {"model.depth": depth, **fields}, sweep=sweep, variant=name, number=10 * number
        )


def many_groups(count):
    """A group for each of many batch sizes, with two seeds each."""
    sizes = range(1, count + 1)
    return groups_of(*(runs_of({"batch_size": n}, (n / 500, n / 400)) for n in sizes))
