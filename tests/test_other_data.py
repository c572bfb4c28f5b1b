"""Runs measured on other data than their own, against sums over their saved probabilities."""

import io
import json
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from photos import encode
from PIL import Image
from rich.console import Console
from small_sets import prepare_set

import resflax
from resflax import CIFAR10, TFDS, Digits, ImageFolder, ImageNet, Streamed, UsageError
from resflax.commands import evaluate as command
from resflax.data.in_memory import load_split
from resflax.evaluation.evaluate import evaluate
from resflax.evaluation.other_data import OtherData, is_own
from resflax.evaluation.subject import _common_names, _format, _Run, other_subject
from resflax.evaluation.views import PictureFormat
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display

ORDER = [7, 3, 1, 9, 0]
"""The digits of the other sets, in the order of their classes."""


@pytest.fixture(scope="module")
def digits():
    """The test digits: their PNGs and their classes."""
    split = load_split(Digits(), "test")
    return [encode(image[..., 0], "png") for image in split.images], split.labels.tolist()


@pytest.fixture(scope="module")
def permuted(digits, tmp_path_factory):
    """The data_dir of a set that has some of the digits, whose classes have another order."""
    names = [str(digit) for digit in ORDER]
    examples = [
        (png, ORDER.index(label)) for png, label in zip(*digits, strict=True) if label in ORDER
    ]
    folder = tmp_path_factory.mktemp("permuted")
    label = tfds.features.ClassLabel(names=names)
    prepare_set(folder, {"test": examples}, shape=(8, 8, 1), label=label)
    return folder


@pytest.fixture(scope="module")
def photos(digits, tmp_path_factory):
    """A folder with a folder for each of some digits."""
    root = tmp_path_factory.mktemp("photos")
    for number, (png, label) in enumerate(zip(*digits, strict=True)):
        if label in ORDER:
            (root / str(label)).mkdir(exist_ok=True)
            (root / str(label) / f"{number:03}.png").write_bytes(png)
    return root


@pytest.fixture(scope="module")
def own(undisturbed, tmp_path_factory):
    """The probabilities (355, 10) of the run for its own test digits, and their labels."""
    path = tmp_path_factory.mktemp("own") / "p.npz"
    evaluation = evaluate([RunFolder(undisturbed)], "test", None, quiet(), predictions=path)
    assert evaluation.data.own
    assert evaluation.data.facts.name == "digits"
    with np.load(path) as file:
        return file["probabilities"], file["label"]


def quiet():
    return Display(Console(file=io.StringIO()))


def printed_by(arguments, capsys):
    command.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


# --- Measures


def test_a_permuted_subset_is_measured_as_those_examples(
    undisturbed, own, permuted, tmp_path, capsys
):
    probabilities, labels = own
    data = ("--data.name", "pictures", "--data.data-dir", permuted)
    out = printed_by((undisturbed, *data, "--json", "--predictions", tmp_path / "p.npz"), capsys)
    plain = json.loads(out)
    chosen = np.isin(labels, ORDER)
    rows, right = probabilities[chosen], labels[chosen]
    assert plain["examples"] == len(right) == 178
    assert plain["top1_error"] == np.mean(rows.argmax(1) != right)
    loss = -np.log(rows[np.arange(len(right)), right].astype(float)).mean()
    assert plain["loss"] == pytest.approx(loss, rel=1e-5)
    for digit, accuracy in enumerate(plain["per_class_accuracy"]):
        of_digit = right == digit
        expected = np.mean(rows[of_digit].argmax(1) == digit) if of_digit.any() else None
        assert accuracy == expected
    sha256 = plain["data"].pop("sha256")
    assert len(sha256) == 64
    assert plain["data"] == {
        "own": False,
        "classes": 5,
        "matched_by": "name",
        "several_labels": False,
        "name": "pictures",
        "version": "1.0.0",
        "folder": str(permuted / "pictures" / "1.0.0"),
        "split": "test",
    }
    assert (plain["classes"], plain["classes_present"], plain["split"]) == ("all", 5, "test")
    with np.load(tmp_path / "p.npz") as file:  # its classes have the network's numbers
        assert sorted(file["label"].tolist()) == sorted(right.tolist())
        order = np.lexsort(file["probabilities"].T)
        np.testing.assert_allclose(
            file["probabilities"][order], rows[np.lexsort(rows.T)], atol=1e-6
        )


