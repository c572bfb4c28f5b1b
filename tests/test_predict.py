"""Predictions for picture files equal those of the evaluation, whatever the file's format."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from resflax import Digits
from resflax.commands import predict as command
from resflax.data.in_memory import load_split
from resflax.evaluation.evaluate import evaluate
from resflax.evaluation.predict import Prediction, UnreadableFile, predict
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display


@pytest.fixture(scope="module")
def quiet():
    return Display(Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def digits():
    return load_split(Digits(), "test").images[:20, :, :, 0]


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """Test digits as files."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(len(digits))]
    for path, picture in zip(paths, digits, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def test_files_are_predicted_as_the_evaluation_does(undisturbed, saved, quiet, tmp_path):
    file = tmp_path / "p.npz"
    evaluate([RunFolder(undisturbed)], "test", None, quiet, predictions=file)
    with np.load(file) as arrays:
        top, probabilities = arrays["top5"], arrays["probabilities"]
    results = predict(RunFolder(undisturbed), saved, None, quiet)
    for number, (path, prediction) in enumerate(zip(saved, results, strict=True)):
        assert isinstance(prediction, Prediction)
        assert (prediction.path, prediction.size, prediction.seen) == (path, (8, 8), (8, 8))
        assert [guess.label for guess in prediction.guesses] == top[number].tolist()
        names = [guess.name for guess in prediction.guesses]
        assert names == [str(label) for label in top[number]]
        for guess in prediction.guesses:
            assert guess.probability == pytest.approx(probabilities[number, guess.label], abs=1e-6)


def test_pictures_of_other_modes_and_sizes_are_converted(
    undisturbed, digits, saved, quiet, tmp_path
):
    picture = Image.fromarray(digits[0])
    large = np.kron(digits[0], np.ones((5, 5), np.uint8))  # 40x40
    wide = np.pad(large, ((0, 0), (10, 10)), constant_values=255)
    turned = Image.Exif()
    turned[274] = 6  # is to be turned to the right
    files = {
        "rgb.png": picture.convert("RGB"),
        "rgba.png": picture.convert("RGBA"),
        "palette.gif": picture.convert("P"),
        "turned.png": Image.fromarray(np.rot90(digits[0])),
        "deep.png": Image.fromarray(digits[0].astype(np.uint16) * 257),
        "floats.tif": Image.fromarray(digits[0].astype(np.float32) / 255),
        "large.png": Image.fromarray(large),
        "wide.bmp": Image.fromarray(wide),
        "turned_wide.png": Image.fromarray(np.rot90(wide)),
    }
    for name, image in files.items():
        options: dict[str, Any] = {"exif": turned} if "turned" in name else {}
        image.save(tmp_path / name, **options)
    paths = [saved[0], *(tmp_path / name for name in files)]
    as_saved, *converted = predict(RunFolder(undisturbed), paths, None, quiet)
    assert isinstance(as_saved, Prediction)
    sizes = []
    for prediction in converted:
        assert isinstance(prediction, Prediction)
        assert prediction.guesses == as_saved.guesses
        assert prediction.seen == (8, 8)
        sizes.append(prediction.size)
    assert sizes[-3:] == [(40, 40), (40, 60), (40, 60)]


def test_each_file_that_is_not_a_picture_is_reported(undisturbed, saved, quiet, script, tmp_path):
    bad = {"text.png": b"hello", "empty.jpg": b"", "cut.png": saved[0].read_bytes()[:50]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    paths = [*(tmp_path / name for name in bad), tmp_path / "folder.png", tmp_path / "nowhere.png"]

    mixed = [paths[0], saved[1], *paths[1:]]
    results = predict(RunFolder(undisturbed), mixed, None, quiet)
    unreadable = UnreadableFile
    assert [type(result) for result in results] == [unreadable, Prediction, *[unreadable] * 4]

    done = script("predict", undisturbed, *mixed)
    assert done.returncode == 2
    errors = done.stderr.splitlines()
    assert len(errors) == len(paths)
    for path, error in zip(paths, errors, strict=True):
        assert error.startswith(f"error: {path}: ")
    assert errors[0].endswith(": not a picture in a known format")
    heading, *lines = done.stdout.splitlines()
    assert heading == f"{saved[1]} (8x8)"
    assert len(lines) == 5
    assert lines[0].strip().split()[0].endswith("%")


def test_predictions_as_json(undisturbed, saved, script):
    done = script("predict", undisturbed, *saved[:2], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    assert (first["path"], second["path"]) == (str(saved[0]), str(saved[1]))
    assert first["size"] == first["seen"] == [8, 8]
    probabilities = [guess["probability"] for guess in first["guesses"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {"label", "name"} < first["guesses"][0].keys()


def test_a_name_that_is_not_utf8_is_shown_so_that_it_can_be_printed():
    path = Path(os.fsdecode(b"caf\xe9.jpg"))
    assert command._in_words(Prediction(path, (8, 8), (8, 8), ())) == r"caf\xe9.jpg (8x8)"
