"""Runs as reports read them, made up instead of trained."""

from pathlib import Path

from resflax import Experiment, ResNet
from resflax.experiment import with_fields
from resflax.report.collect import RunRecord
from resflax.report.sweep_records import SweepRecord

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)

DEPTH, SHORTCUT = "model.depth", "model.shortcut"


def log_line(step, split="train", **values):
    """A line of metrics.jsonl."""
    return {"step": step, "split": split, "loss": 1.0, "error": 0.5} | values


def made_run(fields=None, *, error=0.1, loss=0.5, lines=(), base=BASE, **others):
    """A run of BASE with other fields; it is finished unless its error is None.

    Args:
      fields: the fields that differ from the base's.
      error: the test error at the end, as a fraction.
      loss: the training loss at the end.
      lines: the lines of its log.
      base: the experiment.
      others: values of `RunRecord`, or of its result.
    """
    known = {"state", "variant", "sweep", "number", "why", "path", "initialized_from"}
    record = {name: others.pop(name) for name in known & others.keys()}
    experiment = with_fields(base, fields or {})
    result = None
    if error is not None:
        result = {"test_error": error, "train_loss": loss, "params": 1000, "macs": 2000}
        result |= {"seconds": 1.0, **others}
    record.setdefault("state", "unfinished" if result is None else "finished")
    record.setdefault("path", Path(experiment.content_hash))
    return RunRecord(experiment=experiment, lines=tuple(lines), result=result, **record)


def made_search(fields, trials=9):
    """The record of a search."""
    return SweepRecord(Path("search"), None, tuple(fields), True, trials)


def axes_of(picture):
    """The picture's first axes."""
    return picture.figure.axes[0]


def points_of(axes, label):
    """The x and y values of the artists with a label, such as `_seeds`, one entry for each."""
    lines = [line for line in axes.lines if line.get_label() == label]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def means_of(axes):
    """The means, as (xs, ys) for each line of means."""
    containers = [c for c in axes.containers if c.get_label() == "_mean"]
    return [(list(c.lines[0].get_xdata()), list(c.lines[0].get_ydata())) for c in containers]


def bars_of(axes):
    """The ends of the bars, as ((x, low), (x, high)) for each, in all lines together."""
    containers = [c for c in axes.containers if c.get_label() == "_mean"]
    return [
        [tuple(map(float, end)) for end in bar]
        for c in containers
        for bars in c.lines[2]
        for bar in bars.get_segments()
    ]


def legend_of(picture):
    """The texts of the picture's legends."""
    return [text.get_text() for legend in picture.figure.legends for text in legend.get_texts()]
