"""Small TFDS sets of random pictures, for the tests of sets in memory."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from photos import encode

from resflax.data.in_memory import Split

Example = tuple[bytes, int]
"""An encoded picture and its class."""

CLASSES = 4


class Pictures(tfds.core.GeneratorBasedBuilder):
    """The set `pictures`, which TFDS prepares without TensorFlow as its pictures are encoded."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        splits: Mapping[str, Sequence[tuple[bytes, Any]]],
        keys: tuple[str, str],
        features: tuple[Any, Any],
        **options: Any,
    ):
        self.examples_of_splits, self.keys, self.features = splits, keys, features
        super().__init__(**options)

    def _info(self):
        features = dict(zip(self.keys, self.features, strict=True))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any):
        return {
            name: self._generate_examples(examples)
            for name, examples in self.examples_of_splits.items()
        }

    def _generate_examples(self, examples: Sequence[tuple[bytes, Any]]):
        yield from enumerate(dict(zip(self.keys, example, strict=True)) for example in examples)


def prepare_set(
    data_dir: Path,
    splits: Mapping[str, Sequence[tuple[bytes, Any]]],
    keys: tuple[str, str] = ("image", "label"),
    *,
    shape: tuple[int | None, int | None, int] = (None, None, 3),
    label: Any = None,
    shards: int | None = None,
) -> None:
    """Prepares the set `pictures`.

    Args:
      data_dir: the folder of all sets.
      splits: encoded pictures and their labels, by split.
      keys: names of the two features.
      shape: (H, W, C) as the set declares it.
      label: TFDS's feature of the labels; None: a label of one of CLASSES classes without names.
      shards: the number of files of each split; None: as many as TFDS chooses.
    """
    tfds.disable_progress_bar()
    label = label or tfds.features.ClassLabel(num_classes=CLASSES)
    features = (tfds.features.Image(shape=shape), label)
    with contextlib.redirect_stdout(None):
        builder = Pictures(splits, keys, features, data_dir=data_dir, file_format="array_record")
        config = tfds.download.DownloadConfig(num_shards=shards)
        builder.download_and_prepare(download_config=config)


def prepare_30_and_8(data_dir: Path) -> Path:
    """Prepares a set of 30 training and 8 test pictures, and returns its data_dir."""
    prepare_set(data_dir, {"train": examples(30), "test": examples(8, seed=1)})
    return data_dir


def pixels(count: int, shape: tuple[int, ...] = (6, 5, 3), seed: int = 0) -> np.ndarray:
    """(count, *shape) uint8 of random pictures."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def examples(count: int, file_format: str = "png", seed: int = 0) -> list[Example]:
    """Encoded random pictures, with the classes in turn."""
    pictures = [encode(picture, file_format) for picture in pixels(count, seed=seed)]
    return [(picture, number % CLASSES) for number, picture in enumerate(pictures)]


def sorted_examples(split: Split) -> list[tuple[bytes, int]]:
    """Pixels and label of each example in a fixed order, because TFDS shuffles what it prepares."""
    pairs = zip(split.images, split.labels, strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)
