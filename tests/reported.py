"""Run folders as reports read them, with results that were made up."""

import json
from pathlib import Path
from typing import Any

from resflax import Experiment, ResNet
from resflax.experiment import to_json, with_fields

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)


def make_run(
    path: Path,
    experiment: Experiment,
    error: float | None = None,
    *,
    rate: float = 1000.0,
    train: float = 0.01,
) -> None:
    """Writes a run folder; the run is unfinished if it has no error."""
    path.mkdir(parents=True)
    (path / "experiment.json").write_text(json.dumps(to_json(experiment)))
    lines = []
    for step in (50, 100):
        common: dict[str, Any] = {"step": step, "epoch": 1.0, "loss": 1.0, "seconds": step / 10}
        lines.append(common | {"split": "train", "error": 0.3, "images_per_second": rate})
        lines.append(common | {"split": "test", "error": 0.5 if error is None else error})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if error is not None:
        result = {
            "status": "finished", "steps": 100, "test_error": error, "test_loss": 1.0,
            "train_error": train, "train_loss": 10 * train, "params": 269434, "macs": 2516608,
            "seconds": 61.0,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))


def make_sweep(folder: Path) -> None:
    """Makes a sweep of two shortcuts and three seeds, and two more runs: unfinished and failed."""
    errors = {"zero_pad": [0.10, 0.12, 0.14], "none": [0.20, 0.26, 0.23]}
    trials: dict[str, Any] = {}
    for shortcut, per_seed in errors.items():
        for seed, error in enumerate(per_seed):
            trial = with_fields(BASE, {"model.shortcut": shortcut, "seed": seed})
            make_run(folder / "trials" / trial.content_hash, trial, error)
            trials[trial.content_hash] = {"name": None}
    unfinished = with_fields(BASE, {"seed": 9})
    make_run(folder / "trials" / unfinished.content_hash, unfinished)
    failed = with_fields(BASE, {"model.shortcut": "none", "seed": 9})
    make_run(folder / "trials" / failed.content_hash, failed)
    (folder / "ended").mkdir()
    ended = {"state": "failed", "why": "the loss is nan <at> step 7"}
    (folder / "ended" / f"{failed.content_hash}.json").write_text(json.dumps(ended))
    trials |= {trial.content_hash: {"name": None} for trial in (unfinished, failed)}
    list_trials(folder, trials)


def list_trials(folder: Path, trials: dict[str, Any]) -> None:
    """Writes the file that makes a folder a sweep of these trials, by their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"experiment": {}, "trials": trials}))
