"""Measuring a run's network on a split, from its newest good checkpoint."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax.numpy as jnp

from resflax.data.augmentation import no_normalization
from resflax.data.records import SplitName
from resflax.data.source import describe
from resflax.errors import UsageError
from resflax.models import build
from resflax.training.checkpoints import Checkpoints
from resflax.training.compilation import keep_compiled
from resflax.training.devices import Devices
from resflax.training.display import Display
from resflax.training.feeds import open_test_feed
from resflax.training.measure import Measurement, measure
from resflax.training.optimizer import learning_rate, make_optimizer
from resflax.training.run_folder import RunFolder
from resflax.training.state import initial_state
from resflax.training.step import AXIS, evaluation_step


@dataclass(frozen=True)
class Evaluation:
    """A run's network, measured."""

    measurement: Measurement
    split: SplitName
    step: int
    """Steps of training behind the network."""

    def to_json(self) -> dict[str, Any]:
        """`top1_error`, `top5_error`, `loss`, `examples`, `split` and `step`."""
        return asdict(self.measurement) | {"split": self.split, "step": self.step}


def evaluate(
    folder: RunFolder, split: SplitName, data_dir: str | None, display: Display
) -> Evaluation:
    """Measures the newest good checkpoint of a run, on all devices of this machine.

    Args:
      folder: the run's.
      split: of the run's data.
      data_dir: where the data lies now; None: where the experiment says.
      display: shows how far it is, and which damaged checkpoints are passed over.

    Raises:
      UsageError: if the folder is no run, has no checkpoint, or its data cannot be read.
      TrainingError: if all of its checkpoints are damaged.
    """
    experiment = folder.read_experiment()
    keep_compiled()
    checkpoints = Checkpoints(folder.checkpoints)
    step = checkpoints.newest_good(display.say)
    if step is None:
        raise UsageError(f"{folder.path} has no checkpoint yet")
    data = experiment.data if data_dir is None else replace(experiment.data, data_dir=data_dir)
    devices = Devices(experiment.parallel)
    feed = open_test_feed(data, split, devices, display)
    facts = describe(data)
    num_classes = facts.num_classes
    if feed.on_devices is None:
        height, width, channels = facts.image_shape
    else:
        height, width, channels = feed.on_devices.images.shape[1:]

    drawn = build(experiment.model, num_classes)
    shape = (height, width, channels)
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, 1)
    optimizer = make_optimizer(experiment.optimizer, rate)
    like = devices.abstract(
        lambda: initial_state(
            drawn,
            optimizer,
            no_normalization(shape, data),
            shape,
            0,
            averaged=experiment.ema_decay is not None,
        )
    )
    try:
        state, _ = checkpoints.restore(step, like)
    except UsageError:
        raise UsageError(
            f"checkpoint {step} of {folder.path} does not fit the data: pictures of "
            f"{height}x{width}x{channels} in {num_classes} classes"
        ) from None

    module = build(
        experiment.model,
        num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        for_training=True,
    )
    run = devices.parallelize(evaluation_step(module), donate_state=False)
    count = len(devices.devices)
    batch_size = -(-experiment.batch_size // count) * count
    with display.bar(f"{split} split", feed.examples) as bar:
        found = measure(run, state, feed, batch_size, tick=bar.set)
    assert found is not None, "nothing asks it to stop"
    return Evaluation(found, split, step)
