"""The same networks in PyTorch, where it is installed: the yardstick from outside."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from resflax.benchmark.contender import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, Contender
from resflax.declarations.models import DenseNet, Model, ResNet
from resflax.models.zoo import NAMES, named


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Unit(nn.Module):
    """A basic unit with option A, or without a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, plain: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.stride, self.missing, self.plain = stride, outputs - inputs, plain

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H / stride, W / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if not self.plain:
            if self.missing:
                x = x[:, :, :: self.stride, :: self.stride]
                x = functional.pad(x, (0, 0, 0, 0, 0, self.missing))
            y = y + x
        return functional.relu(y)


class Pooled(nn.Module):
    """Mean over places, then the classifier."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, classes)."""
        return self.head(x.mean((2, 3)))


def resnet(units: int, classes: int, *, plain: bool) -> nn.Module:
    """A ResNet(6n + 2) or its plain twin (He et al. 2015, section 4.2)."""
    layers: list[nn.Module] = [_conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for stage, width in enumerate((16, 32, 64)):
        for unit in range(units):
            layers.append(Unit(inputs, width, 2 if stage and not unit else 1, plain=plain))
            inputs = width
    return nn.Sequential(*layers, Pooled(64, classes))


class DenseLayer(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, behind all maps before."""

    def __init__(self, inputs: int, growth_rate: int) -> None:
        super().__init__()
        middle = 4 * growth_rate
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, middle, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(middle), _conv(middle, growth_rate, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + k, H, W)."""
        y = self.conv1(functional.relu(self.norm1(x)))
        y = self.conv2(functional.relu(self.norm2(y)))
        return torch.cat((x, y), 1)


def densenet(layers: int, growth_rate: int, classes: int) -> nn.Module:
    """A DenseNet-BC for small pictures (Huang et al. 2017, section 3)."""
    maps = 2 * growth_rate
    found: list[nn.Module] = [_conv(3, maps, 3)]
    for block in range(3):
        if block:
            found += [nn.BatchNorm2d(maps), nn.ReLU(), _conv(maps, maps // 2, 1), nn.AvgPool2d(2)]
            maps //= 2
        for _ in range(layers):
            found.append(DenseLayer(maps, growth_rate))
            maps += growth_rate
    return nn.Sequential(*found, nn.BatchNorm2d(maps), nn.ReLU(), Pooled(maps, classes))


def network(model: Model, classes: int) -> nn.Module | None:
    """PyTorch's form of a network; None if there is none here.

    CIFAR nets are those above; published ImageNet nets are torchvision's, where it is installed.
    """
    model = model.resolved()
    if model.layout == "cifar":
        if isinstance(model, DenseNet):
            if model != DenseNet(model.depth, model.growth_rate).resolved():
                return None
            return densenet(model.layers_per_block[0], model.growth_rate, classes)
        for shortcut in ("zero_pad", "none"):
            like = ResNet(model.depth, block="basic", shortcut=shortcut)
            if model == like.resolved():
                return resnet(model.units_per_stage[0], classes, plain=shortcut == "none")
        return None
    try:
        from torchvision import models
    except ImportError:
        return None
    for name in NAMES:
        if named(name).resolved() == model and hasattr(models, name):
            found: nn.Module = getattr(models, name)(num_classes=classes)
            return found
    return None


def torchs(case: Case, *, compiled: bool) -> Contender | None:
    """The case in PyTorch: channels-last, AMP for bfloat16; with `compiled` by torch.compile."""
    net = network(case.model, case.num_classes)
    if net is None:
        return None
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    placed: Any = net.to(device)
    net = placed.to(memory_format=torch.channels_last).train()
    forward: Callable[[Tensor], Any] = torch.compile(net) if compiled else net
    height, width, channels = case.image_shape
    images = torch.randn(case.batch_size, channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, case.num_classes, (case.batch_size,), device=device)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    half = case.precision == "bfloat16"

    def steps(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps(1)
    seconds = time.perf_counter() - start
    return Contender(
        "torch.compile" if compiled else "torch",
        steps,
        seconds,
        lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
    )
