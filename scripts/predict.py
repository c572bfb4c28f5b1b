"""Predicts the classes of pictures, as `resflax predict` does."""

from resflax.commands.predict import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
