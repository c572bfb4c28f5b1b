"""Reports of run folders: one self-contained page and its tables.

Only `diagnostic_pictures` and `probe_pictures` import JAX.
"""
