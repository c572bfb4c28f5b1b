"""The embedded digits: the pictures of scikit-learn, prepared once by any number of processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from small_sets import sorted_examples
from tensorflow_datasets.core.utils import tqdm_utils

from resflax import Digits, UsageError
from resflax.data import digits
from resflax.data.in_memory import Split, load_dataset


def test_digits_are_those_of_scikit_learn_every_fifth_of_a_class_for_testing():
    original = load_digits()
    images = np.rint(original.images * 255 / 16).astype(np.uint8)[..., None]
    labels = original.target.astype(np.int32)
    fifth = np.zeros(len(labels), bool)
    for label in range(10):
        fifth[np.flatnonzero(labels == label)[4::5]] = True

    dataset = load_dataset(Digits())
    assert sorted_examples(dataset.train) == sorted_examples(Split(images, labels)[~fifth])
    assert sorted_examples(dataset.test) == sorted_examples(Split(images, labels)[fifth])
    assert len(dataset.train) + len(dataset.test) == 1797
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.num_classes == 10
    assert dataset.validation is None
    assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (np.uint8, np.int32)
    assert min(np.bincount(dataset.test.labels, minlength=10)) >= 34  # of about 180 in each class


def test_digits_are_prepared_once_and_whole(tmp_path: Path):
    digits.prepare_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]  # nothing is left over
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    digits.prepare_digits(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_two_processes_may_prepare_digits_at_once(tmp_path: Path):
    code = f"""
from resflax.data.in_memory import load_dataset
from resflax import Digits
print(len(load_dataset(Digits(data_dir={str(tmp_path)!r})).train))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] == f"{len(load_dataset(Digits()).train)}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_slower_of_two_preparations_leaves_the_files_of_the_faster_one(
    tmp_path: Path, monkeypatch
):
    final = tmp_path / "digits" / "1.0.0"
    build = digits.Builder.download_and_prepare

    def overtaken(self: Any) -> None:
        build(self)
        final.mkdir(parents=True)
        (final / "theirs").touch()

    monkeypatch.setattr(digits.Builder, "download_and_prepare", overtaken)
    digits.prepare_digits(tmp_path)
    assert [path.name for path in final.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, monkeypatch):
    def interrupt(self: Any) -> None:
        (Path(self.data_dir_root) / "part").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(digits.Builder, "download_and_prepare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        digits.prepare_digits(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name != "digits"]
    monkeypatch.undo()
    assert len(load_dataset(Digits(data_dir=str(tmp_path))).test) > 0


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_progress_bars_of_tfds_are_off_only_while_digits_are_prepared(
    tmp_path: Path, monkeypatch, shown: bool, fails: bool
):
    monkeypatch.setattr(tqdm_utils, "_active", shown)
    build = digits.Builder.download_and_prepare

    def observe(self: Any) -> None:
        assert not tqdm_utils._active
        if fails:
            raise KeyboardInterrupt
        build(self)

    monkeypatch.setattr(digits.Builder, "download_and_prepare", observe)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            digits.prepare_digits(tmp_path)
    else:
        digits.prepare_digits(tmp_path)
    assert tqdm_utils._active == shown


def test_digits_cannot_be_prepared_below_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot prepare the digits in .*file"):
        load_dataset(Digits(data_dir=str(tmp_path / "file")))
