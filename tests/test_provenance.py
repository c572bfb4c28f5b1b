"""A run folder records where it comes from, and a run can be repeated from it."""

import json
import subprocess
from pathlib import Path

import pytest
from whole_runs import assert_same, run

from resflax.runs import environment
from resflax.runs.run_folder import RunFolder


def git(folder, *arguments):
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "source.py").write_text("one = 1  \n\n")
    (folder / ".gitignore").write_text("installed/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_environment_has_what_a_repetition_needs(undisturbed):
    noted = json.loads((undisturbed / "environment.json").read_text())
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint"} <= noted[
        "packages"
    ].keys()
    assert "XLA_FLAGS" in noted["flags"]
    assert "train.py" in noted["command"]
    assert len(noted["devices"]) == 1
    assert len(noted["data_sha256"]) == 64
    assert {"started", "host", "folder", "python", "platform", "cpus", "git"} <= noted.keys()


def test_a_clean_tree_has_a_commit_and_no_changes(repository):
    file = repository / "source.py"
    state = environment.git_state(file)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["clean"]
    assert environment.git_changes(file) == ""


def test_the_changes_make_the_tree_from_its_commit(repository, tmp_path):
    file = repository / "source.py"
    file.write_text("one = 2  \n\n\n")
    (repository / "new.py").write_text("")
    state = environment.git_state(file)
    assert state is not None
    assert not state["clean"]
    patch = tmp_path / "source.diff"
    patch.write_text(environment.git_changes(file))
    assert "# not in git: new.py" in patch.read_text()
    git(repository, "clone", "-q", ".", tmp_path / "clone")
    git(tmp_path / "clone", "apply", "--whitespace=nowarn", patch)
    assert (tmp_path / "clone" / "source.py").read_text() == file.read_text()


def test_a_package_installed_below_a_foreign_repository_claims_no_commit(repository):
    installed = repository / "installed" / "package.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert environment.git_state(installed) is None
    assert environment.git_changes(installed) == ""


def test_every_session_keeps_its_changes(tmp_path, experiment):
    from resflax.terminal.experiment_files import load_experiment

    folder = RunFolder(tmp_path / "run")
    tiny = load_experiment(experiment).resolved()
    for number, changes in enumerate(("one\n", "", "three\n")):
        folder.begin(tiny, {"number": number}, changes)
    assert (folder.path / "source.diff").read_text() == "one\n"
    assert (folder.path / "source-3.diff").read_text() == "three\n"
    noted = json.loads(folder.environment.read_text())
    assert (noted["number"], noted["source_diff"]) == (0, "source.diff")
    assert noted["continued"] == [{"number": 1}, {"number": 2, "source_diff": "source-3.diff"}]
    assert folder.last_environment()["number"] == 2


def test_from_repeats_a_run_without_its_file(undisturbed, tmp_path):
    run("--from", undisturbed, "--run-dir", tmp_path / "again")
    assert_same(tmp_path / "again", undisturbed)


def test_from_takes_overrides_and_refuses_what_is_no_run(experiment, undisturbed, tmp_path):
    run(f"--from={undisturbed}", "--run-dir", tmp_path / "short", "--epochs", "0.05")
    plain = json.loads((tmp_path / "short" / "experiment.json").read_text())
    assert (plain["epochs"], plain["steps"]) == (0.05, None)
    _, err = run(experiment, "--from", undisturbed, code=2)
    assert "not both" in err
    _, err = run("--from", tmp_path, code=2)
    assert "is not a run folder" in err
    assert not Path("runs").exists() or not list(Path("runs").glob("tiny-*"))
