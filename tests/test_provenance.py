"""A run folder records where it comes from, and a run can be repeated from it."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from whole_runs import assert_same, run

from resflax import Grid
from resflax.files import write_atomically
from resflax.parts.user_files import changes, keep_user_files, read_program, read_user_files
from resflax.runs.git import MOST_BYTES, changes_sha256, experiment_state, git_changes, git_state
from resflax.runs.run_folder import RunFolder
from resflax.runs.versions import version_changes
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid
from resflax.terminal.experiment_files import load_experiment


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
    state = git_state(file)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["clean"]
    assert git_changes(file) == ""


def test_the_changes_make_the_tree_from_its_commit(repository, tmp_path):
    file = repository / "source.py"
    file.write_text("one = 2  \n\n\n")
    (repository / "new.py").write_text("")
    state = git_state(file)
    assert state is not None
    assert not state["clean"]
    patch = tmp_path / "source.diff"
    patch.write_text(git_changes(file))
    assert "# not in git: new.py" in patch.read_text()
    git(repository, "clone", "-q", ".", tmp_path / "clone")
    git(tmp_path / "clone", "apply", "--whitespace=nowarn", patch)
    assert (tmp_path / "clone" / "source.py").read_text() == file.read_text()


def test_new_modules_that_were_imported_are_part_of_the_changes(repository, tmp_path, monkeypatch):
    (repository / "used.py").write_text("three = 3\n")
    (repository / "unused.py").write_text("four = 4\n")
    module = types.ModuleType("used")
    module.__file__ = os.path.relpath(repository / "used.py")  # as of a script
    monkeypatch.setitem(sys.modules, "used", module)
    text = git_changes(repository / "source.py")
    assert text.endswith("# not in git: unused.py\n")
    write_atomically(tmp_path / "source.diff", text)
    git(repository, "clone", "-q", ".", tmp_path / "clone")
    git(tmp_path / "clone", "apply", tmp_path / "source.diff")
    assert (tmp_path / "clone" / "used.py").read_text() == "three = 3\n"
    assert not (tmp_path / "clone" / "unused.py").exists()


def test_secrets_and_long_changes_are_only_named(repository):
    (repository / ".env").write_text("TOKEN=1\n")
    (repository / "data.txt").write_text("")
    git(repository, "add", "-f", ".")
    git(repository, "commit", "-q", "-m", "second")
    (repository / ".env").write_text("TOKEN=hunter2\n")
    (repository / "source.py").write_bytes(b"# caf\xe9\n")  # not UTF-8
    text = git_changes(repository / "source.py")
    assert "hunter2" not in text
    assert text.endswith("# changed, and not kept: .env\n")
    assert text.encode(errors="surrogateescape").count(b"+# caf\xe9\n") == 1
    (repository / "data.txt").write_text("0123456789abcde\n" * (MOST_BYTES // 16))
    text = git_changes(repository / "source.py")
    assert text == "".join(
        f"# changed, and not kept: {name}\n" for name in (".env", "data.txt", "source.py")
    )


def test_names_of_new_files_do_not_make_other_changes(repository):
    (repository / "notes.txt").write_text("")
    assert changes_sha256(git_changes(repository / "source.py")) is None
    (repository / "source.py").write_text("one = 2\n")
    one = changes_sha256(git_changes(repository / "source.py"))
    (repository / "more.txt").write_text("")
    assert changes_sha256(git_changes(repository / "source.py")) == one is not None
    (repository / "source.py").write_text("one = 3\n")
    assert changes_sha256(git_changes(repository / "source.py")) != one


def test_the_repository_of_an_experiment_file_is_noted_also_if_the_file_is_new(repository):
    (repository / "new.py").write_text("")
    (repository / "source.py").write_text("one = 2\n")
    state, patch = experiment_state(repository / "new.py")
    assert state is not None
    assert not state["clean"]
    assert "+one = 2" in patch
    (repository / "installed").mkdir()
    (repository / "installed" / "ignored.py").write_text("")
    assert experiment_state(repository / "installed" / "ignored.py") == (None, "")
    assert experiment_state(repository.parent / "elsewhere.py") == (None, "")
    assert experiment_state(Path(__file__))[1] == ""  # the source's own patch has it


BASE_FILE = "from resflax import *\nbase = dict(batch_size=32, steps=10)\n"
MAIN_FILE = """
import json
from common import base
from more.models import model
from resflax import *

