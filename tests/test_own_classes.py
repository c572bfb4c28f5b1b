"""Shortcuts, branches and networks of a user's own: declared, counted, checked and trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import own_classes
import pytest
from declared_experiments import experiment
from own_classes import (
    BasicBranch,
    LearnedScale,
    NoNorm,
    Projected,
    SameAsZeroPad,
    Tiny,
    WithLayers,
)
from runs_in_process import trainer
from whole_runs import result

from resflax import Cosine, Custom, DenseNet, Digits, Experiment, Grid, Own, ResNet, UsageError
from resflax.experiment import differences, flat_json, from_json, to_json, with_fields
from resflax.models import build
from resflax.models.summary import summarize
from resflax.shortcuts import ZeroPad
from resflax.sweep.trials import expand_grid

FILE = Path(own_classes.__file__)
DIGITS = (8, 8, 1)


def variables_of(module: nn.Module, shape: tuple[int, ...] = DIGITS) -> dict:
    return dict(module.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))


# --- Declarations


def test_a_class_a_text_and_an_own_declare_the_same():
    by_class = ResNet(8, shortcut=LearnedScale)
    assert by_class == ResNet(8, shortcut=f"{FILE}:LearnedScale")
    assert by_class == ResNet(8, shortcut=Own(LearnedScale, initial=1))
    assert by_class == ResNet(8, shortcut=Own(LearnedScale, initial=np.float32(1)))
    assert repr(by_class) == repr(ResNet(8, shortcut=Own(LearnedScale, initial=jnp.int32(1))))
    assert by_class != ResNet(8, shortcut=Own(LearnedScale, initial=2))
    assert len({by_class, ResNet(8, shortcut=Own(LearnedScale))}) == 1
    assert ResNet(8, shortcut=ZeroPad) == ResNet(8, shortcut="zero_pad")


MODELS = [
    ResNet(8, shortcut=Own(LearnedScale, initial=0.5)),
    ResNet(8, unit=BasicBranch, shortcut="none"),
    Custom(network=Tiny, arguments={"width": 6}),
    Custom(network=WithLayers, arguments={"widths": [2, 3]}),
    Custom(network=NoNorm),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_json_round_trip(model):
    declared = experiment(model=model)
    back = from_json(json.loads(json.dumps(to_json(declared))))
    assert back == declared.resolved()
    assert back.content_hash == declared.content_hash
    assert differences(declared, back) == []
    assert declared.hash_of_format_1 is None
    assert not any(own.is_loaded for own in back.own_classes.values())


def test_own_fields_are_fields_of_the_experiment():
    declared = experiment(model=ResNet(8, shortcut=LearnedScale))
    changed = with_fields(declared, {"model.shortcut.initial": 3, "seed": 1})
    assert flat_json(changed)["model.shortcut.initial"] == 3.0
    assert flat_json(changed)["model.shortcut"] == "LearnedScale"
    assert differences(declared, changed) == ["model.shortcut.initial: 1.0 != 3.0", "seed: 0 != 1"]
    plain = experiment(model=ResNet(8))
    both = with_fields(plain, {"model.shortcut": LearnedScale, "model.shortcut.initial": 3.0})
    assert both.model == changed.model
    custom = experiment(model=Custom(network=Tiny))
    assert flat_json(custom)["model.arguments.width"] == 8
    wide = with_fields(custom, {"model.arguments.width": 16})
    assert flat_json(wide)["model.arguments.width"] == 16


def test_a_grid_varies_own_classes_and_their_fields():
    grid = Grid({"model.shortcut": ["none", f"{FILE}:LearnedScale", SameAsZeroPad], "seed": [0, 1]})
    trials = expand_grid(experiment(model=ResNet(8)), grid)
    assert len({trial.hash for trial in trials}) == 6
    assert trials[4].label == "shortcut SameAsZeroPad, seed 0"
    fields = Grid({"model.shortcut.initial": [0.5, 1.0]})
    first, second = expand_grid(experiment(model=ResNet(8, shortcut=LearnedScale)), fields)
    assert second.experiment == experiment(model=ResNet(8, shortcut=LearnedScale))
    assert first.label == "initial 0.5"


def inside():
    class Inside(SameAsZeroPad):
        pass

    return Inside


anything: Any = lambda x, branch: branch  # noqa: E731
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: ResNet(8, shortcut=anything), "ResNet.shortcut: a lambda is not a class"),
    (lambda: ResNet(8, shortcut=inside()), "Inside is made inside a function"),
    (lambda: ResNet(8, shortcut=own_classes.NotAModule), "NotAModule is not derived from"),
    (lambda: ResNet(8, shortcut=BasicBranch), "is not derived from resflax.models.Shortcut"),
    (lambda: ResNet(8, unit=SameAsZeroPad), "is not derived from resflax.models.Branch"),
    (lambda: ResNet(8, shortcut=Tiny), "is not derived from resflax.models.Shortcut"),
    (lambda: ResNet(8, shortcut=own_classes.NoTrain), "define it as __call__(self, x, branch, "),
    (lambda: ResNet(8, shortcut="nowhere.py:X"), "there is no file"),
    (lambda: ResNet(8, shortcut=f"{FILE}:Nothing"), "does not define a class Nothing"),
    (lambda: ResNet(8, shortcut=f"{FILE}"), "write it as file.py:Class"),
    (lambda: ResNet(8, shortcut=Own(LearnedScale, final=1)), "has no field final of its own"),
    (lambda: ResNet(8, shortcut=Own(LearnedScale, initial="x")), "it must be a float"),
    (lambda: ResNet(8, shortcut=Own(LearnedScale, initial=np.inf)), "it must be a finite number"),
    (lambda: ResNet(8, shortcut=LearnedScale, gate_bias=1.0), "only the shortcut exclusive_gating"),
    (lambda: ResNet(8, unit=BasicBranch, zero_init_last_scale=True), "decides that itself"),
    (lambda: Custom(network=SameAsZeroPad), "is not derived from flax.linen.Module"),
    (lambda: Custom(network=Tiny, arguments={"depth": 3}), "Tiny has no field depth of its own"),
    (lambda: Custom(network=Tiny, arguments={"width": nn.relu}), "it must be a number"),
    (lambda: Custom(network=Tiny, arguments=anything), "it must map the names of fields to values"),
    (lambda: Custom(network="tiny"), "does not name a class"),
]


@pytest.mark.parametrize(("declare", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_wrong_declaration_is_refused(declare, said):
    with pytest.raises(UsageError) as refusal:
        declare()
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


# --- Networks


def test_an_own_shortcut_is_the_same_network_as_the_built_in_one():
    images = jax.random.normal(jax.random.key(1), (3, *DIGITS))
    own, ours = (build(ResNet(14, shortcut=s), 10) for s in (SameAsZeroPad, "zero_pad"))
    variables = variables_of(ours)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, variables_of(own)))
    expected = ours.apply(variables, images, train=False)
    np.testing.assert_array_equal(own.apply(variables, images, train=False), expected)


@pytest.mark.parametrize("order", ["post", "relu_before_addition"])
def test_an_own_branch_is_the_same_network_as_the_built_in_one(order):
    images = jax.random.normal(jax.random.key(1), (3, *DIGITS))
    ours, own = build(ResNet(14), 10), build(ResNet(14, unit=BasicBranch), 10)
    variables = variables_of(ours)

    def moved(tree):
        return {name: {"branch": part} if "unit" in name else part for name, part in tree.items()}

    np.testing.assert_array_equal(
        own.apply({kind: moved(tree) for kind, tree in variables.items()}, images, train=False),
        ours.apply(variables, images, train=False),
    )
    counted, expected = (
        summarize(ResNet(14, unit=unit), 10, DIGITS) for unit in (BasicBranch, None)
    )
    assert (counted.params, counted.macs) == (expected.params, expected.macs)


def test_an_own_branch_gets_what_the_order_puts_before_it():
    module = build(ResNet(8, unit=BasicBranch, order="full_pre"), 10)
    params = variables_of(module)["params"]
    assert "norm1" not in params["stage1_unit1"]  # the stem's activation comes before it
    assert "norm1" in params["stage2_unit1"]
    assert "norm1" in params["stage2_unit1"]["branch"]


def test_parameters_and_products_of_own_classes_are_counted():
    plain = summarize(ResNet(8), 10, DIGITS)
    scaled = summarize(ResNet(8, shortcut=LearnedScale), 10, DIGITS)
    assert (scaled.params, scaled.macs) == (plain.params + 3, plain.macs)
    projected = summarize(ResNet(8, shortcut=Projected), 10, DIGITS)
    squares = [16 * 16, 32 * 32, 64 * 64]
    assert projected.params - plain.params == sum(squares)
    assert projected.macs - plain.macs == sum(
        s * n for s, n in zip(squares, (64, 16, 4), strict=True)
    )
    tiny = summarize(Custom(network=Tiny, arguments={"width": 6}), 10, DIGITS)
    assert tiny.params == 9 * 6 + 2 * 6 + 6 * 10 + 10
    assert tiny.macs == 64 * 9 * 6 + 60
    scanned = summarize(Custom(network=own_classes.Scanned), 10, DIGITS)
    assert scanned.params == 2 * 8 + 5 * (64 + 8) + 3 * (80 + 10)
    assert scanned.macs == 8 + 5 * 64 + 3 * 80
    bare = summarize(Custom(network=NoNorm), 10, DIGITS)
    assert (bare.params, bare.macs) == (64 * 12 + 12 + 120, 64 * 12 + 120)


BROKEN = [
    (
        ResNet(8, shortcut=own_classes.WrongShape),
        "WrongShape of {file} returns float32[2, 7, 8, 16]; it must return float32[2, 8, 8, 16]",
    ),
    (
        ResNet(8, shortcut=own_classes.WrongDtype),
        "returns float16[2, 8, 8, 16]; it must return float32[2, 8, 8, 16]",
    ),
    (ResNet(8, shortcut=own_classes.NotAnArray), "returns NoneType; it must return float32"),
    (ResNet(8, shortcut=own_classes.Raising), "{file}, line {line}: KeyError: 'only in training'"),
    (
        ResNet(8, unit=own_classes.NarrowBranch),
        "returns float32[2, 8, 8, 15]; it must return float32[2, 8, 8, 16]",
    ),
    (Custom(network=own_classes.ManyLogits), "returns float32[2, 11] for 2 pictures; it must"),
    (Custom(network=own_classes.HalfLogits), "returns bfloat16[2, 10] for 2 pictures"),
    (Custom(network=own_classes.NoClasses), "has no field num_classes"),
    (Custom(network=own_classes.ReservedName), "has a module named stage1_unit2"),
    (Custom(network=own_classes.ConstantNet), "has no parameters"),
    (Custom(network=own_classes.NormOnlyInTraining), "has other batch statistics in training"),
    (Custom(network=own_classes.EmptyParameter), "has variables float32[0]"),
    (Custom(network=own_classes.Exiting), "SystemExit: out"),
]


@pytest.mark.parametrize(("model", "said"), BROKEN, ids=[str(model) for model, _ in BROKEN])
def test_what_an_own_class_does_wrong_is_said_with_its_file(model, said, tmp_path, monkeypatch):
    lines = FILE.read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if "only in training" in text)
    with pytest.raises(UsageError) as refusal:
        trainer(monkeypatch)(experiment(model=model, data=Digits()), tmp_path / "run")
    assert said.format(file=FILE, line=line) in str(refusal.value)
    assert not (tmp_path / "run").exists()


# --- Runs


def declared(model, **fields) -> Experiment:
    short = {"batch_size": 32, "steps": 6, "schedule": Cosine(), "data": Digits()}
    return Experiment(**{"name": "own", "model": model} | short | fields)


def test_training_with_an_own_shortcut_equals_training_with_ours_to_the_bit(tmp_path, monkeypatch):
    train = trainer(monkeypatch)
    for name, shortcut in (("own", SameAsZeroPad), ("ours", "zero_pad")):
        train(declared(ResNet(20, shortcut=shortcut)), tmp_path / name)
    own, ours = (result(tmp_path / name) for name in ("own", "ours"))
    assert own["params_sha256"] == ours["params_sha256"]
    assert (own["params"], own["macs"]) == (ours["params"], ours["macs"])


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        (ResNet(20, shortcut=Projected, unit=BasicBranch), "float32"),
        (ResNet(8, shortcut=LearnedScale), "bfloat16"),
        (Custom(network=Tiny), "float32"),
        (Custom(network=WithLayers), "bfloat16"),
        (Custom(network=NoNorm), "float32"),
    ],
    ids=str,
)
def test_own_classes_train_on_several_devices(model, precision, tmp_path, monkeypatch):
    train = trainer(monkeypatch)
    options = {"precision": precision, "ema_decay": 0.9}
    train(declared(model, **options), tmp_path / "run", devices=2)
    ended = result(tmp_path / "run")
    assert np.isfinite(ended["train_loss"])
    assert (tmp_path / "run" / "code" / "own_classes.py").read_text() == FILE.read_text()
    printed = train(declared(model, **options), tmp_path / "run", devices=2)
    assert "finished: nothing to do" in printed


@pytest.mark.parametrize("field", ["batch_norm", "precise_batch_norm"])
def test_batch_norm_of_linen_cannot_do_what_ours_can(field, tmp_path, monkeypatch):
    train, value = (
        trainer(monkeypatch),
        {"batch_norm": "synchronized", "precise_batch_norm": 2}[field],
    )
    with pytest.raises(
        UsageError, match=re.escape(f"Experiment.{field} is {value!r}; BatchNorm_0 is")
    ):
        train(declared(Custom(network=Tiny), **{field: value}), tmp_path / "linen")
    train(declared(Custom(network=WithLayers), **{field: value}), tmp_path / "ours", devices=2)
    assert np.isfinite(result(tmp_path / "ours")["test_loss"])


def test_networks_that_are_alike_but_for_their_code_are_others():
    one, two = (experiment(model=ResNet(8, shortcut=s)) for s in (SameAsZeroPad, LearnedScale))
    assert one.content_hash != two.content_hash
    assert experiment(model=DenseNet(10, 4)).content_hash != one.content_hash
