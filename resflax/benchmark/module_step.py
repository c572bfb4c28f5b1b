"""Our training step as a contender, for our own networks and for any other linen module."""

import time
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.benchmark.contender import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, Contender
from resflax.data.normalization import Normalization
from resflax.declarations.data import CIFAR10
from resflax.declarations.optimization import SGD, StepDecay
from resflax.devices.memory import step_bytes
from resflax.devices.parallel import AXIS, Devices
from resflax.feeding.batch import ResidentSplit, gather_resident
from resflax.models import build
from resflax.models.summary import summarize
from resflax.training.many_steps import gathered, many_steps
from resflax.training.objective import Objective
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate
from resflax.training.state import drawing, initial_state
from resflax.training.step import train_step

_BATCHES = 2  # number of batches of pictures that the device holds


def resflax_contender(case: Case) -> Contender:
    """The case as `resflax train` trains it, on the first device."""
    module = build(
        case.model,
        case.num_classes,
        dtype=jnp.dtype(case.precision),
        axis_name=AXIS,
        for_training=True,
    )
    drawn = build(case.model, case.num_classes)
    return module_contender("resflax", module, drawn, case, tuned=True)


def module_contender(
    name: str, module: nn.Module, drawn: nn.Module, case: Case, *, tuned: bool
) -> Contender:
    """Makes a contender: a linen module in the training step of our runs, on random pictures.

    Args:
      name: the contender's name.
      module: the module that is trained. It uses the variables of `drawn`, stacked or not.
      drawn: the module that draws the initial variables.
      case: the case that the module implements.
      tuned: True: a call does many steps, compiled with our options, as in our runs. False: a call
        does one step, compiled with XLA's defaults.
    """
    layers = len(summarize(case.model, case.num_classes, case.image_shape).layers)
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
    images, labels = _noise(case)
    split = ResidentSplit(*devices.replicate((images, labels)))
    # PyTorch's contenders do not augment either.
    objective = Objective(module, CIFAR10(crop_padding=0, flip=False))
    step = gathered(train_step(objective, optimizer), gather_resident)
    steps_per_call = devices.steps_per_call if tuned else 1
    indices = np.arange(case.batch_size * steps_per_call, dtype=np.int32) % len(labels)
    # A loop would slow down XLA's own gradients of convolutions on CPUs.
    replica = many_steps(step) if tuned else step
    batches = devices.shard(
        indices.reshape(steps_per_call, case.batch_size).T if tuned else indices
    )

    def replicated(count: int) -> Any:
        return (split, np.int32(count)) if tuned else split

    function = devices.parallelize(replica, donate_state=True, tuned=tuned)
    program = function.compile(state, replicated(steps_per_call), batches)

    def steps(number: int) -> None:
        nonlocal state
        loss = None
        for first in range(0, number, steps_per_call):
            count = min(steps_per_call, number - first)
            state, loss = program(state, replicated(count), batches)
        jax.block_until_ready(loss)

    steps(1)
    compile_seconds = time.perf_counter() - start
    needed = step_bytes(program)
    memory = None if needed is None else needed - images.nbytes - labels.nbytes
    return Contender(name, steps, compile_seconds, lambda: memory, program.as_text)


def _noise(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, C) uint8 and labels (N,) int32."""
    generator, count = np.random.default_rng(0), _BATCHES * case.batch_size
    images = generator.integers(0, 256, (count, *case.image_shape), dtype=np.uint8)
    labels = generator.integers(0, case.num_classes, count).astype(np.int32)
    return images, labels
