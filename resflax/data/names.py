"""What the classes of a data set are called."""

from resflax.data.folder import classes_of
from resflax.data.prepared import open_set, set_features
from resflax.declarations.data import Data, ImageFolder
from resflax.errors import UsageError


def class_names(data: Data) -> list[str] | None:
    """The classes' names in order: numbers where the set has none; None if it is not there.

    Raises `UsageError` for a set that is there and cannot be used.
    """
    try:
        if isinstance(data, ImageFolder):
            return classes_of(data)
        builder = open_set(data)
    except UsageError:
        return None
    _, label = set_features(data, builder)
    return list(label.names)
