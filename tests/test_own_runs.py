"""Runs with a user's own classes: kept code, files that change or go, and every command."""

import importlib
import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from whole_runs import assert_same, result, run

import resflax
from resflax import UsageError

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


def command(name: str, *arguments: object) -> None:
    """Runs a command in this process, which is quicker; its errors are exceptions."""
    importlib.import_module(f"resflax.commands.{name}").main([str(a) for a in arguments])


def evaluated(capsys, run_folder: Path, *options: str) -> tuple[float, str]:
    """The error that `evaluate` prints, and what it says beside that."""
    command("evaluate", run_folder, "--json", *options)
    out, err = capsys.readouterr()
    return json.loads(out)["top1_error"], err


def trained_error(folder: Path) -> Any:
    """The error of the run, up to rounding: it had another number of devices."""
    return pytest.approx(result(folder / "run")["test_error"], abs=0.004)


def test_the_run_keeps_the_file(finished, capsys):
    assert (finished / "run" / "code" / "scaled.py").read_text() == FILE
    recorded = json.loads((finished / "run" / "experiment.json").read_text())["model"]["shortcut"]
    assert recorded["file"] == str(finished / "scaled.py")
    assert recorded["files"].keys() == {"scaled.py"}
    assert recorded["fields"] == {"initial": 1.0}
    assert evaluated(capsys, finished / "run")[0] == trained_error(finished)


def test_another_line_of_the_file_leaves_the_run_what_it_is(folder, capsys):
    file = originated_in(folder)
    file.write_text(FILE.replace("steps=12", "steps=12,  # few") + "\nother = 3\n")
    out, _ = run(file, "--run-dir", folder / "run")
    assert "nothing to do" in out
    (folder / "run" / "result.json").unlink()
    shutil.rmtree(folder / "run" / "checkpoints" / "12")
    out, _ = run(file, "--run-dir", folder / "run")
    assert "scaled.py changed since the run's last session; code/ keeps both" in out
    kept = [path for path in (folder / "run" / "code").rglob("*") if path.is_file()]
    assert sorted(path.read_text() for path in kept) == sorted([FILE, file.read_text()])
    assert (folder / "run" / "code" / "scaled.py").read_text() == FILE  # which the run began with
    assert evaluated(capsys, folder / "run")[0] == trained_error(folder)


@pytest.mark.parametrize("changed", ["START = 2.0", None], ids=["changed", "gone"])
def test_kept_code_is_run_only_if_it_is_trusted(folder, changed, capsys):
    file, weights = originated_in(folder), folder / "x.safetensors"
    if changed is None:
        file.unlink()
    else:
        file.write_text(FILE.replace("START = 1.0", changed))
        with pytest.raises(UsageError, match=r"holds another experiment .*model\.shortcut\.code"):
            command("train", file, "--run-dir", folder / "run")
    copy = folder / "run" / "code" / "scaled.py"
    refused = re.escape(f"{copy} is not run: {file}") + ".*--trust-code"
    for name, more in (("evaluate", ()), ("predict", ("x.png",)), ("export_weights", (weights,))):
        with pytest.raises(UsageError, match=refused):
            command(name, folder / "run", *more)
    error, said = evaluated(capsys, folder / "run", "--trust-code")
    assert error == trained_error(folder)
    assert f"running {copy}" in said
    command("export_weights", folder / "run", weights, "--trust-code")
    assert weights.exists()


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


def test_damaged_or_foreign_kept_code_is_never_run(folder, capsys):
    originated_in(folder).unlink()
    copy = folder / "run" / "code" / "scaled.py"
    copy.write_text(FILE.replace("return a *", "print('foreign'); return a *"))
    with pytest.raises(UsageError, match="has no whole copy of its code"):
        command("evaluate", folder / "run", "--trust-code")
    assert "foreign" not in capsys.readouterr().out


def edited(folder: Path, **changes: object) -> None:
    """Changes the record of the class in a run's experiment.json."""
    file = folder / "run" / "experiment.json"
    plain = json.loads(file.read_text())
    if "shortcut" in changes:
        plain["model"] |= changes
    else:
        plain["model"]["shortcut"] |= changes
    file.write_text(json.dumps(plain))


@pytest.mark.parametrize("place", ["run/code/scaled.py", "link.py", "other/code/scaled.py"])
def test_a_file_of_a_run_folder_is_not_where_code_comes_from(folder, place):
    # Anybody could have written it there.
    shutil.copytree(folder / "run", folder / "other")
    (folder / "link.py").symlink_to(folder / "run" / "code" / "scaled.py")
    edited(folder, file=str(folder / place), files={Path(place).name: "0" * 64})
    with pytest.raises(UsageError, match=r"--trust-code|no whole copy"):
        command("evaluate", folder / "run")


DAMAGED: list[dict[str, object]] = [
    {"files": {}}, {"files": {"/etc/x.py": "0"}}, {"files": {"../x.py": "0"}}, {"file": "a\0b"},
    {"file": "scaled.py"}, {"type": "Zzz"}, {"more": 1}, {"fields": {"initial": "x"}},
    {"fields": {"final": 1}}, {"name": "no name"}, {"code_sha256": None}, {"shortcut": 3},
]  # fmt: skip


@pytest.mark.parametrize("changes", DAMAGED, ids=str)
def test_a_damaged_record_is_refused_in_one_line(folder, changes):
    edited(folder, **changes)
    with pytest.raises(UsageError) as refusal:
        command("evaluate", folder / "run", "--trust-code")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["evaluate", "report"])
def test_a_record_that_only_names_a_file_is_not_run(folder, name):
    code = folder / "run" / "code" / "scaled.py"
    code.write_text("raise SystemExit('run')\n" + FILE)
    edited(folder, shortcut=f"{code}:Scaled")
    with pytest.raises(UsageError, match="a record of a class has its hash"):
        command(name, folder / "run")


def test_reports_never_run_code_that_has_changed(folder):
    file = originated_in(folder)
    file.write_text("raise SystemExit('run')")
    (folder / "run" / "code" / "scaled.py").write_text("raise SystemExit('run')")
    command("report", folder / "run", "--output", folder / "report.html")
    assert "scaled" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "options",
    [["--jobs", 2], pytest.param(["--vectorize"], marks=pytest.mark.slow)],
    ids=["alone", "together"],
)
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
    command("report", tmp_path / "sweep", "--output", tmp_path / "report.html")
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
    (tmp_path / "learned_scale.py").write_text(shortcut.replace("range(3)", "range(1)"))
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
    assert len(list((tmp_path / "sweep" / "trials").glob("*/result.json"))) == 3
    quickstart = ROOT / "experiments" / "quickstart.py"
    command("summary", quickstart, "--model.shortcut", f"{own}:LearnedScale", "--json")
    run(tmp_path / "wide.py", "--run-dir", tmp_path / "wide")
    run(tmp_path / "tiny.py", "--run-dir", tmp_path / "tiny", "--model.arguments.width", 32)
