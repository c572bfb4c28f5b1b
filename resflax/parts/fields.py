"""Fields of classes that become linen modules later."""

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", bound=type)


def fields_from_annotations(cls: T) -> T:
    """Makes the annotated names of a class its fields, as linen does for its own modules.

    A class that is a linen module already is left to linen.
    """
    if not any(base.__module__.startswith("flax.linen") for base in cls.__mro__):
        dataclass(eq=False, repr=False)(cls)
    return cls
