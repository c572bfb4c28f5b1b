"""The commands: each module reads the options of one, calls the packages below, and prints."""
