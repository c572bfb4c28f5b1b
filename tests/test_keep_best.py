"""The checkpoint with the best validation error: kept while others go, found again, measured."""

import dataclasses
import importlib
import json
import signal
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import encode, photo
from runs_in_process import interrupt_after_saving, once
from whole_runs import ROOT, assert_same, metrics, result

from resflax import SGD, Cosine, Digits, Experiment, ResNet, TrainingError, UsageError
from resflax.data.pictures.decoding import decode
from resflax.errors import Interrupted
from resflax.evaluation.network import load_network
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.split_reader import trained_picture_format
from resflax.evaluation.views import Views, view_maker
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.loop import TrainingLoop
from resflax.runs.metrics import best_steps
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained

# The learning rate grows until the network is worse again, so that the best is far from the end.
EXPERIMENT = Experiment(
    name="best",
    model=ResNet(8),
    data=Digits(validation=200),
    batch_size=32,
    steps=33,
    optimizer=SGD(learning_rate=6.0, momentum=0.9),
    schedule=Cosine(warmup_steps=33, warmup="linear", warmup_learning_rate=1e-3),
    log_every=11,
    evaluate_every=3,
    checkpoint_every=4,
    keep_best=True,
)


def best_by_hand(lines):
    """The step with the lowest validation error among the lines; the earliest of equal ones."""
    return min((x["error"], x["step"]) for x in lines if x["split"] == "validation")[1]


