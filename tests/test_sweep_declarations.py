"""Declarations of sweeps, the trials they expand to, and the sweeps of the papers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import (
    Choice,
    Cosine,
    Digits,
    Experiment,
    Grid,
    Integers,
    LogUniform,
    ResNet,
    Search,
)
from resflax.declarations.sweeps import Uniform
from resflax.errors import UsageError
from resflax.experiment import flat_json, with_fields
from resflax.report.papers import nearest_figure, protocol_differences
from resflax.sweep.notes import sweep_notes
from resflax.sweep.search import SearchQueue
from resflax.sweep.trials import expand_grid
from resflax.terminal.experiment_files import load_experiment, load_sweep

ROOT = Path(__file__).parents[1]
BASE = Experiment(name="base", model=ResNet(20), batch_size=32, steps=10)


def test_a_grid_is_the_product_and_the_last_field_varies_fastest():
    trials = expand_grid(BASE, Grid({"model.depth": [20, 32], "seed": range(3)}))
    values = [(flat_json(t.experiment)["model.depth"], t.experiment.seed) for t in trials]
    assert values == [(20, 0), (20, 1), (20, 2), (32, 0), (32, 1), (32, 2)]
    assert trials[4].label == "depth 32, seed 1"


def test_fields_in_a_tuple_vary_together():
    grid = Grid({("model.depth", "batch_size"): [(20, 8), (32, 16)], "seed": [0, 1]})
    trials = expand_grid(BASE, grid)
    values = [(flat_json(t.experiment)["model.depth"], t.experiment.batch_size) for t in trials]
    assert Counter(values) == {(20, 8): 2, (32, 16): 2}


def test_variants_are_named_sets_of_fields():
    variants: list[dict[str, Any]] = [
        {"name": "original"},
        {"name": "gated", "model.shortcut": "shortcut_gating", "model.gate_bias": -3.0},
    ]
    trials = expand_grid(BASE, Grid({"seed": range(2)}, variants=variants))
    assert [t.label for t in trials] == [
        "original, seed 0", "original, seed 1", "gated, seed 0", "gated, seed 1",
    ]  # fmt: skip
    assert trials[2].experiment.model == ResNet(20, shortcut="shortcut_gating", gate_bias=-3.0)


def test_a_value_may_be_a_whole_part():
    networks = [ResNet(20), ResNet(20, shortcut="none")]
    trials = expand_grid(BASE, Grid({"model": networks}))
    assert [t.experiment.model for t in trials] == networks


@given(
    st.lists(st.sampled_from([8, 14, 20, 26]), min_size=1, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
)
@settings(deadline=None, max_examples=20)
def test_every_trial_is_what_its_fields_say_and_has_a_hash_of_its_own(depths, seeds):
    trials = expand_grid(BASE, Grid({"model.depth": depths, "seed": seeds}))
    assert len({t.hash for t in trials}) == len(trials) == len(depths) * len(seeds)
    for trial in trials:
        flat = flat_json(trial.experiment)
        assert {name: flat[name] for name in trial.point.fields} == trial.point.fields
        assert trial.experiment == with_fields(BASE, trial.point.fields)


def test_steps_replace_epochs_and_the_other_way_round():
    assert with_fields(BASE, {"epochs": 2}).steps is None
    assert with_fields(with_fields(BASE, {"epochs": 2}), {"steps": 5}).epochs is None


def test_values_may_be_arrays_and_ranges_of_any_library():
    declared = Grid(
        {
            "seed": np.arange(2),
            "optimizer.learning_rate": np.logspace(-2, -1, 2),
            ("model.depth", "batch_size"): np.array([[8, 16], [14, 32]]),
        },
        variants=[{"name": "a", "steps": np.int64(5)}],
    )
    plain = Grid(
        {
            "seed": range(2),
            "optimizer.learning_rate": [0.01, 0.1],
            ("model.depth", "batch_size"): [(8, 16), (14, 32)],
        },
        variants=[{"name": "a", "steps": 5}],
    )
    assert repr(declared.points) == repr(plain.points)
    trials, same = expand_grid(BASE, declared), expand_grid(BASE, plain)
    assert [trial.hash for trial in trials] == [trial.hash for trial in same]
    assert json.dumps([trial.to_json() for trial in trials])
    choice = Choice(np.array([1, 2]))
    assert repr(choice) == repr(Choice([1, 2]))
    assert Search({"seed": choice}, trials=cast(Any, np.int64(3))).trials == 3
    with pytest.raises(UsageError, match="seed is 3; it must be a list of values"):
        Grid({"seed": np.array(3)})


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Grid({}), "Grid.fields is empty; a sweep must vary at least one field"),
        (lambda: Grid({"seed": []}), "Grid: seed has no values"),
        (lambda: Grid({"seed": "12"}), "Grid: seed is '12'; it must be a list of values"),
        (lambda: Grid({"seed": [1, 1]}), "Grid: seed: 1 occurs twice; values must differ"),
        (
            lambda: Grid({"seed": [1], ("seed", "steps"): [(1, 2)]}),
            "Grid: seed varies in two places; it must",
        ),
        (
            lambda: Grid({("seed", "steps"): [(1,)]}),
            "(seed, steps) has the value (1,); it must be 2 values",
        ),
        (lambda: Grid({}, variants=[{"seed": 1}]), "the variant {'seed': 1} needs a name"),
        (lambda: Grid({}, variants=[{"name": "a"}, {"name": "a"}]), "'a' occurs twice"),
        (lambda: LogUniform(0, 1), "LogUniform.low is 0.0; it must be above 0"),
        (lambda: Uniform(2, 1), "Uniform.high is 1.0; it must be above low, 2.0"),
        (lambda: Integers(1, 9, step=0), "Integers.step is 0; it must be at least 1"),
        (lambda: Choice(["a"]), "Choice.values is ['a']; it must have two or more"),
        (
            lambda: Search(cast(Any, {"seed": [1]}), trials=3),
            "Search: seed is [1]; it must be Uniform",
        ),
        (lambda: Search({"seed": Integers(0, 9)}, trials=0), "Search.trials is 0"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(declare, message):
    with pytest.raises(UsageError) as refused:
        declare()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.deepth": [20]}, "has no field model.deepth; did you mean model.depth?"),
        ({"modle.depth": [20]}, "did you mean model.depth?"),
        ({"sede": [1]}, "has no field sede; did you mean seed?"),
        ({"model.depth": [20, 21]}, "sweep: model.depth 21: ResNet.depth is 21; the cifar layout"),
        ({"seed": [1, -1]}, "sweep: seed -1: Experiment.seed is -1"),
        ({"model.shortcut": [None, "zero_pad"]}, "are the same experiment"),
    ],
)
def test_a_field_or_value_that_does_not_fit_is_named(fields, message):
    with pytest.raises(UsageError) as refused:
        expand_grid(BASE, Grid(fields))
    assert message in str(refused.value)


# The experiments of the papers

SWEPT = sorted(p for p in (ROOT / "experiments").rglob("*.py") if "sweep =" in p.read_text())


@pytest.mark.parametrize("path", SWEPT, ids=lambda path: path.stem)
def test_every_experiments_sweep_expands(path):
    experiment, sweep = load_experiment(path), load_sweep(path)
    if isinstance(sweep, Search):
        SearchQueue.check(experiment, sweep)
        return
    trials = expand_grid(experiment, sweep)
    assert len({trial.label for trial in trials}) == len(trials)
    assert f"sweeps/{experiment.name}-*" in path.read_text()
    assert str(path.relative_to(ROOT)) in path.read_text()
    if "cifar" not in path.stem:
        return
    # A trial that is compared with a figure of the paper must follow the paper's protocol exactly.
    for trial in trials:
        figure = nearest_figure(trial.experiment)
        if figure is not None:
            assert protocol_differences(figure, trial.experiment) == []


@pytest.mark.parametrize(
    ("path", "figures"),
    [
        ("he2015/figure6_cifar10.py", {8.75, 7.51, 7.17, 6.97}),
        ("he2015/table6_cifar10.py", {8.75, 7.51, 7.17, 6.97, 6.61, 7.93}),
        ("he2016/table1_cifar10.py", {6.61, None, 12.35, 8.7, 9.81, 12.86, 6.91, 12.22}),
        ("he2016/table2_cifar10.py",
         {6.61, 8.17, 7.84, 6.71, 6.37, 5.93, 6.5, 6.14, 5.91, 5.46}),
        ("zagoruyko2016/table5_cifar10.py", {4.53, 4.27, 4.0}),
        ("huang2017/table2_cifar.py",
         {5.24, 4.1, 3.74, 4.51, 3.62, 3.46, 24.42, 20.2, 19.25, 22.27, 17.6, 17.18}),
        ("huang2017/table2_unaugmented_cifar.py",
         {7.0, 5.77, 5.83, 5.92, 5.19, 27.55, 23.79, 23.42, 24.15, 19.64}),
    ],
)  # fmt: skip
def test_a_papers_sweep_has_all_rows_of_its_table(path, figures):
    path = ROOT / "experiments" / path
    sweep = load_sweep(path)
    assert isinstance(sweep, Grid)
    trials = expand_grid(load_experiment(path), sweep)
    nearest_figures = [nearest_figure(trial.experiment) for trial in trials]
    assert {figure.error for figure in nearest_figures if figure is not None} == figures


def test_schedules_without_effect_are_named_once_with_the_number_of_trials():
    base = Experiment(
        name="base",
        model=ResNet(20),
        data=Digits(validation=100),
        batch_size=32,
        steps=100,
        schedule=Cosine(warmup_steps=100),
    )

    def notes(sweep, base=base):
        trials = expand_grid(base, sweep) if isinstance(sweep, Grid) else ()
        return sweep_notes(base, sweep, trials)

    note = (
        "nothing but warm-up: the training has 100 steps, and schedule.warmup_steps is 100, so "
        "that the learning rate does not reach its peak"
    )
    assert notes(Grid({"seed": range(3)})) == [note]
    longer = Grid({"seed": range(3), "steps": [100, 200]})
    assert notes(longer) == [f"{note} (so in 3 of 6 trials)"]
    assert notes(Search({"optimizer.learning_rate": Uniform(0.1, 1)}, trials=3)) == [note]
    assert notes(Search({"schedule.warmup_steps": Integers(0, 9)}, trials=3)) == []
    # 1,342 training examples make 42 steps of 32.
    epoch = with_fields(base, {"epochs": 1, "schedule.warmup_steps": 42})
    assert notes(Grid({"seed": range(3)}), epoch)[0].startswith(
        "nothing but warm-up: the training has 42 steps, and schedule.warmup_steps is 42"
    )
    absent = with_fields(epoch, {"data.name": "no_set"})
    assert notes(Grid({"seed": range(3)}), absent) == []
