"""Predicts the classes of a person's own pictures with a run's network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resflax.data.class_names import class_names
from resflax.data.description import describe
from resflax.data.faults import system_fault
from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.decoding import decode, picture_size
from resflax.devices.compilation import keep_compiled
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.evaluation.measures import best_classes
from resflax.evaluation.network import load_network
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.split_reader import data_in, trained_picture_format
from resflax.evaluation.views import Views, view_maker
from resflax.files import reason_of
from resflax.runs.run_folder import RunFolder
from resflax.terminal.display import Display


@dataclass(frozen=True)
class Guess:
    """One of the most probable classes of a picture."""

    label: int
    """Number of the class."""
    name: str
    """Name of the class; its number if it has no name or the data set cannot be found here."""
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The network's guesses for a picture."""

    path: Path
    size: tuple[int, int]
    """Height and width of the picture in its file, after it is turned upright."""
    seen: tuple[int, int]
    """Height and width of the part that the network saw, after resizing."""
    guesses: tuple[Guess, ...]
    """The five most probable classes, the most probable first."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class UnreadableFile:
    """A file that is not a picture or cannot be read."""

    path: Path
    reason: str


def predict(
    folder: RunFolder,
    paths: Sequence[Path],
    data_dir: str | None,
    display: Display,
    *,
    best: bool = False,
) -> list[Prediction | UnreadableFile]:
    """Predicts the five most probable classes of each picture, in the order of the paths.

    Pictures are turned as their EXIF orientation says and converted to the channels that the
    network was trained on. Then they are resized, and cropped around their centre, to the size that
    it was trained on.

    Args:
      folder: the run's folder.
      paths: picture files in any format that Pillow reads.
      data_dir: the folder where the run's data is now; it supplies the names of the classes. None:
        the folder that the experiment declares. Sets that resflax knows by name need not be there.
      display: shows the progress, and which damaged checkpoints are skipped.
      best: whether the checkpoint with the lowest validation error is used, not the newest.

    Raises:
      UsageError: if the folder is not a run's or has no such checkpoint; if the network's outputs
        are not finite; if the run's data is not known and cannot be found.
      TrainingError: if all checkpoints of the run are damaged, or if the system cannot read files
        at all (`SystemFault`).
    """
    check_settings()
    keep_compiled()
    data = data_in(folder.read_experiment().data, data_dir)
    picture_format = trained_picture_format(data)
    num_classes, shape = describe(data).num_classes, picture_format.shape
    network = load_network(folder, num_classes, shape, display.say, best=best)
    maker = view_maker(Views(), picture_format)
    sizes_or_faults: list[tuple[int, int] | str] = []

    def images_of(path: Path) -> list[np.ndarray]:
        if path.is_dir():
            sizes_or_faults.append("this is a folder; name the pictures in it")
            return []
        try:
            encoded = path.read_bytes()
            size = picture_size(encoded)
            picture = decode(encoded, shape[2], maker.shorter_side)
        except (OSError, BadPicture, MemoryError) as error:
            fault = system_fault(error, str(path))
            if fault is not None and fault.may_pass:  # it concerns more than this file
                raise fault from None
            sizes_or_faults.append(reason_of(error))
            return []
        sizes_or_faults.append(size)
        return maker.images(picture)

    with display.bar("pictures", len(paths)) as bar:
        scores = log_probabilities(network, maker, map(images_of, paths), len(paths), bar.set)
    if np.isnan(scores).any():
        raise UsageError(f"{folder.path}: the outputs of its network are not finite")
    names = class_names(data) or [str(label) for label in range(num_classes)]
    results: list[Prediction | UnreadableFile] = []
    for path, size_or_fault, row, classes in zip(
        paths, sizes_or_faults, scores, best_classes(scores), strict=True
    ):
        if isinstance(size_or_fault, str):
            results.append(UnreadableFile(path, size_or_fault))
            continue
        guesses = tuple(
            Guess(int(label), names[label], float(np.exp(row[label]))) for label in classes
        )
        results.append(Prediction(path, size_or_fault, picture_format.size, guesses))
    return results
