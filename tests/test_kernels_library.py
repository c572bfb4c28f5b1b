"""The library of kernels: whether it is loaded, and what is said and recorded if it is not."""

import _ctypes
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from test_provenance import SESSION
from whole_runs import run

from resflax import UsageError
from resflax.devices.kernels import kernels_note
from resflax.devices.settings import check_settings
from resflax.kernels import library
from resflax.kernels.library import NOT_BUILT, VERSION, State
from resflax.runs.environment import describe_environment
from resflax.runs.versions import version_changes

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

STUB = """
extern "C" {
int resflax_kernels_version() { return %d; }
int resflax_kernels_ffi_version() { return %d; }
void Forward() {}
void Backward() {}
}
"""


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Puts a file with some content in the place of the library; None: there is no file."""

    def put(content: bytes | None) -> Path:
        path = tmp_path / library.LIBRARY.name
        if content is not None:
            path.write_bytes(content)
        monkeypatch.delenv("RESFLAX_KERNELS", raising=False)
        monkeypatch.setattr(library, "LIBRARY", path)
        return path

    return put


def other_library() -> bytes:
    """The content of a library that is not ours."""
    return Path(_ctypes.__file__).read_bytes()


def stub(folder: Path, version: int, ffi_version: int) -> bytes:
    """A library with our functions' names that do nothing."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    source, built = folder / "stub.cc", folder / "stub.so"
    source.write_text(STUB % (version, ffi_version))
    subprocess.run([COMPILER, "-shared", "-fPIC", source, "-o", built], check=True)
    return built.read_bytes()


# --- Loading


def test_targets_have_the_version_in_their_names():
    assert library.target("Forward") == f"resflax_forward_v{VERSION}"
    assert library.target("KernelGradient") == f"resflax_kernel_gradient_v{VERSION}"


