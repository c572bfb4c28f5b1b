"""Builds the kernels for CPUs, if there is a C++17 compiler. All else is in pyproject.toml.

The library has nothing of Python's in it, so that one wheel of a platform serves every version.
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

LIBRARY = Path("resflax", "kernels", "libresflax_kernels.so")
SOURCE = Path("resflax", "kernels", "source")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
FLAGS_OF_X86 = {
    "loops_avx2": ("-mavx2", "-mfma"),
    "loops_avx512": (
        *("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
        "-mprefer-vector-width=512",
    ),
}
"""Further flags of single files, which are empty for other processors."""


class BuildLibrary(build_ext):
    """Builds the library; setuptools goes on without it if that fails."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles all files at once, and moves the whole library to its place."""
        target, folder = Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp)
        target.unlink(missing_ok=True)  # of an earlier build
        compiler, headers = find_compiler(), find_headers()
        macros = run([*compiler, "-dM", "-E", "-x", "c++", os.devnull])
        of_files = FLAGS_OF_X86 if "__x86_64__" in macros else {}
        folder.mkdir(parents=True, exist_ok=True)

        def compile_one(source: Path) -> Path:
            compiled = folder / f"{source.stem}.o"
            flags = (*FLAGS, *of_files.get(source.stem, ()), "-isystem", headers)
            run([*compiler, *flags, "-c", source, "-o", compiled])
            return compiled

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            compiled = list(threads.map(compile_one, map(Path, ext.sources)))
        run([*compiler, "-shared", *compiled, "-o", folder / target.name])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / target.name, target)

    def get_ext_filename(self, fullname: str) -> str:
        """The name of the library, which names no version of Python."""
        return f"{Path(*fullname.split('.'))}.so"


class Wheel(bdist_wheel):
    """A wheel for a platform if it has the library, and for all platforms if not."""

    def run(self) -> None:
        """Builds the library before anything depends on whether it is there."""
        self.run_command("build_ext")
        built = Path(self.get_finalized_command("build_ext").build_lib, LIBRARY).exists()
        if not built:
            self.distribution.ext_modules = []
        self.root_is_pure = not built
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """The tags of versions of Python, of interfaces and of platforms."""
        *_, platform = super().get_tag()
        return "py3", "none", platform


def find_compiler() -> list[str]:
    """The command of a C++ compiler: that of CXX, or else the first that there is."""
    if declared := os.environ.get("CXX"):
        return shlex.split(declared)
    of_python = shlex.split(sysconfig.get_config_var("CXX") or "")[:1]
    for name in (*of_python, "c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise CompileError("there is no C++ compiler")


def find_headers() -> str:
    """The folder of the headers of XLA's foreign functions, which are part of jaxlib."""
    jaxlib = find_spec("jaxlib")
    for place in jaxlib.submodule_search_locations or () if jaxlib else ():
        if Path(place, "include", "xla", "ffi", "api", "ffi.h").exists():
            return str(Path(place, "include"))
    raise CompileError("there are no headers of jaxlib")


def run(command: Sequence[str | Path]) -> str:
    """Runs a program and returns what it prints."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise CompileError(f"{shlex.join(map(str, command))} failed: {error.stderr}") from None
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from None
    return done.stdout


if __name__ == "__main__":
    setup(
        ext_modules=[
            Extension(
                "resflax.kernels.libresflax_kernels",
                sources=sorted(map(str, SOURCE.glob("*.cc"))),
                depends=sorted(map(str, [*SOURCE.glob("*.h"), *SOURCE.glob("*.inc")])),
                optional=True,
            )
        ],
        cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
    )
