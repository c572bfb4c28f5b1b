"""The step of our own runs, on pictures of noise; and the same step around any linen module."""

import time
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.benchmark.contender import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, Contender
from resflax.data.augmentation import Normalization
from resflax.declarations.data import CIFAR10
from resflax.declarations.optimization import SGD, StepDecay
from resflax.models import build
from resflax.models.summary import summarize
from resflax.training.devices import Devices
from resflax.training.memory import step_bytes
from resflax.training.optimizer import learning_rate, make_optimizer
from resflax.training.state import drawing, initial_state
from resflax.training.step import AXIS, Examples, many_steps, train_step

_PICTURES = 2  # batches of them, on the device


def ours(case: Case) -> Contender:
    """As `train.py` trains it, on the first device."""
    module = build(
        case.model,
        case.num_classes,
        dtype=jnp.dtype(case.precision),
        axis_name=AXIS,
        for_training=True,
    )
    return around("resflax", module, build(case.model, case.num_classes), case, tuned=True)


def around(name: str, module: nn.Module, drawn: nn.Module, case: Case, *, tuned: bool) -> Contender:
    """A linen module in the step of our runs.

    Args:
      name: of the contender.
      module: what is trained; its variables are those of `drawn`, or these stacked.
      drawn: has the initial variables.
      case: what it is fed.
      tuned: whether as in our runs, which do many steps in a call and have options for the
        compiler; or one by one, with XLA's defaults.
    """
    layers = len(summarize(case.model, case.num_classes, case.image_shape).rows)
    start = time.perf_counter()
    devices = Devices("shard_map", jax.local_devices()[:1])
    rate = learning_rate(StepDecay(boundaries=()), LEARNING_RATE, 1)
    optimizer = make_optimizer(
        SGD(learning_rate=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY), rate
    )
    colours = jnp.full(case.image_shape[-1:], 128.0)
    normalization = Normalization(colours, 1 / colours)
    initial = partial(initial_state, drawn, optimizer, image_shape=case.image_shape, seed=0)
    state = devices.replicate(drawing(initial, layers)(normalization))
    random, count = np.random.default_rng(0), _PICTURES * case.batch_size
    images = random.integers(0, 256, (count, *case.image_shape), dtype=np.uint8)
    labels = random.integers(0, case.num_classes, count).astype(np.int32)
    examples = Examples(*devices.replicate((images, labels)))
    # No augmentation: PyTorch's peers have none.
    step = train_step(module, optimizer, CIFAR10(crop_padding=0, flip=False))
    at_once = devices.steps_at_once if tuned else 1
    taken = np.arange(case.batch_size * at_once, dtype=np.int32) % count
    batches = taken.reshape(at_once, case.batch_size).T
    run, program = devices.compile(
        many_steps(step), state, examples, batches, donate_state=True, tuned=tuned
    )
    held = [state]
    del state

    def steps(number: int) -> None:
        loss = None
        for first in range(0, number, at_once):
            chosen = batches.copy()
            chosen[:, number - first :] = -1
            held[0], loss = run(held[0], examples, chosen)
        jax.block_until_ready(loss)

    steps(1)
    seconds = time.perf_counter() - start
    needed = step_bytes(program)
    memory = None if needed is None else needed - images.nbytes - labels.nbytes
    return Contender(name, steps, seconds, lambda: memory)
