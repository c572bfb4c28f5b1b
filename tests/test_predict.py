"""Predictions for picture files: those of the evaluation, whatever the file is like."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from rich.console import Console

from resflax import Digits
from resflax.data.source import load_split
from resflax.evaluation.evaluate import evaluate
from resflax.evaluation.predict import Prediction, Unread, predict, upright
from resflax.training.display import Display
from resflax.training.run_folder import RunFolder


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
    found = predict(RunFolder(undisturbed), saved, None, quiet)
    for number, (path, one) in enumerate(zip(saved, found, strict=True)):
        assert isinstance(one, Prediction)
        assert (one.path, one.size, one.seen) == (path, (8, 8), (8, 8))
        assert [guess.label for guess in one.guesses] == top[number].tolist()
        assert [guess.name for guess in one.guesses] == [str(label) for label in top[number]]
        for guess in one.guesses:
            assert guess.probability == pytest.approx(probabilities[number, guess.label], abs=1e-6)


def test_other_modes_and_sizes_are_brought_to_what_the_network_knows(
    undisturbed, digits, saved, quiet, tmp_path
):
    picture = Image.fromarray(digits[0])
    large = np.kron(digits[0], np.ones((5, 5), np.uint8))  # 40x40
    wide = np.pad(large, ((0, 0), (10, 10)), constant_values=255)
    files = {
        "rgb.png": picture.convert("RGB"),
        "rgba.png": picture.convert("RGBA"),
        "palette.gif": picture.convert("P"),
        "large.png": Image.fromarray(large),
        "wide.bmp": Image.fromarray(wide),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    paths = [saved[0], *(tmp_path / name for name in files)]
    as_saved, *found = predict(RunFolder(undisturbed), paths, None, quiet)
    assert isinstance(as_saved, Prediction)
    for one in found:
        assert isinstance(one, Prediction)
        assert one.guesses == as_saved.guesses
        assert one.seen == (8, 8)
    assert [one.size for one in found[-2:]] == [(40, 40), (40, 60)]  # type: ignore[union-attr]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(orientation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    image.save(file, "png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    assert np.array_equal(upright(np.asarray(image), file.getvalue()), np.asarray(expected))


def test_what_is_no_picture_is_told_for_each_file(undisturbed, saved, quiet, script, tmp_path):
    bad = {"text.png": b"hello", "empty.jpg": b"", "cut.png": saved[0].read_bytes()[:50]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    paths = [*(tmp_path / name for name in bad), tmp_path / "folder.png", tmp_path / "nowhere.png"]

    mixed = [paths[0], saved[1], *paths[1:]]
    found = predict(RunFolder(undisturbed), mixed, None, quiet)
    assert [type(one) for one in found] == [Unread, Prediction, *[Unread] * 4]

    done = script("predict", undisturbed, *mixed)
    assert done.returncode == 2
    errors = done.stderr.splitlines()
    assert len(errors) == len(paths)
    for path, error in zip(paths, errors, strict=True):
        assert error.startswith(f"error: {path}: ")
    assert errors[0].endswith(": no picture of a kind that is known")
    good, *lines = done.stdout.splitlines()
    assert good == f"{saved[1]} (8x8)"
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