def test_a_folder_of_pictures_with_guesses_among_its_classes(undisturbed, own, photos, capsys):
    probabilities, labels = own
    data = ImageFolder(data_dir=str(photos), test_split=".")
    evaluation = resflax.evaluate(undisturbed, data=data, classes="present")
    chosen = np.isin(labels, ORDER)
    among = np.zeros_like(probabilities[chosen])
    among[:, ORDER] = probabilities[chosen][:, ORDER]
    among /= among.sum(1, keepdims=True)
    right = labels[chosen]
    assert evaluation.measures.top1_error == np.mean(among.argmax(1) != right)
    assert evaluation.measures.top1_error < np.mean(probabilities[chosen].argmax(1) != right)
    loss = -np.log(among[np.arange(len(right)), right].astype(float)).mean()
    assert evaluation.measures.loss == pytest.approx(loss, rel=1e-5)
    assert (evaluation.classes, evaluation.classes_present) == ("present", 5)
    assert evaluation.class_names == tuple("0123456789")
    assert (evaluation.data.matched_by, evaluation.data.facts.version) == ("name", None)
    assert "pictures of other sizes are resized and cropped to 8x8" in capsys.readouterr().out


def test_any_of_several_labels_is_right(undisturbed, own, digits, tmp_path, capsys):
    probabilities, labels = own
    several = [[label, (label + 1) % 10][: number % 3] for number, label in enumerate(digits[1])]
    label = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=10))
    examples = list(zip(digits[0], several, strict=True))
    keys = ("image", "real_label")
    prepare_set(tmp_path, {"validation": examples}, keys, shape=(8, 8, 1), label=label)
    out = printed_by(
        (
            *(undisturbed, "--predictions", tmp_path / "p.npz"),
            *("--data.name", "pictures", "--data.data-dir", tmp_path),
            *("--data.test-split", "validation", "--data.label-key", "real_label"),
        ),
        capsys,
    )
    labelled = [number for number, right in enumerate(several) if right]
    wrong = [probabilities[number].argmax() not in several[number] for number in labelled]
    losses = [-np.log(probabilities[number][several[number]].sum()) for number in labelled]
    assert out.startswith(
        "pictures 1.0.0, test split (validation), 236 examples without 119 that have no label, "
        "classes by number, any label of a picture is right, after 40 steps: "
        f"top-1 error {np.mean(wrong):.2%}, "
    )
    assert f"loss {np.mean(losses):.4f}" in out
    with np.load(tmp_path / "p.npz") as file:
        rows = sorted(tuple(row) for row in file["label"].tolist())
    padded = [tuple([*sorted(several[number]), -1][:2]) for number in labelled]
    assert rows == sorted(padded)
    assert labels.tolist() == digits[1]


def test_an_ensemble_is_measured_on_other_data(undisturbed, own, permuted, tmp_path):
    other = OtherData(name="pictures", data_dir=str(permuted))
    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    text = (copy / "experiment.json").read_text()
    # A run with other held-out examples cannot be measured with the first on their own data.
    (copy / "experiment.json").write_text(text.replace('"validation": 100', '"validation": 99'))
    folders = [RunFolder(undisturbed), RunFolder(copy)]
    evaluation = evaluate(folders, "test", None, quiet(), data=other)
    probabilities, labels = own
    chosen = np.isin(labels, ORDER)
    wrong = probabilities[chosen].argmax(1) != labels[chosen]
    assert evaluation.measures.top1_error == np.mean(wrong)
    assert len(evaluation.runs) == 2


def test_an_ensemble_of_runs_of_different_classes_is_refused():
    def run(path, names, classes=2):
        return _Run(path, classes, (8, 8, 1), names, Digits())

    first, nameless = run("a", ["ant", "bee"]), run("b", None)
    assert _common_names([nameless, first, first]) == ["ant", "bee"]
    assert _common_names([nameless]) is None
    with pytest.raises(UsageError, match="but class 1 is bee in a and crab in c"):
        _common_names([nameless, first, run("c", ["ant", "crab"])])
    with pytest.raises(UsageError, match="same classes, but b has 2 and d has 3"):
        _common_names([nameless, run("d", None, 3)])


# --- Which data


def test_fields_are_replaced_in_the_data_of_the_run():
    own = CIFAR10(data_dir="sets", validation=5000)
    replaced = OtherData(name="cifar10_1/v6").replaced_in(own)
    assert replaced == CIFAR10(name="cifar10_1/v6", data_dir="sets")
    assert OtherData(type="ImageFolder", data_dir="x").replaced_in(own) == ImageFolder(data_dir="x")
    assert OtherData(type="ImageNet").replaced_in(ImageFolder(data_dir="x")) == ImageNet()
    # Only prepared sets have names.
    assert OtherData(name="x").replaced_in(ImageFolder(data_dir="y")) == Streamed("x")
    with pytest.raises(UsageError, match=r"--data.type TFDS needs the name of a set: --data.name"):
        OtherData(type="TFDS").replaced_in(own)
    assert is_own(own, OtherData(name="cifar10").replaced_in(own))
    for other in (OtherData(data_dir="y"), OtherData(test_split="x"), OtherData(label_key="x")):
        assert not is_own(own, other.replaced_in(own))
    assert not is_own(own, ImageFolder(name="cifar10", data_dir="sets", test_split="test"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data.normalization", "pixel"), "--data.normalization cannot be changed in an eval"),
        (("--data.image_size=64",), "--data.image-size cannot be changed in an evaluation"),
        (("--data.colour", "x"), "Unrecognized options: --data.colour"),
        (("--data.type", "Folder"), "--data.type"),
        (("--classes", "some"), "--classes"),
    ],
)
def test_what_other_data_cannot_have_is_refused(undisturbed, arguments, message):
    with pytest.raises(UsageError, match=message):
        command.main([str(undisturbed), *arguments])


