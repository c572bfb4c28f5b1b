"""The files of runs and sweeps as a report reads them: whole, damaged, and again."""

import dataclasses
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resflax import Experiment, ResNet
from resflax.errors import UsageError
from resflax.experiment import to_json, with_fields
from resflax.report import sweep_records
from resflax.report.build import write_report
from resflax.report.collect import collect_runs, waiting_lines
from resflax.report.groups import form_seed_groups, repetition_lines
from resflax.report.run_cache import RunCache
from resflax.runs.metrics import read_lines
from resflax.runs.origins import describe_origin

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)


def write_run(path: Path, experiment: Experiment, *, steps: int = 2, error: float | None = None):
    path.mkdir(parents=True, exist_ok=True)
    (path / "experiment.json").write_text(json.dumps(to_json(experiment)))
    add_lines(path, range(steps))
    if error is not None:
        finish(path, error)


def add_lines(path: Path, steps: Any) -> None:
    with open(path / "metrics.jsonl", "a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "split": "train", "loss": 1.5}) + "\n")


def finish(path: Path, error: float) -> None:
    result = {
        "test_error": error, "train_error": error, "train_loss": 1.0, "params": 1, "macs": 1,
        "seconds": 2.0, "steps": 2,
    }  # fmt: skip
    (path / "result.json").write_text(json.dumps(result))


def write_sweep(path: Path, points: list[dict[str, Any]], begun: int, **content: Any) -> list[Path]:
    """Writes a sweep that lists trials at some points, of which the first ones have begun."""
    path.mkdir(parents=True, exist_ok=True)
    trials, folders = {}, []
    for number, fields in enumerate(points):
        trial = with_fields(BASE, fields)
        folders.append(path / "trials" / trial.content_hash)
        trials[trial.content_hash] = {"name": None, "label": "", "fields": fields}
        if number < begun:
            write_run(folders[-1], trial)
    declared = {"experiment": to_json(BASE), "trials": trials} | content
    (path / "sweep.json").write_text(json.dumps(declared))
    return folders


GRID = [{"model.depth": depth, "seed": seed} for depth in (20, 32) for seed in range(3)]


def test_a_trial_knows_its_sweep(tmp_path):
    folders = write_sweep(tmp_path / "s", GRID, begun=4)
    write_run(tmp_path / "alone", BASE)
    runs = {run.path: run for run in collect_runs([tmp_path])}
    assert [runs[folder].number for folder in folders[:4]] == [0, 1, 2, 3]
    alone = runs.pop(tmp_path / "alone")
    assert (alone.sweep, alone.number) == (None, None)
    (sweep,) = {id(run.sweep): run.sweep for run in runs.values()}.values()
    assert sweep is not None
    assert sweep.path == tmp_path / "s"
    assert sweep.experiment == BASE.resolved()
    assert sweep.fields == ("model.depth",)
    assert not sweep.searched
    assert (sweep.trials, sweep.waiting) == (6, 2)
    (tmp_path / "s" / "search.journal").touch()
    assert collect_runs([folders[1]])[0].sweep == dataclasses.replace(sweep, searched=True)


def test_trials_that_have_not_begun_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sweep(Path("sweeps/x"), GRID, begun=4)
    write_sweep(Path("sweeps/y"), [*GRID, {"batch_size": 64}], begun=6)
    write_sweep(Path("sweeps/z"), GRID, begun=6)
    runs = collect_runs([Path("sweeps")])
    assert waiting_lines(runs) == [
        "2 of 6 trials of sweeps/x have not begun", "1 of 7 trials of sweeps/y has not begun",
    ]  # fmt: skip
    write_report(tmp_path / "r.html", runs, form_seed_groups(runs))
    page = (tmp_path / "r.html").read_text()
    assert "16 runs: 16 unfinished." in page
    assert "2 of 6 trials of sweeps/x have not begun." in page
    assert "Seed 0 of depth 20 was run 3 times: sweeps/x/trials/" in page
    runs = collect_runs([runs[0].path])
    write_report(tmp_path / "r.html", runs, form_seed_groups(runs))
    assert "1 run: 1 unfinished." in (tmp_path / "r.html").read_text()


def test_a_sweep_of_which_nothing_has_begun_does_not_hide_the_others(tmp_path):
    write_sweep(tmp_path / "x", GRID, begun=0)
    write_sweep(tmp_path / "y", GRID, begun=2)
    faults: list[str] = []
    assert len(collect_runs([tmp_path / "x", tmp_path / "y"], faults.append)) == 2
    assert faults == [f"none of the 6 trials of {tmp_path / 'x'} has begun"]
    with pytest.raises(UsageError, match="none of the 6 trials"):
        collect_runs([tmp_path / "x"])


@pytest.mark.parametrize("place", ["here", "above", "link to the run", "link to the sweep"])
def test_a_trial_knows_its_sweep_however_it_is_named(tmp_path, monkeypatch, place):
    (folder,) = write_sweep(tmp_path / "s", [{"model.depth": 32}], begun=1)
    named = {"here": ".", "above": "..", "link to the run": tmp_path / "run"}.get(place)
    monkeypatch.chdir(folder)
    os.symlink(folder, tmp_path / "run")
    os.symlink(tmp_path / "s", tmp_path / "other")
    (run,) = collect_runs([Path(named or tmp_path / "other")])
    assert run.sweep is not None
    assert run.sweep.path.resolve() == tmp_path / "s"


def test_a_trial_that_lies_elsewhere_belongs_to_the_sweep_that_links_to_it(tmp_path):
    (folder,) = write_sweep(tmp_path / "s", [{"model.depth": 32}], begun=1)
    shutil.move(folder, tmp_path / "disk")
    os.symlink(tmp_path / "disk", folder)
    (run,) = collect_runs([tmp_path / "s"])
    assert run.sweep is not None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([{"model.depth": 20}, {"model.depth": 20, "seed": 1}], ()),
        ([{}, {"model.depth": 20}], ()),  # it is 20 in the declared experiment
        ([{}, {"model.depth": 32}], ("model.depth",)),
        ([{"seed": 0, "log_every": 5}, {"seed": 1}], ()),
        (
            [
                {"model": {"type": "ResNet", "depth": 20, "widening": 2}, "batch_size": 64},
                {"model": {"type": "ResNet", "depth": 32, "widening": 2}, "batch_size": 32},
            ],
            ("model.depth", "batch_size"),
        ),
        (
            [{"model.shortcut": {"type": "Own", "name": name, "fields": {}}} for name in "ab"],
            ("model.shortcut",),
        ),
    ],
    ids="abcdef",
)
def test_the_fields_of_a_sweep_are_those_that_vary(tmp_path, fields, expected):
    trials = {f"{i:012x}": {"name": None, "fields": given} for i, given in enumerate(fields)}
    write_run(tmp_path / "trials" / f"{0:012x}", BASE)
    declared = {"experiment": to_json(BASE), "trials": trials}
    (tmp_path / "sweep.json").write_text(json.dumps(declared))
    (run,) = collect_runs([tmp_path])
    assert run.sweep is not None
    assert run.sweep.fields == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"trials": []}',
        '{"trials": 3}',
        '{"trials": {"other": {}}}',
        "[",
    ],
    ids="abcdefghi",
)
def test_a_damaged_sweep_does_not_hide_its_runs(tmp_path, content):
    write_sweep(tmp_path, GRID, begun=3)
    (tmp_path / "sweep.json").write_text(content * (100_000 if content == "[" else 1))
    assert [run.sweep for run in collect_runs([tmp_path])] == [None] * 3


