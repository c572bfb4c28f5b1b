"""Makes a run folder from weights of torchvision, timm or pytorch_resnet_cifar10.

usage: resflax import-weights FILE --model NAME|EXPERIMENT --run-dir DIR [--entry NAME]
           [--classes N] [--mean X ... --std X ...] [--data.FIELD VALUE ...]

  FILE                 safetensors, or what torch.save wrote: a state dict, or a checkpoint that has
                       one, whatever its name ends in (PyTorch is not needed)
  --model NAME         a published network, such as resnet50 or densenet121
  --model EXPERIMENT   or a Python file that declares `experiment = Experiment(...)`
  --run-dir DIR        the new folder
  --entry NAME         which network, if FILE holds several: a key or prefix that leads to it, such
                       as state_dict_ema, teacher or encoder_q
  --classes N          draw a new classifier for N classes
  --mean, --std        mean and standard deviation of the colours that the network expects, a number
                       in [0, 1] for each channel (default: those that FILE or timm's config.json
                       beside it notes, or those of the library whose networks have these names)
  --data.FIELD VALUE   the data that the network is for, such as --data.name cifar100 (default: the
                       experiment's; for a published network CIFAR-10, or ImageNet resized and
                       cropped as the library does that has these networks)

`resflax evaluate DIR` measures the network, and `resflax train EXPERIMENT --initialize-from DIR`
continues to train it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from resflax import CIFAR10, Experiment, ImageNet
from resflax.declarations.data import Data
from resflax.declarations.models import Published
from resflax.errors import UsageError
from resflax.models.zoo import named
from resflax.paths import user_path
from resflax.terminal.experiment_files import load_experiment
from resflax.terminal.options import parse, value_of
from resflax.weights.layer_names import family_of


@dataclass(frozen=True)
class Options:
    """Makes a run folder from weights of torchvision, timm or pytorch_resnet_cifar10."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """A file of safetensors or of torch.save, whatever its name ends in."""

    data: Annotated[Data, FlagConversionOff]

    model: str
    """A published network, or a Python file that declares `experiment = Experiment(...)`."""

    run_dir: str
    """The new folder."""

    entry: str | None = None
    """Which network is taken, if the file holds several: a key or prefix that leads to it."""

    classes: int | None = None
    """Draw a new classifier for this number of classes, if the file's is for another number."""

    mean: tuple[float, ...] | None = None
    """Mean of the colours that the network expects: a number in [0, 1] for each channel. None: the
    mean that the file notes, or that of the library whose networks have these names."""

    std: tuple[float, ...] | None = None
    """Standard deviation of these colours: a number for each channel."""


def main(arguments: Sequence[str]) -> None:
    """Imports the weights and prints what was done."""
    model = value_of("--model", arguments)  # decides the defaults of the other options
    experiment = None if model is None else _experiment_of(model)
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
        raise UsageError("--mean and --std belong together, but only one of them is given")
    from resflax.runs.pretrained import Colours, import_weights  # imports JAX: only now
    from resflax.runs.run_folder import RunFolder

    import_weights(
        user_path(options.file),
        dataclasses.replace(experiment, data=options.data),
        RunFolder(user_path(options.run_dir)),
        entry=options.entry,
        classes=options.classes,
        colours=Colours(options.mean, options.std) if options.mean and options.std else None,
        say=print,
    )


def _experiment_of(model: str) -> Experiment:
    """The experiment of the new run folder. It has the network and its data, and trains nothing.

    Its name differs from that of the experiment that trains the network.
    """
    if model.endswith(".py"):
        experiment = load_experiment(user_path(model))
        return dataclasses.replace(experiment, name=f"imported-{experiment.name[:90]}")
    net = named(model)
    data = CIFAR10() if net.layout == "cifar" else _imagenet_for(net)
    return Experiment(name=f"imported-{model}", model=net, data=data, batch_size=256, steps=1)


def _imagenet_for(net: Published) -> ImageNet:
    """ImageNet's pictures, resized and cropped as the library does that has these networks."""
    pictures = family_of(net.resolved()).pictures
    shorter_side = int(ImageNet.image_size / pictures.crop_fraction)
    if pictures.interpolation == "bicubic":
        return ImageNet(resize="pillow_bicubic", test_shorter_side=shorter_side)
    return ImageNet(resize="pillow_bilinear", test_shorter_side=shorter_side)
