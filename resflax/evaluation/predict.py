"""What a run's network takes a person's own pictures for."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resflax.data.names import class_names
from resflax.data.pictures import BadPicture, decode
from resflax.data.pictures import size as size_of
from resflax.data.source import describe
from resflax.errors import UsageError
from resflax.evaluation.examples import frame_of, moved
from resflax.evaluation.measures import best_classes
from resflax.evaluation.network import load_network
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.views import Views, cutting
from resflax.training.compilation import keep_compiled
from resflax.training.display import Display
from resflax.training.files import in_words
from resflax.training.run_folder import RunFolder


@dataclass(frozen=True)
class Guess:
    """A class that a picture may be of."""

    label: int
    """The class's number."""
    name: str
    """As the data set has it; the number where it has no names or is not at hand."""
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network takes a picture for."""

    path: Path
    size: tuple[int, int]
    """Height and width of the picture as its file has it, before it is turned."""
    seen: tuple[int, int]
    """Height and width of what the network saw of it."""
    guesses: tuple[Guess, ...]
    """The five most probable classes, surest first."""

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class Unread:
    """A file that is no picture, or cannot be read."""

    path: Path
    reason: str


def predict(
    folder: RunFolder, paths: Sequence[Path], data_dir: str | None, display: Display
) -> list[Prediction | Unread]:
    """The five most probable classes of each picture, in the order of the paths.

    Pictures are turned as their EXIF says, get the channels that the network was trained on, and
    are resized and cropped as test pictures are: to the centre, of the network's size.

    Args:
      folder: the run's.
      paths: of picture files in any format that Pillow reads.
      data_dir: where the run's data lies now, for the names of the classes; None: where the
        experiment says. Sets that every installation knows need not be there.
      display: shows how far it is, and which damaged checkpoints are passed over.

    Raises:
      UsageError: if the folder is no run, has no checkpoint or one whose outputs are not finite,
        or if nothing is known of its data.
      TrainingError: if all checkpoints of the run are damaged.
    """
    keep_compiled()
    data = moved(folder.read_experiment().data, data_dir)
    frame = frame_of(data)
    network = load_network(folder, describe(data).num_classes, frame.shape, display.say)
    how = cutting(Views(), frame)
    found: list[tuple[int, int] | str] = []

    def cut(path: Path) -> list[np.ndarray]:
        try:
            encoded = path.read_bytes()
            height, width = size_of(encoded)
            picture = upright(decode(encoded, frame.shape[2], how.shorter), encoded)
        except (OSError, BadPicture) as error:
            found.append(in_words(error))
            return []
        found.append((height, width))
        return how.cut(picture)

    with display.bar("pictures", len(paths)) as bar:
        scores = log_probabilities(network, how, map(cut, paths), len(paths), bar.set)
    if np.isnan(scores).any():
        raise UsageError(f"{folder.path}: the outputs of its network are not finite")
    names = class_names(data) or [str(label) for label in range(network.num_classes)]
    predictions: list[Prediction | Unread] = []
    for path, size, row, best in zip(paths, found, scores, best_classes(scores), strict=True):
        if isinstance(size, str):
            predictions.append(Unread(path, size))
            continue
        guesses = (Guess(int(label), names[label], float(np.exp(row[label]))) for label in best)
        predictions.append(Prediction(path, size, frame.size, tuple(guesses)))
    return predictions


_ORIENTATION = 274  # EXIF's tag
# By its value, the steps through rows and columns that bring a picture upright; from 5 on these
# have changed places.
_STEPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def upright(picture: np.ndarray, encoded: bytes) -> np.ndarray:
    """A decoded picture (H, W, C), turned and mirrored as its file's EXIF says."""
    with contextlib.suppress(Exception):  # the picture is good: what is wrong now is the EXIF
        orientation = Image.open(io.BytesIO(encoded)).getexif()[_ORIENTATION]
        rows, columns = _STEPS[orientation]
        picture = picture.swapaxes(0, 1) if orientation >= 5 else picture
        picture = np.ascontiguousarray(picture[::rows, ::columns])
    return picture
