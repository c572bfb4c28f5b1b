"""Several hosts that train together, here processes of one machine that know of each other."""

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_command import ForkedCommand
from photos import encode, photo
from whole_runs import metrics, result, run, start

EXPERIMENT = """
from resflax import *

experiment = Experiment(
    name="hosts",
    model=ResNet(8),
    data=Digits(),
    batch_size=48,
    steps=20,
    schedule=Cosine(warmup_steps=3),
    log_every=4,
    evaluate_every=10,
    checkpoint_every=7,
    precise_batch_norm=2,
    parallel="shard_map",
)
"""

SLOW = """
import time
from resflax.runs import loop
advance = loop.TrainingLoop._advance
def slow(self, *args):
    time.sleep(0.2)
    return advance(self, *args)
loop.TrainingLoop._advance = slow
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "hosts.py"
    path.write_text(EXPERIMENT)
    return path


def start_two(
    *arguments: object, own: tuple[tuple[object, ...], ...] = ((), ()), **options: Any
) -> list[ForkedCommand]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        start(*arguments, *own[n], "--hosts", f"localhost:{port},2,{n}", devices=2, **options)
        for n in (0, 1)
    ]


def start_two_by_slurm(*arguments: object) -> list[ForkedCommand]:
    """In the environment that `srun --ntasks 2` gives to each."""
    job = os.getpid()  # of it JAX makes the port
    told = {"JOB_ID": job, "STEP_NODELIST": "localhost", "NTASKS": 2, "STEP_NUM_NODES": 1}
    return [
        start(
            *(*arguments, "--hosts", "auto"),
            devices=2,
            patch="import os\n"
            + "".join(
                f"os.environ['SLURM_{name}'] = '{value}'\n"
                for name, value in (told | {"PROCID": number, "LOCALID": number}).items()
            ),
        )
        for number in (0, 1)
    ]


def end(hosts: list[ForkedCommand], code: int) -> list[tuple[str, str]]:
    printed = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [code, code], printed
    return [(_without_gloo(out), _without_gloo(err)) for out, err in printed]


def _without_gloo(text: str) -> str:
    """Removes what the library that carries sums between CPUs prints.

    Its threads tear each other's lines apart, so that the number at the end may stand alone.
    """
    lines = [line for line in text.splitlines(True) if line.strip() and not line.strip().isdigit()]
    return "".join(line for line in lines if "[Gloo]" not in line and "peer ranks" not in line)


def assert_close(folder: Path, other: Path) -> None:
    """The same measurements, up to the order in which numbers are added."""
    lines, others = metrics(folder), metrics(other)
    assert [(line["step"], line["split"]) for line in lines] == [
        (line["step"], line["split"]) for line in others
    ]
    for line, there in zip(lines, others, strict=True):
        # Another order of additions grows in a training, from the last bit on.
        bound = 1e-4 if line["step"] <= 4 else 0.05
        assert np.isclose(line["loss"], there["loss"], rtol=bound), (line, there)
        assert abs(line["error"] - there["error"]) < 0.06, (line, there)


@pytest.fixture(scope="module")
def undisturbed(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts") / "run"
    (first, err), (second, err_of_second) = end(start_two(experiment, "--run-dir", folder), 0)
    assert "step 20/20" in first
    assert (second, err, err_of_second) == ("", "", "")
    return folder


def test_two_hosts_train_as_one_host_with_their_devices(
    experiment: Path, undisturbed: Path, tmp_path: Path
):
    run(experiment, "--run-dir", tmp_path / "alone", devices=4)
    assert_close(undisturbed, tmp_path / "alone")
    assert len(json.loads((undisturbed / "environment.json").read_text())["devices"]) == 4
    (out, _), (nothing, _) = end(start_two(experiment, "--run-dir", undisturbed), 0)
    assert "finished: nothing to do" in out
    assert nothing == ""


def test_a_signal_to_one_host_ends_both_and_both_continue(
    experiment: Path, undisturbed: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    hosts = start_two(experiment, "--run-dir", folder, patch=SLOW)
    _wait_for(folder / "metrics.jsonl")
    hosts[1].send_signal(signal.SIGTERM)
    (_, err), _ = end(hosts, 128 + signal.SIGTERM)
    assert "and saved; the same command continues" in err
    assert not (folder / "result.json").exists()
    end(start_two(experiment, "--run-dir", folder), 0)
    assert metrics(folder) == metrics(undisturbed)
    assert result(folder)["params_sha256"] == result(undisturbed)["params_sha256"]


def test_slurm_tells_who_the_others_are(experiment: Path, undisturbed: Path, tmp_path: Path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "20")
    (out, err), other = end(start_two_by_slurm(experiment, "--run-dir", folder), 0)
    assert "continuing from step 14" in out
    assert (err, *other) == ("", "", "")
    assert metrics(folder) == metrics(undisturbed)
    assert result(folder)["params_sha256"] == result(undisturbed)["params_sha256"]


def test_hosts_that_are_killed_continue(experiment: Path, undisturbed: Path, tmp_path: Path):
    folder = tmp_path / "run"
    hosts = start_two(experiment, "--run-dir", folder, patch=SLOW)
    _wait_for(folder / "checkpoints" / "7" / "sha256.json")
    for host in hosts:
        os.kill(host.pid, signal.SIGKILL)
    end(hosts, -signal.SIGKILL)
    (out, _), _ = end(start_two(experiment, "--run-dir", folder), 0)
    assert "continuing from step " in out
    assert metrics(folder) == metrics(undisturbed)
    assert result(folder)["params_sha256"] == result(undisturbed)["params_sha256"]


def _wait_for(file: Path) -> None:
    for _ in range(1200):
        if file.exists() and file.read_text().count("\n"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} was never written")


STREAMED = EXPERIMENT.replace("data=Digits(),", "data=ImageFolder(image_size=16, bad_pictures=3),")


def test_hosts_read_their_own_pictures_of_a_stream(tmp_path: Path):
    data = tmp_path / "pictures"
    for split, count in (("train", 30), ("val", 9)):
        for label in ("cat", "dog"):
            (data / split / label).mkdir(parents=True)
            for number in range(count):
                picture = encode(photo(24, 30, seed=number + 100 * len(label) + ord(label[0])))
                (data / split / label / f"{number}.jpg").write_bytes(picture)
    for number in (3, 17):
        (data / "train" / "cat" / f"{number}.jpg").write_bytes(b"no picture")
    path = tmp_path / "streamed.py"
    path.write_text(STREAMED)
    named = (path, "--data.data-dir", data, "--batch-size", 12)
    alone, together = tmp_path / "alone", tmp_path / "together"
    run(*named, "--run-dir", alone, devices=4)
    (out, _), _ = end(start_two(*named, "--run-dir", together), 0)
    assert_close(together, alone)
    # Each host meets its own bad pictures, and the first one names those of both.
    assert out.count("passed over") == 2
    for folder in (alone, together):
        training = [line for line in metrics(folder) if line["split"] == "train"]
        assert training[-1]["bad_pictures"] == 2


def test_hosts_measure_their_parts_of_a_split(undisturbed: Path, tmp_path: Path):
    asked = (undisturbed, "--crops", "10", "--json", "--predictions")
    alone, _ = run(*asked, tmp_path / "alone.npz", script="evaluate")
    (out, _), (nothing, _) = end(start_two(*asked, tmp_path / "together.npz", script="evaluate"), 0)
    assert nothing == ""
    one, two = json.loads(alone), json.loads(out)
    assert one.keys() == two.keys()
    assert np.isclose(one["loss"], two["loss"], rtol=1e-5)
    assert one["top1_error"] == two["top1_error"]
    with np.load(tmp_path / "alone.npz") as a, np.load(tmp_path / "together.npz") as b:
        assert a.keys() == b.keys()
        for name in a:
            assert np.allclose(a[name], b[name], atol=1e-5), name


def test_two_hosts_begin_with_the_weights_of_another_run(
    experiment: Path, undisturbed: Path, tmp_path: Path
):
    named = (experiment, "--initialize-from", undisturbed, "--steps", 4)
    (out, _), _ = end(start_two(*named, "--run-dir", tmp_path / "two"), 0)
    assert "starting with the weights" in out
    run(*named, "--run-dir", tmp_path / "alone", devices=4)
    assert_close(tmp_path / "two", tmp_path / "alone")


def test_a_failure_of_one_host_ends_all_soon(experiment: Path, tmp_path: Path):
    # Only one of them finds its memory too small.
    patch = """
