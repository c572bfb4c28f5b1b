"""Sweeps: what is to be run, where it stands, and the launcher that runs what is missing."""
