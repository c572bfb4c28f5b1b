"""A run continues where its log has no gap, and never makes up a number for its log."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest
from whole_runs import assert_same, metrics

from resflax import Experiment, ResNet
from resflax.runs import manifest
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.clock import Clock
from resflax.runs.log import RunLog
from resflax.runs.metrics import append, read_lines, sync
from resflax.runs.resuming import logged, newest_complete, relied_on
from resflax.runs.run_folder import RunFolder
from resflax.training.state import Totals, TrainState

LINES = [
    {"step": step, "split": split, "loss": 1.0, "error": 0.5}
    for step, split in (
        (10, "train"), (20, "train"), (20, "test"), (30, "train"), (40, "train"), (40, "test"),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints at 20, 30 and 40; that of 40 was saved before its evaluation."""
    folder = tmp_path_factory.mktemp("run")
    for line in LINES[:-1]:
        append(folder / "metrics.jsonl", line)
        if line["step"] in (20, 30, 40) and (line["step"] != 20 or line["split"] == "test"):
            log = relied_on(read_lines(folder / "metrics.jsonl"), line["step"])
            state = {"step": jnp.int32(line["step"])}
            Checkpoints(folder / "checkpoints").save(line["step"], state, {"log": log})
    append(folder / "metrics.jsonl", LINES[-1])
    return folder


def texts(lines):
    return [json.dumps(line) + "\n" for line in lines]


def without(*places):
    return "".join(text for place, text in enumerate(texts(LINES)) if place not in places)


WHOLE = without()


@pytest.mark.parametrize(
    ("text", "step", "said"),
    [
        (WHOLE, 40, None),
        (WHOLE + '{"step": 50, "spl', 40, None),
        (WHOLE + "\0" * 4096, 40, None),
        (without(5), 40, None),  # this evaluation can be made again
        (without(5)[:-20], 30, "going back to checkpoint 30"),
        (without(4), 30, "going back to checkpoint 30"),
        (without(4, 5) + "\0" * 4096, 30, "going back to checkpoint 30"),
        (without(3, 4, 5) + "\0" * 100 + without(0, 1, 2), 20, "going back to checkpoint 20"),
        (without(3), 20, "going back to checkpoint 20"),
        (without(2), 20, "going back to checkpoint 20"),
        (without(2, 5), 20, "going back to checkpoint 20"),
        (without(0), 40, "they stay missing"),
        (without(1), 40, "they stay missing"),
        ("", 40, "they stay missing"),
        ("\0" * 4096, 40, "they stay missing"),
        (None, 40, "they stay missing"),
    ],
    ids="abcdefghijklmnop",
)
def test_it_continues_from_the_newest_checkpoint_whose_lines_are_all_there(
    saved, tmp_path, text, step, said
):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    heard: list[str] = []
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert newest_complete(Checkpoints(saved / "checkpoints"), lines, heard.append) == step
    assert len(heard) == (said is not None)
    if said is not None:
        assert heard[0].startswith("metrics.jsonl lacks lines before checkpoint 40")
        assert said in heard[0]


