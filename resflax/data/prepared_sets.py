"""Opens and checks prepared TFDS sets, without TensorFlow, the internet or reading pictures."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from resflax.cache import cache_folder
from resflax.data import digits
from resflax.data.faults import SystemFault, system_fault
from resflax.data.pictures.pillow_decoding import MODES
from resflax.declarations.checks import refuse
from resflax.declarations.data import Prepared
from resflax.errors import UsageError
from resflax.paths import check_utf8, user_path
from resflax.text import one_line


def default_data_dir() -> Path:
    """The folder in which TFDS keeps its sets: TFDS_DATA_DIR, or else ~/tensorflow_datasets.

    Raises `UsageError` if it is not known, because this user has no home folder.
    """
    try:
        return user_path(os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
    except UsageError as error:
        raise UsageError(f"{error}, in TFDS_DATA_DIR or as the data's data_dir") from None


def open_prepared_set(data: Prepared) -> Any:
    """The TFDS builder of the declared set; the digits are prepared on first use.

    Raises `UsageError` if there is no such set.
    """
    if data.data_dir is not None:
        data_dir = user_path(data.data_dir)
    else:
        data_dir = cache_folder("datasets") if data.name == digits.NAME else default_data_dir()
    check_utf8(data_dir)
    if data.name == digits.NAME:
        try:
            digits.prepare_digits(data_dir)
        except OSError as error:
            raise UsageError(f"cannot prepare the digits in {data_dir}: {error}") from None
    try:
        return read_only_builder.builder_from_files(data.name, data_dir=data_dir)
    except Exception as error:  # TFDS raises many types of errors for a bad name or folder
        fault = system_fault(error, data.name) or _fault_of_folder(data_dir, data.name)
        if fault is not None:
            raise UsageError(f"{data.name}: {fault}") from None
        error_type = type(error).__name__
        detail = "" if "NotFound" in error_type else f" ({error_type}: {one_line(error)})"
        refuse(
            data,
            "name",
            f"no prepared set of that name in {data_dir}{detail}; name its folder with "
            f"--data.data-dir, or prepare it: resflax prepare-data {data.name}",
        )


def _fault_of_folder(place: Path, name: str) -> SystemFault | None:
    """What keeps the folders of a set from being listed; None if nothing does.

    TFDS takes a folder that it must not list for an empty one.
    """
    errors: list[OSError] = []
    for _ in os.walk(place / re.split("[/:]", name)[0], onerror=errors.append):
        pass
    found = (error for error in errors if not isinstance(error, FileNotFoundError))
    return next((fault for error in found if (fault := system_fault(error, name))), None)


def picture_feature(data: Prepared, builder: Any) -> Any:
    """TFDS's feature of the set's pictures. Raises `UsageError` if the set cannot be used."""
    _check_set(data, builder)
    return builder.info.features[data.image_key]


def label_feature(data: Prepared, builder: Any) -> Any:
    """TFDS's feature of the set's class labels. Raises `UsageError` if the set cannot be used."""
    _check_set(data, builder)
    return builder.info.features[data.label_key]


def measured_features(data: Prepared, builder: Any, split: str) -> tuple[Any, Any]:
    """TFDS's features of the pictures and the labels of a set of which one split is measured.

    The other split need not exist. The labels are a class label, or a sequence of them.

    Args:
      data: the declaration of the set.
      builder: its TFDS builder.
      split: the field of the declaration that names the split: `train_split` or `test_split`.

    Raises `UsageError` if the split cannot be measured.
    """
    _check_features(data, builder)
    _check_split(data, builder, split)
    features = builder.info.features
    label = features[data.label_key]
    single = label.feature if isinstance(label, tfds.features.Sequence) else label
    if not isinstance(single, tfds.features.ClassLabel):
        refuse(data, "label_key", "it must name a class label or a sequence of class labels")
    return features[data.image_key], label


def _check_set(data: Prepared, builder: Any) -> None:
    """Raises `UsageError` if the set's format, features or splits are not as declared."""
    _check_features(data, builder)
    if not isinstance(builder.info.features[data.label_key], tfds.features.ClassLabel):
        refuse(data, "label_key", "it must name a class label")
    for field in ("train_split", "test_split"):
        _check_split(data, builder, field)
    examples = builder.info.splits[data.train_split].num_examples
    if data.validation >= examples:
        refuse(
            data, "validation", f"it must be below the {examples} examples of {data.train_split}"
        )


def _check_features(data: Prepared, builder: Any) -> None:
    """Raises `UsageError` if the set's format or pictures are unsuitable, or a feature is missing.

    The type of the label is not checked.
    """
    features = builder.info.features
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        refuse(
            data,
            "name",
            f"the set is stored as {builder.info.file_format.value}; it must be array_record",
        )
    for field in ("image_key", "label_key"):
        if getattr(data, field) not in features:
            refuse(data, field, f"{data.name} has the features {', '.join(sorted(features))}")
    image = features[data.image_key]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        refuse(data, "image_key", "it must name a picture of 8-bit values")
    if image.shape[-1] not in (None, *MODES):
        refuse(data, "image_key", f"its pictures have {image.shape[-1]} channels, not 1, 3 or 4")


def _check_split(data: Prepared, builder: Any, field: str) -> None:
    """Raises `UsageError` unless the split that a field of the declaration names has examples."""
    name, splits = getattr(data, field), builder.info.splits
    if name not in splits:
        refuse(data, field, f"{data.name} has the splits {', '.join(splits)}")
    if splits[name].num_examples == 0:
        refuse(data, field, f"that split of {data.name} has no examples")


@contextlib.contextmanager
def naming_split(data: Prepared, split: str) -> Iterator[None]:
    """Turns any error while files are read into a `UsageError` that names the set and the split."""
    try:
        yield
    except Exception as error:  # array_record and protobuf raise many types of errors
        fault = system_fault(error, "a file")
        if fault is not None:
            raise UsageError(f"{data.name}, {split}: {fault}") from None
        raise UsageError(
            f"{data.name}, {split}: its files cannot be read ({one_line(error)}); prepare the set "
            "anew"
        ) from None
