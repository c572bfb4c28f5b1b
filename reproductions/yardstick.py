"""A plain PyTorch ResNet-20 by the recipe of He et al. 2015 on the same files: the yardstick.

    python reproductions/yardstick.py OUTPUT.json [--data.data-dir DIR] [--seed 0]

Data, order of the examples, normalisation and learning rates are those of
experiments/he2015/figure6_cifar10.py; network, augmentation and optimizer are PyTorch's. The
training is saved beside the output every 4,000 steps, and the same command continues it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Positional, arg

from resflax import CIFAR10, UsageError
from resflax.benchmark.peers import resnet
from resflax.command_line import parse, run
from resflax.data.feed import Order
from resflax.data.source import Split, load
from resflax.training.display import Display
from resflax.training.files import write_atomically

SAVE_EVERY = 4_000


@dataclass(frozen=True)
class Options:
    """Trains PyTorch's ResNet-20 and writes what it reached."""

    output: Annotated[Positional[Path], arg(metavar="OUTPUT.json")]
    """Where the result is written."""

    data: CIFAR10 = field(default_factory=lambda: CIFAR10(normalization="pixel"))
    """What it learns from."""

    depth: int = 20
    """6n + 2 layers."""

    steps: int = 64_000
    """Length of the training; the learning rate falls at one half and three quarters."""

    seed: int = 0
    """Decides weights, order and augmentation."""


def augmented(images: Tensor, padding: int) -> Tensor:
    """Crops (B, C, H, W) pictures padded with zeros at random places and mirrors half of them."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    device = images.device
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), device=device)
    rows, columns = (torch.arange(n, device=device) for n in (height, width))
    mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(0), columns) + left
    index = torch.arange(count, device=device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[index, (rows + top)[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def on_device(split: Split, mean: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, H, W) float32 less the mean picture, channels last, and labels (N,)."""
    images = torch.from_numpy(split.images.astype(np.float32) - mean).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels.astype(np.int64))
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def error(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of wrong first guesses."""
    net.eval()
    wrong = 0
    with torch.no_grad():
        for some, true in zip(images.split(1000), labels.split(1000), strict=True):
            wrong += int((net(some).argmax(1) != true).sum())
    net.train()
    return wrong / len(labels)


def main(arguments: Sequence[str]) -> None:
    """Trains, saves now and then, and writes the result."""
    options = parse(Options, arguments)
    if (options.depth - 2) % 6 or options.depth < 8:
        raise UsageError(f"--depth is {options.depth}; it must be 6n+2 with n >= 1")
    if options.steps < 1:
        raise UsageError(f"--steps is {options.steps}; it must be at least 1")
    if not options.output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {options.output.parent}")
    with Display(Console()) as display:
        found = train(options, display)
    write_atomically(options.output, json.dumps(found, indent=1) + "\n")
    print(f"test error {found['test_error']:.2%}, {found['seconds']:.0f} s: {options.output}")


def train(options: Options, display: Display) -> dict[str, Any]:
    """The whole training, from where it was saved."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    dataset = load(options.data, display.items)
    mean = dataset.train.images.mean(0, dtype=np.float64).astype(np.float32)
    images, labels = on_device(dataset.train, mean, device)
    net = resnet((options.depth - 2) // 6, dataset.num_classes, plain=False)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    placed: Any = net.to(device)
    net = placed.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    halves = [options.steps // 2, options.steps * 3 // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, halves, gamma=0.1)
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    begun, before = restore(options, parts)

    order = Order(len(labels), 128, options.seed)
    started = time.perf_counter()
    with display.bar("training", options.steps, begun) as bar:
        for step in range(begun, options.steps):
            chosen = torch.from_numpy(order.batch(step).astype(np.int64)).to(device)
            optimizer.zero_grad(set_to_none=True)
            batch = augmented(images[chosen], options.data.crop_padding)
            functional.cross_entropy(net(batch), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % SAVE_EVERY == 0:
                save(options, parts, step + 1, before + time.perf_counter() - started)
            bar.set(step + 1)
    return {
        "test_error": error(net, *on_device(dataset.test, mean, device)),
        "seconds": before + time.perf_counter() - started,
        "steps": options.steps,
        "depth": options.depth,
        "seed": options.seed,
        "data": options.data.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def save(options: Options, parts: dict[str, Any], step: int, seconds: float) -> None:
    """Saves the training beside the output."""
    draft = options.output.with_suffix(".pt.tmp")
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, "seconds": seconds, "of": identity(options), **states}, draft)
    draft.replace(options.output.with_suffix(".pt"))


def restore(options: Options, parts: dict[str, Any]) -> tuple[int, float]:
    """Steps and seconds behind the training that was saved, which `parts` then hold."""
    path = options.output.with_suffix(".pt")
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    if saved["of"] != identity(options):
        raise UsageError(f"{path} holds another training; name another output")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    torch.manual_seed(options.seed + saved["step"])  # other crops, no less random
    return saved["step"], saved["seconds"]


def identity(options: Options) -> list[Any]:
    """What makes it this training."""
    return [options.data.name, options.depth, options.steps, options.seed]


if __name__ == "__main__":
    run(main)
