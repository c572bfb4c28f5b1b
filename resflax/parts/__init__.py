"""Classes of a user's own that take part in a network: their source, its hash, and running it.

Nothing here imports JAX. The code of a class may import it.
"""
