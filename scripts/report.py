"""Writes a report of runs and sweeps, as `resflax report` does."""

from resflax.commands.report import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
