"""Drawings of networks: units, stages and dense blocks, made from the graph of a network.

None of them imports JAX. Lengths are multiples of the size of the text, and y grows downwards.
"""
