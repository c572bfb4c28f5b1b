"""Views, ensembles and measures against slow and plain computations of the same."""

import csv
import dataclasses
import io
import json
import shutil
from types import SimpleNamespace
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from whole_runs import run

from resflax import Digits, Experiment, ImageFolder, ResNet, UsageError
from resflax.data.augmentation import Normalization
from resflax.data.source import load_split
from resflax.evaluation.evaluate import Evaluation, evaluate
from resflax.evaluation.measures import calibration_error, measures
from resflax.evaluation.network import TrainedNetwork
from resflax.evaluation.predict import Prediction, predict
from resflax.evaluation.scores import batches, log_probabilities
from resflax.evaluation.views import Frame, Views, cutting, fit, whole
from resflax.models import build
from resflax.training.checkpoints import Checkpoints
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.optimizer import make_optimizer
from resflax.training.run_folder import RunFolder
from resflax.training.state import initial_state
from resflax.training.step import AXIS

CLASSES = 7
MODEL = ResNet(8)
MEAN, SCALE = np.array([100.0, 110.0, 120.0]), np.array([0.01, 0.02, 0.03])


@pytest.fixture(scope="module")
def quiet():
    return Display(Console(file=io.StringIO()))


def network(shape=(8, 8, 3), devices=1, parallel="pmap", mean=MEAN):
    """A ResNet-8 that tells pictures apart, on pictures of three channels."""
    experiment = Experiment(name="e", model=MODEL, batch_size=16, steps=1)
    normalization = Normalization(jnp.float32(mean), jnp.float32(SCALE))
    state = initial_state(build(MODEL, CLASSES), optax.sgd(0.1), normalization, shape, seed=3)
    state.params["head"]["kernel"] = state.params["head"]["kernel"] * 3
    on = Devices(parallel, jax.devices()[:devices])
    module = build(MODEL, CLASSES, axis_name=AXIS, for_training=True)
    return TrainedNetwork(experiment, module, CLASSES, shape, on, on.replicate(state), 1)


def pictures(*sizes, seed=0):
    """Smooth pictures, each of its own colours."""
    rng = np.random.default_rng(seed)
    return [
        cv2.resize(rng.integers(0, 256, (3, 3, 3), np.uint8), (width, height))
        for height, width in sizes
    ]


@jax.jit
def plain(variables, images):
    classes = len(variables["params"]["head"]["bias"])
    return build(MODEL, classes).apply(variables, images, train=False)


def one_by_one(net, views):
    """The mean over a picture's normalised views of the network's softmax, a view at a time."""
    variables = jax.device_get({"params": net.state.params, "batch_stats": net.state.batch_stats})
    total: Any = 0.0
    for view in views:
        logits = np.asarray(plain(variables, np.float32(view[None]))[0], float)
        weights = np.exp(logits - logits.max())
        total += weights / weights.sum()
    return total / len(views)


def averaged(net, views, frame, of):
    how = cutting(views, frame)
    cuts = [how.cut(picture) for picture in of]
    return np.exp(log_probabilities(net, how, cuts, len(of)))


def normalized(picture):
    return (picture - MEAN) * SCALE


def corners_and_centre(picture, size):
    height, width, _ = picture.shape
    bottom, right = height - size, width - size
    for top, left in [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]:
        yield picture[top : top + size, left : left + size]


DIFFERENT = [(20, 31), (10, 10), (37, 20), (13, 29), (40, 40)]


