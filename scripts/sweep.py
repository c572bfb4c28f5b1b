"""Runs an experiment's sweep, as `resflax sweep` does."""

from resflax.commands.sweep import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
