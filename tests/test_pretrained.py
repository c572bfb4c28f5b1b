"""Imported weights are measured, trained on and exported again.

A classifier for other classes is drawn anew, and weights that do not fit are refused.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from resflax import CIFAR10, SGD, Cosine, DenseNet, Digits, Experiment, ResNet, UsageError
from resflax.data.in_memory import load_split
from resflax.data.normalization import Normalization
from resflax.models import build
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.initialization import start_from
from resflax.runs.pretrained import Colours, expected_colours, export_weights, import_weights
from resflax.runs.run_folder import RunFolder
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import initial_state, params_sha256
from resflax.weights.convert import from_torch, to_torch
from resflax.weights.layer_names import family_of
from resflax.weights.tensor_files import encode_safetensors, read_content

ROOT = Path(__file__).parent.parent
EXPERIMENT = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(), batch_size=64, steps=3, schedule=Cosine()
)
"""
TINY = Experiment(
    name="tiny", model=ResNet(8), data=Digits(), batch_size=64, steps=3, schedule=Cosine()
)


def run(script, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, arguments)],
        env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    if code:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def net():
    """pytorch_resnet_cifar10's network for gray pictures, with batch statistics of noise."""
    torch = pytest.importorskip("torch")
    from tests import torch_reference

    torch.manual_seed(0)
    net = torch_reference.CifarResNet(1)
    net.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1, bias=False)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(16, 1, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def checkpoint(net, tmp_path_factory):
    """The network in a file as its training script writes it."""
    import torch

    path = tmp_path_factory.mktemp("torch") / "checkpoint.th"
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    options = argparse.Namespace(arch="resnet8")
    torch.save({"state_dict": state, "best_prec1": np.float64(12.5), "args": options}, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint, experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "run"
    colours = ("--mean", 0.3, "--std", 0.4)
    options = ("--model", experiment, "--run-dir", folder, "--entry", "state_dict", *colours)
    output = run("import_weights", checkpoint, *options)
    assert "75,002 parameters" in output
    assert "the weights are those of state_dict.module" in output
    assert "args (argparse.Namespace); only the weights are read" in output
    assert "mean 0.3 and std 0.4 are as given" in output
    return folder


def test_an_imported_network_has_the_error_and_loss_of_pytorch(imported, net):
    import torch

    measured = json.loads(run("evaluate", imported, "--json"))
    split = load_split(Digits(), "test")
    images = (split.images.astype(np.float32) / 255 - 0.3) / 0.4
    labels = torch.from_numpy(split.labels).long()
    with torch.no_grad():
        logits = net(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    wrong = int((logits.argmax(1) != labels).sum())
    assert 0 < wrong < len(split)
    assert measured["examples"] == len(split)
    assert measured["top1_error"] == pytest.approx(wrong / len(split))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert measured["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_imported_weights_are_exported_unchanged(imported, net, tmp_path):
    file = tmp_path / "out.safetensors"
    run("export_weights", imported, file)
    arrays, notes = read_content(file)
    expected = net.state_dict()
    assert arrays.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(arrays[name], tensor.numpy(), name, strict=True)
    assert json.loads(notes["mean"]) == pytest.approx([0.3])
    assert json.loads(notes["std"]) == pytest.approx([0.4])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_folder_records_where_the_weights_are_from(imported, checkpoint):
    environment = json.loads((imported / "environment.json").read_text())
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert environment["imported"] == {
        "file": "checkpoint.th",
        "sha256": sha256,
        "place": "state_dict.module",
    }
    assert json.loads((imported / "experiment.json").read_text())["name"] == "imported-tiny"
    assert not (imported / "result.json").exists()


def test_training_starts_with_imported_weights(imported, experiment, tmp_path):
    """With a learning rate that changes nothing, training ends with the imported weights."""
    folder = tmp_path / "run"
    options = ("--run-dir", folder, "--initialize-from", imported)
    no_change = ("--optimizer.learning-rate", 1e-30, "--optimizer.weight-decay", 0)
    output = run("train", experiment, *options, *no_change)
    assert f"starting with the weights and the normalisation of {imported}, step 0" in output

    before = Checkpoints(imported / "checkpoints").restore_arrays(0)
    after = Checkpoints(folder / "checkpoints").restore_arrays(3)
    assert_close = partial(np.testing.assert_allclose, rtol=0, atol=1e-25)
    jax.tree.map(assert_close, after["params"], before["params"])
    jax.tree.map(np.testing.assert_array_equal, after["normalization"], before["normalization"])
    origin = json.loads((folder / "environment.json").read_text())["initialized_from"]
    sha256 = params_sha256(before["params"])
    assert len(origin.pop("experiment")) == 12
    assert origin == {
        "run": str(imported), "name": "imported-tiny", "step": 0, "params_sha256": sha256
    }  # fmt: skip


def test_mistakes_are_one_line_and_write_nothing(checkpoint, experiment, imported, tmp_path):
    folder = tmp_path / "run"
    to_folder = ("--run-dir", folder)
    error = run("import_weights", checkpoint, "--model", "resnet20", *to_folder, code=2)
    assert "layer1.1" in error
    assert "is missing" in error
    error = run("import_weights", checkpoint, "--model", "resnet2O", *to_folder, code=2)
    assert "resnet20" in error
    other_depth = ("--model.depth", 14, "--initialize-from", imported)
    assert "model.depth: 8 != 14" in run("train", experiment, *to_folder, *other_depth, code=2)
    assert not folder.exists()


@cache
def gray_weights(config, classes, seed=0):
    """A state dict of random weights for gray pictures."""
    module = build(config, classes)
    image = np.zeros((1, 8, 8, 1), np.float32)
    return to_torch(config, module.init(jax.random.key(seed), image, train=False))


def test_a_new_classifier_is_drawn_for_other_classes(tmp_path):
    path, folder = tmp_path / "seven.safetensors", RunFolder(tmp_path / "run")
    path.write_bytes(
        encode_safetensors(gray_weights(TINY.model, 7), {"mean": "[0.5]", "std": "[0.25]"})
    )
    with pytest.raises(UsageError, match=r"7 classes, and digits has 10.*--classes 10"):
        import_weights(path, TINY, folder, say=print)
    assert not folder.path.exists()

    lines: list[str] = []
    import_weights(path, TINY, folder, classes=10, say=lines.append)
    assert any("for 7 classes: a new one is drawn for 10" in line for line in lines)
    state = Checkpoints(folder.checkpoints).restore_arrays(0)
    expected = from_torch(TINY.model, read_content(path).root)
    assert state["params"].pop("head")["kernel"].shape == (64, 10)
    expected["params"].pop("head")
    jax.tree.map(np.testing.assert_array_equal, state["params"], expected["params"])
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], expected["batch_stats"])
    np.testing.assert_array_equal(state["normalization"]["mean"], [127.5])
    np.testing.assert_allclose(state["normalization"]["scale"], [1 / 63.75], rtol=1e-7)

    with pytest.raises(UsageError, match="holds a run already"):
        import_weights(path, TINY, folder, classes=10, say=print)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"mean": "[0.5", "std": "[1]"}, "not a list of numbers"),
        ({"mean": "[[0]]", "std": "[1]"}, "not a list of numbers"),
        ({"mean": "[0.5]", "std": "[0]"}, "std above 0"),
        ({"mean": "[NaN]", "std": "[1]"}, "finite"),
        ({"mean": "[0.5, 0.5]", "std": "[1]"}, "mean has 2 channels"),
        ({}, "3 channels, and the network's pictures have 1"),
    ],
)
def test_colours_that_cannot_be_are_refused(tmp_path, notes, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(encode_safetensors(gray_weights(TINY.model, 10), notes))
    with pytest.raises(UsageError, match=message):
        import_weights(path, TINY, RunFolder(tmp_path / "run"), say=print)
    assert not (tmp_path / "run").exists()


def test_normalisation_survives_export_and_import_to_the_bit(tmp_path):
    path, colours = tmp_path / "w.safetensors", Colours((0.1307,), (0.3081,))
    path.write_bytes(encode_safetensors(gray_weights(TINY.model, 10), {}))
    first, second = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    import_weights(path, TINY, first, colours=colours, say=print)
    export_weights(first, tmp_path / "out.safetensors", print)
    import_weights(tmp_path / "out.safetensors", TINY, second, say=print)
    states = [Checkpoints(folder.checkpoints).restore_arrays(0) for folder in (first, second)]
    jax.tree.map(np.testing.assert_array_equal, states[0], states[1])


def test_an_encoder_without_classifier_gets_a_new_one(tmp_path):
    """As MoCo leaves it: two encoders, with another layer where the classifier was."""
    path, folder = tmp_path / "moco.pth.tar", RunFolder(tmp_path / "run")
    weights = gray_weights(TINY.model, 7)
    encoder = {name: array for name, array in weights.items() if not name.startswith("linear.")}
    encoder["linear.0.weight"] = np.ones((64, 64), np.float32)
    state = {
        f"module.encoder_{which}.{name}": array + add
        for which, add in (("q", 0), ("k", 1))
        for name, array in encoder.items()
    }
    path.write_bytes(pickle.dumps({"epoch": 200, "arch": "resnet8", "state_dict": state}))
    make = partial(import_weights, path, TINY, folder, colours=Colours((0.5,), (0.25,)))
    with pytest.raises(
        UsageError, match=r"moco\.pth\.tar: .*--entry encoder_q or --entry encoder_k"
    ):
        make(say=print)
    with pytest.raises(
        UsageError, match=r"no classifier linear\.weight but 'linear\.0\.w.*--classes N"
    ):
        make(say=print, entry="encoder_q")
    assert not folder.path.exists()

    lines: list[str] = []
    make(say=lines.append, entry="encoder_q", classes=10)
    assert "the weights are those of state_dict.module.encoder_q" in lines
    assert "it has no classifier: a new one is drawn for 10" in lines
    params = Checkpoints(folder.checkpoints).restore_arrays(0)["params"]
    expected = from_torch(TINY.model, weights)["params"]
    assert params.pop("head")["kernel"].shape == (64, 10)
    expected.pop("head")
    jax.tree.map(np.testing.assert_array_equal, params, expected)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PREACTIVATION = ResNet(50, "imagenet", order="full_pre", pool_first=True)


@pytest.mark.parametrize(
    ("model", "colours", "library", "interpolation"),
    [
        (ResNet(50, "imagenet"), IMAGENET, "torchvision", "bilinear"),
        (DenseNet(121, 32, "imagenet"), IMAGENET, "torchvision", "bilinear"),
        (PREACTIVATION, HALVES, "timm", "bicubic"),
        (ResNet(20), IMAGENET, "pytorch_resnet_cifar10", None),
    ],
)
def test_every_family_has_its_own_colours(tmp_path, model, colours, library, interpolation):
    """The figures of torchvision's ImageClassification and of timm's default_cfgs."""
    expected, source = expected_colours(tmp_path / "w.pth", {}, model)
    assert (expected.mean, expected.std) == colours
    assert library in source
    assert "--mean and --std change them" in source
    assert family_of(model.resolved()).pictures.interpolation == interpolation


def test_notes_and_timms_configuration_go_before_the_familys_colours(tmp_path):
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    timm = {"architecture": "resnet34", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    config.write_text(json.dumps(timm))
    model = ResNet(34, "imagenet")
    colours, source = expected_colours(path, {}, model)
    assert (colours.mean, colours.std) == HALVES
    assert f"those of {config}" in source
    colours, source = expected_colours(path, {"mean": "[0.1]", "std": "[0.2]"}, model)
    assert colours == Colours((0.1,), (0.2,))
    assert "the file notes" in source
    for other in ("{}", "[]", "no JSON", '{"pretrained_cfg": {"mean": [[]], "std": 1}}'):
        config.write_text(other)
        colours, _ = expected_colours(path, {}, model)
        assert (colours.mean, colours.std) == IMAGENET


def test_imagenets_colours_are_expected_if_none_are_named(tmp_path):
    """The figures of torchvision's documentation, as (x / 255 - mean) / std."""
    config = TINY.model
    image = np.zeros((1, 8, 8, 3), np.float32)
    variables = build(config, 10).init(jax.random.key(0), image, train=False)
    path, folder = tmp_path / "w.safetensors", RunFolder(tmp_path / "run")
    path.write_bytes(safetensors.numpy.save(to_torch(config, variables)))
    experiment = dataclasses.replace(TINY, data=CIFAR10())
    folder.begin(experiment, {})  # an import that was cut off is made again
    import_weights(path, experiment, folder, say=print)

    normalization = Checkpoints(folder.checkpoints).restore_arrays(0)["normalization"]
    x = np.array([12.0, 130.0, 255.0], np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (x / 255 - mean) / std
    normalised = (x - normalization["mean"]) * normalization["scale"]
    np.testing.assert_allclose(normalised, expected, rtol=1e-5)


def saved_run(path, experiment, classes, seed=0, mean=(1,)):
    """A run folder with a checkpoint at step 5, and its state."""
    state = drawn_state(experiment, classes, seed, mean)
    folder = RunFolder(path)
    folder.begin(experiment, {})
    Checkpoints(folder.checkpoints).save(5, state, {"seconds": 0.0})
    return folder, state


def drawn_state(experiment, classes, seed, mean=(1,)):
    rate = learning_rate(experiment.schedule, 0.1, 1)
    mean = jax.numpy.zeros(mean)
    return initial_state(
        build(experiment.model, classes),
        make_optimizer(SGD(), rate),
        Normalization(mean, jax.numpy.full(1, 0.1 + seed)),
        (8, 8, 1),
        seed,
    )


def test_starting_from_a_run_with_other_classes(tmp_path):
    source = dataclasses.replace(TINY, model=DenseNet(10, 4, dropout_rate=0.2))
    target = dataclasses.replace(TINY, model=DenseNet(10, 4))
    folder, saved = saved_run(tmp_path / "run", source, 6)
    drawn = drawn_state(target, 10, seed=1)
    lines: list[str] = []
    state, origin = start_from(folder.path, target, drawn, lines.append)
    assert any("for 6 classes: a new one is drawn for 10" in line for line in lines)
    assert origin["step"] == 5

    jax.tree.map(np.testing.assert_array_equal, state.params["head"], drawn.params["head"])
    for name in saved.params.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, state.params[name], saved.params[name])
    np.testing.assert_array_equal(state.normalization.scale, saved.normalization.scale)
    np.testing.assert_array_equal(state.key, drawn.key)
    assert state.step == 0
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, drawn.opt_state)


def test_stochastic_depth_by_picture_may_differ_and_by_batch_may_not(tmp_path):
    by_picture = ResNet(8, stochastic_depth=0.5, stochastic_depth_by="picture")
    source = dataclasses.replace(TINY, model=by_picture)
    folder, _ = saved_run(tmp_path / "run", source, 10)
    drawn = drawn_state(TINY, 10, seed=1)
    target = dataclasses.replace(TINY, model=ResNet(8))
    start_from(folder.path, target, drawn, print)
    for other in (ResNet(8, stochastic_depth=0.5), ResNet(8, shortcut="none")):
        target = dataclasses.replace(TINY, model=other)
        with pytest.raises(UsageError, match="has another network"):
            start_from(folder.path, target, drawn, print)


def test_starting_from_a_run_that_does_not_fit_is_refused(tmp_path):
    drawn = drawn_state(TINY, 10, seed=1)
    folder, _ = saved_run(tmp_path / "mean-picture", TINY, 10, mean=(8, 8, 1))
    with pytest.raises(UsageError, match=r"normalization/mean has the shape \(8, 8, 1\)"):
        start_from(folder.path, TINY, drawn, print)
    with pytest.raises(UsageError, match="none is not a run folder"):
        start_from(tmp_path / "none", TINY, drawn, print)
    empty = RunFolder(tmp_path / "empty")
    empty.begin(TINY, {})
    with pytest.raises(UsageError, match="empty has no checkpoint"):
        start_from(empty.path, TINY, drawn, print)
    plain = dataclasses.replace(TINY, model=ResNet(8, shortcut="none"))
    with pytest.raises(UsageError, match=r"model\.shortcut: 'zero_pad' != 'none'"):
        start_from(folder.path, plain, drawn_state(plain, 10, seed=1), print)


def test_exports_that_are_refused(tmp_path):
    folder, _ = saved_run(
        tmp_path / "plain", dataclasses.replace(TINY, model=ResNet(8, shortcut="none")), 10
    )
    file = tmp_path / "w.safetensors"
    with pytest.raises(UsageError, match=r"ResNet\.shortcut is 'none'"):
        export_weights(folder, file, print)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        export_weights(folder, tmp_path / "w.pth", print)
    good, _ = saved_run(tmp_path / "good", TINY, 10)
    with pytest.raises(UsageError, match=r"there is no folder .*none"):
        export_weights(good, tmp_path / "none" / "w.safetensors", print)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="that is a folder"):
        export_weights(good, tmp_path / "folder.safetensors", print)
    assert not file.exists()
