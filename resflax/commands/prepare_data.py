"""Prepares a set of pictures for training, from the TFDS catalogue or from a folder.

usage: resflax prepare-data NAME [--data-dir DIR]
       resflax prepare-data FOLDER --name NAME [--data-dir DIR] [--test-split NAME]

  NAME           cifar10, cifar100, svhn_cropped, imagenet2012 or any other image set of the
                 TensorFlow Datasets catalogue, which is downloaded; this needs TensorFlow:
                 pip install 'resflax[prepare]'
  FOLDER         a folder with train/CLASS/*.jpg and val/CLASS/*.jpg
  --name NAME    the name of the set that is made from the folder: small letters, digits and _
  --data-dir DIR the folder that holds all sets (default: $TFDS_DATA_DIR, or else
                 ~/tensorflow_datasets)
  --test-split   the folder with the pictures that are not for training (default: val)

After an interruption, the same command continues with what is missing. If the set is already
prepared, the command compares its files with their sha256 sums. If a machine has no internet
access, prepare the set on one that has, and copy DIR/NAME.

exit codes: 0 the set is ready; 1 it could not be read or written, such as for a full disk;
2 it cannot be prepared. The reason is printed.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.errors import UsageError
from resflax.paths import user_path
from resflax.terminal.display import Display
from resflax.terminal.options import parse
from resflax.terminal.program import usage_as_called
from resflax.text import path_text


@dataclass(frozen=True)
class Options:
    """Prepares a set of pictures for training, from the TFDS catalogue or from a folder."""

    source: Annotated[Positional[str], arg(metavar="NAME|FOLDER")]
    """A set of the TFDS catalogue, or a folder with train/CLASS/*.jpg and val/CLASS/*.jpg."""

    name: str | None = None
    """The name of the set that is made from a folder."""

    data_dir: str | None = None
    """The folder that holds all sets. None: $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""

    test_split: str = "val"
    """The folder with the pictures that are not for training."""


def main(arguments: Sequence[str]) -> None:
    """Prepares the set, and prints the options with which to train on it."""
    if {"-h", "--help"} & set(arguments):
        print(usage_as_called(__doc__ or ""))
        sys.exit(0)
    options = parse(Options, arguments)
    from resflax.data.prepared_sets import default_data_dir  # imports TFDS: only now

    data_dir = user_path(options.data_dir) if options.data_dir else default_data_dir()
    with Display(Console()) as display:
        folder, split_option = _prepare(options, data_dir, display)
    name, place = folder.parent.name, path_text(data_dir)
    print(f"{path_text(folder)} is ready: --data.name {name} --data.data-dir {place}{split_option}")
    if split_option:
        print(f'an experiment file declares it as Streamed("{name}"), not as an ImageFolder')


def _prepare(options: Options, data_dir: Path, display: Display) -> tuple[Path, str]:
    """Prepares the named set, or the folder of pictures.

    Returns the folder of the set, and the option that names its test split if it is of a folder.
    """
    from resflax.data.preparation.picture_folders import prepare_folder
    from resflax.data.preparation.published_sets import prepare_published
    from resflax.data.preparation.set_names import is_name_of_set, valid_name

    source = user_path(options.source)
    # Inside the folder of all sets, a name means a prepared set and not a folder of pictures.
    names_a_set = options.source == source.name and Path.cwd() == data_dir.resolve()
    if os.path.isdir(source) and (options.name is not None or not names_a_set):
        if options.name is None:
            example = valid_name(source.resolve().name)
            raise UsageError(
                f"{path_text(source)} is a folder; name the new set with --name, such as --name "
                f"{example}"
            )
        folder = prepare_folder(
            source, options.name, data_dir, display.say, display.items, options.test_split
        )
        return folder, f" --data.test-split {options.test_split}"
    if options.name is not None:
        raise UsageError(f"there is no folder {path_text(source)}")
    if not is_name_of_set(options.source):
        raise UsageError(f"{path_text(source)} is neither a folder nor the name of a set")
    return prepare_published(options.source, data_dir, display.say), ""
