"""Deeper runs: a run folder whose deeper network begins as exactly the network of another run.

This is the solution by construction of He et al. 2015 (arXiv 1512.03385, section 1): the layers of
the shallower network are copied, and the added ones pass on what they get (`models.identity_units`)
or are not read yet (`models.unread_layers`).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from resflax.data.normalization import Normalization
from resflax.declarations.deepening import added_parts, check_deeper
from resflax.declarations.models import Custom, Model, ResNet
from resflax.devices.compilation import keep_compiled
from resflax.devices.randomness import pinned_randomness
from resflax.devices.settings import check_settings
from resflax.errors import UsageError
from resflax.experiment import Experiment, differences
from resflax.models.identity_units import Variables
from resflax.models.own_parts import explaining
from resflax.runs import environment
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.deeper_variables import (
    compare,
    deeper_variables,
    pictures_to_compare,
)
from resflax.runs.git import changes_sha256
from resflax.runs.origins import describe_origin
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import load_trained
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import TrainState, params_sha256, state_of


@pinned_randomness()
def deepen(
    source: RunFolder, experiment: Experiment, folder: RunFolder, say: Callable[[str], None]
) -> None:
    """Makes a run folder that has not trained a step and computes what another run computes.

    Args:
      source: the folder of the run with the shallower network, finished or not.
      experiment: declares the deeper network and how it is trained. Its model differs from that of
        `source` in its depth alone, and its data are the same.
      folder: the folder of the deeper run, which must hold no checkpoint.
      say: is called with lines about what was done.

    Raises:
      UsageError: before anything is written, if there is no such deeper network, if its logits
        differ by more than rounding, or if one of the folders cannot be used.
      TrainingError: if all checkpoints of a folder are damaged.
    """
    check_settings()
    keep_compiled()
    there, experiment = source.read_experiment().resolved(), experiment.resolved()
    _check_same_subject(source, there, experiment)
    check_deeper(there.model, experiment.model)
    if not folder.experiment.exists():
        folder.status(experiment)  # refuses a folder that cannot be a run's
    checkpoints = Checkpoints(folder.checkpoints)
    if checkpoints.newest_good(say) is not None:
        raise UsageError(f"{folder.path} holds a run already; name another folder with --run-dir")
    trained = load_trained(source, say)
    with explaining(experiment.model):
        variables = deeper_variables(trained, experiment)
        pictures, kind = pictures_to_compare(trained, experiment.data)
        agreement = compare(trained, experiment.model, variables, pictures)
    if not agreement.holds:
        own = ", ".join(map(str, experiment.own_classes.values()))
        why = (
            f"a unit of {own} whose branch is 0 is not the identity" if own else "rounding adds up"
        )
        raise UsageError(
            f"the logits of {len(pictures)} {kind} would differ by up to "
            f"{agreement.difference:.3g}, and the largest is {agreement.largest:.3g}: {why}"
        )
    weights = params_sha256(variables["params"])
    experiment = dataclasses.replace(
        experiment, initialize_from=str(source.path), initial_weights=weights
    )
    folder.status(experiment)
    origin = {
        "run": str(source.path),
        "params_sha256": weights,
        "deepened": True,
        **describe_origin(there, trained.step, source.first_environment()),
    }
    state = _first_state(experiment, variables, trained.normalization)
    here, changes = environment.describe_environment(), environment.source_changes()
    if (sha256 := changes_sha256(changes)) is not None:
        here["source_changes_sha256"] = sha256
    folder.begin(experiment, here | {"initialized_from": origin}, changes)
    checkpoints.forget_after(None)  # a command that was cut off may have left some
    checkpoints.save(0, state, {"seconds": 0.0, "params_sha256": weights})
    added = _added_in_words(there.model, experiment.model)
    say(f"{source.path} after {trained.step:,} steps, deeper by {added}")
    say(
        f"the logits of {len(pictures)} {kind} agree: the largest difference is "
        f"{agreement.difference:.2g}, and the largest logit {agreement.largest:.3g}"
    )
    say(f"train it on with: resflax train --from {folder.path} --run-dir {folder.path}")


def _check_same_subject(source: RunFolder, there: Experiment, here: Experiment) -> None:
    """Raises `UsageError` if more differs than the depth and the way of training."""
    if here.initialize_from != there.initialize_from:
        raise UsageError(f"a deeper run starts with {source.path}; leave --initialize-from out")
    allowed = ("model.depth", "model.remat")
    fields = [
        difference
        for difference in differences(there, here)
        if (name := difference.split(":")[0]).startswith(("model.", "data."))
        and name not in allowed
    ]
    if fields:
        raise UsageError(
            f"of network and data only model.depth may differ from {source.path} (there != here): "
            f"{'; '.join(fields)}; otherwise it would not begin as the same function"
        )


def _added_in_words(there: Model, here: Model) -> str:
    """What was added, as in "6 identity units in stage 1, 6 in stage 2"."""
    assert not isinstance(there, Custom), "check_deeper refuses it"
    assert not isinstance(here, Custom), "check_deeper refuses it"
    part, place = ("identity unit", "stage") if isinstance(here, ResNet) else ("layer", "block")
    added = {number: len(numbers) for number, numbers in added_parts(there, here).items()}
    return ", ".join(
        f"{count} {part}{'s' * (count > 1)} in {place} {number}" for number, count in added.items()
    )


def _first_state(
    experiment: Experiment, variables: Variables, normalization: Normalization
) -> TrainState:
    """The state before the first step; moving averages begin with the same variables."""
    _, key = jax.random.split(jax.random.PRNGKey(experiment.seed))
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, 1)
    return state_of(
        jax.tree.map(jnp.asarray, variables),
        make_optimizer(experiment.optimizer, rate),
        normalization,
        key,
        averaged=experiment.ema_decay is not None,
    )
