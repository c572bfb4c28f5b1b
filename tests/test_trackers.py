"""What trackers receive, and what TensorBoard reads back."""

import json
import struct
import sys

import pytest

from resflax import Experiment, ResNet
from resflax.errors import UsageError
from resflax.experiment import to_json
from resflax.report.collect import collect_runs
from resflax.report.trackers import TRACKERS, TensorBoard, send_runs

LINES = [
    {"step": 10, "split": "train", "loss": 2.0, "error": 0.75, "learning_rate": 0.1, "epoch": 1},
    {"step": 10, "split": "test", "loss": None, "error": 0.5, "top5_error": 0.25, "epoch": 1},
    {"step": 20, "split": "train", "loss": 1.0, "error": 0.5, "learning_rate": 0.1, "epoch": 2},
]


@pytest.fixture
def runs(tmp_path):
    experiment = Experiment(name="base", model=ResNet(8), batch_size=32, steps=20)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps(to_json(experiment)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "result.json").write_text(
        json.dumps({"test_error": 0.5, "params": 1, "macs": 1, "seconds": 1.0})
    )
    return collect_runs([folder])


class Recorder:
    def __init__(self):
        self.calls = []

    def begin_run(self, name, experiment):
        self.calls.append(("begin", name.split("-")[0], experiment.model.depth))

    def log_step(self, step, measurements):
        self.calls.append((step, dict(measurements)))

    def end_run(self, result):
        self.calls.append(("end", result["test_error"]))


def test_measurements_of_a_step_are_sent_together_and_missing_ones_are_left_out(runs):
    recorder = Recorder()
    send_runs(runs, recorder)
    first = {"train/loss": 2.0, "train/error": 0.75, "train/learning_rate": 0.1}
    assert recorder.calls == [
        ("begin", "base", 8),
        (10, first | {"test/error": 0.5, "test/top5_error": 0.25}),
        (20, {"train/loss": 1.0, "train/error": 0.5, "train/learning_rate": 0.1}),
        ("end", 0.5),
    ]


def scalars(path):
    """Tag, step and value in an event file, read record by record."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    data, place, values = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + length])
        values += [
            (value.tag, event.step, value.simple_value)
            for value in event.summary.value
            if value.HasField("simple_value")
        ]
        place += 12 + length + 4
    return values


def test_tensorboard_reads_back_what_was_measured(runs, tmp_path):
    pytest.importorskip("tensorboardX")
    for _ in range(2):  # the second call replaces the files of the first
        send_runs(runs, TensorBoard(tmp_path / "out"))
    (file,) = (tmp_path / "out").rglob("events.*")
    values = scalars(file)
    assert ("train/loss", 20, 1.0) in values
    assert ("test/top5_error", 10, 0.25) in values
    assert len(values) == 8


@pytest.mark.parametrize("name", ["tensorboardX", "wandb"])
def test_a_missing_package_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="pip install"):
        TRACKERS["wandb" if name == "wandb" else "tensorboard"](tmp_path)


def test_wandb_is_written_without_a_network(runs, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    send_runs(runs, TRACKERS["wandb"](tmp_path / "out"))
    assert list((tmp_path / "out").rglob("*.wandb"))
