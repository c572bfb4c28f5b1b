"""Makes a deeper run that begins as the network of another, as `resflax deepen` does."""

from resflax.commands.deepen import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
