"""The functions of resflax for Python programs: the same runs, networks and figures as commands."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import jax
import pandas as pd
import pytest
from conftest import ROOT
from whole_runs import assert_same, result

import resflax
from resflax import Cosine, Experiment, ResNet, UsageError
from resflax.api import Result
from resflax.declarations.records import plain
from resflax.devices.parallel import Devices
from resflax.errors import Interrupted
from resflax.evaluation.views import Views
from resflax.runs import environment, plan
from resflax.runs.loop import TrainingLoop

SHORT = Experiment(name="short", model=ResNet(8), batch_size=48, steps=3, schedule=Cosine(), seed=2)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Runs use one device of this process, as those of the fixture `undisturbed_here` do."""
    chosen = jax.local_devices()[:1]
    monkeypatch.setattr(plan, "Devices", lambda parallel: Devices(parallel, chosen))
    monkeypatch.setattr(jax, "devices", lambda: chosen)
    monkeypatch.setattr(environment, "source_changes", lambda: "")


def signal_after_saving(monkeypatch, number, at):
    """Sends a signal to this process after the checkpoint of a step was begun, once."""
    original = TrainingLoop.save

    def save(self, state, step):
        original(self, state, step)
        if step == at:
            monkeypatch.setattr(TrainingLoop, "save", original)
            signal.raise_signal(number)

    monkeypatch.setattr(TrainingLoop, "save", save)


# --- Training


def test_a_result_is_that_of_the_run(tiny, undisturbed_here, capsys):
    trained = resflax.train(tiny, undisturbed_here)
    assert f"{undisturbed_here} holds this run, finished: nothing to do" in capsys.readouterr().out
    assert trained.to_json() == result(undisturbed_here)
    assert trained.path == undisturbed_here
    assert os.fspath(trained) == str(undisturbed_here)
    assert trained.params == 75_002
    assert str(trained).splitlines()[-1] == f"all of it is in {undisturbed_here}"


def test_a_run_is_kept_in_the_folder_of_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    experiment = replace(SHORT, on_nonfinite="rollback")
    trained = resflax.train(experiment)
    assert str(trained.path) == f"runs/short-{experiment.content_hash}"
    assert trained.rollbacks == ()
    assert trained.to_json() == json.loads((trained.path / "result.json").read_text())
    assert "step 3/3  test" in capsys.readouterr().out


