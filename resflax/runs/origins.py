"""The origin of a run's initial weights, told so that runs which differ only in the seed agree.

Nothing here imports JAX.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resflax.experiment import Experiment

NOT_COMPARED = (
    "seed",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "parallel",
    "data.data_dir",
)
"""Fields in which runs may differ that are repetitions of each other: the seed, and how a run is
logged, saved and executed."""


@dataclass(frozen=True)
class InitialWeights:
    """The weights of another run with which a run starts."""

    identity: str
    """Equal for weights that are the same up to the seed of the run that trained them."""
    name: str
    """The name of the experiment that trained them, or of its folder if only that is known."""
    step: int | None = None
    """The step of the other run, if it is known."""


def hash_without_seed(experiment: Experiment) -> str:
    """12 hex digits for what a run is, without its seed and without its initial weights.

    They depend on what `content_hash` depends on, except for `NOT_COMPARED` and for the weights
    that the run starts with.
    """
    compared = dataclasses.replace(
        experiment,
        seed=0,
        log_every=1,
        evaluate_every=1,
        checkpoint_every=1,
        initialize_from=None,
        initial_weights=None,
    )
    return compared.content_hash


def describe_origin(
    experiment: Experiment, step: int, environment: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describes where weights come from, for `initialized_from` in environment.json.

    Args:
      experiment: the experiment of the run that trained the weights.
      step: the step of that run at which the weights are taken.
      environment: the first session in that run's environment.json. It says whether that run
        started with other weights itself, or whether its weights were imported from a file.

    Returns:
      `experiment`: a hash that is the same for runs that differ only in the seed, and that counts
      the weights with which these started; `name`: the experiment's name; and `step`.
    """
    noted = environment or {}
    parts = [hash_without_seed(experiment)]
    earlier = find_initial_weights(experiment, noted.get("initialized_from"))
    if earlier is not None:
        parts.append(earlier.identity)
    if isinstance(imported := noted.get("imported"), Mapping):
        parts.append(f"imported {imported.get('sha256')}")
    hashed = parts[0]
    if len(parts) > 1:
        hashed = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
    return {"experiment": hashed, "name": experiment.name, "step": step}


def find_initial_weights(
    experiment: Experiment, initialized_from: object = None
) -> InitialWeights | None:
    """Identifies the weights with which a run starts; None if they are drawn from its seed.

    They are identified by the experiment and step they come from, if these were noted; else by
    their sha256, and if that is not known either, by the folder.

    Args:
      experiment: the experiment of the run that starts.
      initialized_from: the entry of that name in the run's environment.json, if there is one.
        Earlier versions noted no experiment.
    """
    noted = initialized_from if isinstance(initialized_from, Mapping) else {}
    folder = experiment.initialize_from or noted.get("run")
    if not noted and folder is None:
        return None
    name, hashed = noted.get("name"), noted.get("experiment")
    step = step if isinstance(step := noted.get("step"), int) else None
    if isinstance(hashed, str):
        return InitialWeights(f"{hashed} {step}", str(name or hashed), step)
    sha256 = experiment.initial_weights or noted.get("params_sha256")
    shown = str(folder or sha256).rstrip("/").rpartition("/")[2]
    return InitialWeights(str(sha256 or folder), shown, step)
