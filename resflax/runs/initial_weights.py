"""The weights with which a run starts, identified by their sha256."""

import dataclasses
import json

from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.paths import user_path
from resflax.runs import manifest
from resflax.runs.run_folder import RunFolder


def with_initial_weights(experiment: Experiment, folder: RunFolder | None = None) -> Experiment:
    """The experiment with the sha256 of the weights in `initialize_from`, unless it has it already.

    Args:
      experiment: any experiment.
      folder: the folder of its run, if it is known. If it holds a run that began with weights of
        the same folder, which can no longer be read, then these weights are meant.

    Raises `UsageError` if there is no such run folder, or if it has no weights.
    """
    origin = experiment.initialize_from
    if origin is None or experiment.initial_weights is not None:
        return experiment
    try:
        weights: str | None = sha256_of_weights(RunFolder(user_path(origin)))
    except UsageError:
        begun = folder is not None and folder.experiment.exists()
        there = folder.read_experiment() if folder is not None and begun else None
        if there is None or there.initialize_from != origin:
            raise
        weights = there.initial_weights
    return dataclasses.replace(experiment, initial_weights=weights)


def sha256_of_weights(folder: RunFolder) -> str:
    """The sha256 of the newest parameters of a run, as its files note it.

    JAX is imported only for a run of an earlier version that is not finished.

    Raises `UsageError` if the folder is not a run folder or has no checkpoint.
    """
    folder.read_experiment()
    steps = [p for p in folder.checkpoints.glob("*") if p.name.isdecimal() and manifest.exists(p)]
    if not steps:
        raise UsageError(f"{folder.path} has no checkpoint yet")
    notes = json.loads(
        (max(steps, key=lambda p: int(p.name)) / "notes/metadata").read_text(encoding="utf-8")
    )
    noted = notes.get("params_sha256") or (folder.read_result() or {}).get("params_sha256")
    if isinstance(noted, str):
        return noted
    from resflax.runs.trained import load_trained
    from resflax.training.state import params_sha256

    return params_sha256(load_trained(folder, lambda text: None).variables["params"])
