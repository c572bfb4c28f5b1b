"""The same networks in PyTorch, timed beside ours if PyTorch is installed."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from resflax.benchmark.contender import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, Contender
from resflax.declarations.models import Custom, DenseNet, Model, ResNet
from resflax.models.zoo import NAMES, named


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class TorchBasicUnit(nn.Module):
    """A basic unit with the shortcut of option A, or a plain unit without a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, plain: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.stride, self.added_channels, self.plain = stride, outputs - inputs, plain

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H / stride, W / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if not self.plain:
            if self.added_channels:
                x = x[:, :, :: self.stride, :: self.stride]
                x = functional.pad(x, (0, 0, 0, 0, 0, self.added_channels))
            y = y + x
        return functional.relu(y)


class PooledClassifier(nn.Module):
    """The mean over all positions, followed by the classifier."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, classes)."""
        return self.head(x.mean((2, 3)))


def torch_resnet(units: int, classes: int, *, plain: bool) -> nn.Module:
    """A ResNet(6n + 2) or its plain twin (He et al. 2015, section 4.2)."""
    layers: list[nn.Module] = [_conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for stage, width in enumerate((16, 32, 64)):
        for unit in range(units):
            layers.append(
                TorchBasicUnit(inputs, width, 2 if stage and not unit else 1, plain=plain)
            )
            inputs = width
    return nn.Sequential(*layers, PooledClassifier(64, classes))


class TorchDenseLayer(nn.Module):
    """BN-ReLU-1x1 and BN-ReLU-3x3; the new maps are appended to the input."""

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


def torch_densenet(layers: int, growth_rate: int, classes: int) -> nn.Module:
    """A DenseNet-BC for small pictures (Huang et al. 2017, section 3)."""
    maps = 2 * growth_rate
    modules: list[nn.Module] = [_conv(3, maps, 3)]
    for block in range(3):
        if block:
            modules += [nn.BatchNorm2d(maps), nn.ReLU()]
            modules += [_conv(maps, maps // 2, 1), nn.AvgPool2d(2)]
            maps //= 2
        for _ in range(layers):
            modules.append(TorchDenseLayer(maps, growth_rate))
            maps += growth_rate
    modules += [nn.BatchNorm2d(maps), nn.ReLU(), PooledClassifier(maps, classes)]
    return nn.Sequential(*modules)


def torch_network(model: Model, classes: int) -> nn.Module | None:
    """The network in PyTorch, or None if it is not available there.

    CIFAR networks come from this file, and published ImageNet networks from torchvision, if it is
    installed.
    """
    model = model.resolved()
    if isinstance(model, Custom):
        return None
    if model.layout == "cifar":
        if isinstance(model, DenseNet):
            if model != DenseNet(model.depth, model.growth_rate).resolved():
                return None
            return torch_densenet(model.layers_per_block[0], model.growth_rate, classes)
        for shortcut in ("zero_pad", "none"):
            available = ResNet(model.depth, block="basic", shortcut=shortcut)
            if model == available.resolved():
                return torch_resnet(model.units_per_stage[0], classes, plain=shortcut == "none")
        return None
    try:
        from torchvision import models
    except ImportError:
        return None
    for name in NAMES:
        if named(name).resolved() == model and hasattr(models, name):
            network: nn.Module = getattr(models, name)(num_classes=classes)
            return network
    return None


def torch_contender(case: Case, *, compiled: bool) -> Contender | None:
    """The case in PyTorch, or None if its network is not available there.

    Images are channels-last, bfloat16 means AMP, and with `compiled` the network is compiled by
    torch.compile.
    """
    net = torch_network(case.model, case.num_classes)
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
    compile_seconds = time.perf_counter() - start
    return Contender(
        "torch.compile" if compiled else "torch",
        steps,
        compile_seconds,
        lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
    )
