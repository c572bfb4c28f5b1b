"""Writes a run's weights as safetensors for torchvision, timm or pytorch_resnet_cifar10.

The tensors have the names of the library, whose own network loads the file with strict=True. The
networks can be torchvision's ResNets and DenseNets, timm's pre-activation ResNets (resnetv2) and
pytorch_resnet_cifar10's CIFAR ResNets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from resflax.paths import user_path
from resflax.terminal.options import Flag, parse


@dataclass(frozen=True)
class Options:
    """Writes a run's newest weights as safetensors, with the names of another library."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder. The run need not be finished."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """A file that ends in .safetensors. An existing file is replaced."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""


def main(arguments: Sequence[str]) -> None:
    """Exports the weights and prints what was done."""
    options = parse(Options, arguments)
    from resflax.runs.pretrained import export_weights  # imports JAX: only now
    from resflax.runs.run_folder import RunFolder

    run = RunFolder(user_path(options.run), trust_code=options.trust_code)
    export_weights(run, user_path(options.file), print)
