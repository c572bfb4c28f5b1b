"""Networks of a user's own as declarations."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resflax.declarations.checks import check_types, refuse
from resflax.declarations.own import Own, Values, check_network, naming

if TYPE_CHECKING:  # a class or a text becomes an Own when constructed, and a mapping becomes Values
    AnyNetwork = str | type[Any] | Own
    AnyValues = Mapping[str, Any]
else:
    AnyNetwork = Own
    AnyValues = Values


@dataclass(frozen=True)
class Custom:
    """A network of your own: any linen module, built as `network(num_classes=..., **arguments)`.

    Its `__call__(images, *, train)` maps images (B, H, W, C) float to logits (B, num_classes)
    float32. If it has a field `layers`, it is given the `Layers` of the run there.
    """

    network: AnyNetwork
    """The class of the network, also as file.py:Class."""

    arguments: AnyValues = dataclasses.field(default_factory=Values)
    """Values of the network's own fields by their names. Fields that are left out have their
    defaults."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a class that is no such network, or for wrong arguments."""
        if not isinstance(self.arguments, Mapping):
            refuse(self, "arguments", "it must map the names of fields to values")
        network, arguments = self.network, self.arguments
        with naming(self, "network"):
            if not isinstance(network, Own) or network.is_loaded:
                if isinstance(network, type):
                    check_network(network)
                network = Own(network, **arguments)
                check_network(network.load())
                arguments = network.fields
            object.__setattr__(self, "network", network.without_fields())
            object.__setattr__(self, "arguments", Values(arguments))
        check_types(self)

    def resolved(self) -> "Custom":
        """The same network: its defaults are written out when it is declared."""
        return self