@pytest.mark.parametrize(("devices", "parallel"), [(1, "pmap"), (8, "shard_map")])
def test_ten_crops_are_corners_centre_and_mirrored(devices, parallel):
    net, frame = network(devices=devices, parallel=parallel), Frame((8, 8, 3), 10, 0)
    of = pictures(*DIFFERENT)
    found = averaged(net, Views(crops=10), frame, of)
    centre = averaged(net, Views(), frame, of)
    for picture, ours, single in zip(of, found, centre, strict=True):
        height, width, _ = picture.shape
        short = min(height, width)
        resized = cv2.resize(
            picture, (10 * width // short, 10 * height // short), interpolation=cv2.INTER_AREA
        )
        crops = [normalized(crop) for crop in corners_and_centre(resized, 8)]
        views = [*crops, *(crop[:, ::-1] for crop in crops)]
        np.testing.assert_allclose(ours, one_by_one(net, views), atol=1e-5)
        np.testing.assert_allclose(single, one_by_one(net, crops[4:]), atol=1e-5)
    assert np.abs(found - centre).max() > 1e-3


@pytest.mark.parametrize("devices", [1, 8])
def test_scales_are_whole_pictures(devices):
    net, frame = network(devices=devices), Frame((8, 8, 3), 10, 0)
    of = pictures((30, 40), (24, 24), (60, 80))  # 3:4 and 1:1, whose proportions are kept
    found = averaged(net, Views(scales=(12, 18), flip=True), frame, of)
    for picture, ours in zip(of, found, strict=True):
        height, width, _ = picture.shape
        views = []
        for scale in (12, 18):
            factor = scale / min(height, width)
            size = round(width * factor), round(height * factor)
            resized = normalized(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
            views += [resized, resized[:, ::-1]]
        np.testing.assert_allclose(ours, one_by_one(net, views), atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_ten_crops_of_one_size_are_padded_with_the_mean_as_in_training(devices):
    mean = MEAN + np.random.default_rng(5).normal(0, 20, (8, 8, 3))  # a mean picture
    net, frame = network(devices=devices, mean=mean), Frame((8, 8, 3), None, 2)
    of = pictures(*[(8, 8)] * 11)
    found = averaged(net, Views(crops=10), frame, of)
    for picture, ours in zip(of, found, strict=True):
        padded = np.pad((picture - mean) * SCALE, ((2, 2), (2, 2), (0, 0)))
        crops = list(corners_and_centre(padded, 8))
        views = [*crops, *(crop[:, ::-1] for crop in crops)]
        np.testing.assert_allclose(ours, one_by_one(net, views), atol=1e-5)


def test_averaged_weights_are_what_is_evaluated():
    net, frame = network(), Frame((8, 8, 3), None, 0)
    average = jax.tree.map(lambda x: 0.9 * x, net.state.variables())
    net = dataclasses.replace(net, state=net.state.replace(average=average))
    (picture,) = pictures((8, 8))
    (found,) = averaged(net, Views(), frame, [picture])
    trained = net.state.replace(params=average["params"], batch_stats=average["batch_stats"])
    expected = one_by_one(SimpleNamespace(state=trained), [normalized(picture)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - one_by_one(net, [normalized(picture)])).max() > 1e-3


def test_views_that_there_are_not():
    frame = Frame((8, 8, 3), None, 0)
    with pytest.raises(UsageError, match=r"need a padding, and the run's data.crop_padding is 0"):
        cutting(Views(crops=10), frame)
    with pytest.raises(UsageError, match=r"scale 7 is too small for crops of 8x8; .* at least 8"):
        cutting(Views(crops=10, scales=(12, 7)), frame)
    assert len(cutting(Views(crops=10, scales=(9, 12)), frame).cut(pictures((8, 8))[0])) == 10
    with pytest.raises(UsageError, match=r"Views.scales is \(8, 8\); they must differ"):
        Views(scales=(8, 8))
    with pytest.raises(UsageError, match=r"Views.scales is \(0,\); each must be at least 1"):
        Views(scales=(0,))
    with pytest.raises(UsageError, match=r"Views.crops is 5; it must be one of 1, 10"):
        Views(crops=5)  # type: ignore[arg-type]
    net = network(mean=np.zeros((8, 8, 3)))
    how = cutting(Views(scales=(9,)), frame)
    with pytest.raises(UsageError, match="subtracts a mean picture of 8x8"):
        log_probabilities(net, how, [], 0)


sides = st.integers(1, 300)


@settings(deadline=None, max_examples=200)
@given(height=sides, width=sides, scale=st.integers(6, 100))
def test_whole_pictures_have_few_shapes_and_nearly_their_proportions(height, width, scale):
    picture = np.zeros((height, width, 1), np.uint8)
    found = whole(picture, scale).shape[:2]
    assert min(found) == scale
    assert (found[0] > found[1]) <= (height >= width)
    longer = [round(scale * sixths / 6) for sixths in range(6, 25)]
    assert max(found) in longer
    proportion = min(max(height, width) / min(height, width), 4)
    half_a_pixel = 0.5 / scale
    assert abs(max(found) / scale - proportion) <= 1 / 12 + half_a_pixel


def test_a_picture_is_fitted_to_one_size_by_its_centre():
    picture = pictures((30, 40))[0]
    middle = cv2.resize(picture[:, 4:34], (15, 15), interpolation=cv2.INTER_AREA)
    assert np.array_equal(fit(picture, (15, 15)), middle)
    assert fit(picture, (10, 20)).shape == (10, 20, 3)
    assert fit(picture, (30, 40)) is picture
    assert fit(picture[:2, :3], (30, 40)).shape == (30, 40, 3)


# --- Pictures of different sizes, on the disk


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A run on a folder of pictures: its folder, and its test pictures by class and name."""
    root = tmp_path_factory.mktemp("pictures")
    names = ["apple", "bear", "crab"]
    for split, count in (("train", 1), ("val", 3)):
        for number, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                size = (20 + 7 * i, 34 - 5 * number)
                (picture,) = pictures(size, seed=10 * number + i)
                Image.fromarray(picture).save(root / split / name / f"{i}.png")
    (root / "val" / "bear" / "1.png").write_bytes(b"no picture")
    data = ImageFolder(data_dir=str(root), image_size=8, shorter_side=(8, 9), test_shorter_side=10)
    experiment = Experiment(name="s", model=MODEL, data=data, batch_size=16, steps=1)
    folder = RunFolder(tmp_path_factory.mktemp("run") / "run")
    folder.begin(experiment.resolved(), {})
    optimizer = make_optimizer(experiment.optimizer, lambda step: jnp.float32(0.1))
    normalization = Normalization(jnp.float32(MEAN), jnp.float32(SCALE))
    state = initial_state(build(MODEL, len(names)), optimizer, normalization, (8, 8, 3), seed=1)
    Checkpoints(folder.checkpoints).save(0, state, {"seconds": 0.0})
    paths = [root / "val" / name / f"{i}.png" for name in names for i in range(3)]
    return folder, state, paths


def test_a_set_on_the_disk_is_read_picture_by_picture(streamed, tmp_path):
    folder, state, paths = streamed
    said = io.StringIO()
    display = Display(Console(file=said, width=500))
    found = evaluate(
        [folder], "test", None, display, Views(crops=10), predictions=tmp_path / "p.npz"
    )
    with np.load(tmp_path / "p.npz") as arrays:
        kept = dict(arrays)
    measured = found.to_json()
    assert (measured["examples"], measured["bad_pictures"], measured["crops"]) == (8, 1, 10)
    assert {"top1_error", "top5_error", "loss", "calibration_error"} < measured.keys()
    assert kept["example"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert kept["label"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert kept["top5"].shape == (8, 3)
    assert said.getvalue().count("passing over") == said.getvalue().count(f"{paths[4]}: ") == 1
    net = SimpleNamespace(state=state)
    good = [path for path in paths if path != paths[4]]
    for path, ours in zip(good, kept["probabilities"], strict=True):
        picture = np.asarray(Image.open(path))
        height, width, _ = picture.shape
        short = min(height, width)
        size = 10 * width // short, 10 * height // short
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        crops = [normalized(crop) for crop in corners_and_centre(resized, 8)]
        views = [*crops, *(crop[:, ::-1] for crop in crops)]
        np.testing.assert_allclose(ours, one_by_one(net, views), atol=1e-5)


def test_predictions_of_such_pictures_are_the_evaluations(streamed, quiet, tmp_path):
    folder, _, paths = streamed
    evaluate([folder], "test", None, quiet, predictions=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        kept = dict(arrays)
    predicted = [one for one in predict(folder, paths, None, quiet) if isinstance(one, Prediction)]
    for one, number, row in zip(predicted, kept["example"], kept["probabilities"], strict=True):
        assert one.path == paths[number]
        assert one.seen == (8, 8)
        assert {guess.name for guess in one.guesses} == {"apple", "bear", "crab"}
        for guess in one.guesses:
            assert guess.probability == pytest.approx(row[guess.label], abs=1e-6)


def test_memory_does_not_grow_with_the_pictures():
    cut = 0

    def cuts():
        nonlocal cut
        for number in range(1000):
            cut += 1
            yield [np.zeros((8 + number % 3, 8, 1), np.uint8)] * 2

    seen = 0
    for owners, images in batches(cuts(), lambda shape: 16):
        assert images.shape[0] == 16
        seen += len(owners)
        assert 2 * cut - seen <= 3 * 16
    assert seen == 2000


# --- Measures


def by_hand(labels, probabilities):
    """All measures, an example at a time."""
    wrong = wrong_of_five = loss = 0.0
    of_class: dict[int, list[bool]] = {}
    bins: list[list[tuple[bool, float]]] = [[] for _ in range(15)]
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        right = order[0] == label
        wrong += not right
        wrong_of_five += label not in order[:5]
        loss -= np.log(row[label])
        of_class.setdefault(label, []).append(right)
        confidence = max(row)
        (place,) = (m for m in range(15) if m / 15 < confidence <= (m + 1) / 15)
        bins[place].append((right, confidence))
    n = len(labels)
    gap = 0.0
    for inside in filter(None, bins):
        accuracy = sum(right for right, _ in inside) / len(inside)
        confidence = sum(confidence for _, confidence in inside) / len(inside)
        gap += len(inside) / n * abs(accuracy - confidence)
    return wrong / n, wrong_of_five / n, loss / n, gap, of_class


@settings(deadline=None, max_examples=50)
@given(examples=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 99))
def test_measures_are_those_of_loops(examples, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    probabilities = rng.dirichlet(np.full(classes, 0.3), examples) + 1e-9
    probabilities = np.minimum(probabilities / probabilities.sum(1, keepdims=True), 1)
    found = measures(labels, np.log(probabilities))
    top1, top5, loss, gap, of_class = by_hand(labels, probabilities)
    assert found.examples == examples
    assert (found.top1_error, found.top5_error) == (top1, top5)
    assert found.loss == pytest.approx(loss)
    assert found.calibration_error == pytest.approx(gap, abs=1e-12)
    for label, accuracy in enumerate(found.per_class_accuracy):
        if label in of_class:
            assert accuracy == pytest.approx(np.mean(of_class[label]))
        else:
            assert np.isnan(accuracy)


def test_ties_and_what_is_no_number():
    labels = np.array([0, 1, 1])
    even = np.log(np.full((3, 2), 0.5, np.float32))
    assert measures(labels, even).top1_error == pytest.approx(2 / 3)  # the lower number is first
    even[0] = np.nan
    found = measures(labels, even)
    assert (found.top1_error, found.top5_error) == (1, 0)  # all of the two classes stand before
    assert np.isnan(found.loss)
    assert np.isnan(found.calibration_error)
    said = Evaluation(found, "test", Views(), {"run": 1}).to_json()
    assert (said["loss"], said["calibration_error"]) == (None, None)
    assert calibration_error(np.array([True, False]), np.array([1.0, 1.0])) == 0.5


# --- Runs


@pytest.fixture(scope="module")
def earlier(undisturbed, tmp_path_factory):
    """Another run of the same data: the first one, four steps before its end."""
    folder = shutil.copytree(undisturbed, tmp_path_factory.mktemp("earlier") / "run")
    shutil.rmtree(folder / "checkpoints" / "40")
    return folder


def predictions(folders, quiet, file, **options):
    found = evaluate(
        [RunFolder(folder) for folder in folders],
        "test",
        None,
        quiet,
        predictions=file,
        **options,
    )
    with np.load(file) as arrays:
        return found, dict(arrays)


def test_an_ensemble_averages_probabilities(undisturbed, earlier, quiet, tmp_path):
    one, first = predictions([undisturbed], quiet, tmp_path / "1.npz")
    _, second = predictions([earlier], quiet, tmp_path / "2.npz")
    both, together = predictions([undisturbed, earlier], quiet, tmp_path / "12.npz")
    assert np.abs(first["probabilities"] - second["probabilities"]).max() > 1e-3
    mean = (first["probabilities"] + second["probabilities"].astype(float)) / 2
    np.testing.assert_allclose(together["probabilities"], mean, atol=1e-6)
    assert list(both.runs.values()) == [40, 36]

    labels = load_split(Digits(), "test").labels
    assert np.array_equal(together["label"], labels)
    order = np.argsort(-together["probabilities"], 1, kind="stable")
    assert np.array_equal(together["top5"], order[:, :5])
    assert both.measures.top1_error == np.mean(mean.argmax(1) != labels)
    assert both.measures.loss == pytest.approx(-np.log(mean[np.arange(355), labels]).mean(), 1e-5)
    # What the run itself measured, on one device in another process.
    result = json.loads((undisturbed / "result.json").read_text())
    assert one.measures.top1_error == result["test_error"]
    assert one.measures.loss == pytest.approx(result["test_loss"], rel=1e-5)
    assert one.measures.examples == 355


def test_predictions_as_a_table(undisturbed, quiet, tmp_path):
    _, arrays = predictions([undisturbed], quiet, tmp_path / "a.npz")
    evaluate([RunFolder(undisturbed)], "test", None, quiet, predictions=tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["example", "label", "class1", "class2"]
    for number, row in enumerate(rows):
        assert (int(row["example"]), int(row["label"])) == (number, arrays["label"][number])
        for place in range(5):
            label = arrays["top5"][number, place]
            assert int(row[f"class{place + 1}"]) == label
            probability = float(row[f"probability{place + 1}"])
            assert probability == pytest.approx(arrays["probabilities"][number, label])
    assert len(rows) == 355
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.npz"]


def test_runs_of_other_data_are_no_ensemble(undisturbed, tmp_path, quiet):
    folder = shutil.copytree(undisturbed, tmp_path / "other")
    file = folder / "experiment.json"
    file.write_text(file.read_text().replace('"validation": 100', '"validation": 99'))
    said = "data.validation is 100 in .*run and 99 in .*other"
    with pytest.raises(UsageError, match=said):
        evaluate([RunFolder(undisturbed), RunFolder(folder)], "test", None, quiet)
    with pytest.raises(UsageError, match="run is named twice"):
        evaluate([RunFolder(undisturbed)] * 2, "test", None, quiet)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p.txt", "must end in .npz or .csv"),
        ("nowhere/p.npz", "there is no folder"),
        ("folder.csv", "that is a folder"),
    ],
)
def test_predictions_that_cannot_be_written_are_refused_first(
    undisturbed, quiet, tmp_path, name, said
):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=said):
        evaluate([RunFolder(undisturbed)], "test", None, quiet, predictions=tmp_path / name)


def test_the_command_line(undisturbed, earlier):
    options = ("--crops", 10, "--split", "validation")
    out, err = run(undisturbed, earlier, *options, script="evaluate")
    assert "validation split, 100 examples, 2 runs averaged: top-1 error " in out
    assert "classes of the lowest accuracy: " in out
    assert out.count("was not trained on mirrored pictures, as some views are") == 2
    assert err == ""
