"""A deeper run begins as exactly the function of another run, and trains on from there."""

import dataclasses
import json
import math
import shutil
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_in_process import interrupt_after_saving, once, trainer
from whole_runs import assert_same, metrics, result

from resflax import SGD, Cosine, Custom, DenseNet, Digits, Experiment, Own, ResNet, UsageError
from resflax.commands.deepen import main
from resflax.data.in_memory import load_split
from resflax.declarations.deepening import added_parts, branch_factor, check_deeper
from resflax.errors import Interrupted, TrainingError
from resflax.experiment import to_json
from resflax.models import build, identity_units, unread_layers
from resflax.models.identity_units import Signal, dirac
from resflax.models.layers import BatchNorm
from resflax.orders import ORDERS
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.deepening import deepen
from resflax.runs.initialization import start_from
from resflax.runs.loop import TrainingLoop
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.shortcuts import SHORTCUTS
from resflax.training.state import params_sha256

SMALL, LARGE = (
    jnp.asarray(np.random.default_rng(3).normal(size=(3, side, side, 1)), jnp.float32)
    for side in (8, 32)
)


# --- The function


def images_for(model):
    return LARGE if isinstance(model, DenseNet) and model.layout == "imagenet" else SMALL


@cache
def shapes_of(model):
    module = build(model, 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images_for(model), train=False))
    return jax.tree.map(lambda x: x.shape, dict(shapes))


def noise(model, seed=0):
    """Variables of which none has its initial value; variances are positive."""
    random = np.random.default_rng(seed)
    drawn = jax.tree.map(
        lambda shape: np.float32(random.normal(0, 0.3, shape)),
        shapes_of(model),
        is_leaf=lambda x: isinstance(x, tuple),
    )
    drawn["batch_stats"] = jax.tree.map(lambda x: 0.5 + np.abs(x), drawn["batch_stats"])
    return drawn


def deeper(shallow, depth, trained):
    """The deeper declaration and the variables that make it compute the same."""
    shallow = shallow.resolved()
    deep = dataclasses.replace(shallow, depth=depth).resolved()
    check_deeper(shallow, deep)
    drawn = noise(deep, seed=1)
    if isinstance(shallow, DenseNet):
        return deep, unread_layers.deepened(shallow, deep, trained, drawn)
    signals = {}
    if identity_units.needs_signals(deep):
        stages = tuple(added_parts(shallow, deep))
        measure = identity_units.signal_moments(shallow, build(shallow, 10), stages)
        for stage, measured in measure(trained, SMALL).items():
            mean, square = np.asarray(measured, np.float64)
            signals[stage] = Signal(mean, np.maximum(square - mean**2, 0))
    return deep, identity_units.deepened(shallow, deep, trained, drawn, signals)


def logits(model, variables, *, train=False):
    module = build(model, 10)

    def apply(variables, images):
        if not train:
            return module.apply(variables, images, train=False)
        return module.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    # Every layer of a DenseNet has other shapes, for which single operations would be compiled.
    run = jax.jit(apply) if isinstance(model, DenseNet) else apply
    return np.asarray(run(variables, images_for(model)))


def assert_same_function(shallow, depth, *, to_the_bit=False):
    trained = noise(shallow)
    deep, variables = deeper(shallow, depth, trained)
    assert jax.tree.map(np.shape, variables) == shapes_of(deep)
    before, after = logits(shallow, trained), logits(deep, variables)
    assert np.isfinite(before).all()
    assert np.abs(before).max() > 0
    if to_the_bit:
        np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())


def refusal(config, depth):
    try:
        check_deeper(config.resolved(), dataclasses.replace(config.resolved(), depth=depth))
    except UsageError as error:
        return str(error)
    return None


UNITS: list[dict[str, Any]] = [
    {"order": order, "shortcut": shortcut, "block": block}
    for order in ORDERS
    for shortcut in sorted(SHORTCUTS)
    for block in ("basic", "bottleneck")
]
PASSES = ("zero_pad", "projection", "projection_pooled", "projection_all", "conv", "dropout")


