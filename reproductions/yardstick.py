"""Trains PyTorch's ResNet-20 by the recipe of He et al. 2015, for comparison with resflax.

    python reproductions/yardstick.py OUTPUT.json [--data.data-dir DIR] [--seed 0]

Data, order of the examples, normalisation and learning rates are those of
experiments/he2015/figure6_cifar10.py. Network, augmentation and optimizer are PyTorch's. The
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

from resflax import CIFAR10, ResNet, UsageError
from resflax.benchmark.pytorch_networks import torch_resnet
from resflax.data.in_memory import Split, load_dataset
from resflax.feeding.order import ExampleOrder
from resflax.files import draft_of, sync_file, write_atomically
from resflax.terminal.command import run
from resflax.terminal.display import Display
from resflax.terminal.options import parse

SAVE_EVERY = 4_000
"""Steps between two saves."""


@dataclass(frozen=True)
class Options:
    """Trains PyTorch's ResNet-20 and writes its test error."""

    output: Annotated[Positional[Path], arg(metavar="OUTPUT.json")]
    """A JSON file for the result."""

    data: CIFAR10 = field(default_factory=lambda: CIFAR10(normalization="pixel"))
    """The data to train on."""

    depth: int = 20
    """Number of layers, 6n + 2."""

    steps: int = 64_000
    """Length of the training. The learning rate falls at one half and at three quarters of it."""

    seed: int = 0
    """Seed of the weights, the order and the augmentation."""


def augment(images: Tensor, padding: int) -> Tensor:
    """Shifts pictures (B, C, H, W) by up to `padding` pixels and mirrors half of them, at random.

    Pixels from outside a picture are zero.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    device = images.device
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), device=device)
    rows, columns = (torch.arange(n, device=device) for n in (height, width))
    mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(0), columns) + left
    index = torch.arange(count, device=device)[:, None, None]
    crops = padded.permute(0, 2, 3, 1)[index, (rows + top)[:, :, None], columns[:, None, :]]
    return crops.permute(0, 3, 1, 2)


def move_to(device: torch.device, split: Split, mean: np.ndarray) -> tuple[Tensor, Tensor]:
    """The pictures minus the mean picture, (N, C, H, W) float32 channels-last, and labels (N,)."""
    images = torch.from_numpy(split.images.astype(np.float32) - mean).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels.astype(np.int64))
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def measure_error(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The fraction of pictures that the network classifies wrongly."""
    net.eval()
    wrong = 0
    with torch.no_grad():
        for batch, classes in zip(images.split(1000), labels.split(1000), strict=True):
            wrong += int((net(batch).argmax(1) != classes).sum())
    net.train()
    return wrong / len(labels)


def main(arguments: Sequence[str]) -> None:
    """Trains, saves from time to time, and writes the result."""
    options = parse(Options, arguments)
    if (options.depth - 2) % 6 or options.depth < 8:
        raise UsageError(f"--depth is {options.depth}; it must be 6n+2 with n >= 1")
    if options.steps < 1:
        raise UsageError(f"--steps is {options.steps}; it must be at least 1")
    if not options.output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {options.output.parent}")
    with Display(Console()) as display:
        result = train(options, display)
    write_atomically(options.output, json.dumps(result, indent=1) + "\n")
    print(f"test error {result['test_error']:.2%}, {result['seconds']:.0f} s: {options.output}")


def train(options: Options, display: Display) -> dict[str, Any]:
    """Trains from the last save, or from the start, and returns the result as JSON values."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    dataset = load_dataset(options.data, display.items)
    mean = dataset.train.images.mean(0, dtype=np.float64).astype(np.float32)
    images, labels = move_to(device, dataset.train, mean)
    net = torch_resnet(ResNet(options.depth).resolved(), dataset.num_classes)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    placed: Any = net.to(device)
    net = placed.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    falls = [options.steps // 2, options.steps * 3 // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.1)
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    steps_done, seconds_before = restore(options, parts)

    order = ExampleOrder(len(labels), 128, options.seed)
    start = time.perf_counter()
    with display.bar("training", options.steps, steps_done) as bar:
        for step in range(steps_done, options.steps):
            indices = torch.from_numpy(order.batch(step).astype(np.int64)).to(device)
            optimizer.zero_grad(set_to_none=True)
            batch = augment(images[indices], options.data.crop_padding)
            functional.cross_entropy(net(batch), labels[indices]).backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % SAVE_EVERY == 0:
                save(options, parts, step + 1, seconds_before + time.perf_counter() - start)
            bar.set(step + 1)
    return {
        "test_error": measure_error(net, *move_to(device, dataset.test, mean)),
        "seconds": seconds_before + time.perf_counter() - start,
        "steps": options.steps,
        "depth": options.depth,
        "seed": options.seed,
        "data": options.data.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def save(options: Options, parts: dict[str, Any], step: int, seconds: float) -> None:
    """Saves the training after `step` steps in a file beside the output."""
    saved = options.output.with_suffix(".pt")
    states = {name: part.state_dict() for name, part in parts.items()}
    with draft_of(saved) as draft:
        torch.save({"step": step, "seconds": seconds, "of": identity(options), **states}, draft)
        sync_file(draft)
        draft.replace(saved)


def restore(options: Options, parts: dict[str, Any]) -> tuple[int, float]:
    """Restores the last save into `parts`, and returns its number of steps and of seconds.

    Both are 0 if there is no save.
    """
    path = options.output.with_suffix(".pt")
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    if saved["of"] != identity(options):
        raise UsageError(f"{path} holds another training; name another output")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    torch.manual_seed(
        options.seed + saved["step"]
    )  # continues with crops that were not drawn before
    return saved["step"], saved["seconds"]


def identity(options: Options) -> list[Any]:
    """The settings that a training must share with the one that continues it."""
    return [options.data.name, options.depth, options.steps, options.seed]


if __name__ == "__main__":
    run(main)
