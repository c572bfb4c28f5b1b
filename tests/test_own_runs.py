"""Runs with a user's own classes: kept code, files that change or go, and every command."""

import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from whole_runs import assert_same, result, run

import resflax

FILE = """
import flax.linen as nn
from resflax import SGD, Cosine, Digits, Experiment, Grid, ResNet
from resflax.models import Shortcut

START = 1.0


class Scaled(Shortcut):
    initial: float = START

    @nn.compact
    def __call__(self, x, branch, *, train):
        a = self.param("a", nn.initializers.constant(self.initial), ())
        return a * self.identity(x, branch) + branch


experiment = Experiment(
    name="scaled", model=ResNet(8, shortcut=Scaled), data=Digits(), batch_size=48, steps=12,
    schedule=Cosine(), checkpoint_every=4,
)
sweep = Grid({"model.shortcut": ["none", Scaled], "seed": range(2)})
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a file `scaled.py` and of its finished run `run`; it is only read."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "scaled.py").write_text(FILE)
    run(folder / "scaled.py", "--run-dir", folder / "run")
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of it at another place: its run comes from a file that lies elsewhere."""
    shutil.copytree(finished, tmp_path / "own")
    return tmp_path / "own"


def originated_in(folder: Path) -> Path:
    """Lets the run of a copied folder come from the copied file."""
    file = folder / "run" / "experiment.json"
    plain = json.loads(file.read_text())
    plain["model"]["shortcut"]["file"] = str(folder / "scaled.py")
    file.write_text(json.dumps(plain))
    return folder / "scaled.py"


def evaluated(run_folder: Path, *options: str) -> float:
    out, _ = run(run_folder, "--json", *options, script="evaluate")
    error: float = json.loads(out)["top1_error"]
    return error


def test_the_run_keeps_the_file(finished):
    assert (finished / "run" / "code" / "scaled.py").read_text() == FILE
    recorded = json.loads((finished / "run" / "experiment.json").read_text())["model"]["shortcut"]
    assert recorded["file"] == str(finished / "scaled.py")
    assert recorded["files"].keys() == {"scaled.py"}
    assert recorded["fields"] == {"initial": 1.0}
    assert evaluated(finished / "run") == result(finished / "run")["test_error"]


def test_another_line_of_the_file_leaves_the_run_what_it_is(folder):
    file = originated_in(folder)
    file.write_text(FILE.replace("steps=12", "steps=12,  # few") + "\nother = 3\n")
    out, _ = run(file, "--run-dir", folder / "run")
    assert "nothing to do" in out
    assert evaluated(folder / "run") == result(folder / "run")["test_error"]


@pytest.mark.parametrize("changed", ["START = 2.0", None], ids=["changed", "gone"])
def test_kept_code_is_run_only_if_it_is_trusted(folder, changed):
    file = originated_in(folder)
    if changed is None:
        file.unlink()
    else:
        file.write_text(FILE.replace("START = 1.0", changed))
        _, err = run(file, "--run-dir", folder / "run", code=2)
        assert "holds another experiment" in err
        assert "model.shortcut.code" in err
    copy = folder / "run" / "code" / "scaled.py"
    for script in ("evaluate", "export_weights"):
        options = [folder / "x.safetensors"] if script == "export_weights" else []
        _, err = run(folder / "run", *options, script=script, code=2)
        assert f"{copy} is not run: {file}" in err
        assert "--trust-code" in err
    out, err = run(folder / "run", "--json", "--trust-code", script="evaluate")
    assert json.loads(out)["top1_error"] == result(folder / "run")["test_error"]
    assert f"running {copy}" in err
    run(folder / "run", folder / "x.safetensors", "--trust-code", script="export_weights")


def test_a_run_is_continued_and_repeated_after_its_file_is_gone(folder):
    originated_in(folder).unlink()
    cut_off = shutil.copytree(folder / "run", folder / "cut_off")
    (cut_off / "result.json").unlink()
    shutil.rmtree(cut_off / "checkpoints" / "12")
    run("--from", cut_off, "--run-dir", cut_off, code=2)
    out, _ = run("--from", cut_off, "--run-dir", cut_off, "--trust-code")
    assert "continuing from step 8" in out
    assert_same(cut_off, folder / "run")
    run("--from", folder / "run", "--run-dir", folder / "again", "--trust-code")
    assert_same(folder / "again", folder / "run")
    assert (folder / "again" / "code" / "scaled.py").read_text() == FILE


