"""What commands and functions are called in: home folders, outputs, encodings, JAX's variables."""

import ast
import errno
import importlib
import io
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from rich.console import Console
from rich.table import Table

import resflax
from resflax import Digits, Experiment, Own, ResNet, UsageError
from resflax.cache import cache_folder
from resflax.data import prepared_sets
from resflax.devices import compilation, memory, settings
from resflax.experiment import to_json
from resflax.feeding.decoding import default_threads
from resflax.files import write_atomically
from resflax.paths import check_output_file, output_fault, user_path, writing_output
from resflax.runs import environment
from resflax.runs.git import git_changes, git_state
from resflax.terminal.surroundings import let_streams_print_everything, readable_surroundings

SHORT = Experiment(name="e", model=ResNet(depth=8), batch_size=16, steps=1)
LONG = "a" * 300


def call(command: str, *arguments: str) -> None:
    """Calls a command in this process."""
    importlib.import_module(f"resflax.commands.{command.replace('-', '_')}").main(arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an experiment file, a run without checkpoint, and a text file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text(
        "from resflax import *\n"
        'experiment = Experiment(name="e", model=ResNet(depth=8), batch_size=16, steps=1)\n'
        'sweep = Grid({"seed": [1, 2]})\n'
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run/experiment.json").write_text(json.dumps(to_json(SHORT)))
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    return tmp_path


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the list of users, as in many containers."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


# --- Home folders


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a/~") == tmp_path / "a/~"
    assert user_path("~") == tmp_path
    assert user_path("./~/a") == Path("~/a")
    assert user_path("~root/a") == Path(pwd.getpwnam("root").pw_dir) / "a"
    with pytest.raises(UsageError, match="~no-one/a: the home folder ~no-one is not known here"):
        user_path("~no-one/a")
    with pytest.raises(UsageError, match="is not a path: it has a zero byte"):
        user_path("a\0b")


NO_ONE = "~no-one/x"
PATHS = [
    "train ~no-one/x.py",
    "train good.py --run-dir ~no-one/x",
    "train good.py --run-dir=~no-one/x",
    "train --from ~no-one/x",
    "train good.py --initialize-from ~no-one/x",
    "train good.py --data.data-dir ~no-one/x",
    "train good.py --model.shortcut ~no-one/x.py:Mine",
    "sweep ~no-one/x.py",
    "sweep good.py --sweep-dir ~no-one/x",
    "summary ~no-one/x.py",
    "summary good.py --data.data-dir ~no-one/x",
    "evaluate ~no-one/x",
    "evaluate run --data-dir ~no-one/x",
    "evaluate run --predictions ~no-one/x.csv",
    "predict ~no-one/x text.txt",
    "predict run ~no-one/x",
    "predict run text.txt --data-dir ~no-one/x",
    "report ~no-one/x",
    "report run --output ~no-one/x.html",
    "track ~no-one/x",
    "track run --output ~no-one/x",
    "export-weights ~no-one/x a.safetensors",
    "export-weights run ~no-one/x.safetensors",
    "import-weights ~no-one/x --model resnet20 --run-dir new",
    "import-weights text.txt --model resnet20 --run-dir ~no-one/x",
    "import-weights text.txt --model ~no-one/x.py --run-dir new",
    "deepen ~no-one/x --model.depth 14 --run-dir new",
    "deepen run --model.depth 14 --run-dir ~no-one/x",
    "prepare-data ~no-one/x --name mine",
    "prepare-data cifar10 --data-dir ~no-one/x",
    "benchmark ~no-one/x.py",
    "benchmark resnet20 --output ~no-one/x",
    "benchmark-data mine --data-dir ~no-one/x",
    "benchmark-data mine --output ~no-one/x",
]


@pytest.mark.parametrize("command", PATHS)
def test_tilde_is_expanded_in_every_path_of_a_command(folder: Path, command: str):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match=r"~no-one/x.*: the home folder ~no-one is not known"):
        call(*command.split())
    assert sorted(folder.rglob("*")) == before


def test_tilde_is_expanded_in_every_path_of_a_call_and_recorded_as_declared(folder: Path):
    elsewhere = Experiment(
        name="e", model=ResNet(depth=8), batch_size=16, steps=1, data=Digits(data_dir=NO_ONE)
    )
    for use in (
        lambda: resflax.train(SHORT, NO_ONE),
        lambda: resflax.train(elsewhere, "new"),
        lambda: resflax.load(NO_ONE),
        lambda: resflax.evaluate([NO_ONE]),
        lambda: resflax.evaluate("run", data_dir=NO_ONE),
        lambda: resflax.results(NO_ONE),
    ):
        with pytest.raises(UsageError, match="the home folder ~no-one is not known"):
            use()
    assert to_json(elsewhere)["data"]["data_dir"] == NO_ONE
    assert not (folder / "new").exists()


def test_an_own_class_may_lie_in_the_home_folder(folder: Path, monkeypatch):
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    shutil.copy(ROOT / "tests/own_classes.py", folder / "home/mine.py")
    model = ResNet(depth=8, shortcut="~/mine.py:LearnedScale")
    assert isinstance(model.shortcut, Own)
    assert model.shortcut.file == folder / "home/mine.py"


# --- The cache folder


@pytest.mark.parametrize(
    ("declared", "home", "expected"),
    [
        ("cache", "home", "home/.cache"),  # a relative one does not count
        ("", "home", "home/.cache"),
        ("~/mine", "home", "home/mine"),
        ("/FOLDER/mine", "text.txt", "mine"),
        ("", "text.txt", None),
        ("", "/proc/nowhere", None),
        ("/proc/nowhere", "home", None),
        ("~no-one/x", "home", None),
        ("/FOLDER/\udcff", "home", None),
        (f"/FOLDER/{LONG}", "home", None),
    ],
)
def test_caches_are_kept_where_they_can_be(
    folder: Path, monkeypatch, caplog, declared: str, home: str, expected: str | None
):
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("XDG_CACHE_HOME", declared.replace("/FOLDER", str(folder)))
    monkeypatch.setenv("HOME", home if home.startswith("/") else str(folder / home))
    here = temporary / f"resflax-{os.getuid()}" if expected is None else folder / expected
    assert cache_folder("x") == cache_folder("x") == here / "resflax/x"
    assert [r.getMessage().endswith(f": caches are kept in {here}") for r in caplog.records] == (
        [True] * (expected is None)
    )
    assert not (folder / "~").exists()


def test_without_a_home_folder_caches_are_temporary_and_nobody_elses(
    folder: Path, monkeypatch, caplog, homeless
):
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert cache_folder("x") == folder / f"resflax-{os.getuid()}" / "resflax/x"
    assert "the home folder is not known: caches are kept in " in caplog.text
    (folder / f"resflax-{os.getuid()}").chmod(0o777)  # others might put programs there
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder("x").parents[2] == folder
    assert cache_folder("x").parents[1].name.startswith("resflax-")
    assert cache_folder("x").parents[1] != folder / f"resflax-{os.getuid()}"
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~/tensorflow_datasets")
    with pytest.raises(UsageError, match=r"home folder ~ is not known here; .* in TFDS_DATA_DIR"):
        prepared_sets.default_data_dir()


def test_no_folder_at_all_for_caches_is_one_line(monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with pytest.raises(UsageError, match=r"there is no folder for caches .*: set XDG_CACHE_HOME"):
        cache_folder("x")
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compilation.keep_compiled()  # goes on without
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_the_users_own_cache_of_compiled_programs_may_be_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", "~/compiled")
    try:
        compilation.keep_compiled()
        assert jax.config.values["jax_compilation_cache_dir"] == "/somewhere/compiled"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


# --- Outputs

OUTPUTS = [
    ("train good.py --run-dir text.txt/x", "text.txt is a file"),
    ("train good.py --run-dir /proc/x/y", "/proc cannot be written to"),
    (f"train good.py --run-dir new/{LONG}", "File name too long"),
    ("sweep good.py --sweep-dir text.txt/x", "text.txt is a file"),
    ("sweep good.py --sweep-dir /proc/x", "/proc cannot be written to"),
    (f"sweep good.py --sweep-dir new/{LONG}", "File name too long"),
    ("evaluate run --predictions folder.csv", "that is a folder"),
    ("evaluate run --predictions text.txt/a.csv", "there is no folder text.txt"),
    ("evaluate run --predictions /proc/a.csv", "/proc cannot be written to"),
    ("report run --output folder.html", "that is a folder"),
    ("report run --output text.txt/x/a.html", "text.txt is a file"),
    ("report run --output /proc/x/a.html", "/proc cannot be written to"),
    (f"report run --output {LONG}.html", "File name too long"),
    (f"report run --output {'a' * 248}.html", "File name too long"),  # those of its tables are
    ("track run --output text.txt", "text.txt is a file"),
    ("track run --output /proc/x", "/proc cannot be written to"),
    ("export-weights run folder.safetensors", "that is a folder"),
    ("export-weights run text.txt/a.safetensors", "there is no folder text.txt"),
    ("export-weights run /proc/a.safetensors", "/proc cannot be written to"),
    ("import-weights text.txt --model resnet20 --run-dir text.txt", "text.txt is a file"),
    ("import-weights text.txt --model resnet20 --run-dir /proc/x", "/proc cannot be written to"),
    ("deepen run --model.depth 14 --run-dir text.txt", "text.txt is a file"),
    ("deepen run --model.depth 14 --run-dir /proc/x", "/proc cannot be written to"),
    ("benchmark resnet20 --output folder.csv", "that is a folder"),
    ("benchmark resnet20 --output /dev/null", "that is a device or a pipe"),
    ("benchmark resnet20 --output=", "that names no file"),
    ("benchmark resnet20 --output text.txt/x", "there is no folder text.txt"),
    ("benchmark-data mine --output /proc/x", "/proc cannot be written to"),
    ("benchmark-data mine --output folder.csv", "that is a folder"),
]


@pytest.mark.parametrize(("command", "said"), OUTPUTS)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    folder: Path, command: str, said: str
):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        call(*command.split())
    assert "\n" not in str(refused.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_file_is_noticed(folder: Path, monkeypatch, number: int):
    def refuse(*, dir: Path) -> None:
        raise OSError(number, os.strerror(number), str(dir))

    assert output_fault(folder / "new/file") is None
    check_output_file("--output", folder / "text.txt")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    said = f"{folder} cannot be written to: {os.strerror(number)}"
    assert output_fault(folder / "new/file") == said
    with pytest.raises(UsageError, match=re.escape(f"--output is {folder}/new.csv; {said}")):
        check_output_file("--output", folder / "new.csv")
    with (
        pytest.raises(UsageError, match=f"^a.csv cannot be written: {os.strerror(number)}$"),
        writing_output(Path("a.csv")),
    ):
        raise OSError(number, os.strerror(number), ".a.csv.tmp")


def test_a_working_folder_that_is_gone_is_one_line(folder: Path, monkeypatch):
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert output_fault(Path("runs")) == "runs cannot be written to: No such file or directory"
    with (
        pytest.raises(UsageError, match="the folder in which this was called is gone"),
        readable_surroundings(),
    ):
        raise AssertionError("not reached")
    assert environment._working_folder() is None


# --- Encodings


def printed(monkeypatch, encoding: str, text: str) -> bytes:
    """What a command prints in this encoding, as a line and in a table."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    let_streams_print_everything()
    print(text)
    table = Table(text)
    table.add_row("1")
    Console(file=stream, width=40).print(table)
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"gr\xf6\xdfer \u2192 \udcff"),
        ("latin-1", b"gr\xf6\xdfer \\u2192 \\udcff"),
        ("utf-8", "größer → ".encode() + rb"\udcff"),
    ],
)
def test_everything_can_be_printed_in_every_encoding(monkeypatch, encoding: str, expected: bytes):
    said = printed(monkeypatch, encoding, "größer → \udcff")
    assert said.startswith(expected + b"\n")
    assert (b"+----" in said) == (encoding != "utf-8")  # the table's box


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "COLUMNS": "20"},
    ],
)
def test_a_mistake_is_one_line_in_every_encoding(folder: Path, variables: dict[str, str]):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/train.py", "good.py", "--sed", "3"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: Unrecognized options: --sed, 3; did you mean --seed?\n"


def test_no_file_depends_on_the_locale():
    """Text files have an encoding, and the output of other programs is decoded with one."""
    dependent = []
    for path in sorted((ROOT / "resflax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {keyword.arg for keyword in node.keywords}
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if name == "open":
                found = "encoding" not in given and not any("b" in str(t) for t in texts[-1:])
            elif name.endswith((".read_text", ".write_text")):
                found = "encoding" not in given and texts[-1:] != ["ascii"]
            else:
                found = "text" in given and name.startswith("subprocess.")
            if found:
                dependent.append(f"{path.relative_to(ROOT)}, line {node.lineno}: {name}")
    assert dependent == []


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_a_patch_is_kept_to_the_byte(tmp_path: Path):
    source = tmp_path / "source.py"
    git(tmp_path, "init", "-q")
    source.write_bytes(b"a = 1\r\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    source.write_bytes(b"a = 2  # gr\xf6\xdfer\r\n")
    write_atomically(tmp_path / "patch", git_changes(source))
    git(tmp_path, "checkout", "source.py")
    assert source.read_bytes() == b"a = 1\r\n"
    git(tmp_path, "apply", "patch")
    assert source.read_bytes() == b"a = 2  # gr\xf6\xdfer\r\n"


def test_without_git_the_source_is_not_known(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state(Path(resflax.__file__)) is None
    assert environment.source_changes() == ""


def test_a_run_folder_that_is_not_utf8_is_refused(folder: Path):
    with pytest.raises(UsageError, match="cannot be used, because its path is not UTF-8"):
        resflax.train(SHORT, "\udcff/run")
    assert not (folder / "\udcff").exists()


# --- JAX


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_disable_jit", True),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_transfer_guard", "disallow"),
        ("jax_legacy_prng_key", "error"),
    ],
)
def test_settings_of_jax_that_do_not_work_are_named(folder: Path, name: str, value: object):
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        for use in (lambda: resflax.train(SHORT, "new"), lambda: resflax.load("run")):
            with pytest.raises(UsageError, match=f"JAX's setting {name} is {value}, and must be"):
                use()
    finally:
        jax.config.update(name, before)
    assert not (folder / "new").exists()


def test_devices_that_are_not_there_are_named(folder: Path, monkeypatch):
    def none() -> None:
        raise AssertionError  # what JAX says if the plugin is missing

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(settings, "_platform_of_its_own_choice", lambda: "cpu")
    for use in (
        lambda: call("train", "good.py"),
        lambda: call("sweep", "good.py", "--dry-run"),
        lambda: call("summary", "zoo"),
        lambda: call("summary", "resnet20"),
        lambda: call("evaluate", "run"),
        lambda: call("predict", "run", "text.txt"),
        lambda: call("export-weights", "run", "a.safetensors"),
        lambda: call("import-weights", "text.txt", "--model", "resnet20", "--run-dir", "new"),
        lambda: call("benchmark", "resnet20"),
    ):
        with pytest.raises(UsageError, match="JAX_PLATFORMS is cpu, and JAX has no such devices"):
            use()


def test_what_there_is_is_named():
    """In a process of its own, because JAX's devices are opened anew."""
    code = """
import jax
from jax.extend.backend import clear_backends
from resflax.devices.settings import check_settings
for wanted in ("nonsense", "cuda", "cpu", ""):
    jax.config.update("jax_platforms", wanted)
    clear_backends()
    try:
        print(check_settings())
    except ValueError as error:
        print(error)
    assert jax.config.values["jax_platforms"] == wanted
"""
    variables = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True
    )
    advice = "JAX has no such devices here; it has cpu: set JAX_PLATFORMS=cpu, or unset it"
    assert done.stdout.splitlines() == [
        f"JAX_PLATFORMS is nonsense, and {advice}",
        f"JAX_PLATFORMS is cuda, and {advice}",
        "None",
        "None",
    ], done.stderr


@pytest.mark.parametrize(
    "said",
    [
        "invalid truth value 'x' for environment 'JAX_DISABLE_JIT'",
        'Invalid value "x" for JAX flag jax_numpy_rank_promotion',
    ],
)
def test_a_variable_that_jax_cannot_read_is_one_line(said: str):
    with (
        pytest.raises(UsageError, match=r"JAX cannot be set up: .*nvalid"),
        readable_surroundings(),
    ):
        raise ValueError(said)
    with pytest.raises(ValueError, match=r"^another$") as kept, readable_surroundings():
        raise ValueError("another")
    assert kept.type is ValueError


# --- Another operating system


def test_what_only_linux_has_is_not_needed(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert default_threads() == 2 * (os.cpu_count() or 1)

    def missing(path: Path, *arguments: object, **named: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "", str(path))

    monkeypatch.setattr(Path, "read_text", missing)  # /proc and /sys
    assert memory.available(jax.devices()[:1]) is None
    assert re.fullmatch("[0-9a-f]{8}", compilation._processor())


def test_only_linux_names_are_guarded():
    only_linux = re.compile(
        r"os\.(sched_\w+|posix_fadvise|memfd_create|O_TMPFILE|O_DIRECT\b|pipe2|getrandom|eventfd\w*)"
        r"|resource\.prlimit|signal\.(SIGPWR|SIGSTKFLT|SIGRT\w+)"
    )
    found = [
        (path.name, match.group())
        for path in sorted((ROOT / "resflax").rglob("*.py"))
        for match in only_linux.finditer(path.read_text("utf-8"))
    ]
    assert found == [
        ("decoding.py", "os.sched_getaffinity"),  # the test above
        ("threads.py", "os.sched_getaffinity"),  # tests/test_kernels.py
    ]


# --- Whole runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ([], {"JAX_ENABLE_X64": "1"}),
        (["-O"], {}),
        (["-W", "error"], {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "relative"}),
        (["-B"], {"PATH": "/nowhere", "TMPDIR": "/nowhere", "TERM": "dumb", "COLUMNS": "20"}),
        ([], {"LC_ALL": "xx_XX", "PYTHONIOENCODING": "ascii", "TZ": "Odd", "OMP_NUM_THREADS": "x"}),
    ],
)
def test_a_run_is_the_same_in_odd_surroundings(
    undisturbed: Path, experiment: Path, tmp_path: Path, options: list[str], variables
):
    kept = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [sys.executable, *options, ROOT / "scripts/train.py", experiment, "--run-dir", "run"],
        cwd=tmp_path,
        env=os.environ | kept | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == ("HOME" in variables)
    folders = (undisturbed, tmp_path / "run")
    there, here = (json.loads((f / "result.json").read_text())["params_sha256"] for f in folders)
    assert here == there
