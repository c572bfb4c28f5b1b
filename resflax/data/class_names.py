"""The names of a data set's classes."""

from pathlib import Path

import tensorflow_datasets as tfds

from resflax.data.image_folder import classes_of
from resflax.data.prepared_sets import label_feature, open_prepared_set
from resflax.declarations.data import Data, ImageFolder
from resflax.errors import UsageError


def class_names(data: Data) -> list[str] | None:
    """The names of the classes in order, or None if the set cannot be found.

    If a set does not name its classes, their names are their numbers. The names of CIFAR-10 and
    ImageNet are known even if the set cannot be found. Raises `UsageError` if a set is found but
    cannot be used.
    """
    try:
        if isinstance(data, ImageFolder):
            return classes_of(data)
        builder = open_prepared_set(data)
    except UsageError:
        return _known_names(data)
    return list(label_feature(data, builder).names)


_OF_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"


def _known_names(data: Data) -> list[str] | None:
    if data.name == "cifar10":
        return _OF_CIFAR10.split()
    if data.name == "imagenet2012":  # WordNet's numbers, such as n01440764
        names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt"))
        return names.read_text(encoding="utf-8").split()
    return None
