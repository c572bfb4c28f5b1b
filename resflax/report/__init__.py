"""Reports of run folders: one self-contained page, its tables and its pictures.

What looks into networks imports JAX: `inspection`, and the pictures of networks, diagnostics and
probes. Nothing else here does.
"""