def identity_exists(order, shortcut, block):
    """Whether a unit can be the identity and learn, as the errors' proofs have it."""
    if shortcut in PASSES:
        return order != "relu_before_addition"
    if block == "bottleneck":
        return False
    return shortcut == "none" or order in ("post", "bn_after_addition", "relu_before_addition")


def test_units_are_refused_where_no_identity_can_learn_and_nowhere_else():
    for unit in UNITS:
        depths = (8, 14) if unit["block"] == "basic" else (11, 20)
        error = refusal(ResNet(depths[0], **unit), depths[1])
        assert (error is None) == identity_exists(**unit), (unit, error)


def declared(unit, **more):
    shallow, deep = (8, 14) if unit["block"] == "basic" else (11, 20)
    return ResNet(shallow, **unit, **more), deep


POSSIBLE = [unit for unit in UNITS if identity_exists(**unit)]


@pytest.mark.parametrize(
    ("order", "shortcut"),
    [
        ("post", "none"),
        ("full_pre", "none"),
        ("relu_only_pre", "projection_all"),
        ("bn_after_addition", "exclusive_gating"),
        ("relu_before_addition", "shortcut_gating"),
    ],
    ids="abcde",
)
def test_a_deeper_resnet_has_the_same_logits(order, shortcut):
    assert_same_function(ResNet(8, order=order, shortcut=shortcut), 14)


@pytest.mark.slow
@pytest.mark.parametrize("unit", POSSIBLE, ids=lambda unit: "-".join(unit.values()))
def test_every_deeper_resnet_has_the_same_logits(unit):
    assert_same_function(*declared(unit))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from(POSSIBLE),
    squeeze=st.sampled_from([None, 4, 16]),
    widening=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 4]),
    side=st.sampled_from(["end", "both"]),
)
def test_any_deeper_resnet_has_the_same_logits(unit, squeeze, widening, groups, side):
    more = {"widening": widening} if unit["block"] == "basic" else {"groups": groups}
    if SHORTCUTS[unit["shortcut"]].uses_identity:
        more["zero_pad_side"] = side
    assert_same_function(*declared(unit, squeeze_excitation=squeeze, **more))


@pytest.mark.parametrize("order", ["post", "full_pre", "relu_only_pre"])
def test_units_of_a_zero_branch_change_no_bit(order):
    assert_same_function(ResNet(8, shortcut="zero_pad", order=order), 14, to_the_bit=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shallow", "depth"),
    [
        (ResNet(18, layout="imagenet"), 34),
        (ResNet(18, layout="imagenet", shortcut="none"), 34),
        (ResNet(50, layout="imagenet", stem="deep", shortcut="projection_pooled"), 101),
        (ResNet(101, layout="imagenet", order="full_pre", groups=32, bottleneck_width=128), 152),
        (ResNet(8, stochastic_depth=0.5, stochastic_depth_by="picture"), 14),
        (ResNet(11, block="bottleneck", bottleneck_width=64, shortcut="none", groups=8), 20),
        (ResNet(8, shortcut="constant_scaling", shortcut_scale=1.5, branch_scale=-0.5), 14),
        (ResNet(8, shortcut="constant_scaling", shortcut_scale=1.0, branch_scale=0.5), 14),
        (DenseNet(121, 4, layout="imagenet"), 169),
    ],
    ids="abcdefghi",
)
def test_other_declarations_have_the_same_logits(shallow, depth):
    assert_same_function(shallow, depth)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    bottleneck=st.booleans(),
    growth=st.integers(1, 6),
    compression=st.sampled_from([0.3, 0.5, 0.77, 1.0]),
    channels=st.sampled_from([None, 5]),
    old=st.integers(1, 2),
    more=st.integers(1, 2),
)
def test_any_deeper_densenet_has_the_same_logits(
    bottleneck, growth, compression, channels, old, more
):
    per_layer = 6 if bottleneck else 3
    shallow = DenseNet(
        old * per_layer + 4,
        growth,
        bottleneck=bottleneck,
        compression=compression,
        initial_channels=channels,
    )
    assert_same_function(shallow, shallow.depth + more * per_layer)


