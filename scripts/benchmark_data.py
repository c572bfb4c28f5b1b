"""Measures the speed of reading pictures, as `resflax benchmark-data` does."""

from resflax.commands.benchmark_data import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
