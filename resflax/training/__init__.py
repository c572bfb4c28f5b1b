"""Training as pure functions: the loss, a step, the optimizer, measurements, statistics.

Nothing here uses files, consoles or locks, so all of it can be used on its own in a notebook.
"""
