"""Predicts the five most probable classes of each picture with a trained network."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.errors import UsageError
from resflax.paths import user_path
from resflax.terminal.command import message_line
from resflax.terminal.options import Flag, parse
from resflax.text import path_text

if TYPE_CHECKING:
    from resflax.evaluation.predict import Prediction


@dataclass(frozen=True)
class Options:
    """Predicts the classes of pictures with the newest good checkpoint of a run."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, finished or not."""

    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]")]
    """Picture files. Each picture is turned as its EXIF orientation says, converted to the channels
    that the network was trained on, and resized and cropped around its centre to the size that it
    was trained on."""

    data_dir: str | None = None
    """Folder where the run's data is now; it supplies the names of the classes. None: the folder
    that the experiment declares."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""

    best: Flag = False
    """Use the checkpoint with the lowest validation error, which a run with `keep_best` keeps, and
    not the newest."""

    json: Flag = False
    """Print one JSON array and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Prints the classes of the pictures. Exits with 2 if a file could not be read as a picture."""
    options = parse(Options, arguments)
    if not options.images:
        raise UsageError("name at least one picture: resflax predict RUN IMAGE [IMAGE ...]")
    from resflax.evaluation.predict import Prediction, predict  # imports JAX: only now
    from resflax.runs.run_folder import RunFolder
    from resflax.terminal.display import Display

    paths = [user_path(image) for image in options.images]
    folder = RunFolder(user_path(options.run), trust_code=options.trust_code)
    with Display(Console(stderr=options.json)) as display:
        results = predict(folder, paths, options.data_dir, display, best=options.best)
    predictions = [result for result in results if isinstance(result, Prediction)]
    if options.json:
        print(json.dumps([prediction.to_json() for prediction in predictions]))
    else:
        for prediction in predictions:
            print(_in_words(prediction))
    unreadable = [result for result in results if not isinstance(result, Prediction)]
    for file in unreadable:
        print(message_line(f"error: {path_text(file.path)}: {file.reason}"), file=sys.stderr)
    if unreadable:
        sys.exit(2)


def _in_words(prediction: "Prediction") -> str:
    (height, width), (seen_height, seen_width) = prediction.size, prediction.seen
    sizes = f"{width}x{height}"  # the width first, as file managers and cameras show it
    if prediction.size != prediction.seen:
        sizes += f", resized and cropped to {seen_width}x{seen_height}"
    lines = [f"{guess.probability:8.2%}  {guess.name}" for guess in prediction.guesses]
    return "\n".join([f"{path_text(prediction.path)} ({sizes})", *lines])
