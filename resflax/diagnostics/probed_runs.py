"""What each depth of a run's network knows before and after its training."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from resflax.data.description import describe
from resflax.data.in_memory import spread_pictures
from resflax.data.normalization import normalize
from resflax.diagnostics.inspected import load_networks, untrained, with_statistics_of
from resflax.diagnostics.probes import UnitKnowledge, probe_units
from resflax.experiment import Experiment
from resflax.models.summary import summarize
from resflax.runs.run_folder import RunFolder

EXAMPLES = 1500
"""The most pictures for a network: two thirds to fit the probes, and one third to measure them."""

MEMORY = 2**30
"""Bytes that one layer's output for all pictures may take."""


@dataclass(frozen=True)
class RunKnowledge:
    """What can be read linearly from each depth of a run's network: see `probe_units`."""

    initial: list[UnitKnowledge] | None
    """Before the first step; batch norm uses the statistics of the fitting pictures. None if the
    run did not begin with drawn weights."""
    trained: list[UnitKnowledge]
    """At the newest good checkpoint; batch norm uses the running averages."""
    fitting: int
    """Number of pictures of the training split, not augmented, that the probes are fitted to."""
    held_out: int
    """Number of pictures of the test split that the probes are measured on."""


def probe_run(folder: RunFolder, examples: int, say: Callable[[str], None]) -> RunKnowledge:
    """Probes a run's residual, plain or dense network before and after its training.

    Args:
      folder: the run's folder.
      examples: the most pictures, of which two thirds are taken from the training split and the
        others from the test split; at least three.
      say: is called with a line for every unfinished or damaged checkpoint that is skipped.

    Raises:
      UsageError: if the folder is not a run's or has no checkpoint, or if the data cannot be read.
      TrainingError: if all checkpoints are damaged.
    """
    fitting = 2 * examples // 3
    network = load_networks(folder, examples - fitting, say)[-1]
    pictures = spread_pictures(network.experiment.data, "train", fitting)
    initial = None
    if network.experiment.initialize_from is None:
        images = normalize(jnp.asarray(pictures.images), network.normalization)
        initial = probe_units(with_statistics_of(untrained(network), images), pictures)
    trained = probe_units(network, pictures)
    return RunKnowledge(initial, trained, len(pictures), len(network.pictures))


def affordable_examples(experiment: Experiment) -> int:
    """The number of pictures, at most 1,500, with which a network can be probed in little memory.

    Raises `UsageError` if the data cannot be described, or if the network cannot be built.
    """
    facts = describe(experiment.data)
    layers = summarize(experiment.model, facts.num_classes, facts.image_shape).layers
    largest = max(layer.activation_bytes for layer in layers)
    return min(EXAMPLES, max(3, MEMORY // largest))
