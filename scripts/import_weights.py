"""Imports weights from another library, as `resflax import-weights` does."""

from resflax.commands.import_weights import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
