"""Values of fields as parts of English sentences, such as "at 32 layers"."""

from collections.abc import Mapping
from typing import Any

from resflax.report.families import VARIANT
from resflax.report.pairs import SWEEP

_SHORTCUTS = {
    "none": "in the plain net",
    "zero_pad": "in the net with zero-padding",
    "projection": "in the net with projections",
    "projection_all": "in the net with projections in every unit",
    "projection_pooled": "in the net with pooled projections",
    "constant_scaling": "in the net with constant scaling",
    "exclusive_gating": "in the net with exclusive gating",
    "shortcut_gating": "in the net with shortcut-only gating",
    "conv": "in the net with 1x1 convolutions as shortcuts",
    "dropout": "in the net with dropout on the shortcuts",
}

_FORMS = {
    "model.depth": "at {} layers",
    "model.growth_rate": "at growth rate {}",
    "model.shortcut": "in the net with the shortcut {}",
    "model.type": "in the {}",
    "model.network": "in {}",
    "model.order": "in the order {}",
    "model.dropout_rate": "at a dropout rate of {}",
    "model.gate_bias": "with gate bias {}",
    "data.name": "on {}",
    "batch_size": "at batch size {}",
    "optimizer.learning_rate": "at learning rate {}",
    "optimizer.weight_decay": "at weight decay {}",
    "optimizer.momentum": "at momentum {}",
    "optimizer.type": "with the optimizer {}",
    "schedule.type": "with the schedule {}",
    "steps": "after {} steps",
    "epochs": "after {:g} epochs",
    "name": 'in the experiment "{}"',
    SWEEP: 'in the sweep "{}"',
    VARIANT: 'with "{}"',
}
"""The phrases of fields that have one of their own."""

_WORDS = {
    "model.bottleneck": "bottlenecks",
    "optimizer.nesterov": "Nesterov momentum",
    "data.flip": "flips",
}
"""The names in sentences of fields that are on or off, where they differ from the fields' names."""


def phrase(name: str, value: Any) -> str:
    """A field's value as a phrase, such as "at 32 layers" or "without bottlenecks"."""
    if name == "model.shortcut" and value in _SHORTCUTS:
        return _SHORTCUTS[value]
    if name == "initial_weights":
        return "from scratch" if value is None else f"from the weights of {value}"
    words = _WORDS.get(name) or name.rpartition(".")[2].replace("_", " ")
    if value is None or value is False:
        return f"without {words}"
    if value is True:
        return f"with {words}"
    form = _FORMS.get(name)
    return f"with {words} {value}" if form is None else form.format(value)


def phrases(values: Mapping[str, Any], joint: str = " and ") -> str:
    """The phrases of several fields, with a joint between them."""
    return joint.join(phrase(name, value) for name, value in values.items())
