"""Prepared TFDS sets, opened and checked: no TensorFlow, no network, no picture read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from resflax.cache import cache_folder
from resflax.data import digits
from resflax.data.pictures import MODES
from resflax.declarations.checks import refuse
from resflax.declarations.data import Prepared
from resflax.errors import UsageError


def open_set(data: Prepared) -> Any:
    """The builder of the prepared set."""
    data_dir = Path(data.data_dir).expanduser() if data.data_dir is not None else None
    embedded = data.name == digits.NAME
    if embedded:
        data_dir = data_dir or cache_folder("datasets")
        try:
            digits.prepare(data_dir)
        except OSError as error:
            raise UsageError(f"cannot prepare the digits in {data_dir}: {error}") from None
    try:
        return read_only_builder.builder_from_files(data.name, data_dir=data_dir)
    except Exception as error:  # TFDS raises many kinds for a name or folder it cannot use
        place = data_dir or tfds.core.constants.DATA_DIR
        kind = type(error).__name__
        detail = "" if "NotFound" in kind else f" ({kind}: {' '.join(str(error).split())[:200]})"
        refuse(
            data,
            "name",
            f"no prepared set of that name in {place}{detail}; name its folder with --data.data-dir"
            f", or prepare it: python scripts/prepare_data.py {data.name}",
        )


def set_features(data: Prepared, builder: Any) -> tuple[Any, Any]:
    """The picture's and the label's feature, checked."""
    features, splits = builder.info.features, builder.info.splits
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        refuse(
            data,
            "name",
            f"the set is stored as {builder.info.file_format.value}; it must be array_record",
        )
    for field in ("image_key", "label_key"):
        if getattr(data, field) not in features:
            refuse(data, field, f"{data.name} has the features {', '.join(sorted(features))}")
    image, label = features[data.image_key], features[data.label_key]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        refuse(data, "image_key", "it must name a picture of 8-bit values")
    if image.shape[-1] not in (None, *MODES):
        refuse(data, "image_key", f"its pictures have {image.shape[-1]} channels, not 1, 3 or 4")
    if not isinstance(label, tfds.features.ClassLabel):
        refuse(data, "label_key", "it must name a class label")
    for field in ("train_split", "test_split"):
        name = getattr(data, field)
        if name not in splits:
            refuse(data, field, f"{data.name} has the splits {', '.join(splits)}")
        if splits[name].num_examples == 0:
            refuse(data, field, f"that split of {data.name} has no examples")
    examples = splits[data.train_split].num_examples
    if data.validation >= examples:
        refuse(
            data, "validation", f"it must be below the {examples} examples of {data.train_split}"
        )
    return image, label


@contextlib.contextmanager
def files_of(data: Prepared, split: str) -> Iterator[None]:
    """Names the split whose files are missing or damaged."""
    try:
        yield
    except Exception as error:  # array_record and protobuf raise many kinds
        detail = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{data.name}, {split}: its files cannot be read ({detail}); prepare the set anew"
        ) from None
