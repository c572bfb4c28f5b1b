"""Weights with the names and layouts of torchvision, timm and pytorch_resnet_cifar10."""
