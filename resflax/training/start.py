"""A run that begins with the weights of another one, trained or imported, not with drawn ones."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.data.augmentation import Normalization
from resflax.errors import UsageError
from resflax.experiment import Experiment, differences
from resflax.models.stacking import stack
from resflax.training import hosts
from resflax.training.checkpoints import Checkpoints
from resflax.training.run_folder import RunFolder
from resflax.training.state import TrainState, begin_average, params_sha256

# Fields of a network that decide how it is drawn or trained, but not what its weights compute.
_FREE = ("dropout_rate", "shortcut_dropout_rate", "gate_bias", "zero_init_last_scale", "remat")


def start_from(
    path: Path, experiment: Experiment, drawn: TrainState, say: Callable[[str], None]
) -> tuple[TrainState, dict[str, Any]]:
    """The state before the first step, with the newest weights of another run's network.

    Parameters and batch statistics, averaged if that run averages them, and normalisation are that
    run's; all else stays as drawn, and so does the classifier where the number of classes differs.

    Args:
      path: folder of the other run.
      experiment: of the run that begins.
      drawn: its state, drawn from the seed.
      say: is given what is taken and what is not.

    Returns:
      The state, on the devices of `drawn`, and for environment.json where it is from.

    Raises:
      UsageError: if the folder is no run or has no checkpoint, or its network is another one.
      TrainingError: if all of its checkpoints are damaged.
    """
    folder = RunFolder(path)
    source = folder.read_experiment()
    found = [
        difference
        for difference in differences(source, dataclasses.replace(source, model=experiment.model))
        if difference.split(":")[0].removeprefix("model.") not in _FREE
    ]
    if found:
        raise UsageError(f"{path} has another network (there != here): {'; '.join(found)}")
    checkpoints = Checkpoints(folder.checkpoints)
    step = hosts.by_first(partial(checkpoints.newest_good, say))
    if step is None:
        raise UsageError(f"{path} has no checkpoint to start from")

    saved = checkpoints.restore_arrays(step)
    origin = {"run": str(path), "step": step, "params_sha256": params_sha256(saved["params"])}
    say(f"starting with the weights and the normalisation of {path}, step {step}")
    classes, wanted = (len(params["head"]["bias"]) for params in (saved["params"], drawn.params))
    if classes != wanted:
        saved["params"]["head"] = drawn.params["head"]
        say(f"its classifier is for {classes} classes: a new one is drawn for {wanted}")
    there = {name: stack(saved[name]) for name in ("params", "batch_stats")}
    there["normalization"] = saved["normalization"]
    here = {
        "params": drawn.params,
        "batch_stats": drawn.batch_stats,
        "normalization": drawn.normalization._asdict(),
    }
    _check_shapes(path, there, here)
    placed = jax.tree.map(
        lambda new, old: jax.device_put(np.asarray(new), old.sharding), there, here
    )
    normalization = Normalization(**placed.pop("normalization"))
    state = drawn.replace(**placed, normalization=normalization)
    return begin_average(state) if drawn.average else state, origin


def _check_shapes(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises `UsageError` if pictures of other channels or normalisation make a shape differ."""
    found = flatten_dict(there, sep="/")
    for name, array in flatten_dict(here, sep="/").items():
        if found[name].shape != array.shape:
            raise UsageError(
                f"the pictures of {path} are others: its {name} has the shape "
                f"{found[name].shape}, and here it must be {array.shape}"
            )
