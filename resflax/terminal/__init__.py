"""The terminal: command lines, progress, and signals that end a program."""
