"""The layouts that residual and dense networks share."""

from typing import Literal

Layout = Literal["cifar", "imagenet"]
"""cifar: a 3x3 stem and three stages, for small pictures; imagenet: a 7x7 stem, pooling and four
stages."""

DEEPEST = 10_000
"""Largest depth: that of the deepest nets ever trained (Xiao et al. 2018, arXiv 1806.05393)."""
