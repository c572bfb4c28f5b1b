"""Run folders of earlier versions are read, continued, evaluated and reported for ever.

`kept_runs/format_1.tar.xz` has folders that the version before format 2 wrote: `finished`,
`unfinished` (cut off after step 8 of 12), `from_weights` (with the weights of `finished`) and
`sweep`, of whose four trials one is missing. Never change it; a new format gets a file of its own.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from whole_runs import metrics, result, run

import resflax
from resflax.commands import report
from resflax.runs.run_folder import RunFolder, default_run_path

SMALL = """
from resflax import SGD, Cosine, Digits, Experiment, ResNet

experiment = Experiment(
    name="old",
    model=ResNet(depth=29, block="bottleneck", bottleneck_width=1, shortcut="zero_pad"),
    data=Digits(validation=100), batch_size=32, steps=12, optimizer=SGD(learning_rate=0.05),
    schedule=Cosine(), ema_decay=0.9, log_every=4, evaluate_every=4, checkpoint_every=4,
)
"""
DENSE = """
from resflax import SGD, Cosine, DenseNet, Digits, Experiment, Grid

experiment = Experiment(
    name="old-sweep", model=DenseNet(depth=10, growth_rate=2), data=Digits(),
    batch_size=32, steps=4, optimizer=SGD(learning_rate=0.05), schedule=Cosine(),
    log_every=2, evaluate_every=4, checkpoint_every=4,
)
sweep = Grid({"model.growth_rate": [2, 3], "seed": [0, 1]})
"""


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A fresh copy of the old folders, with the files that declared them, as working directory."""
    with tarfile.open(ROOT / "tests" / "kept_runs" / "format_1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "small.py").write_text(SMALL)
    (tmp_path / "dense.py").write_text(DENSE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "old"


def test_a_finished_run_is_known_evaluated_and_reported(old):
    out, _ = run("small.py", "--run-dir", old / "finished", "--checkpoint-every", 12)
    assert "nothing to do" in out
    # Another machine may round differently.
    measured = resflax.evaluate(old / "finished").measures
    assert measured.loss == pytest.approx(result(old / "finished")["test_loss"], abs=1e-3)
    report.main([str(old / "sweep"), str(old / "finished")])
    assert "old-sweep" in Path("report.md").read_text()


def test_an_unfinished_run_is_continued(old):
    before = metrics(old / "unfinished")
    out, _ = run("small.py", "--run-dir", old / "unfinished")
    assert "continuing from step 8 of 12" in out
    assert [line for line in before if line["step"] <= 8] == [
        line for line in metrics(old / "unfinished") if line["step"] <= 8
    ]
    ended, expected = result(old / "unfinished"), result(old / "finished")
    assert ended["test_loss"] == pytest.approx(expected["test_loss"], abs=0.02)


def test_a_run_is_found_by_its_old_hash(old):
    experiment = RunFolder(old / "unfinished").read_experiment()
    named = Path("runs") / f"old-{experiment.hash_of_format_1}"
    shutil.copytree(old / "unfinished", named)
    assert default_run_path(experiment) == named
    out, _ = run("small.py")
    assert "continuing from step 8 of 12" in out
    assert [path.name for path in Path("runs").iterdir()] == [named.name]


def test_a_run_from_weights_knows_them(old):
    folder = RunFolder(old / "from_weights")
    weights = result(old / "finished")["params_sha256"]
    assert folder.read_experiment().initial_weights == weights
    options = ["--checkpoint-every", 12, "--initialize-from", "old/finished"]
    out, _ = run("small.py", "--run-dir", old / "from_weights", *options)
    assert "nothing to do" in out


def test_a_sweep_is_not_repeated(old):
    out, _ = run("dense.py", "--sweep-dir", old / "sweep", script="sweep")
    assert "4 trials: 4 done; 1 of them were run now" in out
    assert len(json.loads((old / "sweep" / "sweep.json").read_text())["trials"]) == 5
