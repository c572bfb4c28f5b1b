"""Whole runs by `scripts/train.py`: the record they leave, and what interruption does to it."""

import json
import shutil
import signal
import time
from typing import Any

import pytest
from whole_runs import assert_same, metrics, result, run, start

from resflax.runs.run_folder import describe_result

RESULT_FIELDS = {
    "status", "steps", "test_error", "test_loss", "train_error", "train_loss",
    "validation_error", "validation_loss", "params", "macs", "seconds", "params_sha256",
}  # fmt: skip


def wait_for_step(process, folder, step):
    """Waits until the log or a checkpoint shows that so many steps are done."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            text = (folder / "metrics.jsonl").read_text()
        except FileNotFoundError:
            text = ""
        if any(json.loads(line)["step"] >= step for line in text.splitlines() if line[-1] == "}"):
            return
        time.sleep(0.005)
    raise AssertionError(f"the run ended or stood still before step {step}")


def test_the_run_is_the_record(undisturbed):
    ended = result(undisturbed)
    assert ended.keys() == RESULT_FIELDS
    assert (ended["status"], ended["steps"], ended["params"]) == ("finished", 40, 75_002)
    plain = json.loads((undisturbed / "experiment.json").read_text())
    assert plain["model"]["block"] == "basic"
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert environment["packages"]["jax"]
    assert len(environment["devices"]) == 1
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir()) == ["27", "36", "40"]


def test_the_log_has_every_mark_once_in_order(undisturbed):
    lines = metrics(undisturbed)
    marks = [(line["step"], line["split"]) for line in lines]
    assert marks == [
        *((step, "train") for step in (7, 14)),
        (20, "validation"),
        *((step, "train") for step in (21, 28, 35)),
        *((40, split) for split in ("train", "validation", "test")),
    ]
    for line in lines:
        assert line["epoch"] == pytest.approx(line["step"] * 48 / 1342)
        assert 0 <= line["error"] <= 1
        assert line["loss"] > 0
    norms = lines[0]["kernel_gradient_norms"]
    units = (f"stage{stage}_unit1.conv{conv}" for stage in (1, 2, 3) for conv in (1, 2))
    assert sorted(norms) == sorted(["stem_conv", *units, "head"])
    assert all(0 < norm < lines[0]["gradient_norm"] for norm in norms.values())
    assert lines[0]["learning_rate"] == pytest.approx(0.1 * (1 + 1) / 2, abs=0.05)
    ended = result(undisturbed)
    assert (ended["test_error"], ended["test_loss"]) == (lines[-1]["error"], lines[-1]["loss"])
    assert ended["train_loss"] == lines[-3]["loss"]


def test_a_finished_run_is_left_alone(experiment, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    out, err = run(experiment, "--run-dir", undisturbed)
    assert "finished: nothing to do" in out
    assert err == ""
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}


def test_another_experiment_is_refused_with_the_fields_that_differ(experiment, undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    overrides = ("--model.shortcut", "none", "--seed", 5)
    out, err = run(experiment, "--run-dir", undisturbed, *overrides, code=2)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "model.shortcut: 'zero_pad' != 'none';" in err
    assert "seed: 0 != 5" in err
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}


def test_evaluation_of_the_folder_gives_the_result(undisturbed):
    ended = result(undisturbed)
    for split in ("test", "validation"):
        out, _ = run(undisturbed, "--json", "--split", split, script="evaluate")
        measured = json.loads(out)
        assert measured["top1_error"] == ended[f"{split}_error"]
        assert measured["loss"] == pytest.approx(ended[f"{split}_loss"], rel=1e-6)
        assert measured["examples"] == {"test": 355, "validation": 100}[split]
        assert measured["top5_error"] <= measured["top1_error"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_saves_first(experiment, undisturbed, tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(experiment, "--run-dir", folder)
    wait_for_step(process, folder, 7)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.startswith("stopped at step ")
    step = int(err.split()[3])
    assert step >= 7
    assert (folder / "checkpoints" / str(step)).is_dir()
    assert not (folder / "result.json").exists()
    out, _ = run(experiment, "--run-dir", folder)
    assert f"continuing from step {step} of 40" in out
    assert_same(folder, undisturbed)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(experiment, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    newest = folder / "checkpoints" / "40"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
    out, _ = run(experiment, "--run-dir", folder)
    assert "passing over checkpoint 40" in out
    assert "continuing from step 36" in out
    assert_same(folder, undisturbed)


def test_all_checkpoints_damaged_is_a_failure_that_touches_nothing(
    experiment, undisturbed, tmp_path
):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    for step in (folder / "checkpoints").iterdir():
        (step / "sha256.json").write_text("{}")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    _, err = run(experiment, "--run-dir", folder, code=1)
    assert err.startswith("error: all checkpoints")
    assert err.count("\n") == 1
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    lock = folder / "run.lock"
    assert before | {lock: b""} == after | {lock: b""}


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(experiment, tmp_path):
    folder = tmp_path / "run"
    overrides = ("--optimizer.learning-rate", "1e30", "--steps", 30)
    _, err = run(experiment, "--run-dir", folder, *overrides, code=1)
    assert err.startswith("error: at step ")
    assert "(learning rate " in err
    assert "the first layer whose output is not finite is stem_" in err
    assert "there is no checkpoint yet" in err
    assert err.count("\n") == 1
    assert not (folder / "result.json").exists()


def test_eight_devices_and_shard_map_train_too(experiment, tmp_path):
    shas = set()
    for parallel in ("pmap", "shard_map"):
        folder = tmp_path / parallel
        arguments = ("--run-dir", folder, "--parallel", parallel, "--steps", 3)
        run(experiment, *arguments, devices=8)
        assert len(json.loads((folder / "environment.json").read_text())["devices"]) == 8
        shas.add(result(folder)["params_sha256"])
    assert len(shas) == 1


def test_a_batch_that_cannot_be_dealt_out_is_refused_before_a_folder_is_made(experiment, tmp_path):
    folder = tmp_path / "run"
    arguments = ("--run-dir", folder, "--batch-size", 50)
    _, err = run(experiment, *arguments, devices=8, code=2)
    assert "must be a multiple of the 8 devices (such as 48 or 56)" in err
    assert not folder.exists()


def test_a_measured_loss_that_is_not_finite_is_said(tmp_path):
    # A short or wild training may have finite losses and no finite one on the test split.
    done: dict[str, Any] = {"train_error": 1.0, "train_loss": 246.9, "test_error": 0.9}
    done |= {"test_loss": None, "params": 1, "macs": 2, "steps": 3, "seconds": 61.0}
    said = describe_result(tmp_path, done).splitlines()
    assert said[0].split() == ["train", "error", "100.00%", "loss", "246.9000"]
    assert said[1].split() == ["test", "error", "90.00%", "loss", "not", "finite"]
