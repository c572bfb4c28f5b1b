"""Runs that belong together: their groups, labels and origins, and the reading of their files."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import Digits, Experiment, ResNet
from resflax.experiment import with_fields
from resflax.report.collect import RunRecord, RunState
from resflax.report.dataframe import make_dataframe
from resflax.report.groups import SeedGroup, form_seed_groups, repetition_lines
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


def test_a_hash_without_the_seed_is_that_of_no_run():
    assert hash_without_seed(BASE) != BASE.content_hash
