"""Shows the layers of a network, as `resflax summary` does."""

from resflax.commands.summary import main
from resflax.terminal.command import run

if __name__ == "__main__":
    run(main)