@pytest.mark.parametrize("entry", [None, 3, [], {"fields": 3}, {"name": 3, "fields": {"a": 1}}])
def test_a_damaged_entry_is_still_a_trial(tmp_path, entry):
    (folder,) = write_sweep(tmp_path, [{"seed": 1}], begun=1)
    declared = {"experiment": {"format": 99}, "trials": {folder.name: entry}}
    (tmp_path / "sweep.json").write_text(json.dumps(declared))
    (run,) = collect_runs([tmp_path])
    assert run.sweep is not None
    assert (run.sweep.experiment, run.variant, run.number) == (None, None, 0)


def test_a_declaration_is_read_once_for_all_of_its_runs(tmp_path, monkeypatch):
    write_sweep(tmp_path, GRID, begun=6)
    read: list[Path] = []
    original: Callable[[Path], dict[str, Any]] = sweep_records.read_json_object

    def counting(path: Path) -> dict[str, Any]:
        read.append(path)
        return original(path)

    monkeypatch.setattr(sweep_records, "read_json_object", counting)
    cache = RunCache()
    assert len(collect_runs([tmp_path], cache=cache)) == 6
    collect_runs([tmp_path], cache=cache)
    assert read == [tmp_path / "sweep.json"]


LINE = '{"step": 1, "split": "test"}'


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (f"{LINE}\n{LINE}\n", 2),
        (f"{LINE}\n{LINE[:9]}", 1),
        (f"{LINE}\n\n{LINE}\n", 1),
        (f"{LINE}\n{LINE[:9]}\n{LINE}\n", 1),
        (f'{LINE}\n{{"step": [{{}}\n{{"x": 1}}]}}\n{LINE}\n', 1),  # the lines are one value
        (f"{LINE}\n{LINE},{LINE}\n", 1),
        (f'{LINE}\n{{"step": 1}}\n{LINE}\n', 1),
        (f'{LINE}\n{{"step": "x", "split": "test"}}\n{LINE}\n', 1),
        (f'{LINE}\n{{"step": "7", "split": "test"}}\n{LINE}\n', 1),
        (f"{LINE}\n[1]\n{LINE}\n", 1),
    ],
    ids="abcdefghijk",
)
def test_lines_are_read_up_to_the_first_damaged_one(tmp_path, text, count):
    (tmp_path / "metrics.jsonl").write_text(text)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["split"] for line in lines] == ["test"] * count
    assert all(type(line["step"]) is int for line in lines)


