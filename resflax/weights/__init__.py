"""Weights with the names and layouts of torchvision, timm and pytorch_resnet_cifar10."""

from resflax.weights.convert import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
