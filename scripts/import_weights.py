"""Makes a run folder of weights from torchvision, timm or pytorch_resnet_cifar10.

usage: import_weights.py FILE --model NAME|EXPERIMENT --run-dir DIR [--classes N]
                         [--mean X ... --std X ...] [--data.FIELD VALUE ...]

  FILE                 .safetensors, or a state dict in .pth, .th or .pt (these need PyTorch)
  --model NAME         the network: a published one, such as resnet50 or densenet121
  --model EXPERIMENT   or that of a Python file that declares `experiment = Experiment(...)`
  --run-dir DIR        the new folder
  --classes N          draw a new classifier for N classes
  --mean, --std        of the colours the network expects, a number in [0, 1] for each channel
                       (default: what FILE says, else ImageNet's)
  --data.FIELD VALUE   the data the network is for: --data.name cifar100 (default: ImageNet or
                       CIFAR-10, as the network's layout, or the experiment's)

scripts/evaluate.py DIR measures it; scripts/train.py EXPERIMENT --initialize-from DIR trains on.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from resflax import CIFAR10, Experiment, ImageNet
from resflax.command_line import load_experiment, parse, run
from resflax.declarations.data import Data
from resflax.errors import UsageError
from resflax.models.zoo import named


@dataclass(frozen=True)
class Options:
    """Makes a run folder of weights from torchvision, timm or pytorch_resnet_cifar10."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """.safetensors, or a state dict in .pth, .th or .pt (these need PyTorch)."""

    data: Annotated[Data, FlagConversionOff]

    model: str
    """A published network, or a Python file that declares `experiment = Experiment(...)`."""

    run_dir: str
    """The new folder."""

    classes: int | None = None
    """Draw a new classifier for so many classes, if the file's is for another number."""

    mean: tuple[float, ...] | None = None
    """Of the colours the network expects, in [0, 1]. None: what the file says, else ImageNet's."""

    std: tuple[float, ...] | None = None
    """Their standard deviations."""


def main(arguments: Sequence[str]) -> None:
    """Imports, and prints what was done."""
    model = _value(arguments, "--model")
    experiment = None if model is None else _experiment(model)
    options = parse(
        Options,
        arguments,
        Options(
            file=tyro.MISSING,
            data=CIFAR10() if experiment is None else experiment.data,
            model=tyro.MISSING,
            run_dir=tyro.MISSING,
        ),
    )
    assert experiment is not None, "--model was parsed"
    if (options.mean is None) != (options.std is None):
        raise UsageError("--mean and --std belong together, and one of them is not given")
    from resflax.pretrained import Colours, import_weights  # imports JAX: only now
    from resflax.training.run_folder import RunFolder

    import_weights(
        Path(options.file),
        dataclasses.replace(experiment, data=options.data),
        RunFolder(Path(options.run_dir)),
        classes=options.classes,
        colours=Colours(options.mean, options.std) if options.mean and options.std else None,
        say=print,
    )


def _value(arguments: Sequence[str], option: str) -> str | None:
    """What an option is given, before the others are parsed: it decides their defaults."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == option:
            return following
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def _experiment(model: str) -> Experiment:
    """An experiment of the network and the data it was made for; its training does not count.

    The name keeps it apart from the experiment that trains the network.
    """
    if model.endswith(".py"):
        found = load_experiment(Path(model))
        return dataclasses.replace(found, name=f"imported-{found.name[:90]}")
    net = named(model)
    data = CIFAR10() if net.layout == "cifar" else ImageNet()
    return Experiment(name=f"imported-{model}", model=net, data=data, batch_size=256, steps=1)


if __name__ == "__main__":
    run(main)
