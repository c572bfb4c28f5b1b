"""Reports of run folders: one self-contained page and its tables.

Only `diagnostic_pictures` and `network_pictures` import JAX.
"""