def steps(folder):
    return Checkpoints(folder / "checkpoints").steps()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The finished run; not to be changed."""
    from runs_in_process import trainer

    folder = tmp_path_factory.mktemp("best") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        printed = trainer(monkeypatch)(EXPERIMENT, folder)
    return folder, printed


@given(st.lists(st.tuples(st.sampled_from(["validation", "test"]), st.integers(0, 5)), max_size=9))
def test_bests_are_the_lowest_so_far_and_the_earliest_of_equals(drawn):
    lines = [
        {"step": step, "split": split, "error": error / 5}
        for step, (split, error) in enumerate(drawn, start=1)
    ]
    bests = best_steps(lines)
    for end in range(len(lines) + 1):
        held_out = [x for x in lines[:end] if x["split"] == "validation"]
        so_far = [step for step in bests if step <= end]
        assert (so_far[-1] if so_far else None) == (best_by_hand(held_out) if held_out else None)


def test_every_checkpoint_that_is_kept_has_its_best(tmp_path):
    def save(step, bests):
        state = {"params": {"kernel": jnp.zeros(2)}, "step": jnp.int32(step)}
        checkpoints.save(step, state, {"seconds": 0.0}, every=10, bests=bests)
        return checkpoints.steps()

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 13, 20):
        save(step, [13])
    assert save(24, [13, 24]) == [10, 13, 20, 24]  # 13 is still the best of 20
    assert save(26, [13, 24]) == [10, 13, 20, 24, 26]
    assert save(30, [13, 24]) == [13, 20, 24, 26, 30]
    assert save(40, [13, 24]) == [24, 26, 30, 40]
    for step in (50, 60, 70):
        save(step, [13, 24])
    assert checkpoints.steps() == [24, 50, 60, 70]


def test_the_best_is_kept_while_others_go(finished):
    folder, printed = finished
    ended, lines = result(folder), metrics(folder)
    best = best_by_hand(lines)
    assert best < 28  # so that the newest checkpoints would not have it
    assert steps(folder) == [best, 28, 32, 33]
    (line,) = (x for x in lines if x["step"] == best and x["split"] == "validation")
    assert (ended["best_step"], ended["best_validation_error"]) == (best, line["error"])
    assert ended["best_validation_error"] < ended["validation_error"]
    assert 0 <= ended["best_test_error"] <= 1
    assert {x["step"] for x in lines if x["split"] == "test"} == {33}
    assert "passing over" not in printed


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_measures_the_best(finished, split, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.syspath_prepend(ROOT / "scripts")
    evaluate = importlib.import_module("evaluate").main
    evaluate([str(folder), "--best", "--split", split, "--json"])
    best = json.loads(capsys.readouterr().out)
    ended = result(folder)
    assert best["runs"] == {str(folder): ended["best_step"]}
    assert best["top1_error"] == pytest.approx(ended[f"best_{split}_error"], abs=1e-9)
    evaluate([str(folder), "--split", split, "--json"])
    newest = json.loads(capsys.readouterr().out)
    assert newest["runs"] == {str(folder): 33}
    assert newest["top1_error"] == pytest.approx(ended[f"{split}_error"], abs=1e-9)


def test_predict_uses_the_best(finished, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setattr("resflax.terminal.display.Display.say", lambda self, text: None)
    picture = tmp_path / "picture.png"
    picture.write_bytes(encode(photo(8, 8, seed=1), "png"))
    predict = importlib.import_module("predict").main

    def probabilities(*options):
        predict([str(folder), str(picture), "--json", *options])
        (prediction,) = json.loads(capsys.readouterr().out)
        return {guess["label"]: guess["probability"] for guess in prediction["guesses"]}

    network = load_network(RunFolder(folder), 10, (8, 8, 1), print, best=True)
    assert network.step == result(folder)["best_step"]
    picture_format = trained_picture_format(EXPERIMENT.data)
    maker = view_maker(Views(), picture_format)
    images = maker.images(decode(picture.read_bytes(), 1, maker.shorter_side))
    (expected,) = np.exp(log_probabilities(network, maker, [images], 1, lambda done: None))
    for label, probability in probabilities("--best").items():
        assert probability == pytest.approx(float(expected[label]), rel=1e-5)
    assert probabilities() != probabilities("--best")


def test_an_interrupted_run_has_the_same_best(finished, train, tmp_path, monkeypatch):
    undisturbed, _ = finished
    folder, best = tmp_path / "run", result(undisturbed)["best_step"]
    with monkeypatch.context() as patch:
        # The process ends after the line of the best was written and before its checkpoint.
        once(
            patch,
            TrainingLoop,
            "save",
            lambda self, state, step: KeyError() if step == best else None,
        )
        with pytest.raises(KeyError):
            train(EXPERIMENT, folder)
    assert metrics(folder)[-1]["step"] == best
    before = steps(folder)
    trained = load_trained(RunFolder(folder), print, best=True)  # the best that has a checkpoint
    assert trained.step == best_by_hand([x for x in metrics(folder) if x["step"] <= before[-1]])
    for stop in (best, 32):
        with monkeypatch.context() as patch:
            interrupt_after_saving(patch, stop)
            with pytest.raises(Interrupted):
                train(EXPERIMENT, folder)

    def interrupted(self, measure=TrainingLoop._measure_best):
        signal.raise_signal(signal.SIGTERM)
        return measure(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_measure_best", interrupted)
        with pytest.raises(Interrupted, match="stopped at step 33 of 33"):
            train(EXPERIMENT, folder)
    assert not (folder / "result.json").exists()
    train(EXPERIMENT, folder)
    assert_same(folder, undisturbed)
    ended, expected = result(folder), result(undisturbed)
    assert {k: v for k, v in ended.items() if k != "seconds"} == {
        k: v for k, v in expected.items() if k != "seconds"
    }
    assert best in steps(folder)


def test_going_back_forgets_later_bests(train, tmp_path, monkeypatch):
    """The step after the second best fails, and the run goes back to before it."""
    experiment = dataclasses.replace(EXPERIMENT, steps=12, on_nonfinite="rollback", log_every=12)
    seen: dict[str, Any] = {}

    def fail_once(self, state, step, bar, advance=TrainingLoop._advance):
        if step != 6 or seen:
            return advance(self, state, step, bar)
        self.saving.finish()
        seen["before"] = self.best_step(), self.checkpoints.steps()
        back = self.roll_back(state)
        seen["after"] = back[1], self.best_step(), self.checkpoints.steps()
        return back

    monkeypatch.setattr(TrainingLoop, "_advance", fail_once)
    train(experiment, tmp_path)
    assert seen == {"before": (6, [3, 4, 6]), "after": (4, 3, [3, 4])}
    ended = result(tmp_path)
    assert ended["best_step"] == best_by_hand(metrics(tmp_path))
    assert len(ended["rollbacks"]) == 1


def test_a_damaged_best_is_named_and_the_run_ends(train, tmp_path, monkeypatch):
    experiment = dataclasses.replace(EXPERIMENT, steps=12)
    finish = TrainingLoop._measure_best

    def damage(self):
        if self.best_step() != 12:
            next((self.checkpoints.folder / str(self.best_step())).rglob("*sha256*")).write_text("")
        return finish(self)

    monkeypatch.setattr(TrainingLoop, "_measure_best", damage)
    monkeypatch.setattr(TrainingLoop, "best_step", lambda self: self._best_steps()[0])
    printed = train(experiment, tmp_path)
    assert "the best checkpoint, of step 3, cannot be measured: " in printed
    assert result(tmp_path)["best_test_error"] is None
    monkeypatch.setattr("resflax.runs.metrics.best_steps", lambda lines: [3])
    with pytest.raises(TrainingError, match="the best checkpoint, of step 3: "):
        load_trained(RunFolder(tmp_path), print, best=True)


def test_it_needs_held_out_examples():
    with pytest.raises(UsageError) as refusal:
        dataclasses.replace(EXPERIMENT, data=Digits())
    message = "Experiment.keep_best is True; it needs examples to choose by: hold some out with"
    assert str(refusal.value) == f"{message} --data.validation"


def test_runs_without_a_best_are_refused_in_one_line(train, tmp_path: Path):
    plain = dataclasses.replace(EXPERIMENT, keep_best=False, steps=2)
    printed = train(plain, tmp_path / "plain")
    # What the schedule does not do is said before the first step.
    assert printed.startswith(
        "nothing but warm-up: the training has 2 steps, and schedule.warmup_steps is 33, so that"
    )
    assert "best_step" not in result(tmp_path / "plain")
    with pytest.raises(UsageError, match="keeps no best checkpoint: that takes --keep-best True"):
        load_trained(RunFolder(tmp_path / "plain"), print, best=True)
    folder = RunFolder(tmp_path / "begun")
    train(dataclasses.replace(EXPERIMENT, steps=2), folder.path)
    folder.metrics.unlink()
    with pytest.raises(UsageError, match="has no best checkpoint yet: nothing was evaluated"):
        load_trained(folder, print, best=True)
