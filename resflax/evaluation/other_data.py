"""Declares the data on which a run is measured, if it is not the run's own.

This file does not import JAX.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from resflax.declarations.data import Data, ImageFolder, Streamed
from resflax.errors import UsageError

KINDS = {kind.__name__: kind for kind in get_args(Data)}
"""The declarations of data by their names."""


@dataclass(frozen=True)
class OtherData:
    """Fields of the run's data that are replaced for a measurement. None: as in the run.

    How the network sees pictures is always the run's own: their size, crop and normalisation. Other
    data has no held-out examples.
    """

    type: (
        Literal["Digits", "CIFAR10", "CIFAR100", "TFDS", "ImageNet", "ImageFolder", "Streamed"]
        | None
    ) = None
    """Kind of the data, if it is not the run's: ImageFolder for a plain folder of pictures, or
    another declaration. Its other fields then start from that declaration's defaults."""

    name: str | None = None
    """Name of a prepared set, as in the TFDS catalogue: `cifar10_1/v6`."""

    data_dir: str | None = None
    """Folder that holds NAME/VERSION/, or the folders of pictures."""

    train_split: str | None = None
    """Split that `--split train` measures."""

    test_split: str | None = None
    """Split that `--split test` measures. For a plain folder of pictures, `.` means that the
    folders of the classes lie in the folder itself."""

    image_key: str | None = None
    """Feature that holds the picture."""

    label_key: str | None = None
    """Feature that holds the class, or a sequence of classes of which each is right."""

    def replaced_in(self, own: Data) -> Data:
        """The data to be measured, for a run with the data `own`.

        Raises `UsageError` if a field is missing or has a wrong value.
        """
        given: dict[str, Any] = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None and field.name != "type"
        }
        kind: Any = type(own) if self.type is None else KINDS[self.type]
        if self.type is None and isinstance(own, ImageFolder) and self.name is not None:
            kind = Streamed  # only prepared sets have names
        if kind is type(own):
            return dataclasses.replace(own, validation=0, **given)
        if "name" not in given and kind.__dataclass_fields__["name"].default is dataclasses.MISSING:
            raise UsageError(f"--data.type {kind.__name__} needs the name of a set: --data.name")
        made: Data = kind(**given)
        return made


def is_own(own: Data, other: Data) -> bool:
    """Whether two declarations name the same files and the same examples in them."""
    fields = ("name", "data_dir", "train_split", "test_split", "image_key", "label_key")
    folders = [isinstance(data, ImageFolder) for data in (own, other)]
    return folders[0] == folders[1] and all(getattr(own, f) == getattr(other, f) for f in fields)
