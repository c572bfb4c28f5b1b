"""The parts of an experiment: frozen dataclasses that are checked when they are constructed.

Nothing here imports JAX.
"""
