"""Loaded networks: the probabilities of the evaluation, whatever the number of pictures.

The data set of the run need not be there.
"""

import io
import shutil
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scoring import MEAN, MODEL, SCALE, one_by_one

import resflax
from resflax import TFDS, Digits, Experiment, ImageFolder, ResNet, UsageError
from resflax.data.in_memory import load_split
from resflax.data.normalization import Normalization
from resflax.evaluation.evaluate import evaluate
from resflax.models import build
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display
from resflax.training.optimizer import make_optimizer
from resflax.training.state import initial_state

CLASSES = 3


def save_run(path, data, mean=MEAN, scale=SCALE, *, size=(8, 8), model=MODEL, precision="float32"):
    """Makes the folder of a run with one checkpoint of drawn weights, and returns the weights."""
    experiment = Experiment(
        name="s", model=model, data=data, batch_size=16, steps=1, precision=precision
    )
    folder = RunFolder(path)
    folder.begin(experiment.resolved(), {})
    optimizer = make_optimizer(experiment.optimizer, lambda step: jnp.float32(0.1))
    normalization = Normalization(jnp.float32(mean), jnp.float32(scale))
    shape = (*size, len(scale))
    state = initial_state(build(model, CLASSES), optimizer, normalization, shape, seed=1)
    Checkpoints(folder.checkpoints).save(0, state, {"seconds": 0.0})
    return folder.path


def pictures(count, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture(scope="module")
def network(undisturbed):
    return resflax.load(undisturbed)


@pytest.fixture(scope="module")
def digits():
    return load_split(Digits(), "test").images


def test_predictions_are_those_of_the_evaluation(network, undisturbed, digits, tmp_path):
    quiet = Display(Console(file=io.StringIO()))
    evaluate([RunFolder(undisturbed)], "test", None, quiet, predictions=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        probabilities = file["probabilities"]
    predicted = network.predict(digits)
    assert (predicted.dtype, predicted.shape) == (np.float32, (355, 10))
    np.testing.assert_allclose(predicted, probabilities, atol=1e-6)


def test_64_bits_elsewhere_in_a_program_change_nothing(network, digits):
    before = network.predict(digits[:5]), np.asarray(network.normalize(digits[:5]))
    with jax.enable_x64(True):
        after = network.predict(digits[:5]), np.asarray(network.normalize(digits[:5]))
    for here, there in zip(before, after, strict=True):
        assert here.dtype == there.dtype == np.float32
        np.testing.assert_array_equal(here, there)


def test_the_module_applies_the_variables_by_name(network, undisturbed, digits):
    logits: Any = network.module.apply(
        network.variables, network.normalize(digits[:9]), train=False
    )
    expected = network.predict(digits[:9])
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)
    assert (network.step, network.num_classes, network.image_shape) == (40, 10, (8, 8, 1))
    assert network.class_names == [str(digit) for digit in range(10)]
    assert network.experiment == RunFolder(undisturbed).read_experiment()
    assert repr(network).startswith(f"LoadedNetwork(path={undisturbed!r}, step=40, ")
    assert len(repr(network)) < 300


def test_every_unit_has_its_own_name(tmp_path):
    data = TFDS(name="gone", data_dir=str(tmp_path / "nowhere"))
    network = resflax.load(save_run(tmp_path / "run", data, model=ResNet(20)))
    assert {"stage2_unit1", "stage2_unit2", "stage2_unit3"} < network.variables["params"].keys()
    images = pictures(2)
    logits: Any = network.module.apply(network.variables, network.normalize(images), train=False)
    np.testing.assert_allclose(jax.nn.softmax(logits), network.predict(images), atol=1e-5)


def test_any_number_of_pictures_is_compiled_once(network, digits):
    _, score = network._scoring
    everything = network.predict(digits[:300])
    for count in (1, 2, 33, 300):
        np.testing.assert_allclose(network.predict(digits[:count]), everything[:count], atol=1e-6)
    assert len(score._programs) == 1
    none = network.predict(digits[:0])
    assert (none.dtype, none.shape) == (np.float32, (0, 10))
    np.testing.assert_allclose(network.predict(jnp.asarray(digits[:2])), everything[:2], atol=1e-6)
    assert len(score._programs) == 1


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (np.zeros((2, 8, 8, 1)), r"are float64 of shape \(2, 8, 8, 1\)"),
        (np.zeros((2, 8, 8, 1), np.int8), r"are int8 of shape \(2, 8, 8, 1\)"),
        (pictures(2, (8, 8)), r"are uint8 of shape \(2, 8, 8\)"),
        (pictures(2, (8, 8, 3)), r"are uint8 of shape \(2, 8, 8, 3\)"),
        (pictures(2, (1, 8, 8)), r"are uint8 of shape \(2, 1, 8, 8\)"),
        (pictures(0, (8, 8, 3)), r"are uint8 of shape \(0, 8, 8, 3\)"),
        (pictures(2, (0, 8, 1)), r"are uint8 of shape \(2, 0, 8, 1\)"),
        ([pictures(1, (8, 8, 1))[0], pictures(1, (9, 8, 1))[0]], "do not form one array"),
        ("picture.png", "are <U11 of shape"),
    ],
)
def test_other_arrays_are_refused(network, images, given):
    needed = r"; the network takes uint8 of shape \(N, H, W, 1\)$"
    for method in (network.predict, network.normalize):
        with pytest.raises(UsageError, match=f"the images {given}.*{needed}"):
            method(images)


