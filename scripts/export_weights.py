"""Writes a run's weights as safetensors, under the names of torchvision, timm or another library.

The library's own network loads the file with strict=True: torchvision's ResNets and DenseNets,
timm's pre-activation ResNets (resnetv2), pytorch_resnet_cifar10's CIFAR ResNets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.command_line import parse, run


@dataclass(frozen=True)
class Options:
    """Writes a run's newest weights as safetensors, under the names of another library."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, finished or not."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """Ends in .safetensors; replaced if it is there."""


def main(arguments: Sequence[str]) -> None:
    """Exports, and prints what was done."""
    options = parse(Options, arguments)
    from resflax.pretrained import export_weights  # imports JAX: only now
    from resflax.training.run_folder import RunFolder

    export_weights(RunFolder(Path(options.run)), Path(options.file), print)


if __name__ == "__main__":
    run(main)
