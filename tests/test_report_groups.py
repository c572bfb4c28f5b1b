"""Runs that belong together: their groups, labels and origins, and the reading of their files."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import Digits, Experiment, ResNet
from resflax.errors import UsageError
from resflax.experiment import to_json, with_fields
from resflax.report import sweep_records
from resflax.report.build import write_report
from resflax.report.collect import RunRecord, RunState, collect_runs, waiting_lines
from resflax.report.dataframe import make_dataframe
from resflax.report.groups import SeedGroup, form_seed_groups, repetition_lines
from resflax.report.run_cache import RunCache
from resflax.runs.metrics import read_lines
from resflax.runs.origins import describe_origin, find_initial_weights, hash_without_seed

BASE = Experiment(name="base", model=ResNet(20), batch_size=128, steps=100)
SHA = "5e" * 32
OTHER_SHA = "a7" * 32


def a_run(path: str = "run", *, done: int = 0, error: float | None = None, **extra: Any):
    """A record of a run without files; the other arguments are fields of RunRecord.

    Fields of the experiment that differ from BASE are given under `fields`.
    """
    experiment = with_fields(BASE, extra.pop("fields", {}))
    lines = ({"step": done, "split": "train"},) if done else ()
    result = None if error is None else {"test_error": error}
    state: RunState = "unfinished" if error is None else "finished"
    return RunRecord(Path(path), experiment, lines, result, state, **extra)


def labels(runs: list[RunRecord]) -> list[str]:
    return [group.label for group in form_seed_groups(runs)]


def seeds(group: SeedGroup) -> list[int]:
    return [run.experiment.seed for run in group.runs]


# Labels


def test_equal_variants_of_two_sweeps_are_told_apart_by_their_depth():
    gated = {"model.shortcut": "shortcut_gating"}
    runs = [
        a_run(fields=fields | {"model.depth": depth, "seed": seed}, variant=variant)
        for depth in (20, 56)
        for variant, fields in (("original", {}), ("gated", gated))
        for seed in (0, 1)
    ]
    groups = form_seed_groups(runs)
    assert [(group.label, seeds(group)) for group in groups] == [
        ("gated, depth 20", [0, 1]),
        ("original, depth 20", [0, 1]),
        ("gated, depth 56", [0, 1]),
        ("original, depth 56", [0, 1]),
    ]
    assert [group.fields["model.depth"] for group in groups] == [20, 20, 56, 56]


def test_variants_of_one_sweep_are_named_alone():
    runs = [
        a_run(variant="original"),
        a_run(variant="wide: k=2", fields={"model.widening": 2}),
        a_run(variant="deep", fields={"model.depth": 56, "model.widening": 2}),
    ]
    assert labels(runs) == ["original", "wide: k=2", "deep"]


def test_groups_that_differ_in_the_name_alone_are_named():
    runs = [a_run(variant="gated", fields={"name": name}) for name in ("one", "two")]
    assert labels(runs) == ["gated, one", "gated, two"]


def test_several_experiments_are_named_where_that_is_shorter():
    runs = [
        *(a_run(fields={"name": "depths", "model.depth": depth}) for depth in (20, 32, 56)),
        *(
            a_run(fields={"name": "rates", "optimizer.learning_rate": rate, "batch_size": 64})
            for rate in (0.1, 0.01)
        ),
    ]
    assert labels(runs) == [
        "depths, depth 20", "depths, depth 32", "depths, depth 56",
        "rates, learning rate 0.01", "rates, learning rate 0.1",
    ]  # fmt: skip


def test_names_that_follow_from_a_field_are_left_out():
    runs = [a_run(fields={"name": f"net-{depth}", "model.depth": depth}) for depth in (20, 56)]
    assert labels(runs) == ["depth 20", "depth 56"]
    assert form_seed_groups(runs)[1].fields == {"model.depth": 56, "name": "net-56"}


def test_numbers_have_as_many_digits_as_it_takes():
    runs = [
        a_run(fields={"optimizer.learning_rate": rate})
        for rate in (0.12345678, 0.12345679, 0.012345678)
    ]
    assert labels(runs) == [
        "learning rate 0.01235", "learning rate 0.12345678", "learning rate 0.12345679",
    ]  # fmt: skip


def test_a_value_that_is_not_set_has_a_label():
    runs = [a_run(), a_run(fields={"ema_decay": 0.99})]
    assert labels(runs) == ["ema decay 0.99", "no ema decay"]


def test_labels_that_would_be_equal_are_made_different():
    of_two_names = [a_run(variant="some"), a_run(variant="other", fields={"seed": 1})]
    assert labels(of_two_names) == ["base"]
    runs = [
        a_run(fields={"model.depth": 8}),
        a_run(fields={"model.depth": 14}),
        a_run(fields={"model.depth": 20}, variant="depth 8"),
    ]
    assert labels(runs) == ["depth 8, base (1)", "depth 14", "depth 8, base (2)"]


# Weights of other runs


def from_weights(sha256: str | None, **extra: Any) -> RunRecord:
    fields = {"initialize_from": "runs/parent", "initial_weights": sha256}
    return a_run(fields=fields | extra.pop("fields", {}), **extra)


@pytest.mark.parametrize("sha256", [SHA, None])
def test_runs_that_start_with_other_weights_are_not_averaged_with_runs_from_scratch(sha256):
    runs = [a_run(fields={"seed": seed}) for seed in (0, 1)]
    runs += [from_weights(sha256, fields={"seed": seed}) for seed in (2, 3)]
    groups = form_seed_groups(runs)
    assert {group.label: seeds(group) for group in groups} == {
        "from parent": [2, 3], "from scratch": [0, 1],
    }  # fmt: skip
    assert {group.fields["initial_weights"] for group in groups} == {None, "parent"}


def test_the_folder_counts_only_if_nothing_else_is_known_of_the_weights():
    here, there = from_weights(SHA), from_weights(SHA, fields={"initialize_from": "moved/it"})
    moved = dataclasses.replace(there.experiment, initial_weights=SHA, seed=1)
    assert len(form_seed_groups([here, dataclasses.replace(there, experiment=moved)])) == 1
    unknown = [from_weights(None, fields={"initialize_from": f"{x}/parent"}) for x in "ab"]
    assert len(form_seed_groups(unknown)) == 2
    assert len({group.label for group in form_seed_groups(unknown)}) == 2


def test_seeds_that_start_from_their_own_parents_belong_together():
    def child(parent: Experiment, step: int, seed: int, environment: Any = None) -> RunRecord:
        origin = {"run": f"runs/{parent.seed}"} | describe_origin(parent, step, environment)
        return from_weights(f"{seed:064x}", fields={"seed": seed}, initialized_from=origin)

    parents = [with_fields(BASE, {"seed": seed, "log_every": 7 + seed}) for seed in range(5)]
    own = [child(parent, 100, parent.seed) for parent in parents]
    (group,) = form_seed_groups(own)
    assert seeds(group) == [0, 1, 2, 3, 4]
    deeper = child(with_fields(BASE, {"model.depth": 32}), 100, 5)
    earlier = child(parents[0], 50, 6)
    twice = child(parents[0], 100, 7, {"initialized_from": describe_origin(parents[1], 100)})
    groups = form_seed_groups([*own, deeper, earlier, twice, a_run()])
    assert len(groups) == 5
    assert len({group.label for group in groups}) == 5
    assert "from base at step 50" in {group.label for group in groups}


def test_an_origin_depends_on_what_trained_the_weights_and_not_on_the_seed():
    origin = describe_origin(BASE, 100)
    assert origin == {"experiment": "81fc33c6a326", "name": "base", "step": 100}
    same = {"seed": 9, "parallel": "shard_map", "data": Digits(data_dir="elsewhere")}
    same |= {"log_every": 1, "evaluate_every": 2, "checkpoint_every": 3}
    assert describe_origin(with_fields(BASE, same), 100) == origin

    def hashed(parent: Experiment, environment: Any = None) -> str:
        return describe_origin(parent, 100, environment)["experiment"]

    # The parent's own weights count as they do in groups, and so does the file they came from.
    middle = from_weights(SHA).experiment
    first = {"initialized_from": describe_origin(with_fields(BASE, {"seed": 1}), 100)}
    again = {"initialized_from": describe_origin(with_fields(BASE, {"seed": 2}), 100)}
    imported = [{"imported": {"sha256": sha256}} for sha256 in (SHA, OTHER_SHA)]
    assert hashed(middle, first) == hashed(middle, again)
    different = [hashed(BASE), hashed(middle), hashed(middle, first)]
    different += [hashed(BASE, noted) for noted in imported]
    different.append(hashed(from_weights(OTHER_SHA).experiment))
    assert len(set(different)) == 6


def test_what_earlier_versions_noted_of_the_weights_is_enough():
    noted = {"run": "runs/parent", "step": 30, "params_sha256": SHA}
    old = find_initial_weights(from_weights(None).experiment, noted)
    new = find_initial_weights(from_weights(SHA).experiment)
    assert old is not None
    assert new is not None
    assert (old.identity, old.name, old.step) == (SHA, "parent", 30)
    assert new.identity == SHA
    assert find_initial_weights(BASE) is None
    assert find_initial_weights(BASE, {"run": "runs/parent"}) is not None


# Seeds that were run twice


def test_a_seed_counts_once():
    runs = [
        a_run("c", done=90, fields={"seed": 3}),
        a_run("b", done=50, error=0.2, fields={"seed": 3, "log_every": 5}),
        a_run("a", done=60, fields={"seed": 3}),
        a_run("d", done=10, fields={"seed": 1}),
        a_run("f", done=20, fields={"seed": 1}),
        a_run("e", done=20, fields={"seed": 1}),
        a_run("g", error=0.1, fields={"seed": 2}),
    ]
    for order in (runs, runs[::-1]):
        (group,) = form_seed_groups(order)
        assert [str(run.path) for run in group.runs] == ["e", "g", "b"]
        assert [str(run.path) for run in group.repeated] == ["f", "d", "c", "a"]
        assert [str(run.path) for run in group.finished] == ["g", "b"]
        assert repetition_lines([group]) == [
            "seed 1 of base was run 3 times: e is used, f and d are not",
            "seed 3 of base was run 3 times: b is used, c and a are not",
        ]
    twice = form_seed_groups([a_run("runs/a", error=0.1), a_run("runs/b", error=0.2)])
    assert repetition_lines(twice) == [
        "seed 0 of base was run twice: runs/a is used, runs/b is not"
    ]
    assert repetition_lines(form_seed_groups(runs[:1])) == []


def test_many_repeated_seeds_are_counted():
    runs = [a_run(path, fields={"seed": seed}) for seed in range(30) for path in "ab"]
    lines = repetition_lines(form_seed_groups(runs))
    assert len(lines) == 11
    assert lines[-1].startswith("20 more seeds were run several times")


def test_the_table_of_pandas_marks_the_repeated_runs():
    pytest.importorskip("pandas")
    runs = [a_run("b", error=0.3), a_run("a"), a_run("c", fields={"seed": 1})]
    table = make_dataframe(runs)
    assert table["repeated"].tolist() == [False, True, False]
    assert table["repeated"].dtype == "bool"
    assert table[~table.repeated]["path"].tolist() == ["b", "c"]


# Invariants

VALUES: dict[str, list[Any]] = {
    "name": ["one", "two"],
    "model.depth": [8, 20],
    "model.shortcut": ["zero_pad", "shortcut_gating", "none"],
    "optimizer.learning_rate": [0.1, 0.1 + 1e-9],
    "ema_decay": [None, 0.9],
    "seed": [0, 1, 2],
    "log_every": [10, 20],
    "checkpoint_every": [10, 20],
    "parallel": ["pmap", "shard_map"],
    "data.data_dir": [None, "there"],
}
PARENTS = [
    (depth, with_fields(BASE, {"seed": seed, "model.depth": depth}))
    for seed in (0, 1)
    for depth in (8, 20)
]
ORIGINS = [
    None,
    ("runs/a", SHA, None),
    ("runs/b", SHA, None),
    ("runs/a", OTHER_SHA, None),
    ("runs/a", None, None),
    *(("runs/a", f"{i:064x}", describe_origin(parent, 9)) for i, (_, parent) in enumerate(PARENTS)),
]


@st.composite
def some_run(draw):
    """A run, and a key that is equal for runs of one group, by other means than the code's."""
    names = sorted(VALUES)
    fields = {name: draw(st.sampled_from(VALUES[name])) for name in names}
    origin = draw(st.sampled_from(ORIGINS))
    start: dict[str, Any] = {}
    key: Any = None
    if origin is not None:
        folder, sha256, noted = origin
        start = {"initialize_from": folder, "initial_weights": sha256}
        key = sha256 or folder
        if noted is not None:
            key, _ = PARENTS[int(sha256, 16)]  # the parent's depth, as only the seeds differ else
    run = a_run(
        draw(st.sampled_from("abcdefghijklmn")),
        fields=fields | start,
        done=draw(st.integers(0, 2)),
        error=draw(st.sampled_from([None, 0.5])),
        variant=draw(st.sampled_from([None, None, "one", "gated", "depth 8"])),
        initialized_from=None if origin is None else origin[2],
    )
    return run, (tuple(fields[name] for name in COMPARED), key)