def test_a_deeper_densenet_has_the_same_logits_in_training_too():
    shallow = DenseNet(7, 4, bottleneck=False, compression=0.77)
    trained = noise(shallow)
    deep, variables = deeper(shallow, 10, trained)
    for train in (False, True):
        before = logits(shallow, trained, train=train)
        after = logits(deep, variables, train=train)
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-4 * np.abs(before).max())
    kernel = variables["params"]["transition1"]["conv"]["kernel"][0, 0]
    # 16 + 4 maps become 15; with a second layer, 16 + 4 + 4 become 18, of which 3 are new.
    assert kernel.shape == (24, 18)
    assert not kernel[20:, :15].any()
    assert kernel[:, 15:].all()


def test_a_plain_net_is_nearly_the_same_function_in_training():
    shallow = ResNet(8, shortcut="none")
    module = build(shallow, 10)
    step = jax.jit(lambda v: module.apply(v, SMALL, train=True, mutable=["batch_stats"])[1])
    trained = noise(shallow)
    for _ in range(150):
        trained = trained | dict(step(trained))
    trained = jax.device_get(trained)
    deep, variables = deeper(shallow, 14, trained)
    before = logits(shallow, trained, train=True)
    apart = np.abs(logits(deep, variables, train=True) - before).max()
    assert apart < 0.05 * np.abs(before).max()
    # The same function in evaluation, with other running averages, is another one in training.
    added = [f"stage{s}_unit{u}" for s, units in added_parts(shallow, deep).items() for u in units]
    for unit in added:
        for norm in ("norm1", "norm2"):
            mean, var = (variables["batch_stats"][unit][norm][n] for n in ("mean", "var"))
            variables["batch_stats"][unit][norm] = {"mean": 0 * mean, "var": 0 * var + 1}
            scale = np.full_like(var, np.sqrt(np.float32(1 + BatchNorm.epsilon)))
            variables["params"][unit][norm] = {"scale": scale, "bias": 0 * mean}
    assert np.abs(logits(deep, variables)).max() > 0
    assert np.abs(logits(deep, variables, train=True) - before).max() > 10 * apart


def test_dead_maps_pass_through_an_identity_unit():
    shallow = ResNet(8, shortcut="none")
    trained = noise(shallow)
    for name in ("scale", "bias"):
        trained["params"]["stage1_unit1"]["norm2"][name][:5] = 0  # 5 of 16 maps are always 0
    deep, variables = deeper(shallow, 14, trained)
    np.testing.assert_allclose(logits(deep, variables), logits(shallow, trained), atol=1e-4)
    unit = variables["params"]["stage1_unit2"]["norm1"]
    assert unit["scale"][:5] == pytest.approx(math.sqrt(1e-5), rel=1e-3)
    assert unit["bias"][:5].tolist() == [0] * 5


def test_a_dirac_kernel_maps_every_map_to_itself():
    kernel = dirac((3, 3, 2, 6))  # three groups of two maps
    assert kernel.sum() == 6
    assert [kernel[1, 1, o % 2, o] for o in range(6)] == [1] * 6
    assert dirac((1, 1, 3, 3))[0, 0].tolist() == np.eye(3).tolist()


def test_branches_are_multiples_of_the_input_that_make_up_the_rest():
    def factor(shortcut, **fields):
        return branch_factor(ResNet(8, shortcut=shortcut, **fields).resolved())

    assert factor("zero_pad") == 0
    assert factor("none") == 1
    assert factor("constant_scaling") == 1  # 0.5 x + 0.5 x
    assert factor("constant_scaling", shortcut_scale=0.25, branch_scale=0.5) == 1.5
    assert factor("shortcut_gating", gate_bias=0.0) == 0.5
    assert factor("exclusive_gating") == 1