@pytest.mark.parametrize(
    ("fields", "split", "message"),
    [
        (
            {"name": "pictures"},
            "train",
            "Digits.train_split is 'train'; pictures has the splits te",
        ),
        ({"name": "pictures"}, "validation", "only a run's own data has a validation split"),
        ({"name": "pictures", "label_key": "kind"}, "test", "has the features image, label"),
        (
            {"name": "pictures", "label_key": "image"},
            "test",
            "a class label or a sequence of class",
        ),
        ({}, "test", "not hold the prepared set digits; if it is a plain .* --data.type ImageF"),
        ({"name": "gone"}, "test", "Digits.name is 'gone'; no prepared set of that name"),
        (
            {"type": "ImageFolder"},
            "test",
            "if the folders of the classes lie in .* --data.test-spl",
        ),
    ],
)
def test_data_that_cannot_be_measured_are_refused(undisturbed, permuted, fields, split, message):
    other = OtherData(data_dir=str(permuted), **fields)
    with pytest.raises(UsageError, match=message):
        evaluate([RunFolder(undisturbed)], split, None, quiet(), data=other)


@pytest.mark.parametrize(
    ("declared", "pixels", "message"),
    [
        ((6, 5, 3), (6, 5, 3), "pictures are 6x5x3, but .*run was trained on 8x8x1"),
        ((8, 8, 3), (8, 8, 3), "pictures are 8x8x3, but .*run was trained on 8x8x1"),
        ((None, None, 1), (9, 8), "pictures are 9x8x1, but .*run was trained on 8x8x1"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(undisturbed, tmp_path, declared, pixels, message):
    picture = encode(np.zeros(pixels, np.uint8), "png")
    label = tfds.features.ClassLabel(num_classes=10)
    prepare_set(tmp_path, {"test": [(picture, 3)]}, shape=declared, label=label)
    data = TFDS("pictures", data_dir=str(tmp_path))
    with pytest.raises(UsageError, match=message):
        other_subject([RunFolder(undisturbed)], [Digits()], data, "test", quiet())


def test_a_class_that_is_not_known_is_refused(undisturbed, tmp_path):
    for name in ("3", "zebra"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "val" / name / "a.png")
    with pytest.raises(UsageError, match="val has the class zebra, which the network does not kn"):
        resflax.evaluate(undisturbed, data=ImageFolder(data_dir=str(tmp_path)))
    shutil.rmtree(tmp_path / "val" / "zebra")
    with pytest.raises(UsageError, match="all measured pictures are of class 3, so that guesses"):
        resflax.evaluate(undisturbed, data=ImageFolder(data_dir=str(tmp_path)), classes="present")
    anything: Any = "some"
    with pytest.raises(UsageError, match="data is of type str; it must be a declaration of data"):
        resflax.evaluate(undisturbed, data=anything)
    with pytest.raises(UsageError, match="classes is 'some'; it must be one of all, present"):
        resflax.evaluate(undisturbed, classes=anything)


def test_the_own_data_of_the_run_need_not_be_there(undisturbed, permuted, digits, tmp_path):
    label = tfds.features.ClassLabel(names=[f"digit {number}" for number in range(10)])
    examples = list(zip(*digits, strict=True))
    prepare_set(tmp_path, {"test": examples}, shape=(8, 8, 1), label=label)
    gone = TFDS("gone", data_dir=str(tmp_path / "nowhere"))
    folders, data = [RunFolder(undisturbed)], TFDS("pictures", data_dir=str(tmp_path))
    subject = other_subject(folders, [gone], data, "test", quiet())
    assert (subject.num_classes, subject.data.matched_by) == (10, "number")
    assert subject.formats[0].shape == (8, 8, 1)
    data = TFDS("pictures", data_dir=str(permuted))
    with pytest.raises(
        UsageError, match=r"has 5 classes and the network 10.*say where.*--data-dir"
    ):
        other_subject(folders, [gone], data, "test", quiet())


def test_networks_of_pictures_of_any_size_see_other_data_as_their_own():
    data = ImageNet(image_size=64, test_shorter_side=73, shorter_side=(70, 80))
    run = _Run("run", 1000, (None, None, 3), None, data)
    opened: Any = None  # what the other set declares does not matter
    assert _format(run, opened) == PictureFormat((64, 64, 3), 73, 0, "opencv")
