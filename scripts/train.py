"""Trains an experiment, as `resflax train` does."""

from resflax.commands.train import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
