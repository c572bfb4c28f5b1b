"""Reports of run folders: one self-contained page, its tables and its pictures.

Only what looks into networks imports JAX: `inspection`, `diagnostic_pictures`, `probe_pictures`.
"""
