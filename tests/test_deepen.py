"""A deeper run begins as exactly the function of another run, and trains on from there."""

import dataclasses
import json
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from runs_in_process import interrupt_after_saving, once, trainer
from whole_runs import assert_same, metrics, result

from resflax import SGD, Cosine, Custom, Digits, Experiment, Own, ResNet, UsageError
from resflax.commands.deepen import main
from resflax.data.in_memory import load_split
from resflax.declarations.deepening import check_deeper
from resflax.errors import Interrupted, TrainingError
from resflax.experiment import to_json
from resflax.models import build
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.deepening import deepen
from resflax.runs.initialization import start_from
from resflax.runs.loop import TrainingLoop
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.training.state import params_sha256

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
