"""The first state of a run: weights are drawn from its seed, or taken from another run."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.data.normalization import Normalization
from resflax.errors import UsageError
from resflax.experiment import Experiment, differences
from resflax.models.stacking import stack
from resflax.paths import user_path
from resflax.runs.origins import describe_origin
from resflax.runs.plan import Plan
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.terminal.display import Display
from resflax.training.state import TrainState, begin_average, params_sha256

# Fields of a network that change how it is drawn or trained, but not what its weights compute.
_NOT_IN_THE_WEIGHTS = (
    "dropout_rate",
    "shortcut_dropout_rate",
    "gate_bias",
    "zero_init_last_scale",
    "remat",
)


def first_state(
    experiment: Experiment, plan: Plan, newest: int | None, display: Display
) -> tuple[Callable[[], TrainState], dict[str, Any]]:
    """Prepares the state before the first step, and notes where its weights come from.

    Args:
      experiment: the run's experiment.
      plan: the run's plan.
      newest: step of the run's newest checkpoint. If there is one, the first state is needed only
        if the run goes back to its beginning, and nothing is printed about it.
      display: shows what is taken from another run.

    Returns:
      A function that makes the state, and entries for environment.json.

    Raises:
      UsageError, TrainingError: as `start_from` does.
    """

    def drawn() -> TrainState:
        return plan.draw_state(experiment.seed)

    if experiment.initialize_from is None:
        return drawn, {}
    path = user_path(experiment.initialize_from)

    def taken() -> TrainState:
        return start_from(path, experiment, drawn(), lambda text: None)[0]

    if newest is not None:
        return taken, {}
    _, origin = start_from(path, experiment, drawn(), display.say)
    return taken, {"initialized_from": origin}


def start_from(
    path: Path, experiment: Experiment, drawn: TrainState, say: Callable[[str], None]
) -> tuple[TrainState, dict[str, Any]]:
    """Makes the state before the first step, with the newest weights of another run's network.

    Parameters, batch statistics and normalisation are those of the other run; parameters and
    statistics are its moving averages if it has them. The rest stays as drawn, and so does the
    classifier if the number of classes differs.

    Args:
      path: folder of the other run.
      experiment: the experiment of the run that begins.
      drawn: the state of the run that begins, drawn from its seed.
      say: is called with lines about what is taken and what is not.

    Returns:
      The state, on the devices of `drawn`, and the origin of its weights for environment.json.

    Raises:
      UsageError: if the folder is not a run folder, has no checkpoint, or has another network.
      TrainingError: if all checkpoints of the other run are damaged.
    """
    folder = RunFolder(path)
    there_experiment = folder.read_experiment()
    _check_same_network(path, there_experiment, experiment)
    trained = load_trained(folder, say)
    params, batch_stats = trained.variables["params"], trained.variables["batch_stats"]
    there_sha256, meant_sha256 = params_sha256(params), experiment.initial_weights
    if meant_sha256 is not None and there_sha256 != meant_sha256:
        raise UsageError(
            f"the weights of {path} are not those that are meant: their sha256 is "
            f"{there_sha256[:12]}..., and it must be {meant_sha256[:12]}..."
        )
    origin = {
        "run": str(path),
        **describe_origin(there_experiment, trained.step, folder.first_environment()),
        "params_sha256": there_sha256,
    }
    say(f"starting with the weights and the normalisation of {path}, step {trained.step}")
    classes, wanted = _classes(params), _classes(drawn.params)
    if classes != wanted:
        params = params | {"head": drawn.params["head"]}
        say(f"its classifier is for {classes} classes: a new one is drawn for {wanted}")
    there = {
        "params": stack(params),
        "batch_stats": stack(batch_stats),
        "normalization": trained.normalization._asdict(),
    }
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


def _classes(params: Any) -> int | None:
    """The number of classes of our own networks; None for a network whose classifier is unknown."""
    head = params.get("head")
    return len(head["bias"]) if isinstance(head, Mapping) and "bias" in head else None


def _check_same_network(path: Path, there: Experiment, here: Experiment) -> None:
    """Raises `UsageError` if the other run's weights would compute something else in this run."""
    ignored: tuple[str, ...] = _NOT_IN_THE_WEIGHTS
    if not any(getattr(x.model, "scales_branches", False) for x in (there, here)):
        ignored += ("stochastic_depth", "stochastic_depth_by")
    fields = [
        difference
        for difference in differences(there, dataclasses.replace(there, model=here.model))
        if difference.split(":")[0].removeprefix("model.") not in ignored
    ]
    if fields:
        advice = ""
        if [field.split(":")[0] for field in fields] == ["model.depth"]:
            advice = "; resflax deepen makes a deeper run that begins as the same function"
        raise UsageError(f"{path} has another network (there != here): {'; '.join(fields)}{advice}")


def _check_shapes(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raises `UsageError` if a shape differs: then pictures, normalisation or classes differ."""
    arrays_there = flatten_dict(there, sep="/")
    for name, array in flatten_dict(here, sep="/").items():
        shape = arrays_there[name].shape if name in arrays_there else None
        if shape != array.shape:
            raise UsageError(
                f"the pictures or classes of {path} are others: its {name} has the shape {shape}, "
                f"and here it must be {array.shape}"
            )
