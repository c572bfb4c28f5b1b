"""A small valid experiment whose fields tests replace."""

from typing import Any

from resflax import Experiment, ResNet

COMPLETE: dict[str, Any] = {"name": "e", "model": ResNet(depth=20), "batch_size": 128, "steps": 10}


def experiment(**fields: Any) -> Experiment:
    """The experiment with some fields replaced."""
    return Experiment(**COMPLETE | fields)
