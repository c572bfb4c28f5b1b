"""Measured runs: pictures on disk, ensembles, files of predictions, the command line."""

import csv
import io
import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from rich.console import Console
from scoring import MEAN, MODEL, SCALE, corners_and_centre, normalized, one_by_one, smooth_pictures
from small_sets import prepare_set
from whole_runs import run

from resflax import Digits, Experiment, ImageFolder, UsageError
from resflax.data.in_memory import load_split
from resflax.data.normalization import Normalization
from resflax.evaluation.evaluate import evaluate
from resflax.evaluation.other_data import OtherData
from resflax.evaluation.predict import Prediction, predict
from resflax.evaluation.views import Views
from resflax.models import build
from resflax.models.stacking import unstack
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display
from resflax.training.optimizer import make_optimizer
from resflax.training.state import initial_state


@pytest.fixture(scope="module")
def quiet():
    return Display(Console(file=io.StringIO()))


# --- Pictures of different sizes on disk


CLASS_NAMES = ["apple", "bear", "crab"]


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory):
    """A folder of pictures, and the paths of its test pictures by class and name."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 1), ("val", 3)):
        for number, name in enumerate(CLASS_NAMES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                size = (20 + 7 * i, 34 - 5 * number)
                (picture,) = smooth_pictures(size, seed=10 * number + i)
                Image.fromarray(picture).save(root / split / name / f"{i}.png")
    (root / "val" / "bear" / "1.png").write_bytes(b"no picture")
    return root, [root / "val" / name / f"{i}.png" for name in CLASS_NAMES for i in range(3)]


def save_run(path, root, *, averaged=False):
    """Makes the folder of a run with one checkpoint, and returns the folder and the state."""
    data = ImageFolder(data_dir=str(root), image_size=8, shorter_side=(8, 9), test_shorter_side=10)
    experiment = Experiment(
        name="s",
        model=MODEL,
        data=data,
        batch_size=16,
        steps=1,
        ema_decay=0.9 if averaged else None,
    )
    folder = RunFolder(path)
    folder.begin(experiment.resolved(), {})
    optimizer = make_optimizer(experiment.optimizer, lambda step: jnp.float32(0.1))
    normalization = Normalization(jnp.float32(MEAN), jnp.float32(SCALE))
    state = initial_state(
        build(MODEL, len(CLASS_NAMES)), optimizer, normalization, (8, 8, 3), seed=1
    )
    if averaged:
        state = state.replace(average=jax.tree.map(lambda x: 0.9 * x, state.variables()))
    Checkpoints(folder.checkpoints).save(0, state, {"seconds": 0.0})
    return folder, state


@pytest.fixture(scope="module")
def streamed(picture_folder, tmp_path_factory):
    """A run on the folder of pictures: its folder, its variables, and its test pictures."""
    root, paths = picture_folder
    folder, state = save_run(tmp_path_factory.mktemp("run") / "run", root)
    return folder, unstacked(state.variables()), paths


def unstacked(variables):
    return jax.device_get({name: unstack(tree) for name, tree in variables.items()})


def ten_views(path):
    """The ten crops of a picture whose shorter side is resized to 10, normalised."""
    picture = np.asarray(Image.open(path))
    height, width, _ = picture.shape
    short = min(height, width)
    size = 10 * width // short, 10 * height // short
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    crops = [normalized(crop) for crop in corners_and_centre(resized, 8)]
    return [*crops, *(crop[:, ::-1] for crop in crops)]


def test_a_set_on_disk_is_read_picture_by_picture(streamed, tmp_path):
    folder, variables, paths = streamed
    printed = io.StringIO()
    display = Display(Console(file=printed, width=500))
    evaluation = evaluate(
        [folder], "test", None, display, Views(crops=10), predictions=tmp_path / "p.npz"
    )
    with np.load(tmp_path / "p.npz") as file:
        arrays = dict(file)
    plain = evaluation.to_json()
    assert (plain["examples"], plain["bad_pictures"], plain["crops"]) == (8, 1, 10)
    assert {"top1_error", "top5_error", "loss", "calibration_error"} < plain.keys()
    assert arrays["example"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert arrays["label"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert arrays["top5"].shape == (8, 3)
    output = printed.getvalue()
    assert output.count("passing over") == output.count(f"{paths[4]}: ") == 1
    good = [path for path in paths if path != paths[4]]
    for path, row in zip(good, arrays["probabilities"], strict=True):
        np.testing.assert_allclose(row, one_by_one(variables, ten_views(path)), atol=1e-5)


def test_the_same_pictures_prepared_with_other_class_numbers(streamed, quiet, tmp_path):
    folder, _, paths = streamed
    own = evaluate([folder], "test", None, quiet)
    names = CLASS_NAMES[::-1]
    examples = [(path.read_bytes(), names.index(path.parent.name)) for path in paths]
    label = tfds.features.ClassLabel(names=[name.upper() for name in names])
    prepare_set(tmp_path, {"test": examples}, label=label)
    data = OtherData(type="Streamed", name="pictures", data_dir=str(tmp_path))
    evaluation = evaluate([folder], "test", None, quiet, data=data)
    assert (own.data.own, evaluation.data.own) == (True, False)
    assert evaluation.data.matched_by == "name"
    assert evaluation.bad_pictures == own.bad_pictures == 1
    assert evaluation.measures.per_class_accuracy == own.measures.per_class_accuracy
    assert evaluation.measures.loss == pytest.approx(own.measures.loss, rel=1e-5)


def test_averaged_weights_are_what_is_evaluated(picture_folder, streamed, quiet, tmp_path):
    root, paths = picture_folder
    folder, state = save_run(tmp_path / "run", root, averaged=True)
    evaluate([folder], "test", None, quiet, Views(crops=10), predictions=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        probabilities = file["probabilities"]
    average = unstacked(state.average)
    views = ten_views(paths[0])
    np.testing.assert_allclose(probabilities[0], one_by_one(average, views), atol=1e-5)
    trained = one_by_one(unstacked(state.variables()), views)
    assert np.abs(probabilities[0] - trained).max() > 1e-3


def test_predictions_of_files_are_those_of_the_evaluation(streamed, quiet, tmp_path):
    folder, _, paths = streamed
    evaluate([folder], "test", None, quiet, predictions=tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        arrays = dict(file)
    results = predict(folder, paths, None, quiet)
    predictions = [result for result in results if isinstance(result, Prediction)]
    for prediction, number, row in zip(
        predictions, arrays["example"], arrays["probabilities"], strict=True
    ):
        assert prediction.path == paths[number]
        assert prediction.seen == (8, 8)
        assert {guess.name for guess in prediction.guesses} == set(CLASS_NAMES)
        for guess in prediction.guesses:
            assert guess.probability == pytest.approx(row[guess.label], abs=1e-6)


# --- Runs


@pytest.fixture(scope="module")
def earlier(undisturbed, tmp_path_factory):
    """Another run of the same data: the first one, four steps before its end."""
    folder = shutil.copytree(undisturbed, tmp_path_factory.mktemp("earlier") / "run")
    shutil.rmtree(folder / "checkpoints" / "40")
    return folder


def evaluate_to_file(folders, quiet, path):
    """The evaluation of runs, and the arrays of predictions that it wrote."""
    evaluation = evaluate(
        [RunFolder(folder) for folder in folders], "test", None, quiet, predictions=path
    )
    with np.load(path) as file:
        return evaluation, dict(file)


def test_an_ensemble_averages_probabilities(undisturbed, earlier, quiet, tmp_path):
    single, first = evaluate_to_file([undisturbed], quiet, tmp_path / "1.npz")
    _, second = evaluate_to_file([earlier], quiet, tmp_path / "2.npz")
    ensemble, together = evaluate_to_file([undisturbed, earlier], quiet, tmp_path / "12.npz")
    assert np.abs(first["probabilities"] - second["probabilities"]).max() > 1e-3
    mean = (first["probabilities"] + second["probabilities"].astype(float)) / 2
    np.testing.assert_allclose(together["probabilities"], mean, atol=1e-6)
    assert list(ensemble.runs.values()) == [40, 36]

    labels = load_split(Digits(), "test").labels
    assert np.array_equal(together["label"], labels)
    order = np.argsort(-together["probabilities"], 1, kind="stable")
    assert np.array_equal(together["top5"], order[:, :5])
    assert ensemble.measures.top1_error == np.mean(mean.argmax(1) != labels)
    loss = -np.log(mean[np.arange(355), labels]).mean()
    assert ensemble.measures.loss == pytest.approx(loss, 1e-5)
    # The run itself measured the same, on one device in another process.
    result = json.loads((undisturbed / "result.json").read_text())
    assert single.measures.top1_error == result["test_error"]
    assert single.measures.loss == pytest.approx(result["test_loss"], rel=1e-5)
    assert single.measures.examples == 355


def test_predictions_as_a_table(undisturbed, quiet, tmp_path):
    _, arrays = evaluate_to_file([undisturbed], quiet, tmp_path / "a.npz")
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


def test_an_ensemble_of_runs_of_different_data_is_refused(undisturbed, tmp_path, quiet):
    folder = shutil.copytree(undisturbed, tmp_path / "other")
    file = folder / "experiment.json"
    file.write_text(file.read_text().replace('"validation": 100', '"validation": 99'))
    with pytest.raises(UsageError, match=r"data.validation is 100 in .*run and 99 in .*other"):
        evaluate([RunFolder(undisturbed), RunFolder(folder)], "test", None, quiet)
    with pytest.raises(UsageError, match="run is named twice"):
        evaluate([RunFolder(undisturbed)] * 2, "test", None, quiet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p.txt", "must end in .npz or .csv"),
        ("nowhere/p.npz", "there is no folder"),
        ("folder.csv", "that is a folder"),
    ],
)
def test_predictions_that_cannot_be_written_are_refused_first(
    undisturbed, quiet, tmp_path, name, message
):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=message):
        evaluate([RunFolder(undisturbed)], "test", None, quiet, predictions=tmp_path / name)


def test_the_command_line(undisturbed, earlier):
    options = ("--crops", 10, "--split", "validation")
    out, err = run(undisturbed, earlier, *options, script="evaluate")
    assert "validation split, 100 examples, 2 runs averaged: top-1 error " in out
    assert "classes of the lowest accuracy: " in out
    assert out.count("was not trained on mirrored pictures, as some views are") == 2
    assert err == ""