import jax
from resflax.errors import UsageError
from resflax.devices import memory
def fails(*args):
    if jax.process_index() == 1:
        raise UsageError("too large for the second host")
memory.check_fits = fails
"""
    began = time.monotonic()
    hosts = start_two(experiment, "--run-dir", tmp_path / "run", patch=patch)
    for _, err in end(hosts, 2):
        assert err == "error: too large for the second host\n"
    assert time.monotonic() - began < 60
    assert not (tmp_path / "run").exists()


def test_sigterm_ends_a_host_that_is_not_training(experiment: Path, tmp_path: Path):
    patch = """
import os, signal
from resflax.runs import session
def stopped(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("SIGTERM was lost")
session.make_plan = stopped
"""
    hosts = start_two(experiment, "--run-dir", tmp_path / "run", patch=patch)
    end(hosts, 128 + signal.SIGTERM)


def test_what_cannot_be_is_said_in_one_line(experiment: Path, tmp_path: Path):
    folder = tmp_path / "run"
    for _, err in end(start_two(experiment, "--run-dir", folder, "--parallel", "pmap"), 2):
        assert err == "error: several hosts need --parallel shard_map\n"
    for _, err in end(start_two(experiment, "--run-dir", folder, own=((), ("--seed", 1))), 2):
        assert err == "error: the hosts have different experiments; all need the same\n"
    assert not folder.exists()
    for wrong in ("node1", "node1:1,2", "node1:1,2,2", "node1:1,two,0", ":1,2,0"):
        _, err = run(experiment, "--run-dir", folder, "--hosts", wrong, code=2)
        assert err.startswith(f"error: --hosts is {wrong}; it must be auto, or ADDRESS:PORT,COUNT,")
    _, err = run(experiment, "--run-dir", folder, "--hosts", "auto", code=2)
    assert "the other hosts were not found" in err
    assert not folder.exists()
    folder.mkdir()
    (folder / "foreign").write_text("")
    for _, err in end(start_two(experiment, "--run-dir", folder), 2):
        assert "is not a run folder (it has foreign" in err