def test_the_lines_are_on_the_disk_before_the_checkpoint_and_its_files_before_its_manifest(
    saved, tmp_path, monkeypatch
):
    done: list[str] = []
    fsync = os.fsync

    def note(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    folder = shutil.copytree(saved, tmp_path / "run")
    (folder / "checkpoints" / "40" / manifest.NAME).unlink()
    monkeypatch.setattr(os, "fsync", note)
    sync(folder / "metrics.jsonl")
    assert done == ["metrics.jsonl", "run"]
    done.clear()
    manifest.write(folder / "checkpoints" / "40")
    *files, draft, last = done
    assert draft.startswith(f".{manifest.NAME}")
    assert last == "40"
    there = list((folder / "checkpoints" / "40").rglob("*"))
    assert sorted(files) == sorted(
        [path.name for path in there if path.name != manifest.NAME] + ["checkpoints"]
    )


def state_with(loss):
    totals = Totals(jnp.float32(loss), jnp.int32(6), jnp.float32(loss), {})
    return TrainState(None, None, None, None, None, {}, None, totals, None)  # type: ignore[arg-type]


def test_sums_are_divided_by_their_own_steps_and_written_once():
    """Also if the line of the checkpoint's step was written after the checkpoint was saved."""
    written: list[dict[str, Any]] = []
    lines: Any = SimpleNamespace(
        has=lambda step, split: any(line["step"] == step for line in written),
        append=lambda **line: written.append(line),
    )
    plan: Any = SimpleNamespace(
        training_feed=SimpleNamespace(bad={}),
        devices=SimpleNamespace(replicate=lambda tree: tree),
        order=SimpleNamespace(epoch=lambda step: 0.0),
        learning_rate=lambda step: 0.1,
        steps=40,
    )
    experiment = Experiment(name="x", model=ResNet(8), batch_size=3, steps=40, log_every=10)
    quiet: Any = SimpleNamespace(say=lambda text: None)
    log = RunLog(experiment, plan, lines, Clock(), quiet)
    log.logged = 10
    reset = log.training(state_with(8.0), 14)
    assert [(line["step"], line["loss"], line["error"]) for line in written] == [(14, 2.0, 0.5)]
    assert float(reset.totals.loss) == 0
    assert log.training(reset, 14) is reset
    written.clear()
    assert log.training(reset, 14) is reset  # its line is lost, and not made up
    assert written == []
    written.append({"step": 20})
    assert float(log.training(state_with(8.0), 20).totals.loss) == 0  # not in the next line too
    assert written == [{"step": 20}]


def test_checkpoints_of_earlier_versions_did_not_note_their_lines():
    assert logged({}, state_with(0.0), 20, 10) == 20
    assert logged({}, state_with(1.0), 20, 10) == 10
    assert logged({}, state_with(1.0), 27, 10) == 20
    assert logged({"log": {"before": 3, "trained": 10}}, state_with(0.0), 20, 10) == 10


def test_the_line_of_the_last_checkpoint_is_lost_and_made_again(
    tiny, undisturbed_here, tmp_path, train
):
    """As after a power cut: the checkpoint of step 40 has no sums any more.

    And the session before had another version of JAX.
    """
    folder = shutil.copytree(undisturbed_here, tmp_path / "run")
    (folder / "result.json").unlink()
    log = folder / "metrics.jsonl"
    *others, train_line, _, _ = log.read_text().splitlines(keepends=True)
    assert (json.loads(train_line)["step"], json.loads(train_line)["split"]) == (40, "train")
    log.write_text("".join(others))
    noted = json.loads((folder / "environment.json").read_text())
    here, noted["packages"]["jax"] = noted["packages"]["jax"], "0.9.1"
    (folder / "environment.json").write_text(json.dumps(noted))
    said = train(tiny, folder)
    assert f"begun with jax 0.9.1, continued with jax {here}: numbers may differ in" in said
    sessions = RunFolder(folder).sessions()
    assert [session["packages"]["jax"] for session in sessions] == ["0.9.1", here]
    assert "before checkpoint 40; going back to checkpoint 36, whose lines are all there" in said
    assert_same(folder, undisturbed_here)


def test_without_any_log_the_training_is_kept_and_no_number_is_made_up(
    tiny, undisturbed_here, tmp_path, train
):
    folder = shutil.copytree(undisturbed_here, tmp_path / "run")
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").unlink()
    said = train(tiny, folder)
    assert "lacks lines before checkpoint 40, and they stay missing" in said
    assert metrics(folder) == [
        line
        for line in metrics(undisturbed_here)
        if line["step"] == 40 and line["split"] != "train"
    ]
    before, after = (
        json.loads((run / "result.json").read_text()) for run in (undisturbed_here, folder)
    )
    assert after["params_sha256"] == before["params_sha256"]
    assert after["test_error"] == before["test_error"]
    assert "train_error" not in after