def test_a_mean_picture_gives_the_size(tmp_path):
    mean = np.random.default_rng(0).uniform(0, 255, (6, 5, 3))
    data = TFDS(name="gone", data_dir=str(tmp_path / "nowhere"), normalization="pixel")
    network = resflax.load(save_run(tmp_path / "run", data, mean, np.ones(3), size=(6, 5)))
    assert (network.num_classes, network.image_shape) == (CLASSES, (6, 5, 3))
    assert network.class_names is None
    images = pictures(4, (6, 5, 3))
    expected = [one_by_one(jax.device_get(network.variables), [image - mean]) for image in images]
    np.testing.assert_allclose(network.predict(images), expected, atol=1e-5)
    with pytest.raises(UsageError, match=r"shape \(4, 5, 6, 3\); .* of shape \(N, 6, 5, 3\)"):
        network.predict(images.transpose(0, 2, 1, 3))


def test_a_set_that_is_gone_leaves_the_size_open(tmp_path):
    data = TFDS(name="gone", data_dir=str(tmp_path / "nowhere"))
    network = resflax.load(save_run(tmp_path / "run", data))
    assert network.image_shape == (None, None, 3)
    images = pictures(3)
    normalized = (images - MEAN) * SCALE
    expected = [one_by_one(jax.device_get(network.variables), [image]) for image in normalized]
    np.testing.assert_allclose(network.predict(images), expected, atol=1e-5)


def test_a_folder_of_pictures_names_the_classes_until_it_is_gone(tmp_path):
    root = tmp_path / "pictures"
    for split in ("train", "val"):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(pictures(1)[0]).save(root / split / name / "1.png")
    data = ImageFolder(data_dir=str(root), image_size=8, shorter_side=(8, 9), test_shorter_side=10)
    run = save_run(tmp_path / "run", data)
    there = resflax.load(run)
    assert there.class_names == ["ant", "bee", "cat"]
    shutil.rmtree(root / "train" / "cat")
    assert resflax.load(run).class_names is None
    shutil.rmtree(root)
    gone = resflax.load(run)
    assert gone.class_names is None
    assert gone.image_shape == there.image_shape == (8, 8, 3)
    larger = pictures(2, (12, 20, 3))  # the network is a convolution up to its last mean
    expected = [
        one_by_one(jax.device_get(gone.variables), [(image - MEAN) * SCALE]) for image in larger
    ]
    np.testing.assert_allclose(gone.predict(larger), expected, atol=1e-5)


def test_a_network_of_bfloat16_computes_in_bfloat16(tmp_path):
    data = TFDS(name="gone", data_dir=str(tmp_path / "nowhere"))
    network = resflax.load(save_run(tmp_path / "run", data, precision="bfloat16"))
    images = pictures(3)
    logits: Any = network.module.apply(network.variables, network.normalize(images), train=False)
    assert network.module.layers.dtype == jnp.bfloat16
    np.testing.assert_allclose(jax.nn.softmax(logits), network.predict(images), atol=0.02)


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere is not a run folder"):
        resflax.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="run is of type NoneType; it must be a path"):
        resflax.load(cast(str, None))
    data = TFDS(name="gone", data_dir=str(tmp_path / "nowhere"))
    shutil.rmtree(save_run(tmp_path / "run", data) / "checkpoints")
    with pytest.raises(UsageError, match="run has no checkpoint yet"):
        resflax.load(tmp_path / "run")