def test_kernels_that_were_built_are_loaded_once_by_all_threads(monkeypatch):
    monkeypatch.delenv("RESFLAX_KERNELS", raising=False)
    if not library.LIBRARY.exists():
        pytest.skip("the kernels are not built")
    found: list[State] = []
    threads = [threading.Thread(target=lambda: found.append(library.state())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8
    assert found[0].fault is None
    assert found[0].instruction_set in ("avx512", "avx2", "baseline")
    assert library.load()
    assert kernels_note() is None


def test_kernels_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("RESFLAX_KERNELS", "off")
    assert library.state() == State()
    assert not library.load()
    assert kernels_note() is None


def test_a_switch_that_is_neither_on_nor_off_is_refused(monkeypatch, experiment, tmp_path):
    monkeypatch.setenv("RESFLAX_KERNELS", "no")
    with pytest.raises(UsageError, match="RESFLAX_KERNELS is 'no'; it must be on or off"):
        check_settings()
    _, err = run(experiment, "--run-dir", tmp_path / "run", code=2)
    assert "RESFLAX_KERNELS is 'no'" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("switch", [None, "", "on"])
def test_without_a_library_there_are_none(put, monkeypatch, switch):
    put(None)
    if switch is not None:
        monkeypatch.setenv("RESFLAX_KERNELS", switch)
    assert library.state() == State(fault=NOT_BUILT)
    assert not library.load()
    note = kernels_note()
    assert note is not None
    assert "were not built, for which a C++17 compiler is needed" in note


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_library_that_was_cut_off_is_not_loaded(put, part):
    content = other_library()
    put(content[: int(len(content) * part)])
    fault = library.state().fault
    assert fault is not None
    assert fault.startswith("libresflax_kernels.so cannot be loaded: ")
    assert fault in str(kernels_note())


@pytest.mark.parametrize("content", [b"no library\n" * 100, None])
def test_a_library_that_is_not_ours_is_not_loaded(put, content):
    put(content or other_library())
    fault = str(library.state().fault)
    assert fault.startswith("libresflax_kernels.so cannot be loaded: ")
    assert "\n" not in fault
    assert not library.load()


def test_a_library_of_another_version_is_not_loaded(put, tmp_path):
    put(stub(tmp_path, VERSION + 1, 1))
    assert library.state().fault == (
        f"libresflax_kernels.so cannot be loaded: it has version {VERSION + 1}, and this resflax "
        f"needs {VERSION}"
    )


@pytest.mark.parametrize("ffi_version", [999, 1_000_000])
def test_a_library_for_a_later_jaxlib_is_not_loaded(put, tmp_path, ffi_version):
    put(stub(tmp_path, VERSION, ffi_version))
    assert "it was made for another version of jaxlib" in str(library.state().fault)


# --- In runs

WITHOUT = """
from pathlib import Path
from resflax.kernels import library
library.LIBRARY = Path("nowhere.so")
"""


def test_a_run_without_kernels_says_why_once_and_records_it(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("RESFLAX_KERNELS", "off")
    silent, _ = run(experiment, "--run-dir", tmp_path / "off")
    assert "for CPUs" not in silent
    monkeypatch.setenv("RESFLAX_KERNELS", "on")
    said, _ = run(experiment, "--run-dir", tmp_path / "none", patch=WITHOUT)
    assert said.count("without resflax's kernels for CPUs: they were not built") == 1
    off, none = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("off", "none")
    )
    assert off["params_sha256"] == none["params_sha256"]
    off, none = (
        json.loads((tmp_path / name / "environment.json").read_text()) for name in ("off", "none")
    )
    assert off["kernels"] == {"without": "RESFLAX_KERNELS is off"}
    assert off["flags"]["RESFLAX_KERNELS"] == "off"
    assert none["kernels"] == {"without": NOT_BUILT}
    said, err = run(tmp_path / "none", script="evaluate", patch=WITHOUT)
    assert said.count("kernels for CPUs") == 1
    said, err = run(tmp_path / "none", "--json", script="evaluate", patch=WITHOUT)
    assert json.loads(said)["top1_error"]
    assert err.count("kernels for CPUs") == 1


def test_the_environment_names_the_instruction_set(monkeypatch):
    monkeypatch.delenv("RESFLAX_KERNELS", raising=False)
    monkeypatch.setattr(library, "_loaded", lambda path: State("avx2"))
    assert describe_environment()["kernels"] == {"version": VERSION, "instruction_set": "avx2"}


AVX2 = {"kernels": {"version": 1, "instruction_set": "avx2"}}
AVX512 = {"kernels": {"version": 1, "instruction_set": "avx512"}}
OFF = {"kernels": {"without": "RESFLAX_KERNELS is off"}}
ABSENT = {"kernels": {"without": NOT_BUILT}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (AVX2, AVX2, None),
        (OFF, ABSENT, None),
        ({}, OFF, None),
        ({}, AVX2, "begun with kernels none, continued with kernels 1 (avx2)"),
        (OFF, AVX512, "begun with kernels none, continued with kernels 1 (avx512)"),
        (AVX512, ABSENT, "begun with kernels 1 (avx512), continued with kernels none"),
        (AVX512, AVX2, "begun with kernels 1 (avx512), continued with kernels 1 (avx2)"),
    ],
)
def test_a_run_that_continues_with_other_kernels_says_so(before, now, said):
    changed = version_changes([SESSION | before], SESSION | now, streamed=False)
    assert changed == (said and f"{said}: numbers may differ in rounding")
    on_gpu = {"devices": ["cuda:0 NVIDIA H100"]}
    before, now = SESSION | before | on_gpu, SESSION | now | on_gpu
    assert version_changes([before], now, streamed=False) is None


def test_a_run_that_is_continued_with_kernels_says_so(experiment, tmp_path, monkeypatch):
    if not library.LIBRARY.exists():
        pytest.skip("the kernels are not built")
    folder = tmp_path / "run"
    monkeypatch.setenv("RESFLAX_KERNELS", "off")
    stop = """
from resflax.runs.loop import TrainingLoop
save = TrainingLoop.save
def saving(self, state, step):
    save(self, state, step)
    if step == 18:
        self.saving.finish()
        raise SystemExit(0)
TrainingLoop.save = saving
"""
    run(experiment, "--run-dir", folder, patch=stop)
    monkeypatch.setenv("RESFLAX_KERNELS", "on")
    said, _ = run(experiment, "--run-dir", folder)
    (line,) = (line for line in said.splitlines() if "kernels" in line)
    assert line.startswith(f"begun with kernels none, continued with kernels {VERSION} (")
    assert line.endswith("): numbers may differ in rounding")
    first = json.loads((folder / "environment.json").read_text())
    (continued,) = first.pop("continued")
    assert first["kernels"] == {"without": "RESFLAX_KERNELS is off"}
    assert continued["kernels"]["version"] == VERSION
