"""The same networks in PyTorch.

Networks of basic units and DenseNet-BC are here, other published ImageNet networks are
torchvision's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from resflax.declarations.models import Custom, DenseNet, Model, ResNet
from resflax.models.zoo import NAMES, named


def torch_network(model: Model, classes: int) -> nn.Module | None:
    """The network in PyTorch, or None if it is not available there.

    Bottlenecks and dense layers for large pictures come from torchvision, if it is installed.
    """
    model = model.resolved()
    if isinstance(model, Custom):
        return None
    if isinstance(model, ResNet) and _has_torch_units(model):
        return torch_resnet(model, classes)
    if model.layout == "cifar":
        if not isinstance(model, DenseNet):
            return None
        if model != DenseNet(model.depth, model.growth_rate).resolved():
            return None
        return torch_densenet(model.layers_per_block[0], model.growth_rate, classes)
    try:
        from torchvision import models
    except ImportError:
        return None
    for name in NAMES:
        if named(name).resolved() == model and hasattr(models, name):
            network: nn.Module = getattr(models, name)(num_classes=classes)
            return network
    return None


def _has_torch_units(model: ResNet) -> bool:
    """Whether a resolved network consists of the units below and is otherwise standard."""
    if model.block != "basic" or model.order not in ("post", "full_pre"):
        return False
    if model.shortcut not in ("none", "zero_pad", "projection"):
        return False
    standard = ResNet(
        model.depth,
        layout=model.layout,
        block="basic",
        shortcut=model.shortcut,
        order=model.order,
        widening=model.widening,
    )
    return model == standard.resolved()


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class TorchZeroPadding(nn.Module):
    """The shortcut of option A: every second position, and channels of zeros."""

    def __init__(self, stride: int, added_channels: int) -> None:
        super().__init__()
        self.stride, self.added_channels = stride, added_channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + added channels, H / stride, W / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.added_channels))


class TorchBasicUnit(nn.Module):
    """A basic unit of order post or full_pre; with the shortcut none it is plain."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, model: ResNet, *, activated: bool
    ) -> None:
        """`activated` says whether the input of a pre-activated unit is activated already."""
        super().__init__()
        self.plain, self.pre = model.shortcut == "none", model.order == "full_pre"
        self.activated, self.changes_shape = activated, stride > 1 or inputs != outputs
        self.conv1 = _conv(inputs, outputs, 3, stride)
        if not (self.pre and activated):
            self.norm1 = nn.BatchNorm2d(inputs if self.pre else outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if self.changes_shape and model.shortcut == "zero_pad":
            self.shortcut = TorchZeroPadding(stride, outputs - inputs)
        elif self.changes_shape and not self.plain:
            self.shortcut = _conv(inputs, outputs, 1, stride)
            if not self.pre:
                self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H / stride, W / stride)."""
        if self.pre:
            y = x if self.activated else functional.relu(self.norm1(x))
            if self.changes_shape:
                x = y
            y = self.conv2(functional.relu(self.norm2(self.conv1(y))))
            return y if self.plain else y + self.shortcut(x)
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y if self.plain else y + self.shortcut(x))


class PooledClassifier(nn.Module):
    """The mean over all positions, followed by the classifier."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, classes)."""
        return self.head(x.mean((2, 3)))


def torch_resnet(model: ResNet, classes: int) -> nn.Module:
    """A resolved network of basic units (He et al. 2015 and 2016, Zagoruyko & Komodakis 2016)."""
    imagenet = model.layout == "imagenet"
    inputs = 64 if imagenet else 16
    stem = _conv(3, inputs, 7, 2) if imagenet else _conv(3, inputs, 3)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(inputs), nn.ReLU()]
    if imagenet:
        layers.append(nn.MaxPool2d(3, 2, 1))
    width = inputs * model.widening
    for stage, units in enumerate(model.units_per_stage):
        outputs = width * 2**stage
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            activated = not stage and not unit
            layers.append(TorchBasicUnit(inputs, outputs, stride, model, activated=activated))
            inputs = outputs
    if model.order == "full_pre":
        layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return nn.Sequential(*layers, PooledClassifier(inputs, classes))


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