experiment = Experiment(name="x", model=model, **base)
"""


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """An experiment file with modules beside it, and with files that no run must keep."""
    folder = tmp_path / "mine"
    (folder / "more").mkdir(parents=True)
    (folder / "venv/lib/python3/site-packages").mkdir(parents=True)
    texts = {
        "main.py": MAIN_FILE,
        "common.py": BASE_FILE,
        "more/models.py": "from resflax import ResNet\nimport other\nmodel = ResNet(8)\n",
        "venv/lib/python3/site-packages/other.py": "",
        ".env": "TOKEN=hunter2",
        "data.csv": "1,2",
        "unused.py": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder / "venv/lib/python3/site-packages"))
    yield folder
    for name in ("common", "more", "more.models", "other"):
        sys.modules.pop(name, None)


def test_the_experiment_file_and_what_it_imported_from_its_folder_are_kept(own_files, tmp_path):
    experiment = load_experiment(own_files / "main.py")
    files = read_user_files(own_files / "main.py")
    assert files is not None
    assert list(files.contents) == ["main.py", "common.py", "more/models.py"]
    folder = RunFolder(tmp_path / "run")
    folder.begin(experiment, {}, files=files, experiment_changes="one\n")
    for name in files.contents:
        assert (folder.code / name).read_bytes() == (own_files / name).read_bytes()
    assert sum(path.is_file() for path in folder.code.rglob("*")) == 3
    noted = folder.last_environment()
    assert noted["experiment_files"] == {
        "folder": str(own_files), "kept": "code", "files": files.hashes,
    }  # fmt: skip
    assert (folder.path / noted["experiment_diff"]).read_text() == "one\n"
    # A session with another file keeps both.
    (own_files / "common.py").write_text(BASE_FILE + "# more\n")
    again = read_user_files(own_files / "main.py")
    assert again is not None
    assert changes(files.hashes, again) == ["common.py"]
    folder.begin(experiment, {}, files=again)
    place = folder.last_environment()["experiment_files"]["kept"]
    assert place.startswith("code/")
    assert (folder.path / place / "common.py").read_text() == BASE_FILE + "# more\n"
    assert (folder.code / "common.py").read_text() == BASE_FILE
    folder.begin(experiment, {}, files=again)
    assert folder.last_environment()["experiment_files"]["kept"] == place


def test_a_long_file_is_not_copied_and_other_files_are_no_experiment_files(own_files, tmp_path):
    (own_files / "common.py").write_text(BASE_FILE + "#" * 2**20)
    load_experiment(own_files / "main.py")
    files = read_user_files(own_files / "main.py")
    assert files is not None
    assert "common.py" in files.hashes
    keep_user_files(files, tmp_path / "code")
    assert not (tmp_path / "code" / "common.py").exists()
    assert (tmp_path / "code" / "more" / "models.py").exists()
    assert read_user_files(own_files / "data.csv") is None
    assert read_user_files(own_files / "none.py") is None
    assert read_program() is None  # of pytest


def test_a_sweep_keeps_the_files_once_and_says_when_they_have_changed(own_files, tmp_path):
    experiment = load_experiment(own_files / "main.py")
    said: list[str] = []
    folder = SweepFolder(tmp_path / "sweep", said.append)
    for _ in range(2):
        folder.begin(experiment, read_user_files(own_files / "main.py"))
        folder.add(list(expand_grid(experiment, Grid({"seed": [0, 1]}))))
    code = folder.path / "declared" / "code"
    assert (code / "common.py").read_text() == BASE_FILE
    assert said == []
    (own_files / "common.py").write_text(BASE_FILE + "# more\n")
    folder.begin(experiment, read_user_files(own_files / "main.py"))
    assert said == ["common.py changed since the sweep was begun; declared/code/ keeps both"]
    declared = folder.read()
    assert declared is not None
    assert len(declared["trials"]) == 2
    first, second = (folder.path / note["kept"] for note in declared["experiment_files"])
    assert (first, second.parent) == (code, code)
    assert (second / "common.py").read_text() == BASE_FILE + "# more\n"


# --- Versions


SESSION: dict[str, Any] = {
    "python": "3.11.7",
    "packages": {"jax": "0.10.2", "jaxlib": "0.10.2", "Pillow": "11.0", "rich": "14.0"},
    "devices": ["cpu:0 cpu"],
    "git": {"commit": "a" * 40, "clean": True},
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"python": "3.11.9"}, None),
        ({"packages": SESSION["packages"] | {"rich": "15.0", "Pillow": "12.0", "new": "1"}}, None),
        ({"devices": ["cpu:0 cpu", "cpu:1 cpu"]}, None),  # said elsewhere
        ({"git": None}, None),
        (
            {"packages": SESSION["packages"] | {"jax": "0.12.0"}},
            "begun with jax 0.10.2, continued with jax 0.12.0: numbers may differ in rounding",
        ),
        (
            {"python": "3.12.1", "packages": {"jax": "0.10.2", "jaxlib": "0.12.0"}},
            "begun with Python 3.11, jaxlib 0.10.2, continued with Python 3.12, jaxlib 0.12.0: "
            "numbers may differ in rounding",
        ),
        (
            {"git": {"commit": "b" * 40, "clean": False}, "source_changes_sha256": "c" * 64},
            "begun with resflax at commit aaaaaaa, continued with resflax at commit bbbbbbb with "
            "changes ccccccc: numbers may differ",
        ),
        (
            {"devices": ["cuda:0 NVIDIA H100"]},
            "begun with devices cpu, continued with devices NVIDIA H100: numbers may differ in "
            "rounding",
        ),
    ],
)
def test_versions_that_can_change_numbers_are_said_in_one_line(changed, said):
    assert version_changes([SESSION], SESSION | changed, streamed=False) == said


def test_versions_are_compared_with_the_newest_session():
    newer = SESSION | {"packages": {"jax": "0.11.0", "jaxlib": "0.10.2", "pillow": "12.0"}}
    assert version_changes([], newer, streamed=False) is None
    assert version_changes([{}], newer, streamed=False) is None
    assert version_changes([SESSION, newer], newer, streamed=True) is None
    assert version_changes([SESSION, newer], SESSION, streamed=False) == (
        "last run with jax 0.11.0, continued with jax 0.10.2: numbers may differ in rounding"
    )
    assert "pillow 11.0, continued" in str(version_changes([SESSION], newer, streamed=True))


def test_a_package_installed_below_a_foreign_repository_claims_no_commit(repository):
    installed = repository / "installed" / "package.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert git_state(installed) is None
    assert git_changes(installed) == ""


def test_every_session_keeps_its_changes(tmp_path, experiment):
    folder = RunFolder(tmp_path / "run")
    tiny = load_experiment(experiment).resolved()
    for number, patch in enumerate(("one\n", "", "three\n")):
        folder.begin(tiny, {"number": number}, patch)
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
