"""Measures the speed of training steps, as `resflax benchmark` does."""

from resflax.commands.benchmark import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
