"""All networks that an experiment may declare."""

from resflax.declarations.custom import Custom
from resflax.declarations.densenet import DenseNet
from resflax.declarations.resnet import ResNet

__all__ = ["Custom", "DenseNet", "Model", "Published", "ResNet"]

Published = ResNet | DenseNet
"""Networks of the papers."""

Model = Published | Custom
"""Networks that an experiment may have."""
