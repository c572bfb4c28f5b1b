"""Prepares a set of pictures, as `resflax prepare-data` does."""

from resflax.commands.prepare_data import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
