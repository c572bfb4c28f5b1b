"""The first start of a very deep network is not much slower than that of a shallow one."""

import os
import resource
import subprocess
import sys

import pytest
from conftest import ROOT


def seconds_of_first_start(depth, folder):
    """Processor seconds of two steps and their evaluation, without programs compiled before."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "scripts/train.py", "experiments/quickstart.py"]
    command += ["--model.depth", str(depth), "--steps", "2", "--batch-size", "16"]
    command += ["--run-dir", str(folder / "run")]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_resnet_1202_starts_within_twice_the_time_of_resnet_20(tmp_path):
    shallow = seconds_of_first_start(20, tmp_path / "shallow")
    assert seconds_of_first_start(1202, tmp_path / "deep") < 2 * shallow
