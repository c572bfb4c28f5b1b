"""Runs: their folders, locks, logs, checkpoints and sessions, and the training loop."""
