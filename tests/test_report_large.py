"""Reports of 1,000 runs: how long they take, and how large the page is."""

import json
import math
import time

import pytest
from reported import list_trials

from resflax import Experiment, ResNet
from resflax.experiment import to_json, with_fields
from resflax.report.page_html import MOST_ROWS

SECONDS, BYTES = 30, 5_000_000
LINES = 100
SHORTCUTS = ("none", "zero_pad", "projection", "projection_all")


def make_runs(folder, groups, seeds):
    """Makes a finished sweep of so many groups and seeds, with 100 lines of metrics in each run."""
    base = Experiment(name="large", model=ResNet(20), batch_size=128, steps=LINES)
    trials = {}
    for group in range(groups):
        fields = {
            "model.shortcut": SHORTCUTS[group % len(SHORTCUTS)],
            "optimizer.learning_rate": 0.001 * (1 + group // len(SHORTCUTS)),
        }
        for seed in range(seeds):
            trial = with_fields(base, fields | {"seed": seed})
            path = folder / "trials" / trial.content_hash
            path.mkdir(parents=True)
            (path / "experiment.json").write_text(json.dumps(to_json(trial)))
            (path / "metrics.jsonl").write_text("".join(metrics(group + 0.1 * seed)))
            error = 0.1 + 0.01 * math.sin(group + seed)
            result = {
                "status": "finished", "steps": LINES, "test_error": error, "test_loss": 1.0,
                "train_error": error / 2, "train_loss": error, "params": 269434 + group,
                "macs": 2516608, "seconds": 61.0,
            }  # fmt: skip
            (path / "result.json").write_text(json.dumps(result))
            trials[trial.content_hash] = {"name": None}
    list_trials(folder, trials)


def metrics(phase):
    """Yields the lines of a run; every second one is a test."""
    for step in range(1, LINES + 1):
        line = {
            "step": step, "epoch": step / 10, "seconds": step / 10, "loss": 2 / step,
            "split": ("train", "test")[step % 2], "error": (1 + math.sin(phase + step) / 5) / step,
        }  # fmt: skip
        yield json.dumps(line) + "\n"


def report(script, folder):
    """Reports a sweep; returns the seconds that the command took, and the page."""
    began = time.monotonic()
    done = script("report", "sweep")
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return seconds, (folder / "report.html").read_text(encoding="utf-8")


def test_a_page_of_many_groups_stays_small(script, tmp_path):
    make_runs(tmp_path / "sweep", 40, 2)
    _, page = report(script, tmp_path)
    assert len(page.encode()) < BYTES / 5
    assert "80 runs: 80 finished" in page


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "seeds"), [(200, 5), (1000, 1)])
def test_a_thousand_runs_are_reported_in_half_a_minute(script, tmp_path, groups, seeds):
    make_runs(tmp_path / "sweep", groups, seeds)
    seconds, page = report(script, tmp_path)
    assert "1,000 runs: 1,000 finished" in page
    assert len(page.encode()) < BYTES
    assert seconds < SECONDS
    assert page.count("<tr") <= 3 * (MOST_ROWS + 1)
