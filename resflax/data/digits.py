"""scikit-learn's handwritten digits as a TFDS set: real data that needs no download."""

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import tqdm_utils

NAME = "digits"
_LEFT_SECONDS = 3600.0  # a preparation takes seconds


class Builder(tfds.core.GeneratorBasedBuilder):
    """1,797 images (8, 8, 1) uint8 of ten digits: the test part of Alpaydin & Kaynak (UCI, 1998).

    scikit-learn does not split them, so here every fifth picture of each class is for testing.
    Pixel values from 0 to 16 are scaled to 0 to 255.
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
        from sklearn.datasets import load_digits  # slow to import, and needed only once

        digits = load_digits()
        seen = [0] * 10
        for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            seen[label] += 1
            if (seen[label] % 5 == 0) == test:
                pixels = np.rint(values * (255 / 16)).astype(np.uint8)
                png = io.BytesIO()  # encoded here, because TFDS would need TensorFlow for this
                Image.fromarray(pixels).save(png, "png")
                yield index, {"image": png.getvalue(), "label": int(label)}


def prepare_digits(data_dir: Path) -> None:
    """Prepares the digits in `data_dir`, unless they are already prepared.

    Other processes see either the whole set or none of it, and may prepare it at the same time.
    """
    version = f"{NAME}/{Builder.VERSION}"
    final = data_dir / version
    if final.exists():
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in data_dir.glob(".preparing-*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    private = Path(tempfile.mkdtemp(prefix=".preparing-", dir=data_dir))
    try:
        # TFDS announces every set that it prepares.
        with contextlib.redirect_stdout(None), _no_progress_bars():
            Builder(data_dir=private, file_format="array_record").download_and_prepare()
        try:
            (private / version).rename(final)
        except OSError:
            if not final.exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Switches TFDS's progress bars off inside a `with` statement."""
    shown = tqdm_utils._active  # TFDS has no public function that returns this
    tqdm_utils.display_progress_bar(False)
    try:
        yield
    finally:
        tqdm_utils.display_progress_bar(shown)
