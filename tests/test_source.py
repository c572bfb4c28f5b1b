"""Prepared sets, read into memory: the embedded digits, and small sets of the tests' own making."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from resflax import CIFAR10, TFDS, Digits, UsageError
from resflax.data import digits, source
from resflax.data.pictures import BadPicture, decode
from resflax.data.source import Split, describe, load, load_split

Example = tuple[bytes, int]
"""An encoded picture and its class."""

CLASSES = 4


class Pictures(tfds.core.GeneratorBasedBuilder):
    """A set as given, which TFDS prepares without TensorFlow because pictures are encoded."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, made: Mapping[str, Sequence[Example]], keys: tuple[str, str], **options: Any
    ):
        self.made, self.keys = made, keys
        super().__init__(**options)

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        label = tfds.features.ClassLabel(num_classes=CLASSES)
        features = dict(zip(self.keys, (image, label), strict=True))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any):
        return {name: self._generate_examples(examples) for name, examples in self.made.items()}

    def _generate_examples(self, examples: Sequence[Example]):
        yield from enumerate(dict(zip(self.keys, example, strict=True)) for example in examples)


def prepare(
    data_dir: Path,
    made: Mapping[str, Sequence[Example]],
    keys: tuple[str, str] = ("image", "label"),
) -> None:
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        builder = Pictures(made, keys, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()


def pixels(count: int, shape: tuple[int, ...] = (6, 5, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(picture: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def examples(count: int, kind: str = "png", seed: int = 0) -> list[Example]:
    encoded = (encode(picture, kind) for picture in pixels(count, seed=seed))
    return [(picture, index % CLASSES) for index, picture in enumerate(encoded)]


def rows(split: Split) -> list[tuple[bytes, int]]:
    """The examples, in an order of their own: TFDS shuffles what it prepares."""
    pairs = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a set of 30 training and 8 test pictures."""
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare(data_dir, {"train": examples(30), "test": examples(8, seed=1)})
    return data_dir


# --- Digits


def test_digits_are_those_of_scikit_learn_every_fifth_of_a_class_for_testing():
    original = load_digits()
    images = np.rint(original.images * 255 / 16).astype(np.uint8)[..., None]
    labels = original.target.astype(np.int32)
    fifth = np.zeros(len(labels), bool)
    for label in range(10):
        fifth[np.flatnonzero(labels == label)[4::5]] = True

    found = load(Digits())
    assert rows(found.train) == rows(Split(images, labels)[~fifth])
    assert rows(found.test) == rows(Split(images, labels)[fifth])
    assert len(found.train) + len(found.test) == 1797
    assert found.image_shape == (8, 8, 1)
    assert found.num_classes == 10
    assert found.validation is None
    assert (found.train.images.dtype, found.train.labels.dtype) == (np.uint8, np.int32)
    assert min(np.bincount(found.test.labels, minlength=10)) >= 34  # of about 180 each


def test_digits_are_prepared_once_and_whole(tmp_path: Path):
    digits.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]  # nothing left over
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    digits.prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_two_processes_may_prepare_digits_at_once(tmp_path: Path):
    code = f"""
from resflax.data.source import load
from resflax import Digits
print(len(load(Digits(data_dir={str(tmp_path)!r})).train))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1] == f"{len(load(Digits()).train)}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_slower_of_two_preparations_leaves_the_faster_ones_files(tmp_path: Path, monkeypatch):
    final = tmp_path / "digits" / "1.0.0"
    build = digits.Builder.download_and_prepare

    def overtaken(self: Any) -> None:
        build(self)
        final.mkdir(parents=True)
        (final / "theirs").touch()

    monkeypatch.setattr(digits.Builder, "download_and_prepare", overtaken)
    digits.prepare(tmp_path)
    assert [path.name for path in final.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_preparation_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch):
    def fail(self: Any) -> None:
        (Path(self.data_dir_root) / "part").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(digits.Builder, "download_and_prepare", fail)
    with pytest.raises(KeyboardInterrupt):
        digits.prepare(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name != "digits"]
    monkeypatch.undo()
    assert len(load(Digits(data_dir=str(tmp_path))).test) > 0


def test_digits_cannot_be_prepared_below_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot prepare the digits in .*file"):
        load(Digits(data_dir=str(tmp_path / "file")))


# --- A set of one's own


def test_reads_a_set_by_its_name_and_folder(prepared: Path):
    found = load(TFDS("pictures", data_dir=str(prepared)))
    labels = np.arange(30, dtype=np.int32) % CLASSES
    assert rows(found.train) == rows(Split(pixels(30), labels))
    assert rows(found.test) == rows(Split(pixels(8, seed=1), labels[:8]))
    assert (found.num_classes, found.image_shape) == (CLASSES, (6, 5, 3))


@pytest.mark.parametrize("name", ["pictures", "pictures:1.0.0", "pictures:1.*.*"])
def test_reads_the_version_that_is_named(prepared: Path, name: str):
    assert len(load(TFDS(name, data_dir=str(prepared))).train) == 30


def test_any_declaration_may_point_at_another_set(prepared: Path):
    declared = replace(CIFAR10(), name="pictures", data_dir=str(prepared))
    assert load(declared).num_classes == CLASSES


def test_reads_jpeg_and_gray_pictures_and_other_names(tmp_path: Path):
    gray = pixels(3, shape=(6, 5), seed=2)
    made = {
        "learn": examples(5, "jpeg"),
        "judge": [(encode(picture), 1) for picture in gray],
    }
    prepare(tmp_path, made, keys=("photo", "kind"))
    declared = TFDS(
        "pictures",
        data_dir=str(tmp_path),
        train_split="learn",
        test_split="judge",
        image_key="photo",
        label_key="kind",
    )
    found = load(declared)
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data, _ in made["learn"]])
    labels = np.array([label for _, label in made["learn"]])
    assert rows(found.train) == rows(Split(decoded, labels))
    three = np.repeat(gray[..., None], 3, axis=-1)  # the set declares three channels
    assert rows(found.test) == rows(Split(three, np.ones(3, int)))


def test_is_read_in_chunks_whose_progress_is_told(prepared: Path, monkeypatch):
    whole = load(TFDS("pictures", data_dir=str(prepared)))
    told = []

    def progress(chunks: Sequence[int], text: str) -> Sequence[int]:
        told.append((text, list(chunks)))
        return chunks

    monkeypatch.setattr(source, "_CHUNK", 7)
    chunked = load(TFDS("pictures", data_dir=str(prepared)), progress)
    assert np.array_equal(chunked.train.images, whole.train.images)
    assert np.array_equal(chunked.train.labels, whole.train.labels)
    assert told == [
        ("reading pictures train", [0, 7, 14, 21, 28]),
        ("reading pictures test", [0, 7]),
    ]


# --- Held-out examples


@pytest.mark.parametrize("count", [1, 7, 29])
def test_held_out_examples_are_taken_from_the_training_ones(prepared: Path, count: int):
    whole = load(TFDS("pictures", data_dir=str(prepared)))
    found = load(TFDS("pictures", data_dir=str(prepared), validation=count))
    assert found.validation is not None
    assert (len(found.validation), len(found.train)) == (count, 30 - count)
    # All pictures differ, so that equality of the union says that none is in both.
    assert sorted(rows(found.validation) + rows(found.train)) == rows(whole.train)
    assert len(set(rows(whole.train))) == 30
    assert rows(found.test) == rows(whole.test)
    again = load(TFDS("pictures", data_dir=str(prepared), validation=count))
    assert again.validation is not None
    assert np.array_equal(again.validation.images, found.validation.images)


def test_held_out_examples_are_a_random_sample():
    held_out = load(Digits(validation=500)).validation
    assert held_out is not None
    # 500 of 1,442 with about 144 a class: 50 each, deviation about 5.5.
    assert np.all(np.abs(np.bincount(held_out.labels, minlength=10) - 50) < 25)


@pytest.mark.parametrize("validation", [0, 7])
def test_one_split_is_the_one_of_the_whole(prepared: Path, validation: int):
    declared = TFDS("pictures", data_dir=str(prepared), validation=validation)
    whole = load(declared)
    expected = {"train": whole.train, "test": whole.test, "validation": whole.validation}
    for name, split in expected.items():
        if split is None:
            with pytest.raises(UsageError, match=r"TFDS.validation is 0; there are no held-out"):
                load_split(declared, name)  # type: ignore[arg-type]
        else:
            found = load_split(declared, name)  # type: ignore[arg-type]
            assert np.array_equal(found.images, split.images)
            assert np.array_equal(found.labels, split.labels)


# --- Descriptions


def test_known_sets_are_described_without_being_there(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert describe(CIFAR10()).image_shape == (32, 32, 3)
    assert describe(TFDS("cifar100")).num_classes == 100
    facts = describe(Digits())
    assert list(tmp_path.iterdir()) == []
    found = load(Digits())
    assert (facts.image_shape, facts.num_classes) == (found.image_shape, found.num_classes)


def test_a_set_is_described_by_what_it_declares(prepared: Path):
    facts = describe(TFDS("pictures", data_dir=str(prepared)))
    assert (facts.num_classes, facts.channels) == (CLASSES, 3)
    with pytest.raises(UsageError, match="the pictures of pictures have no one size"):
        _ = facts.image_shape


# --- Refusals


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Changes the JSON of a file of the set."""

    def apply(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        change(plain)
        (folder / name).write_text(json.dumps(plain))

    return apply


def info(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return edit("dataset_info.json", change)


def feature(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    return edit("features.json", lambda plain: change(plain["featuresDict"]["features"][name]))


def records(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the bytes of the training pictures' file."""

    def apply(folder: Path) -> None:
        (path,) = folder.glob("*-train.array_record*")
        path.write_bytes(change(path.read_bytes()))

    return apply


def flipped(data: bytes) -> bytes:
    return data[:3000] + bytes(255 - byte for byte in data[3000:3010]) + data[3010:]


def nothing(folder: Path) -> None:
    pass


REFUSED: list[tuple[Callable[[Path], object], dict[str, Any], str]] = [
    # what happens to the set, fields of the declaration, what is said
    (nothing, {"name": "picture"}, "TFDS.name is 'picture'; no prepared set of that name in "),
    (nothing, {"name": "pictures:2.0.0"}, "TFDS.name is 'pictures:2.0.0'; no prepared set of "),
    (nothing, {"name": "../pictures"}, "TFDS.name is '../pictures'; no prepared set of that "),
    (nothing, {"name": "a b"}, "TFDS.name is 'a b'; no prepared set of that name in "),
    (nothing, {"name": "pictures", "data_dir": "/nowhere"}, "TFDS.name is 'pictures'; no prepared"),
    (nothing, {"data_dir": None}, "TFDS.name is 'pictures'; no prepared set of that name in "),
    (nothing, {"image_key": "photo"}, "TFDS.image_key is 'photo'; pictures has the features image"),
    (nothing, {"label_key": "kind"}, "TFDS.label_key is 'kind'; pictures has the features image"),
    (nothing, {"image_key": "label"}, "TFDS.image_key is 'label'; it must name a picture"),
    (nothing, {"label_key": "image"}, "TFDS.label_key is 'image'; it must name a class label"),
    (nothing, {"train_split": "trian"}, "TFDS.train_split is 'trian'; pictures has the splits tr"),
    (nothing, {"test_split": "train[:9]"}, r"TFDS.test_split is 'train\[:9\]'; pictures has the"),
    (nothing, {"validation": 30}, "TFDS.validation is 30; it must be below the 30 examples of tr"),
    (shutil.rmtree, {}, "TFDS.name is 'pictures'; no prepared set of that name in "),
    (
        lambda folder: (folder / "features.json").unlink(),
        {},
        "TFDS.name is 'pictures'; no prepared",
    ),
    (lambda folder: (folder / "features.json").write_text("{"), {}, "TFDS.name is 'pictures'; no"),
    (
        info(lambda plain: plain.update(fileFormat="tfrecord")),
        {},
        "TFDS.name is 'pictures'; the set is stored as tfrecord; it must be array_record",
    ),
    (
        info(lambda plain: plain["splits"][1].update(shardLengths=["0"])),
        {},
        "TFDS.test_split is 'test'; that split of pictures has no examples",
    ),
    (
        info(lambda plain: plain["splits"][0].update(shardLengths=["31"])),
        {},
        "pictures, train: its files cannot be read",
    ),
    (
        feature("label", lambda plain: plain["classLabel"].update(numClasses="3")),
        {},
        r"pictures, train, example \d+: its label is 3; it must be at least 0 and below 3",
    ),
    (
        feature("image", lambda plain: plain["image"].update(dtype="uint16")),
        {},
        "TFDS.image_key is 'image'; it must name a picture of 8-bit values",
    ),
    (
        feature("image", lambda p: p["image"]["shape"].update(dimensions=["6", "5", "2"])),
        {},
        "TFDS.image_key is 'image'; its pictures have 2 channels, not 1, 3 or 4",
    ),
    (records(lambda data: data[:100]), {}, "pictures, train: its files cannot be read"),
    (records(lambda data: b""), {}, "pictures, train: its files cannot be read"),
    (records(flipped), {}, "pictures, train: its files cannot be read"),
]


@pytest.mark.parametrize(("happens", "fields", "said"), REFUSED)
def test_refuses_in_one_line_a_set_that(prepared, tmp_path, happens, fields, said):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    happens(tmp_path / "pictures" / "1.0.0")
    declared = TFDS(**{"name": "pictures", "data_dir": str(tmp_path)} | fields)
    with pytest.raises(UsageError, match=f"^{said}") as refusal:
        load(declared)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ((b"not a picture", 0), r"pictures, test, example \d: its picture cannot be decoded"),
        ((b"", 0), r"pictures, test, example \d: its picture cannot be decoded"),
        ((encode(pixels(1)[0])[:60], 0), r"pictures, test, example \d: its picture cannot be dec"),
        ((encode(pixels(1)[0]), -1), r"pictures, test, example \d: its label is -1; it must be"),
        (
            (encode(pixels(1, shape=(6, 6, 3))[0]), 0),
            r"pictures, test, example \d: its picture is \(6, \d, 3\), the first one \(6, \d, 3\);",
        ),
    ],
    ids=["no picture", "no bytes", "cut off", "no label", "other size"],
)
def test_names_the_example_that_is_wrong(tmp_path: Path, bad: Example, said: str):
    prepare(tmp_path, {"train": examples(5), "test": [*examples(3, seed=1), bad]})
    with pytest.raises(UsageError, match=f"^{said}") as refusal:
        load(TFDS("pictures", data_dir=str(tmp_path)))
    assert len(str(refusal.value).splitlines()) == 1
    swapped = TFDS(
        "pictures",
        data_dir=str(tmp_path),
        train_split="test",
        test_split="train",
        image_key="image",
    )
    assert len(load_split(swapped, "test")) == 5  # the other split can still be read


def test_training_and_test_pictures_have_one_shape(tmp_path: Path):
    other = [(encode(picture), 0) for picture in pixels(3, shape=(6, 6, 3))]
    prepare(tmp_path, {"train": examples(5), "test": other})
    with pytest.raises(UsageError, match=r"training pictures are \(6, 5, 3\) and test pictures"):
        load(TFDS("pictures", data_dir=str(tmp_path)))


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some of what it reads nevertheless
def test_damaged_pictures_are_decoded_or_refused(kind: str):
    encoded, random = encode(pixels(1)[0], kind), np.random.default_rng(0)
    decoded: list[np.ndarray | None] = []
    for _ in range(1500):
        damaged = np.frombuffer(encoded, np.uint8).copy()
        places = random.integers(0, random.choice([20, 60, len(damaged)]), random.integers(1, 7))
        damaged[places] = random.integers(0, 256, len(places))
        end = random.choice([len(damaged), int(random.integers(len(damaged)))])
        try:
            decoded.append(decode(damaged[:end].tobytes()))
        except BadPicture:
            decoded.append(None)
    assert any(picture is None for picture in decoded)
    assert {picture.shape[2:] for picture in decoded if picture is not None} <= {(3,)}
