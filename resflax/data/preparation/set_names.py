"""Names of prepared sets and of their splits, which TFDS restricts."""

import re
import unicodedata
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from resflax.data import digits
from resflax.declarations.checks import short
from resflax.errors import UsageError

LONGEST = 100
"""The most characters of a name; the names of files add some 50, and may have 255 in all."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SPLIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def check_set_name(name: str) -> None:
    """Raises `UsageError` unless a new set may have this name; the message proposes another one.

    TFDS finds a set under its name in snake case, so that `Photos` would be looked for as `photos`.
    The names of the TFDS catalogue belong to its own sets.
    """
    shown, proposal = short(name), f"--name {valid_name(name)}"
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageError(
            f"--name is {shown}; the name of a set begins with a small letter and has nothing but "
            f"a-z, 0-9 and _, at most {LONGEST} characters, such as {proposal}"
        )
    if _is_published(name):
        raise UsageError(
            f"--name is {shown}, which is a published set of TensorFlow Datasets; choose another "
            f"name, such as {proposal}"
        )


def check_split_name(folder: str) -> None:
    """Raises `UsageError` unless the folder of the test pictures may give its name to a split."""
    if not _SPLIT.fullmatch(folder) or len(folder) > LONGEST or folder == "all":
        raise UsageError(
            f"--test-split is {short(folder)}; it must name a folder beside train, by "
            f"nothing but letters, digits, _ and -, at most {LONGEST} characters, and not 'all'; "
            "rename the folder"
        )


def is_name_of_set(text: str) -> bool:
    """Whether a text may name a set of the catalogue: `name`, `name/config` or `name:version`."""
    return naming.is_valid_dataset_name(text)


def valid_name(name: str) -> str:
    """A valid name that resembles `name`, and that no published set has."""
    plain = unicodedata.normalize("NFKD", Path(name).name).encode("ascii", "ignore")
    snake = naming.camelcase_to_snakecase(plain.decode())
    words = re.sub(r"[^a-z0-9]+", "_", snake).strip("_")[: LONGEST - 10].rstrip("_")
    if not words:
        return "my_pictures"
    return words if words[0].isalpha() and not _is_published(words) else f"my_{words}"


def _is_published(name: str) -> bool:
    return name == digits.NAME or name in tfds.list_builders(with_community_datasets=False)
