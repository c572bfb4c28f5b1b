"""What a trained network takes pictures for: the five most probable classes of each."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from resflax.command_line import Flag, one_line, parse, run
from resflax.errors import UsageError

if TYPE_CHECKING:
    from resflax.evaluation.predict import Prediction


@dataclass(frozen=True)
class Options:
    """Says what a trained network takes pictures for, from the run's newest good checkpoint."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, finished or not."""

    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]")]
    """Picture files. Each is turned as its EXIF says, brought to the channels that the network
    was trained on, and resized and cropped to the centre of the size it was trained on."""

    data_dir: str | None = None
    """Where the run's data lies now, for the classes' names. None: where the experiment says."""

    json: Flag = False
    """Print one JSON array and nothing else."""


def main(arguments: Sequence[str]) -> None:
    """Predicts, and prints the classes; exits with 2 if there were files that are no pictures."""
    options = parse(Options, arguments)
    if not options.images:
        raise UsageError("name at least one picture: predict.py RUN IMAGE [IMAGE ...]")
    from resflax.evaluation.predict import Prediction, predict  # imports JAX: only now
    from resflax.training.display import Display
    from resflax.training.run_folder import RunFolder

    paths = [Path(image) for image in options.images]
    with Display(Console(stderr=options.json)) as display:
        found = predict(RunFolder(Path(options.run)), paths, options.data_dir, display)
    good = [one for one in found if isinstance(one, Prediction)]
    if options.json:
        print(json.dumps([one.to_json() for one in good]))
    else:
        for one in good:
            print(_in_words(one))
    bad = [one for one in found if not isinstance(one, Prediction)]
    for unread in bad:
        print(one_line(f"error: {unread.path}: {unread.reason}"), file=sys.stderr)
    if bad:
        sys.exit(2)


def _in_words(found: "Prediction") -> str:
    height, width = found.seen
    size = "{}x{}".format(*found.size)
    seen = size if found.size == found.seen else f"{size}, resized and cropped to {height}x{width}"
    lines = [f"{guess.probability:8.2%}  {guess.name}" for guess in found.guesses]
    return "\n".join([f"{found.path} ({seen})", *lines])


if __name__ == "__main__":
    run(main)
