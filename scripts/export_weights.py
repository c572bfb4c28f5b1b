"""Exports weights for another library, as `resflax export-weights` does."""

from resflax.commands.export_weights import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
