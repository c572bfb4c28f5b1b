"""The two failures a user can meet; everything else is a bug and keeps its traceback."""


class UsageError(ValueError):
    """Wrong usage, experiment or data. One line; the command lines exit with 2."""


class TrainingError(RuntimeError):
    """A run that failed while running. One line; the command lines exit with 1."""
