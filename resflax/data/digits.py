"""scikit-learn's handwritten digits as a TFDS set: real data that needs no network."""

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NAME = "digits"


class Builder(tfds.core.GeneratorBasedBuilder):
    """1,797 images (8, 8, 1) uint8 of ten digits: the test part of Alpaydin & Kaynak (UCI, 1998).

    scikit-learn has no split of them, so every fifth picture of each class is for testing. Values
    0 to 16 become 0 to 255.
    """

    name = NAME
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"train": self._generate_examples(False), "test": self._generate_examples(True)}

    def _generate_examples(self, test: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits  # slow to import, and needed once

        digits = load_digits()
        seen = [0] * 10
        for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            seen[label] += 1
            if (seen[label] % 5 == 0) == test:
                pixels = np.rint(values * (255 / 16)).astype(np.uint8)
                png = io.BytesIO()  # encoded here: TFDS would need TensorFlow for it
                Image.fromarray(pixels).save(png, "png")
                yield index, {"image": png.getvalue(), "label": int(label)}


def prepare(data_dir: Path) -> None:
    """Prepares the digits under `data_dir`, whole or not at all; does nothing if they are there."""
    version = f"{NAME}/{Builder.VERSION}"
    final = data_dir / version
    if final.exists():
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    # A private folder and a rename: two processes may do this at the same time.
    private = Path(tempfile.mkdtemp(prefix=".preparing-", dir=data_dir))
    try:
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(None):  # TFDS announces every set it prepares
            Builder(data_dir=private, file_format="array_record").download_and_prepare()
        try:
            (private / version).rename(final)
        except OSError:
            if not final.exists():
                raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