@pytest.mark.parametrize(
    ("shallow", "depth", "reason"),
    [
        (ResNet(14), 8, "has 1, 1, 1 units in its stages; depth 14 has 2, 2, 2"),
        (ResNet(14), 16, "nowhere fewer and somewhere more"),  # 6n+4: the same units
        (ResNet(8, order="relu_before_addition"), 14, "the added units would never learn"),
        (ResNet(8, order="full_pre", shortcut="constant_scaling"), 14, "negative inputs"),
        (ResNet(11, block="bottleneck", shortcut="none"), 20, "16 maps inside for 64"),
        (ResNet(8, stochastic_depth=0.5), 14, "changes with the depth"),
        (
            ResNet(8, shortcut="constant_scaling", branch_scale=0.0),
            14,
            "every unit returns 0.5 x: none is the identity",
        ),
        (
            ResNet(
                8,
                order="relu_before_addition",
                shortcut="constant_scaling",
                branch_scale=-0.5,
            ),
            14,
            "never negative",
        ),
        (DenseNet(16, 4), 10, "1, 1, 1 layers in its blocks; depth 16 has 2, 2, 2"),
        (
            DenseNet(201, 4, layout="imagenet"),
            161,
            "6, 12, 36, 24 layers in its blocks; depth 201 has 6, 12, 48, 32",
        ),
    ],
    ids="abcdefghij",
)
def test_what_cannot_be_deeper_is_refused_with_the_reason(shallow, depth, reason):
    assert reason in (refusal(shallow, depth) or "")


# --- The run

TINY = Experiment(
    name="tiny",
    model=ResNet(8, shortcut="none"),
    data=Digits(),
    batch_size=64,
    steps=60,
    optimizer=SGD(learning_rate=0.05, momentum=0.9),
    schedule=Cosine(),
    log_every=4,
    checkpoint_every=5,
    evaluate_every=30,
    ema_decay=0.5,
    on_nonfinite="rollback",
)


@pytest.fixture
def train(monkeypatch):
    return trainer(monkeypatch)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("shallow") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer(monkeypatch)(TINY, folder)
    return folder


@pytest.fixture(scope="module")
def begun(shallow, tmp_path_factory):
    """The folder of a deeper run that has not trained yet, and what was printed; not to change."""
    folder, lines = tmp_path_factory.mktemp("deeper") / "run", list[str]()
    source = RunFolder(shallow)
    deepen(source, at_depth(source, 14, steps=12), RunFolder(folder), lines.append)
    return folder, lines


def at_depth(source: RunFolder, depth: int, **fields: Any) -> Experiment:
    there = source.read_experiment()
    assert isinstance(there.model, ResNet)
    return dataclasses.replace(there, model=dataclasses.replace(there.model, depth=depth), **fields)


def test_a_deeper_run_is_a_run_that_has_not_trained_yet(shallow, begun):
    folder, lines = begun
    there, here = (load_trained(RunFolder(path), print) for path in (shallow, folder))
    experiment = RunFolder(folder).read_experiment()
    assert (here.step, there.step) == (0, 60)
    assert experiment.model == ResNet(14, shortcut="none").resolved()
    assert experiment.initialize_from == str(shallow)
    assert experiment.initial_weights == params_sha256(here.variables["params"])
    noted = json.loads((folder / "environment.json").read_text())["initialized_from"]
    assert noted["run"] == str(shallow)
    assert (noted["step"], noted["name"], noted["deepened"]) == (60, "tiny", True)
    assert noted["params_sha256"] == experiment.initial_weights
    images = load_split(Digits(), "test").images[:50]
    for name in ("mean", "scale"):
        np.testing.assert_array_equal(
            getattr(there.normalization, name), getattr(here.normalization, name)
        )
    x = (jnp.asarray(images, jnp.float32) - here.normalization.mean) * here.normalization.scale
    before, after = (
        np.asarray(build(run.experiment.model, 10).apply(run.variables, x, train=False))
        for run in (there, here)
    )
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())
    deeper_by, agreement, command = lines
    assert "after 60 steps, deeper by 1 identity unit in stage 1, 1 identity unit" in deeper_by
    assert agreement.startswith("the logits of 256 test pictures agree")
    assert command.endswith(f"resflax train --from {folder} --run-dir {folder}")


