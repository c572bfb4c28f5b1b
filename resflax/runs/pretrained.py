"""Pretrained weights: imports from other libraries into run folders, and exports from runs."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.data.description import describe
from resflax.data.normalization import Normalization, from_colours
from resflax.declarations.checks import refuse, short
from resflax.declarations.data import TFDS
from resflax.declarations.models import Model
from resflax.devices.randomness import pinned_randomness
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.files import sha256_of, write_atomically
from resflax.models.layers import Layers
from resflax.paths import check_output_file, writing_output
from resflax.runs import environment
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import params_count, params_sha256, state_of
from resflax.weights.choice import find_weights
from resflax.weights.convert import Names, from_torch, head_features, names_of, to_torch
from resflax.weights.layer_names import family_of
from resflax.weights.tensor_files import encode_safetensors, read_content


@dataclasses.dataclass(frozen=True)
class Colours:
    """The normalisation of pictures that a network expects.

    It is (x - mean) / std for x in [0, 1], with one mean and one std for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises `UsageError` unless both have the same length and are finite, and std >= 1e-6."""
        if len(self.mean) != len(self.std):
            raise UsageError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std, default=1) < 1e-6:
            raise UsageError("mean and std must be finite, and std above 0")


@pinned_randomness()
def import_weights(
    path: Path,
    experiment: Experiment,
    folder: RunFolder,
    *,
    entry: str | None = None,
    classes: int | None = None,
    colours: Colours | None = None,
    say: Callable[[str], None],
) -> None:
    """Turns a file of weights into the run folder of an experiment that has not yet trained a step.

    Args:
      path: a file that `read_content` can read.
      experiment: declares the network of these weights, and the data for which they are meant.
      folder: the run's folder, which must hold no checkpoint.
      entry: which of the file's networks is taken, if it holds several; see `find_weights`.
      classes: the number of classes. If the file's classifier has another number, or if it has
        none, a new classifier is drawn. None: the number of the file's classifier.
      colours: the normalisation. None: the one that the file notes, or a config.json of timm beside
        it, or else that of the library whose networks have these names.
      say: is called with lines about what was done.

    Raises:
      UsageError: before anything is written, if file, network, data and folder do not fit together.
      TrainingError: if the folder holds this run with all of its checkpoints damaged.
    """
    check_settings()
    experiment = experiment.resolved()
    folder.status(experiment)
    checkpoints = Checkpoints(folder.checkpoints)
    if checkpoints.newest_good(say) is not None:
        raise UsageError(f"{folder.path} holds a run already; name another folder with --run-dir")
    if isinstance(experiment.data, TFDS) and experiment.data.normalization != "channel":
        refuse(experiment.data, "normalization", "imported networks are normalised by channel")
    model = experiment.model
    content = read_content(path)
    try:
        names = names_of(model)
        weights = find_weights(content.root, names, entry)
        present = _classes_of(weights.arrays, names.head)
        wanted = present if classes is None else classes
        if wanted is None:
            raise UsageError(_no_classifier(weights.arrays, names))
        variables = from_torch(model, weights.arrays, with_head=wanted == present)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    params = variables["params"]
    channels = params["stem_conv"]["kernel"].shape[2]
    _check_data(experiment, wanted, channels)

    expected, source = (
        (colours, "as given") if colours else expected_colours(path, content.notes, model)
    )
    normalization = _normalization(expected, channels)
    head_key, key = jax.random.split(jax.random.PRNGKey(experiment.seed))
    for line in weights.lines:
        say(line)
    if wanted != present:
        params["head"] = _head(head_key, head_features(model, channels), wanted)
        found = "no classifier" if present is None else f"a classifier for {present} classes"
        say(f"it has {found}: a new one is drawn for {wanted}")
    say(f"{path} has {params_count(params):,} parameters of this network")
    say(f"mean {_listed(expected.mean)} and std {_listed(expected.std)} are {source}")
    origin = {"file": path.name, "sha256": sha256_of(path), "place": weights.place}
    folder.begin(experiment, environment.describe_environment() | {"imported": origin})
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, 1)
    optimizer = make_optimizer(experiment.optimizer, rate)
    averaged = experiment.ema_decay is not None
    arrays = jax.tree.map(jnp.asarray, variables)
    state = state_of(arrays, optimizer, normalization, key, averaged=averaged)
    checkpoints.forget_after(None)  # an import that was cut off may have left some
    checkpoints.save(0, state, {"seconds": 0.0, "params_sha256": params_sha256(params)})
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
    return from_colours(colours.mean, colours.std)


def _classes_of(arrays: Mapping[str, np.ndarray], head: str) -> int | None:
    """The number of classes of the classifier; None if there is none."""
    weight, bias = (arrays.get(f"{head}.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim < 2 or bias.shape != weight.shape[:1]:
        return None
    return weight.shape[0]


def _no_classifier(arrays: Mapping[str, np.ndarray], names: Names) -> str:
    others = sorted(
        name for name in arrays if name not in names.tensors and not name.endswith("_tracked")
    )
    instead = f" but {short(others[0])}" if others else ""
    return (
        f"it has no classifier {names.head}.weight{instead}; --classes N draws a new one for N "
        "classes"
    )


def expected_colours(path: Path, notes: Mapping[str, str], model: Model) -> tuple[Colours, str]:
    """The colours that the network of a file expects, and whose they are.

    They are those that `export_weights` noted in the file, those of timm's config.json beside it,
    or those of the family.
    """
    change = "; --mean and --std change them"
    if "mean" in notes and "std" in notes:
        try:
            mean, std = (tuple(map(float, json.loads(notes[name]))) for name in ("mean", "std"))
        except (ValueError, TypeError, RecursionError):
            raise UsageError("the file's note of mean and std is not a list of numbers") from None
        return Colours(mean, std), "those that the file notes"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        config = json.loads(path.with_name("config.json").read_text())["pretrained_cfg"]
        beside = Colours(*(tuple(map(float, config[name])) for name in ("mean", "std")))
        return beside, f"those of {path.with_name('config.json')}{change}"
    pictures = family_of(model.resolved()).pictures
    return Colours(pictures.mean, pictures.std), f"{pictures.source}{change}"


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def _head(key: jax.Array, features: int, classes: int) -> Any:
    """Draws the parameters of a new classifier."""
    return Layers().head(classes, name="head").init(key, jnp.zeros((1, features)))["params"]


def export_weights(folder: RunFolder, path: Path, say: Callable[[str], None]) -> None:
    """Writes a run's newest weights as safetensors that another library can load.

    The tensors of a network with classes of the user's own have the names that linen gives them,
    such as `params.stage1_unit1.conv1.kernel`.

    Args:
      folder: the run's folder; the run need not be finished.
      path: the file, which must end in .safetensors; it is written whole or not at all.
      say: is called with lines about what was done, and which normalisation the network expects.

    Raises:
      UsageError: if the folder is not a run folder or has no checkpoint, if no other library has
        the run's network, or if the file cannot be written.
      TrainingError: if all checkpoints are damaged.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} must end in .safetensors")
    check_output_file("FILE", path)
    trained = load_trained(folder, say)
    if trained.experiment.own_classes:
        say("no other library has this network: the tensors are named as in linen")
        tensors = _named_as_in_linen(trained.variables)
    else:
        tensors = to_torch(trained.experiment.model, trained.variables)
    notes = _notes(trained.normalization)
    with writing_output(path):
        write_atomically(path, encode_safetensors(tensors, notes))
    say(f"{path}: {len(tensors)} tensors of {folder.path} after {trained.step:,} steps")
    if notes:
        mean, std = (_listed(json.loads(notes[name])) for name in ("mean", "std"))
        say(f"it expects (x - mean) / std, x in [0, 1]: mean {mean}, std {std}")
    else:
        say("it expects pictures from which the run's mean picture is subtracted, x in 0 to 255")


def _notes(normalization: Normalization) -> dict[str, str]:
    """The colours as JSON texts; empty if the run subtracts a mean picture."""
    mean, scale = (np.asarray(array, np.float64) for array in normalization)
    if mean.ndim != 1:
        return {}
    return {
        "mean": json.dumps((mean / 255).tolist()),
        "std": json.dumps((1 / (scale * 255)).tolist()),
    }


def _named_as_in_linen(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in flatten_dict(variables, sep=".").items()}
