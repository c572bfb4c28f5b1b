"""The kernels without JAX, by `native/kernels_driver.cc`: right, and clean for the sanitizers."""

import os
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
SOURCE = ROOT / "resflax" / "kernels" / "source"
SANITIZERS = {
    "address and undefined behaviour": (
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ),
    "threads": ("-fsanitize=thread",),
}
INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


def compiled(command: list[object]) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def build(folder: Path, *flags: str) -> Path:
    """Builds the driver, with as little optimisation as keeps it quick to build and to run."""
    macros = subprocess.run(
        [str(COMPILER), "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True
    )
    of_files = runpy.run_path(str(ROOT / "setup.py"))["FLAGS_OF_X86"]
    sources = [ROOT / "tests" / "native" / "kernels_driver.cc"]
    sources += [path for path in SOURCE.glob("*.cc") if path.stem != "handlers"]

    def compile_one(source: Path) -> Path:
        of_file = of_files.get(source.stem, ()) if "__x86_64__" in macros.stdout else ()
        path = folder / f"{source.stem}.o"
        options = ("-std=c++17", "-O1", "-g1", "-pthread", *flags, *of_file, "-I", SOURCE)
        compiled([COMPILER, *options, "-c", source, "-o", path])
        return path

    with ThreadPoolExecutor(2) as threads:
        paths = list(threads.map(compile_one, sources))
    compiled([COMPILER, "-pthread", *flags, *paths, "-o", folder / "driver"])
    return folder / "driver"


@cache
def links_with(*flags: str) -> bool:
    """Whether the compiler can build and run a program with these flags."""
    if COMPILER is None:
        return False
    code = "int main() { return 0; }"
    command = [COMPILER, "-x", "c++", "-", *flags, "-o", "/dev/null"]
    return subprocess.run(command, input=code, text=True, capture_output=True).returncode == 0


def run(driver: Path, instruction_set: str, cases: int, seed: int) -> None:
    """Runs the driver, if the processor has the instruction set."""
    environment = os.environ | {"RESFLAX_KERNELS_ISA": instruction_set}
    command = [str(driver), str(cases), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode == 0 and f"with {instruction_set}: " not in done.stdout:
        pytest.skip(f"this processor has no {instruction_set}")
    expected = f"{cases} cases with {instruction_set}: right\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stdout + done.stderr


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not links_with():
        pytest.skip("there is no C++ compiler")
    return build(tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_kernels_equal_plain_loops(driver: Path, instruction_set: str):
    run(driver, instruction_set, 200, seed=0)


@pytest.fixture(scope="module", params=SANITIZERS)
def sanitized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = SANITIZERS[request.param]
    if not links_with(*flags):
        pytest.skip("the compiler has no such sanitizer")
    return build(tmp_path_factory.mktemp("sanitized"), *flags)


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_sanitizers_find_nothing(sanitized: Path, instruction_set: str):
    run(sanitized, instruction_set, 600, seed=1)
