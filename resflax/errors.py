"""The failures a user can meet; everything else is a bug and keeps its traceback."""


class UsageError(ValueError):
    """Wrong usage, experiment or data. One line; the command lines exit with 2."""


class TrainingError(RuntimeError):
    """A run that failed while running. One line; the command lines exit with 1."""


class Interrupted(BaseException):
    """A signal that asked the program to end, after what had to be saved was saved.

    Like KeyboardInterrupt it is no error, so `except Exception` lets it pass. The command lines
    exit with 128 + the signal's number.
    """

    def __init__(self, signal: int, message: str = "") -> None:
        super().__init__(message)
        self.signal = signal
