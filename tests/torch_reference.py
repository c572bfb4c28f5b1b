"""Well-known PyTorch networks, written out for comparison: structure and parameter names.

`ResNet` and `DenseNet` are torchvision's, `ResNetV2` is timm's pre-activation ResNet (`resnetv2_*`
with batch norm and without weight standardisation), `CifarResNet` is akamaster's
pytorch_resnet_cifar10 (option A), `WideResNet` is that of Zagoruyko & Komodakis 2016. Sizes are
free, so that a test can be small. Weights keep PyTorch's default initialisation; a test that
compares gives every tensor its own values.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """torchvision.models.resnet.BasicBlock."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), nn.BatchNorm2d(planes)
        self.downsample = _downsample(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return functional.relu(branch + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """torchvision.models.resnet.Bottleneck: the stride is on the 3x3 ("v1.5")."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        inner, outputs = planes * width // 64 * groups, 4 * planes
        self.conv1, self.bn1 = _conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3, stride, groups), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = _conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.bn1(self.conv1(x)))
        branch = functional.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return functional.relu(branch + (x if self.downsample is None else self.downsample(x)))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """torchvision.models.ResNet.

    resnet18: `ResNet(BasicBlock, (2, 2, 2, 2))`; resnext50_32x4d: `ResNet(Bottleneck,
    (3, 4, 6, 3), groups=32, width_per_group=4)`; wide_resnet50_2 has `width_per_group=128`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, units in enumerate(layers):
            planes, blocks = 64 * 2**stage, []
            for unit in range(units):
                stride = 2 if stage > 0 and unit == 0 else 1
                blocks.append(block(inputs, planes, stride, groups, width_per_group))
                inputs = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for name, stage in self.named_children():
            if name.startswith("layer"):
                x = stage(x)
        return self.fc(x.mean((2, 3)))


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth_rate: int) -> None:
        super().__init__()
        inner = 4 * growth_rate
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, inner, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), _conv(inner, growth_rate, 3)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(functional.relu(self.norm1(x)))
        new = self.conv2(functional.relu(self.norm2(new)))
        return torch.cat((x, new), 1)


class DenseNet(nn.Module):
    """torchvision.models.DenseNet, e.g. densenet121: `DenseNet(32, (6, 12, 24, 16), 64)`."""

    def __init__(
        self,
        growth_rate: int,
        block_config: Sequence[int],
        num_init_features: int,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        maps = num_init_features
        self.features = nn.Sequential(
            OrderedDict(
                conv0=_conv(3, maps, 7, 2),
                norm0=nn.BatchNorm2d(maps),
                relu0=nn.ReLU(),
                pool0=nn.MaxPool2d(3, 2, 1),
            )
        )
        for i, depth in enumerate(block_config, start=1):
            block = nn.Sequential()
            for layer in range(1, depth + 1):
                block.add_module(f"denselayer{layer}", _DenseLayer(maps, growth_rate))
                maps += growth_rate
            self.features.add_module(f"denseblock{i}", block)
            if i < len(block_config):
                transition = OrderedDict(
                    norm=nn.BatchNorm2d(maps),
                    relu=nn.ReLU(),
                    conv=_conv(maps, maps // 2, 1),
                    pool=nn.AvgPool2d(2, 2),
                )
                self.features.add_module(f"transition{i}", nn.Sequential(transition))
                maps //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(maps))
        self.classifier = nn.Linear(maps, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.features(x)).mean((2, 3)))


class _PreActBottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        changes = stride > 1 or inputs != outputs
        self.downsample = nn.Sequential() if changes else None
        if self.downsample is not None:
            self.downsample.add_module("conv", _conv(inputs, outputs, 1, stride))
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, inner, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), _conv(inner, inner, 3, stride)
        self.norm3, self.conv3 = nn.BatchNorm2d(inner), _conv(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        branch = functional.relu(self.norm2(self.conv1(activated)))
        branch = functional.relu(self.norm3(self.conv2(branch)))
        return shortcut + self.conv3(branch)


class ResNetV2(nn.Module):
    """timm.models.resnetv2.ResNetV2 with bottlenecks; resnetv2_50: `ResNetV2((3, 4, 6, 3))`.

    The stem pools before its first BN and ReLU, which stand in the first unit. The classifier is
    a 1x1 convolution: `head.fc.weight` is (classes, C, 1, 1).
    """

    def __init__(self, layers: Sequence[int], num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(OrderedDict(conv=_conv(3, 64, 7, 2), pool=nn.MaxPool2d(3, 2, 1)))
        self.stages = nn.Sequential()
        inputs = 64
        for stage, units in enumerate(layers):
            outputs, blocks = 256 * 2**stage, nn.Sequential()
            for unit in range(units):
                stride = 2 if stage > 0 and unit == 0 else 1
                blocks.append(_PreActBottleneck(inputs, outputs, stride))
                inputs = outputs
            self.stages.append(nn.Sequential(OrderedDict(blocks=blocks)))
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Sequential(OrderedDict(fc=nn.Conv2d(inputs, num_classes, 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stages(self.stem(x))))
        return self.head(x.mean((2, 3), keepdim=True)).flatten(1)


class _CifarBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), nn.BatchNorm2d(planes)
        self.stride, self.missing = stride, planes - inputs

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        side = self.missing // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(branch + functional.pad(shortcut, (0, 0, 0, 0, side, side)))


class CifarResNet(nn.Module):
    """akamaster's CIFAR ResNet, option A with the zeros split: resnet20 is `CifarResNet(3)`."""

    def __init__(self, units: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 16, 3), nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, units)
        self.layer2 = self._stage(16, 32, units)
        self.layer3 = self._stage(32, 64, units)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(inputs: int, planes: int, units: int) -> nn.Sequential:
        first = _CifarBlock(inputs, planes, planes // inputs)
        return nn.Sequential(first, *(_CifarBlock(planes, planes, 1) for _ in range(units - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class _WideBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-dropout-conv (Zagoruyko & Komodakis 2016, Figure 1d)."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs, 3)
        self.dropout = nn.Dropout(dropout)
        self.projection = None if inputs == outputs else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(self.bn1(x))
        branch = functional.relu(self.bn2(self.conv1(activated)))
        branch = self.conv2(self.dropout(branch))
        return branch + (x if self.projection is None else self.projection(activated))


class WideResNet(nn.Module):
    """WRN-depth-k for k > 1 (Zagoruyko & Komodakis 2016, Table 1): `WideResNet(28, 10)`."""

    def __init__(self, depth: int, k: int, num_classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, inputs = _conv(3, 16, 3), 16
        for group, outputs in enumerate((16 * k, 32 * k, 64 * k), start=1):
            blocks = nn.Sequential()
            for block in range((depth - 4) // 6):
                stride = 2 if group > 1 and block == 0 else 1
                blocks.append(_WideBlock(inputs, outputs, stride, dropout))
                inputs = outputs
            self.add_module(f"group{group}", blocks)
        self.bn, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, group in self.named_children():
            if name.startswith("group"):
                x = group(x)
        return self.fc(functional.relu(self.bn(x)).mean((2, 3)))