# Reading again


@pytest.mark.parametrize("seed", range(3))
def test_a_kept_reading_equals_a_new_one_after_any_changes(tmp_path, seed):
    dice = random.Random(seed)
    points = [{"model.depth": depth, "seed": s} for depth in (8, 14, 20) for s in range(3)]
    folders = write_sweep(tmp_path / "s", points, begun=5)
    (tmp_path / "s" / "ended").mkdir()
    weights = {"initialize_from": "runs/parent", "initial_weights": "5e" * 32}
    write_run(tmp_path / "runs" / "alone", with_fields(BASE, weights))
    cache, step = RunCache(), 10

    def note_weights(path: Path) -> None:
        origin = describe_origin(with_fields(BASE, {"model.depth": dice.choice([8, 20])}), 9)
        (path / "environment.json").write_text(json.dumps({"initialized_from": origin}))

    changes: list[Callable[[Path], object]] = [
        lambda path: write_run(path, with_fields(BASE, dice.choice(points)), steps=0),
        lambda path: add_lines(path, range(step, step + dice.randrange(4))),
        lambda path: finish(path, dice.choice([0.25, 0.5, 0.75])),
        lambda path: (path / "result.json").unlink(missing_ok=True),
        lambda path: (path / "metrics.jsonl").write_text('{"step": 1, "split": "test"}\n{"st'),
        lambda path: (path / "experiment.json").write_text("{}"),
        lambda path: write_sweep(tmp_path / "s", dice.sample(points, 8), begun=dice.randrange(8)),
        lambda path: (tmp_path / "s" / "ended" / f"{path.name}.json").write_text(
            json.dumps({"state": dice.choice(["failed", "pruned"]), "why": "it is so"})
        ),
        lambda path: (tmp_path / "s" / "search.journal").touch(),
        lambda path: shutil.rmtree(path),
        note_weights,
    ]
    for _ in range(25):
        path = dice.choice([*folders, tmp_path / "runs" / "alone"])
        change = dice.choice(changes)
        if path.exists() or change in (changes[0], changes[6]):
            change(path)
        step += 5
        kept_faults: list[str] = []
        new_faults: list[str] = []
        kept = collect_runs([tmp_path], kept_faults.append, cache)
        new = collect_runs([tmp_path], new_faults.append)
        assert kept == new
        assert kept_faults == new_faults
        assert repetition_lines(form_seed_groups(kept)) == repetition_lines(form_seed_groups(new))


def test_only_what_changed_is_read_again(tmp_path):
    folders = write_sweep(tmp_path, GRID, begun=6)
    cache = RunCache()
    before = collect_runs([tmp_path], cache=cache)
    add_lines(folders[0], [7])
    after = collect_runs([tmp_path], cache=cache)
    for old, new in zip(before, after, strict=True):
        assert new.experiment is old.experiment
        assert (new.lines is old.lines) == (new.path != folders[0])


@pytest.mark.slow
def test_a_thousand_runs_are_read_and_grouped_in_seconds(tmp_path):
    points = [{"optimizer.learning_rate": 0.001 * (i + 1), "seed": i % 2} for i in range(1000)]
    for folder in write_sweep(tmp_path, points, begun=1000):
        add_lines(folder, range(2, 200))
    cache, began = RunCache(), time.process_time()
    runs = collect_runs([tmp_path], cache=cache)
    groups = form_seed_groups(runs)
    took = time.process_time() - began
    assert (len(runs), len(groups), len(runs[0].lines)) == (1000, 1000, 200)
    began = time.process_time()
    assert collect_runs([tmp_path], cache=cache) == runs
    assert took < 10
    assert time.process_time() - began < took / 3
