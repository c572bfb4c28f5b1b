"""Compiled programs that were not written to their end are compiled and kept again."""

import os
import subprocess
import sys
import zlib

import pytest
from conftest import ROOT

from resflax.devices import compiled_cache
from resflax.devices.compiled_cache import remove_damaged


def test_damaged_programs_are_removed_and_whole_ones_are_checked_once(tmp_path, monkeypatch):
    program = zlib.compress(os.urandom(10_000))
    contents = {
        "whole-cache": program,
        "cut-cache": program[:-10],
        "empty-cache": b"",
        "zero-cache": b"\0" * len(program),
        "other": b"no program",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    remove_damaged(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".checked", "other", "whole-cache"]

    def read(content):
        raise AssertionError("it was checked before")

    os.utime(tmp_path / "whole-cache", (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(compiled_cache, "_is_whole", read)
        remove_damaged(tmp_path)
    (tmp_path / "whole-cache").write_bytes(b"")  # by a power cut, after it was checked
    os.utime(tmp_path / "whole-cache", (1, 1))
    remove_damaged(tmp_path)
    assert not (tmp_path / "whole-cache").exists()


def test_programs_that_zstandard_compressed_are_checked_where_it_is_installed():
    zstandard = pytest.importorskip("zstandard")
    program = zstandard.compress(os.urandom(10_000))
    assert compiled_cache._is_whole(program)
    assert not compiled_cache._is_whole(program[:-10])


_PROGRAM = """
import sys
import jax, jax.numpy as jnp
from resflax.devices.compilation import keep_compiled
keep_compiled()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: (jnp.sin(x) @ x).sum())(jnp.ones((8, 8)))))
"""


@pytest.mark.slow
def test_jax_keeps_a_program_again_that_was_cut_off(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}

    def compile_and_run():
        command = [sys.executable, "-c", _PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    printed, _ = compile_and_run()
    programs = {path: path.read_bytes() for path in tmp_path.rglob("*-cache")}
    assert programs
    for path, content in programs.items():
        path.write_bytes(content[: len(content) // 2])
    assert compile_and_run() == (printed, "")  # no warning
    assert {path for path in tmp_path.rglob("*-cache") if path.stat().st_size} == set(programs)
    sizes = {path: path.stat().st_size for path in programs}
    assert all(sizes[path] > len(content) // 2 for path, content in programs.items())
