"""Fields of classes that become linen modules later."""

import re
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", bound=type)


def fields_from_annotations(cls: T) -> T:
    """Makes the annotated names of a class its fields, as linen does for its own modules.

    A class that is a linen module already is left to linen. Raises `TypeError` for a field without
    a default, because the fields of the base class come before it.
    """
    if any(base.__module__.startswith("flax.linen") for base in cls.__mro__):
        return cls
    try:
        dataclass(eq=False, repr=False)(cls)
    except TypeError as error:
        without_default = re.search(r"non-default argument '(\w+)'", str(error))
        if without_default is None:
            raise
        message = f"the field {without_default[1]} of {cls.__name__} needs a default"
        raise TypeError(message) from None
    return cls
