"""Makes a deeper run that begins as exactly the function that another run has learned.

usage: resflax deepen RUN --model.depth D --run-dir DIR [--trust-code] [--FIELD VALUE ...]

  RUN              the run folder of a ResNet or DenseNet, finished or not
  --model.depth D  the depth of the new network
  --run-dir DIR    the new folder
  --trust-code     runs the code of classes of your own as RUN keeps it, if the files where it came
                   from have changed or are gone
  --FIELD VALUE    how the new run is trained, such as --epochs 5 --optimizer.learning-rate 0.01
                   (default: as RUN was)

The layers of RUN are copied. Units that are added to a ResNet, at the end of each stage, are the
identity; layers that are added to a DenseNet, at the end of each block, are not read yet. So the
logits stay the same, which the command checks on test pictures before it writes anything.

`resflax train --from DIR --run-dir DIR` trains the new run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.errors import UsageError
from resflax.paths import user_path
from resflax.runs.run_folder import RunFolder
from resflax.terminal.options import Flag, Overridden, parse_with_run
from resflax.terminal.program import as_called


@dataclass(frozen=True)
class Options:
    """Makes a deeper run that begins as exactly the function that another run has learned."""

    file: Annotated[Positional[str], arg(metavar="RUN")]
    """The run folder of a ResNet or DenseNet, finished or not."""

    experiment: Overridden

    run_dir: str | None = None
    """The new folder. It must be given."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""


def main(arguments: Sequence[str]) -> None:
    """Makes the run folder and prints what was done."""
    trust_code = "--trust-code" in arguments
    options = parse_with_run(
        Options,
        arguments,
        usage=__doc__ or "",
        read_run=lambda path: RunFolder(path, trust_code=trust_code).read_experiment(),
    )
    if options.run_dir is None:
        raise UsageError("name the folder of the new run with --run-dir DIR")
    from resflax.runs.deepening import deepen  # imports JAX: only now

    deepen(
        RunFolder(user_path(options.file), trust_code=trust_code),
        options.experiment,
        RunFolder(user_path(options.run_dir)),
        say=lambda line: print(as_called(line)),
    )