def test_ctrl_c_saves_and_the_same_call_continues(tiny, undisturbed_here, monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    signal_after_saving(monkeypatch, signal.SIGINT, at=18)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 18 of 40 and saved"):
        resflax.train(tiny, str(tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "run" / "result.json").exists()
    resflax.train(tiny, str(tmp_path / "run"))
    assert_same(tmp_path / "run", undisturbed_here)


def test_other_signals_reach_the_program_after_saving(tiny, monkeypatch, tmp_path):
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    signal_after_saving(monkeypatch, signal.SIGTERM, at=9)
    try:
        with pytest.raises(Interrupted, match="stopped at step 9 of 40 and saved"):
            resflax.train(tiny, tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted == [signal.SIGTERM]
    assert (tmp_path / "run" / "checkpoints" / "9").is_dir()


def test_training_outside_the_main_thread(tmp_path):
    trained = []
    thread = threading.Thread(target=lambda: trained.append(resflax.train(SHORT, tmp_path / "run")))
    thread.start()
    thread.join()
    assert isinstance(trained[0], Result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("experiments/quickstart.py",), "needs an Experiment, and was given a str"),
        ((SHORT, 3), "run_dir is of type int; it must be a path"),
    ],
)
def test_wrong_arguments_of_training_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        resflax.train(*arguments)


def test_the_code_of_the_page_runs(monkeypatch, tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["probabilities"].shape == (3, 10)
    logits = names["logits"]
    assert (str(logits.dtype), logits.shape) == ("float32", (3, 10))
    assert names["evaluation"].views == Views()
    assert names["table"]["test_error"].tolist() == [names["result"].test_error]
    assert "notebook-" in capsys.readouterr().out


STATE = """
import json, logging, os, signal, sys, threading, warnings
from pathlib import Path

import absl.logging
import cv2, jax, numpy, matplotlib, pandas
from PIL import Image, ImageFile
import resflax
import resflax.evaluation.evaluate, resflax.evaluation.loaded, resflax.runs.session
from resflax.data.class_names import class_names

def state():
    loggers = [logging.root, *map(logging.getLogger, names)]
    return {
        "logging.disable": logging.root.manager.disable,
        "levels": [logger.level for logger in loggers],
        "handlers": [list(logger.handlers) for logger in loggers],
        "filters": [list(logger.filters) for logger in loggers],
        "absl": absl.logging.get_verbosity(),
        "pictures": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "OpenCV": cv2.getNumThreads(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "numpy": numpy.geterr(),
        "matplotlib": dict(matplotlib.rcParams.copy()),
        "random": numpy.random.get_state()[1].tolist(),
    }

experiment = resflax.Experiment(
    name="short", model=resflax.ResNet(8), batch_size=48, steps=3, checkpoint_every=1
)
names = list(logging.root.manager.loggerDict)
before = state()
trained = resflax.train(experiment, sys.argv[1])
network = resflax.load(trained)
network.predict(numpy.zeros((1, 8, 8, 1), numpy.uint8))
resflax.evaluate(trained)
resflax.results(trained)
after = state()
for thing, value in after.items():
    if value != before[thing]:
        print(f"{thing} was changed from {before[thing]} to {value}", file=sys.stderr)
"""


def test_nothing_of_the_process_is_changed_and_nothing_is_logged(tmp_path):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-c", STATE, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (process.returncode, process.stderr) == (0, "")


# --- Evaluation


def test_an_evaluation_is_that_of_the_command(undisturbed, script):
    done = script("evaluate", undisturbed, "--json", "--split", "validation", "--crops", 10)
    printed = json.loads(done.stdout)
    evaluation = resflax.evaluate(undisturbed, "validation", crops=10)
    assert evaluation.views == Views(10)
    own = json.loads(json.dumps(evaluation.to_json()))
    for name in ("loss", "calibration_error"):
        assert own.pop(name) == pytest.approx(printed.pop(name), rel=1e-4)
    assert own == printed


def test_an_ensemble_of_runs(undisturbed, tmp_path):
    earlier = shutil.copytree(undisturbed, tmp_path / "earlier")
    shutil.rmtree(earlier / "checkpoints" / "40")
    evaluation = resflax.evaluate(pd.Series([str(undisturbed), str(earlier)]))
    assert evaluation.runs == {str(undisturbed): 40, str(earlier): 36}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split is 'val'; it must be one of train, validation, test"),
        ({"crops": 5}, "Views.crops is 5; it must be one of 1, 10"),
        ({"scales": 224}, "Views.scales is 224; it must be a tuple of int"),
        ({"runs": []}, r"runs is \[\]; it must be a path or several paths"),
        ({"runs": 3}, "runs is 3; it must be a path or several paths"),
        ({"runs": [3]}, "runs is of type int; it must be a path"),
        ({"data_dir": 3}, "data_dir is of type int; it must be a path"),
        ({"runs": "nowhere"}, "nowhere is not a run folder: there is no such folder"),
    ],
)
def test_wrong_arguments_of_evaluation_are_refused(undisturbed, options, message):
    with pytest.raises(UsageError, match=message):
        resflax.evaluate(**{"runs": undisturbed} | options)


# --- Tables


def test_the_results_of_runs_are_a_table(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "all" / "finished")
    cut_off = shutil.copytree(undisturbed, tmp_path / "all" / "cut_off")
    (cut_off / "result.json").unlink()
    fields = json.loads((cut_off / "experiment.json").read_text())
    fields["seed"], fields["steps"], fields["epochs"] = 7, None, 0.5
    fields["schedule"] = plain(resflax.StepDecay(boundaries=(10, 20)))
    (cut_off / "experiment.json").write_text(json.dumps(fields))

    table = resflax.results(tmp_path / "all")
    assert table["path"].tolist() == [str(cut_off), str(tmp_path / "all" / "finished")]
    assert table["state"].tolist() == ["unfinished", "finished"]
    rows = table.set_index("state").loc
    done, ended = rows["finished"], result(undisturbed)
    for name in ("test_error", "test_loss", "validation_error", "train_error", "train_loss"):
        assert table[name].dtype == "float64"
        assert done[name] == ended[name]
        assert pd.isna(rows["unfinished"][name])
    assert done["params_sha256"] == ended["params_sha256"]
    for name in ("params", "macs", "steps"):
        assert table[name].dtype == "Int64"
        assert table[name].isna().tolist() == [True, False]
        assert done[name] == ended[name]
    for name in ("seed", "model.depth", "steps_done", "batch_size"):
        assert table[name].dtype == "int64"
    assert table["seed"].tolist() == [7, 0]
    assert table["steps_done"].tolist() == [40, 40]
    assert table["data.flip"].dtype == bool
    assert table["optimizer.learning_rate"].dtype == "float64"
    assert table["epochs"].dtype == "float64"
    assert table["schedule.boundaries"].tolist() == [(10, 20), None]
    assert table.groupby("model.shortcut")["test_error"].mean()["zero_pad"] == ended["test_error"]


def test_a_table_needs_pandas(undisturbed, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'resflax\[pandas\]'"):
        resflax.results(undisturbed)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no runs"):
        resflax.results([tmp_path])


def test_the_names_of_the_package_are_its_own():
    assert sorted(resflax.__all__) == sorted(set(resflax.__all__))
    assert all(hasattr(resflax, name) for name in resflax.__all__)
    assert {"train", "load", "evaluate", "results"} < {*resflax.__all__}
