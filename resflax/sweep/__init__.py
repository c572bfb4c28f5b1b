"""Sweeps: their trials, the progress of each trial, and the launcher that runs missing trials."""
