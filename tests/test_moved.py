"""Data sets and weights that have moved, changed or gone since a run began with them."""

import dataclasses
import shutil
from typing import Any

import pytest
from runs_in_process import interrupt_after_saving
from whole_runs import assert_same, result

from resflax import Digits, UsageError
from resflax.data.digits import prepare_digits
from resflax.errors import Interrupted
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.initial_weights import with_initial_weights
from resflax.runs.run_folder import RunFolder, default_run_path


@pytest.fixture
def weights(undisturbed_here, tmp_path):
    """A copy of a finished run, for its weights."""
    return shutil.copytree(undisturbed_here, tmp_path / "weights")


@pytest.fixture
def fine_tuning(tiny, weights) -> Any:
    return dataclasses.replace(tiny, initialize_from=str(weights), seed=5)


def cut_off(folder, step):
    """Makes the folder of a finished run that of a run whose newest checkpoint is of this step."""
    (folder / "result.json").unlink()
    for newer in Checkpoints(folder / "checkpoints").steps():
        if newer > step:
            shutil.rmtree(folder / "checkpoints" / str(newer))


def test_the_weights_and_not_their_folder_decide_what_a_run_is(fine_tuning, weights, tmp_path):
    moved = tmp_path / "moved"
    known = with_initial_weights(fine_tuning)
    assert known.initial_weights == result(weights)["params_sha256"]
    weights.rename(moved)
    again = with_initial_weights(dataclasses.replace(fine_tuning, initialize_from=str(moved)))
    assert again.content_hash == known.content_hash
    assert default_run_path(again) == default_run_path(known)
    with pytest.raises(UsageError, match="there is no such folder"):
        with_initial_weights(fine_tuning)


def test_a_run_needs_the_other_run_only_once(fine_tuning, weights, tmp_path, train, monkeypatch):
    train(fine_tuning, tmp_path / "whole")
    run = tmp_path / "run"
    interrupt_after_saving(monkeypatch, 9)
    with pytest.raises(Interrupted):
        train(fine_tuning, run)
    monkeypatch.undo()
    for newer in Checkpoints(run / "checkpoints").steps():
        if newer > 0:
            shutil.rmtree(run / "checkpoints" / str(newer))
    assert Checkpoints(run / "checkpoints").steps() == [0]
    shutil.rmtree(weights)
    assert "continuing from step 0 of 40" in train(fine_tuning, run)
    assert_same(run, tmp_path / "whole")


def test_other_weights_are_refused(fine_tuning, weights, tmp_path, train, undisturbed_here):
    run = tmp_path / "run"
    train(fine_tuning, run)
    cut_off(run, 36)
    # The folder now holds other weights, those of the run itself.
    shutil.rmtree(weights)
    shutil.copytree(run, weights)
    with pytest.raises(UsageError, match=r"holds another experiment .*initial_weights"):
        train(fine_tuning, run)
    # Weights that are named by their hash are refused also at the start.
    named = dataclasses.replace(
        fine_tuning, initial_weights=result(undisturbed_here)["params_sha256"]
    )
    with pytest.raises(UsageError, match="are not those that are meant"):
        train(named, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_data_set_that_moved_is_found_again(tiny, tmp_path, train):
    first, second = tmp_path / "first", tmp_path / "second"
    prepare_digits(first)
    declared = dataclasses.replace(tiny, data=Digits(data_dir=str(first), validation=100))
    run = tmp_path / "run"
    train(declared, run)
    cut_off(run, 36)
    first.rename(second)
    moved = dataclasses.replace(tiny, data=Digits(data_dir=str(second), validation=100))
    assert moved.content_hash == declared.content_hash
    assert "continuing from step 36" in train(moved, run)
    train(dataclasses.replace(tiny), tmp_path / "whole")
    assert_same(run, tmp_path / "whole")
    assert RunFolder(run).read_experiment().data.data_dir == str(first)
