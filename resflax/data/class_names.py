"""The names of a data set's classes."""

from resflax.data.image_folder import classes_of
from resflax.data.prepared_sets import label_feature, open_prepared_set
from resflax.declarations.data import Data, ImageFolder
from resflax.errors import UsageError


def class_names(data: Data) -> list[str] | None:
    """The names of the classes in order, or None if the set cannot be found.

    If a set does not name its classes, their names are their numbers. Raises `UsageError` if a set
    is found but cannot be used.
    """
    try:
        if isinstance(data, ImageFolder):
            return classes_of(data)
        builder = open_prepared_set(data)
    except UsageError:
        return None
    return list(label_feature(data, builder).names)