def test_it_trains_on(shallow, begun, train, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(begun[0], folder)
    printed = train(RunFolder(folder).read_experiment(), folder)
    assert "continuing from step 0 of 12" in printed
    there, here = (
        [line["loss"] for line in metrics(path) if line["split"] == "train"]
        for path in (shallow, folder)
    )
    assert here[0] < there[0] / 2  # it did not begin at the beginning
    assert here[-1] < there[-1]
    first, trained = (load_trained(RunFolder(path), print) for path in (begun[0], folder))
    for name in ("conv1", "conv2"):  # what was added has learned
        before, after = (
            np.asarray(run.variables["params"]["stage2_unit2"][name]["kernel"])
            for run in (first, trained)
        )
        assert np.abs(after - before).max() > 1e-4


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_undisturbed_one(begun, train, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        shutil.copytree(begun[0], path)
    experiment = RunFolder(whole).read_experiment()
    train(experiment, whole)
    with monkeypatch.context() as patch:
        interrupt_after_saving(patch, 5)
        with pytest.raises(Interrupted):
            train(experiment, cut)
    train(experiment, cut)
    assert_same(cut, whole)


@pytest.mark.slow
def test_going_back_to_the_beginning_restores_the_deeper_network(
    shallow, begun, train, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(begun[0], folder)
    seen: list[Any] = []

    def fail_once(self, state, step, bar, advance=TrainingLoop._advance):
        if step != 4 or seen:
            return advance(self, state, step, bar)
        seen.append(self.roll_back(state))
        return seen[0]

    monkeypatch.setattr(TrainingLoop, "_advance", fail_once)
    train(RunFolder(folder).read_experiment(), folder)
    ((_, step),) = seen
    assert step == 0
    assert result(folder)["rollbacks"][0]["to"] == 0


def test_a_deeper_run_cannot_take_the_weights_of_a_shallower_one_itself(begun, shallow):
    experiment = RunFolder(begun[0]).read_experiment()
    drawn: Any = None  # it is refused before they are needed
    with pytest.raises(UsageError, match=r"depth: 8 != 14; resflax deepen makes a deeper run"):
        start_from(shallow, experiment, drawn, print)


@pytest.mark.slow
def test_it_is_made_again_if_it_was_cut_off(shallow, tmp_path, monkeypatch):
    source, folder = RunFolder(shallow), RunFolder(tmp_path / "run")
    once(monkeypatch, Checkpoints, "save", lambda *a, **k: TrainingError("cut off"))
    with pytest.raises(TrainingError):
        deepen(source, at_depth(source, 14), folder, print)
    assert folder.experiment.exists()
    with pytest.raises(UsageError, match="holds another experiment"):
        deepen(source, at_depth(source, 20), folder, print)
    deepen(source, at_depth(source, 14), folder, print)
    assert Checkpoints(folder.checkpoints).steps() == [0]


@pytest.mark.slow
def test_without_data_a_residual_run_is_compared_on_random_pictures(
    begun, shallow, tmp_path, monkeypatch
):
    def missing(*_: Any) -> None:
        raise UsageError("the set is gone")

    monkeypatch.setattr("resflax.runs.deeper_variables.spread_pictures", missing)
    source = RunFolder(shallow)
    with pytest.raises(UsageError, match=r"moments of training pictures, and the set is gone"):
        deepen(source, at_depth(source, 14), RunFolder(tmp_path / "plain"), print)
    assert not (tmp_path / "plain").exists()
    residual = tmp_path / "residual"
    shutil.copytree(shallow, residual)
    lines: list[str] = []
    # A plain net's units, taken for those of a residual one, have the same names and shapes.
    declared = dataclasses.replace(TINY, model=ResNet(8, shortcut="zero_pad"))
    (residual / "experiment.json").write_text(json.dumps(to_json(declared)))
    source = RunFolder(residual)
    elsewhere = at_depth(source, 14, data=Digits(data_dir="~no-one/x"))
    with pytest.raises(UsageError, match="the set is gone"):  # it was named anew
        deepen(source, elsewhere, RunFolder(tmp_path / "deeper"), print)
    deepen(source, at_depth(source, 14), RunFolder(tmp_path / "deeper"), lines.append)
    assert "the logits of 64 random pictures (the set is gone) agree" in lines[1]


def test_wrong_commands_are_refused_in_one_line(begun, shallow, tmp_path):
    new = ("--run-dir", str(tmp_path / "new"))

    def error(*arguments: object) -> str:
        with pytest.raises(UsageError) as caught:
            main([*map(str, arguments)])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "a run folder must come first" in error("--model.depth", 14, *new)
    assert "--run-dir DIR" in error(shallow, "--model.depth", 14)
    assert "depth 8 has 1, 1, 1" in error(shallow, *new)
    assert "cifar layout needs 6n+2" in error(shallow, "--model.depth", 15, *new)
    assert "none" in error(shallow, "--model.depth", 14, "--model.shortcut", "zero_pad", *new)
    assert "data.normalization" in error(
        shallow, "--model.depth", 14, "--data.normalization", "pixel", *new
    )
    assert "leave --initialize-from out" in error(
        shallow, "--model.depth", 14, "--initialize-from", "x", *new
    )
    assert "holds a run already" in error(shallow, "--model.depth", 14, "--run-dir", begun[0])
    assert "holds a run already" in error(shallow, "--model.depth", 14, "--run-dir", shallow)
    assert "there is no such folder" in error(tmp_path / "none", "--model.depth", 14, *new)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(shallow / "experiment.json", empty)
    assert "has no checkpoint yet" in error(empty, "--model.depth", 14, *new)
    (tmp_path / "file").write_text("")
    assert "is a file" in error(shallow, "--model.depth", 14, "--run-dir", tmp_path / "file")
    assert not (tmp_path / "new").exists()


OWN = '''
import jax
from resflax.models import Shortcut

class Scaled(Shortcut):
    """Multiplies the identity by a number."""

    uses_identity = True
    number: float = 1.0

    def __call__(self, x, branch, *, train):
        """number * x + F(x)."""
        return self.number * self.identity(x, branch) + branch
'''


@pytest.mark.slow
def test_a_shortcut_of_ones_own_is_tried(train, tmp_path):
    (tmp_path / "scaled.py").write_text(OWN)
    for number, name in ((1.0, "one"), (0.9, "less")):
        shortcut = Own(f"{tmp_path}/scaled.py:Scaled", number=number)
        experiment = dataclasses.replace(TINY, model=ResNet(8, shortcut=shortcut), steps=1)
        train(experiment, tmp_path / name)
    source, lines = RunFolder(tmp_path / "one"), list[str]()
    deepen(source, at_depth(source, 14), RunFolder(tmp_path / "deeper"), lines.append)
    assert "agree" in lines[1]
    source = RunFolder(tmp_path / "less")
    with pytest.raises(UsageError, match=r"Scaled.* whose branch is 0 is not the identity"):
        deepen(source, at_depth(source, 14), RunFolder(tmp_path / "other"), print)
    assert not (tmp_path / "other").exists()


def test_networks_of_ones_own_are_refused():
    custom = Custom.__new__(Custom)
    with pytest.raises(UsageError, match="only a ResNet or a DenseNet"):
        check_deeper(custom, custom)
