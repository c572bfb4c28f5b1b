"""Weights of other libraries as run folders, and weights of runs for other libraries."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentation import Normalization
from resflax.data.source import describe
from resflax.declarations.checks import refuse
from resflax.declarations.data import TFDS
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models.layers import Layers
from resflax.training import environment
from resflax.training.checkpoints import Checkpoints
from resflax.training.files import write_atomically
from resflax.training.optimizer import learning_rate, make_optimizer
from resflax.training.run_folder import RunFolder
from resflax.training.state import params_count, state_of
from resflax.weights import from_torch, to_torch
from resflax.weights.files import encode, read_tensors


@dataclasses.dataclass(frozen=True)
class Colours:
    """What a network expects of pictures: (x - mean) / std for x in [0, 1], by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises `UsageError` for numbers that cannot be meant."""
        if len(self.mean) != len(self.std):
            raise UsageError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std, default=1) < 1e-6:
            raise UsageError("mean and std must be finite, and std above 0")


# Of torchvision, timm and pytorch_resnet_cifar10 alike.
IMAGENET_COLOURS = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def import_weights(
    path: Path,
    experiment: Experiment,
    folder: RunFolder,
    *,
    classes: int | None = None,
    colours: Colours | None = None,
    say: Callable[[str], None],
) -> None:
    """Turns a file of weights into the run folder of an experiment before its first step.

    Args:
      path: of a file for `read_tensors`.
      experiment: with the network whose weights these are, and the data they are meant for.
      folder: of the run; it must be new.
      classes: a classifier for so many is drawn if the file's has another number. None: the
        file's.
      colours: None: what the file says; if it says nothing, ImageNet's.
      say: is given what was done.

    Raises:
      UsageError: before anything is written, if file, network, data and folder do not fit.
      TrainingError: if the folder holds this run with all of its checkpoints damaged.
    """
    experiment = experiment.resolved()
    folder.status(experiment)
    checkpoints = Checkpoints(folder.checkpoints)
    if checkpoints.newest_good(say) is not None:
        raise UsageError(f"{folder.path} holds a run already; name another folder with --run-dir")
    if isinstance(experiment.data, TFDS) and experiment.data.normalization != "channel":
        refuse(experiment.data, "normalization", "imported networks are normalised by channel")
    tensors = read_tensors(path)
    try:
        variables = from_torch(experiment.model, tensors.arrays)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    params = variables["params"]
    there = len(params["head"]["bias"])
    wanted = there if classes is None else classes
    channels = params["stem_conv"]["kernel"].shape[2]
    _check_data(experiment, wanted, channels)

    normalization = _normalization(colours or _noted(tensors.notes), channels)
    head_key, key = jax.random.split(jax.random.PRNGKey(experiment.seed))
    say(f"{len(tensors.arrays)} tensors of {path} are {params_count(params):,} parameters")
    if wanted != there:
        params["head"] = _head(head_key, params["head"]["kernel"].shape[0], wanted)
        say(f"its classifier is for {there} classes: a new one is drawn for {wanted}")
    with open(path, "rb") as file:
        origin = {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    folder.begin(experiment, environment.describe() | {"imported": origin})
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, 1)
    optimizer = make_optimizer(experiment.optimizer, rate)
    averaged = experiment.ema_decay is not None
    arrays = jax.tree.map(jnp.asarray, variables)
    state = state_of(arrays, optimizer, normalization, key, averaged=averaged)
    checkpoints.forget_after(None)  # of an import that was cut off
    checkpoints.save(0, state, {"seconds": 0.0})
    say(f"all of it is in {folder.path}: evaluate it, or train with --initialize-from")


def _check_data(experiment: Experiment, classes: int, channels: int) -> None:
    facts = describe(experiment.data)
    if facts.num_classes != classes:
        raise UsageError(
            f"the classifier is for {classes} classes, and {facts.name} has {facts.num_classes}: "
            f"a new one is drawn with --classes {facts.num_classes}, other data are named with "
            "--data.name"
        )
    if facts.channels != channels:
        raise UsageError(
            f"the network is for pictures of {channels} channels, and those of {facts.name} have "
            f"{facts.channels}; other data are named with --data.name"
        )


def _normalization(colours: Colours, channels: int) -> Normalization:
    if len(colours.mean) != channels:
        raise UsageError(
            f"mean and std are for {len(colours.mean)} channels, and the network's pictures have "
            f"{channels}: give --mean and --std"
        )
    mean, std = np.array(colours.mean), np.array(colours.std)
    return Normalization(
        jnp.asarray(mean * 255, jnp.float32), jnp.asarray(1 / (std * 255), jnp.float32)
    )


def _noted(notes: Mapping[str, str]) -> Colours:
    """The colours that `export_weights` notes in a file; ImageNet's if it has no such note."""
    if "mean" not in notes or "std" not in notes:
        return IMAGENET_COLOURS
    try:
        mean, std = (tuple(map(float, json.loads(notes[name]))) for name in ("mean", "std"))
    except (ValueError, TypeError, RecursionError):
        raise UsageError("the file's note of mean and std is not a list of numbers") from None
    return Colours(mean, std)


def _head(key: jax.Array, features: int, classes: int) -> Any:
    """Parameters of a new classifier."""
    return Layers().head(classes, name="head").init(key, jnp.zeros((1, features)))["params"]


def export_weights(folder: RunFolder, path: Path, say: Callable[[str], None]) -> None:
    """Writes a run's newest weights as safetensors that another library loads.

    Args:
      folder: of the run, finished or not.
      path: of the file, ending in .safetensors; written whole or not at all.
      say: is given what was done, and what pictures the network expects.

    Raises:
      UsageError: if the folder is no run or has no checkpoint, no other library has its network,
        or the file cannot be written.
      TrainingError: if all checkpoints are damaged.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} must end in .safetensors")
    experiment = folder.read_experiment()
    checkpoints = Checkpoints(folder.checkpoints)
    step = checkpoints.newest_good(say)
    if step is None:
        raise UsageError(f"{folder.path} has no checkpoint yet")
    state = checkpoints.restore_arrays(step)
    tensors = to_torch(experiment.model, state)
    notes = _notes(state["normalization"])
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        write_atomically(path, encode(tensors, notes))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    say(f"{path}: {len(tensors)} tensors of {folder.path} after {step:,} steps")
    if notes:
        say(f"it expects (x - mean) / std, x in [0, 1]: mean {notes['mean']}, std {notes['std']}")
    else:
        say("it expects pictures from which the run's mean picture is subtracted, x in 0 to 255")


def _notes(normalization: Mapping[str, Any]) -> dict[str, str]:
    """The colours as texts; none where a mean picture is subtracted."""
    mean, scale = (np.asarray(normalization[name], np.float64) for name in ("mean", "scale"))
    if mean.ndim != 1:
        return {}
    return {
        "mean": json.dumps((mean / 255).tolist()),
        "std": json.dumps((1 / (scale * 255)).tolist()),
    }