COMPARED = ["name", "model.depth", "model.shortcut", "optimizer.learning_rate", "ema_decay"]


@settings(deadline=None, max_examples=60)
@given(st.lists(some_run(), min_size=1, max_size=8, unique_by=lambda drawn: drawn[0].path))
def test_groups_divide_the_runs_by_what_they_are(drawn):
    runs, keys = [run for run, _ in drawn], {id(run): key for run, key in drawn}
    groups = form_seed_groups(runs)
    inside = [[*group.runs, *group.repeated] for group in groups]
    assert sorted(map(id, itertools.chain(*inside))) == sorted(map(id, runs))
    assert len({group.label for group in groups}) == len(groups)
    assert len({tuple(map(repr, group.fields.items())) for group in groups}) == len(groups)
    assert len({keys[id(members[0])] for members in inside}) == len(groups)
    for group, members in zip(groups, inside, strict=True):
        assert len({keys[id(run)] for run in members}) == 1
        assert seeds(group) == sorted({run.experiment.seed for run in members})
        for unused in group.repeated:
            (used,) = (run for run in group.runs if run.experiment.seed == unused.experiment.seed)
            assert (used.result is None, -used.steps_done) <= (
                unused.result is None, -unused.steps_done,
            )  # fmt: skip
    again = form_seed_groups(runs[::-1])
    assert {(g.label, str(g.fields)) for g in again} == {(g.label, str(g.fields)) for g in groups}


# Reading


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
    write_run(tmp_path / "runs" / "alone", from_weights(SHA).experiment)
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


def test_a_hash_without_the_seed_is_that_of_no_run():
    assert hash_without_seed(BASE) != BASE.content_hash
