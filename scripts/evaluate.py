"""Measures trained networks, as `resflax evaluate` does."""

from resflax.commands.evaluate import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
