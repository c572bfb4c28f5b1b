"""The names of published networks are complete and need no JAX, and typing errors get advice.

Also `scripts/summary.py`, which takes such a name.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resflax import DenseNet, Experiment, ResNet, UsageError
from resflax.experiment import from_json, to_json
from resflax.models.zoo import NAMES, TASKS, named

ROOT = Path(__file__).parents[1]

IMAGENET = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet200",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
]
CIFAR = [
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet1202",
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
    "preact_resnet110",
    "preact_resnet164",
    "preact_resnet1001",
    "wrn_40_4",
    "wrn_16_8",
    "wrn_28_10",
    "densenet_40_12",
    "densenet_100_12",
    "densenet_100_24",
    "densenet_bc_100_12",
    "densenet_bc_250_24",
    "densenet_bc_190_40",
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_names_are_those_of_the_published_networks():
    assert sorted(NAMES) == sorted(IMAGENET + CIFAR)
    assert all(named(name).layout == "imagenet" for name in IMAGENET)
    assert all(named(name).layout == "cifar" for name in CIFAR)
    assert TASKS["cifar"] == ((32, 32, 3), 10)
    assert TASKS["imagenet"] == ((224, 224, 3), 1000)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_a_plain_twin_differs_in_the_shortcut_alone(depth):
    residual, plain = named(f"resnet{depth}").resolved(), named(f"plain{depth}").resolved()
    assert isinstance(residual, ResNet)
    assert isinstance(plain, ResNet)
    assert (residual.shortcut, plain.shortcut) == ("zero_pad", "none")
    assert (residual.depth, residual.block, residual.order) == (depth, plain.block, plain.order)


def test_pre_activation_networks_are_full_pre():
    names = [name for name in NAMES if getattr(named(name), "order", "") == "full_pre"]
    expected = ["preact_resnet110", "preact_resnet164", "preact_resnet1001", "resnet200"]
    wide = ["wrn_40_4", "wrn_16_8", "wrn_28_10"]
    assert sorted(names) == sorted(expected + wide)


def test_wide_networks_have_the_depth_and_widening_of_their_names():
    for name in ("wrn_40_4", "wrn_16_8", "wrn_28_10"):
        config = named(name).resolved()
        assert isinstance(config, ResNet)
        assert name == f"wrn_{config.depth}_{config.widening}"
        assert 6 * config.units_per_stage[0] + 4 == config.depth
        assert (config.block, config.shortcut) == ("basic", "projection")


def test_dense_networks_have_the_depth_and_growth_rate_of_their_names():
    for name in NAMES:
        config = named(name)
        if isinstance(config, DenseNet) and config.layout == "cifar":
            *_, depth, growth_rate = name.split("_")
            assert (config.depth, config.growth_rate) == (int(depth), int(growth_rate))
            assert (config.bottleneck and config.compression == 0.5) == ("_bc_" in name)
    config = named("densenet161").resolved()
    assert isinstance(config, DenseNet)
    assert (config.growth_rate, config.initial_channels) == (48, 96)


@pytest.mark.parametrize("name", NAMES)
def test_a_named_network_survives_the_json_of_an_experiment(name):
    experiment = Experiment(name="x", model=named(name), batch_size=1, steps=1)
    reread = from_json(json.loads(json.dumps(to_json(experiment))))
    assert reread == experiment.resolved()
    assert reread.content_hash == experiment.content_hash


@pytest.mark.parametrize(
    ("mistyped", "intended"), [("resnet51", "resnet50"), ("densenet12", "121")]
)
def test_a_mistyped_name_is_answered_with_close_names(mistyped, intended):
    with pytest.raises(UsageError, match=rf"'{mistyped}'; did you mean .*{intended}"):
        named(mistyped)


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(UsageError, match=r"'zzz'; there are resnet18, .*densenet_bc_190_40"):
        named("zzz")


def test_names_need_no_jax():
    code = "import sys, resflax.models.zoo as z; z.named('resnet50'); print('jax' in sys.modules)"
    assert run("-c", code).stdout == "False\n"


def test_summary_takes_a_name_and_overrides():
    done = run("scripts/summary.py", "--json", "resnet50", "--model.groups=32",
               "--model.bottleneck-width", "128")  # fmt: skip
    summary = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(summary) == {"params", "macs", "activation_bytes", "layers"}
    assert summary["params"] == 25_028_904
    for number in ("params", "macs", "activation_bytes"):
        assert summary[number] == sum(layer[number] for layer in summary["layers"])


def test_summary_takes_an_experiment_and_overrides():
    experiment = "experiments/quickstart.py"
    summary = json.loads(run("scripts/summary.py", experiment, "--json").stdout)
    assert summary["params"] == 269_722 - 2 * 9 * 16  # gray pictures
    overrides = ("--model.shortcut", "conv", "--precision=bfloat16", "--json")
    half = json.loads(run("scripts/summary.py", experiment, *overrides).stdout)
    assert half["params"] == 283_962 - 2 * 9 * 16
    assert half["layers"][0]["activation_bytes"] * 2 == summary["layers"][0]["activation_bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet51"], "no network is named 'resnet51'; did you mean resnet56"),
        (["resnet50", "--model.depth", "51"], "ResNet.depth is 51; the imagenet layout has 18"),
        (["resnet50", "--seed", "1"], "--seed"),
        (["densenet121", "--model.groups", "2"], "--model.groups"),
        ([], "an experiment file (ending in .py) must come first, and none was named"),
    ],
)
def test_summary_refuses_in_one_line(arguments, message):
    done = run("scripts/summary.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_summary_prints_a_table():
    done = run("scripts/summary.py", "resnet20")
    assert done.returncode == 0
    assert "269,722" in done.stdout
    assert "40,551,040" in done.stdout
    assert "1,507,368" in done.stdout
