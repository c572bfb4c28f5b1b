"""The failures that a user may meet. Any other exception is a bug and keeps its traceback."""


class UsageError(ValueError):
    """Wrong usage, experiment or data. The text is one line, and commands exit with 2."""


class TrainingError(RuntimeError):
    """A failure while a command runs. The text is one line, and commands exit with 1."""


class Interrupted(BaseException):
    """A signal asked the program to end, and everything that had to be saved was saved.

    Like KeyboardInterrupt it is not an error, so `except Exception` does not catch it. Commands
    exit with 128 + the signal's number.
    """

    def __init__(self, signal: int, message: str = "") -> None:
        super().__init__(message)
        self.signal = signal