def test_damaged_or_foreign_kept_code_is_never_run(folder):
    originated_in(folder).unlink()
    copy = folder / "run" / "code" / "scaled.py"
    copy.write_text(FILE.replace("return a *", "print('foreign'); return a *"))
    out, err = run(folder / "run", "--trust-code", script="evaluate", code=2)
    assert "has no whole copy of its code" in err
    assert "foreign" not in out


def test_a_file_inside_the_run_folder_is_not_where_code_comes_from(folder):
    # Anybody could have written it there.
    file = folder / "run" / "experiment.json"
    plain = json.loads(file.read_text())
    plain["model"]["shortcut"]["file"] = str(folder / "run" / "code" / "scaled.py")
    file.write_text(json.dumps(plain))
    _, err = run(folder / "run", script="evaluate", code=2)
    assert "--trust-code" in err


def test_reports_never_run_code(folder):
    file = originated_in(folder)
    file.write_text("raise SystemExit('run')")
    (folder / "run" / "code" / "scaled.py").write_text("raise SystemExit('run')")
    run(folder / "run", "--output", folder / "report.html", script="report")
    assert "scaled" in (folder / "report.md").read_text()


@pytest.mark.parametrize("options", [[], ["--vectorize"]], ids=["alone", "together"])
def test_a_sweep_finishes_with_the_code_that_it_began_with(tmp_path, options):
    file = tmp_path / "scaled.py"
    file.write_text(FILE)
    run(file, "--sweep-dir", tmp_path / "sweep", *options, "--steps", 4, script="sweep")
    trials = sorted((tmp_path / "sweep" / "trials").iterdir())
    assert len(trials) == 4
    assert sum((trial / "code" / "scaled.py").exists() for trial in trials) == 2
    # Nothing is repeated, and a trial that is missing runs with the copy if the class is edited
    # while the sweep runs.
    gone = next(trial for trial in trials if (trial / "code").exists())
    before = result(gone)
    shutil.rmtree(gone)
    declared = tmp_path / "sweep" / "declared" / f"{gone.name}.json"
    file.unlink()
    run(declared, "--run-dir", gone, "--trust-code")
    assert result(gone)["params_sha256"] == before["params_sha256"]
    run(tmp_path / "sweep", "--output", tmp_path / "report.html", script="report")
    assert "Scaled" in (tmp_path / "report.md").read_text()


def test_a_network_is_loaded_from_python(folder):
    originated_in(folder).unlink()
    with pytest.raises(resflax.UsageError, match="--trust-code"):
        resflax.load(folder / "run")
    network = resflax.load(folder / "run", trust_code=True)
    assert network.predict(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    measured = resflax.evaluate(folder / "run", trust_code=True).measures
    assert measured.top1_error == pytest.approx(result(folder / "run")["test_error"], abs=0.01)


# --- The page


def code_blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return [block.split("```")[0] for block in text.split("```python\n")[1:]]


def test_the_page_on_own_classes_is_true(tmp_path):
    shortcut, branch, network = code_blocks("own.md")
    (tmp_path / "learned_scale.py").write_text(shortcut)
    more = textwrap.dedent("""
        import flax.linen as nn
        from resflax import Custom, Digits, Experiment, ResNet
    """)
    for name, text, model in (
        ("wide", branch, "ResNet(depth=8, unit=Wide)"),
        ("tiny", network, 'Custom(network=Tiny, arguments={"width": 16})'),
    ):
        declared = (
            f'Experiment(name="{name}", model={model}, data=Digits(), batch_size=64, steps=4)'
        )
        (tmp_path / f"{name}.py").write_text(f"{more}\n{text}\n\nexperiment = {declared}\n")
    short = ["--epochs", "0.1"]
    own = tmp_path / "learned_scale.py"
    run(own, "--model.shortcut.initial", 0.5, *short, "--run-dir", tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert recorded["model"]["shortcut"]["fields"] == {"initial": 0.5}
    run(own, *short, "--sweep-dir", tmp_path / "sweep", "--jobs", 2, script="sweep")
    assert len(list((tmp_path / "sweep" / "trials").glob("*/result.json"))) == 9
    quickstart = ROOT / "experiments" / "quickstart.py"
    run(quickstart, "--model.shortcut", f"{own}:LearnedScale", "--json", script="summary")
    run(tmp_path / "wide.py", "--run-dir", tmp_path / "wide")
    run(tmp_path / "tiny.py", "--run-dir", tmp_path / "tiny", "--model.arguments.width", 32)
