"""Sends runs to TensorBoard or Weights & Biases, as `resflax track` does."""

from resflax.commands.track import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
