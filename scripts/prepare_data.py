"""Prepares a set of pictures for training: downloaded, or from a folder of class folders.

usage: prepare_data.py NAME [--data-dir DIR]
       prepare_data.py FOLDER --name NAME [--data-dir DIR] [--test-split NAME]

  NAME           cifar10, cifar100, svhn_cropped, imagenet2012, or any other image set of the
                 TensorFlow Datasets catalogue; needs TensorFlow: pip install -e '.[prepare]'
  FOLDER         has train/CLASS/*.jpg and val/CLASS/*.jpg; needs nothing else
  --name NAME    what the set is to be called
  --data-dir DIR where sets are kept (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)
  --test-split   the folder's other split (default: val)

Interrupted, the same command goes on. Of a set that is prepared it compares the files with their
sha256 sums. Without a network: prepare on a machine that has one, and copy DIR/NAME.

exit codes: 0 done; 2 it cannot be done, and why
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.command_line import parse, run
from resflax.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Prepares a set of pictures for training: downloaded, or from a folder of class folders."""

    source: Annotated[Positional[str], arg(metavar="NAME|FOLDER")]
    """A set of the TFDS catalogue, or a folder with train/CLASS/*.jpg and val/CLASS/*.jpg."""

    name: str | None = None
    """What the set made from a folder is to be called."""

    data_dir: str | None = None
    """Where sets are kept. None: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    test_split: str = "val"
    """The folder's split that is not for training."""


def main(arguments: Sequence[str]) -> None:
    """Prepares, and says how to train on it."""
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        sys.exit(0)
    options = parse(Options, arguments)
    from resflax.data.preparation import default_data_dir, prepare_folder, prepare_published
    from resflax.training.display import Display

    data_dir = Path(options.data_dir).expanduser() if options.data_dir else default_data_dir()
    source = Path(options.source).expanduser()
    with Display(Console()) as display:
        # In the folder of sets, a set's name is no folder of pictures.
        at_its_place = options.source == source.name and Path.cwd() == data_dir.resolve()
        if source.is_dir() and (options.name is not None or not at_its_place):
            if options.name is None:
                raise UsageError(f"{source} is a folder: say with --name what to call the set")
            folder = prepare_folder(
                source, options.name, data_dir, display.say, display.items, options.test_split
            )
        elif "/" in options.source and not options.source.replace("/", "").isidentifier():
            raise UsageError(f"{source} is no folder, and no name of a set")
        else:
            folder = prepare_published(options.source, data_dir, display.say)
    print(f"{folder} is ready: --data.name {folder.parent.name} --data.data-dir {data_dir}")


if __name__ == "__main__":
    run(main)
